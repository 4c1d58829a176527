"""WebSockets of the real server, for tests: a server with a handler, and what a client needs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send
from tests.support.provider import ScriptedProvider
from tests.support.web import Wire, get, settings
from websockets.asyncio.client import ClientConnection

from coterie.api.app import make_state
from coterie.api.edge import Edge
from coterie.api.handshake import SOCKET_PATH
from coterie.api.server import _config, _Server, listen
from coterie.api.socket import ClientSocket, socket_route
from coterie.api.socket_protocol import BoundedSocket, bounded_socket
from coterie.api.state import AppState
from coterie.errors import ApiError


@dataclass
class Sockets:
    """A running server that has sockets."""

    state: AppState
    server: _Server
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}{SOCKET_PATH}"

    @property
    def protocols(self) -> list[BoundedSocket]:
        return [one for one in self.server.server_state.connections if isinstance(one, BoundedSocket)]

    @contextlib.asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


Handler = Callable[[ClientSocket, AppState], Awaitable[None]]


async def echo(socket: ClientSocket, state: AppState) -> None:
    while True:
        await socket.send(await socket.receive())


@contextlib.asynccontextmanager
async def sockets(handler: Handler = echo, idle_s: float | None = None, **tables: Any) -> AsyncIterator[Sockets]:
    config = settings(**tables)
    state = make_state(config, [ScriptedProvider()])
    listener = listen(config.server)
    uvicorn_config = _config(state)
    if idle_s is not None:
        uvicorn_config.ws = type("Impatient", (bounded_socket(config.limits),), {"idle_s": idle_s})
    routes = [socket_route(state, SOCKET_PATH, handler), Route(SOCKET_PATH, _Plain(), methods=["POST"])]
    uvicorn_config.app = Edge(Router(routes, default=_not_found), state.metrics, config.server.cors_origins)
    server = _Server(uvicorn_config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await server.ready.wait()
    try:
        yield Sockets(state, server, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await task


class _Plain:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise ApiError("not_found", method=scope.get("method", "GET"), path=scope["path"])


async def closing(connection: ClientConnection) -> tuple[int, str]:
    """Wait for the server's close; its code and its reason."""
    await connection.wait_closed()
    assert connection.close_code is not None
    return connection.close_code, connection.close_reason or ""


async def send_all(client: ClientConnection, count: int) -> None:
    for number in range(count):
        await client.send(str(number))


def handshake(**changes: str | None) -> bytes:
    headers: dict[str, str | None] = {
        "connection": "keep-alive, Upgrade", "upgrade": "WebSocket", "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }  # fmt: skip
    return get(SOCKET_PATH, **{name: value for name, value in headers.items() if value is not None})


def frame(payload: bytes, *, first: int = 0x81) -> bytes:
    """A masked frame of less than 126 bytes (the mask is zero)."""
    return bytes([first, 0x80 | len(payload), 0, 0, 0, 0]) + payload


async def close_frame(wire: Wire) -> int:
    """The code of the close frame that comes next."""
    first, size = await wire.reader.readexactly(2)
    assert first == 0x88
    return int.from_bytes((await wire.reader.readexactly(size))[:2])
