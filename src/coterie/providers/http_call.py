"""One request to another server, watched from its sending until its answer has come or is not wanted any more.

What it promises: whatever breaks the exchange while it is open (``async with``) is raised as an ``ApiError``, deadlines
too; and at its end the connection is dropped, which tells the server that nobody is listening. That of a whole answer
is kept: it is good for the next request.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Final

from coterie.config import ProviderSettings
from coterie.errors.upstream import from_transport
from coterie.providers.deadlines import Deadlines
from coterie.wire.http1 import Exchange, ExchangeError, Head
from coterie.wire.lingua import Attempt
from coterie.wire.pool import Pool
from coterie.wire.request import RequestForm

_LINGER_S: Final = 2.0
"""How long a connection may take after ``[DONE]`` to become free for the next request."""


class HttpCall:
    """A request of ``form`` with ``body``, under the deadlines of ``limits``. ``attempt`` learns how it went."""

    __slots__ = ("_attempt", "_body", "_form", "_limits", "_pool", "answered", "deadlines", "exchange")

    exchange: Exchange
    deadlines: Deadlines

    def __init__(self, pool: Pool, form: RequestForm, body: bytes, limits: ProviderSettings, attempt: Attempt) -> None:
        self._pool = pool
        self._form = form
        self._body = body
        self._limits = limits
        self._attempt = attempt
        self.answered = False
        """Whether everything that counts has come."""

    async def __aenter__(self) -> HttpCall:
        """Send the request. Raises ``ApiError``."""
        begun_s, limits = time.perf_counter(), self._limits
        try:
            self.exchange = await self._pool.send_form(self._form, self._body)
        except ExchangeError as error:
            self._attempt.connect_s = time.perf_counter() - begun_s
            raise from_transport(error.kind, detail=str(error)) from None
        self.deadlines = Deadlines(
            limits.first_token_timeout_s, limits.idle_timeout_s, limits.total_timeout_s, self.exchange.fail
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.deadlines.stop()
        self.exchange.tap = None  # and no cycle of references is left
        if not self.answered:
            self.exchange.close()
        elif not self.exchange.complete:
            # The end of the body is still on its way, and the connection good for the next request after it.
            asyncio.get_running_loop().call_later(_LINGER_S, self.exchange.close)
        if isinstance(error, ExchangeError):
            raise from_transport(error.kind, detail=str(error)) from None

    async def head(self) -> Head:
        """Status and headers. The connection that they came on, or did not, may be another than at first."""
        try:
            return await self.exchange.head()
        finally:
            self._attempt.connect_s = self.exchange.connect_s
