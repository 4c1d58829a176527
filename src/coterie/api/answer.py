"""Answering a generation: the commit point, the stream, and every way in which it can end.

What it promises:

* Status and headers are held back until the first semantic event exists (the commit point). What fails before it is a
  plain HTTP error; what fails after it ends the stream with the dialect's terminal error, and nothing after.
* One event is one write. A reader that is slow holds the generation back through the socket; nothing piles up.
* Text with which an answer goes on takes the short way, where the client reads: what comes off a provider's socket is
  written to the client's there and then (:class:`coterie.wire.lingua.Shortcut`).
* A client that leaves, before or after the commit point, ends the generation at once.
* The end of the server ends the stream like any other failure: with its terminal error.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from starlette.types import Receive, Scope, Send

from coterie.api.active import ActiveRequest
from coterie.api.attendance import attended
from coterie.api.edge import Exchange
from coterie.api.state import AppState
from coterie.api.writer import StreamWriter, send_json
from coterie.dialects.chat import ParsedRequest
from coterie.dialects.chunk_stream import ChunkStream
from coterie.errors import ApiError
from coterie.observe.metrics import Metrics
from coterie.observe.timing import Timing
from coterie.wire.lingua import RESTART, Chunk, Chunks, Shortcut

_log = logging.getLogger(__name__)


class Fold(Protocol):
    """What gathers an answer that is not streamed."""

    def feed(self, chunk: Chunk) -> None:
        """Take a chunk in."""
        ...

    def text(self, index: int, text: str, extra: dict[str, Any] | None) -> bool:
        """Take in a piece of text with which a choice goes on; false, and nothing is done, where that needs a chunk."""
        ...

    def end(self) -> dict[str, Any]:
        """The whole answer. Raises ``ApiError``."""
        ...


@dataclass(frozen=True, slots=True)
class DialectMachines:
    """How a dialect writes answers. ``stream`` and ``fold`` are called with the answer's id, its time and its model."""

    name: str
    id_prefix: str
    stream: Callable[..., ChunkStream]
    fold: Callable[..., Fold]


class GenerationAnswer:
    """An ASGI application that answers one parsed request."""

    def __init__(self, state: AppState, parsed: ParsedRequest, machines: DialectMachines, timing: Timing) -> None:
        self._state = state
        self._parsed = parsed
        self._machines = machines
        self._timing = timing
        self._model = parsed.generation.model
        state.router.check(self._model)
        self._shortcut = Shortcut()
        generation = dataclasses.replace(parsed.generation, streamed=parsed.stream, shortcut=self._shortcut)
        self._chunks = state.router.generate(generation, timing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Generate and answer."""
        exchange: Exchange = scope["coterie.exchange"]
        exchange.timing, exchange.dialect, exchange.model = self._timing, self._machines.name, self._model
        try:
            async with contextlib.aclosing(self._chunks), attended(self._state, exchange, receive) as request:
                await (self._stream(exchange, request) if self._parsed.stream else self._plain(exchange))
                self._state.metrics.latency.of(self._model).add(time.perf_counter() - exchange.started_s)
        finally:
            self._state.metrics.queue_wait.of(self._model).add(self._timing.queue_s)

    def _new(self, make: Callable[..., Any], **options: Any) -> Any:
        answer_id = f"{self._machines.id_prefix}{os.urandom(16).hex()}"
        return make(answer_id, int(time.time()), self._model, choices=self._parsed.choices, **options)

    async def _plain(self, exchange: Exchange) -> None:
        fold = self._fold()
        async for chunk in self._chunks:
            if chunk is RESTART:
                fold = self._fold()
            else:
                fold.feed(chunk)
        answer = fold.end()
        self._state.metrics.count_usage(self._model, answer.get("usage"))
        await send_json(exchange, orjson.dumps(answer))

    def _fold(self) -> Fold:
        """A fold for all that comes from now on."""
        fold: Fold = self._new(self._machines.fold)
        self._shortcut.take = fold.text
        return fold

    async def _stream(self, exchange: Exchange, request: ActiveRequest) -> None:
        machine: ChunkStream = self._new(self._machines.stream, include_usage=self._parsed.include_usage)
        writer = StreamWriter(exchange)
        try:
            await _Relay(machine, writer, self._state.metrics, self._model).run(self._chunks, self._shortcut)
            tail = machine.end()
        except ApiError as error:
            tail = _last_words(machine, error, writer)
        except asyncio.CancelledError:
            if request.failure is None or not writer.begun:
                raise
            request.task.uncancel()
            tail = _last_words(machine, request.failure, writer)
        except Exception:  # after the commit point nobody else can tell the client; before it the edge does
            if not writer.begun:
                raise
            _log.exception("unexpected exception in a stream")
            tail = _last_words(machine, ApiError("internal_error"), writer)
        await writer.finish(tail)
        # Only now: whatever goes wrong from here on, the stream has its end.
        if machine.usage:
            self._state.metrics.count_usage(self._model, machine.usage)


class _Relay:
    """The way of chunks to the client of a stream, and the short way of the text among them."""

    __slots__ = ("_gaps", "_last_s", "_machine", "_metrics", "_model", "_writer")

    def __init__(self, machine: ChunkStream, writer: StreamWriter, metrics: Metrics, model: str) -> None:
        self._machine = machine
        self._writer = writer
        self._metrics = metrics
        self._model = model
        self._gaps = metrics.inter_token.of(model)
        self._last_s = 0.0

    async def run(self, chunks: Chunks, shortcut: Shortcut) -> None:
        """Relay ``chunks`` to their end. Raises their failure, and that of a chunk which breaks the rules."""
        feed, write = self._machine.feed, self._writer.write
        async for chunk in chunks:
            for event in feed(chunk):
                now_s = time.perf_counter()
                if self._writer.begun:
                    self._gaps.add(now_s - self._last_s)
                else:
                    self._metrics.first_token.of(self._model).add(now_s - self._writer.exchange.started_s)
                    shortcut.take = self._take
                self._last_s = now_s
                await write(event)

    def _take(self, index: int, text: str, extra: dict[str, Any] | None) -> bool:
        event = self._machine.text(index, text, extra)
        if event is None or not self._writer.put(event):
            return False
        now_s = time.perf_counter()
        self._gaps.add(now_s - self._last_s)
        self._last_s = now_s
        return True


def _last_words(machine: ChunkStream, error: ApiError, writer: StreamWriter) -> list[bytes]:
    """The events that end a stream with ``error``. Raises it where nothing was sent yet."""
    if not writer.begun:
        raise error
    writer.exchange.note(error)
    return machine.fail(error, writer.exchange.request_id)
