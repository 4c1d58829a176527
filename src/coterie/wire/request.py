"""Writing the head of an HTTP/1.1 request: nothing that a caller gives can become another line of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_OWN_HEADERS: Final = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "expect", "te", "upgrade"}
)
"""What frames a message is not for callers to write."""

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = re.compile(r"/[\x21-\x7e]*")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def request_head(method: str, path: str, own: Mapping[str, str], headers: Mapping[str, str], size: int) -> bytes:
    """Write the head of a request whose body has ``size`` bytes; ``own`` are headers that callers cannot give.

    Raises ``ValueError`` for what would not be one line each, and for ``headers`` that frame the message.
    """
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(path):
        raise ValueError("a method or a path that cannot stand in a request")
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in own.items())]
    lines.append(f"content-length: {size}")
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in _OWN_HEADERS:
            raise ValueError(f"a header that cannot be sent: {name!r}")
        lines.append(f"{name}: {value}")
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def request_bytes(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Write a request that asks for its connection to be closed after the answer. Raises ``ValueError``."""
    return request_head(method, path, {"host": "localhost", "connection": "close"}, headers, len(body)) + body
