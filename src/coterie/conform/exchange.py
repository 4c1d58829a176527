"""Asking a server under judgement, and keeping what it answered as bytes.

What it promises: an exchange is bounded in time and bytes, and whatever becomes of it is a :class:`Reply`: a connection
that breaks is something to judge, not an exception. No redirect is followed. The key goes into the request's header and
nowhere else.

Each exchange has a connection of its own: a server may close a kept one whenever it likes, and a request that meets the
closing would be a failure that no rule forbids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final

import orjson

from coterie.wire.http1 import Exchange, ExchangeError
from coterie.wire.origin import Origin
from coterie.wire.pool import Pool

MAX_REPLY_BYTES: Final = 8 * 1024 * 1024
"""Bytes of one answer at most."""

_CONNECT_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, or what came of it. ``broken`` says how the exchange failed; the status is 0 without a head."""

    method: str
    path: str
    sent: bytes
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    broken: str | None = None

    @property
    def json(self) -> Any:
        """The body as JSON; ``None`` where it is none."""
        return parsed(self.body)

    @property
    def object(self) -> dict[str, Any]:
        """The body's JSON object; empty where it is none."""
        value = self.json
        return value if isinstance(value, dict) else {}

    @property
    def content_type(self) -> str:
        """The media type without its parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def asked(self) -> str:
        """What was asked, in short."""
        body = self.sent[:400].decode("utf-8", "replace")
        return f"{self.method} {self.path}" + (f" {body}" if body else "")


@dataclass(slots=True)
class Target:
    """The server: the base URL of its API (with its ``/v1``, which is added where the URL has no path) and a key.

    Raises ``ValueError`` for what is no URL and for a key that no header can carry.
    """

    url: str
    model: str
    key: str | None = None
    origin: Origin = field(init=False)
    base: str = field(init=False)

    def __post_init__(self) -> None:
        self.origin, path = Origin.parse(self.url)
        self.base = path or "/v1"
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and self.key.strip()):
            raise ValueError("the key has characters that no header can carry")

    def authorization(self, key: str | None) -> dict[str, str]:
        """The header that shows ``key``."""
        return {} if key is None else {"authorization": f"Bearer {key}"}


class Client:
    """Sends requests to a target, one after the other. To be used as a context manager."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self.target = target
        self.timeout_s = timeout_s
        """Seconds that one exchange may take."""
        self._pool: Pool | None = None

    async def __aenter__(self) -> Client:
        self._pool = Pool(self.target.origin, connect_timeout_s=min(_CONNECT_TIMEOUT_S, self.timeout_s), max_idle=0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            await self._pool.close()

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] = {},
        until: Callable[[bytes], bool] | None = None,
        keyed: bool = True,
    ) -> Reply:
        """One exchange. A mapping is sent as JSON; ``path`` is counted from the base URL.

        Where ``until`` holds for what came of the body, the connection is closed and that is the reply. Without
        ``keyed`` the key stays away; ``headers`` may show another.
        """
        assert self._pool is not None
        sent = orjson.dumps(body) if isinstance(body, Mapping) else body or b""
        typed = {"content-type": "application/json"} if body is not None else {}
        shown = self.target.authorization(self.target.key) if keyed else {}
        reply = Reply(method, self.target.base + path, sent)
        try:
            exchange = await self._pool.send(method, reply.path, {**typed, **shown, **headers}, sent)
        except ExchangeError as error:
            return replace(reply, broken=f"{error.kind}: {error}")
        late = ExchangeError(f"the answer was not there within {self.timeout_s:g} s")
        timer = asyncio.get_running_loop().call_later(self.timeout_s, exchange.fail, late)
        try:
            return await _read(exchange, reply, until)
        finally:
            timer.cancel()
            exchange.close()


async def _read(exchange: Exchange, reply: Reply, until: Callable[[bytes], bool] | None) -> Reply:
    body = bytearray()
    try:
        head = await exchange.head()
        reply = replace(reply, status=head.status, headers=head.headers)
        async for piece in exchange.chunks():
            body += piece
            if len(body) > MAX_REPLY_BYTES:
                return replace(reply, body=bytes(body), broken=f"more than {MAX_REPLY_BYTES} bytes")
            if until is not None and until(bytes(body)):
                break
    except ExchangeError as error:
        return replace(reply, body=bytes(body), broken=f"{error.kind}: {error}")
    return replace(reply, body=bytes(body))


def parsed(data: bytes) -> Any:
    """JSON as a value; ``None`` where it is none."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
