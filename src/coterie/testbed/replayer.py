"""Serves recorded exchanges: see :mod:`coterie.testbed.exchange_file` for the files and how a request is recognised.

What it promises:

* An answer is what was recorded: status, headers, the chunks of its body each in a chunk of its own, and its end. A
  reset is a reset, an early end an early end; a chunked body that never ended has no end here either. Where the client
  had left, the rest is not known, and the answer ends early.
* Several recordings of the same request are played in their order; then the last is played again.
* Times are those of the recording divided by ``speed``; 0 is without waiting.
* A request that was never recorded gets 404 with the nearest recording and the fields in which it differs.
* A client that asks for its connection to be closed gets that.
* What comes is scrubbed like what was recorded, so a request with another key is still the same request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import orjson

from coterie.testbed.exchange_file import Exchange, Library, Nearest, Request, Response, chunk_bytes, scrubbed_request
from coterie.testbed.exchange_tap import RequestTap, SeenRequest, TapError
from coterie.testbed.sockets import reset_when_sent

MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024
MAX_CONNECTIONS: Final = 10_000

_MAX_WAITING: Final = 64
"""Requests of one connection that were sent before the answer to the first."""


class Replayer:
    """Plays the exchanges of ``folder`` while it is used as an async context manager.

    Raises :class:`~coterie.testbed.exchange_file.ExchangeFileError` where the folder has none, or a broken one.
    """

    def __init__(self, folder: Path, *, port: int = 0, speed: float = 1.0) -> None:
        if not 0 <= speed <= 1_000_000:
            raise ValueError(f"speed is {speed:g}; it must be 0 (no waiting) or above")
        self.library = Library.load(folder)
        self.speed = speed
        self.url = ""
        """Where it listens, without a path; known once it is entered."""
        self.connections: set[asyncio.Transport] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._port = port
        self._server: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        """What an SDK takes."""
        return f"{self.url}/v1"

    async def __aenter__(self) -> Replayer:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self._port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for transport in list(self.connections):
            transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0)  # the aborted connections


class _Connection(asyncio.Protocol):
    """One client; its requests are answered one after the other."""

    def __init__(self, replayer: Replayer) -> None:
        self._replayer = replayer
        self._tap = RequestTap(self._request, MAX_REQUEST_BYTES, self._continue)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[SeenRequest] = deque()
        self._task: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if len(self._replayer.connections) >= MAX_CONNECTIONS:
            self._transport.abort()
        self._replayer.connections.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._replayer.connections.discard(self._transport)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._tap.feed(data)
        except TapError as error:
            self._write(_plain_answer(400, _error_body("invalid_http_request", f"The request is unreadable: {error}.")))
            self._out.close()

    def eof_received(self) -> bool:
        return self._task is not None  # a client that has said all may still read

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    @property
    def _out(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def _continue(self) -> None:
        self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _write(self, data: bytes) -> None:
        if data and not self._out.is_closing():
            self._out.write(data)

    def _request(self, request: SeenRequest) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            raise TapError("too many requests at once")
        self._waiting.append(request)
        if self._task is None:
            self._task = asyncio.create_task(self._answer_all())
            self._replayer.tasks.add(self._task)
            self._task.add_done_callback(self._replayer.tasks.discard)

    async def _answer_all(self) -> None:
        try:
            while self._waiting and not self._out.is_closing():
                await self._answer(self._waiting.popleft())
        finally:
            self._task = None

    async def _answer(self, seen: SeenRequest) -> None:
        try:
            request = await asyncio.to_thread(_as_recorded, seen)
        except ValueError:
            self._write(_plain_answer(400, _error_body("invalid_http_request", "The request's head is not allowed.")))
            self._out.close()
            return
        library = self._replayer.library
        exchange = None if seen.too_large else library.take(request)
        if exchange is None:
            body = _unknown_body(library.nearest(request))
            self._write(_plain_answer(404, body, with_body=seen.method != "HEAD"))
        else:
            await self._play(exchange, is_head=seen.method == "HEAD")
        if (seen.header("connection") or "").lower() == "close":
            self._out.close()

    async def _play(self, exchange: Exchange, *, is_head: bool) -> None:
        begun_s = asyncio.get_running_loop().time()
        if exchange.response is not None:
            for at_ms, data in _writes(exchange.response, is_head=is_head):
                await self._until(begun_s, at_ms)
                self._write(data)
                await self._may_write.wait()
        await self._until(begun_s, exchange.ended_ms)
        await self._end(exchange)

    async def _until(self, begun_s: float, at_ms: float) -> None:
        if self._replayer.speed:
            due_s = begun_s + at_ms / 1000 / self._replayer.speed
            await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))

    async def _end(self, exchange: Exchange) -> None:
        response = exchange.response
        if exchange.ended in ("reset", "unreachable"):
            await reset_when_sent(self._out)
        elif exchange.ended != "complete" or response is None:
            self._out.close()
        else:
            if response.is_chunked and exchange.request.method != "HEAD":
                self._write(b"0\r\n\r\n")
            if _closes(response):
                self._out.close()


def _as_recorded(seen: SeenRequest) -> Request:
    return scrubbed_request(seen.method, seen.target, seen.headers, bytes(seen.body))


def _writes(response: Response, *, is_head: bool) -> Iterator[tuple[float, bytes]]:
    """What is written, and when, but for the end."""
    lines = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{key}: {value}" for key, value in response.headers)]
    yield response.head_ms, "\r\n".join((*lines, "", "")).encode("latin-1", "replace")
    if is_head:
        return
    for at_ms, chunk in response.chunks:
        data = chunk_bytes(chunk)
        if data:  # an empty one would end a chunked body
            yield at_ms, b"%x\r\n%s\r\n" % (len(data), data) if response.is_chunked else data


def _closes(response: Response) -> bool:
    """Whether the connection ends with a complete answer."""
    if (response.header("connection") or "").lower() == "close":
        return True
    bodiless = response.status in (204, 304)
    return not bodiless and not response.is_chunked and response.header("content-length") is None


def _unknown_body(nearest: Nearest | None) -> dict[str, Any]:
    if nearest is None:
        return _error_body("no_recording", "There is no recording at all.")
    fields = ", ".join(nearest.differs_in) or "nothing that can be told"
    message = f"No recording answers this request. The nearest is {nearest.file}; it differs in: {fields}."
    place = {"file": nearest.file, "differs_in": list(nearest.differs_in)}
    return {**_error_body("no_recording", message), "nearest": place}


def _error_body(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def _plain_answer(status: int, body: dict[str, Any], *, with_body: bool = True) -> bytes:
    data = orjson.dumps(body)
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "content-type: application/json",
        f"content-length: {len(data)}",
        "x-should-retry: false",
    ]
    return "\r\n".join((*lines, "", "")).encode() + (data if with_body else b"")
