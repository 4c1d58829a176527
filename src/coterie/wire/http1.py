"""HTTP/1.1 as a client: requests, and answers that are read as they come.

:class:`Exchange` is one request and its answer, :class:`Connection` carries exchanges one after the other. What they
promise:

* An exchange that is closed before its answer is complete drops its connection, which tells the other side at once that
  nobody is listening: that is how a generation is cancelled. A complete answer leaves the connection for the next one,
  without anybody's doing, where the whole request was sent and neither side wants it closed.
* Bytes that follow a complete answer are no part of it, nor of the next: they end the connection.
* Nothing is buffered without bound: beyond :data:`HIGH_WATER_BYTES` the socket is no longer read until the consumer
  has caught up, which holds the sender back; a head, and whatever else is no body, is refused beyond
  :data:`MAX_HEAD_BYTES`.
* There is no task and no timer for an exchange; bytes go from the event loop's callback to the one waiting consumer.
  Where it is not needed for them it need not be woken: ``Exchange.tap`` is shown them first.
* An answer that ends before it is complete (by the framing of HTTP) raises :class:`ExchangeError`, it never just stops.
* An answer with neither a length nor chunks is ended by an orderly close (``Exchange.until_close``). Whether it was
  whole then has to be told from what it says: an event stream has its own end mark, JSON does not parse when cut. A
  reset is a break there as everywhere.
* Interim answers (100, 103) are skipped, trailers are ignored, another protocol (101) is refused.

Deadlines are the caller's: :meth:`Exchange.fail` ends the exchange with any exception, from a timer for instance.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import httptools

from coterie.wire.request import request_bytes

__all__ = [
    "HIGH_WATER_BYTES", "MAX_HEAD_BYTES", "Connection", "Exchange", "ExchangeError", "Head", "Owner", "TransportKind",
    "open_unix", "request_bytes",
]  # fmt: skip

HIGH_WATER_BYTES: Final = 256 * 1024
"""Unread bytes of an answer at which the socket is paused."""

MAX_HEAD_BYTES: Final = 64 * 1024
"""Bytes of an answer without any of its body between them (its head, its trailers), give or take one read."""

TransportKind = Literal[
    "dns", "refused", "connect_timeout", "tls",
    "reset_before_head", "broken",
    "not_http", "head_too_large", "body_too_large", "upgrade",
    "closed",
]  # fmt: skip
"""How an exchange failed: no address; nobody there; no connection in time; no trust; the connection ended before the
head of an answer was complete, or after; the answer cannot be read; this side closed it."""

_ONE_WRITE_BYTES: Final = 64 * 1024


class ExchangeError(Exception):
    """An exchange failed, in the way that ``kind`` tells. The text is for the log, not for a client."""

    def __init__(self, text: str, kind: TransportKind = "broken") -> None:
        self.kind: TransportKind = kind
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers (names in lower case) of an answer."""

    status: int
    headers: Mapping[str, str]


async def open_unix(path: str, request: bytes) -> Exchange:
    """Connect to the Unix socket ``path`` and send ``request``. Raises :class:`ExchangeError`."""
    exchange = Exchange(request)
    connection = Connection(exchange)
    begun_s = time.perf_counter()
    try:
        await asyncio.get_running_loop().create_unix_connection(lambda: connection, path)
    except OSError as error:
        raise ExchangeError(f"cannot connect: {error.strerror}", "refused") from error
    except BaseException:
        connection.drop()
        raise
    exchange.connect_s = time.perf_counter() - begun_s
    return exchange


@dataclass(frozen=True, slots=True)
class Owner:
    """Keeps connections: is told of each when it stands, when an exchange left it fit for another, and at its end."""

    made: Callable[[Connection], None]
    free: Callable[[Connection], None]
    lost: Callable[[Connection], None]


