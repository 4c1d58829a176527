"""Writing answers."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Message

from coterie.api.edge import Exchange
from coterie.api.line import ClientLine, ClientPresence
from coterie.api.writer import StreamWriter, send_json, whole

STREAM_HEADERS = {
    b"content-type": b"text/event-stream; charset=utf-8",
    b"cache-control": b"no-cache",
    b"x-accel-buffering": b"no",
}


class Line:
    """A client's line that takes events itself while it is ``free``."""

    def __init__(self, *, free: bool) -> None:
        self.free = free
        self.written: list[bytes] = []

    def write(self, event: bytes) -> bool:
        if self.free:
            self.written.append(event)
        return self.free


def exchange_to(sent: list[Message], line: Line | ClientPresence | None = None) -> Exchange:
    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/"}
    return Exchange(scope | ({} if line is None else {"coterie.client": line}), send, [])


def headers_of(message: Message) -> dict[bytes, bytes]:
    return {name: value for name, value in message["headers"] if name != b"x-request-id"}


def test_an_answer_that_is_known() -> None:
    answer = whole({"a": "ü"})
    assert answer.body == '{"a":"ü"}'.encode()
    assert answer.headers["content-type"] == "application/json"


async def test_a_whole_answer() -> None:
    sent: list[Message] = []
    await send_json(exchange_to(sent), b'{"a":1}')
    start, body = sent
    assert start["status"] == 200
    assert headers_of(start) == {b"content-type": b"application/json", b"content-length": b"7"}
    assert body == {"type": "http.response.body", "body": b'{"a":1}'}


async def test_the_head_goes_out_with_the_first_event_and_one_event_is_one_write() -> None:
    sent: list[Message] = []
    writer = StreamWriter(exchange_to(sent))
    assert sent == []
    assert not writer.begun
    await writer.write(b"one")
    assert writer.begun
    await writer.write(b"two")
    await writer.finish([b"three", b"four"])
    start, *bodies = sent
    assert headers_of(start) == STREAM_HEADERS
    assert [(body["body"], body["more_body"]) for body in bodies] == [
        (b"one", True), (b"two", True), (b"three", True), (b"four", False),
    ]  # fmt: skip


@pytest.mark.parametrize("events", [[], [b"last"]])
async def test_a_stream_that_only_ends(events: list[bytes]) -> None:
    sent: list[Message] = []
    await StreamWriter(exchange_to(sent)).finish(events)
    start, body = sent
    assert start["status"] == 200
    assert (body["body"], body["more_body"]) == (b"".join(events), False)


async def test_a_line_that_is_free_takes_the_events_after_the_first() -> None:
    sent: list[Message] = []
    line = Line(free=True)
    writer = StreamWriter(exchange_to(sent, line))
    for event in (b"one", b"two", b"three"):
        await writer.write(event)
    await writer.finish([b"four"])
    assert [message.get("body") for message in sent] == [None, b"one", b"four"]
    assert line.written == [b"two", b"three"]


class Writing(ClientLine):
    """A line that writes, or, where it is not ``free``, does not."""

    def __init__(self, *, free: bool) -> None:
        self.free = free
        self.written: list[tuple[Any, ...]] = []

    @property
    def ready(self) -> bool:
        return self.free

    def _note(self, *written: Any) -> bool:
        if self.free:
            self.written.append(written)
        return self.free

    answer = begin = write = end = _note  # type: ignore[assignment]


def without_id(headers: Any) -> list[tuple[bytes, bytes]]:
    return [header for header in headers if header[0] != b"x-request-id"]


async def test_a_line_takes_a_whole_answer_with_all_headers() -> None:
    usual: list[Message] = []
    await send_json(exchange_to(usual), b'{"a":1}')
    sent: list[Message] = []
    line = Writing(free=True)
    exchange = exchange_to(sent, line)
    await send_json(exchange, b'{"a":1}')
    [(status, headers, body)] = line.written
    assert not sent
    assert status == exchange.status == usual[0]["status"] == 200
    assert without_id(headers) == without_id(usual[0]["headers"])
    assert len(headers) == len(usual[0]["headers"])
    assert body == b'{"a":1}'


async def test_a_line_takes_a_stream_with_all_headers() -> None:
    usual: list[Message] = []
    await StreamWriter(exchange_to(usual)).finish([b"one"])
    sent: list[Message] = []
    line = Writing(free=True)
    writer = StreamWriter(exchange_to(sent, line))
    assert not writer.ready
    await writer.write(b"one")
    assert (writer.begun, writer.ready, writer.exchange.status) == (True, True, 200)
    writer.put(b"two")
    await writer.finish([b"three", b"four"])
    assert not sent
    (status, headers, first), *rest = line.written
    assert status == usual[0]["status"]
    assert without_id(headers) == without_id(usual[0]["headers"])
    assert (first, rest) == (b"one", [(b"two",), (b"three",), (b"four",)])


async def test_a_line_that_takes_nothing_changes_nothing() -> None:
    sent: list[Message] = []
    line = Writing(free=False)
    writer = StreamWriter(exchange_to(sent, line))
    await writer.write(b"one")
    assert not writer.ready
    await writer.finish([b"two"])
    await send_json(exchange_to(sent, line), b"{}")
    assert [message.get("body") for message in sent] == [None, b"one", b"two", None, b"{}"]
    assert not line.written


async def test_one_that_is_not_is_waited_for_in_the_usual_way() -> None:
    sent: list[Message] = []
    line = Line(free=False)
    writer = StreamWriter(exchange_to(sent, line))
    await writer.write(b"one")
    await writer.write(b"two")
    line.free = True
    await writer.write(b"three")
    assert [message.get("body") for message in sent] == [None, b"one", b"two"]
    assert line.written == [b"three"]
