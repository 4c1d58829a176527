"""HTTP/1.1 at the socket: uvicorn's protocol, with bounds on what comes before a request exists.

uvicorn reads headers without end, answers broken HTTP in plain text, waits for ever for a connection that says nothing,
tells only the newest of several pipelined requests that their client has gone, and loses the body of a request that
offers to change the protocol. Here:

* the head of a request (its first line and headers) has a limit in bytes and in seconds; so has the first byte of a
  new connection. (The seconds do not count while an answer is being written: the socket may not be read then.)
* what is not HTTP gets the catalogue's error and a closed connection; where an answer has begun, it is cut;
* a body that nobody reads, because its request was refused, is thrown away up to a limit in bytes and in seconds, so
  that the client can finish sending and read the answer, also where the connection closes after it;
* beyond a number of connections a new one is closed at once;
* a client that reads nothing for a while, though there is something to read, is cut off: it would hold a slot for ever;
* a client that goes ends the request that is being answered, however many it has sent;
* an offer to change the protocol (Java's client makes it with every request) is ignored, as RFC 9110, 7.8 allows,
  unless it is the whole handshake of a WebSocket on the one path that has one (:mod:`coterie.api.socket_protocol`).
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Callable
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from coterie.api.handshake import SocketHead, SocketProtocol, opens_socket
from coterie.api.line import ClientLine, ClientPresence
from coterie.config import LimitSettings
from coterie.errors import ApiError
from coterie.errors.render import http_body, http_headers

_UNREAD_FACTOR = 4
"""Times the body limit that a refused request may still send."""

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
"""Headers that say how long a body is."""


def bounded_protocol(limits: LimitSettings) -> type[HttpToolsProtocol]:
    """A protocol class with these limits, for ``uvicorn.Config(http=...)``."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits})


