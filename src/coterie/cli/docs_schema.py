"""JSON Schemas in words, for the tables of generated pages. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

_Schema = Mapping[str, Any]

_MOST: Final = 10_000_000
"""Bounds beyond this (a year in seconds, the whole numbers of 64 bits) are no bounds to a reader."""


def in_words(schema: _Schema) -> str:
    """What a value may be: ``integer, 1 to 128``. Null is left out, as it everywhere means "not given"."""
    for several in ("anyOf", "oneOf"):
        if several in schema:
            words = [in_words(each) for each in schema[several] if each.get("type") != "null"]
            return " or ".join(dict.fromkeys(words))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = "object" if "$ref" in schema else str(schema.get("type", "any value"))
    pattern = [f"matching `{schema['pattern']}`"] if "pattern" in schema else []
    return ", ".join([kind, *_inside(schema), *_bounds(schema), *pattern])


def table_row(cells: Iterable[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"


BAR: Final = r"\|"
"""How a table's cell has a bar."""


def _inside(schema: _Schema) -> list[str]:
    if schema.get("type") != "array":
        return []
    inner = schema.get("items") or {}
    return [f"each {in_words(inner)}"] if inner else []


def _bounds(schema: _Schema) -> list[str]:
    return [
        text
        for least, most, unit in _PAIRS
        if (text := _range(schema.get(least), schema.get(most), unit, exclusive=least.startswith("exclusive")))
    ]


_PAIRS: Final = (
    ("exclusiveMinimum", "exclusiveMaximum", ""),
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " elements"),
    ("minProperties", "maxProperties", " members"),
)


def _range(least: float | None, most: float | None, unit: str, *, exclusive: bool) -> str:
    least = least if least is not None and least >= -_MOST else None
    most = most if most is not None and most <= _MOST else None
    if least is None and most is None:
        return ""
    if exclusive:
        return f"more than {least:g}{unit}" if least is not None else f"less than {most:g}{unit}"
    if least is not None and most is not None:
        return f"{_plain(least)} to {_plain(most)}{unit}"
    word, number = ("at least", least) if least is not None else ("at most", most)
    return f"{word} {_plain(number)}{unit.removesuffix('s') if number == 1 else unit}"


def _plain(number: float | None) -> str:
    return f"{int(number)}" if number is not None and number == int(number) else f"{number}"
