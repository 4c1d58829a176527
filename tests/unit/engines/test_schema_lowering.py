from typing import Any

import pytest

from coterie.engines.schema_lowering import FARTHEST_INTEGER, Lowering, lower_schemas, resolve

FAR = FARTHEST_INTEGER


@pytest.mark.parametrize(
    ("schema", "lowered"),
    [
        (True, {}),
        ({}, {}),
        ({"$schema": "x", "title": "T", "type": "string"}, {"title": "T", "type": "string"}),
        ({"allOf": [{"type": "null"}], "description": "d"}, {"type": "null", "description": "d"}),
        ({"type": "integer", "enum": [1]}, {"enum": [1]}),
        ({"type": "string", "const": "a"}, {"const": "a"}),
        ({"anyOf": [True, {"type": "null"}]}, {"anyOf": [{}, {"type": "null"}]}),
        ({"minLength": 3}, {"type": "string", "minLength": 3}),
        ({"properties": {"a": True}}, {"type": "object", "properties": {"a": {}}}),
        ({"type": "string", "minimum": 3}, {"type": "string"}),
        ({"type": "string", "pattern": r"^\d$"}, {"type": "string", "pattern": "^[0-9]$"}),
        ({"type": "integer", "minimum": 100}, {"type": "integer", "minimum": 100, "maximum": FAR}),
        ({"type": "integer", "maximum": -5}, {"type": "integer", "minimum": -FAR, "maximum": -5}),
        (
            {"type": "integer", "minimum": 0, "exclusiveMinimum": 0.5, "exclusiveMaximum": 4},
            {"type": "integer", "minimum": 1, "maximum": 3},
        ),
        (
            {"type": "array", "prefixItems": [True], "items": False, "minItems": 1},
            {"type": "array", "prefixItems": [{}]},
        ),
        (
            {"type": "array", "items": True, "maxItems": 2},
            {"type": "array", "items": {}, "maxItems": 2},
        ),
        (
            {"type": "object", "properties": {"a": True}, "required": ["a"], "additionalProperties": True},
            {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        ),
        (
            {"type": "object", "additionalProperties": {"type": "null"}},
            {"type": "object", "additionalProperties": {"type": "null"}},
        ),
        (
            {"type": ["object", "null"], "properties": {}, "additionalProperties": False},
            {"type": ["object", "null"], "properties": {}, "additionalProperties": False},
        ),
    ],
)
def test_a_schema_is_said_in_the_engines_words(schema: Any, lowered: Any) -> None:
    assert Lowering().standalone(schema) == lowered


def test_references_get_names_that_the_engine_does_not_confuse() -> None:
    schema = {
        "type": "array",
        "prefixItems": [{"$ref": "#/$defs/a_b"}, {"$ref": "#/$defs/a-b"}, {"$ref": "#/$defs/a_b"}],
        "$defs": {"a_b": {"const": 1}, "a-b": {"const": 2}},
    }
    assert Lowering().standalone(schema) == {
        "type": "array",
        "prefixItems": [{"$ref": "#/$defs/r0x"}, {"$ref": "#/$defs/r1x"}, {"$ref": "#/$defs/r0x"}],
        "$defs": {"r0x": {"const": 1}, "r1x": {"const": 2}},
    }


def test_a_reference_to_the_whole_is_a_definition_too() -> None:
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    inner = {"type": "object", "properties": {"next": {"$ref": "#/$defs/r0x"}}}
    assert Lowering().standalone(schema) == {**inner, "$defs": {"r0x": inner}}


def test_schemas_lowered_together_share_no_name() -> None:
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "null"}}}
    lowering = Lowering()
    first, second = lowering.standalone(schema), lowering.standalone(schema)
    assert first["$defs"].keys() == {"r0x", "r1x"}
    assert second["$defs"].keys() == {"r2x", "r3x"}
    assert second["$defs"]["r2x"] == {"$ref": "#/$defs/r3x"}
    assert lowering.references == {"r0x": "#/$defs/a", "r1x": "#/$defs/b", "r2x": "#/$defs/a", "r3x": "#/$defs/b"}


def test_a_body_is_lowered_in_its_tools_and_its_response_format() -> None:
    parameters = {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"minLength": 1}}}
    function = {"name": "f", "description": "d", "parameters": parameters}
    body: dict[str, Any] = {
        "tools": [{"type": "function", "function": function}, {"type": "function", "function": {"name": "g"}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"allOf": [True]}}},
    }
    lowered = lower_schemas(body)
    assert lowered["tools"][0]["function"]["parameters"] == {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/r0x"}},
        "$defs": {"r0x": {"type": "string", "minLength": 1}},
    }
    assert lowered["tools"][1] == {"type": "function", "function": {"name": "g"}}
    assert lowered["response_format"]["json_schema"]["schema"] == {}
    assert body["tools"][0]["function"]["parameters"] is parameters


@pytest.mark.parametrize("kind", ["text", "json_object"])
def test_other_response_formats_stay(kind: str) -> None:
    body = {"response_format": {"type": kind}, "messages": []}
    assert lower_schemas(body) == body


def test_a_reference_is_resolved_through_objects_and_lists() -> None:
    root = {"anyOf": [{"type": "null"}, {"type": "string"}]}
    assert resolve(root, "#") is root
    assert resolve(root, "#/anyOf/1") == {"type": "string"}


@pytest.mark.parametrize("reference", ["#/x", "#/anyOf/2", "#/anyOf/-1", "#/anyOf/0/type/x", "#/"])
def test_a_reference_to_nothing_is_a_lookup_error(reference: str) -> None:
    with pytest.raises(LookupError):
        resolve({"anyOf": [{"type": "null"}]}, reference)
