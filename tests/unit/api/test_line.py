"""The short ways to a client: what they write and leave behind is what uvicorn's own way does."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.provider import WHOLE, ScriptedProvider, delta, finish, usage
from tests.support.web import CHAT, STREAM, post, serving
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from coterie.api.line import ClientLine
from coterie.api.protocol import _AnswerTransport

CHAT_PATH = "/v1/chat/completions"
HEADERS = ((b"content-type", b"application/json"), (b"x-note", b"tab\there, \xe9"))
BODY = b'{"a":1}'
LENGTH = (b"content-length", b"%d" % len(BODY))


class Socket:
    """What is below the protocol, and the protocol as far as an answer needs it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False
        self.reads = True
        self.loop = asyncio.get_running_loop()
        self.transport = self

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def linger(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class Request:
    """One request as uvicorn has it, and its line. ``changes`` are made to uvicorn's side."""

    def __init__(self, method: str = "POST", *, keep_alive: bool = True, asks: bool = False, **changes: Any) -> None:
        self.socket = Socket()
        self.responses = 0
        transport = _AnswerTransport(cast("Any", self.socket))
        self.flow = FlowControl(cast("Any", self.socket))
        self.cycle = RequestResponseCycle(
            scope=cast("Any", {"type": "http", "method": method}),
            transport=cast("Any", transport),
            flow=self.flow,
            logger=logging.getLogger("test"),
            access_logger=logging.getLogger("test"),
            access_log=changes.pop("access_log", False),
            default_headers=[(b"date", b"today")],
            message_event=asyncio.Event(),
            expect_100_continue=asks,
            keep_alive=keep_alive,
            on_response=self.count,
        )
        for name, value in changes.items():
            setattr(self.cycle, name, value)
        self.line = ClientLine(self.cycle, transport)

    def count(self) -> None:
        self.responses += 1

    def bring(self, body: bytes, *, more: bool = False) -> Request:
        """A part of the body comes."""
        self.cycle.body += body
        self.cycle.more_body = more
        self.cycle.message_event.set()
        return self

    async def send(self, status: int, headers: Sequence[tuple[bytes, bytes]], *parts: bytes) -> None:
        """The usual way."""
        await self.cycle.send(cast("Any", {"type": "http.response.start", "status": status, "headers": [*headers]}))
        for place, part in enumerate(parts):
            more = place + 1 < len(parts)
            await self.cycle.send(cast("Any", {"type": "http.response.body", "body": part, "more_body": more}))

    @property
    def left(self) -> dict[str, Any]:
        """Everything that a later request, or the end of this one, could see."""
        state = {name: value for name, value in vars(self.cycle).items() if isinstance(value, bool | int | bytearray)}
        socket = {"closed": self.socket.closed, "reads": self.socket.reads, "wire": b"".join(self.socket.written)}
        return {**state, **socket, "event": self.cycle.message_event.is_set(), "responses": self.responses}


REQUESTS: dict[str, dict[str, Any]] = {
    "an ordinary one": {},
    "one that closes": {"keep_alive": False},
    "one that asked before": {"asks": True},
}


@pytest.mark.parametrize("kind", REQUESTS.values(), ids=REQUESTS.keys())
@pytest.mark.parametrize("status", [200, 404, 503])
async def test_a_whole_answer(kind: dict[str, Any], status: int) -> None:
    usual, short = Request(**kind), Request(**kind)
    await usual.send(status, (LENGTH, *HEADERS), BODY)
    assert short.line.answer(status, (LENGTH, *HEADERS), BODY)
    assert short.left == usual.left
    assert short.responses == 1
    assert len(short.socket.written) == 1


async def test_a_whole_answer_of_nothing() -> None:
    usual, short = Request(), Request()
    await usual.send(200, ((b"content-length", b"0"),), b"")
    assert short.line.answer(200, ((b"content-length", b"0"),), b"")
    assert short.left == usual.left


@pytest.mark.parametrize("kind", REQUESTS.values(), ids=REQUESTS.keys())
@given(parts=st.lists(st.binary(max_size=40), min_size=2, max_size=6))
async def test_a_stream(kind: dict[str, Any], parts: list[bytes]) -> None:
    usual, short = Request(**kind), Request(**kind)
    await usual.send(200, HEADERS, *parts)
    first, *middle, last = parts
    assert short.line.begin(200, HEADERS, first)
    assert all([short.line.write(part) for part in middle])  # noqa: C419 - each of them
    assert short.line.end(last)
    assert short.left == usual.left


async def test_a_stream_can_change_its_way_anywhere() -> None:
    usual, short = Request(), Request()
    await usual.send(200, HEADERS, b"one", b"two", b"three")
    assert short.line.begin(200, HEADERS, b"one")
    for part, more in ((b"two", True), (b"three", False)):
        await short.cycle.send(cast("Any", {"type": "http.response.body", "body": part, "more_body": more}))
    assert short.left == usual.left


async def test_what_is_held_back_goes_first() -> None:
    request = Request(asks=True).bring(b"{}")
    await request.cycle.receive()
    assert request.line.answer(200, (LENGTH,), BODY)
    assert b"".join(request.socket.written).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


NOT_FREE: dict[str, Callable[[], Request]] = {
    "it wants no body": lambda: Request("HEAD"),
    "the client has gone": lambda: Request(disconnected=True),
    "an answer has begun": lambda: Request(response_started=True),
    "uvicorn keeps a log of its own": lambda: Request(access_log=True),
    "the client reads slowly": lambda: _slow(Request()),
}


def _slow(request: Request) -> Request:
    request.flow.pause_writing()
    return request


@pytest.mark.parametrize("make", NOT_FREE.values(), ids=NOT_FREE.keys())
async def test_where_the_usual_way_is_taken(make: Callable[[], Request]) -> None:
    request = make()
    before = request.left
    assert not request.line.answer(200, (LENGTH,), BODY)
    assert not request.line.begin(200, HEADERS, b"one")
    assert request.left == before


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nb", b"a\rb", b"a\x00", b"\x7f", b"\x1b[31m"])
async def test_a_header_that_uvicorn_would_not_write(value: bytes) -> None:
    request = Request()
    before = request.left
    headers = (LENGTH, (b"x-note", value))
    assert not request.line.answer(200, headers, BODY)
    assert not request.line.begin(200, headers, b"one")
    assert request.left == before
    with pytest.raises(RuntimeError):
        await request.send(200, headers, BODY)


@pytest.mark.parametrize("change", ["not begun", "whole", "slow", "gone"])
async def test_where_a_stream_does_not_go_on(change: str) -> None:
    request = Request()
    if change == "whole":
        await request.send(200, (LENGTH,))
    elif change != "not begun":
        assert request.line.begin(200, HEADERS, b"one")
    if change == "slow":
        _slow(request)
    request.cycle.disconnected = change == "gone"
    before = request.left
    assert not request.line.ready
    assert not request.line.write(b"two")
    assert not request.line.end(b"two")
    assert request.left == before


@pytest.mark.parametrize("size", [0, 7, 100_000])
async def test_a_body_that_has_come(size: int) -> None:
    usual, short = Request().bring(b"x" * size), Request().bring(b"x" * size)
    for request in (usual, short):
        request.flow.pause_reading()
    message = cast("dict[str, Any]", await usual.cycle.receive())
    assert (message["body"], message["more_body"]) == (short.line.take_body(100_000), False)
    assert short.left == usual.left
    assert short.socket.reads


NOT_THERE: dict[str, Callable[[], Request]] = {
    "nothing has come": Request,
    "more is to come": lambda: Request().bring(b"{", more=True),
    "the client has gone": lambda: Request(disconnected=True).bring(b"{}"),
    "it is answered": lambda: Request(response_complete=True).bring(b"{}"),
    "it asks before it sends": lambda: Request(asks=True).bring(b"{}"),
    "it is too long": lambda: Request().bring(b"x" * 11),
}


@pytest.mark.parametrize("make", NOT_THERE.values(), ids=NOT_THERE.keys())
async def test_a_body_that_is_to_be_received(make: Callable[[], Request]) -> None:
    request = make()
    before = request.left
    assert request.line.take_body(10) is None
    assert request.left == before


async def test_a_body_is_taken_once() -> None:
    request = Request().bring(b"{}")
    assert request.line.take_body(10) == b"{}"
    assert request.line.take_body(10) is None


# Over the wire


CHANGING = re.compile(
    rb"req_[0-9a-f]{32}|(chatcmpl-)[0-9a-f]+|\"created\":\d+|date: [^\r]*|x-timing: [^\r]*"
    rb"|(?<=content-length: )\d+"
)


async def _said(*requests: bytes) -> bytes:
    """All that a server answers to ``requests``, less what differs from one time to the next."""
    script = (delta("Hello"), delta(" you"), finish(), usage())
    async with serving(ScriptedProvider(script)) as served, served.connect() as wire:
        for request in requests[:-1]:
            await wire.send(request)
        await wire.send(requests[-1].replace(b"\r\nhost:", b"\r\nconnection: close\r\nhost:"))
        return CHANGING.sub(b"*", await wire.reader.read())


ASKED: dict[str, tuple[bytes, ...]] = {
    "whole": (post(CHAT_PATH, CHAT),),
    "streams": (post(CHAT_PATH, STREAM),),
    "after each other": (post(CHAT_PATH, STREAM), post(CHAT_PATH, CHAT), post(CHAT_PATH, STREAM)),
    "a failure between": (post(CHAT_PATH, CHAT), post(CHAT_PATH, {}), post(CHAT_PATH, CHAT)),
    "an older client": (post(CHAT_PATH, STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"),),
}


@pytest.mark.parametrize("requests", ASKED.values(), ids=ASKED.keys())
async def test_the_wire_cannot_tell_the_ways_apart(
    requests: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    ways = ("answer", "begin", "end", "take_body")
    for name in ways:
        monkeypatch.setattr(ClientLine, name, _noting(name, taken))
    short = await _said(*requests)
    assert taken
    for name, refusal in zip(ways, (False, False, False, None), strict=True):
        monkeypatch.setattr(ClientLine, name, lambda *given, refusal=refusal: refusal)
    assert await _said(*requests) == short


def _noting(name: str, taken: list[str]) -> Callable[..., Any]:
    way = getattr(ClientLine, name)

    def go(*given: Any) -> Any:
        result = way(*given)
        if result not in (False, None):
            taken.append(name)
        return result

    return go


async def test_each_way_is_taken_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    for name in ("answer", "begin", "end", "take_body"):
        monkeypatch.setattr(ClientLine, name, _noting(name, taken))
    async with serving(ScriptedProvider(WHOLE)) as served, served.connect() as wire:
        assert (await wire.ask(post(CHAT_PATH, CHAT))).status == 200
        assert taken == ["take_body", "answer"]
        taken.clear()
        assert (await wire.ask(post(CHAT_PATH, STREAM))).status == 200
        assert taken == ["take_body", "begin", "end"]


async def test_a_request_leaves_nothing_that_holds_itself() -> None:
    async with serving(ScriptedProvider(WHOLE)) as served, served.connect() as wire:
        await wire.ask(post(CHAT_PATH, CHAT))
        [protocol] = served.protocols
        assert "coterie.client" not in protocol._answering.scope
        assert "coterie.exchange" not in protocol._answering.scope
