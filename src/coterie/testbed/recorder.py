"""A reverse proxy that writes down what passes: see :mod:`coterie.testbed.exchange_file` for the files.

What it promises:

* Bytes pass in both directions as they come, and at once. So does how a connection ends: a reset is a reset, an early
  end an early end. The one exception is the ``host`` header, which names the upstream where that is another machine.
* Nothing that passes is held back by the recording: scrubbing and writing happen in a thread when the exchange is over.
* No secret touches the disk. What cannot be looked into, and so not scrubbed, is not recorded: a body in a compression
  other than gzip or deflate, an answer that is no HTTP. A gzip or deflate body is written down unpacked, without its
  ``content-encoding``.
* What is kept is bounded, for each exchange and in number; beyond it bytes still pass. ``skipped`` counts by reason.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

from coterie.testbed.exchange_file import Ended, Exchange, next_number, write
from coterie.testbed.exchange_tap import RequestTap, ResponseTap, SeenRequest, TapError
from coterie.testbed.recording import NotScrubbableError, exchange_of
from coterie.testbed.sockets import is_this_machine, reset_when_sent
from coterie.wire.origin import Origin

MAX_EXCHANGE_BYTES: Final = 8 * 1024 * 1024
"""The body of a request, and of an answer, at most."""

MAX_EXCHANGES: Final = 10_000
MAX_CONNECTIONS: Final = 512

_CONNECT_TIMEOUT_S: Final = 10.0
_MS: Final = 1000.0
_HOST: Final = re.compile(rb"(?im)^host:[^\r\n]*")


class Recorder:
    """Passes on to ``upstream`` and records into ``folder`` while it is used as an async context manager.

    ``upstream`` is ``http://HOST[:PORT]`` or the same with https, without a path. Raises ``ValueError`` for another.
    """

    def __init__(
        self,
        upstream: str,
        folder: Path,
        *,
        port: int = 0,
        max_exchange_bytes: int = MAX_EXCHANGE_BYTES,
        max_exchanges: int = MAX_EXCHANGES,
    ) -> None:
        self.origin = _origin(upstream)
        self.max_exchange_bytes = max_exchange_bytes
        self.url = ""
        """Where it listens, without a path; known once it is entered."""
        self.recorded: list[Path] = []
        """The files that were written, in the order in which the exchanges ended."""
        self.skipped: Counter[str] = Counter()
        """How many exchanges were not recorded, by reason."""
        self._folder = folder
        self._port = port
        self._left = max_exchanges
        self._number = 0
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    @property
    def base_url(self) -> str:
        """What an SDK takes."""
        return f"{self.url}/v1"

    async def __aenter__(self) -> Recorder:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._number = next_number(self._folder)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _ClientSide(_Link(self)), "127.0.0.1", self._port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            link.leave()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()
        await asyncio.sleep(0)  # the aborted connections

    async def settled(self, count: int) -> None:
        """Wait until ``count`` exchanges are written or skipped."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.recorded) + self.skipped.total() >= count)

    # For a connection

    def admit(self, link: _Link) -> bool:
        """Whether there is room for one more connection."""
        if len(self._links) >= MAX_CONNECTIONS:
            return False
        self._links.add(link)
        return True

    def discard(self, link: _Link) -> None:
        """A connection is gone."""
        self._links.discard(link)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that is waited for at the end."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def number(self) -> int:
        """The number of an exchange that begins."""
        self._number += 1
        return self._number - 1

    def keep(self, number: int, make: Callable[[], Exchange]) -> None:
        """Write down what ``make`` returns."""
        if self._left <= 0:
            self.skip("enough exchanges are recorded")
            return
        self._left -= 1
        self.run(self._keep(number, make))

    def skip(self, reason: str) -> None:
        """An exchange is not recorded."""
        self.skipped[reason] += 1
        self.run(self._tell())

    async def _keep(self, number: int, make: Callable[[], Exchange]) -> None:
        try:
            path = await asyncio.to_thread(lambda: write(self._folder, number, make()))
        except (NotScrubbableError, OSError, ValueError) as error:  # ValueError: what no file of ours may hold
            self.skipped[_reason(error)] += 1
        else:
            self.recorded.append(path)
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _reason(error: Exception) -> str:
    if isinstance(error, NotScrubbableError):
        return str(error)
    return f"cannot write: {error.strerror}" if isinstance(error, OSError) else "a head with forbidden characters"


def _origin(upstream: str) -> Origin:
    origin, path = Origin.parse(upstream)
    if path:
        raise ValueError("the URL has a path; it is the client's own path that is passed on")
    return origin


class _Open:
    """The exchange that is under way on a connection."""

    def __init__(self, recorder: Recorder, request: SeenRequest) -> None:
        self.number = recorder.number()
        self.request = request
        self._loop = asyncio.get_running_loop()
        self._begun_s = self._loop.time()
        self.tap = ResponseTap(self.age_s, recorder.max_exchange_bytes, is_head=request.method == "HEAD")

    def age_s(self) -> float:
        """Seconds since the request was whole."""
        return self._loop.time() - self._begun_s


