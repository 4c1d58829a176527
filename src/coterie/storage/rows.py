"""How values lie in the database, and come out again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson

Item = dict[str, Any]
"""An item of the Responses API, in the API's shape, with its ``id``."""

PACKED_FROM_BYTES: Final = 4 * 1024
"""Longer streams are stored compressed."""

MOST_HISTORY_BYTES: Final = 32 * 1024 * 1024
"""What the earlier turns of one request may be long, where nobody says otherwise."""
READ_INLINE_BYTES: Final = 64 * 1024
"""What is longer is decoded off the event loop."""

T = TypeVar("T")

_PLAIN_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


def as_text(value: Sequence[Item] | Mapping[str, Any]) -> str:
    """``value`` as JSON."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # it reads deeper nesting than it writes
        return json.dumps(value)


def from_text(text: str) -> Any:
    """What :func:`as_text` wrote."""
    return orjson.loads(text)


def size_of(text: str) -> int:
    """How many bytes ``text`` is."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


async def decoded(length: int, decode: Callable[[], T]) -> T:
    """What ``decode`` makes of values of about ``length`` bytes; off the event loop where that is much work."""
    return decode() if length <= READ_INLINE_BYTES else await asyncio.to_thread(decode)


def item_values(item: Item) -> tuple[str, str, int]:
    """An item of a conversation as it is stored: its key, its text, and how many bytes that is."""
    text = as_text(item)
    return key(item["id"]), text, size_of(text)


def key(stranger_id: str) -> str:
    """The id under which something is stored and looked for.

    An id that a client made up may be of any length and hold characters that a database does not take: such a one is
    stored under its hash.
    """
    if _PLAIN_ID.fullmatch(stranger_id):
        return stranger_id
    return f"sha256 {hashlib.sha256(stranger_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


def pack(events: bytes | None) -> tuple[bytes | None, int]:
    """The bytes to store, and whether (1) they are compressed or (0) not."""
    if events is None or len(events) <= PACKED_FROM_BYTES:
        return events, 0
    return zlib.compress(events, 1), 1


def unpack(stored: bytes | None, packed: int) -> bytes | None:
    """What :func:`pack` was given."""
    return zlib.decompress(stored) if stored is not None and packed else stored
