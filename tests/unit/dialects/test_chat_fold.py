"""Whole chat answers: the same as a client gets who gathers the stream."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.chunks import USAGE, any_chunks, chunk, fragment, good_chunks, logprob, text, usage, whole_answers

from coterie.dialects.chat_fold import ChatFold
from coterie.dialects.chat_stream import ChatStream
from coterie.errors import ApiError
from coterie.wire.lingua import Chunk


def fold(chunks: list[Chunk], choices: int = 1) -> dict[str, Any]:
    machine = ChatFold("chatcmpl-1", 1, "m", choices=choices)
    for each in chunks:
        machine.feed(each)
    return machine.end()


def test_a_whole_answer() -> None:
    assert fold([text("Hel"), text("lo"), chunk(finish="stop"), usage()]) == {
        "id": "chatcmpl-1",
        "created": 1,
        "model": "m",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


@pytest.mark.parametrize(
    ("deltas", "message"),
    [
        ([], {"content": "", "refusal": None}),
        ([{"refusal": "N"}, {"refusal": "o"}], {"content": "", "refusal": "No"}),
        ([{"reasoning_content": "hm"}, {"content": "a"}], {"content": "a", "refusal": None, "reasoning_content": "hm"}),
        (
            [fragment(0, "c", "f", "{"), fragment(0, arguments="}")],
            {
                "content": None,
                "refusal": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
        ),
        (
            [
                fragment(0, "c", "f", "{"),
                fragment(1, "d", "g", "["),
                fragment(0, arguments="}"),
                fragment(1, arguments="]"),
            ],
            {
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "d", "type": "function", "function": {"name": "g", "arguments": "[]"}},
                ],
            },
        ),
    ],
)
def test_messages(deltas: list[Any], message: dict[str, Any]) -> None:
    answer = fold([*map(chunk, deltas), chunk(finish="stop"), usage()])
    assert answer["choices"][0]["message"] == {"role": "assistant", **message}


def test_log_probabilities_are_joined() -> None:
    one, two = logprob("a"), logprob("b")
    chunks = [
        chunk({"content": entry["token"]}, logprobs={"content": [entry], "refusal": None}) for entry in (one, two)
    ]
    answer = fold([*chunks, chunk(finish="stop"), usage()])
    assert answer["choices"][0]["logprobs"] == {"content": [one, two], "refusal": None}


@pytest.mark.parametrize(
    ("chunks", "code"),
    [
        ([], "upstream_stream_interrupted"),
        ([text("a"), usage()], "upstream_stream_interrupted"),
        ([chunk(finish="stop")], "upstream_stream_interrupted"),
        ([chunk(finish="stop"), text("a")], "upstream_protocol_error"),
        ([chunk(fragment(1, "c", "f"))], "upstream_protocol_error"),
    ],
)
def test_what_is_not_whole_is_a_failure(chunks: list[Chunk], code: str) -> None:
    with pytest.raises(ApiError) as caught:
        fold(chunks)
    assert caught.value.code == code


# The official SDKs' rule: strings are joined, lists are merged by "index", everything else is replaced.


def accumulate(into: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name in ("index", "type") or into.get(name) is None:
            into[name] = value if not isinstance(value, list) else [dict(item) for item in value]
        elif isinstance(value, str):
            into[name] += value
        elif isinstance(value, dict):
            accumulate(into[name], value)
        elif isinstance(value, list):
            for item in value:
                _merge_item(into[name], item)


def _merge_item(items: list[dict[str, Any]], item: dict[str, Any]) -> None:
    if item["index"] < len(items):
        accumulate(items[item["index"]], item)
    else:
        items.append(orjson.loads(orjson.dumps(item)))


def gathered(events: list[bytes], choices: int) -> list[dict[str, Any]]:
    """What a client has in the end of a stream that succeeds."""
    found: list[dict[str, Any]] = [{"message": {}, "finish_reason": None} for _ in range(choices)]
    for event in events[:-1]:
        for choice in orjson.loads(event[6:])["choices"]:
            snapshot = found[choice["index"]]
            calls = choice["delta"].pop("tool_calls", [])
            accumulate(snapshot["message"], choice["delta"])
            for call in calls:
                _merge_item(snapshot["message"].setdefault("tool_calls", []), call)
            snapshot["finish_reason"] = choice["finish_reason"] or snapshot["finish_reason"]
    return found


def comparable(message: dict[str, Any], finish: str | None) -> dict[str, Any]:
    calls = [(call["id"], call["type"], call["function"]) for call in message.get("tool_calls") or []]
    texts = {name: message.get(name) or "" for name in ("content", "refusal", "reasoning_content")}
    return {**texts, "role": message["role"], "calls": calls, "finish": finish}


def outcome_of_stream(chunks: list[Chunk], choices: int) -> Any:
    machine = ChatStream("chatcmpl-1", 1, "m", choices=choices, include_usage=False)
    try:
        events = [event for each in chunks for event in machine.feed(each)] + machine.end()
    except ApiError as error:
        return error.code
    return [comparable(each["message"], each["finish_reason"]) for each in gathered(events, choices)]


def outcome_of_fold(chunks: list[Chunk], choices: int) -> Any:
    try:
        answer = fold(chunks, choices)
    except ApiError as error:
        return error.code
    orjson.dumps(answer)
    return [comparable(each["message"], each["finish_reason"]) for each in answer["choices"]]


@given(st.data(), st.integers(1, 3))
def test_a_good_answer_is_the_same_streamed_and_whole(data: st.DataObject, choices: int) -> None:
    chunks = data.draw(whole_answers(choices))
    whole = outcome_of_fold(chunks, choices)
    assert isinstance(whole, list)
    assert whole == outcome_of_stream(chunks, choices)


@given(st.lists(any_chunks, max_size=10) | st.lists(good_chunks, max_size=10), st.integers(1, 2))
def test_any_chunks_have_the_same_outcome_streamed_and_whole(chunks: list[Any], choices: int) -> None:
    assert outcome_of_fold(chunks, choices) == outcome_of_stream(chunks, choices)


def test_what_is_not_known_is_gathered_whatever_its_kind() -> None:
    fold = ChatFold("id", 1, "m", choices=1)
    for value in (1, [1], [2], {"a": 1}, [3]):
        fold.feed({"choices": [{"index": 0, "delta": {"x": value}, "finish_reason": None}], "extra": {"y": value}})
    fold.feed({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "extra": {"z": 1}}]})
    fold.feed({"choices": [], "usage": None})
    answer = fold.end()
    assert answer["y"] == [3]
    assert answer["choices"][0]["z"] == 1
    assert answer["choices"][0]["message"]["x"] == [3]
    assert "usage" not in answer


def test_what_is_not_known_is_gathered_after_the_finish_reason_too() -> None:
    late = {"choices": [*chunk(extra={"stop_reason": 7})["choices"], *text("b", 1)["choices"]]}
    early = chunk({"content": "a"}, extra={"stop_reason": None, "token_ids": [1]})
    answer = fold(
        [early, chunk(finish="stop"), late, chunk(index=1, extra={"x": 1}), chunk(finish="stop", index=1), usage()], 2
    )
    one, two = answer["choices"]
    assert (one["stop_reason"], one["token_ids"], one["finish_reason"]) == (7, [1], "stop")
    assert (two["x"], two["message"]["content"]) == (1, "b")
    assert "x" not in one


def test_a_call_keeps_what_is_not_known_of_it() -> None:
    fold = ChatFold("id", 1, "m", choices=1)
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}, "sign": "a"}
    more = {"index": 0, "function": {"arguments": "}"}, "more": 1}
    for part in (call, more):
        fold.feed({"choices": [{"index": 0, "delta": {"tool_calls": [part]}, "finish_reason": None}]})
    fold.feed({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    fold.feed({"choices": [], "usage": None})
    [message] = [choice["message"] for choice in fold.end()["choices"]]
    assert message["tool_calls"] == [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, "sign": "a", "more": 1}
    ]


# Text past the chunks

_texts = st.tuples(
    st.integers(0, 1), st.sampled_from(["a", "\n", "ü"]), st.sampled_from([None, {"x": 1}, {"x": 2, "y": None}])
)


@given(inputs=st.lists(_texts | good_chunks | any_chunks, max_size=12), ends=st.booleans())
def test_texts_past_the_chunks_make_the_same_answer(inputs: list[Any], *, ends: bool) -> None:
    short, usual = (ChatFold("chatcmpl-1", 1, "m", choices=2) for _ in range(2))
    begin = [text("a", 0), text("b", 1)]
    finish = [chunk(finish="stop", index=0), chunk(finish="stop", index=1), usage()] if ends else []
    for each in [*begin, *inputs, *finish]:
        if isinstance(each, tuple):
            index, content, extra = each
            as_chunk = text(content, index) if extra is None else {**text(content, index), "extra": extra}
            if short.text(index, content, extra):
                assert outcome(usual, as_chunk) is None
            else:
                assert outcome(short, as_chunk) == outcome(usual, as_chunk)
        elif (failure := outcome(usual, each)) is not None:
            assert outcome(short, each) == failure
            return
        else:
            assert outcome(short, each) is None
    assert answer_of(short) == answer_of(usual)


def outcome(machine: ChatFold, each: Any) -> str | None:
    """Why a chunk is refused."""
    try:
        machine.feed(each)
    except ApiError as error:
        return str(error.detail)
    return None


def answer_of(machine: ChatFold) -> Any:
    try:
        return machine.end()
    except ApiError as error:
        return error.detail


def test_a_text_needs_a_choice_that_goes_on() -> None:
    machine = ChatFold("chatcmpl-1", 1, "m", choices=1)
    assert not machine.text(0, "a", None)
    machine.feed(text("b"))
    assert machine.text(0, "c", {"x": 1})
    machine.feed(chunk(extra={"y": 1}))
    assert not machine.text(0, "d", {"x": 2})
    machine.feed(chunk(finish="stop"))
    assert not machine.text(0, "e", None)
    machine.feed(usage())
    answer = machine.end()
    assert (answer["choices"][0]["message"]["content"], answer["x"]) == ("bc", 1)
