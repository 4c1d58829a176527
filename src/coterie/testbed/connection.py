"""One connection to the upstream: reads requests, and plays their scripts one after the other.

Each step of a script that is bytes is one write, and the next is taken in a later turn of the event loop, so that
nothing is joined with what came before, and a thousand streams share the loop fairly. There is no task for an answer.
A peer that reads slowly holds its own script back.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
import time
from collections import deque
from typing import Final, cast

import httptools

from coterie.testbed.bodies import bad_request, failure_bytes
from coterie.testbed.log import Ended
from coterie.testbed.site import Reply, Request, Site
from coterie.testbed.steps import PACE, Ending, Steps, Wait
from coterie.testbed.ticker import GRAIN_S, Ticker

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
MAX_PIPELINED: Final = 16

RESET_PATIENCE_S: Final = 5.0
"""How long a reset waits for the peer's machine to have taken what was written: a reset throws the rest away."""

_BLIND_RESET_S: Final = 0.05
"""How long it waits where the system does not tell."""

_RESETS: Final = struct.pack("ii", 1, 0)
"""``SO_LINGER`` of no time: to close is to reset."""


class Connection(asyncio.Protocol):
    """See the module."""

    def __init__(self, site: Site, ticker: Ticker, open_connections: set[Connection]) -> None:
        self._site = site
        self._ticker = ticker
        self._open = open_connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._head_bytes = self._unparsed_head_bytes = self._body_bytes = 0
        self._in_head = True
        self._waiting: deque[Request] = deque()
        self._request: Request | None = None
        self._reply: Reply | None = None
        self._steps: Steps | None = None
        self._due_s = 0.0
        self._held = False  # the peer does not read
        self._idle_turn = False  # a step was to be taken, but the connection is held
        self._resetting = False
        self._reset_by_s = 0.0
        self._refused = False
        self.gone = self._loop.create_future()
        """Done when the connection is no more."""

    def abort(self) -> None:
        """Drop the connection."""
        self._end("fault")
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went, or the connection was ended here, which is in the log already."""
        self._end("client_closed")
        self._waiting.clear()
        self._open.discard(self)
        if not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        """The peer reads slower than the script goes."""
        self._held = True

    def resume_writing(self) -> None:
        """Go on."""
        self._held = False
        if self._resetting:
            self._reset_when_taken()
        elif self._idle_turn:
            self._idle_turn = False
            self._go_on()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._unparsed_head_bytes += len(data) if self._in_head else 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse("This server speaks HTTP/1.1 only.", 400)
        except httptools.HttpParserError:
            self._refuse("This is not HTTP.", 400)
        if self._in_head and self._unparsed_head_bytes > 2 * MAX_HEAD_BYTES:
            self._refuse("The headers are too long.", 400)
        elif self._body_bytes > MAX_BODY_BYTES:
            self._refuse("The body is too long.", 413)

    # httptools

    def on_message_begin(self) -> None:
        """A head begins."""
        self._target, self._headers, self._body = b"", {}, []
        self._head_bytes, self._body_bytes, self._in_head = 0, 0, True

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head, self._unparsed_head_bytes = False, 0
        if self._headers.get("expect", "").lower() == "100-continue" and self._steps is None and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(data)
        if self._body_bytes <= MAX_BODY_BYTES:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """The request is whole."""
        method, target = self._parser.get_method().decode("latin-1"), self._target.decode("latin-1")
        keep_alive = self._parser.should_keep_alive()
        if self._refused:
            return
        self._waiting.append(Request(method, target, self._headers, b"".join(self._body), keep_alive))
        self._in_head = True
        if self._steps is None and not self._resetting:
            self._next()
        elif len(self._waiting) >= MAX_PIPELINED and self._transport is not None:
            self._transport.pause_reading()

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse("The headers are too long.", 400)

    # Playing

    def _next(self) -> None:
        self._request = self._waiting.popleft()
        self._reply = self._site.reply(self._request)
        self._steps = self._reply.steps
        self._due_s = self._loop.time()
        self._go_on()

    def _go_on(self) -> None:
        """Take the next step."""
        if self._steps is None or self._reply is None or self._transport is None:
            return
        if self._held:
            self._idle_turn = True
            return
        step = next(self._steps, None)
        if isinstance(step, bytes):
            self._write(step, self._reply)
        elif step is PACE:
            self._wait(1 / self._reply.rate)
        elif isinstance(step, Wait):
            self._due_s = self._loop.time()
            self._wait(step.seconds)
        elif step is None:
            self._answered()
        else:
            self._break(step)

    def _write(self, data: bytes, reply: Reply) -> None:
        assert self._transport is not None
        if reply.entry.status is None:
            reply.entry.status = int(data[9:12])
        self._transport.write(data)
        self._site.log.changed()
        self._loop.call_soon(self._go_on)

    def _wait(self, seconds: float) -> None:
        self._due_s += seconds
        self._ticker.at(self._due_s, self._go_on)

    def _answered(self) -> None:
        assert self._request is not None
        assert self._transport is not None
        self._end("done")
        if not self._request.keep_alive:
            self._transport.close()
        elif self._waiting:
            self._transport.resume_reading()
            self._next()

    def _break(self, ending: Ending) -> None:
        """Leave the answer as it is; what was written reaches the peer before."""
        assert self._transport is not None
        if ending is Ending.SILENCE:
            return
        self._end("fault")
        if ending is Ending.CLOSE:
            self._transport.close()
        else:
            self._resetting = True
            if self._transport.get_write_buffer_size():
                self._transport.set_write_buffer_limits(0)  # resume_writing tells when all is written
            else:
                self._reset_when_taken()

    def _reset_when_taken(self) -> None:
        """Reset as soon as the peer's machine has what was written; its program can read that after the reset."""
        if self._transport is None or self._transport.is_closing():
            return
        now = self._loop.time()
        self._reset_by_s = self._reset_by_s or now + RESET_PATIENCE_S
        left = _untaken_bytes(self._transport)
        if left is None:
            self._ticker.at(now + _BLIND_RESET_S, self._reset)
        elif left and now < self._reset_by_s:
            self._ticker.at(now + GRAIN_S, self._reset_when_taken)
        else:
            self._reset()

    def _reset(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS)
        self._transport.abort()

    def _end(self, how: Ended) -> None:
        """Whatever is being played is over."""
        if self._steps is None or self._reply is None:
            return
        self._steps = None
        entry = self._reply.entry
        if entry.number:
            entry.ended, entry.ended_at_s = how, time.time()
            self._site.log.ended(entry)

    def _refuse(self, message: str, status: int) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._refused = True
        self._end("fault")
        self._waiting.clear()
        self._transport.write(failure_bytes(bad_request(message, status=status)))
        self._transport.close()


def _untaken_bytes(transport: asyncio.Transport) -> int | None:
    """Bytes that were written, and that the peer's machine has not acknowledged; ``None`` where nobody knows."""
    try:
        count = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return None
    return int(struct.unpack("i", count)[0])
