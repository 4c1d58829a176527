"""Chat streams: for any chunks, the validator that knows nothing of this server accepts what comes out."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from tests.support.chunks import any_chunks, chunk, fragment, good_chunks, logprob, text, usage, whole_answers

from coterie.dialects.chat_stream import ChatStream
from coterie.dialects.chat_validator import judge
from coterie.errors import ApiError
from coterie.errors.render import DONE


def new(choices: int = 1, *, include_usage: bool = False) -> ChatStream:
    return ChatStream("chatcmpl-1", 1, "m", choices=choices, include_usage=include_usage)


def choice(event: bytes) -> dict[str, Any]:
    (only,) = orjson.loads(event[6:])["choices"]
    assert only.keys() == {"index", "delta", "logprobs", "finish_reason"}
    found: dict[str, Any] = only
    return found


def run(machine: ChatStream, chunks: list[Any], ending: ApiError | None = None) -> bytes:
    """Everything that a caller sends who keeps the rule: what raises is what the stream fails with."""
    events: list[bytes] = []
    try:
        for each in chunks:
            events += machine.feed(each)
        if ending is not None:
            raise ending
        events += machine.end()
    except ApiError as error:
        events += machine.fail(error, "req_1")
    assert events[-1] == DONE
    assert machine.feed(text("late")) == machine.end() == machine.fail(ApiError("internal_error"), "r") == []
    return b"".join(events)


def test_the_role_stands_in_the_first_delta_of_each_choice_alone() -> None:
    machine = new(2)
    events = [
        event
        for each in (text("a"), text("b", 1), text("c"), chunk(finish="stop", index=1))
        for event in machine.feed(each)
    ]
    assert [choice(event)["delta"] for event in events] == [
        {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}, {"content": "c"}, {},
    ]  # fmt: skip


def test_an_answer_without_text_has_its_role() -> None:
    machine = new()
    machine.feed(chunk(finish="length"))
    machine.feed(usage())
    assert choice(machine.end()[0]) == {
        "index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": "length",
    }  # fmt: skip


def test_a_tool_call_at_the_start_has_no_text() -> None:
    (event,) = new().feed(chunk(fragment(0, "c", "f", "")))
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert choice(event)["delta"] == {"role": "assistant", "content": None, "tool_calls": [call]}


def test_tool_calls_go_on_in_any_order() -> None:
    deltas = [
        fragment(0, "c", "f", "{"),
        fragment(1, "d", "g", "["),
        fragment(0, arguments="}"),
        fragment(1, arguments="]"),
    ]
    body = run(new(), [*map(chunk, deltas), chunk(finish="tool_calls"), usage()])
    assert judge(body) == []
    events = [choice(event)["delta"] for event in body.split(b"\n\n")[2:4]]
    assert [delta["tool_calls"] for delta in events] == [
        [{"index": 0, "function": {"arguments": "}"}}], [{"index": 1, "function": {"arguments": "]"}}],
    ]  # fmt: skip


def test_the_usage_so_far_is_not_shown() -> None:
    usage_so_far = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    machine = new(include_usage=True)
    (event,) = machine.feed({**text("a"), "usage_so_far": usage_so_far})
    assert orjson.loads(event[6:])["usage"] is None
    assert b"usage_so_far" not in event
    assert machine.feed({"choices": [], "usage_so_far": usage_so_far}) == []
    assert machine.usage == {}


def test_log_probabilities_pass() -> None:
    entry = logprob("t", -1.5)
    (event,) = new().feed(chunk({"content": "t"}, logprobs={"content": [entry], "refusal": None}))
    assert choice(event)["logprobs"] == {"content": [entry], "refusal": None}


@given(st.data(), st.integers(1, 3), st.booleans())
def test_a_good_answer_is_a_success(data: st.DataObject, choices: int, include_usage: bool) -> None:
    body = run(new(choices, include_usage=include_usage), data.draw(whole_answers(choices)))
    assert b'"error"' not in body
    assert judge(body, include_usage=include_usage, choices=choices) == []


@given(
    st.lists(any_chunks, max_size=10) | st.lists(good_chunks, max_size=10),
    st.sampled_from([None, ApiError("engine_failed"), ApiError("server_shutting_down", retry_after_s=2)]),
    st.integers(1, 3),
    st.booleans(),
)
def test_any_chunks_make_a_stream_that_the_validator_accepts(
    chunks: list[Any], ending: ApiError | None, choices: int, include_usage: bool
) -> None:
    body = run(new(choices, include_usage=include_usage), chunks, ending)
    assert judge(body, include_usage=include_usage, choices=choices) == []


@given(st.data(), st.integers(1, 2))
def test_a_good_answer_that_is_cut_anywhere_is_a_failure(data: st.DataObject, choices: int) -> None:
    chunks = data.draw(whole_answers(choices))
    body = run(new(choices), chunks[: data.draw(st.integers(0, len(chunks) - 1))])
    assert body.count(b'"error":{') == 1
    assert b"upstream_stream_interrupted" in body
    assert judge(body, include_usage=False, choices=choices) == []


# Fields that are not known, after the finish reason


def test_what_comes_after_the_last_finish_reason_goes_out_with_it() -> None:
    machine = new()
    machine.feed(text("a"))
    assert machine.feed(chunk(finish="stop", extra={"x": 1, "y": 1})) == []
    assert machine.feed(chunk(extra={"stop_reason": 7, "y": 2})) == []
    machine.feed(usage())
    (last,) = orjson.loads(machine.end()[0][6:])["choices"]
    assert last == {
        "index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop", "x": 1, "y": 2, "stop_reason": 7,
    }  # fmt: skip


def test_what_comes_after_an_earlier_finish_reason_goes_out_beside_nothing() -> None:
    machine = new(2)
    for each in (text("a"), chunk(finish="stop")):
        machine.feed(each)
    said, late = machine.feed({"choices": [*chunk(extra={"stop_reason": 7})["choices"], *text("b", 1)["choices"]]})
    assert choice(said)["delta"]["content"] == "b"
    (alone,) = orjson.loads(late[6:])["choices"]
    assert alone == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None, "stop_reason": 7}


def test_what_comes_before_a_finish_reason_goes_out_once() -> None:
    machine = new()
    machine.feed(text("a"))
    assert machine.feed(chunk(extra={"x": 1})) == []
    (said,) = machine.feed(text("b"))
    assert orjson.loads(said[6:])["choices"][0]["x"] == 1


def test_what_a_finish_reason_gathers_is_bounded() -> None:
    machine = new()
    machine.feed(chunk(finish="stop", extra={"x": 1}))
    for number in range(1000):
        assert machine.feed(chunk(extra={f"field {number}": number})) == []
    machine.feed(usage())
    (last,) = orjson.loads(machine.end()[0][6:])["choices"]
    assert len(last) <= 64 + 4
    assert last["x"] == 1


_extras = st.builds(lambda index, name: chunk(index=index, extra={name: 1}), st.integers(0, 1), st.sampled_from("xy"))


@given(st.lists(good_chunks | _extras, max_size=12), st.booleans())
def test_wherever_they_come_the_stream_keeps_every_rule(chunks: list[Any], include_usage: bool) -> None:
    body = run(new(2, include_usage=include_usage), chunks)
    assert judge(body, include_usage=None, choices=2) == []


@given(whole_answers(2), st.lists(_extras, max_size=4))
def test_a_whole_answer_stays_whole_with_them(chunks: list[Any], extras: list[Any]) -> None:
    body = run(new(2, include_usage=True), [*chunks[:-1], *extras, chunks[-1]])
    assert judge(body, include_usage=True, choices=2) == []
    assert b'"error"' not in body
    for extra in extras:
        (name,) = extra["choices"][0]["extra"]
        assert f'"{name}":1'.encode() in body
