"""Clients of the API: one that calls the application, one that writes bytes to the real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from coterie.api.app import make_app, make_state
from coterie.api.server import _config, _Server, listen
from coterie.api.state import AppState
from coterie.config import Settings
from coterie.providers.base import Provider

CHAT: Mapping[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
STREAM: Mapping[str, Any] = {**CHAT, "stream": True}
COMPLETION: Mapping[str, Any] = {"model": "m", "prompt": "Hi"}
EMBEDDINGS: Mapping[str, Any] = {"model": "m", "input": "Hi"}

JSON = {"content-type": "application/json"}


def settings(**tables: Any) -> Settings:
    """Settings with a free port; ``limits={...}`` and so on change them."""
    tables["server"] = {"port": 0, **tables.get("server", {})}
    # One attempt, so that a failure is the answer at once.
    tables["dispatch"] = {"attempts": 1, **tables.get("dispatch", {})}
    return Settings.model_validate(tables)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Mapping[str, Any]:
        """The error of the answer, whose form is checked."""
        assert self.headers["content-type"] == "application/json"
        assert self.json.keys() == {"error"}
        error: dict[str, Any] = self.json["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert isinstance(error["code"], str)
        return error

    @property
    def events(self) -> list[bytes]:
        """The data of each event of a stream."""
        assert self.headers["content-type"] == "text/event-stream; charset=utf-8"
        frames = self.body.split(b"\n\n")
        assert frames.pop() == b""
        return [frame.removeprefix(b"data: ") for frame in frames]

    @property
    def last_error(self) -> Mapping[str, Any]:
        """The error frame that ends a stream."""
        *_, frame, done = self.events
        assert done == b"[DONE]"
        error: dict[str, Any] = json.loads(frame)["error"]
        return error


# Without a socket


class AsgiClient:
    """Calls an application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        return await self.ask(method, path, b"", headers)

    async def post(self, path: str, body: Any, headers: Mapping[str, str] = JSON) -> Answer:
        return await self.ask("POST", path, json.dumps(body).encode(), headers)

    async def ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        call = AsgiCall(self.app, method, path, body, headers)
        await call.task
        return call.answer


@dataclass
class AsgiCall:
    """One running call. ``head`` is set when the answer's head was sent."""

    app: ASGIApp
    method: str
    path: str
    body: bytes = b""
    request_headers: Mapping[str, str] = field(default_factory=lambda: JSON)

    def __post_init__(self) -> None:
        self.sent: list[Message] = []
        self.head = asyncio.Event()
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._inbox.put_nowait({"type": "http.request", "body": self.body, "more_body": False})
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self.app(self.scope, self._inbox.get, self._send)

    @property
    def scope(self) -> Scope:
        headers = [(name.encode(), value.encode("latin-1")) for name, value in self.request_headers.items()]
        return {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": self.method, "scheme": "http",
            "path": self.path, "raw_path": self.path.encode(), "query_string": b"", "root_path": "",
            "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body":
            self.head.set()

    def leave(self) -> None:
        """The client goes."""
        self._inbox.put_nowait({"type": "http.disconnect"})

    @property
    def answer(self) -> Answer:
        start, *parts = self.sent
        assert start["type"] == "http.response.start"
        assert not parts[-1].get("more_body", False)
        assert all(part["more_body"] for part in parts[:-1])
        names = [name.decode() for name, _ in start["headers"]]
        assert len(names) == len(set(names)), "a header is there twice"
        headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        return Answer(start["status"], headers, b"".join(part["body"] for part in parts))


def client(provider: Provider, **tables: Any) -> AsgiClient:
    """A client of an application with ``provider``."""
    return AsgiClient(make_app(make_state(settings(**tables), [provider])))


# With a socket


@dataclass
class Served:
    """A running server."""

    state: AppState
    server: _Server
    port: int

    @property
    def protocols(self) -> list[Any]:
        """The server's side of each connection."""
        return list(self.server.server_state.connections)

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Wire]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(provider: Provider, **tables: Any) -> AsyncIterator[Served]:
    """The real server with ``provider``, on a free port."""
    config = settings(**tables)
    state = make_state(config, [provider])
    listener = listen(config.server)
    server = _Server(_config(state))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await server.ready.wait()
    try:
        yield Served(state, server, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await task


def post_head(path: str, length: int, **headers: str) -> bytes:
    """The head of a JSON request."""
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode()


def post(path: str, body: Any, **headers: str) -> bytes:
    """A whole JSON request."""
    data = json.dumps(body).encode()
    return post_head(path, len(data), **headers) + data


def get(path: str, method: str = "GET", **headers: str) -> bytes:
    """A request without a body."""
    lines = [f"{method} {path} HTTP/1.1", "host: x", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join((*lines, "", "")).encode()


@dataclass
class Wire:
    """One connection, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: bytes, *, method: str = "POST") -> Answer:
        await self.send(request)
        return await self.answer(method)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Leave without a word."""
        self.writer.transport.abort()

    async def at_end(self) -> bool:
        """Whether the server has closed and sent nothing more; waits for either."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionResetError:
            return True

    async def head(self) -> tuple[int, dict[str, str]]:
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), "a header is there twice"
        return int(first.split(" ")[1]), headers

    async def answer(self, method: str = "POST") -> Answer:
        """The next answer, whole."""
        status, headers = await self.head()
        if method == "HEAD":
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") != "chunked":
            return Answer(status, headers, await self.reader.readexactly(int(headers["content-length"])))
        return Answer(status, headers, b"".join([part async for part in self.parts()]))

    async def parts(self) -> AsyncIterator[bytes]:
        """The chunks of a chunked body."""
        while size := int(await self.reader.readline(), 16):
            part = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
            yield part
        assert await self.reader.readexactly(2) == b"\r\n"
