"""The Responses request's fields: for each a body that it refuses, with code and path."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from coterie.dialects import responses_item_models, responses_models
from coterie.dialects.responses_models import (
    RESPONSES_UNSUPPORTED,
    RESPONSES_WITHOUT_EFFECT,
    TOOLS_ELSEWHERE,
    ResponsesRequest,
)
from coterie.dialects.validation import Strict, validate
from coterie.errors import ApiError

LONG = "x" * 100_000

OPENAI = {
    "metadata", "top_logprobs", "temperature", "top_p", "user", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "prompt_cache_options", "previous_response_id", "model", "background", "max_tool_calls",
    "text", "tools", "tool_choice", "prompt", "service_tier", "truncation", "reasoning", "input", "include",
    "parallel_tool_calls", "store", "instructions", "moderation", "stream", "stream_options", "conversation",
    "context_management", "max_output_tokens",
}  # fmt: skip
"""The properties of OpenAI's ``CreateResponse``."""

OPEN_RESPONSES = {
    "model", "input", "previous_response_id", "include", "tools", "tool_choice", "metadata", "text", "temperature",
    "top_p", "presence_penalty", "frequency_penalty", "parallel_tool_calls", "stream", "stream_options", "background",
    "max_output_tokens", "max_tool_calls", "reasoning", "safety_identifier", "prompt_cache_key", "truncation",
    "instructions", "store", "service_tier", "top_logprobs",
}  # fmt: skip
"""The properties of ``CreateResponseBody``."""

NEWER_SDKS = {"access_programs", "image"}
OF_CLIENTS = {"client_metadata"}

TYPE, VALUE, MISSING, UNKNOWN = "invalid_type", "invalid_value", "missing_required_parameter", "unknown_parameter"
UNSUPPORTED = "unsupported_value"
LONG_TEXT, SHORT_TEXT = "string_above_max_length", "string_below_min_length"
LONG_ARRAY, EMPTY, MANY = "array_above_max_length", "empty_array", "object_above_max_properties"
INT_HIGH, INT_LOW = "integer_above_max_value", "integer_below_min_value"
HIGH, LOW = "decimal_above_max_value", "decimal_below_min_value"

Bad = tuple[Any, str, str]


def tool(**fields: Any) -> list[Any]:
    return [{"type": "function", "name": "f", **fields}]


def schema(**fields: Any) -> dict[str, Any]:
    return {"format": {"type": "json_schema", "name": "f", "schema": {}, **fields}}


