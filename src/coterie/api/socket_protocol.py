"""A WebSocket at the socket: uvicorn's protocol over the parser of ``websockets``, with bounds.

uvicorn stops reading at every message (a ping behind it then goes unanswered, and the peer gives up), keeps fragments
without end, waits for ever for the rest of a message, answers pings to a peer that reads nothing, and lets a
connection that is being closed linger. Here:

* a message has a limit in bytes, in fragments and in seconds; it must be text;
* messages that the application has not read are bounded, by number and by bytes; then reading stops;
* reading stops as well while the peer does not read what was written to it, and a peer that reads nothing for a while
  is cut off;
* a peer that answers no ping is gone; a connection without a message, either way, for an hour is closed;
* a close by this side says why by its code, and has a limit in seconds;
* a client that goes is told to whoever works for it (``"coterie.client"`` in the scope).

Close codes (RFC 6455, 7.4.1): 1001 the server stops, or the connection was idle; 1003 not text; 1007 not UTF-8; 1008
too slow or in too many pieces; 1009 too big; 1011 no answer to a ping.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, cast
from urllib.parse import unquote

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from coterie.api.handshake import SocketHead
from coterie.api.protocol import ClientPresence
from coterie.config import LimitSettings

IDLE_S = 3600.0
"""Seconds without a message, either way, after which a connection is closed."""

GOING_AWAY = 1001
NOT_TEXT = 1003
NOT_UTF8 = 1007
AGAINST_POLICY = 1008

_ABNORMAL = 1006
_UNREAD_MESSAGES = 32
_FRAGMENTS = 4096
_PARSED_AT_ONCE = 16 * 1024
"""Bytes after which it is looked whether the application keeps up; a short message costs many times its length."""

_log = logging.getLogger("coterie.api.wire")
_log.setLevel(logging.WARNING)  # what the libraries say of each connection; the edge has a line for it


def bounded_socket(limits: LimitSettings) -> type[BoundedSocket]:
    """A protocol class with these limits, for ``uvicorn.Config(ws=...)``."""
    return type("BoundedSocket", (BoundedSocket,), {"limits": limits})


class BoundedSocket(WebSocketsSansIOProtocol):
    """See the module. Use :func:`bounded_socket`."""

    limits: LimitSettings
    idle_s = IDLE_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = self.conn.logger = _log
        self.client_presence = ClientPresence()
        self._head: SocketHead | None = None
        self._held = bytearray()
        """What has come and is not parsed yet."""
        self._unread: deque[int] = deque()
        """The sizes of the messages that the application has not read."""
        self._unread_bytes = 0
        self._active_s = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._message_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    # The handshake

    def take_over(self, head: SocketHead, transport: asyncio.Transport) -> None:
        """Answer the handshake in ``head``, which is whole and of the right version."""
        self._head = head
        self._held += head.early
        self.connection_made(transport)
        self._steer_reading()
        lines = (
            b"GET / HTTP/1.1", b"host: x", b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-version: 13",
            b"sec-websocket-key: " + head.key,
        )  # fmt: skip
        super().data_received(b"\r\n".join((*lines, b"", b"")))

    def handle_connect(self, event: Request) -> None:
        """The parser has the part of the head that it needs; the application gets all of it."""
        super().handle_connect(event)
        assert self._head is not None
        raw_path, _, query = self._head.target.partition(b"?")
        scope = cast("dict[str, Any]", self.scope)
        scope["headers"] = self._head.headers
        scope["raw_path"], scope["query_string"] = raw_path, query
        scope["path"] = self.root_path + unquote(raw_path.decode("ascii"))
        scope["coterie.client"] = self.client_presence
        scope["coterie.crowded"] = self._is_crowded()

    def _is_crowded(self) -> bool:
        """Whether so many sockets are open that one more would take the room of ordinary requests."""
        sockets = sum(isinstance(connection, BoundedSocket) for connection in self.connections)
        return sockets > self.limits.connections // 2

    # Reading

    def data_received(self, data: bytes) -> None:
        """Parse as much as the application keeps up with, and hold the rest."""
        self._held += data
        self._parse()

    def _parse(self) -> None:
        while self._held and self._may_parse():
            part = bytes(self._held[:_PARSED_AT_ONCE])
            del self._held[:_PARSED_AT_ONCE]
            super().data_received(part)
        if self.conn.parser_exc is not None:
            self._held.clear()  # the rest of something broken
        self._steer_reading()
        self._watch_message()

    def _may_parse(self) -> bool:
        opened = self.conn.state is State.OPEN or self.conn.state is State.CLOSING
        return opened and not self._is_behind() and self.conn.parser_exc is None

    def _is_behind(self) -> bool:
        """Whether the application, or the peer, does not keep up."""
        if self.close_sent:  # nothing is kept any more
            return False
        slow_peer = not self.writable.is_set()
        return slow_peer or len(self._unread) >= _UNREAD_MESSAGES or self._unread_bytes >= self.limits.body_bytes

    def _steer_reading(self) -> None:
        pause = self.conn.state is State.CONNECTING or self._is_behind()
        if pause is self.read_paused or self.transport.is_closing():
            return
        self.read_paused = pause
        if pause:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _watch_message(self) -> None:
        """A message that has begun must end in time, unless it is we who do not read it."""
        begun = self.conn.state is State.OPEN and bool(self.frames or self.conn.reader.buffer)
        if self.read_paused or not begun:
            self._message_is_not_late()
        elif self._message_timer is None:
            self._message_timer = self.loop.call_later(self.limits.body_timeout_s, self._message_is_late)

    def _message_is_not_late(self) -> None:
        _cancel(self._message_timer)
        self._message_timer = None

    def _message_is_late(self) -> None:
        self._end(AGAINST_POLICY, "The message did not arrive in time")

    def handle_cont(self, event: Frame) -> None:
        """One more piece of a message."""
        if len(self.frames) >= _FRAGMENTS:
            self._end(AGAINST_POLICY, "The message has too many fragments")
        else:
            super().handle_cont(event)

    def handle_bytes(self, event: Frame) -> None:
        """A message that is not text."""
        self._end(NOT_TEXT, "Messages must be text")

    def send_receive_event_to_app(self) -> None:
        """A message is whole."""
        self._message_is_not_late()
        data, self.frames = b"".join(self.frames), []
        if self.close_sent:
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._end(NOT_UTF8, "The message is not UTF-8")
            return
        self._active_s = self.loop.time()
        self._unread.append(len(data))
        self._unread_bytes += len(data)
        self.queue.put_nowait({"type": "websocket.receive", "text": text})

    async def receive(self) -> ASGIReceiveEvent:
        """The next message, for the application."""
        message = await self.queue.get()
        if message["type"] == "websocket.receive":
            self._unread_bytes -= self._unread.popleft()
            self._parse()
        return message

    # Writing

    async def send(self, message: ASGISendEvent) -> None:
        """What the application says. Raises ``ClientDisconnected`` where the connection is closed or closing."""
        await self.writable.wait()
        if self.close_sent or self.transport.is_closing():
            raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.accept":
            self._opened()
        elif message["type"] == "websocket.close" and self.close_timer is not None:
            self._close_within_limit()
        elif message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # it was refused, and nothing else is to be said
        self._active_s = self.loop.time()

    def _opened(self) -> None:
        self._active_s = self.loop.time()
        self._idle_timer = self.loop.call_later(self.idle_s, self._look_idle)
        self._parse()

    def _look_idle(self) -> None:
        left_s = self._active_s + self.idle_s - self.loop.time()
        if left_s > 0:
            self._idle_timer = self.loop.call_later(left_s, self._look_idle)
        else:
            self._end(GOING_AWAY, "The connection was idle")

    def pause_writing(self) -> None:
        """The peer reads slower than we write: from now on it must read something within the limit."""
        super().pause_writing()
        _cancel(self._write_timer)
        self._write_timer = self.loop.call_later(self.limits.write_timeout_s, self.transport.abort)
        self._steer_reading()

    def resume_writing(self) -> None:
        """The peer has read what there was."""
        super().resume_writing()
        _cancel(self._write_timer)
        self._parse()

    # Pings

    def send_keepalive_ping(self) -> None:
        """It is time for a ping; but its answer must be read."""
        self.ping_timer = None
        if self.read_paused:
            self.schedule_ping()
        else:
            super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """A ping was not answered, or the answer not read."""
        if self.read_paused:
            self.pong_timer, self.pending_ping_payload = None, None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self._close_within_limit()
        self.client_presence.leave()

    # The end

    def _end(self, code: int, reason: str) -> None:
        """Close from this side, because of the peer or because the server stops."""
        if self.close_sent or self.conn.state is not State.OPEN or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.frames = []
        self._close_within_limit()
        self._steer_reading()
        self.client_presence.leave()

    def handle_close(self, event: Frame) -> None:
        """The peer closes, or answers our close."""
        super().handle_close(event)
        self._close_within_limit()
        self.client_presence.leave()

    def handle_parser_exception(self) -> None:
        """What came is no WebSocket's, or too big. The peer may still be sending: it would lose our close frame."""
        closed = self.conn.close_sent
        assert closed is not None
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.frames = []
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._close_within_limit()
        self.client_presence.leave()

    def shutdown(self) -> None:
        """The server stops. (A handshake that is not answered yet is refused by the application.)"""
        self.stop_keepalive()
        self._end(GOING_AWAY, "The server is shutting down")

    def _close_within_limit(self) -> None:
        _cancel(self.close_timer)
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """No more deadlines; and tell who works for the client."""
        for timer in (self._idle_timer, self._message_timer, self._write_timer):
            _cancel(timer)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": _ABNORMAL})
        super().connection_lost(exc)
        self.client_presence.leave()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
