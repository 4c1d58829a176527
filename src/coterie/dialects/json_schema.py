"""Checks of a caller's JSON Schema. Pure.

What it promises:

* What :func:`check_schema` accepts is enforced by the embedded engine, exactly or a little more strictly, after
  :mod:`coterie.engines.schema_lowering` has put it into the engine's words. Nothing is ignored in silence: a keyword
  that the engine does not enforce is refused by name, and so is every unknown one.
* What it accepts cannot crash, hang or blow up the engine: sizes, depth, repetitions, bounds that contradict each other
  and recursions are bounded here. (A ``minItems`` above ``maxItems`` cost llama.cpp 6 GB and half a minute.)
* ``param`` is the path of the keyword at fault: ``response_format.json_schema.schema.properties.a.items``.

``ENFORCED_KEYWORDS`` and ``ANNOTATIONS`` are what the documentation says is supported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NoReturn

from coterie.dialects.schema_graph import Graph
from coterie.dialects.schema_rules import problems
from coterie.engines.schema_lowering import (
    FARTHEST_INTEGER,
    KEYWORDS_OF_TYPE,
    Lowering,
    resolve,
)
from coterie.engines.schema_pattern import lower_pattern
from coterie.errors import ApiError

Code = Literal["invalid_json_schema", "invalid_function_parameters"]

ENFORCED_KEYWORDS: Final[Mapping[str, str]] = {
    "type": "one name or a list of names",
    "properties": "written in the order given; no others are written beside them",
    "required": "only names that stand in 'properties'",
    "additionalProperties": "a boolean; a schema only where there are no 'properties'",
    "items": "one schema; beside 'prefixItems' only false",
    "prefixItems": "the array has exactly these",
    "minItems": "at most 2000",
    "maxItems": "at most 2000",
    "minLength": "at most 2000; not beside 'pattern' or 'format'",
    "maxLength": "at most 2000; not beside 'pattern' or 'format'",
    "pattern": "anchored with ^ and $; classes, groups, alternatives, quantifiers, \\d, \\w, \\s; no lookaround",
    "format": "date, time, date-time, uuid",
    "minimum": "of integers",
    "maximum": "of integers",
    "exclusiveMinimum": "of integers",
    "exclusiveMaximum": "of integers",
    "enum": "alone, or beside 'type'",
    "const": "alone, or beside 'type'",
    "anyOf": "alone",
    "oneOf": "alone; the alternatives must be visibly exclusive",
    "allOf": "alone; of one schema",
    "$ref": "alone; to a place in the same schema, also a recursive one",
    "$defs": "schemas to refer to",
    "definitions": "schemas to refer to",
}
"""Every keyword that is enforced, with its conditions."""

ANNOTATIONS: Final = frozenset(
    {
        "title", "description", "default", "examples", "example", "$schema", "$id", "$comment", "deprecated",
        "readOnly", "writeOnly", "strict", "discriminator",
    }
)  # fmt: skip
"""Keywords that say nothing about values: accepted and not enforced."""

FORMATS: Final = frozenset({"date", "time", "date-time", "uuid"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on the schemas of one kind in a request."""

    nodes: int = 5_000
    depth: int = 32
    enum_values: int = 1_000
    string_chars: int = 120_000
    properties: int = 256
    """Of one object: the engine's work grows with their number cubed."""
    name_chars: int = 128
    path_chars: int = 1_000_000
    """Over all nodes, of the property names that lead to each: the engine writes them out."""
    alternatives: int = 128
    definitions: int = 128
    repetitions: int = 2_000


DEFAULT: Final = Limits()
_SIZES: Final = ("nodes", "path_chars", "string_chars", "enum_values", "definitions")
"""The limits that several schemas share."""

_NODES_OF_A_BOUND: Final = 8
"""What a bound of an integer counts for among the nodes: its grammar is that much longer."""

_SCALAR_CHARS: Final = 24
"""What a number counts for among the characters of values."""

_WHOLE: Final = ("$ref", "allOf", "anyOf", "oneOf", "const", "enum")
"""Keywords that the engine reads alone. ``type`` may stand beside the last two."""
_CONTAINERS_OF_SCHEMAS: Final = frozenset({"$defs", "definitions"})
_KNOWN: Final = ENFORCED_KEYWORDS.keys() | ANNOTATIONS


def check_schema(schema: Any, *, param: str, code: Code, root_object: bool = False, limits: Limits = DEFAULT) -> None:
    """Raise ``ApiError`` ``code`` where ``schema`` is no JSON Schema or cannot be enforced.

    ``param`` is where the request has it. ``root_object``: it must say ``"type": "object"``, as a function's parameters
    have to.
    """
    check_schemas({param: schema}, code=code, root_object=root_object, limits=limits)


