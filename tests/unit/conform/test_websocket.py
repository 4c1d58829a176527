"""The checks of the WebSocket mode: a good server passes, and each way to be bad is told."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
import pytest
from tests.unit.conform.good_server import GoodServer, Refusal, events_of
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from coterie.conform.check import Site, Skip
from coterie.conform.exchange import Client, Reply, Target
from coterie.conform.websocket import CHECKS

BY_ID = {check.id: check for check in CHECKS}
Spoil = Callable[[list[bytes]], list[bytes]]


@dataclass
class Conversation:
    """One socket, which remembers its last response alone."""

    server: GoodServer = field(default_factory=GoodServer)

    def answer(self, message: str | bytes) -> list[bytes]:
        """The messages of a turn."""
        try:
            return [orjson.dumps(event) for event in events_of(self.turn(message))]
        except Refusal as refusal:
            self.server.kept.clear()
            return [orjson.dumps({"type": "error", "status": refusal.status, "error": refusal.error})]

    def turn(self, message: str | bytes) -> Any:
        try:
            body = orjson.loads(message)
        except orjson.JSONDecodeError:
            raise Refusal(400) from None
        if not isinstance(body, dict) or body.get("type") != "response.create" or body.get("temperature"):
            raise Refusal(400)
        if body["model"] != "m":
            raise Refusal(404, "model", "model_not_found")
        orphan = isinstance(body["input"], list) and body["input"][0]["type"] == "function_call_output"
        self.server.history(body)
        if orphan:
            raise Refusal(400)
        response: Any = self.server.create((), "", {**body, "store": True})
        return response


class SocketSite(Site):
    """Asks a good server over HTTP, and opens sockets to ``url``."""

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 30) -> None:
        super().__init__(Client(Target(url, "m", key), timeout_s))

    async def ask(self, method: str, path: str, body: Any = None, **how: Any) -> Reply:
        headers = {"content-type": "application/json", "x-request-id": "req_1"}
        status, _, data = GoodServer().answer(method, path, body)
        return Reply(method, path, b"", status, headers, data)


@contextlib.asynccontextmanager
async def serving(
    spoil: Spoil = list, *, key: str | None = None, shared: bool = False, refusal: HTTPStatus = HTTPStatus.UNAUTHORIZED
) -> AsyncIterator[str]:
    everywhere = Conversation()

    async def handle(connection: ServerConnection) -> None:
        conversation = everywhere if shared else Conversation()
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                for event in spoil(conversation.answer(message)):
                    await connection.send(event, text=True)

    def let_in(connection: ServerConnection, request: Request) -> Response | None:
        if request.path != "/v1/responses":
            return connection.respond(HTTPStatus.NOT_FOUND, "")
        if key is not None and request.headers.get("authorization") != f"Bearer {key}":
            return connection.respond(refusal, "")
        return None

    async with serve(handle, "127.0.0.1", 0, process_request=let_in, compression=None) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def found_by(name: str, spoil: Spoil = list, *, shared: bool = False, timeout_s: float = 30) -> set[str]:
    async with serving(spoil, shared=shared) as url:
        return {failure.rule for failure in await BY_ID[name].run(SocketSite(url, timeout_s=timeout_s))}


def every(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda events: [change(event) for event in events]


BROKEN: list[tuple[str, set[str], Spoil]] = [
    ("websocket.turn", {"sequence"}, every(lambda event: event.replace(b'_number":1}', b'_number":7}'))),
    ("websocket.turn", {"sequence", "progress-order"}, lambda events: [events[0], *events[2:]]),
    ("websocket.turn", {"status"}, lambda events: [
        *events[:-1], events[-1].replace(b'"response.completed"', b'"response.failed"')]),
    ("websocket.turn", {"socket-message"}, every(lambda event: b"[]")),
    ("websocket.turns", {"socket-message"}, lambda events: [*events, b"[DONE]"]),
    ("websocket.error.model", {"socket-code"}, every(lambda e: e.replace(b"model_not_found", b"not_found"))),
    ("websocket.error.json", {"socket-error"}, every(lambda event: event.replace(b'"status":400,', b""))),
    ("websocket.error.type", {"socket-error"}, every(lambda e: e.replace(b'"code":"invalid_value"', b'"code":null'))),
]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in BY_ID if name != "websocket.key"])
async def test_a_good_server_passes(name: str) -> None:
    assert await found_by(name) == set()


@pytest.mark.parametrize(("name", "rules", "spoil"), BROKEN)
async def test_a_bad_server_is_told(name: str, rules: set[str], spoil: Spoil) -> None:
    assert await found_by(name, spoil) == rules


async def test_a_server_that_remembers_too_much() -> None:
    assert await found_by("websocket.forgotten", shared=True) == {"socket-refused"}


async def test_a_turn_that_does_not_end() -> None:
    assert "socket-open" in await found_by("websocket.turn", lambda events: events[:-1], timeout_s=0.3)


async def test_a_server_that_closes() -> None:
    async def handle(connection: ServerConnection) -> None:
        await connection.recv()

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        site = SocketSite(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert {failure.rule for failure in await BY_ID["websocket.turn"].run(site)} == {"socket-open"}


async def test_a_server_without_sockets() -> None:
    async with serving() as url:
        site = SocketSite(f"{url}/other")
        assert {failure.rule for failure in await BY_ID["websocket.open"].run(site)} == {"socket"}
        with pytest.raises(Skip, match="404"):
            await BY_ID["websocket.turn"].run(site)


async def test_keys() -> None:
    check = BY_ID["websocket.key"]
    async with serving() as url:
        with pytest.raises(Skip, match="no key"):
            await check.run(SocketSite(url))
        assert {failure.rule for failure in await check.run(SocketSite(url, "secret"))} == {"socket-refused"}
    async with serving(key="secret") as url:
        assert list(await check.run(SocketSite(url, "secret"))) == []
        assert list(await BY_ID["websocket.turn"].run(SocketSite(url, "secret"))) == []
    for refusal, rules in ((HTTPStatus.FORBIDDEN, set()), (HTTPStatus.INTERNAL_SERVER_ERROR, {"socket-refused"})):
        async with serving(key="secret", refusal=refusal) as url:
            assert {failure.rule for failure in await check.run(SocketSite(url, "secret"))} == rules
