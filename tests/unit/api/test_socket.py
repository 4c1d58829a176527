"""WebSockets with a real client and the real server: handshakes, turns, ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import Message
from tests.support.sockets import closing, frame, handshake, send_all, sockets
from tests.support.waiting import until
from tests.support.web import get
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from coterie.api.active import ActiveRequests
from coterie.api.attendance import attended
from coterie.api.handshake import SOCKET_PATH
from coterie.api.protocol import BoundedProtocol
from coterie.api.socket import ClientSocket, SocketClosed
from coterie.api.state import AppState
from coterie.errors import ApiError

KEY = "sk-right"


async def refusal(url: str, **headers: str) -> InvalidStatus:
    """Shake hands in vain."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, additional_headers=headers):
            pass
    return caught.value


def expect_refusal(refused: InvalidStatus, status: int, code: str) -> None:
    response = refused.response
    error = json.loads(response.body or b"")["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert error.keys() == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["content-type"] == "application/json"


# Talking


async def test_messages_go_both_ways() -> None:
    async with sockets() as served, connect(served.url) as client:
        assert client.response is not None
        assert client.response.headers["x-request-id"].startswith("req_")
        for text in ("one", "", "zwölf €", "x" * 300_000):
            await client.send(text)
            assert await client.recv() == text


async def test_fragments_are_one_message() -> None:
    async with sockets() as served, connect(served.url) as client:
        await client.send(["a", "b", "", "c"])
        assert await client.recv() == "abc"


async def test_bytes_are_sent_as_text() -> None:
    async def greet(socket: ClientSocket, state: AppState) -> None:
        await socket.send("grüße".encode())

    async with sockets(greet) as served, connect(served.url) as client:
        assert await client.recv() == "grüße"
        assert await closing(client) == (1000, "")


async def test_nothing_is_compressed() -> None:
    async with sockets() as served, connect(served.url, compression="deflate") as client:
        assert client.response is not None
        assert "sec-websocket-extensions" not in client.response.headers


async def test_a_message_that_comes_with_the_handshake_is_not_lost() -> None:
    async with sockets() as served, served.wire() as wire:
        await wire.send(handshake() + frame(b"early"))
        assert (await wire.head())[0] == 101
        assert await wire.reader.readexactly(7) == b"\x81\x05early"


async def test_many_messages_at_once_are_answered_in_order() -> None:
    async with sockets() as served, connect(served.url) as client:
        sending = asyncio.create_task(send_all(client, 3000))
        assert [await client.recv() for _ in range(3000)] == [str(number) for number in range(3000)]
        await sending


# Handshakes


async def test_a_key_is_needed_where_there_are_keys(caplog: pytest.LogCaptureFixture) -> None:
    async with sockets(server={"api_keys": [KEY]}) as served:
        expect_refusal(await refusal(served.url), 401, "invalid_api_key")
        expect_refusal(await refusal(served.url, authorization="Bearer wrong"), 401, "invalid_api_key")
        async with connect(served.url, additional_headers={"authorization": f"Bearer {KEY}"}) as client:
            await client.send("in")
            assert await client.recv() == "in"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_the_owner_of_a_socket_is_known() -> None:
    async def tell(socket: ClientSocket, state: AppState) -> None:
        await socket.send(socket.owner or "nobody")

    given = f"Bearer {KEY}"
    async with (
        sockets(tell, server={"api_keys": [KEY]}) as served,
        connect(served.url, additional_headers={"authorization": given}) as client,
    ):
        assert await client.recv() == served.state.keys.check(given)


async def test_other_paths_have_no_sockets() -> None:
    async with sockets() as served:
        expect_refusal(await refusal(served.url + "/x"), 404, "not_found")


async def test_a_query_does_no_harm() -> None:
    queries: list[tuple[str, bytes]] = []

    async def note(socket: ClientSocket, state: AppState) -> None:
        queries.append((socket.scope["path"], socket.scope["query_string"]))

    async with sockets(note) as served, connect(f"{served.url}?a=" + "b" * 9000) as client:
        assert await closing(client) == (1000, "")
    assert queries == [(SOCKET_PATH, b"a=" + b"b" * 9000)]


async def test_a_server_that_stops_takes_no_more_sockets() -> None:
    async with sockets() as served:
        served.state.active.draining = True
        refused = await refusal(served.url)
        expect_refusal(refused, 503, "server_shutting_down")
        assert int(refused.response.headers["retry-after"]) >= 1


async def test_sockets_leave_room_for_requests() -> None:
    async with sockets(limits={"connections": 8}) as served, contextlib.AsyncExitStack() as open_ones:
        for _ in range(4):
            await open_ones.enter_async_context(connect(served.url))
        expect_refusal(await refusal(served.url), 503, "server_is_overloaded")
        async with served.wire() as wire:
            assert (await wire.ask(get(SOCKET_PATH, "POST"))).status == 200


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://page.example", True),
        ("http://other.example", False),
        ("null", False),
        ("own", True),
    ],
)
async def test_pages_of_other_origins_open_nothing(origin: str, allowed: bool) -> None:
    async with sockets(server={"cors_origins": ["http://page.example"]}) as served:
        origin = f"http://127.0.0.1:{served.port}" if origin == "own" else origin
        if allowed:
            async with connect(served.url, additional_headers={"origin": origin}) as client:
                await client.send("in")
                assert await client.recv() == "in"
        else:
            refused = await refusal(served.url, origin=origin)
            expect_refusal(refused, 400, "invalid_value")


