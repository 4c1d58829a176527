"""What the streams of chat and text completions share: their frame, their end, and what is held back."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from tests.support.chunks import USAGE, chunk, text, usage

from coterie.dialects.chat_stream import ChatStream
from coterie.dialects.chunk_stream import ChunkStream
from coterie.dialects.completions import CompletionStream
from coterie.errors import ApiError
from coterie.errors.render import DONE

ERROR = ApiError("engine_failed")

each_machine = pytest.mark.parametrize("make", [ChatStream, CompletionStream])


def new(make: type[ChunkStream], *, choices: int = 1, include_usage: bool = False) -> ChunkStream:
    return make("id-1", 17, "m", choices=choices, include_usage=include_usage)


def data(event: bytes) -> dict[str, Any]:
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2
    assert b"\r" not in event
    value: dict[str, Any] = orjson.loads(event[6:])
    return value


@each_machine
def test_every_event_has_the_same_head(make: type[ChunkStream]) -> None:
    machine = new(make, include_usage=True)
    events = [
        *machine.feed(text("a\r\nb")),
        *machine.feed(chunk(finish="stop")),
        *machine.feed(usage()),
        *machine.end(),
    ]
    assert events[-1] == DONE
    for event in map(data, events[:-1]):
        assert {name: event[name] for name in ("id", "object", "created", "model")} == {
            "id": "id-1", "object": make.kind, "created": 17, "model": "m",
        }  # fmt: skip


@each_machine
def test_usage_is_null_until_the_last_chunk_where_it_was_asked_for(make: type[ChunkStream]) -> None:
    machine = new(make, include_usage=True)
    assert machine.usage == {}
    first = data(*machine.feed(text("a")))
    assert first["usage"] is None
    assert machine.feed(chunk(finish="stop")) == []
    assert machine.feed(usage()) == []
    assert machine.usage == USAGE
    finish, last, done = machine.end()
    assert data(finish)["usage"] is None
    assert (data(last)["choices"], data(last)["usage"]) == ([], USAGE)
    assert done == DONE


@each_machine
def test_usage_is_absent_where_it_was_not_asked_for(make: type[ChunkStream]) -> None:
    machine = new(make)
    events = [*machine.feed(text("a")), *machine.feed(chunk(finish="stop")), *machine.feed(usage()), *machine.end()]
    assert events.pop() == DONE
    assert not any("usage" in data(event) for event in events)
    assert [data(event)["choices"][0]["finish_reason"] for event in events] == [None, "stop"]


@each_machine
def test_nothing_comes_before_something_semantic(make: type[ChunkStream]) -> None:
    machine = new(make)
    assert machine.feed(chunk({"role": "assistant", "content": ""})) == []
    assert machine.feed(usage()) == []
    assert len(machine.feed(text("a"))) == 1


@each_machine
def test_one_event_for_each_choice_of_a_chunk(make: type[ChunkStream]) -> None:
    machine = new(make, choices=2)
    both = {"choices": [*text("a")["choices"], *text("b", 1)["choices"]]}
    assert [data(event)["choices"][0]["index"] for event in machine.feed(both)] == [0, 1]


@each_machine
def test_only_the_last_finish_reason_is_held_back(make: type[ChunkStream]) -> None:
    machine = new(make, choices=2)
    (first,) = machine.feed(chunk(finish="stop", index=1))
    assert data(first)["choices"][0]["finish_reason"] == "stop"
    (said,) = machine.feed(chunk({"content": "a"}, "length"))
    assert data(said)["choices"][0]["finish_reason"] is None
    machine.feed(usage())
    last, done = machine.end()
    assert (data(last)["choices"][0]["index"], data(last)["choices"][0]["finish_reason"]) == (0, "length")
    assert done == DONE


@each_machine
@pytest.mark.parametrize("more", [text("again"), {"usage": "broken"}])
def test_a_failure_after_the_last_finish_reason_is_no_success(make: type[ChunkStream], more: Any) -> None:
    machine = new(make)
    assert machine.feed(chunk(finish="stop")) == []
    with pytest.raises(ApiError) as caught:
        machine.feed(more)
    frame, done = machine.fail(caught.value, "req_1")
    assert data(frame)["error"]["code"] == "upstream_protocol_error"
    assert done == DONE


@each_machine
def test_an_end_without_usage_is_a_failure(make: type[ChunkStream]) -> None:
    machine = new(make)
    machine.feed(chunk({"content": "a"}, "stop"))
    with pytest.raises(ApiError) as caught:
        machine.end()
    assert caught.value.code == "upstream_stream_interrupted"
    assert len(machine.fail(caught.value, "req_1")) == 2


def test_a_dialect_without_fields_of_its_own_says_nothing_of_late_ones() -> None:
    machine = new(CompletionStream, choices=2)
    machine.feed(text("a"))
    machine.feed(chunk(finish="stop"))
    assert machine.feed(chunk(extra={"stop_reason": 7})) == []


@each_machine
def test_after_the_end_there_is_nothing(make: type[ChunkStream]) -> None:
    ended, failed = new(make), new(make)
    for each in (chunk(finish="stop"), usage()):
        ended.feed(each)
    assert ended.end()[-1] == DONE
    assert failed.fail(ERROR, "req_1")[-1] == DONE
    for machine in (ended, failed):
        assert machine.feed(text("a")) == machine.feed({"choices": "broken"}) == []
        assert machine.end() == machine.fail(ERROR, "req_1") == []
