"""Strange and broken clients, byte by byte, against the real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.support.provider import ScriptedProvider, delta, finish, usage
from tests.support.waiting import until
from tests.support.web import CHAT, STREAM, Answer, Served, get, post, post_head, serving

from coterie.api.protocol import ClientLine, _AnswerTransport
from coterie.dialects.chat_validator import judge

CHAT_PATH = "/v1/chat/completions"

BROKEN = {
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    "words": b"hello there\r\n\r\n",
    "another version": b"GET /health HTTP/9.9\r\n\r\n",
    "a header without a colon": b"GET /health HTTP/1.1\r\nhost x\r\n\r\n",
    "a bad length": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n",
    "a huge length": b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
    "two lengths": b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
    "a length and chunks": b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n{}",
    "a tunnel": b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a path that is not ASCII": b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
    "a control character in a header": b"GET /health HTTP/1.1\r\nhost: x\x00y\r\n\r\n",
}


@contextlib.asynccontextmanager
async def server(provider: ScriptedProvider | None = None, **limits: Any) -> Any:
    async with serving(provider or ScriptedProvider(), limits=limits) as served:
        yield served


async def is_well(served: Served) -> bool:
    """Whether a new client is served."""
    async with served.connect() as wire:
        return judge((await wire.ask(post(CHAT_PATH, STREAM))).body) == []


def expect_error(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("request_", BROKEN.values(), ids=BROKEN.keys())
async def test_what_is_not_http_gets_an_error_and_a_closed_connection(request_: bytes) -> None:
    async with server() as served:
        async with served.connect() as wire:
            answer = await wire.ask(request_)
            expect_error(answer, 400, "invalid_http_request")
            assert answer.headers["connection"] == "close"
            assert await wire.at_end()
        assert await is_well(served)


async def test_headers_without_end() -> None:
    async with server(header_bytes=2000) as served:
        async with served.connect() as wire:
            await wire.send(b"GET /health HTTP/1.1\r\nhost: x\r\n")
            for number in range(200):
                await wire.send(b"x-%d: %s\r\n" % (number, b"y" * 50))
            expect_error(await wire.answer(), 431, "headers_too_large")
        assert await is_well(served)


async def test_one_header_without_end() -> None:
    async with server(header_bytes=2000) as served, served.connect() as wire:
        await wire.send(b"GET /health HTTP/1.1\r\nx: ")
        for _ in range(100):
            await wire.send(b"y" * 100)
        expect_error(await wire.answer(), 431, "headers_too_large")


async def test_headers_that_take_too_long() -> None:
    async with server(header_timeout_s=0.05) as served, served.connect() as wire:
        answer = await wire.ask(b"GET /health HTTP/1.1\r\nhost: x\r\n")
        expect_error(answer, 431, "headers_too_large")
        assert await wire.at_end()


async def test_later_headers_that_take_too_long() -> None:
    async with server(header_timeout_s=0.05) as served, served.connect() as wire:
        assert (await wire.ask(get("/health"))).status == 200
        expect_error(await wire.ask(b"GET /health HTTP/1.1\r\nhost: x\r\n"), 431, "headers_too_large")


async def test_a_head_behind_a_whole_request_that_takes_too_long() -> None:
    async with server(header_timeout_s=0.05) as served, served.connect() as wire:
        await wire.send(get("/health") + b"GET /health HTTP/1.1\r\n")
        assert (await wire.answer()).status == 200
        expect_error(await wire.answer(), 431, "headers_too_large")
        assert await wire.at_end()


async def test_a_head_behind_a_body_that_takes_too_long() -> None:
    request = post(CHAT_PATH, CHAT)
    async with server(header_timeout_s=0.05) as served, served.connect() as wire:
        await wire.send(request[:-5])
        await until(lambda: all(protocol._body_open for protocol in served.protocols))
        await wire.send(request[-5:] + b"GET /health HTTP/1.1\r\n")
        assert (await wire.answer()).status == 200
        expect_error(await wire.answer(), 431, "headers_too_large")


async def test_a_head_has_its_own_time_whatever_came_before_it() -> None:
    async with server() as served, served.connect() as wire:
        await wire.send(b"\r\n")
        await until(lambda: bool(served.protocols))
        [protocol] = served.protocols
        await until(lambda: protocol._timer is not None)
        before = protocol._timer
        await wire.send(b"GET /health")
        await until(lambda: protocol._head_begun)
        assert protocol._timer not in (None, before)


async def test_a_head_that_comes_whole_costs_no_timer() -> None:
    armed: list[float] = []
    async with server() as served, served.connect() as wire:
        assert (await wire.ask(get("/health"))).status == 200
        [protocol] = served.protocols
        assert protocol._timer is None
        protocol._arm = armed.append
        for request in (get("/health"), post(CHAT_PATH, CHAT), post(CHAT_PATH, STREAM)):
            assert (await wire.ask(request)).status == 200
        assert not armed
        await wire.send(b"GET /health")
        await until(lambda: bool(armed))


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with server(header_timeout_s=0.05) as served, served.connect() as wire:
        assert await wire.at_end()


@pytest.mark.parametrize("greeting", [b"", get("/health")], ids=["at once", "after a request"])
async def test_a_connection_that_says_blank_lines_is_closed(greeting: bytes) -> None:
    async with server(header_timeout_s=0.05) as served, served.connect() as wire:
        if greeting:
            assert (await wire.ask(greeting)).status == 200
        await wire.send(b"\r\n")
        assert await wire.at_end()


async def test_the_time_for_a_head_ends_with_the_head() -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider((gate, delta("a"), finish(), usage()))
    async with server(provider) as served, served.connect() as wire:
        await wire.send(post(CHAT_PATH, CHAT))
        await provider.asked.wait()
        [protocol] = served.protocols
        assert protocol._timer is None
        gate.set()
        assert (await wire.answer()).status == 200


@pytest.mark.parametrize("size", [70_000, 250_000, 3_000_000])
async def test_a_body_is_not_taken_for_a_head(size: int) -> None:
    body = {**CHAT, "messages": [{"role": "user", "content": "x" * size}]}
    async with server(header_bytes=1024) as served, served.connect() as wire:
        for _ in range(3):
            assert (await wire.ask(post(CHAT_PATH, body))).status == 200


async def test_many_small_requests_are_not_taken_for_one_head() -> None:
    async with server(header_bytes=1024) as served, served.connect() as wire:
        for _ in range(60):
            assert (await wire.ask(get("/health"))).status == 200


async def test_half_a_body_and_silence() -> None:
    async with server(body_timeout_s=0.05) as served:
        async with served.connect() as wire:
            answer = await wire.ask(post_head(CHAT_PATH, 100) + b'{"model":')
            expect_error(answer, 408, "request_timeout")
            assert answer.headers["connection"] == "close"
            assert await wire.at_end()
        assert await is_well(served)


async def test_half_a_body_and_a_client_that_leaves() -> None:
    async with server() as served:
        async with served.connect() as wire:
            await wire.send(post_head(CHAT_PATH, 100) + b'{"model":')
            wire.reset()
        assert await is_well(served)


async def _keep_sending(wire: Any, size: int) -> None:
    for _ in range(size // 65_536):
        await wire.send(b"x" * 65_536)


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_a_body_over_the_limit_can_be_sent_whole_and_its_answer_read(connection: str) -> None:
    size = 48 * 65_536
    async with server(body_bytes=1024 * 1024) as served, served.connect() as wire:
        await wire.send(post_head(CHAT_PATH, size, connection=connection))
        await until(lambda: any(protocol._refused() for protocol in served.protocols))
        await _keep_sending(wire, size)
        expect_error(await wire.answer(), 413, "request_too_large")
        if connection == "close":
            assert await wire.at_end()
        else:
            assert (await wire.ask(post(CHAT_PATH, CHAT))).status == 200


async def test_chunks_over_the_limit() -> None:
    head = post_head(CHAT_PATH, 0).replace(b"content-length: 0", b"transfer-encoding: chunked")
    async with server(body_bytes=1024) as served, served.connect() as wire:
        await wire.send(head + b"800\r\n" + b"x" * 2048 + b"\r\n")
        expect_error(await wire.answer(), 413, "request_too_large")
        await wire.send(b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n")
        assert (await wire.ask(post(CHAT_PATH, CHAT))).status == 200


async def test_a_refused_body_without_end_is_cut() -> None:
    async with server(body_bytes=1024 * 1024) as served, served.connect() as wire:
        await wire.send(post_head(CHAT_PATH, 10**9))
        with pytest.raises(ConnectionError):
            await _keep_sending(wire, 10**9)


async def test_a_refused_body_that_trickles_is_cut() -> None:
    async with server(body_bytes=1024, body_timeout_s=0.05) as served, served.connect() as wire:
        expect_error(await wire.ask(post_head(CHAT_PATH, 10**6)), 413, "request_too_large")
        await wire.send(b"x")
        assert await wire.at_end()


async def test_a_refused_body_may_be_followed_by_silence_for_a_while_only() -> None:
    async with server(body_bytes=1024, header_timeout_s=0.05) as served, served.connect() as wire:
        expect_error(await wire.ask(post_head(CHAT_PATH, 2000)), 413, "request_too_large")
        await wire.send(b"x" * 2000)
        assert await wire.at_end()


async def test_a_refused_body_of_a_closing_connection_is_awaited_for_a_while_only() -> None:
    async with server(body_bytes=1024, body_timeout_s=0.05) as served, served.connect() as wire:
        expect_error(await wire.ask(post_head(CHAT_PATH, 2000, connection="close")), 413, "request_too_large")
        assert await wire.at_end()
        await until(lambda: not served.protocols)


async def test_a_client_that_asks_before_it_sends_a_body() -> None:
    async with server(body_bytes=1024) as served, served.connect() as wire:
        body = json.dumps(CHAT).encode()
        await wire.send(post_head(CHAT_PATH, len(body), expect="100-continue"))
        assert (await wire.head())[0] == 100
        assert (await wire.ask(body)).status == 200
        refused = await wire.ask(post_head(CHAT_PATH, 10**6, expect="100-continue"))
        expect_error(refused, 413, "request_too_large")


async def test_too_many_connections() -> None:
    async with server(connections=8) as served, contextlib.AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(served.connect()) for _ in range(8)]
        for wire in wires:
            assert (await wire.ask(get("/health"))).status == 200
        async with served.connect() as one_more:
            with contextlib.suppress(ConnectionError):
                await one_more.send(get("/health"))
            assert await one_more.at_end()
        wires[0].writer.close()
        await wires[0].writer.wait_closed()
        await until(lambda: len(served.protocols) < 8)
        assert await is_well(served)
        assert (await wires[1].ask(get("/health"))).status == 200


async def test_a_connection_serves_on_after_errors() -> None:
    async with server() as served, served.connect() as wire:
        for request in (get("/nothing"), get(CHAT_PATH), post(CHAT_PATH, {}), post(CHAT_PATH, {**CHAT, "n": 0})):
            assert 400 <= (await wire.ask(request)).status < 500
        assert judge((await wire.ask(post(CHAT_PATH, STREAM))).body) == []


async def test_requests_in_one_write_are_answered_in_turn() -> None:
    async with server() as served, served.connect() as wire:
        await wire.send(post(CHAT_PATH, STREAM) + get("/nothing") + get("/health"))
        assert judge((await wire.answer()).body) == []
        assert (await wire.answer()).status == 404
        assert (await wire.answer()).status == 200


async def test_a_client_that_leaves_with_requests_in_its_pipeline_ends_the_running_one() -> None:
    provider = ScriptedProvider((delta("a"), asyncio.Event()))
    async with server(provider) as served:
        async with served.connect() as wire:
            await wire.send(post(CHAT_PATH, STREAM) * 3)
            await wire.head()
            wire.reset()
        await provider.closed.wait()
    assert len(provider.generations) == 1


async def test_nothing_is_written_into_an_answer_that_has_begun() -> None:
    provider = ScriptedProvider((delta("a"), asyncio.Event()))
    async with server(provider) as served, served.connect() as wire:
        await wire.send(post(CHAT_PATH, STREAM))
        await wire.head()
        await wire.send(b"\x00 this is not HTTP \x00\r\n\r\n")
        rest = await wire.reader.read()
        assert b"HTTP/1.1" not in rest
        assert b"invalid_http_request" not in rest
        await provider.closed.wait()


async def test_a_head_that_comes_during_an_answer_has_time_until_its_end() -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider((delta("a"), gate, finish(), usage()))
    async with server(provider) as served, served.connect() as wire:
        await wire.send(post(CHAT_PATH, STREAM) + b"GET /health HTTP/1.1\r\n")
        await wire.head()
        parts = wire.parts()
        await anext(parts)
        [protocol] = served.protocols
        protocol._is_late()
        assert protocol._timer is not None
        gate.set()
        assert [part async for part in parts][-1] == b"data: [DONE]\n\n"
        await wire.send(b"\r\n")
        assert (await wire.answer()).status == 200


UPGRADE = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAEAAEAAAAIAAAAB"}
"""What Java's HTTP client sends along with each request to a plain address."""


