from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.dialects.json_schema import (
    ANNOTATIONS,
    ENFORCED_KEYWORDS,
    FORMATS,
    Limits,
    check_schema,
    check_schemas,
)
from coterie.errors import ApiError

PARAM = "response_format.json_schema.schema"


def check(schema: Any, limits: Limits | None = None) -> None:
    check_schema(schema, param=PARAM, code="invalid_json_schema", limits=limits or Limits())


def refusal(schema: Any, limits: Limits | None = None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        check(schema, limits)
    return caught.value


LINKED_LIST = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["value", "next"],
}

EXPRESSION = {
    "$ref": "#/$defs/expression",
    "$defs": {
        "expression": {"oneOf": [{"$ref": "#/$defs/number"}, {"$ref": "#/$defs/sum"}]},
        "number": {
            "type": "object",
            "properties": {"kind": {"const": "number"}, "value": {"type": "number"}},
            "required": ["kind", "value"],
        },
        "sum": {
            "type": "object",
            "properties": {
                "kind": {"const": "sum"},
                "terms": {"type": "array", "items": {"$ref": "#/$defs/expression"}},
            },
            "required": ["kind", "terms"],
        },
    },
}


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "object"},
        {"type": ["string", "null"], "maxLength": 5},
        {"type": "object", "properties": {}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2000},
        {"type": "array", "prefixItems": [{"type": "null"}, {}], "items": False, "minItems": 2, "maxItems": 2},
        {"type": "string", "pattern": r"^\d{5}$"},
        *({"type": "string", "format": name} for name in sorted(FORMATS)),
        {"type": "integer", "minimum": 0, "exclusiveMaximum": 1.5},
        {"type": "string", "minimum": 7},
        {"type": ["integer", "null"], "enum": [1, 2.0, None]},
        {"const": {"any": ["value"]}},
        {"allOf": [{"type": "object"}], "title": "T", "description": "D", "default": {}},
        {"oneOf": [{"type": "string"}, {"type": "integer"}, {"enum": [None]}]},
        {"oneOf": [{"const": "a"}, {"enum": ["b", "c"]}]},
        {"anyOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]},
        {"$ref": "#/definitions/a", "definitions": {"a": {"type": "null"}}},
        {"type": "array", "prefixItems": [{"type": "null"}, {"$ref": "#/prefixItems/0"}]},
        LINKED_LIST,
        EXPRESSION,
    ],
)
def test_what_the_engine_enforces_is_accepted(schema: Any) -> None:
    check(schema)


