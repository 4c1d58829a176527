"""Whether something is a JSON Schema at all, of a bearable size. Pure.

A function's parameters are enforced where the engine can enforce them. Where it cannot, and the caller did not ask for
``strict``, the model is told of them and the arguments are any object, as with OpenAI: clients send ``minimum`` of a
number or ``format: "uri"`` as a matter of course. What is not a schema is refused all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

from coterie.errors import ApiError

MAX_BYTES: Final = 120_000
MAX_NODES: Final = 5_000
MAX_DEPTH: Final = 32

_TYPES: Final = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_SCHEMAS: Final = frozenset(
    {"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames",
     "unevaluatedItems", "unevaluatedProperties"}
)  # fmt: skip
_LISTS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_MAPS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})

Place = tuple[str, Any, int]
"""Path, schema, depth."""


def check_shape(schema: Mapping[str, Any], param: str) -> None:
    """Raise ``ApiError`` ``invalid_function_parameters`` where ``schema`` is no JSON Schema of an object."""
    if schema.get("type") != "object":
        raise _refused(param, "schema must be a JSON Schema of 'type: \"object\"'")
    if len(orjson.dumps(schema)) > MAX_BYTES:
        raise _refused(param, f"the schema has more than {MAX_BYTES} bytes")
    todo: list[Place] = [(param, schema, 1)]
    for count, (path, value, depth) in enumerate(_grow(todo)):
        if count >= MAX_NODES or depth > MAX_DEPTH:
            raise _refused(path, f"more than {MAX_NODES} subschemas, or {MAX_DEPTH} levels of them")
        if isinstance(value, dict):
            todo += _below(path, value, depth + 1)
        elif not isinstance(value, bool):
            raise _refused(path, "a schema must be an object or a boolean")


def _grow(todo: list[Place]) -> Iterator[Place]:
    while todo:
        yield todo.pop()


def _below(path: str, schema: dict[str, Any], depth: int) -> Iterator[Place]:
    for keyword, value in schema.items():
        where = f"{path}.{keyword}"
        if (problem := _CHECKS.get(keyword, _fine)(value)) is not None:
            raise _refused(where, problem)
        if keyword in _SCHEMAS:
            yield where, value, depth
        elif keyword in _LISTS:
            yield from ((f"{where}[{i}]", each, depth) for i, each in enumerate(value))
        elif keyword in _MAPS:
            yield from ((f"{where}.{name}", each, depth) for name, each in value.items())


def _fine(value: Any) -> str | None:
    return None


def _type(value: Any) -> str | None:
    names = value if isinstance(value, list) else [value]
    known = bool(names) and all(isinstance(name, str) and name in _TYPES for name in names)
    return None if known else "it is not the name of a type, or a list of such names"


def _strings(value: Any) -> str | None:
    good = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return None if good else "it must be a list of strings"


def _string(value: Any) -> str | None:
    return None if isinstance(value, str) else "it must be a string"


def _list(value: Any) -> str | None:
    return None if isinstance(value, list) and value else "it must be a list that is not empty"


def _map(value: Any) -> str | None:
    return None if isinstance(value, dict) else "it must be an object"


def _number(value: Any) -> str | None:
    return None if isinstance(value, (int, float)) and not isinstance(value, bool) else "it must be a number"


_CHECKS: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "type": _type,
    "required": _strings,
    "enum": _list,
    "pattern": _string,
    "format": _string,
    "$ref": _string,
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _number),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _number),
    **dict.fromkeys(_LISTS, _list),
    **dict.fromkeys(_MAPS, _map),
}


def _refused(path: str, reason: str) -> ApiError:
    return ApiError("invalid_function_parameters", param=path, reason=reason)
