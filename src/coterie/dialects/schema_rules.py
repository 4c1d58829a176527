"""What the keywords of one JSON Schema must be together. Pure.

Each keyword's own value was checked before. llama.cpp does not notice contradictions: it ignores one of the two, writes
a value that satisfies neither, or runs out of memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from coterie.engines.schema_lowering import KEYWORDS_OF_TYPE, integer_bounds, types_of

Schema = Mapping[str, Any]
Problem = tuple[str, str]
"""Where below the schema, and why."""


def problems(schema: Schema) -> Iterator[Problem]:
    """Everything about ``schema`` itself, without its subschemas, that must be refused."""
    for rule in _RULES:
        yield from rule(schema)


def _values(schema: Schema) -> Iterator[Problem]:
    keyword = "const" if "const" in schema else "enum"
    if keyword not in schema or "type" not in schema:
        return
    values = [schema["const"]] if keyword == "const" else schema["enum"]
    if not all(any(_IS[kind](value) for kind in types_of(schema)) for value in values):
        yield (f"{keyword}", "a value is not of the schema's 'type'")


def _object(schema: Schema) -> Iterator[Problem]:
    properties = schema.get("properties", {})
    for index, name in enumerate(schema.get("required", ())):
        if name not in properties:
            yield (f"required[{index}]", f"the required '{name}' does not stand in 'properties'")
    if properties and schema.get("additionalProperties", True) not in (True, False, {}):
        yield ("additionalProperties", "a schema for further properties is not enforced beside 'properties'")


def _array(schema: Schema) -> Iterator[Problem]:
    items, tuple_length = schema.get("items"), len(schema.get("prefixItems", ()))
    if tuple_length and items not in (None, False):
        yield ("items", "'items' is not enforced beside 'prefixItems', except for false")
    if items is False and not tuple_length:
        yield ("items", "'items' is false, which needs 'prefixItems' beside it")
    if tuple_length and not schema.get("minItems", 0) <= tuple_length <= schema.get("maxItems", tuple_length):
        yield ("prefixItems", "an array of exactly these items is outside 'minItems' and 'maxItems'")
    yield from _in_order(schema, "minItems", "maxItems")


def _string(schema: Schema) -> Iterator[Problem]:
    exclusive = [keyword for keyword in ("pattern", "format") if keyword in schema]
    lengths = [keyword for keyword in ("minLength", "maxLength") if keyword in schema]
    if len(exclusive) + bool(lengths) > 1:
        beside = (exclusive[1:] + lengths)[0]
        yield (f"{beside}", f"'{beside}' is not enforced by the engine beside '{exclusive[0]}'")
    yield from _in_order(schema, "minLength", "maxLength")


def _integer(schema: Schema) -> Iterator[Problem]:
    bounds = [keyword for keyword in KEYWORDS_OF_TYPE["integer"] if keyword in schema]
    if bounds and ("type" not in schema or "number" in types_of(schema)):
        yield (f"{bounds[0]}", f"'{bounds[0]}' is enforced by the engine only for 'type: \"integer\"'")
    low, high = integer_bounds(schema)
    if low is not None and high is not None and low > high:
        yield (f"{bounds[-1]}", "no whole number is within these bounds")


def _in_order(schema: Schema, least: str, most: str) -> Iterator[Problem]:
    if schema.get(least, 0) > schema.get(most, math.inf):
        yield (f"{most}", f"'{most}' is less than '{least}'")


_RULES: Final = (_values, _object, _array, _string, _integer)

_IS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: not isinstance(value, bool) and isinstance(value, int | float) and value == int(value),
    "number": lambda value: not isinstance(value, bool) and isinstance(value, int | float),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
"""Whether a value is of a type."""