def allowed(**fields: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": "auto", "tools": tool(), **fields}


FIELDS: dict[str, list[Bad]] = {
    "model": [(5, TYPE, ""), (None, TYPE, ""), (LONG, LONG_TEXT, "")],
    "input": [(5, TYPE, ""), ({}, TYPE, ""), ("x" * 10_485_761, LONG_TEXT, ""), (["a"], TYPE, "[0]")],
    "instructions": [(["a"], TYPE, ""), ("x" * 10_485_761, LONG_TEXT, "")],
    "previous_response_id": [(5, TYPE, ""), ("", SHORT_TEXT, ""), (LONG, LONG_TEXT, "")],
    "conversation": [
        (5, TYPE, ""), ({}, MISSING, ".id"), ({"id": 5}, TYPE, ".id"), ({"id": "a", "x": 1}, UNKNOWN, ".x"),
        ("", SHORT_TEXT, ""),
    ],
    "include": [
        ("a", TYPE, ""), (["a"], VALUE, "[0]"), ([5], TYPE, "[0]"),
        (["web_search_call.results"] * 65, LONG_ARRAY, ""),
    ],
    "tools": [
        ({}, TYPE, ""), ([{}], MISSING, "[0].type"), ([{"type": "x"}], VALUE, "[0].type"), ([5], TYPE, "[0]"),
        ([{"type": "function"}], MISSING, "[0].name"), (tool(name="a b"), VALUE, "[0].name"),
        (tool(name=""), SHORT_TEXT, "[0].name"), (tool(name=LONG), LONG_TEXT, "[0].name"),
        (tool(parameters=[]), TYPE, "[0].parameters"), (tool(strict=1), TYPE, "[0].strict"),
        (tool(description=LONG), LONG_TEXT, "[0].description"), (tool(function={}), UNKNOWN, "[0].function"),
        (tool(output_schema={}), TYPE, "[0].output_schema"),
        (tool(defer_loading=True), UNSUPPORTED, "[0].defer_loading"),
        (tool(defer_loading=0), TYPE, "[0].defer_loading"),
        (tool(**{"async": True}), UNSUPPORTED, "[0].async"), (tool(async_=None), UNKNOWN, "[0].async_"),
        (tool(allowed_callers=["programmatic"]), VALUE, "[0].allowed_callers[0]"),
        (tool() * 129, LONG_ARRAY, ""),
    ],
    "tool_choice": [
        ("any", VALUE, ""), (5, TYPE, ""), ({}, MISSING, ".type"), ({"type": "x"}, VALUE, ".type"),
        ({"type": "function"}, MISSING, ".name"), ({"type": "function", "function": {}}, MISSING, ".name"),
        (allowed(mode="x"), VALUE, ".mode"), (allowed(tools=[]), EMPTY, ".tools"),
        (allowed(tools=None), TYPE, ".tools"),
        (allowed(tools=[{"type": "function"}]), MISSING, ".tools[0].name"), (allowed(x=1), UNKNOWN, ".x"),
    ],
    "parallel_tool_calls": [("yes", TYPE, ""), (1, TYPE, "")],
    "max_tool_calls": [(0, INT_LOW, ""), ("1", TYPE, ""), (1.5, TYPE, "")],
    "text": [
        ("text", TYPE, ""), ({"x": 1}, UNKNOWN, ".x"), ({"format": "json"}, TYPE, ".format"),
        ({"format": {"type": "xml"}}, VALUE, ".format.type"), ({"format": {}}, MISSING, ".format.type"),
        ({"format": {"type": "json_schema", "json_schema": {}}}, MISSING, ".format.name"),
        (schema(name="a b"), VALUE, ".format.name"), (schema(schema=None), TYPE, ".format.schema"),
        (schema(strict="yes"), TYPE, ".format.strict"), (schema(description=5), TYPE, ".format.description"),
        ({"verbosity": "loud"}, VALUE, ".verbosity"),
    ],
    "reasoning": [
        ("high", TYPE, ""), ({"effort": "some"}, VALUE, ".effort"), ({"summary": "long"}, VALUE, ".summary"),
        ({"x": 1}, UNKNOWN, ".x"), ({"context": "none"}, VALUE, ".context"), ({"mode": "x"}, VALUE, ".mode"),
    ],
    "temperature": [(2.5, HIGH, ""), (-0.1, LOW, ""), ("1", TYPE, ""), (True, TYPE, "")],
    "top_p": [(1.5, HIGH, ""), (-1, LOW, ""), ("1", TYPE, "")],
    "presence_penalty": [(2.5, HIGH, ""), (-3, LOW, ""), ("1", TYPE, "")],
    "frequency_penalty": [(2.5, HIGH, ""), (-3, LOW, ""), ("1", TYPE, "")],
    "top_logprobs": [(21, INT_HIGH, ""), (-1, INT_LOW, ""), (True, TYPE, "")],
    "max_output_tokens": [(15, INT_LOW, ""), ("16", TYPE, ""), (1e30, INT_HIGH, "")],
    "truncation": [("middle", VALUE, ""), (True, TYPE, "")],
    "stream": [("true", TYPE, ""), (1, TYPE, "")],
    "stream_options": [
        (5, TYPE, ""), ({"include_usage": True}, UNKNOWN, ".include_usage"),
        ({"include_obfuscation": 1}, TYPE, ".include_obfuscation"),
    ],
    "background": [("no", TYPE, "")],
    "store": [("no", TYPE, "")],
    "metadata": [
        ([], TYPE, ""), ({"a": 1}, TYPE, ".a"), ({"a": "x" * 513}, LONG_TEXT, ".a"),
        ({str(number): "" for number in range(17)}, MANY, ""),
    ],
    "client_metadata": [
        ("a", TYPE, ""), ({"a": 1}, TYPE, ".a"), ({"a": "x" * 65_537}, LONG_TEXT, ".a"),
        ({str(number): "" for number in range(65)}, MANY, ""),
    ],
    "user": [(5, TYPE, ""), (LONG, LONG_TEXT, "")],
    "safety_identifier": [(5, TYPE, ""), ("x" * 65, LONG_TEXT, "")],
    "prompt_cache_key": [(5, TYPE, ""), ("x" * 65, LONG_TEXT, "")],
    "prompt_cache_retention": [("1h", VALUE, "")],
    "prompt_cache_options": [("x", TYPE, ""), ({str(number): "" for number in range(17)}, MANY, "")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "code", "below"),
    [(name, *bad) for name, bads in FIELDS.items() for bad in bads],
    ids=lambda value: str(value)[:30],
)
def test_what_a_field_refuses(name: str, value: Any, code: str, below: str) -> None:
    with pytest.raises(ApiError) as raised:
        validate(ResponsesRequest, {"model": "m", "input": "a", name: value})
    assert (raised.value.code, raised.value.param) == (code, name + below)


def test_every_field_has_a_body_that_it_refuses() -> None:
    assert FIELDS.keys() == ResponsesRequest.model_fields.keys()


def test_every_parameter_of_both_specifications_is_known_and_no_other() -> None:
    known = ResponsesRequest.model_fields.keys() | RESPONSES_UNSUPPORTED.keys()
    assert known == OPENAI | OPEN_RESPONSES | NEWER_SDKS | OF_CLIENTS
    assert not ResponsesRequest.model_fields.keys() & RESPONSES_UNSUPPORTED.keys()


def test_what_has_no_effect_is_a_parameter_and_has_a_reason() -> None:
    for path, reason in RESPONSES_WITHOUT_EFFECT.items():
        assert path.split("[")[0].split(".")[0] in ResponsesRequest.model_fields.keys() | RESPONSES_UNSUPPORTED.keys()
        assert len(reason.split()) > 3


def test_tools_that_exist_are_not_elsewhere() -> None:
    assert not TOOLS_ELSEWHERE & {"function", "allowed_tools"}


def models() -> list[type[BaseModel]]:
    values = [*vars(responses_models).values(), *vars(responses_item_models).values()]
    found = {value for value in values if isinstance(value, type) and issubclass(value, Strict)}
    assert len(found) > 20
    return [model for model in found if model is not Strict]


def test_every_model_is_strict_and_closed() -> None:
    for model in models():
        assert model.model_config["strict"] is True
        assert model.model_config["extra"] == "forbid"


@pytest.mark.parametrize("name", sorted(ResponsesRequest.model_fields.keys() - {"model"}))
def test_null_is_not_given(name: str) -> None:
    assert getattr(validate(ResponsesRequest, {"model": "m", name: None}), name) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0), ("temperature", 2), ("top_p", 1), ("max_output_tokens", 16), ("top_logprobs", 20),
        ("tools", []), ("tools", tool(description="d", parameters={"type": "object"}, strict=False)),
        ("tools", tool(output_schema=None, defer_loading=False, allowed_callers=["direct"])),
        ("tools", tool(**{"async": False})), ("tools", tool(**{"async": None})),
        ("client_metadata", {"k" * 256: "v" * 65_536}), ("client_metadata", {str(number): "" for number in range(64)}),
        ("tool_choice", "required"), ("tool_choice", tool()[0]), ("tool_choice", allowed()),
        ("tool_choice", {"type": "allowed_tools", "tools": tool()}), ("text", {}), ("text", schema()),
        ("text", {"format": None, "verbosity": None}), ("reasoning", {"effort": "minimal", "summary": "auto"}),
        ("conversation", "conv_1"), ("conversation", {"id": "conv_1"}), ("metadata", {"k" * 64: "v" * 512}),
        ("include", ["reasoning.encrypted_content", "message.output_text.logprobs", "file_search_call.results"]),
        ("stream_options", {"include_obfuscation": True}), ("input", []), ("instructions", ""),
    ],
)  # fmt: skip
def test_what_a_field_takes(name: str, value: Any) -> None:
    validate(ResponsesRequest, {"model": "m", "input": "a", name: value})


def test_a_body_of_many_fields_is_refused_by_one_of_them() -> None:
    with pytest.raises(ApiError) as raised:
        validate(ResponsesRequest, {"model": "m"} | {f"field_{number}": 1 for number in range(1000)})
    assert (raised.value.code, raised.value.param) == ("unknown_parameter", "field_0")
