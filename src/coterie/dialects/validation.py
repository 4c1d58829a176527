"""From pydantic's errors to the catalogue's, one by one. Pure.

The request models use two kinds of tagged unions: by a field (``role``, ``type``) and by the JSON type (a string or an
array). Both are made here, so that their errors say what OpenAI's say: ``messages[2].role`` and the values it may have,
rather than the name of one of our classes. Tags begin with a character that no path shows and are taken out of it.

Pydantic gathers every error before the first can be read, a kilobyte for each. So that a body of a million mistakes
costs no more than one: lists are to be declared with ``fail_fast``, objects of free keys with :func:`at_most`, and an
object with more members than its model has fields is refused before they are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    ValidationError,
    ValidationInfo,
    model_validator,
)  # fmt: skip
from pydantic_core import PydanticCustomError, PydanticKnownError

from coterie.errors import ApiError
from coterie.wire.json_body import json_type

_TAG: Final = "\ue000"


class Strict(BaseModel):
    """A part of a request: no conversions ("1" is not 1), and no field that is not named."""

    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _no_flood(cls, value: Any, info: ValidationInfo) -> Any:
        if info.context is _OPEN or not isinstance(value, dict):
            return value
        fields = cls.__pydantic_fields__
        if len(value) > len(fields):
            known = {field.alias or name for name, field in fields.items()}
            unknown = next(name for name in value if name not in known)
            raise PydanticCustomError("unknown_member", "too many members", {"name": unknown})
        return value


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], body: Mapping[str, Any]) -> Model:
    """Check ``body``. Raises the ``ApiError`` of the first thing that is wrong with it."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise to_api_error(error.errors(include_url=False)[0]) from None


def validate_openly(model: type[BaseModel], body: Mapping[str, Any]) -> None:
    """Check the fields of ``body`` that are known here; others, and members of unions that are not, may be anything.

    Raises the ``ApiError`` of the first known thing that is wrong.
    """
    try:
        model.model_validate(body, extra="allow", context=_OPEN)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if not _is_unknown_member(detail) and not _is_anothers_bound(detail):
                raise to_api_error(detail) from None


def _is_unknown_member(detail: Any) -> bool:
    """Whether an error is about a kind of message, part, tool or the like that is not known here."""
    if detail["type"] != "by_field" or not isinstance(detail["input"], dict):
        return False
    return isinstance(detail["input"].get(detail["ctx"]["field"]), str)


def _is_anothers_bound(detail: Any) -> bool:
    """Whether an error is about a bound that other servers draw elsewhere: vLLM takes -1 for "no top_k"."""
    return detail["loc"][:1] in _BOUNDS_OF_OTHERS and detail["type"] not in _EXPECTED


_BOUNDS_OF_OTHERS: Final = (("top_k",), ("min_p",), ("stop",))

_OPEN: Final = {"open": True}
"""The context of a validation that lets unknown fields pass."""


def tag(value: str) -> str:
    """The tag of a union's member, for ``pydantic.Tag``."""
    return _TAG + value


def at_most(members: int) -> BeforeValidator:
    """Refuse an object with more ``members``, before each of them is checked."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > members:
            context = {"field_type": "Object", "max_length": members, "actual_length": len(value)}
            raise PydanticKnownError("too_long", context)
        return value

    return BeforeValidator(check)


def _flag(value: Any) -> Any:
    # Literals compare by value, to which 0 is false.
    if not isinstance(value, bool):
        raise PydanticKnownError("bool_type")
    return value


Off = Annotated[Literal[False], BeforeValidator(_flag)]
"""A flag of which only ``false`` can be honoured."""


class _Context(dict[str, str | int | float]):
    """Facts for an error. ``typing`` hashes the annotations it combines, so this has a hash: its identity."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def by_field(field: str, values: Sequence[str]) -> Discriminator:
    """Choose a union's member by the string in ``field``."""

    tags = {name: tag(name) for name in values}

    def choose(value: Any) -> str | None:
        chosen = value.get(field) if isinstance(value, dict) else None
        return tags.get(chosen) if isinstance(chosen, str) else None

    return Discriminator(
        choose,
        custom_error_type="by_field",
        custom_error_message="no member",
        custom_error_context=_Context(field=field, values=", ".join(f"'{name}'" for name in values)),
    )


def by_type(**tags: type) -> Discriminator:
    """Choose a union's member by JSON type; ``tags`` maps a tag's name to its Python type."""

    by_kind = {kind: tag(name) for name, kind in tags.items()}

    def choose(value: Any) -> str | None:
        exact = by_kind.get(type(value))
        return exact or next((chosen for kind, chosen in by_kind.items() if isinstance(value, kind)), None)

    expected = " or ".join(_JSON_NAMES[kind] for kind in tags.values())
    return Discriminator(
        choose,
        custom_error_type="by_type",
        custom_error_message="no member",
        custom_error_context=_Context(expected=expected),
    )


_JSON_NAMES: Final[Mapping[type, str]] = {
    str: "a string", list: "an array", dict: "an object", int: "an integer", float: "a decimal", bool: "a boolean",
}  # fmt: skip


