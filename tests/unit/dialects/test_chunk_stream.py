"""What the streams of chat and text completions share: their frame, their end, and what is held back."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.chunks import USAGE, any_chunks, chunk, good_chunks, text, usage

from coterie.dialects.chat_stream import ChatStream
from coterie.dialects.chunk_stream import ChunkStream
from coterie.dialects.completions import CompletionStream
from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.wire.lingua import Chunk

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


# Text past the chunks

EXTRAS: list[dict[str, Any] | None] = [
    None,
    {"system_fingerprint": "f"},
    {"system_fingerprint": "g", "x": ['"content"', None]},
    {"id": "theirs", "usage": 7, "choices": []},
]


def said_with(content: str, index: int = 0, extra: dict[str, Any] | None = None) -> Chunk:
    return text(content, index) if extra is None else {**text(content, index), "extra": extra}


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize(
    "content",
    ["b", "ü\n", '"}\r\n\ndata: x', "0:text", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")],
)
def test_a_text_is_the_event_that_its_chunk_would_be(
    content: str, extra: dict[str, Any] | None, *, include_usage: bool
) -> None:
    machines = [new(ChatStream, include_usage=include_usage) for _ in range(2)]
    assert [machine.text(0, "a", extra) for machine in machines] == [None] * 2  # the first has its role
    for machine in machines:
        machine.feed(text("a"))
    for _ in range(2):
        assert [machines[0].text(0, content, extra)] == machines[1].feed(said_with(content, 0, extra))
    assert machines[0].feed(text("c")) == machines[1].feed(text("c"))


def test_what_passes_beside_a_text_may_change() -> None:
    short, usual = new(ChatStream, choices=2), new(ChatStream, choices=2)
    for machine in (short, usual):
        machine.feed(text("a"))
        machine.feed(text("b", 1))
    for index, extra in [(0, EXTRAS[1]), (1, EXTRAS[1]), (0, EXTRAS[2]), (1, None), (0, None), (0, EXTRAS[1])]:
        assert [short.text(index, "c", extra)] == usual.feed(said_with("c", index, extra))
        assert short.feed(text("d", index)) == usual.feed(text("d", index))


_texts = st.tuples(st.integers(0, 1), st.sampled_from(["a", "ü\n", '"}']), st.sampled_from(EXTRAS))
_inputs = st.lists(
    st.builds(text, st.sampled_from("ab"), st.integers(0, 1)) | _texts | good_chunks | any_chunks, max_size=12
)


@each_machine
@given(inputs=_inputs, include_usage=st.booleans())
def test_any_chunks_and_texts_among_them_make_the_same_events(
    make: type[ChunkStream], inputs: list[Any], *, include_usage: bool
) -> None:
    short, usual = (new(make, choices=2, include_usage=include_usage) for _ in range(2))
    for each in [text("a", 0), text("b", 1), *inputs]:
        if isinstance(each, tuple):
            index, content, extra = each
            event = short.text(index, content, extra)
            as_chunk = said_with(content, index, extra)
            events = outcome(short, as_chunk) if event is None else [event]
            assert events == outcome(usual, as_chunk)
        else:
            events = outcome(short, each)
            assert events == outcome(usual, each)
        if isinstance(events, str):
            break
    assert ending(short) == ending(usual)
    assert short.text(0, "late", None) is None


def outcome(machine: ChunkStream, each: Any) -> list[bytes] | str:
    """The events of a chunk, or why it is refused."""
    try:
        return machine.feed(each)
    except ApiError as error:
        return str(error.detail)


def ending(machine: ChunkStream) -> list[bytes]:
    try:
        return machine.end()
    except ApiError as error:
        return [*machine.fail(error, "req_1"), str(error.detail).encode()]


def test_no_text_where_it_takes_a_chunk_to_tell() -> None:
    machine = new(ChatStream, choices=2)
    machine.feed(text("a"))
    assert machine.text(0, "b", None) is not None
    assert machine.text(1, "b", None) is None  # it has not begun
    machine.feed({"choices": [], "extra": {"x": 1}})  # goes out with the next
    assert machine.text(0, "b", None) is None
    assert b'"x":1' in machine.feed(text("c"))[0]
    assert b'"x"' not in (machine.text(0, "b", None) or b"")
    machine.feed(chunk(extra={"y": 1}))
    assert machine.text(0, "b", None) is None
    machine.feed(chunk(finish="stop"))
    assert machine.text(0, "b", None) is None
    ended = new(ChatStream)
    ended.feed(text("a"))
    ended.fail(ERROR, "req_1")
    assert ended.text(0, "b", None) is None


def test_the_older_dialect_has_no_events_of_text_alone() -> None:
    machine = new(CompletionStream)
    machine.feed(text("a"))
    assert machine.text(0, "b", None) is None
