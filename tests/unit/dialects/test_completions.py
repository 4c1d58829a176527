"""The text-completions dialect: requests, streams and whole answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.chunks import USAGE, any_chunks, chunk, fragment, good_chunks, logprob, text, usage

from coterie.dialects.chat import DialectLimits
from coterie.dialects.completions import CompletionFold, CompletionStream, parse_completion, parse_prompts
from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.wire.lingua import Chunk

LIMITS = DialectLimits(messages=2048, choices=8)


def parse(**fields: Any) -> Any:
    return parse_completion({"model": "m", "prompt": "a", **fields}, LIMITS)


GOOD: dict[str, tuple[dict[str, Any], tuple[Any, ...], dict[str, Any]]] = {
    "a text": ({"prompt": "a"}, ("a",), {"max_tokens": 16}),
    "texts": ({"prompt": ["a", "b"]}, ("a", "b"), {"max_tokens": 16}),
    "token ids": ({"prompt": [1, 2]}, ([1, 2],), {"max_tokens": 16}),
    "lists of token ids": ({"prompt": [[1], [2, 3]]}, ([1], [2, 3]), {"max_tokens": 16}),
    "sampling": (
        {"max_tokens": 5, "temperature": 0, "seed": 1, "stop": "x", "top_k": 1},
        ("a",),
        {"max_tokens": 5, "temperature": 0, "seed": 1, "stop": "x", "top_k": 1},
    ),
    "log probabilities": ({"logprobs": 2}, ("a",), {"max_tokens": 16, "logprobs": True, "top_logprobs": 2}),
    "log probabilities without alternatives": (
        {"logprobs": 0}, ("a",), {"max_tokens": 16, "logprobs": True, "top_logprobs": 0},
    ),
    "null": ({"max_tokens": None, "stop": None, "logprobs": None, "suffix": None}, ("a",), {"max_tokens": 16}),
    "the edge's": ({"stream": True, "n": 2, "user": "u", "echo": False, "best_of": 1}, ("a",), {"max_tokens": 16}),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "prompts", "body"), GOOD.values(), ids=GOOD.keys())
def test_what_a_generation_holds(fields: dict[str, Any], prompts: tuple[Any, ...], body: dict[str, Any]) -> None:
    generation = parse(**fields).generation
    assert (generation.model, generation.prompts, generation.body) == ("m", prompts, body)
    assert generation.prompt_param == "prompt"


def test_choices_are_prompts_times_n() -> None:
    parsed = parse(prompt=["a", "b"], n=3, stream=True, stream_options={"include_usage": True})
    assert (parsed.choices, parsed.generation.n, parsed.stream, parsed.include_usage) == (6, 3, True, True)
    assert (parse().choices, parse().stream, parse().include_usage) == (1, False, False)


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no model": ({"model": None}, "missing_required_parameter", "model"),
    "null": ({"prompt": None}, "invalid_type", "prompt"),
    "a number": ({"prompt": 5}, "invalid_type", "prompt"),
    "an object": ({"prompt": {}}, "invalid_type", "prompt"),
    "an empty text": ({"prompt": ""}, "string_below_min_length", "prompt"),
    "nothing": ({"prompt": []}, "empty_array", "prompt"),
    "an empty text alone": ({"prompt": [""]}, "string_below_min_length", "prompt"),
    "an empty text among others": ({"prompt": ["a", ""]}, "string_below_min_length", "prompt[1]"),
    "no tokens": ({"prompt": [[]]}, "empty_array", "prompt[0]"),
    "null within": ({"prompt": [None]}, "invalid_type", "prompt[0]"),
    "true within": ({"prompt": [True]}, "invalid_type", "prompt[0]"),
    "a token among texts": ({"prompt": ["a", 1]}, "invalid_type", "prompt[1]"),
    "a text among tokens": ({"prompt": [1, "a"]}, "invalid_type", "prompt[1]"),
    "true among tokens": ({"prompt": [1, True]}, "invalid_type", "prompt[1]"),
    "a fraction among tokens": ({"prompt": [1, 1.5]}, "invalid_type", "prompt[1]"),
    "a negative token": ({"prompt": [1, -1]}, "integer_below_min_value", "prompt[1]"),
    "a huge token": ({"prompt": [2**31]}, "integer_above_max_value", "prompt[0]"),
    "a text in a list of tokens": ({"prompt": [[1], [1, "a"]]}, "invalid_type", "prompt[1][1]"),
    "an object in a list": ({"prompt": [{"a": 1}]}, "invalid_type", "prompt[0]"),
    "a flood": ({"prompt": ["a", *[1] * 100_000]}, "invalid_type", "prompt[1]"),
    "too many prompts": ({"prompt": ["a"] * 9}, "array_above_max_length", "prompt"),
    "too many choices": ({"prompt": ["a"] * 5, "n": 2}, "array_above_max_length", "prompt"),
    "n beyond the limit": ({"n": 9}, "integer_above_max_value", "n"),
    "no tokens to generate": ({"max_tokens": 0}, "integer_below_min_value", "max_tokens"),
    "log probabilities as in chat": ({"logprobs": True}, "invalid_type", "logprobs"),
    "too many log probabilities": ({"logprobs": 6}, "integer_above_max_value", "logprobs"),
    "chat's fields": ({"messages": []}, "unknown_parameter", "messages"),
    "chat's limit": ({"max_completion_tokens": 5}, "unknown_parameter", "max_completion_tokens"),
    "echo": ({"echo": True}, "unsupported_value", "echo"),
    "suffix": ({"suffix": "x"}, "unsupported_parameter", "suffix"),
    "best of two": ({"best_of": 2}, "unsupported_value", "best_of"),
    "options without a stream": ({"stream_options": {}}, "invalid_value", "stream_options"),
}


@pytest.mark.parametrize(("fields", "code", "param"), BAD.values(), ids=BAD.keys())
def test_bad_requests(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_the_prompt_is_required() -> None:
    with pytest.raises(ApiError) as caught:
        parse_completion({"model": "m"}, LIMITS)
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", "prompt")


def test_another_dialect_names_its_own_field() -> None:
    with pytest.raises(ApiError) as caught:
        parse_prompts(["a", 1], "input")
    assert caught.value.param == "input[1]"
    assert caught.value.message.startswith("Invalid type for 'input[1]'")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["prompt", "logprobs", "stop", "n", "stream", "best_of", "x", ""]), json_values))
def test_any_request_is_parsed_or_a_failure_with_a_path(fields: dict[str, Any]) -> None:
    try:
        parsed = parse(**fields)
    except ApiError as error:
        assert not error.entry.takes_param or error.param  # noqa: PT017 - what else is raised fails the test
    else:
        assert parsed.choices == len(parsed.generation.prompts) * parsed.generation.n


# Answers.


def machines(choices: int = 1) -> tuple[CompletionStream, CompletionFold]:
    return (
        CompletionStream("cmpl-1", 1, "m", choices=choices, include_usage=False),
        CompletionFold("cmpl-1", 1, "m", choices=choices),
    )


def streamed(chunks: list[Any], choices: int) -> Any:
    """The choices of a stream that succeeds, gathered; the code of its failure where it does not."""
    machine, _ = machines(choices)
    try:
        events = [event for each in chunks for event in machine.feed(each)] + machine.end()
    except ApiError as error:
        last = machine.fail(error, "req_1")[-1]
        late = [*machine.feed(text("late")), *machine.end(), *machine.fail(error, "req_1")]
        return error.code if (last, late) == (DONE, []) else "a stream that does not end once"
    assert events.pop() == DONE
    found: list[dict[str, Any]] = [
        {"text": "", "index": i, "logprobs": None, "finish_reason": None} for i in range(choices)
    ]
    for event in events:
        value = orjson.loads(event[6:])
        assert value["object"] == "text_completion"
        for choice in value["choices"]:
            into = found[choice["index"]]
            assert into["finish_reason"] is None
            into["text"] += choice["text"]
            into["finish_reason"] = choice["finish_reason"]
            if choice["logprobs"]:
                into["logprobs"] = into["logprobs"] or {name: [] for name in choice["logprobs"]}
                for name, values in choice["logprobs"].items():
                    into["logprobs"][name] += values
    return found


def whole(chunks: list[Any], choices: int) -> Any:
    _, machine = machines(choices)
    try:
        for each in chunks:
            machine.feed(each)
        return machine.end()["choices"]
    except ApiError as error:
        return error.code


def said(token: str, value: float, **fields: Any) -> Chunk:
    return chunk({"content": token}, logprobs={"content": [logprob(token, value, **fields)], "refusal": None})


def test_a_whole_answer() -> None:
    _, machine = machines()
    top = [{"token": "He", "logprob": -0.25}, {"token": "X", "logprob": -2.0}]
    for each in (said("He", -0.25, top_logprobs=top), said("llo", -0.5), chunk(finish="length"), usage()):
        machine.feed(each)
    assert machine.end() == {
        "id": "cmpl-1",
        "created": 1,
        "model": "m",
        "object": "text_completion",
        "choices": [
            {
                "text": "Hello",
                "index": 0,
                "logprobs": {
                    "tokens": ["He", "llo"],
                    "token_logprobs": [-0.25, -0.5],
                    "top_logprobs": [{"He": -0.25, "X": -2.0}, {}],
                    "text_offset": [0, 2],
                },
                "finish_reason": "length",
            }
        ],
        "usage": USAGE,
    }


def test_places_in_the_text_go_on_over_the_events_of_a_stream() -> None:
    chunks = [said("He", -1), text("?"), said("llo", -1), chunk(finish="stop"), usage()]
    (choice,) = streamed(chunks, 1)
    assert (choice["text"], choice["logprobs"]["text_offset"]) == ("He?llo", [0, 3])


@pytest.mark.parametrize(
    ("chunks", "code"),
    [
        ([chunk(fragment(0, "c", "f"))], "upstream_protocol_error"),
        ([chunk(finish="tool_calls")], "upstream_protocol_error"),
        ([text("a"), usage()], "upstream_stream_interrupted"),
        ([chunk(finish="stop")], "upstream_stream_interrupted"),
    ],
)
def test_what_is_no_answer_is_a_failure(chunks: list[Chunk], code: str) -> None:
    assert streamed(chunks, 1) == whole(chunks, 1) == code


@given(st.lists(any_chunks, max_size=8) | st.lists(good_chunks, max_size=8), st.integers(1, 2))
def test_any_chunks_have_the_same_outcome_streamed_and_whole(chunks: list[Any], choices: int) -> None:
    one, other = streamed(chunks, choices), whole(chunks, choices)
    if isinstance(other, list):
        for choice in (*one, *other):
            (choice["logprobs"] or {}).pop("text_offset", None)  # a token's own text may differ from what it added
    assert one == other


@given(inputs=st.lists(st.integers(0, 1) | good_chunks | any_chunks, max_size=12), ends=st.booleans())
def test_texts_past_the_chunks_make_the_same_answer(inputs: list[Any], *, ends: bool) -> None:
    (_, short), (_, usual) = machines(2), machines(2)
    finish = [chunk(finish="stop", index=0), chunk(finish="stop", index=1), usage()] if ends else []
    codes: list[Any] = [None, None]
    for each in [text("a", 0), text("b", 1), *inputs, *finish]:
        past = isinstance(each, int) and short.text(each, "x", {"y": 1})
        as_chunk = text("x", each) if isinstance(each, int) else each
        codes = [None if past else refusal(short, as_chunk), refusal(usual, as_chunk)]
        assert codes[0] == codes[1]
        if codes[0] is not None:
            return
    assert whole_of(short) == whole_of(usual)


def refusal(machine: CompletionFold, each: Any) -> str | None:
    try:
        machine.feed(each)
    except ApiError as error:
        return str(error.detail)
    return None


def whole_of(machine: CompletionFold) -> Any:
    try:
        return machine.end()
    except ApiError as error:
        return error.detail


def test_a_text_past_the_chunks_needs_a_choice_that_goes_on() -> None:
    _, machine = machines()
    assert not machine.text(0, "a", None)
    machine.feed(text("b"))
    assert machine.text(0, "c", None)
    machine.feed(chunk(finish="stop"))
    assert not machine.text(0, "d", None)
    machine.feed(usage())
    assert machine.end()["choices"][0]["text"] == "bc"