def to_api_error(detail: Any) -> ApiError:
    """The failure that one of pydantic's error details is."""
    kind, context, value = detail["type"], detail.get("ctx") or {}, detail["input"]
    location = [*detail["loc"]]
    # What the caller called a member stays, however it looks.
    members = [location.pop()] if kind == "extra_forbidden" else [context["name"]] if kind == "unknown_member" else []
    param = path([*(part for part in location if not _is_ours(part)), *members])
    if kind in ("int_type", "int_from_float") and isinstance(value, float) and abs(value) >= 2**63:
        # A whole number of more than 64 bits, which JSON parsers read as a decimal.
        code, limit = ("integer_above_max_value", 2**63 - 1) if value > 0 else ("integer_below_min_value", -(2**63))
        return ApiError(code, param=param, limit=limit, actual=f"{value:.17g}")
    if (expected := _EXPECTED.get(kind)) is not None:
        return ApiError("invalid_type", param=param, expected=expected, actual=json_type(value))
    make = _BY_KIND.get(kind)
    if make is None:
        return ApiError("invalid_value", param=param, reason="it is not allowed here", detail=f"pydantic: {kind}")
    return make(param, context, value)


def _is_ours(part: str | int) -> bool:
    """Whether a part of a location is a tag, or pydantic's mark for "the key itself"."""
    return isinstance(part, str) and (part.startswith(_TAG) or part == "[key]")


def path(parts: Sequence[str | int]) -> str:
    """``["messages", 0, "content"]`` as ``messages[0].content``; never empty, also for an empty name."""
    text = ""
    for part in parts:
        text += f"[{part!r}]" if isinstance(part, int) or not part else f".{part}" if text else part
    return text


_EXPECTED: Final[Mapping[str, str]] = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a decimal",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "none_required": "null",
}

_Make = Callable[[str, Mapping[str, Any], Any], ApiError]


def _missing(param: str, context: Mapping[str, Any], value: Any) -> ApiError:
    return ApiError("missing_required_parameter", param=param)


def _unknown(param: str, context: Mapping[str, Any], value: Any) -> ApiError:
    return ApiError("unknown_parameter", param=param)


def _by_field(param: str, context: Mapping[str, Any], value: Any) -> ApiError:
    if not isinstance(value, dict):
        return ApiError("invalid_type", param=param, expected="an object", actual=json_type(value))
    field = f"{param}.{context['field']}" if param else context["field"]
    if context["field"] not in value:
        return ApiError("missing_required_parameter", param=field)
    chosen = value[context["field"]]
    if not isinstance(chosen, str):
        return ApiError("invalid_type", param=field, expected="a string", actual=json_type(chosen))
    return supported(field, chosen, context["values"])


def _by_type(param: str, context: Mapping[str, Any], value: Any) -> ApiError:
    return ApiError("invalid_type", param=param, expected=context["expected"], actual=json_type(value))


def _literal(param: str, context: Mapping[str, Any], value: Any) -> ApiError:
    if isinstance(value, bool) and context["expected"] in _FLAGS:
        return ApiError("unsupported_value", param=param, value=str(value).lower())
    if not isinstance(value, str):
        return ApiError("invalid_type", param=param, expected="a string", actual=json_type(value))
    return supported(param, value, context["expected"])


_FLAGS: Final = frozenset({"True", "False"})
"""What pydantic expects where a model takes only one of the two; its texts stand in quotation marks."""


def supported(param: str, value: str, values: str) -> ApiError:
    """The failure of a string that is none of ``values``."""
    return ApiError("invalid_value", param=param, reason=f"'{value[:64]}'. Supported values are: {values}")


def _string_long(param: str, context: Mapping[str, Any], value: Any) -> ApiError:
    return ApiError("string_above_max_length", param=param, limit=context["max_length"], actual=len(value))


def _string_short(param: str, context: Mapping[str, Any], value: Any) -> ApiError:
    return ApiError("string_below_min_length", param=param, limit=context["min_length"], actual=len(value))


def _pattern(param: str, context: Mapping[str, Any], value: Any) -> ApiError:
    reason = "string does not match pattern. Expected a string that matches the pattern"
    return ApiError("invalid_value", param=param, reason=f"{reason} '{context['pattern']}'")


def _too_long(param: str, context: Mapping[str, Any], value: Any) -> ApiError:
    code = "object_above_max_properties" if isinstance(value, dict) else "array_above_max_length"
    return ApiError(code, param=param, limit=context["max_length"], actual=len(value))


def _too_short(param: str, context: Mapping[str, Any], value: Any) -> ApiError:
    return ApiError("empty_array", param=param, limit=context["min_length"])


def _number(bound: str, key: str) -> _Make:
    def make(param: str, context: Mapping[str, Any], value: Any) -> ApiError:
        limit = context[key]
        # The limits of decimal fields are written as floats, those of whole ones as integers.
        kind = "decimal" if isinstance(limit, float) else "integer"
        return ApiError(f"{kind}_{bound}_value", param=param, limit=_plain(limit), actual=_plain(value))

    return make


def _plain(number: float) -> str:
    """A number as JSON has it, whole ones without a point."""
    return repr(number).removesuffix(".0")


_BY_KIND: Final[Mapping[str, _Make]] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
    "unknown_member": _unknown,
    "by_field": _by_field,
    "by_type": _by_type,
    "literal_error": _literal,
    "string_too_long": _string_long,
    "string_too_short": _string_short,
    "string_pattern_mismatch": _pattern,
    "too_long": _too_long,
    "too_short": _too_short,
    "greater_than_equal": _number("below_min", "ge"),
    "less_than_equal": _number("above_max", "le"),
}
