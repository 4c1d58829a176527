"""What a Response object says of its request."""

from __future__ import annotations

from typing import Any

import pytest

from coterie.dialects.responses_echo import conversation_id, echo
from coterie.dialects.responses_models import ResponsesRequest
from coterie.dialects.validation import validate

DEFAULTS: dict[str, Any] = {
    "model": "m",
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
}

OF_THE_ANSWER = {
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "error",
    "incomplete_details",
    "output",
    "usage",
}
REQUIRED = {
    "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id",
    "instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p",
    "presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage", "max_output_tokens",
    "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier", "prompt_cache_key",
}  # fmt: skip
"""What either specification requires of a Response object."""


def told(**fields: Any) -> dict[str, Any]:
    return echo(validate(ResponsesRequest, {"model": "m", "input": "a", **fields}))


def test_the_defaults() -> None:
    assert told() == DEFAULTS


def test_null_is_the_default() -> None:
    assert told(**dict.fromkeys(ResponsesRequest.model_fields.keys() - {"model", "input"})) == DEFAULTS


def test_all_required_fields_are_there() -> None:
    assert told().keys() == REQUIRED - OF_THE_ANSWER


SCHEMA = {"type": "object", "properties": {}}
FUNCTION = {"type": "function", "name": "f"}

SAME: list[dict[str, Any]] = [
    {"temperature": 0.5, "top_p": 0.9, "presence_penalty": 1.0, "frequency_penalty": -1.0},
    {"background": True, "store": True, "truncation": "auto", "parallel_tool_calls": False},
    {"max_output_tokens": 16, "max_tool_calls": 2, "top_logprobs": 3, "instructions": ""},
    {"previous_response_id": "resp_1", "safety_identifier": "s", "prompt_cache_key": "k"},
    {"user": "u", "prompt_cache_retention": "24h", "metadata": {"a": "b"}},
    {"tools": [{**FUNCTION, "description": "d", "parameters": SCHEMA, "strict": False}]},
    {
        "text": {
            "format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "description": "d", "strict": True},
            "verbosity": "high",
        }
    },
]

ECHOED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"store": False}, {"store": False}),
    ({"temperature": 0, "top_p": 0}, {"temperature": 0.0, "top_p": 0.0}),
    ({"conversation": "conv_1"}, {"conversation": {"id": "conv_1"}}),
    ({"conversation": {"id": "conv_1"}}, {"conversation": {"id": "conv_1"}}),
    ({"reasoning": {"effort": "low"}}, {"reasoning": {"effort": "low", "summary": None}}),
    (
        {"reasoning": {"generate_summary": "auto", "mode": "standard", "context": "all_turns"}},
        {"reasoning": {"effort": None, "summary": "auto", "mode": "standard", "context": "all_turns"}},
    ),
    ({"text": {"verbosity": "low"}}, {"text": {"format": {"type": "text"}, "verbosity": "low"}}),
    ({"text": {"format": {"type": "json_object"}}}, {"text": {"format": {"type": "json_object"}}}),
    (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}},
        {
            "text": {
                "format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "description": None, "strict": False}
            }
        },
    ),
    ({"tools": [FUNCTION]}, {"tools": [{**FUNCTION, "description": None, "parameters": None, "strict": None}]}),
    ({"tool_choice": "none"}, {"tool_choice": "none"}),
    ({"tool_choice": FUNCTION}, {"tool_choice": FUNCTION}),
    (
        {"tool_choice": {"type": "allowed_tools", "tools": [FUNCTION]}},
        {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [FUNCTION]}},
    ),
]


@pytest.mark.parametrize("fields", SAME, ids=lambda value: str(value)[:40])
def test_what_is_told_as_it_is(fields: dict[str, Any]) -> None:
    assert told(**fields) == {**DEFAULTS, **fields}


@pytest.mark.parametrize(("fields", "echoed"), ECHOED, ids=lambda value: str(value)[:40])
def test_what_is_told_in_full(fields: dict[str, Any], echoed: dict[str, Any]) -> None:
    assert told(**fields) == {**DEFAULTS, **echoed}


@pytest.mark.parametrize("named", [None, "conv_1", {"id": "conv_1"}])
def test_a_conversation_by_either_name(named: Any) -> None:
    request = validate(ResponsesRequest, {"model": "m", "input": "a", "conversation": named})
    assert conversation_id(request) == (named and "conv_1")


def test_one_echo_is_not_another() -> None:
    request = validate(ResponsesRequest, {"model": "m", "input": "a", "metadata": {"a": "b"}})
    first = echo(request)
    first["metadata"]["a"] = first["reasoning"]["effort"] = first["text"]["format"]["type"] = "changed"
    assert echo(request) == {**DEFAULTS, "metadata": {"a": "b"}}
