"""Server-Sent Events, read incrementally and without I/O, in two ways.

:class:`SseParser` reads what any server sends. What it promises (the WHATWG HTML standard, "Server-sent events"):

* A line ends with LF, CR or CRLF, also where a CRLF is split over two reads; one byte order mark at the start is
  skipped; a line that begins with a colon is a comment; an unknown field is ignored.
* A blank line dispatches the event: its ``data`` lines joined with LF, and its ``event`` name. Without any ``data``
  line there is nothing to dispatch; one empty ``data`` line dispatches an empty event.
* An event without its blank line is never dispatched: it may be half of one. ``pending`` tells that some is held.
* How the bytes are cut into reads changes nothing but the moment.
* Memory is bounded by ``max_event_bytes``: of one event with its field names, and of any single line.

It stands on the path of every relayed token, so a read of whole ``data: ...`` events, as every server sends them, is
cut without looking at its lines.

:class:`StrictSseReader` judges how a stream is framed by :data:`FRAMING_RULES`, which are narrower than the standard:
what they forbid the standard allows, but an SDK or a client that reads line by line trips over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

DEFAULT_MAX_EVENT_BYTES: Final = 1024 * 1024
"""The longest event that :class:`SseParser` accepts where it is not told otherwise."""

DONE: Final = b"[DONE]"
"""The data of the event that ends a stream of OpenAI's APIs."""

FRAMING_RULES: Final[Mapping[str, str]] = {
    "framing-bom": "A stream does not begin with a byte order mark (client: one that keeps it loses the first event).",
    "framing-lf": "Lines end with LF alone; CR does not occur (suite: Open Responses' parser knows no CR).",
    "framing-field": "A line is a comment or 'data:', not 'event:', 'id:', 'retry:' or another (SDK: each breaks one).",
    "framing-one-line": "An event has one 'data' line (client: those that read line by line parse each alone).",
    "framing-empty-data": "No event has empty data (SDK: it is parsed as JSON).",
    "framing-complete": "The last event ends with a blank line (SSE: else it is dropped).",
    "framing-size": "An event has at most 1 MiB (client: buffers are bounded).",
    "done-last": "After '[DONE]' comes nothing at all (ending).",
}
"""What :class:`StrictSseReader` finds, by name, and what must hold."""

_BOM: Final = b"\xef\xbb\xbf"
_PREFIX: Final = b"data: "
_LINE_ENDS: Final = (b"\n", b"\r")
_LONGEST_RETRY_DIGITS: Final = 12
"""More milliseconds than this are no delay that anybody means."""


@dataclass(slots=True)
class SseEvent:
    """One dispatched event. ``event`` is ``None`` where the stream gave no name (a browser says "message")."""

    event: str | None
    data: bytes
    """Raw, so that whoever reads the text inside judges its encoding."""


class SseError(Exception):
    """An event or a line is longer than the parser may hold.

    The stream cannot be read on. ``events`` holds what the same read had completed before.
    """

    def __init__(self, limit: int, events: list[SseEvent]) -> None:
        self.limit = limit
        self.events = events
        super().__init__(f"a server-sent event is longer than {limit} bytes")


