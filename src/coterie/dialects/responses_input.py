"""Items of the Responses API, from what a caller wrote to what is stored and translated. Pure.

What it promises: an item that comes out has its ``type``, and an ``id`` and a ``status`` where its kind has them; its
content is a list of parts; nothing is null. It is what ``GET /v1/responses/{id}/input_items`` answers. References stay
references. The caller's values are not changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from coterie.dialects.responses_item_models import (
    INPUT_PARTS,
    ITEMS_ELSEWHERE,
    OUTPUT_PARTS,
    PARTS_ELSEWHERE,
    Items,
)
from coterie.dialects.validation import Strict, validate
from coterie.errors import ApiError
from coterie.wire.ids import new_id

Item = dict[str, Any]
"""An item as the API has it."""

_ID_PREFIXES: Final[Mapping[str, str]] = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "compaction": "cmp",
}
_WITHOUT_STATUS: Final = frozenset({"compaction"})
_PARTS_OF_ROLE: Final[Mapping[str, tuple[str, ...]]] = {
    "user": INPUT_PARTS, "system": INPUT_PARTS, "developer": INPUT_PARTS, "assistant": OUTPUT_PARTS,
}  # fmt: skip

_ELSEWHERE_FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    "input_image": {"file_id": " Send 'image_url'."},
    "input_file": {"file_id": " Send 'file_data'.", "file_url": " Send 'file_data'."},
}
"""Fields of parts that lead to where nothing here can look, and what to send instead."""
_DETAILS_ELSEWHERE: Final[Mapping[str, tuple[str, ...]]] = {"input_image": ("original",), "input_file": ("low", "high")}
_SUBSTANCE: Final[Mapping[str, str]] = {"input_image": "image_url", "input_file": "file_data"}


class _ItemList(Strict):
    items: Items


def parse_items(items: Any, limit: int) -> tuple[Item, ...]:
    """Check a list of at most ``limit`` items that stands for itself, under ``items``. Raises ``ApiError``."""
    typed = with_types(items, "items", limit)
    validate(_ItemList, {"items": typed})
    return finished(typed, "items")


def with_types(items: Any, param: str, limit: int) -> Any:
    """``items``, each with the type that it means; what is no list is left to validation.

    Raises ``ApiError`` for more than ``limit`` of them, and for kinds of items and parts that do not exist here.
    """
    if not isinstance(items, list):
        return items
    if len(items) > limit:
        raise ApiError("array_above_max_length", param=param, limit=limit, actual=len(items))
    return [_with_type(item, f"{param}[{i}]") if isinstance(item, dict) else item for i, item in enumerate(items)]


def finished(items: Sequence[Mapping[str, Any]], param: str) -> tuple[Item, ...]:
    """Validated items as they are kept. Raises ``ApiError`` for parts whose content is elsewhere."""
    return tuple(_finished(item, f"{param}[{i}]") for i, item in enumerate(items))


def message_of(text: str) -> Item:
    """The item that a text by itself stands for."""
    return _finished({"type": "message", "role": "user", "content": text}, "input")


def _with_type(item: dict[str, Any], path: str) -> dict[str, Any]:
    kind = item.get("type")
    if kind is None:
        meant = "message" if "role" in item else "item_reference" if item.keys() | {"type"} == {"id", "type"} else None
        kind, item = meant, item if meant is None else {**item, "type": meant}
    if not isinstance(kind, str):
        return item
    if kind in ITEMS_ELSEWHERE:
        raise ApiError("unsupported_value", param=f"{path}.type", value=f"'{kind}'")
    if kind == "message":
        role = item.get("role")
        _check_kinds(item.get("content"), f"{path}.content", _PARTS_OF_ROLE.get(role) if type(role) is str else None)
    elif kind == "function_call_output":
        _check_kinds(item.get("output"), f"{path}.output", INPUT_PARTS)
    return item


def _check_kinds(parts: Any, path: str, allowed: tuple[str, ...] | None) -> None:
    if not isinstance(parts, list) or allowed is None:
        return
    for j, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind in allowed:
            continue
        if kind in PARTS_ELSEWHERE:
            raise ApiError("unsupported_value", param=f"{path}[{j}].type", value=f"'{kind}'")
        raise ApiError("invalid_value", param=f"{path}[{j}]", said=_not_among(kind, allowed))


def _not_among(kind: str, allowed: tuple[str, ...]) -> str:
    """OpenAI's words, which name the value and not its place."""
    named = [f"'{name}'" for name in allowed]
    listed = f"{', '.join(named[:-1])}{',' if len(named) > 2 else ''} and {named[-1]}"
    return f"Invalid value: '{kind[:64]}'. Supported values are: {listed}."


def _finished(item: Mapping[str, Any], path: str) -> Item:
    kind = item["type"]
    given = _without_nulls(item)
    if kind == "item_reference":
        return given
    done: Item = {"id": given.get("id") or new_id(_ID_PREFIXES[kind]), "type": kind}
    if kind not in _WITHOUT_STATUS:
        done["status"] = "completed"
    else:
        given.pop("status", None)
    done |= given
    if kind == "message":
        done["content"] = _parts(given["content"], f"{path}.content", by_model=given["role"] == "assistant")
    elif kind == "function_call_output" and not isinstance(given["output"], str):
        done["output"] = _parts(given["output"], f"{path}.output", by_model=False)
    return done


def _parts(content: str | list[dict[str, Any]], path: str, *, by_model: bool) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [_part({"type": "output_text" if by_model else "input_text", "text": content}, path)]
    return [_part(part, f"{path}[{j}]") for j, part in enumerate(content)]


def _part(part: Mapping[str, Any], path: str) -> dict[str, Any]:
    kind, given = part["type"], _without_nulls(part)
    for field, hint in _ELSEWHERE_FIELDS.get(kind, {}).items():
        if field in given:
            raise ApiError("unsupported_parameter", param=f"{path}.{field}", hint=hint)
    substance = _SUBSTANCE.get(kind)
    if substance is not None and substance not in given:
        raise ApiError("missing_required_parameter", param=f"{path}.{substance}")
    if given.get("detail") in _DETAILS_ELSEWHERE.get(kind, ()):
        raise ApiError("unsupported_value", param=f"{path}.detail", value=f"'{given['detail']}'")
    return {**_PART_DEFAULTS.get(kind, {}), **given}


_PART_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "input_image": {"detail": "auto"},
    "output_text": {"annotations": [], "logprobs": []},
}
"""What parts have that the specifications require of answers and not of requests."""


def _without_nulls(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: inner for name, inner in value.items() if inner is not None}