class BoundedProtocol(HttpToolsProtocol):
    """See the module. Use :func:`bounded_protocol`."""

    limits: LimitSettings

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._body_open = False
        """Whether the body of the newest request is still coming; if not, what comes belongs to a head."""
        self._head_begun = False
        self._head_bytes = 0
        self._heads = 0
        self._unread_bytes = 0
        self._lingering = False
        self._data = self._unparsed = b""
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._answering: RequestResponseCycle | None = None
        self._opens_socket = False
        """Whether the newest head opens a WebSocket."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or close it where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        self._arm(self.limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """No more deadlines; and tell the request that is being answered, which need not be the newest."""
        self._disarm()
        self._reading_again()
        super().connection_lost(exc)
        cycle = self._answering
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            cast("dict[str, Any]", cycle.scope)["coterie.client"].leave()

    def pause_writing(self) -> None:
        """The client reads slower than we write: from now on it must read something within the limit."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.limits.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read what there was."""
        self._reading_again()
        super().resume_writing()

    def _reading_again(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def data_received(self, data: bytes) -> None:
        """Count what is a head and what nobody reads, and parse the rest."""
        heads, from_a_head = self._heads, not self._body_open
        self._parse(data)
        if self._opens_socket or self.transport.is_closing():
            return
        if self._body_open:
            self._count_unread(len(data))
            return
        all_of_a_head = from_a_head and heads == self._heads  # else it ended something else first
        if self._timer is None and (all_of_a_head or self._head_begun):
            self._arm(self.limits.header_timeout_s)
        if all_of_a_head:  # any other read is bounded
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.header_bytes:
                self._refuse_head()

    def _parse(self, data: bytes) -> None:
        self._unparsed = data
        while self._unparsed:
            self._data, self._unparsed = self._unparsed, b""
            super().data_received(self._data)
        self._data = b""

    def _unsupported_upgrade_warning(self) -> None:
        """Called where the parser has stopped behind the head of a request that offers to change the protocol.

        Another parser is told the part of the head that frames the body, and goes on with it.
        """
        stop = sys.exception()
        assert isinstance(stop, httptools.HttpParserUpgrade)
        self._unparsed = self._data[stop.args[0] :]
        framing = [name + b": " + value for name, value in self.headers if name in _FRAMING]
        self.parser = httptools.HttpRequestParser(_AfterOffer(self))
        self.parser.feed_data(b"\r\n".join((b"POST / HTTP/1.1", *framing, b"", b"")))

    def _should_upgrade(self) -> bool:
        return self._opens_socket

    def handle_websocket_upgrade(self) -> None:
        """Called where the parser has stopped behind the head of a request that opens a WebSocket: hand over."""
        stop = sys.exception()
        assert isinstance(stop, httptools.HttpParserUpgrade)
        self._disarm()
        self._reading_again()
        self.connections.discard(self)
        make = cast("Callable[..., SocketProtocol]", self.ws_protocol_class)
        socket = make(config=self.config, server_state=self.server_state, app_state=self.app_state)
        key = dict(self.headers)[b"sec-websocket-key"]
        self.transport.set_protocol(cast("asyncio.BaseProtocol", socket))
        socket.take_over(SocketHead(self.url, self.headers, key, self._data[stop.args[0] :]), self.transport)
        if self.flow.write_paused:  # by an earlier answer
            socket.pause_writing()

    def _asks_for_socket(self) -> bool:
        """Whether the newest head opens a WebSocket. Nothing else may be under way on the connection."""
        asked = self.parser.should_upgrade() and self.ws_protocol_class is not None
        return asked and not self._busy() and not self.pipeline and not self._lingering and self._is_handshake()

    def _is_handshake(self) -> bool:
        plain = self.parser.get_method() == b"GET" and self.parser.get_http_version() == "1.1"
        return plain and self._get_upgrade() == b"websocket" and opens_socket(self.url, self.headers)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head_begun = True
        self._head_bytes = 0
        self._disarm()  # it has its own time, from the end of the read in which it begins: most are whole by then
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._heads += 1
        self._opens_socket = self._asks_for_socket()
        self._head_begun, self._body_open = False, True
        self._unread_bytes = 0
        self._disarm()
        super().on_headers_complete()
        if self._opens_socket:
            return
        transport = _AnswerTransport(self)
        self.cycle.transport = cast("asyncio.Transport", transport)
        cast("dict[str, Any]", self.cycle.scope)["coterie.client"] = ClientLine(self.cycle, transport)

    def on_message_complete(self) -> None:
        """The request is whole; the next head may begin whenever it likes (uvicorn bounds the idle time)."""
        if self.parser.should_upgrade():
            return  # it is not: see _unsupported_upgrade_warning
        self._body_open = False
        super().on_message_complete()
        if self._lingering:
            self.transport.close()
        elif self._refused():  # uvicorn's idle time has ended with the first byte that came after the answer
            self._arm(self.limits.header_timeout_s)

    def on_response_complete(self) -> None:
        """An answer is written. Its request needs its line no more, and the two would hold each other."""
        if self._answering is not None:
            cast("dict[str, Any]", self._answering.scope).pop("coterie.client", None)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._close_with(ApiError("invalid_http_request"))

    def linger(self) -> None:
        """Close after an answer, but not before its request was read: the client would lose the answer."""
        if not self._body_open or self.transport.is_closing():
            self.transport.close()
            return
        self._lingering = True
        self.transport.write_eof()
        self._arm(self.limits.body_timeout_s)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _busy(self) -> bool:
        """Whether a request is being answered."""
        return self._answering is not None and not self._answering.response_complete

    def _refused(self) -> bool:
        """Whether the newest request is answered, though its body was still coming."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and cycle.response_complete

    def _count_unread(self, size: int) -> None:
        if not self._refused():
            return
        if self._timer is None:
            self._arm(self.limits.body_timeout_s)
        self._unread_bytes += size
        if self._unread_bytes > _UNREAD_FACTOR * self.limits.body_bytes:
            self.transport.abort()

    def _refuse_head(self) -> None:
        limits = self.limits
        self._close_with(
            ApiError("headers_too_large", limit=limits.header_bytes, limit_s=f"{limits.header_timeout_s:g}")
        )

    def _arm(self, limit_s: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(limit_s, self._is_late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_late(self) -> None:
        if self._busy():
            self._arm(self.limits.header_timeout_s)
        elif self._head_begun:
            self._refuse_head()
        else:
            self.transport.close()

    def _close_with(self, error: ApiError) -> None:
        """Write an answer outside of any request, and close. Nothing is written into an answer that has begun."""
        self._disarm()
        if self.transport.is_closing():
            return
        if not (self._busy() and self._answering is not None and self._answering.response_started):
            self.transport.write(_answer(error))
        self.transport.close()


class _AfterOffer:
    """What another parser calls that goes on behind an offer to change the protocol.

    The part of the head that it is told first is known already; all that follows is the protocol's.
    """

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._protocol = protocol
        self._in_known_head = True
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        """A head begins."""
        if not self._in_known_head:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the first line."""
        if not self._in_known_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if not self._in_known_head:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if not self._in_known_head:
            self._protocol.on_headers_complete()
        self._in_known_head = False


class _AnswerTransport:
    """What uvicorn's answering sees of the transport: the head is written with what follows it, to close is to linger.

    (Head and first event exist at the same moment; written apart they would cost two system calls.)
    """

    __slots__ = ("_head", "_loop", "_transport", "close", "is_closing", "write")

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._transport = protocol.transport
        self._loop = protocol.loop
        self._head = b""
        self.write: Callable[[bytes], None] = self._hold
        self.is_closing = protocol.transport.is_closing
        self.close = protocol.linger

    def _hold(self, head: bytes) -> None:
        self._head, self.write = head, self.write_both
        self._loop.call_soon(self._flush)

    def write_both(self, data: bytes) -> None:
        """Write what is held back, and ``data``."""
        head, self._head = self._head, b""
        self.write = self._transport.write
        self._transport.write(head + data)

    def _flush(self) -> None:
        if self._head:
            self.write_both(b"")


def _answer(error: ApiError) -> bytes:
    request_id = f"req_{uuid.uuid4().hex}"
    body = http_body(error, request_id)
    headers = {**http_headers(error, request_id), "content-length": str(len(body)), "connection": "close"}
    head = [
        f"HTTP/1.1 {error.status} {_REASONS[error.status]}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join((*head, "", "")).encode("latin-1") + body


_REASONS = {400: "Bad Request", 431: "Request Header Fields Too Large"}

__all__ = ["BoundedProtocol", "ClientLine", "ClientPresence", "bounded_protocol"]
