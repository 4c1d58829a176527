"""What is a JSON Schema at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.dialects.chat import DialectLimits, parse_chat
from coterie.dialects.schema_shape import MAX_BYTES, MAX_DEPTH, MAX_NODES, check_shape
from coterie.errors import ApiError

P = "tools[0].function.parameters"
LIMITS = DialectLimits(messages=10, choices=2)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


GOOD: dict[str, dict[str, Any]] = {
    "plain": {"type": "object"},
    "a bound of a number": {"type": "object", "properties": {"a": {"type": "number", "minimum": 0.5}}},
    "formats and patterns": {
        "type": "object",
        "properties": {"a": {"type": "string", "format": "uri", "pattern": "x"}},
    },
    "combinations": {"type": "object", "allOf": [{"if": {}, "then": True}], "not": {"required": ["b"]}},
    "what nobody knows": {"type": "object", "x-order": 3},
    "as deep as may be": nested(MAX_DEPTH - 1),
}


@pytest.mark.parametrize("schema", GOOD.values(), ids=GOOD.keys())
def test_what_is_a_schema(schema: dict[str, Any]) -> None:
    check_shape(schema, P)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no object": ({"type": "string"}, P),
    "no type": ({"properties": {}}, P),
    "an unknown type": ({"type": "object", "properties": {"a": {"type": "text"}}}, f"{P}.properties.a.type"),
    "a number for a type": ({"type": "object", "items": {"type": 3}}, f"{P}.items.type"),
    "a list of properties": ({"type": "object", "properties": []}, f"{P}.properties"),
    "a word for a schema": ({"type": "object", "properties": {"a": "string"}}, f"{P}.properties.a"),
    "no alternatives": ({"type": "object", "anyOf": []}, f"{P}.anyOf"),
    "a bad alternative": ({"type": "object", "anyOf": [{}, 3]}, f"{P}.anyOf[1]"),
    "a word for a list": ({"type": "object", "required": "a"}, f"{P}.required"),
    "a word for a number": ({"type": "object", "minProperties": "1"}, f"{P}.minProperties"),
    "too long": ({"type": "object", "description": "x" * MAX_BYTES}, P),
}


@pytest.mark.parametrize(("schema", "param"), BAD.values(), ids=BAD.keys())
def test_what_is_none(schema: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_shape(schema, P)
    assert (caught.value.code, caught.value.param) == ("invalid_function_parameters", param)


@pytest.mark.parametrize("schema", [nested(MAX_DEPTH + 1), {"type": "object", "anyOf": [True] * (MAX_NODES + 1)}])
def test_what_is_too_large(schema: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        check_shape(schema, P)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "properties", "items", "anyOf", "required", "enum"]), inner)
        ),
    )
)
def test_anything_is_a_schema_or_refused_with_its_place(value: Any) -> None:
    place = P
    try:
        check_shape({"type": "object", "properties": {"a": value}}, P)
    except ApiError as error:
        place = error.param or ""
    assert place.startswith(P)


def tool(name: str, parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def strictness(*tools: dict[str, Any]) -> list[bool | None]:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": list(tools)}
    parsed = parse_chat(body, LIMITS)
    return [each["function"].get("strict") for each in parsed.generation.body["tools"]]


UNENFORCEABLE = GOOD["a bound of a number"]


def test_parameters_that_cannot_be_enforced_are_told_apart_from_those_that_are() -> None:
    assert strictness(tool("f", UNENFORCEABLE), tool("g", GOOD["plain"])) == [False, None]
    assert strictness(tool("f", UNENFORCEABLE, strict=False)) == [False]


def test_strict_ones_must_be_enforceable() -> None:
    with pytest.raises(ApiError) as caught:
        strictness(tool("g", UNENFORCEABLE), tool("f", UNENFORCEABLE, strict=True))
    assert caught.value.param == "tools[1].function.parameters.properties.a.minimum"
