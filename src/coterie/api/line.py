"""The client of a request: whether it is still there, and the short ways to read from it and to write to it.

uvicorn takes a body and an answer in parts, each of them a message that is looked at and may wait. What is whole needs
none of that, nor does an event of a stream. A short way leaves uvicorn's side of the request as its own way would have,
and the same bytes on the wire; where that is not certain (the client is slow, has gone, or wants something special) it
does nothing and says so, and the caller goes the usual way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

Headers = Sequence[tuple[bytes, bytes]]
"""Names are in lower case. None of those that the connection writes itself: ``connection``, ``transfer-encoding``."""


class ClientPresence:
    """Whether a client is still there, as far as its socket tells. Stands in the scope, as "coterie.client"."""

    __slots__ = ("_tell", "gone")

    def __init__(self) -> None:
        self.gone = False
        """Whether the client has left."""
        self._tell: Callable[[], None] | None = None

    def tell(self, whom: Callable[[], None] | None) -> None:
        """Call ``whom`` when the client goes, at once where it has gone; ``None``: nobody any more."""
        self._tell = whom
        if self.gone and whom is not None:
            whom()

    def leave(self) -> None:
        """The client has gone."""
        self.gone = True
        if self._tell is not None:
            self._tell()


class AnswerTransport(Protocol):
    """Where the bytes of an answer go."""

    write: Callable[[bytes], None]

    def write_both(self, data: bytes) -> None:
        """Write what is held back, and ``data``."""
        ...


class ClientLine(ClientPresence):
    """The client of one HTTP request. See the module."""

    __slots__ = ("_cycle", "_transport")

    def __init__(self, cycle: RequestResponseCycle, transport: AnswerTransport) -> None:
        super().__init__()
        self._cycle = cycle
        self._transport = transport

    def take_body(self, limit_bytes: int) -> bytes | None:
        """The whole body, where it has come already and nobody has read it; ``None``: it is to be received."""
        cycle = self._cycle
        come = cycle.message_event.is_set() and not (cycle.more_body or cycle.disconnected or cycle.response_complete)
        if not come or cycle.waiting_for_100_continue or len(cycle.body) > limit_bytes:
            return None
        cycle.flow.resume_reading()
        cycle.message_event.clear()
        body, cycle.body = bytes(cycle.body), bytearray()
        return body

    def answer(self, status: int, headers: Headers, body: bytes) -> bool:
        """Write a whole answer. ``headers`` tell its length."""
        if not self._begin(status, headers, b"", body):
            return False
        self._end()
        return True

    def begin(self, status: int, headers: Headers, event: bytes) -> bool:
        """Write the head of a stream, and its first event."""
        return self._begin(status, headers, b"transfer-encoding: chunked\r\n", _chunk(event))

    @property
    def ready(self) -> bool:
        """Whether a stream has begun, and the client reads."""
        cycle = self._cycle
        return bool(cycle.chunked_encoding) and not (cycle.flow.write_paused or cycle.disconnected)

    def write(self, event: bytes) -> bool:
        """Write one more event of a stream that has begun."""
        if not self.ready:
            return False
        self._transport.write(_chunk(event))
        return True

    def end(self, event: bytes) -> bool:
        """Write the last event of a stream that has begun, and end it."""
        if not self.ready:
            return False
        self._transport.write(_chunk(event) + _LAST_CHUNK)
        self._end()
        return True

    def _begin(self, status: int, headers: Headers, framing: bytes, data: bytes) -> bool:
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or cycle.flow.write_paused:
            return False
        if cycle.access_log or cycle.scope["method"] == "HEAD":
            return False
        lines = [STATUS_LINE[status], *[b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]]
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        if framing:
            lines.append(framing)
        head = b"".join(lines)
        if not _is_clean(head, len(lines)):
            return False
        cycle.response_started, cycle.waiting_for_100_continue, cycle.chunked_encoding = True, False, bool(framing)
        self._transport.write_both(b"".join((head, b"\r\n", data)))
        return True

    def _end(self) -> None:
        cycle = self._cycle
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


_LAST_CHUNK: Final = b"0\r\n\r\n"

_CONTROLS: Final = bytes(code for code in (*range(0x20), 0x7F) if code != ord("\t"))


def _is_clean(head: bytes, lines: int) -> bool:
    """Whether there are no control characters in ``head`` but the ends of its ``lines``."""
    return len(head) - len(head.translate(None, _CONTROLS)) == 2 * lines


def _chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event) if event else b""  # an empty one would be the last
