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
