"""One measured request: its connection, its times, and the judgement of what came.

It is an ``asyncio.Protocol`` that does little for each event, so that a thousand paced streams fit on one core: what a
measuring program adds to the times is its own share of the processor.

Times are seconds of ``time.perf_counter``. ``connect`` runs from the start to the connection; everything else from the
moment the request was written. Events that came in one read came at the same time.
"""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, cast

import httptools
import orjson

from coterie.testbed.integrity import Outcome, StreamJudge, Verifier, error_code, judge_plain
from coterie.wire.sse import SseError, SseParser

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""A body that is no stream at most."""

MAX_HEAD_BYTES: Final = 64 * 1024
"""Status line and headers at most, give or take one read."""


@dataclass(slots=True)
class Record:
    """What was measured of one request. A time is ``None`` where it did not come to that."""

    outcome: Outcome = field(default_factory=lambda: Outcome("unfinished"))
    connect_s: float | None = None
    head_s: float | None = None
    ttft_s: float | None = None
    """To the first token with content."""
    total_s: float | None = None
    """To the end of the answer; ``None`` for an answer that is not complete."""
    arrivals_s: array[float] = field(default_factory=lambda: array("d"))
    """When each chunk with content came, counted from the first."""
    tokens: array[int] = field(default_factory=lambda: array("L"))
    """How many tokens begin in each of those chunks."""


class MeasuredStream(asyncio.Protocol):
    """Sends ``request`` as soon as the connection stands, and measures and judges the answer.

    ``finished`` is done when the record is complete; it never raises.
    """

    def __init__(self, request: bytes, verifier: Verifier, *, streamed: bool = True) -> None:
        self.record = Record()
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._verifier = verifier
        self._streamed = streamed
        self._judge = StreamJudge(verifier)
        self._sse = SseParser()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._begun_s = perf_counter()
        self._sent_s = self._now_s = self._first_s = self._begun_s
        self._head_bytes = 0
        self._status = 0
        self._is_stream = False
        self._framed = False
        self._ended = False
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self._transport = cast("asyncio.Transport", transport)
        self._sent_s = perf_counter()
        self.record.connect_s = self._sent_s - self._begun_s
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Measure and parse what came."""
        self._now_s = perf_counter()
        if not self._status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._broken("after-end" if self._ended else "not-http")
        if self._ended:
            self._finish()
        elif not self._status and self._head_bytes > MAX_HEAD_BYTES:
            self._broken("not-http")

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of an answer whose framing says none; for any other, it is cut off."""
        if not self.finished.done():
            self._now_s = perf_counter()
            if exc is None and self._status and not self._framed:
                self._ended = True
                self._finish()
            else:
                self._broken("cut")

    def stop(self) -> None:
        """The time of the measurement is up: judge what has come."""
        self._settle(self._judge.cut_short() if self._is_stream else Outcome("unfinished"))

    def late(self) -> None:
        """The time of this request is up."""
        self._broken("timeout")

    # httptools callbacks

    def on_message_begin(self) -> None:
        """Another answer follows the one that was asked for, unless the first was an interim one."""
        if self._ended:
            self._judge.broke("after-end")
        self._framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """The few headers that matter."""
        name = name.lower()
        if name == b"content-type":
            self._is_stream = value.lower().startswith(b"text/event-stream")
        elif name in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        """The head is there."""
        status = self._parser.get_status_code()
        if status >= 200 and not self._status:
            self._status = status
            self.record.head_s = self._now_s - self._sent_s

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._ended:
            return
        if self._is_stream and self._status == 200:
            self._events(data)
        elif len(self._body) < MAX_BODY_BYTES:
            self._body += data
        else:
            self._broken("size")

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._ended = self._status != 0

    def _events(self, data: bytes) -> None:
        too_long = False
        try:
            events = self._sse.feed(data)
        except SseError as error:
            events, too_long = error.events, True
        for event in events:
            tokens = self._judge.event(event.data)
            if tokens:
                self._content(tokens)
        if too_long:
            self._broken("size")

    def _content(self, tokens: int) -> None:
        record = self.record
        if record.ttft_s is None:
            self._first_s = self._now_s
            record.ttft_s = self._now_s - self._sent_s
        record.arrivals_s.append(self._now_s - self._first_s)
        record.tokens.append(tokens)

    def _finish(self) -> None:
        self.record.total_s = self._now_s - self._sent_s
        if self._status != 200:
            self._settle(Outcome("http error", f"{self._status} {_code(bytes(self._body))}"))
        elif not self._streamed:
            self._settle(judge_plain(bytes(self._body), self._verifier))
        elif not self._is_stream:
            self._settle(Outcome("broken", "content-type"))
        else:
            if self._sse.pending:
                self._judge.broke("half-event")
            self._settle(self._judge.end())

    def _broken(self, rule: str) -> None:
        if self._is_stream and self._status == 200:
            self._judge.broke(rule)
            self._settle(self._judge.cut_short())
        else:
            self._settle(Outcome("broken", rule))

    def _settle(self, outcome: Outcome) -> None:
        if not self.finished.done():
            self.record.outcome = outcome
            self.finished.set_result(None)
        if self._transport is not None:
            self._transport.abort()


def _code(body: bytes) -> str:
    try:
        return error_code(orjson.loads(body))
    except orjson.JSONDecodeError:
        return "unknown"