class SseParser:
    """Turns the bytes of an event stream, cut anywhere, into events. One parser reads one stream."""

    __slots__ = (
        "_after_cr", "_between_events", "_data", "_event", "_first_line", "_held_bytes", "_id", "_max_event_bytes",
        "_tail", "last_event_id", "retry_ms",
    )  # fmt: skip

    def __init__(self, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._tail = bytearray()  # a line whose end has not come
        self._data: list[bytes] = []
        self._event: str | None = None
        self._held_bytes = 0  # of the lines of the open event
        self._id = ""
        self._first_line = True
        self._after_cr = False  # the last read ended with CR: a LF that follows belongs to it
        self._between_events = True
        self.last_event_id = ""
        """The ``id`` that stood last when an event ended; empty where there was none."""
        self.retry_ms: int | None = None
        """The reconnection delay that the stream asked for last."""

    @property
    def pending(self) -> bool:
        """Whether bytes of an unfinished line or event are held: at the end of a stream, that it was cut off."""
        return bool(self._tail or self._data or self._event is not None)

    @property
    def at_rest(self) -> bool:
        """Whether the next byte begins an event, so that whole ``data`` events may as well be read by somebody else."""
        return self._between_events and not self._first_line

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Return the events that ``chunk`` completes. Raises :class:`SseError` for one that is too long."""
        if self._between_events and chunk.startswith(_PREFIX) and chunk.endswith(b"\n\n") and b"\r" not in chunk:
            events = self._whole_events(chunk)
            if events is not None:
                return events
        return self._feed_lines(chunk)

    def _whole_events(self, chunk: bytes) -> list[SseEvent] | None:
        """Cut a read of one-line ``data`` events; ``None`` where it has anything else."""
        pieces = chunk[:-2].split(b"\n\n")
        for piece in pieces:
            if not piece.startswith(_PREFIX) or b"\n" in piece or len(piece) > self._max_event_bytes:
                return None
        self._first_line = False
        self.last_event_id = self._id
        return [SseEvent(None, piece[6:]) for piece in pieces]

    def _feed_lines(self, chunk: bytes) -> list[SseEvent]:
        self._between_events = False  # also where this read is too long to be read on
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        events: list[SseEvent] = []
        for line in self._lines(chunk, events):
            if line:
                self._field(line)
            else:
                self._dispatch(events)
        self._between_events = not self.pending and not self._after_cr
        return events

    def _lines(self, chunk: bytes, events: list[SseEvent]) -> Iterator[bytes]:
        lines = chunk.splitlines()
        rest = lines.pop() if lines and not chunk.endswith(_LINE_ENDS) else b""
        self._after_cr = chunk.endswith(b"\r") or (self._after_cr and not chunk)
        for line in lines:
            self._tail += line
            self._check_size(events)
            whole = bytes(self._tail)
            self._tail.clear()
            yield self._without_bom(whole)
        self._tail += rest
        self._check_size(events)

    def _without_bom(self, line: bytes) -> bytes:
        if self._first_line:
            self._first_line = False
            return line.removeprefix(_BOM)
        return line

    def _check_size(self, events: list[SseEvent]) -> None:
        if self._held_bytes + len(self._tail) > self._max_event_bytes:
            raise SseError(self._max_event_bytes, events)

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._held_bytes += len(line)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace") or None
            self._held_bytes += len(line)
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _LONGEST_RETRY_DIGITS:
            self.retry_ms = int(value)

    def _dispatch(self, events: list[SseEvent]) -> None:
        self.last_event_id = self._id
        if self._data:
            events.append(SseEvent(self._event, b"\n".join(self._data)))
            self._data.clear()
        self._event = None
        self._held_bytes = 0


@dataclass(frozen=True, slots=True)
class FramingFault:
    """A rule of :data:`FRAMING_RULES` that a stream breaks, and the line or data that does."""

    rule: str
    message: str
    excerpt: bytes


class StrictSseReader:
    """Turns a stream into its events and the faults of its framing, in order. It raises nothing and reads on.

    The order and the faults do not depend on how the stream is cut into reads, so a line is judged when its LF came.
    A line or an event that is too long is a fault, and is not given out.
    """

    def __init__(self, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._found: list[SseEvent | FramingFault] = []
        self._tail = bytearray()  # a line whose LF has not come
        self._data: list[bytes] = []  # of the open event
        self._held_bytes = 0
        self._too_long = False
        self._first_line = True
        self.done = False
        """Whether the event ``[DONE]`` came."""

    def feed(self, chunk: bytes) -> list[SseEvent | FramingFault]:
        """Return what ``chunk`` completes."""
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._hold(line)
            whole = bytes(self._tail)
            self._tail.clear()
            self._physical_line(whole)
        self._hold(rest)
        return self._take_found()

    def end(self) -> list[SseEvent | FramingFault]:
        """Return what is found where the stream ends. To be called once."""
        ended, cr, rest = bytes(self._tail).rpartition(b"\r")
        if cr:
            self._physical_line(ended + cr)
        rest = self._without_bom(rest)
        if self.done and rest:
            self._fault("done-last", "bytes follow '[DONE]'", rest)
        elif rest or self._data or self._too_long:
            self._fault("framing-complete", "the last event has no blank line", rest or b"\n".join(self._data))
        return self._take_found()

    def _take_found(self) -> list[SseEvent | FramingFault]:
        found, self._found = self._found, []
        return found

    def _fault(self, rule: str, message: str, excerpt: bytes) -> None:
        self._found.append(FramingFault(rule, message, excerpt))

    def _hold(self, piece: bytes) -> None:
        limit = self._max_event_bytes - self._held_bytes
        self._too_long = self._too_long or len(self._tail) + len(piece) > limit
        # One byte is always held, so that a line with something in it never passes for a blank one.
        self._tail += piece[: max(0, max(1, limit) - len(self._tail))]

    def _physical_line(self, line: bytes) -> None:
        line = self._without_bom(line)
        if b"\r" in line:
            self._fault("framing-lf", "a line has a CR", line)
        for part in line.removesuffix(b"\r").split(b"\r"):
            self._line(part)

    def _without_bom(self, line: bytes) -> bytes:
        if self._first_line and line.startswith(_BOM):
            self._fault("framing-bom", "the stream begins with a byte order mark", line)
            line = line.removeprefix(_BOM)
        self._first_line = False
        return line

    def _line(self, line: bytes) -> None:
        if self.done:
            self._fault("done-last", "a line follows '[DONE]'", line)
        elif not line:
            self._dispatch()
        elif self._too_long:
            return  # the rest of an event that is not given out
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._held_bytes += len(line)
        elif not line.startswith(b":"):
            self._fault("framing-field", "a line is neither a comment nor 'data:'", line)

    def _dispatch(self) -> None:
        lines, too_long = self._data, self._too_long
        self._data, self._held_bytes, self._too_long = [], 0, False
        data = b"\n".join(lines)
        if too_long:
            self._fault("framing-size", f"an event is longer than {self._max_event_bytes} bytes", data)
        elif lines:
            self._judge_event(lines, data)
            self._found.append(SseEvent(None, data))
            self.done = data == DONE

    def _judge_event(self, lines: list[bytes], data: bytes) -> None:
        if len(lines) > 1:
            self._fault("framing-one-line", f"an event has {len(lines)} data lines", data)
        if not data:
            self._fault("framing-empty-data", "an event has empty data", data)
