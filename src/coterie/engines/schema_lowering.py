"""JSON Schema in the words that llama.cpp enforces. Pure.

What it promises, for a schema that :func:`coterie.dialects.json_schema.check_schema` accepted:

* every value that the lowered schema admits, the original admits; where llama.cpp would enforce less than a keyword
  says, or nothing, the lowered schema says it in another way, at worst admitting fewer values;
* the lowered schema has no keyword that llama.cpp ignores, but for the annotations that a model may read;
* every reference is to ``#/$defs/<name>``, the names unique over everything that one :class:`Lowering` lowered. This
  matters beyond tidiness: llama.cpp names a grammar rule after a reference with all punctuation folded, and takes the
  first of two that fold to the same name for both.

What llama.cpp does, and what is done about it:

* booleans are no schemas to it: ``true`` becomes ``{}``;
* ``allOf`` is merged only for objects, and becomes "an empty object" for anything else: of one schema, it is that one;
* a schema without ``type`` is judged by the first keyword it knows: the type is said;
* beside ``properties``, ``additionalProperties`` admits keys that are no JSON: it is left out (no further ones);
* tuples have their exact length and ignore ``items`` and the bounds;
* a lone ``minimum`` of 100 admits 10, a lone negative ``maximum`` zeros in front: both bounds are always said, the
  missing one being far away, and exclusive and fractional ones are rounded to whole numbers within them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from coterie.engines.schema_pattern import lower_pattern

Schema = Mapping[str, Any] | bool

FARTHEST_INTEGER: Final = 10**15 - 1
"""The greatest bound that is passed on: llama.cpp's grammar for integers ends at 16 digits."""

KEYWORDS_OF_TYPE: Final[Mapping[str, tuple[str, ...]]] = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "number": (),
    "boolean": (),
    "null": (),
}
"""Each type's keywords that are enforced."""


def resolve(root: Any, reference: str) -> Any:
    """What ``#/a/b`` or ``#`` names in ``root``. Raises ``LookupError``."""
    target = root
    for step in reference.split("/")[1:]:
        if isinstance(target, list):
            if not (step.isascii() and step.isdecimal()):
                raise KeyError(step)
            target = target[int(step)]
        elif isinstance(target, dict):
            target = target[step]
        else:
            raise KeyError(step)
    return target


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """The types that ``schema`` says, or those that its keywords speak of; empty: any value."""
    said = schema.get("type")
    if said is not None:
        return [said] if isinstance(said, str) else list(said)
    return [kind for kind, keywords in KEYWORDS_OF_TYPE.items() if any(keyword in schema for keyword in keywords)]


_READ_BY_MODELS: Final = ("title", "description", "default", "examples", "deprecated")


class Lowering:
    """Lowers schemas whose references must not meet: those of one request."""

    def __init__(self) -> None:
        self.definitions: dict[str, dict[str, Any]] = {}
        """The ``$defs`` that the lowered schemas refer to."""
        self.references: dict[str, str] = {}
        """The reference that each definition was made for, as its schema spelled it."""

    def lower(self, schema: Schema) -> dict[str, Any]:
        """``schema`` lowered; what it refers to enters ``definitions``."""
        names: dict[str, str] = {}
        waiting: list[str] = []

        def refer(reference: str) -> str:
            if reference not in names:
                names[reference] = f"r{len(self.definitions) + len(waiting)}x"
                waiting.append(reference)
            return names[reference]

        lowered = _lower(schema, refer)
        while waiting:
            reference = waiting[0]
            definition = _lower(resolve(schema, reference), refer)
            self.definitions[names[reference]] = definition
            self.references[names[reference]] = reference
            waiting.pop(0)
        return lowered

    def standalone(self, schema: Schema) -> dict[str, Any]:
        """``schema`` lowered, with the definitions that it needs."""
        earlier = set(self.definitions)
        lowered = self.lower(schema)
        own = {name: definition for name, definition in self.definitions.items() if name not in earlier}
        return {**lowered, "$defs": own} if own else lowered


def lower_schemas(body: dict[str, Any]) -> dict[str, Any]:
    """A chat body whose ``response_format`` and tools carry lowered schemas."""
    lowering = Lowering()
    lowered = dict(body)
    if body.get("tools"):
        lowered["tools"] = [_lower_tool(tool, lowering) for tool in body["tools"]]
    schema = response_schema(body)
    if schema is not None and body["response_format"]["type"] == "json_schema":
        lowered["response_format"] = json_schema_format(lowering.standalone(schema))
    return lowered


