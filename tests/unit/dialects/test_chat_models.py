"""The chat request's fields: for each of every model a body that it refuses, with code and path."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from coterie.dialects import chat_models
from coterie.dialects.chat_models import ChatRequest
from coterie.dialects.support import CHAT_UNSUPPORTED, WITHOUT_EFFECT
from coterie.dialects.validation import Strict, validate
from coterie.errors import ApiError

LONG = "x" * 100_000
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}

SPECIFIED = {
    "messages", "model", "service_tier", "modalities", "verbosity", "reasoning_effort", "max_completion_tokens",
    "frequency_penalty", "presence_penalty", "web_search_options", "top_logprobs", "response_format", "audio", "store",
    "moderation", "stream", "stop", "logit_bias", "logprobs", "max_tokens", "n", "prediction", "seed", "stream_options",
    "tools", "tool_choice", "parallel_tool_calls", "function_call", "functions", "prompt_cache_options", "metadata",
    "temperature", "top_p", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
}  # fmt: skip
"""The properties of ``CreateChatCompletionRequest``."""

TYPE, VALUE, MISSING, UNKNOWN = "invalid_type", "invalid_value", "missing_required_parameter", "unknown_parameter"
LONG_TEXT, SHORT_TEXT = "string_above_max_length", "string_below_min_length"
LONG_ARRAY, EMPTY, MANY = "array_above_max_length", "empty_array", "object_above_max_properties"
INT_HIGH, INT_LOW = "integer_above_max_value", "integer_below_min_value"
HIGH, LOW = "decimal_above_max_value", "decimal_below_min_value"

Bad = tuple[Any, str, str]


def message(**fields: Any) -> list[Any]:
    return [{"role": "user", "content": "a", **fields}]


def part(**fields: Any) -> list[Any]:
    return message(content=[fields])


def assistant(**fields: Any) -> list[Any]:
    return message(role="assistant", **fields)


def call(**fields: Any) -> list[Any]:
    return assistant(tool_calls=[{**CALL, **fields}])


def function(**fields: Any) -> list[Any]:
    return [{"type": "function", "function": {"name": "f", **fields}}]


def schema(**fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "f", **fields}}


FIELDS: dict[str, list[Bad]] = {
    "model": [(5, TYPE, ""), (None, TYPE, ""), (LONG, LONG_TEXT, "")],
    "stream": [("true", TYPE, ""), (1, TYPE, "")],
    "stream_options": [
        (5, TYPE, ""), ({"x": 1}, UNKNOWN, ".x"), ({"include_usage": 1}, TYPE, ".include_usage"),
        ({"include_obfuscation": "no"}, TYPE, ".include_obfuscation"),
    ],
    "temperature": [(2.5, HIGH, ""), (3, HIGH, ""), (-0.1, LOW, ""), ("1", TYPE, ""), (True, TYPE, ""), ([], TYPE, "")],
    "top_p": [(1.5, HIGH, ""), (-1, LOW, ""), ("1", TYPE, "")],
    "top_k": [(-1, INT_LOW, ""), (1_000_001, INT_HIGH, ""), (1.5, TYPE, ""), (True, TYPE, "")],
    "min_p": [(1.5, HIGH, ""), (-1, LOW, ""), ({}, TYPE, "")],
    "seed": [(2**63, INT_HIGH, ""), (-(2**63) - 1, INT_LOW, ""), (0.5, TYPE, ""), ("1", TYPE, "")],
    "stop": [
        (5, TYPE, ""), ({}, TYPE, ""), (["a"] * 5, LONG_ARRAY, ""), (["a"] * 1000, LONG_ARRAY, ""),
        ([5], TYPE, "[0]"), (["a", None], TYPE, "[1]"), (["a", ""], SHORT_TEXT, "[1]"), ("", SHORT_TEXT, ""),
        (LONG, LONG_TEXT, ""), (["a", LONG], LONG_TEXT, "[1]"),
    ],
    "max_tokens": [
        (0, INT_LOW, ""), (-1, INT_LOW, ""), (1.5, TYPE, ""), ("5", TYPE, ""),
        (1e30, INT_HIGH, ""), (-1e30, INT_LOW, ""),
    ],
    "max_completion_tokens": [(0, INT_LOW, ""), (-(10**9), INT_LOW, ""), (1.5, TYPE, ""), (False, TYPE, "")],
    "n": [(0, INT_LOW, ""), (-1, INT_LOW, ""), (129, INT_HIGH, ""), (10**9, INT_HIGH, ""), (1.5, TYPE, "")],
    "frequency_penalty": [(2.1, HIGH, ""), (-2.1, LOW, ""), ("1", TYPE, "")],
    "presence_penalty": [(2.1, HIGH, ""), (-2.1, LOW, ""), ("1", TYPE, "")],
    "logit_bias": [
        ([], TYPE, ""), ({"a": 1}, VALUE, ".a"), ({"-1": 1}, VALUE, ".-1"), ({"": 1}, VALUE, "['']"),
        ({"1": "x"}, TYPE, ".1"), ({"1": 101}, HIGH, ".1"), ({"1": -100.5}, LOW, ".1"),
        ({str(i): 1 for i in range(1025)}, MANY, ""),
    ],
    "user": [(5, TYPE, ""), (LONG, LONG_TEXT, "")],
    "logprobs": [(1, TYPE, ""), ("true", TYPE, "")],
    "top_logprobs": [(21, INT_HIGH, ""), (-1, INT_LOW, ""), (True, TYPE, "")],
    "parallel_tool_calls": [("true", TYPE, ""), (0, TYPE, "")],
    "metadata": [
        ([], TYPE, ""), ({"a": 1}, TYPE, ".a"), ({"k" * 65: "v"}, LONG_TEXT, "." + "k" * 65),
        ({"a": "v" * 513}, LONG_TEXT, ".a"), ({str(i): "v" for i in range(17)}, MANY, ""),
    ],
    "safety_identifier": [(5, TYPE, ""), ("x" * 65, LONG_TEXT, "")],
    "prompt_cache_key": [(5, TYPE, ""), (LONG, LONG_TEXT, "")],
    "prompt_cache_retention": [("48h", VALUE, ""), (24, TYPE, "")],
    "prompt_cache_options": [("x", TYPE, ""), ([], TYPE, "")],
    "response_format": [
        ("json", TYPE, ""), ({}, MISSING, ".type"), ({"type": 5}, TYPE, ".type"), ({"type": "xml"}, VALUE, ".type"),
        ({"type": "text", "x": 1}, UNKNOWN, ".x"), ({"type": "json_object", "schema": {}}, UNKNOWN, ".schema"),
        ({"type": "json_schema"}, MISSING, ".json_schema"),
        ({"type": "json_schema", "json_schema": "x"}, TYPE, ".json_schema"),
        ({"type": "json_schema", "json_schema": {}}, MISSING, ".json_schema.name"),
        (schema(name="a b"), VALUE, ".json_schema.name"), (schema(name=5), TYPE, ".json_schema.name"),
        (schema(description=LONG), LONG_TEXT, ".json_schema.description"),
        (schema(schema=[]), TYPE, ".json_schema.schema"), (schema(schema="x"), TYPE, ".json_schema.schema"),
        (schema(strict="yes"), TYPE, ".json_schema.strict"), (schema(schema_={}), UNKNOWN, ".json_schema.schema_"),
    ],
    "tools": [
        ({}, TYPE, ""), ([5], TYPE, "[0]"), ([{}], MISSING, "[0].type"), ([{"type": "x"}], VALUE, "[0].type"),
        ([{"type": None}], TYPE, "[0].type"), (function() * 129, LONG_ARRAY, ""),
        ([{"type": "function"}], MISSING, "[0].function"),
        ([{"type": "function", "function": []}], TYPE, "[0].function"),
        ([{"type": "function", "function": {}}], MISSING, "[0].function.name"),
        ([*function(), *function(name=5)], TYPE, "[1].function.name"),
        (function(name=""), SHORT_TEXT, "[0].function.name"), (function(name="a" * 65), LONG_TEXT, "[0].function.name"),
        (function(name="a.b"), VALUE, "[0].function.name"), (function(name="a\n"), VALUE, "[0].function.name"),
        (function(description=5), TYPE, "[0].function.description"),
        (function(description=LONG), LONG_TEXT, "[0].function.description"),
        (function(parameters=[]), TYPE, "[0].function.parameters"), (function(strict=1), TYPE, "[0].function.strict"),
        (function(x=1), UNKNOWN, "[0].function.x"), ([{**function()[0], "x": 1}], UNKNOWN, "[0].x"),
        ([{"type": "custom", "x": 1}], UNKNOWN, "[0].x"),
    ],
    "tool_choice": [
        (5, TYPE, ""), ([], TYPE, ""), ("any", VALUE, ""), ({}, MISSING, ".type"), ({"type": "x"}, VALUE, ".type"),
        ({"type": "function"}, MISSING, ".function"), ({"type": "function", "function": "f"}, TYPE, ".function"),
        ({"type": "function", "function": {}}, MISSING, ".function.name"),
        ({"type": "function", "function": {"name": ""}}, SHORT_TEXT, ".function.name"),
        ({"type": "allowed_tools"}, MISSING, ".allowed_tools"),
        ({"type": "allowed_tools", "allowed_tools": {"tools": function()}}, MISSING, ".allowed_tools.mode"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "none"}}, VALUE, ".allowed_tools.mode"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}, MISSING, ".allowed_tools.tools"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, EMPTY, ".allowed_tools.tools"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "x"}]}}, VALUE,
         ".allowed_tools.tools[0].type"),
    ],
    "messages": [
        (None, TYPE, ""), ("x", TYPE, ""), ({}, TYPE, ""), ([], EMPTY, ""), (["x"], TYPE, "[0]"), ([None], TYPE, "[0]"),
        ([{}], MISSING, "[0].role"), ([{"role": "robot"}], VALUE, "[0].role"), ([{"role": 1}], TYPE, "[0].role"),
        ([{"role": "function", "name": "f", "content": "a"}], VALUE, "[0].role"),
        ([{"role": "user"}], MISSING, "[0].content"), ([*message(), {"role": "user"}], MISSING, "[1].content"),
        (message(content=None), TYPE, "[0].content"), (message(content=5), TYPE, "[0].content"),
        (message(content=[]), EMPTY, "[0].content"), (message(content=["a"]), TYPE, "[0].content[0]"),
        (message(content=[{"type": "text", "text": "a"}] * 2049), LONG_ARRAY, "[0].content"),
        (message(x=1), UNKNOWN, "[0].x"), (message(name=""), SHORT_TEXT, "[0].name"),
        (message(name="a b"), VALUE, "[0].name"), (message(name="a" * 65), LONG_TEXT, "[0].name"),
        (message(name=5), TYPE, "[0].name"),
        (part(), MISSING, "[0].content[0].type"), (part(type="video"), VALUE, "[0].content[0].type"),
        (part(type=5), TYPE, "[0].content[0].type"), (part(type="text"), MISSING, "[0].content[0].text"),
        (part(type="text", text=5), TYPE, "[0].content[0].text"),
        (part(type="text", text="a", x=1), UNKNOWN, "[0].content[0].x"),
        (part(type="refusal", refusal="a"), VALUE, "[0].content[0].type"),
        (part(type="image_url"), MISSING, "[0].content[0].image_url"),
        (part(type="image_url", image_url="https://x"), TYPE, "[0].content[0].image_url"),
        (part(type="image_url", image_url={}), MISSING, "[0].content[0].image_url.url"),
        (part(type="image_url", image_url={"url": 5}), TYPE, "[0].content[0].image_url.url"),
        (part(type="image_url", image_url={"url": "x", "detail": "x"}), VALUE, "[0].content[0].image_url.detail"),
        (part(type="file", x=1), UNKNOWN, "[0].content[0].x"),
        (message(role="system", content=[{"type": "image_url"}]), VALUE, "[0].content[0].type"),
        (message(role="developer", content=None), TYPE, "[0].content"),
        (message(role="system", tool_calls=[]), UNKNOWN, "[0].tool_calls"),
        (message(role="tool"), MISSING, "[0].tool_call_id"),
        (message(role="tool", tool_call_id=5), TYPE, "[0].tool_call_id"),
        (message(role="tool", tool_call_id=""), SHORT_TEXT, "[0].tool_call_id"),
        (message(role="tool", tool_call_id="a", content=None), TYPE, "[0].content"),
        (assistant(content=5), TYPE, "[0].content"), (assistant(content=[]), EMPTY, "[0].content"),
        (assistant(content=[{"type": "image_url"}]), VALUE, "[0].content[0].type"),
        (assistant(content=[{"type": "refusal"}]), MISSING, "[0].content[0].refusal"),
        (assistant(refusal=5), TYPE, "[0].refusal"), (assistant(reasoning_content=5), TYPE, "[0].reasoning_content"),
        (assistant(name="a|b"), VALUE, "[0].name"), (assistant(function_call={}), TYPE, "[0].function_call"),
        (assistant(audio={"id": "a"}), TYPE, "[0].audio"), (assistant(annotations=5), TYPE, "[0].annotations"),
        (assistant(tool_calls=[]), EMPTY, "[0].tool_calls"), (assistant(tool_calls={}), TYPE, "[0].tool_calls"),
        (assistant(tool_calls=[CALL] * 129), LONG_ARRAY, "[0].tool_calls"),
        (assistant(tool_calls=[5]), TYPE, "[0].tool_calls[0]"),
        (assistant(tool_calls=[{}]), MISSING, "[0].tool_calls[0].id"),
        (call(id=""), SHORT_TEXT, "[0].tool_calls[0].id"), (call(id="x" * 129), LONG_TEXT, "[0].tool_calls[0].id"),
        (call(type="custom"), VALUE, "[0].tool_calls[0].type"), (call(x=1), UNKNOWN, "[0].tool_calls[0].x"),
        (call(function={}), MISSING, "[0].tool_calls[0].function.name"),
        (call(function={"name": "a b"}), VALUE, "[0].tool_calls[0].function.name"),
        (call(function={"name": "a", "arguments": {}}), TYPE, "[0].tool_calls[0].function.arguments"),
    ],
}  # fmt: skip

ALL = [(name, *bad) for name, bads in FIELDS.items() for bad in bads]


@pytest.mark.parametrize(
    ("name", "value", "code", "below"), ALL, ids=[f"{n}-{c}-{i}" for i, (n, _, c, _) in enumerate(ALL)]
)
def test_what_a_field_refuses(name: str, value: Any, code: str, below: str) -> None:
    with pytest.raises(ApiError) as caught:
        validate(ChatRequest, {"model": "m", "messages": message(), name: value})
    assert (caught.value.code, caught.value.param) == (code, name + below)


def test_every_field_has_a_body_that_it_refuses() -> None:
    assert FIELDS.keys() == ChatRequest.model_fields.keys()


def models() -> list[type[BaseModel]]:
    found = [value for value in vars(chat_models).values() if isinstance(value, type) and issubclass(value, Strict)]
    assert len(found) > 20
    return [model for model in found if model is not Strict]


def test_every_model_is_strict_and_closed() -> None:
    for model in models():
        assert model.model_config["strict"] is True
        assert model.model_config["extra"] == "forbid"


def test_every_parameter_of_the_specification_is_known_and_no_other_but_two_samplers() -> None:
    known = ChatRequest.model_fields.keys() | CHAT_UNSUPPORTED.keys()
    assert known == SPECIFIED | {"top_k", "min_p"}
    assert not ChatRequest.model_fields.keys() & CHAT_UNSUPPORTED.keys()
    assert ChatRequest.model_fields.keys() >= WITHOUT_EFFECT.keys()


@pytest.mark.parametrize("name", sorted(ChatRequest.model_fields.keys() - {"model", "messages"}))
def test_null_is_not_given(name: str) -> None:
    assert getattr(validate(ChatRequest, {"model": "m", "messages": message(), name: None}), name) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0), ("temperature", 2), ("temperature", 0.7), ("top_p", 1), ("seed", -(2**63)),
        ("seed", 2**63 - 1), ("max_tokens", 2**63 - 1), ("n", 128), ("stop", []), ("stop", "x"), ("stop", ["a"] * 4),
        ("logit_bias", {"50256": -100, "1": 0.5}), ("logit_bias", {}), ("tools", []), ("top_logprobs", 20),
        ("metadata", {"k" * 64: "v" * 512}), ("stream_options", {"include_usage": True, "include_obfuscation": False}),
        ("prompt_cache_retention", "24h"), ("prompt_cache_retention", "in_memory"),
        ("response_format", {"type": "text"}), ("response_format", schema()), ("tool_choice", "none"),
        ("messages", call()), ("messages", assistant(annotations=[], audio=None, function_call=None)),
        ("messages", message(name="a-b_c.d")),
    ],
)  # fmt: skip
def test_what_a_field_takes(name: str, value: Any) -> None:
    validate(ChatRequest, {"model": "m", "messages": message(), name: value})