@pytest.mark.parametrize(
    "request_",
    [
        handshake(sec_websocket_version="8"),
        handshake(sec_websocket_version=None),
        handshake(sec_websocket_key="short"),
        handshake(sec_websocket_key="dGhlIHNhbXBsZQ=="),
        handshake(sec_websocket_key=None),
        handshake(upgrade="h2c"),
        handshake(connection="close"),
        handshake(content_length="3") + b"abc",
        handshake().replace(b"GET", b"PUT"),
        handshake().replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_what_is_no_handshake_is_an_ordinary_request(request_: bytes) -> None:
    async with sockets() as served, served.wire() as wire:
        answer = await wire.ask(request_)
        assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize("place", [3, 40, -1])
async def test_a_handshake_in_pieces(place: int) -> None:
    async with sockets() as served, served.wire() as wire:
        await wire.send(handshake()[:place])
        await wire.send(handshake()[place:])
        assert (await wire.head())[0] == 101


async def test_a_handshake_after_a_request() -> None:
    async with sockets() as served, served.wire() as wire:
        assert (await wire.ask(get(SOCKET_PATH, "POST"))).status == 200
        await wire.send(handshake())
        status, headers = await wire.head()
        assert (status, headers["sec-websocket-accept"]) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")


async def test_a_handshake_while_an_earlier_answer_is_not_read() -> None:
    async with sockets() as served, served.wire() as wire:
        await wire.ask(get(SOCKET_PATH, "POST"))
        [http] = served.server.server_state.connections
        assert isinstance(http, BoundedProtocol)
        http.pause_writing()
        await wire.send(handshake() + frame(b"x"))
        await until(lambda: bool(served.protocols))
        [protocol] = served.protocols
        assert not protocol.writable.is_set()
        assert http._write_timer is None
        protocol.resume_writing()
        assert (await wire.head())[0] == 101


async def test_a_handshake_behind_a_request_that_is_not_answered_is_none() -> None:
    async with sockets() as served, served.wire() as wire:
        await wire.send(get(SOCKET_PATH, "POST") + handshake())
        assert [(await wire.answer()).status for _ in range(2)] == [200, 405]


# Ends


async def test_a_handler_learns_how_the_client_went() -> None:
    codes: asyncio.Queue[int] = asyncio.Queue()

    async def note(socket: ClientSocket, state: AppState) -> None:
        try:
            await socket.receive()
        except SocketClosed as closed:
            codes.put_nowait(closed.code)
            with pytest.raises(SocketClosed):
                await socket.receive()
            with pytest.raises(SocketClosed):
                await socket.send("x")
            raise

    async with sockets(note) as served:
        async with connect(served.url) as client:
            await client.close(4001, "enough")
        assert await codes.get() == 4001
        async with connect(served.url) as client:
            client.transport.abort()
        assert await codes.get() == 1006


async def test_a_client_that_vanishes_is_told_apart_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coterie.access")
    async with sockets() as served, connect(served.url) as client:
        client.transport.abort()
        await until(lambda: "WEBSOCKET /v1/responses client_closed 101" in caplog.text)


async def test_a_turn_ends_with_its_client(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coterie.access")
    started, ended = asyncio.Event(), asyncio.Event()

    async def turn_for_ever(socket: ClientSocket, state: AppState) -> None:
        await socket.receive()
        with socket.exchange.turn() as turn:
            async with attended(state, turn, _nothing):
                started.set()
                await asyncio.Event().wait()
        assert turn.outcome == "client_closed"
        ended.set()

    async with sockets(turn_for_ever) as served, connect(served.url) as client:
        await client.send("go")
        await started.wait()
        client.transport.abort()
        await ended.wait()
        assert len(served.state.active) == 0


async def _nothing() -> Message:
    raise AssertionError


@dataclass
class Turns:
    """A handler that has a turn for each message, which ends when ``go`` is set."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    ids: list[str] = field(default_factory=list)

    async def __call__(self, socket: ClientSocket, state: AppState) -> None:
        while True:
            text = await socket.receive()
            with socket.exchange.turn() as turn:
                self.ids.append(turn.request_id)
                try:
                    async with attended(state, turn, _nothing):
                        await self.go.wait()
                        await socket.send(text)
                except ApiError as error:
                    turn.note(error)
                    await socket.send(error.code)


async def test_each_turn_has_an_id_a_line_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coterie.access")
    turns = Turns()
    turns.go.set()
    async with sockets(turns) as served:
        async with connect(served.url) as client:
            for _ in range(2):
                await client.send("x")
                await client.recv()
            assert "coterie_requests_active 0.0" in served.state.metrics.render().decode()
        await until(lambda: "WEBSOCKET" in caplog.text)
        page = served.state.metrics.render().decode()
    lines = [record.getMessage() for record in caplog.records if record.name == "coterie.access"]
    assert [line.split(" ms")[0].rpartition(" ")[0] for line in lines] == [
        "TURN /v1/responses ok 200 -",
        "TURN /v1/responses ok 200 -",
        "WEBSOCKET /v1/responses ok 101 -",
    ]
    assert len(set(turns.ids)) == 2
    assert 'coterie_requests_total{code="",dialect="",model="",outcome="ok",route="/v1/responses"} 3.0' in page


async def test_a_stop_closes_idle_sockets_at_once_and_others_after_their_turn() -> None:
    turns = Turns()
    async with sockets(turns) as served, connect(served.url) as idle, connect(served.url) as busy:
        await busy.send("last words")
        await until(lambda: len(served.state.active) == 1)
        draining = asyncio.create_task(served.state.active.drain(60))
        assert await closing(idle) == (1001, "The server is shutting down")
        assert not draining.done()
        turns.go.set()
        assert await busy.recv() == "last words"
        assert await closing(busy) == (1001, "The server is shutting down")
        await draining


async def test_a_turn_that_does_not_end_in_time_is_ended() -> None:
    async with sockets(Turns()) as served, connect(served.url) as client:
        await client.send("x")
        await until(lambda: len(served.state.active) == 1)
        await served.state.active.drain(0)
        assert await client.recv() == "server_shutting_down"
        assert await closing(client) == (1001, "The server is shutting down")


async def test_a_socket_that_nobody_closed_is_closed_with_the_server() -> None:
    async def sleep(socket: ClientSocket, state: AppState) -> None:
        await asyncio.Event().wait()

    async with sockets(sleep) as served, connect(served.url) as client:
        served.server.should_exit = True
        assert await closing(client) == (1001, "The server is shutting down")


async def test_a_bug_closes_the_socket_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def break_(socket: ClientSocket, state: AppState) -> None:
        raise RuntimeError("secret")

    async with sockets(break_) as served, connect(served.url) as client:
        assert await closing(client) == (1011, "internal_error")
    assert "secret" in caplog.text


# Without a server


class Told:
    """The other side of a :class:`ClientSocket`: says ``messages``, then nothing."""

    def __init__(self, *messages: Message, gone: bool = False) -> None:
        self.said = list(messages)
        self.heard: list[Message] = []
        self.gone = gone

    def socket(self, *, draining: bool = False) -> ClientSocket:
        return ClientSocket({}, self._receive, self._send, ActiveRequests(draining=draining))

    async def _receive(self) -> Message:
        if not self.said:
            await asyncio.Event().wait()
        return self.said.pop(0)

    async def _send(self, message: Message) -> None:
        if self.gone:
            raise OSError
        self.heard.append(message)


async def closed_with(socket: ClientSocket) -> int:
    with pytest.raises(SocketClosed) as caught:
        await socket.receive()
    return caught.value.code


async def test_messages_that_are_not_text_are_refused_whoever_serves() -> None:
    told = Told({"type": "websocket.receive", "bytes": b"x", "text": None})
    assert await closed_with(told.socket()) == 1003
    assert [(message["type"], message["code"]) for message in told.heard] == [("websocket.close", 1003)]


@pytest.mark.parametrize(("code", "expected"), [({"code": 1001}, 1001), ({"code": None}, 1005), ({}, 1005)])
async def test_a_close_without_a_code_has_one(code: Mapping[str, Any], expected: int) -> None:
    assert await closed_with(Told({"type": "websocket.disconnect", **code}).socket()) == expected


async def test_a_client_that_has_gone_is_closed() -> None:
    socket = Told(gone=True).socket()
    with pytest.raises(SocketClosed, match="closed with code 1006"):
        await socket.send("x")
    assert await closed_with(socket) == 1006
    await Told(gone=True).socket().close()


async def test_a_socket_is_closed_once() -> None:
    told = Told()
    socket = told.socket()
    await socket.close(4000, "first")
    await socket.close(4001, "second")
    assert [message["code"] for message in told.heard] == [4000]


async def test_no_message_is_read_of_a_server_that_stops() -> None:
    told = Told({"type": "websocket.receive", "text": "x"})
    assert await closed_with(told.socket(draining=True)) == 1001
    assert told.said
