"""One HTTP/1.1 exchange as a client: a request, and an answer that is read as it comes.

What it promises:

* One connection carries one exchange, so closing it tells the other side at once that nobody is listening: that is how
  a generation is cancelled.
* Nothing is buffered without bound: beyond :data:`HIGH_WATER_BYTES` the socket is no longer read until the consumer
  has caught up, which holds the sender back; a head is refused beyond :data:`MAX_HEAD_BYTES`.
* There is no task and no timer for an exchange; bytes go from the event loop's callback to the one waiting consumer.
* An answer that ends before it is complete (by the framing of HTTP) raises :class:`ExchangeError`, it never just stops.
  So does one that has neither a length nor chunks: its end cannot be told from a broken connection.
* What follows a complete answer on the connection is no part of it.

Deadlines are the caller's: :meth:`Exchange.fail` ends the exchange with any exception, from a timer for instance.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final, cast

import httptools

HIGH_WATER_BYTES: Final = 256 * 1024
"""Unread bytes of an answer at which the socket is paused."""

MAX_HEAD_BYTES: Final = 64 * 1024
"""Status line and headers of an answer at most, give or take one read."""


class ExchangeError(Exception):
    """The connection could not be made, broke, or did not speak HTTP. The text is for the log, not for a client."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers (names in lower case) of an answer."""

    status: int
    headers: Mapping[str, str]


def request_bytes(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Write a request that asks for its connection to be closed after the answer."""
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", "connection: close", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


async def open_unix(path: str, request: bytes) -> Exchange:
    """Connect to the Unix socket ``path`` and send ``request``. Raises :class:`ExchangeError`."""
    loop = asyncio.get_running_loop()
    try:
        _, exchange = await loop.create_unix_connection(lambda: Exchange(request), path)
    except OSError as error:
        raise ExchangeError(f"cannot connect: {error.strerror}") from error
    return exchange


class Exchange(asyncio.Protocol):
    """A request that is sent as soon as the connection stands, and its answer."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.begun_at_s = 0.0
        """When the request was sent, by the event loop's clock."""
        self._head: Head | None = None
        self._head_bytes = 0
        self._headers: dict[str, str] = {}
        self._body: deque[bytes] = deque()
        self._unread_bytes = 0
        self._paused = False
        self._complete = False
        self._failure: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def head(self) -> Head:
        """Wait for status and headers. Raises :class:`ExchangeError` or what :meth:`fail` was given."""
        while self._head is None:
            await self._progress()
        return self._head

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, until it is complete. Raises :class:`ExchangeError` or what :meth:`fail` was given."""
        while True:
            while self._body:
                yield self._take()
            if self._complete:
                return
            await self._progress()

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body. Raises :class:`ExchangeError`, also for a body longer than ``limit_bytes``."""
        parts: list[bytes] = []
        size = 0
        async for part in self.chunks():
            size += len(part)
            if size > limit_bytes:
                raise ExchangeError(f"an answer of more than {limit_bytes} bytes")
            parts.append(part)
        return b"".join(parts)

    def fail(self, error: BaseException) -> None:
        """End the exchange: the consumer gets ``error``, the peer sees the connection close."""
        if self._failure is None and not self._complete:
            self._failure = error
        self.close()
        self._wake()

    def close(self) -> None:
        """Drop the connection without waiting for what was not sent or read."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self._transport = cast("asyncio.Transport", transport)
        self.begun_at_s = asyncio.get_running_loop().time()
        self._transport.write(self._request)
        self._request = b""

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._head is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail(ExchangeError(f"not HTTP: {type(error).__name__}"))
        except httptools.HttpParserUpgrade:
            self._complete = False  # the parser takes an upgrade for the end of the answer
            self.fail(ExchangeError("the peer wants to speak another protocol"))
        if self._head is None and self._head_bytes > MAX_HEAD_BYTES:
            self.fail(ExchangeError(f"a head of more than {MAX_HEAD_BYTES} bytes"))
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever is not complete by now never will be."""
        if not self._complete and self._failure is None:
            self._failure = ExchangeError("the connection broke before the answer was complete")
        self._wake()

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Status and headers are known."""
        if self._head is None:
            self._head = Head(self._parser.get_status_code(), dict(self._headers))

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body, and hold the sender back when too much is unread."""
        if self._complete:
            return
        self._body.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > HIGH_WATER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._complete = True

    async def _progress(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._failure is not None and not self._body:
            raise self._failure

    def _take(self) -> bytes:
        data = self._body.popleft()
        self._unread_bytes -= len(data)
        if self._paused and self._unread_bytes <= HIGH_WATER_BYTES // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