class _Link:
    """One client's connection, the upstream's that belongs to it, and the exchange under way."""

    def __init__(self, recorder: Recorder) -> None:
        self.client: asyncio.Transport | None = None
        self.upstream: asyncio.Transport | None = None
        self._recorder = recorder
        self._requests = RequestTap(self._request, recorder.max_exchange_bytes)
        self._open: _Open | None = None
        self._readable = True
        self._unreachable = self._client_ended = False
        self._early = bytearray()  # what the client sent before the upstream was there
        self._head = bytearray()  # of a request whose host is to be changed
        origin = recorder.origin
        self._host = None if is_this_machine(origin.host) else f"host: {origin.authority}".encode()

    # The client's side

    def arrived(self, client: asyncio.Transport) -> None:
        """The client has connected."""
        self.client = client
        if self._recorder.admit(self):
            self._recorder.run(self._connect())
        else:
            client.abort()

    async def _connect(self) -> None:
        origin = self._recorder.origin
        tls = ssl.create_default_context() if origin.tls else None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await loop.create_connection(lambda: _UpstreamSide(self), origin.host, origin.port, ssl=tls)
        except (OSError, TimeoutError):
            self._unreachable = True
            if self._open is not None:
                await self._end_unreachable()

    def connected(self, upstream: asyncio.Transport) -> None:
        """The upstream is there."""
        self.upstream = upstream
        if self.client is None or self.client.is_closing():
            upstream.abort()
            return
        upstream.write(bytes(self._early))
        self._early.clear()
        if self._client_ended:
            self.client_ended()

    def from_client(self, data: bytes) -> None:
        """Pass on what the client sent."""
        data = self._with_host(data)
        self._read(self._requests.feed, data)
        if self.upstream is not None:
            self.upstream.write(data)
        elif len(self._early) + len(data) <= self._recorder.max_exchange_bytes:
            self._early += data
        elif self.client is not None:
            self.client.abort()

    def client_ended(self) -> None:
        """The client will send nothing more, but still reads."""
        self._client_ended = True
        if self.upstream is not None and self.upstream.can_write_eof():
            self.upstream.write_eof()

    def client_gone(self) -> None:
        """The client has left."""
        self._finish("client_gone")
        if self.upstream is not None:
            self.upstream.abort()
        self._recorder.discard(self)

    def leave(self) -> None:
        """The recorder stops."""
        self._finish("client_gone")
        for transport in (self.client, self.upstream):
            if transport is not None:
                transport.abort()

    # The upstream's side

    def from_upstream(self, data: bytes) -> None:
        """Pass on what the upstream sent."""
        exchange = self._open
        if exchange is not None:
            self._read(exchange.tap.feed, data)
            if exchange.tap.response.complete:
                self._finish("complete")
        if self.client is not None:
            self.client.write(data)

    def upstream_gone(self, error: Exception | None) -> None:
        """The upstream has closed the connection, or it broke."""
        if self._open is not None and error is None and self._open.tap.response.ends_with_connection:
            self._finish("complete")
        if error is not None:
            self._finish("reset")
        else:  # an upstream that sees the end of the client's side takes it for gone, and closes
            self._finish("client_gone" if self._client_ended else "closed")
        if self.client is None:
            return
        if error is None:
            self.client.close()
        else:
            self._recorder.run(reset_when_sent(self.client))

    # The recording

    def _read(self, feed: Callable[[bytes], None], data: bytes) -> None:
        """Let a tap read ``data``; where it cannot, nothing more of this connection is recorded."""
        if not self._readable:
            return
        try:
            feed(data)
        except TapError as error:
            self._readable, self._open = False, None
            self._recorder.skip(str(error))

    def _request(self, request: SeenRequest) -> None:
        if self._open is not None:
            raise TapError("a request came before the answer to the last")
        self._open = _Open(self._recorder, request)
        if self._unreachable:
            self._recorder.run(self._end_unreachable())

    async def _end_unreachable(self) -> None:
        self._finish("unreachable")
        if self.client is not None:
            await reset_when_sent(self.client)

    def _finish(self, ended: Ended) -> None:
        exchange, self._open = self._open, None
        if exchange is None:
            return
        request, response, ended_ms = exchange.request, exchange.tap.response, exchange.age_s() * _MS
        if request.too_large or response.too_large:
            self._recorder.skip("more bytes than are recorded")
        else:
            limit = self._recorder.max_exchange_bytes
            self._recorder.keep(exchange.number, lambda: exchange_of(request, response, ended, ended_ms, limit))

    def _with_host(self, data: bytes) -> bytes:
        """``data`` with the upstream's name in the head of each request, where it needs that."""
        if self._host is None or not (self._head or self._requests.between_requests) or not self._readable:
            return data
        self._head += data
        if b"\r\n\r\n" not in self._head and len(self._head) <= self._recorder.max_exchange_bytes:
            return b""
        head, end, rest = bytes(self._head).partition(b"\r\n\r\n")
        self._head.clear()
        return _HOST.sub(self._host, head, count=1) + end + rest


class _Side(asyncio.Protocol):
    """One of the two connections; when it cannot be written to, the other is not read."""

    def __init__(self, link: _Link) -> None:
        self._link = link

    def _other(self) -> asyncio.Transport | None:
        raise NotImplementedError

    def pause_writing(self) -> None:
        """Hold the other side back."""
        other = self._other()
        if other is not None:
            other.pause_reading()

    def resume_writing(self) -> None:
        """Let the other side go on."""
        other = self._other()
        if other is not None:
            other.resume_reading()


class _ClientSide(_Side):
    def _other(self) -> asyncio.Transport | None:
        return self._link.upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link.arrived(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._link.from_client(data)

    def eof_received(self) -> bool:
        self._link.client_ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.client_gone()


class _UpstreamSide(_Side):
    def _other(self) -> asyncio.Transport | None:
        return self._link.client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link.connected(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._link.from_upstream(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.upstream_gone(exc)