def _lower_tool(tool: dict[str, Any], lowering: Lowering) -> dict[str, Any]:
    parameters = tool["function"].get("parameters")
    if parameters is None:
        return tool
    return {**tool, "function": {**tool["function"], "parameters": lowering.standalone(parameters)}}


def response_schema(body: Mapping[str, Any]) -> Schema | None:
    """The schema that ``response_format`` asks for; ``None`` where the answer is to be text."""
    wanted = body.get("response_format") or {"type": "text"}
    if wanted["type"] == "text":
        return None
    if wanted["type"] == "json_object":
        return {"type": "object"}
    schema: Schema | None = wanted["json_schema"].get("schema")
    return {"type": "object"} if schema is None else schema


def json_schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    """A ``response_format`` for ``schema``."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


_Refer = Callable[[str], str]


def _lower(schema: Schema, refer: _Refer) -> dict[str, Any]:
    if isinstance(schema, bool):
        return {}
    notes = {keyword: schema[keyword] for keyword in _READ_BY_MODELS if keyword in schema}
    for keyword, lower in _WHOLE.items():
        if keyword in schema:
            return {**notes, **lower(schema[keyword], refer)}
    types = types_of(schema)
    lowered: dict[str, Any] = {**notes, "type": types[0] if len(types) == 1 else types} if types else notes
    for kind in types:
        if kind in _BY_TYPE:
            lowered.update(_BY_TYPE[kind](schema, refer))
    return lowered


def _lower_all(schemas: Iterable[Schema], refer: _Refer) -> list[dict[str, Any]]:
    return [_lower(schema, refer) for schema in schemas]


_WHOLE: Final[Mapping[str, Callable[[Any, _Refer], dict[str, Any]]]] = {
    "$ref": lambda reference, refer: {"$ref": f"#/$defs/{refer(reference)}"},
    "allOf": lambda schemas, refer: _lower(schemas[0], refer),
    "anyOf": lambda schemas, refer: {"anyOf": _lower_all(schemas, refer)},
    "oneOf": lambda schemas, refer: {"oneOf": _lower_all(schemas, refer)},
    "const": lambda value, refer: {"const": value},
    "enum": lambda values, refer: {"enum": values},
}
"""Keywords that are all that a schema says."""


def _lower_object(schema: Mapping[str, Any], refer: _Refer) -> dict[str, Any]:
    lowered: dict[str, Any] = {}
    properties = schema.get("properties")
    if properties is not None:
        lowered["properties"] = {name: _lower(value, refer) for name, value in properties.items()}
    if schema.get("required"):
        lowered["required"] = schema["required"]
    further = schema.get("additionalProperties")
    if further is False:
        lowered["additionalProperties"] = False
    elif further is not None and not properties:
        lowered["additionalProperties"] = _lower(further, refer)
    return lowered


def _lower_array(schema: Mapping[str, Any], refer: _Refer) -> dict[str, Any]:
    if "prefixItems" in schema:
        return {"prefixItems": _lower_all(schema["prefixItems"], refer)}
    lowered = {keyword: schema[keyword] for keyword in ("minItems", "maxItems") if keyword in schema}
    return {"items": _lower(schema["items"], refer), **lowered} if "items" in schema else lowered


def _lower_string(schema: Mapping[str, Any], _refer: _Refer) -> dict[str, Any]:
    if "pattern" in schema:
        return {"pattern": lower_pattern(schema["pattern"])}
    return {keyword: schema[keyword] for keyword in ("format", "minLength", "maxLength") if keyword in schema}


def _lower_integer(schema: Mapping[str, Any], _refer: _Refer) -> dict[str, Any]:
    low, high = integer_bounds(schema)
    if low is None and high is None:
        return {}
    return {
        "minimum": -FARTHEST_INTEGER if low is None else low,
        "maximum": FARTHEST_INTEGER if high is None else high,
    }


def integer_bounds(schema: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The least and the greatest whole number that ``schema`` admits, ``None`` where it says none."""
    lows = [
        *(math.ceil(schema[keyword]) for keyword in ("minimum",) if keyword in schema),
        *(math.floor(schema[keyword]) + 1 for keyword in ("exclusiveMinimum",) if keyword in schema),
    ]
    highs = [
        *(math.floor(schema[keyword]) for keyword in ("maximum",) if keyword in schema),
        *(math.ceil(schema[keyword]) - 1 for keyword in ("exclusiveMaximum",) if keyword in schema),
    ]
    return max(lows, default=None), min(highs, default=None)


_BY_TYPE: Final[Mapping[str, Callable[[Mapping[str, Any], _Refer], dict[str, Any]]]] = {
    "object": _lower_object,
    "array": _lower_array,
    "string": _lower_string,
    "integer": _lower_integer,
}
"""What is said beside a type."""
