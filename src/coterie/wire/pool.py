"""Connections to one server, kept and used again. What the pool promises:

* An exchange gets the idle connection that was used last, else a fresh one; there is no bound on how many are in use.
* A connection is idle as soon as its answer is complete. It is closed when the server closes it, when the server says
  what it was not asked, after ``idle_s`` seconds, and, the oldest first, when there are more than ``max_idle``. One
  timer looks after all of them.
* A server may close an idle connection in the moment in which it is used again. The exchange is then sent once more, on
  a fresh connection, unseen by the caller. That is for stale connections alone: the connection had been idle for
  :data:`STALE_IDLE_S` or longer, and it ended within :data:`STALE_BREAK_S` of the request, before a byte of the answer.
  Any other break may be the work of the request, so it is told and not repeated.
* No answer is compressed, as far as the server heeds what it is asked.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from typing import Final

from coterie.wire.dial import dial
from coterie.wire.http1 import Connection, Exchange, ExchangeError, Owner
from coterie.wire.origin import Origin
from coterie.wire.request import RequestForm

__all__ = ["STALE_BREAK_S", "STALE_IDLE_S", "Origin", "Pool"]

STALE_IDLE_S: Final = 0.5
"""Seconds of idleness after which a server may have given a connection up; none does while it is in steady use."""

STALE_BREAK_S: Final = 1.0
"""Seconds that the news of a closed connection may take. Whoever keeps it for longer has worked on the request."""


class Pool:
    """Sends requests to ``origin``. Belongs to one event loop. To be closed.

    ``ssl_context`` is for an origin with TLS; the default one trusts the system's authorities and checks the name.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        connect_timeout_s: float,
        idle_s: float = 60.0,
        max_idle: int = 256,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.origin = origin
        self.connections_made = 0
        """Connections that were made so far."""
        self.connections_reused = 0
        """Exchanges so far that began on a connection which had carried another."""
        self.connections_open = 0
        """Connections that stand now."""
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._max_idle = max_idle
        self._tls = (ssl_context or _default_context()) if origin.tls else None
        self._own_headers = {"host": origin.authority, "accept-encoding": "identity"}
        self._owner = Owner(self._made, self._free, self._lost)
        self._idle: dict[Connection, float] = {}  # since when, the longest first
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def connections_idle(self) -> int:
        """Connections that wait for an exchange now."""
        return len(self._idle)

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Exchange:
        """Send a request, on a connection that is made where none is idle. The exchange is to be closed.

        Raises :class:`ExchangeError` where none can be made, and ``ValueError`` for what cannot be written as a request
        and for headers that are the connection's own (``host``, ``content-length``, ...).
        """
        return await self.send_form(self.form(method, path, headers), body)

    def form(self, method: str, path: str, headers: Mapping[str, str]) -> RequestForm:
        """The form of requests to be sent here. Raises ``ValueError`` as :meth:`send` does."""
        return RequestForm.of(method, path, self._own_headers, headers)

    async def send_form(self, form: RequestForm, body: bytes) -> Exchange:
        """Send a request of ``form``, as :meth:`send` does. Raises :class:`ExchangeError`."""
        head, to_head = form.head(len(body)), form.method == "HEAD"
        if self._closed:
            raise ExchangeError("the pool is closed", "closed")
        connection, idle_s = self._take_idle()
        if connection is None:
            exchange = Exchange(head, body, to_head=to_head)
            await self._connect(exchange)
        else:
            again = self._again if idle_s >= STALE_IDLE_S else None
            exchange = Exchange(head, body, to_head=to_head, again=again)
            exchange.reused = True
            self.connections_reused += 1
            connection.carry(exchange)
        return exchange

    async def close(self) -> None:
        """Close the idle connections now, and those in use when their exchange ends."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._idle:
            self._idle.popitem()[0].drop()
        await asyncio.sleep(0)  # the event loop closes a socket in its next round

    def _take_idle(self) -> tuple[Connection | None, float]:
        """The idle connection that was used last, and for how long (seconds) it was not."""
        while self._idle:
            connection, since_s = self._idle.popitem()
            if connection.usable:
                return connection, asyncio.get_running_loop().time() - since_s
        return None, 0.0

    async def _connect(self, exchange: Exchange) -> None:
        begun_s = time.perf_counter()  # the event loop's clock may stand still for a whole millisecond
        try:
            await dial(self.origin, Connection(exchange, self._owner), self._tls, self._connect_timeout_s)
        finally:
            exchange.connect_s = time.perf_counter() - begun_s

    def _again(self, exchange: Exchange) -> asyncio.Task[None] | None:
        loop = asyncio.get_running_loop()
        if loop.time() - exchange.begun_at_s > STALE_BREAK_S:
            return None
        return loop.create_task(self._send_again(exchange))

    async def _send_again(self, exchange: Exchange) -> None:
        exchange.reused = False
        try:
            await self._connect(exchange)
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits for the answer must have it
            exchange.fail(error)

    def _made(self, _: Connection) -> None:
        self.connections_made += 1
        self.connections_open += 1

    def _free(self, connection: Connection) -> None:
        """Keep a connection whose exchange has ended."""
        loop = asyncio.get_running_loop()
        if self._closed:
            connection.drop()
            return
        self._idle[connection] = loop.time()
        if len(self._idle) > self._max_idle:
            self._drop_idle(next(iter(self._idle)))
        if self._timer is None:
            self._timer = loop.call_later(self._idle_s, self._expire)

    def _lost(self, connection: Connection) -> None:
        self.connections_open -= 1
        self._idle.pop(connection, None)

    def _drop_idle(self, connection: Connection) -> None:
        del self._idle[connection]
        connection.drop()

    def _expire(self) -> None:
        """Close what has been idle for too long, and look again when the next one will have been."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for connection, since_s in list(self._idle.items()):
            if since_s + self._idle_s > loop.time():
                self._timer = loop.call_at(since_s + self._idle_s, self._expire)
                return
            self._drop_idle(connection)


def _default_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