@pytest.mark.parametrize(
    ("schema", "where", "why"),
    [
        (3, "", "object or a boolean"),
        (False, "", "no value"),
        ({"type": "foo"}, ".type", "'foo' is not a type"),
        ({"type": []}, ".type", "list of different names"),
        ({"type": ["null", "null"]}, ".type", "list of different names"),
        ({"type": [{}]}, ".type", "not a type"),
        ({"properties": []}, ".properties", "must be an object"),
        ({"properties": {"x": {"type": 1}}}, ".properties.x.type", "not a type"),
        ({"properties": {"*": {}}}, ".properties.*", "'*'"),
        ({"properties": {"a": {}}, "required": "a"}, ".required", "list of strings"),
        ({"properties": {"a": {}}, "required": ["a", "a"]}, ".required", "twice"),
        ({"properties": {"a": {}}, "required": ["a", "b"]}, ".required[1]", "does not stand in"),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "null"}}, ".additionalProperties", "beside"),
        ({"additionalProperties": 1}, ".additionalProperties", "object or a boolean"),
        ({"items": [{}]}, ".items", "object or a boolean"),
        ({"items": False}, ".items", "needs 'prefixItems'"),
        ({"prefixItems": [{}], "items": {}}, ".items", "except for false"),
        ({"prefixItems": [{}], "minItems": 2}, ".prefixItems", "outside"),
        ({"prefixItems": [{}, {}], "maxItems": 1}, ".prefixItems", "outside"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, ".maxItems", "less than"),
        ({"type": "array", "minItems": -1}, ".minItems", "not negative"),
        ({"type": "array", "minItems": True}, ".minItems", "whole number"),
        ({"type": "array", "maxItems": 2001}, ".maxItems", "more than 2000"),
        ({"type": "string", "minLength": 5, "maxLength": 3}, ".maxLength", "less than"),
        ({"type": "string", "pattern": "((("}, ".pattern", "begin with"),
        ({"type": "string", "pattern": 5}, ".pattern", "string"),
        ({"type": "string", "pattern": "^a$", "format": "date"}, ".format", "beside 'pattern'"),
        ({"type": "string", "format": "date", "minLength": 1}, ".minLength", "beside 'format'"),
        ({"type": "string", "format": "email"}, ".format", "date, date-time, time, uuid"),
        ({"type": "number", "minimum": 0}, ".minimum", "only for"),
        ({"minimum": 0}, ".minimum", "only for"),
        ({"type": ["integer", "number"], "maximum": 0}, ".maximum", "only for"),
        ({"type": "integer", "minimum": "0"}, ".minimum", "must be a number"),
        ({"type": "integer", "minimum": 10**15}, ".minimum", "beyond"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, ".maximum", "no whole number"),
        ({"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 6}, ".exclusiveMaximum", "no whole number"),
        ({"enum": []}, ".enum", "at least one"),
        ({"type": "integer", "enum": [1, True]}, ".enum", "not of the schema's 'type'"),
        ({"type": "string", "const": 1}, ".const", "not of the schema's 'type'"),
        ({"enum": [1], "minimum": 0}, ".minimum", "beside 'enum'"),
        ({"anyOf": []}, ".anyOf", "at least one"),
        ({"anyOf": {}}, ".anyOf", "must be a list"),
        ({"anyOf": [{}], "type": "object"}, ".type", "beside 'anyOf'"),
        ({"allOf": [{}, {}]}, ".allOf", "more than one"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "", "visibly exclusive"),
        ({"$ref": "#/$defs/a", "type": "object", "$defs": {"a": {}}}, ".type", "beside '$ref'"),
        ({"$ref": "https://example.com/a"}, ".$ref", "same schema"),
        ({"$ref": "#a"}, ".$ref", "same schema"),
        ({"$ref": "#/$defs/a%20b"}, ".$ref", "escape"),
        ({"$ref": "#/$defs/x"}, ".$ref", "not the place of a schema"),
        ({"items": {"$ref": "#/examples/0"}, "examples": [{"type": "x"}]}, ".items.$ref", "not the place of a schema"),
        ({"anyOf": [{"not": {}}]}, ".anyOf[0].not", "'not' is not enforced"),
        ({"uniqueItems": True}, ".uniqueItems", "not enforced"),
        ({"nullable": True}, ".nullable", "not enforced"),
        ({"definitions": {"a": {"type": "x"}}}, ".definitions.a.type", "not a type"),
        ({"prefixItems": [{}, {"items": {"type": "x"}}]}, ".prefixItems[1].items.type", "not a type"),
    ],
)
def test_what_is_wrong_or_not_enforced_is_refused_where_it_stands(schema: Any, where: str, why: str) -> None:
    error = refusal(schema)
    assert (error.code, error.param) == ("invalid_json_schema", PARAM + where)
    assert why in error.message


_ALIKE = [{"type": "array", "items": {"$ref": "#/$defs/a"}, "maxItems": most} for most in (1, 2)]


@pytest.mark.parametrize(
    ("schema", "where", "why"),
    [
        ({"$ref": "#"}, "", "only leads back"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, ".$defs.a", "only"),
        ({"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {}]}}}, ".$defs.a", "only"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "", "no finite value"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "", "no finite value"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": _ALIKE}}}, ".$defs.a", "refer back"),
        ({"anyOf": [{"type": "array", "maxItems": most} for most in range(1, 66)]}, "", "more than 64"),
        (
            {
                "$ref": "#/$defs/d0",
                "$defs": {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)}
                | {"d60": {"type": "null"}},
            },
            "",
            "more than 1000",
        ),
    ],
)
def test_a_schema_that_would_hang_the_engine_is_refused(schema: Any, where: str, why: str) -> None:
    error = refusal(schema)
    assert error.param == PARAM + where
    assert why in error.message


