"""Foreign streams: the habits of real servers, table by table, and that whatever comes in, what comes out is good."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.chunks import USAGE, any_chunks, fragment, logprob

from coterie.errors import ApiError, Retry
from coterie.providers.foreign_stream import ForeignStream
from coterie.wire.choices import Choices
from coterie.wire.lingua import Chunk, Generation


def generation(n: int = 1, **fields: Any) -> Generation:
    return Generation("m", {"messages": []}, n=n, **fields)


def event(
    delta: Any = None, finish: Any = None, index: Any = 0, *, choice: Any = None, **fields: Any
) -> dict[str, Any]:
    """An event as servers send it; ``choice`` are further fields of the choice, ``fields`` of the event."""
    entry = {"index": index, "delta": {} if delta is None else delta, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "their/name"}
    return {**head, "choices": [{**entry, **(choice or {})}], **fields}


def text(content: Any, **more: Any) -> dict[str, Any]:
    return event({"content": content}, **more)


def bare(choice: Any, **fields: Any) -> dict[str, Any]:
    return {"choices": [choice], **fields}


STOP = event(finish="stop")


class Read:
    """A whole stream, read: the chunks that came out, judged by the rules of every stream."""

    def __init__(self, *events: Any, n: int = 1, prompts: tuple[str, ...] | None = None) -> None:
        self.stream = ForeignStream(generation(n, prompts=prompts))
        self.chunks: list[Chunk] = []
        for each in events:
            data = each if isinstance(each, bytes) else orjson.dumps(each)
            chunk = self.stream.feed(data)
            if chunk is not None:
                self.chunks.append(chunk)
        self.chunks.append(self.stream.end())
        self.said = judged(self.chunks, n * len(prompts or (None,)))

    @property
    def deltas(self) -> list[dict[str, Any]]:
        return [choice["delta"] for choice in self.said if choice["delta"]]

    @property
    def text(self) -> str:
        return "".join(delta.get("content", "") for delta in self.deltas)

    @property
    def finish(self) -> list[str]:
        return [choice["finish_reason"] for choice in self.said if choice["finish_reason"]]

    @property
    def usage(self) -> Any:
        return self.chunks[-1]["usage"]

    @property
    def extra(self) -> dict[str, Any]:
        return {name: value for chunk in self.chunks for name, value in chunk.get("extra", {}).items()}

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """Id, name and arguments of each tool call."""
        calls: list[tuple[str, str, str]] = []
        for part in (part for delta in self.deltas for part in delta.get("tool_calls", ())):
            function = part["function"]
            place = part["index"]
            if place == len(calls):
                calls.append((part["id"], function["name"], function["arguments"]))
            else:
                calls[place] = (*calls[place][:2], calls[place][2] + function["arguments"])
        return calls


def judged(chunks: list[Chunk], count: int = 1) -> list[dict[str, Any]]:
    """What a whole stream says; it fails where the stream breaks a rule, or cannot be written."""
    choices, said = Choices(count), []
    for chunk in chunks:
        assert set(chunk) <= {"choices", "usage", "usage_so_far", "extra"}
        orjson.dumps(chunk)
        said += choices.admit(chunk)
    assert [chunk for chunk in chunks if "usage" in chunk] == chunks[-1:]
    choices.check_whole()
    return said


def failure(*events: Any, n: int = 1) -> ApiError:
    with pytest.raises(ApiError) as caught:
        Read(*events, n=n)
    return caught.value


# Good streams


def test_a_plain_stream() -> None:
    read = Read(
        event({"role": "assistant", "content": ""}), text("Hel"), text("lo"), STOP, {"choices": [], "usage": USAGE},
        b"[DONE]",
    )  # fmt: skip
    assert (read.text, read.finish, read.usage, read.extra) == ("Hello", ["stop"], USAGE, {})
    assert read.stream.done
    assert len(read.chunks) == 4
    assert all(set(chunk) == {"choices"} for chunk in read.chunks[:-1])


@pytest.mark.parametrize("done", [b"[DONE]", b" [DONE]", b"[DONE]\r", b"\t[DONE] \n"])
def test_done(done: bytes) -> None:
    stream = ForeignStream(generation())
    assert stream.feed(done) is None
    assert stream.done


def test_without_done_an_answer_with_its_finish_reason_is_whole() -> None:
    assert Read(text("a"), STOP).finish == ["stop"]


@pytest.mark.parametrize("blank", [b"", b" ", b"\n"])
def test_an_empty_event_says_nothing(blank: bytes) -> None:
    assert Read(text("a"), blank, STOP).text == "a"


def test_text_on_the_short_way_is_the_same_as_on_the_long_one() -> None:
    short, long = (
        Read(text("a"), *(text(word, choice=more) for word in ("é", "\U0001f600", '"\n')), STOP)
        for more in ({}, {"matched_stop": None})
    )
    assert short.deltas == long.deltas == [{"content": word} for word in ("a", "é", "\U0001f600", '"\n')]
    assert [choice["first"] for choice in short.said] == [True, False, False, False, False]


def test_several_choices() -> None:
    read = Read(
        text("a", index=1), text("b", index=0), text("c", index=1), event(finish="length", index=1),
        event(finish="stop", index=0), n=2,
    )  # fmt: skip
    assert [(choice["index"], choice["delta"].get("content")) for choice in read.said] == [
        (1, "a"), (0, "b"), (1, "c"), (1, None), (0, None),
    ]  # fmt: skip
    assert read.finish == ["length", "stop"]


def test_several_choices_in_one_event() -> None:
    both = {"choices": [*text("a")["choices"], *event({"content": "b"}, "stop", 1)["choices"]]}
    assert Read(both, STOP, n=2).finish == ["stop", "stop"]


@pytest.mark.parametrize(
    "silent",
    [
        event({"role": "assistant"}),
        event({"role": "assistant", "content": "", "refusal": None}),
        event({"role": "assistant", "content": None, "reasoning_content": None, "tool_calls": None}),
        event({"tool_calls": []}),
        event({}, ""),
        event(None, "null"),
        {"choices": []},
        {"choices": None, "id": "x"},
        {},
        {"choices": [], "usage": None, "error": None},
    ],
)  # fmt: skip
def test_what_says_nothing_is_no_chunk(silent: Any) -> None:
    assert ForeignStream(generation()).feed(orjson.dumps(silent)) is None


def test_a_choice_without_index_is_the_only_one() -> None:
    assert Read(bare({"delta": {"content": "a"}}), bare({"index": None, "finish_reason": "stop"})).text == "a"
    assert failure(bare({"delta": {"content": "a"}}), n=2).code == "upstream_protocol_error"


# Finish reasons


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stop", "stop"), ("STOP", "stop"), ("eos", "stop"), ("eos_token", "stop"), ("stop_sequence", "stop"),
        ("end_turn", "stop"), ("COMPLETE", "stop"), ("length", "length"), ("MAX_TOKENS", "length"),
        ("model_length", "length"), ("max_tokens", "length"), ("model_context_window_exceeded", "length"),
        ("content_filter", "content_filter"), ("SAFETY", "content_filter"), ("sensitive", "content_filter"),
        ("content_filter: PROHIBITED_CONTENT", "content_filter"), ("refusal", "content_filter"),
    ],
)  # fmt: skip
def test_names_of_finish_reasons(theirs: str, ours: str) -> None:
    assert Read(text("a"), event(finish=theirs)).finish == [ours]


@pytest.mark.parametrize(
    ("theirs", "code"),
    [
        ("abort", "upstream_stream_interrupted"), ("insufficient_system_resource", "upstream_stream_interrupted"),
        ("ERROR", "upstream_stream_interrupted"), ("network_error", "upstream_stream_interrupted"),
        ("because", "upstream_protocol_error"), (5, "upstream_protocol_error"), (["stop"], "upstream_protocol_error"),
        (False, "upstream_protocol_error"), ("function_call_filter: MALFORMED", "upstream_protocol_error"),
    ],
)  # fmt: skip
def test_finish_reasons_that_are_failures(theirs: Any, code: str) -> None:
    assert failure(text("a"), event(finish=theirs)).code == code


def test_the_same_finish_reason_twice_is_one() -> None:
    assert Read(text("a"), STOP, STOP, event({"role": "assistant", "content": ""}, "stop")).finish == ["stop"]


def test_what_is_silent_after_the_finish_reason_is_let_go() -> None:
    assert Read(text("a"), STOP, event({"content": ""}), event({}, ""), {"choices": [], "usage": USAGE}).text == "a"


@pytest.mark.parametrize("more", [text("b"), event(finish="length"), event({"content": "b"}, "stop")])
def test_nothing_else_comes_after_the_finish_reason(more: Any) -> None:
    assert failure(text("a"), STOP, more).code == "upstream_protocol_error"


# Ends


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([], "upstream_empty_response"),
        ([b"[DONE]"], "upstream_empty_response"),
        ([event({"role": "assistant", "content": ""}), b"[DONE]"], "upstream_empty_response"),
        ([{"choices": [], "usage": USAGE}, b"[DONE]"], "upstream_empty_response"),
        ([{"prompt_filter_results": [], "choices": []}], "upstream_empty_response"),
        ([text("a")], "upstream_stream_interrupted"),
        ([text("a"), b"[DONE]"], "upstream_stream_interrupted"),
        ([text("a"), {"choices": [], "usage": USAGE}, b"[DONE]"], "upstream_stream_interrupted"),
    ],
)  # fmt: skip
def test_ends_that_are_failures(events: list[Any], code: str) -> None:
    assert failure(*events).code == code


def test_a_choice_that_never_came_is_a_failure() -> None:
    assert failure(text("a"), STOP, n=2).code == "upstream_stream_interrupted"


FINISHED_AT_ONCE = {"choices": [*text("a")["choices"], *event({"content": "b"}, "stop", 1)["choices"]]}


@pytest.mark.parametrize(
    ("events", "n", "given"),
    [
        ([text("a"), STOP, b"[DONE]"], 3, 1),
        ([text("a"), STOP, {"choices": [], "usage": USAGE}, b"[DONE]"], 2, 1),
        ([FINISHED_AT_ONCE, STOP, b"[DONE]"], 3, 2),
    ],
)
def test_a_server_that_ignores_n_is_told_from_one_that_broke_off(events: list[Any], n: int, given: int) -> None:
    error = failure(*events, n=n)
    assert (error.code, error.retry) == ("upstream_stream_interrupted", Retry.NEVER)
    assert f"gives {given} of {n} choices" in error.message


@pytest.mark.parametrize(
    "events",
    [
        [text("a"), STOP],  # the second may have been to come
        [text("a"), STOP, text("b", index=1), b"[DONE]"],
        [text("a"), event({"role": "assistant"}, index=1), STOP, b"[DONE]"],
        [text("a"), b"[DONE]"],
    ],
)
def test_what_broke_off_may_be_tried_again(events: list[Any]) -> None:
    error = failure(*events, n=2)
    assert (error.code, error.retry) == ("upstream_stream_interrupted", Retry.BACKOFF)


# Usage


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (USAGE, (5, 2, 7)),
        ({**USAGE, "total_tokens": None}, (5, 2, 7)),
        ({"prompt_tokens": 5, "completion_tokens": 2}, (5, 2, 7)),
        ({**USAGE, "total_tokens": 100}, (5, 95, 100)),  # Gemini: thoughts in the total alone
        ({"prompt_tokens": 5, "total_tokens": 100}, (5, 95, 100)),
        ({"prompt_tokens": 5, "total_tokens": 5}, (5, 0, 5)),
        ({**USAGE, "total_tokens": 1}, (5, 2, 7)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (0, 0, 0)),
    ],
)  # fmt: skip
def test_usage_adds_up(theirs: Any, ours: tuple[int, int, int]) -> None:
    usage = Read(text("a"), STOP, {"choices": [], "usage": theirs}).usage
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == ours


@pytest.mark.parametrize(
    "theirs",
    [
        None, {}, "x", 7, [1], {"prompt_tokens": 5}, {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": "5", "completion_tokens": 2}, {"prompt_tokens": True, "completion_tokens": 2},
        {"prompt_tokens": 5, "completion_tokens": "2", "total_tokens": 9},
        {"prompt_tokens": 2**64 - 1, "completion_tokens": 2**64 - 1}, {"completion_tokens": 5, "total_tokens": 7},
    ],
)  # fmt: skip
def test_usage_that_cannot_be_read_is_unknown(theirs: Any) -> None:
    assert Read(text("a"), STOP, {"choices": [], "usage": theirs}).usage is None


def test_what_usage_holds_besides_passes() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 3}, "cost": 0.1}
    assert Read(text("a"), STOP, {"choices": [], "usage": {**USAGE, **details}}).usage == {**USAGE, **details}


def test_the_last_of_many_usages_counts() -> None:
    counts = [{"prompt_tokens": 5, "completion_tokens": n, "total_tokens": 5 + n} for n in range(4)]
    read = Read(text("a", usage=counts[1]), text("b", usage=counts[2]), {**STOP, "usage": counts[3]})
    assert (read.text, read.usage) == ("ab", counts[3])
    assert Read(text("a", usage=None), {**STOP, "usage": counts[3]}, {"choices": [], "usage": None}).usage == counts[3]


def test_usage_beside_choices_stays_there_for_those_who_asked_for_it() -> None:
    counts = [{"prompt_tokens": 5, "completion_tokens": n, "total_tokens": 5 + n} for n in range(4)]
    events = [text("a b", usage=counts[2]), text("c", usage=None), text("d", usage="x"), {**STOP, "usage": counts[3]}]
    for asked, seen in ((True, [counts[2], None, None, counts[3]]), (False, [None] * 4)):
        stream = ForeignStream(generation(), continuous_usage=asked)
        chunks = [stream.feed(orjson.dumps(each)) for each in events]
        assert [chunk and chunk.get("usage") for chunk in chunks] == seen
        assert stream.end() == {"choices": [], "usage": counts[3]}
        assert stream.feed(orjson.dumps({"choices": [], "usage": counts[3]})) is None


def test_usage_is_told_as_soon_as_it_is_known() -> None:
    counts = [{"prompt_tokens": 5, "completion_tokens": n, "total_tokens": 5 + n} for n in range(3)]
    stream = ForeignStream(generation())
    events = [event({"role": "assistant"}) | {"usage": counts[0]}, text("a", usage=counts[1]), text("b")]
    events += [{"choices": [], "usage": counts[2]}, {"choices": [], "usage": "x"}]
    chunks = [stream.feed(orjson.dumps(each)) for each in events]
    so_far = [chunk and chunk.get("usage_so_far") for chunk in chunks]
    assert so_far == [counts[0], counts[1], None, counts[2], None]
    assert [chunk and chunk["choices"] for chunk in (chunks[0], chunks[3])] == [[], []]
    stream.feed(orjson.dumps(STOP))
    assert stream.feed(orjson.dumps({"choices": [], "usage": counts[2]})) is None  # the answer is whole: end() has it


def test_groq_keeps_usage_and_errors_in_a_field_of_its_own() -> None:
    assert Read(text("a"), {**STOP, "x_groq": {"id": "req_1", "usage": USAGE}}).usage == USAGE
    assert (
        failure(text("a"), {**event(), "x_groq": {"id": "r", "error": "over capacity"}}).code == "server_is_overloaded"
    )


# Fields that are not known


def test_unknown_fields_pass_on_every_level() -> None:
    read = Read(
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},  # Azure, first of all
        event({"content": "a", "reasoning_details": [{"x": 1}]}, choice={"stop_reason": 7, "token_ids": [1]}),
        {**text("b"), "provider": "P", "system_fingerprint": "fp"},
        {**STOP, "service_tier": "default"},
    )
    assert read.extra == {
        "prompt_filter_results": [{"prompt_index": 0}], "provider": "P", "system_fingerprint": "fp",
        "service_tier": "default",
    }  # fmt: skip
    assert read.deltas[0] == {"content": "a", "reasoning_details": [{"x": 1}]}
    assert read.said[0]["extra"] == {"stop_reason": 7, "token_ids": [1]}
    assert read.chunks[0] == {"choices": [], "extra": {"prompt_filter_results": [{"prompt_index": 0}]}}


def test_fields_beside_nothing_go_out_with_what_is_said_next() -> None:
    filtered = {"content_filter_results": {"hate": {"filtered": False}}}
    read = Read(event({"role": "assistant"}, choice=filtered), text("a"), STOP)
    assert read.said[0]["delta"] == {"content": "a"}
    assert read.said[0]["extra"] == filtered
    assert len(read.chunks) == 3


@pytest.mark.parametrize("again", [None, "stop"])
def test_fields_after_the_finish_reason_pass_beside_nothing(again: str | None) -> None:
    late = event({"role": "assistant", "content": ""}, again, choice={"stop_reason": 7, "token_ids": None})
    read = Read(text("a"), STOP, late, {"choices": [], "usage": USAGE})
    silent = {"index": 0, "delta": {}, "finish_reason": None, "extra": {"stop_reason": 7}}
    assert read.chunks[2] == {"choices": [silent]}
    assert (read.finish, read.usage) == (["stop"], USAGE)


def test_fields_after_the_finish_reason_stand_behind_what_another_choice_says() -> None:
    both = {"choices": [*event(choice={"x": 1})["choices"], *text("b", index=1)["choices"]]}
    read = Read(text("a"), STOP, both, event(finish="stop", index=1), n=2)
    assert [choice["index"] for choice in read.chunks[2]["choices"]] == [1, 0]
    assert read.chunks[2]["choices"][1]["extra"] == {"x": 1}


def test_nothing_known_is_overwritten_or_made_up_by_a_field_of_the_same_name() -> None:
    odd = {"extra": {"choices": "x"}, "restart": True, "first": False}
    read = Read({**text("a", choice={"extra": {"delta": "x"}, "first": False}), **odd}, STOP)
    assert set(read.chunks[0]) == {"choices", "extra"}
    assert read.chunks[0]["extra"] == odd
    assert read.said[0]["first"] is True
    assert read.said[0]["extra"] == {"extra": {"delta": "x"}, "first": False}


def test_their_name_of_the_model_and_their_id_do_not_pass() -> None:
    assert b"their" not in orjson.dumps(Read(text("a"), STOP).chunks)
    assert b"chatcmpl" not in orjson.dumps(Read(text("a", choice={"x": 1}), STOP).chunks)


@pytest.mark.parametrize(
    "deep",
    [
        lambda value: {**text("a"), "x": value},
        lambda value: text("a", choice={"x": value}),
        lambda value: event({"content": "a", "x": value}),
        lambda value: {**text("a"), "usage": {**USAGE, "x": value}},
    ],
)  # fmt: skip
def test_what_is_nested_too_deep_to_be_written_is_refused(deep: Any) -> None:
    data = orjson.dumps(deep("@")).replace(b'"@"', b"[" * 300 + b"]" * 300)
    assert failure(data, STOP).code == "upstream_protocol_error"
    wide = orjson.dumps(deep([[n] for n in range(1000)]))
    assert Read(wide, STOP).text == "a"


# Whole answers, and text completions


def test_a_whole_answer_where_a_stream_was_asked_for() -> None:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "Hello",
        "refusal": None,
        "annotations": [],
        "reasoning_content": "hm",
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    read = Read(
        {"id": "x", "object": "chat.completion", "choices": [choice], "usage": USAGE, "system_fingerprint": "f"}
    )
    assert read.deltas == [{"content": "Hello", "reasoning_content": "hm"}]
    assert (read.finish, read.usage, read.extra) == (["stop"], USAGE, {"system_fingerprint": "f"})


def test_tool_calls_of_a_whole_message() -> None:
    calls = [
        {"id": "c0", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
    ]
    message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": calls}
    read = Read(bare({"index": 0, "message": message, "finish_reason": "tool_calls"}))
    assert read.calls == [("c0", "f", "{}"), ("c1", "f", '{"a":1}')]


def test_text_completions() -> None:
    legacy = {
        "tokens": ["a", "b"], "token_logprobs": [-0.5, -1], "text_offset": [0, 1],
        "top_logprobs": [{"a": -0.5, "x": -2.0}, None],
    }  # fmt: skip
    read = Read(
        bare({"index": 0, "text": "ab", "logprobs": legacy, "finish_reason": None, "stop_reason": None}),
        bare({"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}),
        prompts=("p",),
    )  # fmt: skip
    assert (read.text, read.finish) == ("ab", ["length"])
    one, two = read.said[0]["logprobs"]["content"]
    assert (one["token"], one["logprob"], [top["token"] for top in one["top_logprobs"]]) == ("a", -0.5, ["a", "x"])
    assert two == {"token": "b", "logprob": -1, "bytes": None, "top_logprobs": []}


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": ["a"], "token_logprobs": []},
        {"tokens": ["a"], "token_logprobs": [None]},
        {"tokens": "a", "token_logprobs": [1]},
        {"tokens": [1], "token_logprobs": [1]},
        {"tokens": ["a"], "token_logprobs": [1], "top_logprobs": "x"},
        {"tokens": ["a"], "token_logprobs": [1], "top_logprobs": [{"a": None}]},
        {"content": "x"},
        {"content": [{"token": "a"}]},
        {"content": [5]},
        {"content": [logprob("a", top_logprobs={"x": 1})]},
        5,
    ],
)  # fmt: skip
def test_log_probabilities_that_cannot_be_read(logprobs: Any) -> None:
    assert failure(bare({"index": 0, "text": "a", "logprobs": logprobs})).code == "upstream_protocol_error"


def test_log_probabilities_of_chat_get_the_fields_that_they_lack() -> None:
    entry = {"token": "a", "logprob": -1.0, "id": 7}
    for kind in ({"text": "a"}, {"delta": {"content": "a"}}):  # llama.cpp gives completions those of chat
        read = Read(bare({"index": 0, **kind, "logprobs": {"content": [entry]}, "finish_reason": "stop"}))
        assert read.said[0]["logprobs"]["content"] == [{**entry, "bytes": None, "top_logprobs": []}]
    kept = logprob("a", bytes=[97], top_logprobs=[{"token": "a", "logprob": -0.5, "bytes": None}])
    read = Read(text("a", choice={"logprobs": {"content": [kept], "refusal": None}}), STOP)
    assert read.said[0]["logprobs"] == {"content": [kept], "refusal": None}


def test_content_in_parts() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    read = Read(event({"content": [thought]}), event({"content": [{"type": "text", "text": "a"}]}), text("b"), STOP)
    assert read.deltas == [{"reasoning_content": "hm"}, {"content": "a"}, {"content": "b"}]


@pytest.mark.parametrize(
    "parts",
    [
        ["x"],
        [{"type": "image_url"}],
        [{"type": "text"}],
        [{"type": "thinking", "thinking": "x"}],
        [{"type": "thinking", "thinking": [{"type": "image_url"}]}],
        [{"type": "thinking", "thinking": [{"type": "thinking", "thinking": [{"type": "text", "text": "x"}]}]}],
    ],
)  # fmt: skip
def test_parts_that_are_no_text_are_refused(parts: list[Any]) -> None:
    assert failure(event({"content": parts})).code == "upstream_protocol_error"


# Tool calls


def head(name: str = "f", arguments: Any = "", **fields: Any) -> dict[str, Any]:
    return {"type": "function", **fields, "function": {"name": name, "arguments": arguments}}


def rest(arguments: str, **fields: Any) -> dict[str, Any]:
    return {**fields, "function": {"arguments": arguments}}


CALLS: dict[str, tuple[list[list[dict[str, Any]]], list[tuple[str, str, str]]]] = {
    "as they should be": (
        [[head(index=0, id="a")], [rest("{", index=0)], [rest("}", index=0)], [head("g", "{}", index=1, id="b")]],
        [("a", "f", "{}"), ("b", "g", "{}")],
    ),
    "among each other": (
        [[head(index=0, id="a")], [head("g", index=1, id="b")], [rest("{", index=0)],
         [rest("[]", index=1), rest("}", index=0)]],
        [("a", "f", "{}"), ("b", "g", "[]")],
    ),
    "without index": ([[head(id="a")], [rest("{")], [rest("}")], [head(id="b")], [rest("1")]],
                      [("a", "f", "{}"), ("b", "f", "1")]),
    "the id again, without index": ([[head(id="a")], [rest("{}", id="a")]], [("a", "f", "{}")]),
    "without id": ([[head(index=0)], [rest("{}", index=0)], [head("g", index=1)]], [("*", "f", "{}"), ("*", "g", "")]),
    "with an empty id": ([[head(index=0, id="")], [rest("{}", index=0, id="")]], [("*", "f", "{}")]),
    "with neither": ([[head("f", "{}")], [head("g", "{}")]], [("*", "f", "{}"), ("*", "g", "{}")]),
    "several in one event": ([[head(id="a"), head("g", id="b")]], [("a", "f", ""), ("b", "g", "")]),
    "all called 0": ([[head("f", "{}", index=0, id="a")], [head("g", "{}", index=0, id="b"), rest(" ", index=0)]],
                     [("a", "f", "{}"), ("b", "g", "{} ")]),
    "counted from 1": ([[head(index=1, id="a")], [rest("{}", index=1)], [head(index=2, id="b")]],
                       [("a", "f", "{}"), ("b", "f", "")]),
    "an id for each fragment": ([[head(index=0, id="a")], [rest("{", index=0, id="b")], [rest("}", index=0, id="c")]],
                                [("a", "f", "{}")]),
    "id and name each time": ([[head(index=0, id="a")], [head("f", "{}", index=0, id="a")]], [("a", "f", "{}")]),
    "arguments as an object": ([[head("f", {"a": [1, None]}, index=0, id="a")]], [("a", "f", '{"a":[1,null]}')]),
    "arguments null": ([[head("f", None, index=0, id="a")]], [("a", "f", "")]),
    "a type that is empty": ([[head(index=0, id="a", type="")], [rest("{}", index=0, type=None)]],
                             [("a", "f", "{}")]),
}  # fmt: skip


@pytest.mark.parametrize(("events", "calls"), CALLS.values(), ids=CALLS.keys())
def test_tool_calls(events: list[list[dict[str, Any]]], calls: list[tuple[str, str, str]]) -> None:
    read = Read(*(event({"tool_calls": fragments}) for fragments in events), event(finish="tool_calls"))
    assert [
        ("*" if theirs == "*" else found[0], *found[1:]) for found, (theirs, *_) in zip(read.calls, calls, strict=True)
    ] == calls
    assert len({call[0] for call in read.calls}) == len(calls)
    assert all(re.fullmatch(r"call_[0-9a-f]{24}|[ab]", call[0]) for call in read.calls)


def test_tool_calls_of_several_choices_do_not_mix() -> None:
    events = [event({"tool_calls": [head(id=f"c{index}")]}, index=index) for index in (0, 1)]
    ends = [event(finish="tool_calls", index=index) for index in (0, 1)]
    assert [choice["delta"]["tool_calls"][0]["index"] for choice in Read(*events, *ends, n=2).said[:2]] == [0, 0]


@pytest.mark.parametrize(
    "fragments",
    [
        ["x"], "x", 5, {"a": 1}, [{"function": "f"}], [{"function": {"arguments": "{}"}}], [{"id": "a"}],
        [head(index="0", id="a")], [head(index=True, id="a")], [head(index=0, id=5)], [head(index=[], id="a")],
        [head(index=0, id="a", type="custom")], [head(index=0, id="a"), {"index": 0, "function": "f"}],
        [head(index=0, id="a"), head("g", index=0)], [head("f", [1], index=0, id="a")],
    ],
)  # fmt: skip
def test_tool_calls_that_cannot_be_put_right(fragments: Any) -> None:
    found = failure(event({"tool_calls": fragments}), event(finish="tool_calls"))
    assert found.code == "upstream_protocol_error"


# Failures


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}},
         "rate_limit_exceeded"),
        ([{"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}}], "rate_limit_exceeded"),
        ({"error": "boom"}, "upstream_error"),
        ({"object": "error", "message": "boom", "code": 500}, "upstream_error"),
        (event({"content": ""}, "error"), "upstream_error"),
        (bare({"index": 0, "delta": {"content": "x"}, "error": {"code": 502, "message": "Provider gone"}}),
         "upstream_error"),
        ({**text("x"), "error": {"code": 503, "message": "overloaded"}}, "server_is_overloaded"),
        ("text", "upstream_protocol_error"),
        (None, "upstream_protocol_error"),
        ([text("a"), text("b")], "upstream_protocol_error"),
        ([event({"content": ""}, "error")], "upstream_error"),
        ([bare({"index": 0, "delta": {"content": "x"}, "error": {"code": 502, "message": "gone"}})], "upstream_error"),
        ({"choices": "x"}, "upstream_protocol_error"),
        ({"choices": {"a": 1}}, "upstream_protocol_error"),
        ({"choices": [1]}, "upstream_protocol_error"),
        ({"choices": 1}, "upstream_protocol_error"),
        (event("x"), "upstream_protocol_error"),
        (event({"content": 5}), "upstream_protocol_error"),
        (text("x", index=1), "upstream_protocol_error"),
        (text("x", index=-1), "upstream_protocol_error"),
        (event({"tool_calls": [head()]}, index=[]), "upstream_protocol_error"),
        (text("x", index={}), "upstream_protocol_error"),
        (b'{"choices":[{"delta":{"cont', "upstream_protocol_error"),
        (b"\xff\xfe", "upstream_protocol_error"),
        (b'{"choices":[{"index":0,"delta":{"content":"\xff"}}]}', "upstream_protocol_error"),
        (b'{"choices":[{"index":0,"delta":{"content":"\\ud800"}}]}', "upstream_protocol_error"),
        (b"<html>", "upstream_protocol_error"),
        (b'{"a":NaN}', "upstream_protocol_error"),
        (b"[DONE", "upstream_protocol_error"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [[], [text("a")]], ids=["first", "later"])
def test_failures(before: list[Any], told: Any, code: str) -> None:
    assert failure(*before, told).code == code


def test_a_list_around_an_event_is_taken_off() -> None:
    assert Read([text("a")], STOP).text == "a"


# Anything at all

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "stop", "error", "[DONE]", "ü"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["choices", "index", "delta", "content", "usage", "error", "tool_calls", "function", "x"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
_foreign_choices = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([0, 0, 1, None]) | _json,
        "delta": _json
        | st.fixed_dictionaries({}, optional={
            "content": st.sampled_from(["a", "", None]) | _json,
            "tool_calls": st.lists(
                st.builds(lambda one: one["tool_calls"][0], st.builds(
                    fragment, st.sampled_from([None, 0, 1, 2]), st.sampled_from([None, "c", "d", ""]),
                    st.sampled_from([None, "f", "g"]), st.sampled_from([None, "{}", {"a": 1}]),
                )), max_size=3,
            ) | _json,
            "x": _json,
        }),
        "message": _json,
        "text": st.just("a") | _json,
        "logprobs": _json | st.fixed_dictionaries({}, optional={
            "tokens": st.just(["a"]) | _json, "token_logprobs": st.just([-1.0]) | _json, "top_logprobs": _json,
            "content": st.just([{"token": "a", "logprob": -1}]) | _json,
        }),
        "finish_reason": st.sampled_from([None, None, "stop", "tool_calls", "eos", "length", "abort"]) | _json,
        "x": _json,
    },
)  # fmt: skip
_foreign_events = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(_foreign_choices, max_size=3) | _json,
        "usage": st.sampled_from([USAGE, None]) | _json,
        "x_groq": _json,
        "x": _json,
    },
)
_events = st.one_of(
    _foreign_events, _foreign_events, _foreign_events, any_chunks, _json, st.just(STOP), st.just(text("a"))
)
_surrogate = re.compile(r"[\ud800-\udfff]")


def _data(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate
        return b'"\\ud800"'


@given(st.lists(_events.map(_data) | st.binary(max_size=20) | st.just(b"[DONE]"), max_size=8), st.integers(1, 2))
@example([_data(STOP), b'{"choices":[{"x":[]}]}'], 1)
def test_whatever_comes_the_chunks_keep_the_rules_or_it_is_a_failure_of_the_catalogue(
    events: list[bytes], n: int
) -> None:
    stream, judge = ForeignStream(generation(n)), Choices(n)
    finished: set[int] = set()
    try:
        for data in events:
            chunk = stream.feed(data)
            if chunk is not None:
                assert chunk["choices"] or chunk.get("extra") or chunk["usage_so_far"]
                orjson.dumps(chunk)
                said = [choice for choice in chunk["choices"] if says_something(choice)]
                assert judge.admit(chunk) == said
                finished.update(choice["index"] for choice in said if choice["finish_reason"])
                late = [choice for choice in chunk["choices"] if not says_something(choice)]
                assert all(choice["extra"] and choice["index"] in finished for choice in late)
        end = stream.end()
    except ApiError as error:
        assert error.entry.code  # noqa: PT017 - what else is raised fails the test
        return
    orjson.dumps(end)
    judge.admit(end)
    judge.check_whole()


def says_something(choice: Mapping[str, Any]) -> bool:
    """Whether a choice of a chunk has more than fields that pass through after its finish reason."""
    return bool(choice["delta"] or choice["finish_reason"] or choice.get("logprobs"))


GOOD = [
    event({"role": "assistant", "content": ""}),
    text("Hel"),
    text("lo", index=1),
    event({"tool_calls": [head(id="a")]}),
    event({"tool_calls": [rest("{}")]}),
    event(finish="tool_calls"),
    event({"content": "!"}, "stop", 1),
    {"choices": [], "usage": USAGE},
]


@pytest.mark.parametrize("cut", range(len(GOOD) + 1))
def test_a_stream_that_is_cut_is_whole_only_with_every_finish_reason(cut: int) -> None:
    events = GOOD[:cut]
    if cut < 7:
        expected = "upstream_empty_response" if cut < 2 else "upstream_stream_interrupted"
        assert failure(*events, n=2).code == expected
    else:
        assert Read(*events, n=2).usage == (USAGE if cut == 8 else None)


# The short ways


GOING_ON: dict[str, tuple[Any, bool]] = {
    "text": (text("b"), True),
    "text with a role": (event({"role": "assistant", "content": "b"}), True),
    "text with null fields": (text("b", usage=None, error=None), True),
    "text and what passes": (text("b", system_fingerprint="f", x=1), True),
    "text of a choice alone": (bare({"index": 0, "delta": {"content": "b"}}), True),
    "text without an index": (bare({"delta": {"content": "b"}}), False),
    "text and what a choice has": (text("b", choice={"x": 1}), False),
    "text and log-probabilities": (text("b", choice={"logprobs": {"content": [logprob("b")]}}), False),
    "text and usage": (text("b", usage=USAGE), False),
    "text and the end": (event({"content": "b"}, "stop"), False),
    "text and another field": (event({"content": "b", "reasoning_content": "c"}), False),
    "text in parts": (text([{"type": "text", "text": "b"}]), False),
    "the older form": (bare({"index": 0, "text": "b"}), False),
    "a message": (bare({"index": 0, "message": {"content": "b"}}), False),
    "no text": (text(""), False),
    "a role": (event({"role": "assistant"}), False),
    "the end": (STOP, False),
    "usage alone": ({"choices": [], "usage": USAGE}, False),
    "nothing": ({"choices": []}, False),
    "white space": (b" ", False),
    "done": (b"[DONE]", False),
    "groq's own": (text("b", x_groq={"id": "r"}), False),
    "two choices": ({"choices": [*text("b")["choices"], *text("c")["choices"]]}, False),
}


@pytest.mark.parametrize(("each", "goes_on"), GOING_ON.values(), ids=GOING_ON.keys())
def test_which_events_have_nothing_but_text_that_may_go_on(each: Any, *, goes_on: bool) -> None:
    data = each if isinstance(each, bytes) else orjson.dumps(each)
    first, stream = ForeignStream(generation()), ForeignStream(generation())
    assert not first.goes_on
    first.feed(data)
    assert first.goes_on is goes_on
    stream.feed(orjson.dumps(text("a")))
    assert stream.goes_on
    stream.feed(data)
    assert stream.goes_on is goes_on
    several = ForeignStream(generation(2))
    several.feed(orjson.dumps(text("a")))
    with contextlib.suppress(ApiError):
        several.feed(data)
    assert not several.goes_on


@pytest.mark.parametrize("each", [b"{oops", {"error": {"message": "no"}}, text("\ud800"), text("c", index=7)])
def test_an_event_that_is_refused_does_not_go_on(each: Any) -> None:
    stream = ForeignStream(generation())
    stream.feed(orjson.dumps(text("a")))
    assert stream.goes_on
    data = each if isinstance(each, bytes) else json.dumps(each).encode()
    with pytest.raises(ApiError):
        stream.feed(data)
    assert not stream.goes_on


_events = st.one_of(
    any_chunks,
    st.sampled_from([each for each, _ in GOING_ON.values()]),
    st.builds(text, st.sampled_from(["a", "", "ü", None])),
    st.builds(
        lambda finish: event(finish=finish), st.sampled_from(["stop", "length", "tool_calls", "eos", "STOP", ""])
    ),
    st.builds(lambda finish: event({"content": "z"}, finish), st.sampled_from(["stop", "tool_calls", 7, [], "abort"])),
)


@given(st.lists(_events, max_size=8), st.integers(1, 2), st.booleans())
def test_the_plain_way_reads_what_the_usual_one_does(events: list[Any], n: int, continuous: bool) -> None:
    plain, usual = (ForeignStream(generation(n), continuous_usage=continuous) for _ in range(2))
    usual._plain = lambda payload: None  # type: ignore[method-assign]
    for each in events:
        data = each if isinstance(each, bytes) else json.dumps(each).encode()
        one, other = outcome(plain, data), outcome(usual, data)
        assert without_ids(one) == without_ids(other)
        assert (plain.done, plain.finished) == (usual.done, usual.finished)
        if isinstance(one, str):
            return
    assert outcome(plain, None) == outcome(usual, None)


def outcome(stream: ForeignStream, data: bytes | None) -> Any:
    """What comes of an event, or of the end; why it is refused."""
    try:
        return stream.end() if data is None else stream.feed(data)
    except ApiError as error:
        return f"{error.code}: {error.detail}"


def without_ids(said: Any) -> Any:
    """``said`` without the ids that were made up."""
    return orjson.loads(re.sub(rb"call_[0-9a-f]{24}", b"call_", orjson.dumps(said)))
