"""A request's JSON, read strictly. Pure.

JSON parsers disagree about what the grammar leaves open, and a gateway that reads a body otherwise than its author
meant it acts on something nobody sent. So what is ambiguous is refused: a key given twice in one object, NaN and
infinities (also ``1e400``, which becomes one), lone surrogates (they cannot be written as UTF-8), bytes that are not
UTF-8, and nesting deeper than a limit.

orjson refuses all of it but duplicate keys and moderate depth. Duplicates are looked for by counting: each key written
is a quote, white space and a colon, so where the body has as many of those as the parsed value has keys, no key was
written twice. Only where text inside strings looks like a key too does the slower scan of the standard library decide.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import orjson

from coterie.errors import ApiError

MAX_MARKS: Final = 250_000
"""Commas and opening brackets of a body at most, those in strings included: they bound the values that it can hold, and
with them the time and the memory that reading takes. A body of 32 MB could hold ten million empty lists."""

_KEY_END: Final = re.compile(rb'"[ \t\r\n]*:')

_LISTED_BYTES: Final = 65_536
"""A body up to this size has its keys' ends listed, which is faster than to go through them and takes more memory."""


def parse_object(body: bytes, *, max_depth: int) -> dict[str, Any]:
    """Return the JSON object that ``body`` is. Raises ``ApiError`` ``invalid_json``."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_MARKS:
        raise ApiError("invalid_json", reason=f"more than {MAX_MARKS} commas and brackets")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError("invalid_json", reason=_reason(error)) from None
    if not isinstance(value, dict):
        raise ApiError("invalid_json", reason=f"expected an object, but got {json_type(value)}")
    if _count_keys(value, max_depth) != _count_key_ends(body):
        json.loads(body, object_pairs_hook=_distinct)
    return value


def json_type(value: object) -> str:
    """The JSON type of ``value`` with its article, as OpenAI's messages name it."""
    return next((name for types, name in _TYPE_NAMES if isinstance(value, types)), "a value of another kind")


_TYPE_NAMES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (str, "a string"),
    (int, "an integer"),
    (float, "a decimal"),
    ((list, tuple), "an array"),
    (dict, "an object"),
    (type(None), "null"),
)


def _count_keys(value: dict[str, Any], max_depth: int) -> int:
    """Count the keys of all objects, level by level. Raises ``ApiError`` beyond ``max_depth`` levels."""
    keys = 0
    level: list[Any] = [value]
    for _ in range(max_depth):
        below: list[Any] = []
        for parent in level:
            if type(parent) is dict:
                keys += len(parent)
                parent = parent.values()
            for child in parent:
                if type(child) is dict or type(child) is list:
                    below.append(child)  # noqa: PERF401 - twice as fast as a comprehension for so few
        if not below:
            return keys
        level = below
    raise ApiError("invalid_json", reason=f"nesting deeper than {max_depth} levels")


def _count_key_ends(body: bytes) -> int:
    if len(body) <= _LISTED_BYTES:
        return len(_KEY_END.findall(body))
    return sum(1 for _ in _KEY_END.finditer(body))


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    """Refuse a key given twice. The value is thrown away: orjson has made it already."""
    if len({key for key, _ in pairs}) == len(pairs):
        return
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ApiError("invalid_json", reason=f"the key '{key[:64]}' is given twice")
        seen.add(key)


def _reason(error: orjson.JSONDecodeError) -> str:
    """The parser's words with its place; both speak of the caller's own text alone."""
    return f"{error.msg} (line {error.lineno}, column {error.colno})".replace("\n", " ")