def check_schemas(
    schemas: Mapping[str, Any], *, code: Code, root_object: bool = False, limits: Limits = DEFAULT
) -> None:
    """Like :func:`check_schema` for several, each by its ``param``; the limits on sizes hold for all together."""
    for param, schema in schemas.items():
        check = _Check(schema, param, code, limits)
        if root_object and not (isinstance(schema, dict) and schema.get("type") == "object"):
            said = schema.get("type") if isinstance(schema, dict) else schema
            check.refuse(param, f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{said}\"'")
        check.schema(schema, param, "#", depth=1, path_chars=0)
        check.references()
        limits = replace(limits, **{size: getattr(limits, size) - getattr(check, size) for size in _SIZES})


@dataclass
class _Check:
    root: Any
    param: str
    code: Code
    limits: Limits
    nodes: int = 0
    enum_values: int = 0
    string_chars: int = 0
    path_chars: int = 0
    definitions: int = 0
    checked: set[str] = field(default_factory=set)
    """The places, as references name them, where a schema stands."""
    referred: dict[str, str] = field(default_factory=dict)
    """Each reference, and a path where it is made."""
    _place: tuple[str, int, int] = ("#", 1, 0)
    """Of the schema being checked: place, depth, characters of its path."""

    def refuse(self, path: str, reason: str) -> NoReturn:
        raise ApiError(self.code, param=path, reason=reason)

    def schema(self, schema: Any, path: str, place: str, depth: int, path_chars: int) -> None:
        """Check the schema at ``path``, which references call ``place``."""
        self.checked.add(place)
        self.nodes += 1
        self.path_chars += path_chars
        if self.nodes > self.limits.nodes or self.path_chars > self.limits.path_chars:
            self.refuse(path, "there are too many subschemas here")
        if depth > self.limits.depth:
            self.refuse(path, f"the schema is nested more than {self.limits.depth} levels deep")
        if schema is True:
            return
        if schema is False:
            self.refuse(path, "the schema 'false' admits no value")
        if not isinstance(schema, dict):
            self.refuse(path, "a schema must be an object or a boolean")
        outer, self._place = self._place, (place, depth, path_chars)
        self._keywords(schema, path)
        self._place = outer

    def _keywords(self, schema: dict[str, Any], path: str) -> None:
        for keyword in schema:
            if keyword not in _KNOWN:
                self.refuse(f"{path}.{keyword}", f"the keyword '{keyword}' is not enforced by the engine")
        for keyword, value in schema.items():
            if keyword in _CHECKS:
                _CHECKS[keyword](self, value, f"{path}.{keyword}", keyword)
        self._alone(schema, path)
        for below, reason in problems(schema):
            self.refuse(f"{path}.{below}", reason)

    def _alone(self, schema: dict[str, Any], path: str) -> None:
        whole = next((keyword for keyword in _WHOLE if keyword in schema), None)
        if whole is None:
            return
        allowed = ANNOTATIONS | _CONTAINERS_OF_SCHEMAS | {whole}
        beside = [keyword for keyword in schema if keyword not in allowed]
        if whole in ("const", "enum"):
            beside = [keyword for keyword in beside if keyword != "type"]
        if beside:
            self.refuse(f"{path}.{beside[0]}", f"'{beside[0]}' is not enforced by the engine beside '{whole}'")

    def child(self, schema: Any, path: str, step: str, name_chars: int = 0) -> None:
        """Check a subschema at ``step`` below the schema being checked."""
        place, depth, path_chars = self._place
        self.schema(schema, path, f"{place}/{step}", depth + 1, path_chars + 1 + name_chars)

    def text(self, value: Any, path: str) -> None:
        """Count the characters of a value that enters the grammar."""
        self.string_chars += _characters(value)
        if self.string_chars > self.limits.string_chars:
            self.refuse(path, "the names and values here have too many characters")

    def references(self) -> None:
        """Check where the references lead, once every subschema was seen."""
        for reference, path in self.referred.items():
            if reference not in self.checked:
                self.refuse(path, f"'{reference}' is not the place of a schema within this one")
            try:
                resolve(self.root, reference)
            except LookupError:
                self.refuse(path, f"'{reference}' does not exist")
        lowering = Lowering()
        lowered = lowering.lower(self.root)
        for name, reason in Graph({"": lowered, **lowering.definitions}).problems():
            self.refuse(self._path_of(lowering.references.get(name, "#")), reason)

    def _path_of(self, reference: str) -> str:
        return self.param + "".join(
            f"[{step}]" if step.isdecimal() else f".{step}" for step in reference.split("/")[1:]
        )


