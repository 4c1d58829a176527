"""A WebSocket, for who talks over it.

A handler is called once the handshake is accepted, and may end whenever it likes; the socket is then closed with code
1000. Between two turns it waits in :meth:`ClientSocket.receive`, which ends with :class:`SocketClosed` when the client
goes and when the server stops (the socket is then closed with code 1001, after the turn that was running). In a turn,
the client's going is told through ``scope["coterie.client"]``, as with any request (``answer.attended``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.routing import WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from coterie.errors import ApiError

if TYPE_CHECKING:
    from coterie.api.active import ActiveRequests
    from coterie.api.edge import SocketExchange
    from coterie.api.state import AppState

GOING_AWAY = 1001
NOT_TEXT = 1003
AGAINST_POLICY = 1008
INTERNAL_ERROR = 1011

_CROWDED_RETRY_S = 5.0

Handler = Callable[["ClientSocket", "AppState"], Awaitable[None]]


class SocketClosed(Exception):  # noqa: N818 - an end, seldom an error
    """Nobody is there any more, or nobody will be heard any more. ``code`` is the close code (RFC 6455, 7.4)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"closed with code {code}")
        self.code = code


class ClientSocket:
    """A WebSocket whose messages are text."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, active: ActiveRequests, *, owner: str = "") -> None:
        self.scope = scope
        self.owner = owner
        """Whose socket it is, as ``KeyRing.check`` tells it."""
        self._receive = receive
        self._send = send
        self._active = active
        self._closed: int | None = None
        """The close code, once there is one."""

    @property
    def exchange(self) -> SocketExchange:
        """What the edge knows of the socket; each request over it is an ``exchange.turn()``."""
        exchange: SocketExchange = self.scope["coterie.exchange"]
        return exchange

    async def accept(self) -> None:
        """Accept the handshake. Raises :class:`SocketClosed` where the client has gone meanwhile."""
        await self._receive()  # "websocket.connect"
        await self._say({"type": "websocket.accept"})

    async def receive(self) -> str:
        """The next message. For the time between turns: raises :class:`SocketClosed` also when the server stops."""
        if self._closed is not None:
            raise SocketClosed(self._closed)
        message = await self._next()
        if message is None:
            await self.close(GOING_AWAY, "The server is shutting down")
            raise SocketClosed(GOING_AWAY)
        if message["type"] == "websocket.disconnect":
            self._closed = int(message.get("code") or 1005)
            raise SocketClosed(self._closed)
        text: str | None = message.get("text")
        if text is None:
            await self.close(NOT_TEXT, "Messages must be text")
            raise SocketClosed(NOT_TEXT)
        return text

    async def _next(self) -> Message | None:
        """The next message, or ``None`` for the server's stop."""
        if self._active.draining:
            return None
        try:
            async with asyncio.timeout(None) as limit:
                now = asyncio.get_running_loop().time
                with self._active.told_of_stop(lambda: limit.reschedule(now())):
                    return await self._receive()
        except TimeoutError:
            return None

    async def send(self, text: str | bytes) -> None:
        """Send a message; waits for a client that reads slowly. Bytes are text in UTF-8.

        Raises :class:`SocketClosed`.
        """
        if self._closed is not None:
            raise SocketClosed(self._closed)
        await self._say({"type": "websocket.send", "text": text if isinstance(text, str) else text.decode()})

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close, where it is not closed yet. ``reason`` has at most 123 bytes."""
        if self._closed is not None:
            return
        self._closed = code
        with contextlib.suppress(OSError):  # the client was faster
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _say(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # uvicorn's ClientDisconnected
            self._closed = 1006
            raise SocketClosed(1006) from None


def socket_route(state: AppState, path: str, handler: Handler) -> WebSocketRoute:
    """A route whose WebSockets ``handler`` talks over; like any other it needs a key, where the server has keys."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        exchange: SocketExchange = scope["coterie.exchange"]
        exchange.scope["coterie.route"] = path
        owner = state.keys.check(_authorization(scope))
        if state.active.draining:
            raise state.active.shutting_down()
        if scope.get("coterie.crowded", False):
            raise ApiError("server_is_overloaded", retry_after_s=_CROWDED_RETRY_S)
        socket = ClientSocket(scope, receive, exchange.send, state.active, owner=owner)
        try:
            await socket.accept()
            await handler(socket, state)
        except SocketClosed as closed:
            if closed.code == 1006:
                raise

    return WebSocketRoute(path, _AsgiEndpoint(endpoint))


class _AsgiEndpoint:
    """Starlette takes an object for an ASGI application, and a function for a handler of its own sockets."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _authorization(scope: Scope) -> str | None:
    values = (value for name, value in scope["headers"] if name == b"authorization")
    value: bytes | None = next(values, None)
    return None if value is None else value.decode("latin-1")