def test_two_names_cannot_smuggle_in_an_unchecked_schema() -> None:
    schema = {"properties": {"a/title": {}, "a": {"title": {"pattern": "((("}}, "b": {"$ref": "#/properties/a/title"}}}
    assert "not the place of a schema" in refusal(schema).message


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth - 1):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("limits", "within", "beyond"),
    [
        (Limits(depth=3), _nested(3), _nested(4)),
        (Limits(nodes=3), _nested(3), _nested(4)),
        (
            Limits(nodes=12),
            {"prefixItems": [{"type": "integer", "minimum": 1}, {}]},
            {"prefixItems": [{"type": "integer", "minimum": 1, "maximum": 2}, {}]},
        ),
        (Limits(enum_values=2), {"enum": [1, 2]}, {"anyOf": [{"enum": [1, 2]}, {"enum": ["a"]}]}),
        (Limits(string_chars=4), {"const": "abcd"}, {"const": "abcde"}),
        (Limits(string_chars=4), {"properties": {"ab": {}, "cd": {}}}, {"properties": {"ab": {}, "cde": {}}}),
        (Limits(properties=1), {"properties": {"a": {}}}, {"properties": {"a": {}, "b": {}}}),
        (Limits(name_chars=2), {"properties": {"ab": {}}}, {"properties": {"abc": {}}}),
        (Limits(path_chars=3), {"properties": {"ab": {}}}, {"properties": {"abc": {}}}),
        (Limits(alternatives=1), {"anyOf": [{}]}, {"anyOf": [{}, {}]}),
        (Limits(definitions=1), {"$defs": {"a": {}}}, {"$defs": {"a": {}}, "definitions": {"b": {}}}),
        (Limits(repetitions=5), {"type": "string", "maxLength": 5}, {"type": "string", "maxLength": 6}),
    ],
)
def test_sizes_are_bounded(limits: Limits, within: Any, beyond: Any) -> None:
    check(within, limits)
    assert refusal(beyond, limits).code == "invalid_json_schema"


def test_several_schemas_share_the_bounds() -> None:
    schemas = {"tools[0].function.parameters": _nested(3), "tools[1].function.parameters": _nested(3)}
    check_schemas(schemas, code="invalid_function_parameters", limits=Limits(nodes=6))
    with pytest.raises(ApiError) as caught:
        check_schemas(schemas, code="invalid_function_parameters", limits=Limits(nodes=5))
    assert caught.value.param == "tools[1].function.parameters.items.items"


@pytest.mark.parametrize(("schema", "said"), [({}, "None"), ({"type": "array"}, "array"), (True, "True")])
def test_parameters_must_be_of_an_object(schema: Any, said: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_schema(schema, param="tools[0]", code="invalid_function_parameters", root_object=True)
    assert caught.value.code == "invalid_function_parameters"
    assert caught.value.message == (
        f"Invalid schema for 'tools[0]': schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{said}\"'."
    )
    check_schema({"type": "object"}, param="tools[0]", code="invalid_function_parameters", root_object=True)


def test_the_documented_keywords_are_those_that_are_known() -> None:
    for keyword in ENFORCED_KEYWORDS:
        assert "is not enforced by the engine" not in _message({keyword: None})
    for keyword in ANNOTATIONS:
        check({keyword: {"anything": [1]}})


def _message(schema: Any) -> str:
    try:
        check(schema)
    except ApiError as error:
        return error.message
    return ""


_KEYWORDS = st.sampled_from([*ENFORCED_KEYWORDS, "title", "not", "x"])
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats(allow_nan=False) | st.text(max_size=4)
    | st.sampled_from(["object", "string", "integer", "#", "#/items", "#/$defs/a", "^a$", "date"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYWORDS | st.just("a"), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(_ANYTHING)
def test_anything_is_accepted_or_refused_with_a_place(schema: Any) -> None:
    place = "p"
    try:
        check_schema(schema, param="p", code="invalid_json_schema")
    except ApiError as error:
        place = error.param or ""
    assert place.startswith("p")