async def test_an_offer_to_change_the_protocol_is_ignored() -> None:
    async with server() as served, served.connect() as wire:
        for _ in range(2):
            assert judge((await wire.ask(post(CHAT_PATH, STREAM, **UPGRADE))).body) == []
            assert (await wire.ask(get("/health", **UPGRADE))).status == 200
        request = post(CHAT_PATH, CHAT, **UPGRADE)
        for place in (10, len(request) // 2, request.index(b"\r\n\r\n") + 4, len(request) - 3):
            await wire.send(request[:place])
            assert (await wire.ask(request[place:])).status == 200


async def test_the_headers_of_an_offer_are_read_once() -> None:
    async with server() as served, served.connect() as wire:
        for request in (post(CHAT_PATH, CHAT, **UPGRADE), post(CHAT_PATH, CHAT), post(CHAT_PATH, CHAT, **UPGRADE)):
            assert (await wire.ask(request)).status == 200
            [protocol] = served.protocols
            names = [name for name, _ in protocol.cycle.scope["headers"]]
            assert len(names) == len(set(names)) >= 3


async def test_an_offer_to_change_the_protocol_in_a_pipeline() -> None:
    async with server() as served, served.connect() as wire:
        await wire.send(post(CHAT_PATH, CHAT, **UPGRADE) + get("/health", **UPGRADE) + get("/nothing"))
        assert [(await wire.answer()).status for _ in range(3)] == [200, 200, 404]


async def test_chunks_after_an_offer_to_change_the_protocol() -> None:
    body = json.dumps(CHAT).encode()
    head = post_head(CHAT_PATH, 0, **UPGRADE).replace(b"content-length: 0", b"transfer-encoding: chunked")
    async with server() as served, served.connect() as wire:
        assert (await wire.ask(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))).status == 200
        assert (await wire.ask(get("/health"))).status == 200