def _characters(value: Any) -> int:
    if isinstance(value, dict):
        return sum(len(key) + _characters(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(1 + _characters(item) for item in value)
    return len(value) if isinstance(value, str) else _SCALAR_CHARS


def _check_type(check: _Check, value: Any, path: str, _keyword: str) -> None:
    names = value if isinstance(value, list) else [value]
    if not names or any(names.count(name) > 1 for name in names[: len(KEYWORDS_OF_TYPE) + 1]):
        check.refuse(path, "'type' must be a name or a list of different names")
    for name in names:
        if not isinstance(name, str) or name not in KEYWORDS_OF_TYPE:
            check.refuse(path, f"'{name}' is not a type")


def _check_named(check: _Check, value: Any, path: str, keyword: str) -> None:
    """``properties`` and the definitions: names and their schemas."""
    if not isinstance(value, dict):
        check.refuse(path, f"'{keyword}' must be an object")
    if keyword in _CONTAINERS_OF_SCHEMAS:
        check.definitions += len(value)
    if len(value) > check.limits.properties or check.definitions > check.limits.definitions:
        check.refuse(path, f"'{keyword}' has too many members")
    for name, schema in value.items():
        if len(name) > check.limits.name_chars:
            check.refuse(path, f"a name in '{keyword}' is longer than {check.limits.name_chars} characters")
        if keyword == "properties" and name == "*":
            check.refuse(f"{path}.*", "a property called '*' cannot be enforced by the engine")
        check.text(name, path)
        check.child(schema, f"{path}.{name}", f"{keyword}/{name.replace('/', '~1')}", len(name))


def _check_alternatives(check: _Check, value: Any, path: str, keyword: str) -> None:
    if not isinstance(value, list) or not value:
        check.refuse(path, f"'{keyword}' must be a list of at least one schema")
    if keyword == "allOf" and len(value) > 1:
        check.refuse(path, "'allOf' of more than one schema is not enforced by the engine")
    if len(value) > check.limits.alternatives:
        check.refuse(path, f"'{keyword}' has more than {check.limits.alternatives} schemas")
    for index, schema in enumerate(value):
        check.child(schema, f"{path}[{index}]", f"{keyword}/{index}", len(keyword))


def _check_required(check: _Check, value: Any, path: str, _keyword: str) -> None:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        check.refuse(path, "'required' must be a list of strings")
    if len(set(value)) < len(value):
        check.refuse(path, "'required' names a property twice")


def _check_subschema(check: _Check, value: Any, path: str, keyword: str) -> None:
    if value is not False:
        check.child(value, path, keyword, len(keyword))


def _check_count(check: _Check, value: Any, path: str, keyword: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        check.refuse(path, f"'{keyword}' must be a whole number that is not negative")
    if value > check.limits.repetitions:
        check.refuse(path, f"'{keyword}' is more than {check.limits.repetitions}")


def _check_bound(check: _Check, value: Any, path: str, keyword: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        check.refuse(path, f"'{keyword}' must be a number")
    check.nodes += _NODES_OF_A_BOUND
    if abs(value) > FARTHEST_INTEGER:
        check.refuse(path, f"'{keyword}' is beyond {FARTHEST_INTEGER}")


def _check_pattern(check: _Check, value: Any, path: str, _keyword: str) -> None:
    if not isinstance(value, str):
        check.refuse(path, "'pattern' must be a string")
    check.text(value, path)
    try:
        lower_pattern(value)
    except ValueError as error:
        check.refuse(path, str(error))


def _check_format(check: _Check, value: Any, path: str, _keyword: str) -> None:
    if not isinstance(value, str) or value not in FORMATS:
        check.refuse(path, f"the engine enforces no 'format' but {', '.join(sorted(FORMATS))}")


def _check_reference(check: _Check, value: Any, path: str, _keyword: str) -> None:
    if not isinstance(value, str) or not (value == "#" or value.startswith("#/")):
        check.refuse(path, "'$ref' must be '#' or begin with '#/': only places in the same schema can be referred to")
    if "~" in value or "%" in value:
        check.refuse(path, "'$ref' must not contain an escape")
    check.referred.setdefault(value, path)
    if len(check.referred) > check.limits.definitions:
        check.refuse(path, "the schema refers to too many places")


def _check_enum(check: _Check, value: Any, path: str, _keyword: str) -> None:
    if not isinstance(value, list) or not value:
        check.refuse(path, "'enum' must be a list of at least one value")
    check.enum_values += len(value)
    if check.enum_values > check.limits.enum_values:
        check.refuse(path, "there are too many values of 'enum' here")
    check.text(value, path)


_CHECKS: Final[Mapping[str, Callable[[_Check, Any, str, str], None]]] = {
    "type": _check_type,
    "properties": _check_named,
    "$defs": _check_named,
    "definitions": _check_named,
    "required": _check_required,
    "additionalProperties": _check_subschema,
    "items": _check_subschema,
    "prefixItems": _check_alternatives,
    "anyOf": _check_alternatives,
    "oneOf": _check_alternatives,
    "allOf": _check_alternatives,
    "minItems": _check_count,
    "maxItems": _check_count,
    "minLength": _check_count,
    "maxLength": _check_count,
    "minimum": _check_bound,
    "maximum": _check_bound,
    "exclusiveMinimum": _check_bound,
    "exclusiveMaximum": _check_bound,
    "pattern": _check_pattern,
    "format": _check_format,
    "$ref": _check_reference,
    "enum": _check_enum,
    "const": lambda check, value, path, _keyword: check.text(value, path),
}
"""What each keyword's own value must be."""
