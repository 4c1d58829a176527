"""How values lie in the database, and come out again. Pure."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

Item = dict[str, Any]
"""An item of the Responses API, in the API's shape, with its ``id``."""

PACKED_FROM_BYTES: Final = 4 * 1024
"""Longer streams are stored compressed."""

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