HANDSHAKE = {
    "connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip


@pytest.mark.parametrize(("path", "status"), [("/v1/chat/completions", 405), ("/v1/responses/", 404), ("/health", 200)])
async def test_a_web_socket_is_ignored_where_there_is_none(path: str, status: int) -> None:
    async with server() as served, served.connect() as wire:
        for _ in range(2):
            assert (await wire.ask(get(path, **HANDSHAKE))).status == status


async def test_http_1_0() -> None:
    async with server() as served, served.connect() as wire:
        answer = await wire.ask(get("/health").replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert answer.status == 200
        assert await wire.at_end()


class _Sink:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False


def _line(**cycle: object) -> tuple[ClientLine, _Sink]:
    state = {"disconnected": False, "chunked_encoding": True, "flow": SimpleNamespace(write_paused=False), **cycle}
    sink = _Sink()
    return ClientLine(cast("Any", SimpleNamespace(**state)), cast("Any", sink)), sink


def test_an_event_goes_straight_to_the_socket() -> None:
    line, sink = _line()
    assert line.write(b"data: x\n\n")
    assert sink.written == [b"9\r\ndata: x\n\n\r\n"]


@pytest.mark.parametrize(
    "cycle", [{"disconnected": True}, {"chunked_encoding": False}, {"flow": SimpleNamespace(write_paused=True)}]
)
def test_an_event_goes_the_usual_way_where_the_socket_is_not_free(cycle: dict[str, object]) -> None:
    line, sink = _line(**cycle)
    assert not line.write(b"data: x\n\n")
    assert not sink.written


def test_a_client_that_has_gone_is_told_at_once_to_who_asks_later() -> None:
    line, _ = _line()
    told: list[str] = []
    line.tell(lambda: told.append("first"))
    line.leave()
    line.tell(lambda: told.append("second"))
    line.tell(None)
    line.leave()
    assert told == ["first", "second"]


async def test_a_head_is_written_with_what_follows_it_or_soon_alone() -> None:
    sink = _Sink()
    protocol = SimpleNamespace(transport=sink, loop=asyncio.get_running_loop(), linger=None)
    transport = _AnswerTransport(cast("Any", protocol))
    transport.write(b"head ")
    assert not sink.written
    transport.write(b"body")
    transport.write(b"more")
    assert sink.written == [b"head body", b"more"]

    alone = _AnswerTransport(cast("Any", protocol))
    alone.write(b"head")
    await asyncio.sleep(0)
    assert sink.written[2:] == [b"head"]