class Connection(asyncio.Protocol):
    """A connection, which carries one exchange at a time, beginning with ``exchange``.

    Without an ``owner`` it is closed after the first.
    """

    __slots__ = ("_exchange", "_owner", "_transport")

    def __init__(self, exchange: Exchange, owner: Owner | None = None) -> None:
        self._exchange: Exchange | None = exchange
        self._owner = owner
        self._transport: asyncio.Transport | None = None

    @property
    def usable(self) -> bool:
        """Whether nothing has ended it yet."""
        return self._transport is not None and not self._transport.is_closing()

    def carry(self, exchange: Exchange) -> None:
        """Begin ``exchange`` on this idle, usable connection."""
        assert self._transport is not None
        self._exchange = exchange
        exchange.begin(self, self._transport)

    def finish(self, *, keep: bool) -> None:
        """The exchange has its answer. ``keep`` tells whether both sides want the connection to stay."""
        self._exchange = None
        assert self._transport is not None
        # What is not sent by now answers nothing: the peer refused the request before it had read it.
        if keep and self._owner is not None and self.usable and not self._transport.get_write_buffer_size():
            self._owner.free(self)
        else:
            self.drop()

    def drop(self) -> None:
        """Close without waiting for what was not sent or read."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request, if it is still wanted."""
        self._transport = cast("asyncio.Transport", transport)
        if self._owner is not None:
            self._owner.made(self)
        if self._exchange is None:
            self._transport.abort()
        else:
            self._exchange.begin(self, self._transport)

    def data_received(self, data: bytes) -> None:
        """Give the exchange what came. Bytes that nobody asked for make the connection useless."""
        if self._exchange is None:
            self.drop()
        else:
            self._exchange.feed(data)

    def eof_received(self) -> None:
        """No answer can come any more, also where the request is not sent yet."""
        exchange = self._exchange
        self.drop()
        if exchange is not None:
            exchange.end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever is not complete by now never will be."""
        exchange, self._exchange = self._exchange, None
        if self._owner is not None:
            self._owner.lost(self)
        if exchange is not None:
            exchange.end(exc)


class Exchange(AsyncIterator[bytes]):
    """A request and its answer. To be closed when it is no longer wanted.

    ``request`` is written when a connection stands. ``again`` may be called, once, where the connection ends before a
    byte of an answer came: it sends the exchange on a fresh one, or returns ``None`` where that should not be.
    """

    __slots__ = (
        "_again", "_bare_bytes", "_body", "_complete", "_connection", "_failure", "_head", "_headers", "_keep",
        "_parser", "_paused", "_request", "_retrying", "_to_head", "_transport", "_unread_bytes", "_waiter",
        "begun_at_s", "connect_s", "reused", "tap", "until_close",
    )  # fmt: skip

    def __init__(
        self,
        request: bytes,
        body: bytes = b"",
        *,
        to_head: bool = False,
        again: Callable[[Exchange], asyncio.Task[None] | None] | None = None,
    ) -> None:
        self._request = (request, body)
        self._to_head = to_head
        self._again = again
        self._retrying: asyncio.Task[None] | None = None
        self._parser: Any = None
        self._connection: Connection | None = None
        self._transport: asyncio.Transport | None = None
        self.begun_at_s = 0.0
        """When the request was sent, by the event loop's clock."""
        self.connect_s = 0.0
        """Seconds spent on connecting, also in vain; none on a connection that stood."""
        self.reused = False
        """Whether the connection had carried others before."""
        self.until_close = False
        """Whether the answer has no end but that of its connection."""
        self.tap: Callable[[bytes], int] | None = None
        """Is shown each piece of the body that comes while the consumer waits, and has nothing yet. Returns how many of
        the bytes it has dealt with; the consumer gets the rest, and is left alone where there is none. What it raises
        ends the exchange, and is the consumer's."""
        self._head: Head | None = None
        self._headers: dict[str, str] = {}
        self._bare_bytes = 0  # since the last of the body
        self._body: list[bytes] = []
        self._unread_bytes = 0
        self._paused = False
        self._complete = False
        self._keep = False
        self._failure: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def complete(self) -> bool:
        """Whether the answer is there, as a whole."""
        return self._complete

    async def head(self) -> Head:
        """Wait for status and headers. Raises :class:`ExchangeError` or what :meth:`fail` was given."""
        while self._head is None:
            await self._progress()
        return self._head

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, until it is complete. Raises :class:`ExchangeError` or what :meth:`fail` was given.

        What came since the last time comes in one piece. The iterator may be left at any moment.
        """
        return self

    async def __anext__(self) -> bytes:
        while not self._body:
            if self._complete:
                raise StopAsyncIteration
            await self._progress()
        return self._take()

    async def read(self, limit_bytes: int, heard: Callable[[], None] | None = None) -> bytes:
        """The whole body. Raises :class:`ExchangeError`, also for a body longer than ``limit_bytes``.

        ``heard`` is called for each piece that comes.
        """
        parts: list[bytes] = []
        size = 0
        async for part in self:
            size += len(part)
            if size > limit_bytes:
                raise ExchangeError(f"an answer of more than {limit_bytes} bytes", "body_too_large")
            parts.append(part)
            if heard is not None:
                heard()
        return b"".join(parts)

    def fail(self, error: BaseException) -> None:
        """End the exchange: the consumer gets ``error``, the peer sees the connection close."""
        if self._failure is None and not self._complete:
            self._failure = error
        if self._retrying is not None:
            self._retrying.cancel()
        connection = self._let_go()
        if connection is not None:
            connection.drop()
        self._wake()

    def close(self) -> None:
        """End the exchange without waiting for what was not sent or read. Does nothing once the answer is complete."""
        self.fail(ExchangeError("closed before the answer was complete", "closed"))

    # For the connection

    def begin(self, connection: Connection, transport: asyncio.Transport) -> None:
        """Send the request."""
        self._retrying = None
        self._connection = connection
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)
        self.begun_at_s = asyncio.get_running_loop().time()
        head, body = self._request
        if self._again is None:
            self._request = (b"", b"")
        if len(body) < _ONE_WRITE_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)

    def feed(self, data: bytes) -> None:
        """Parse what came."""
        if self._again is not None:
            self._again = None
            self._request = (b"", b"")
        self._bare_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keep = False
            self.fail(ExchangeError(f"not HTTP: {error}", "not_http"))
            return
        if self._failure is not None:
            self.close()
        elif self._complete:
            self._finish()
        elif self._bare_bytes > MAX_HEAD_BYTES:
            self.fail(ExchangeError(f"a head of more than {MAX_HEAD_BYTES} bytes", "head_too_large"))
        elif self.tap is not None and not self._body:
            return  # the consumer has nothing to do with it
        self._wake()

    def end(self, error: Exception | None) -> None:
        """The connection has ended, in an orderly way where there is no ``error``."""
        self._let_go()
        again, self._again = self._again, None
        self._retrying = None if again is None else again(self)
        if self._retrying is not None:
            return
        if self.until_close and error is None:
            self._complete = True
        elif not self._complete and self._failure is None:
            self._failure = _broken(self._head, error)
        self._wake()

    # httptools callbacks

    def on_message_begin(self) -> None:
        """Note where something follows the answer."""
        if self._complete:
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header."""
        if self._head is None:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Status and headers are known, unless they are those of an interim answer."""
        if self._complete:
            return
        status: int = self._parser.get_status_code()
        if status == 101:
            self._failure = ExchangeError("the peer wants to speak another protocol", "upgrade")
        elif status < 100:
            self._failure = ExchangeError("not HTTP: a status below 100", "not_http")
        elif status >= 200:
            self._head = Head(status, self._headers)
            if self._to_head:
                self.on_message_complete()
            else:
                self.until_close = status not in (204, 304) and self._headers.keys().isdisjoint(
                    ("content-length", "transfer-encoding")
                )
        self._headers = {}

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body, and hold the sender back when too much is unread."""
        if self._complete:
            self._keep = False
            return
        self._bare_bytes = 0
        if self.tap is not None and not self._body and self._waiter is not None and not self._waiter.done():
            data = self._past_tap(self.tap, data)
            if not data:
                return
        self._body.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > HIGH_WATER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is whole, unless it was an interim one."""
        if self._head is not None and not self._complete:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    def _progress(self) -> asyncio.Future[None]:
        if self._failure is not None:
            raise self._failure
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def _take(self) -> bytes:
        body, self._body = self._body, []
        self._unread_bytes = 0
        self._resume()
        return body[0] if len(body) == 1 else b"".join(body)

    def _past_tap(self, tap: Callable[[bytes], int], data: bytes) -> bytes:
        """What ``tap`` leaves of ``data``."""
        try:
            return data[tap(data) :]
        except Exception as error:  # noqa: BLE001 - to the event loop it would be the peer's connection that broke
            self._failure = error
            return b""

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _finish(self) -> None:
        self._resume()  # nothing is left to hold back, and an idle connection must see its end
        connection = self._let_go()
        if connection is not None:
            connection.finish(keep=self._keep)

    def _let_go(self) -> Connection | None:
        """Forget the connection, and with it what makes a cycle of references."""
        connection, self._connection, self._transport, self._parser = self._connection, None, None, None
        return connection


def _broken(head: Head | None, error: Exception | None) -> ExchangeError:
    how = "the connection closed" if error is None else f"the connection broke ({type(error).__name__})"
    kind: TransportKind = "reset_before_head" if head is None else "broken"
    return ExchangeError(f"{how} before the answer was complete", kind)
