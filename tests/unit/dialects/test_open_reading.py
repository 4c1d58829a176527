"""Requests for models that other servers serve: what is known is checked, everything passes."""

from __future__ import annotations

from typing import Any

import pytest

from coterie.dialects.chat import DialectLimits, ParsedRequest, parse_chat, parse_chat_openly
from coterie.dialects.completions import parse_completion_openly
from coterie.dialects.embeddings import parse_embeddings_openly
from coterie.errors import ApiError

LIMITS = DialectLimits(messages=4, choices=4)
USER = {"role": "user", "content": "Hi"}


def parse(**fields: Any) -> ParsedRequest:
    return parse_chat_openly({"model": "m", "messages": [USER], **fields}, LIMITS)


PASSED: dict[str, Any] = {
    "a sampler": {"repetition_penalty": 1.1},
    "an engine's own object": {"chat_template_kwargs": {"enable_thinking": False}},
    "a parameter that the engine here cannot honour": {"reasoning_effort": "high"},
    "one without effect here": {"user": "u-1", "metadata": {"a": "b"}},
    "null": {"top_p": None},
    "another kind of tool": {"tools": [{"type": "web_search", "engine": "x"}]},
    "a field inside of a message": {"messages": [{**USER, "cache_control": {"type": "ephemeral"}}]},
    "another kind of content": {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {}}]}]},
    "another role": {"messages": [{"role": "critic", "content": "x"}]},
    "a schema that no engine here could enforce": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}}
    },
    "another bound": {"top_k": -1, "stop": ["a"] * 8},
    "many fields": {f"field_{number}": number for number in range(100)},
}


@pytest.mark.parametrize("fields", PASSED.values(), ids=PASSED.keys())
def test_it_passes_as_it_came(fields: dict[str, Any]) -> None:
    assert parse(**fields).generation.body == {"messages": [USER], **fields}


def test_the_edge_keeps_what_is_its_own() -> None:
    parsed = parse(stream=True, stream_options={"include_usage": True, "more": 1}, n=2)
    assert parsed.generation.body == {"messages": [USER], "stream_options": {"more": 1}}
    assert (parsed.stream, parsed.include_usage, parsed.choices, parsed.generation.n) == (True, True, 2, 2)


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no model": ({"model": ""}, "missing_required_parameter", "model"),
    "no messages": ({"messages": []}, "empty_array", "messages"),
    "too many messages": ({"messages": [USER] * 5}, "array_above_max_length", "messages"),
    "a message that is none": ({"messages": ["x"]}, "invalid_type", "messages[0]"),
    "a message without a role": ({"messages": [{"content": "x"}]}, "missing_required_parameter", "messages[0].role"),
    "a wrong type": ({"temperature": "hot"}, "invalid_type", "temperature"),
    "out of bounds": ({"temperature": 3}, "decimal_above_max_value", "temperature"),
    "beside something unknown": ({"x": 1, "max_tokens": 0}, "integer_below_min_value", "max_tokens"),
    "too many choices": ({"n": 5}, "integer_above_max_value", "n"),
    "options without a stream": ({"stream_options": {}}, "invalid_value", "stream_options"),
    "a wrong stream": ({"stream": "yes"}, "invalid_type", "stream"),
}


@pytest.mark.parametrize(("fields", "code", "param"), BAD.values(), ids=BAD.keys())
def test_what_is_known_is_checked(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ApiError) as raised:
        parse(**fields)
    assert (raised.value.code, raised.value.param) == (code, param)


def test_the_caller_s_body_is_not_changed() -> None:
    body = {"model": "m", "messages": [USER], "stream": True, "x": 1}
    copy = dict(body)
    parse_chat_openly(body, LIMITS)
    assert body == copy


def test_the_same_request_read_closely_is_refused() -> None:
    with pytest.raises(ApiError) as raised:
        parse_chat({"model": "m", "messages": [USER], "repetition_penalty": 1.1}, LIMITS)
    assert raised.value.code == "unknown_parameter"


def test_text_completions() -> None:
    body = {"model": "m", "prompt": ["a", "b"], "suffix": "z", "best_of": 3, "n": 2}
    parsed = parse_completion_openly(body, LIMITS)
    assert parsed.generation.body == {"suffix": "z", "best_of": 3}
    assert (parsed.generation.prompts, parsed.choices, parsed.generation.prompt_param) == (("a", "b"), 4, "prompt")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"prompt": ""}, "string_below_min_length", "prompt"),
        ({"prompt": ["a"] * 5}, "array_above_max_length", "prompt"),
        ({}, "missing_required_parameter", "prompt"),
        ({"prompt": "a", "logprobs": 9}, "integer_above_max_value", "logprobs"),
    ],
)
def test_text_completions_that_are_wrong(body: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ApiError) as raised:
        parse_completion_openly({"model": "m", **body}, LIMITS)
    assert (raised.value.code, raised.value.param) == (code, param)


def test_embeddings_carry_what_others_refuse() -> None:
    embedding = parse_embeddings_openly({"model": "m", "input": "a", "dimensions": 64}).embedding
    assert embedding.extra == {"dimensions": 64}
    assert embedding.refusal is not None
    assert (embedding.refusal.code, embedding.refusal.param) == ("unsupported_parameter", "dimensions")
    assert parse_embeddings_openly({"model": "m", "input": "a"}).embedding.refusal is None
