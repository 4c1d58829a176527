"""Writing the head of an HTTP/1.1 request: nothing that a caller gives can become another line of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_OWN_HEADERS: Final = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "expect", "te", "upgrade"}
)
"""What frames a message is not for callers to write."""

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = re.compile(r"/[\x21-\x7e]*")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True, slots=True)
class RequestForm:
    """The head of requests that differ in nothing but the size of their body: what stands before and behind that."""

    method: str
    before: bytes
    behind: bytes

    @classmethod
    def of(cls, method: str, path: str, own: Mapping[str, str], headers: Mapping[str, str]) -> RequestForm:
        """That of a method, a path and headers, of which callers cannot give those of ``own``.

        Raises ``ValueError`` for what would not be one line each, and for ``headers`` that frame the message.
        """
        if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(path):
            raise ValueError("a method or a path that cannot stand in a request")
        before = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in own.items()), "content-length: "]
        behind = [""]
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value) or name.lower() in _OWN_HEADERS:
                raise ValueError(f"a header that cannot be sent: {name!r}")
            behind.append(f"{name}: {value}")
        return cls(method, "\r\n".join(before).encode("latin-1"), "\r\n".join((*behind, "", "")).encode("latin-1"))

    def head(self, size: int) -> bytes:
        """The head of a request whose body has ``size`` bytes."""
        return b"%b%d%b" % (self.before, size, self.behind)


def request_head(method: str, path: str, own: Mapping[str, str], headers: Mapping[str, str], size: int) -> bytes:
    """Write the head of one request. Raises ``ValueError`` as :meth:`RequestForm.of` does."""
    return RequestForm.of(method, path, own, headers).head(size)


def request_bytes(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Write a request that asks for its connection to be closed after the answer. Raises ``ValueError``."""
    return request_head(method, path, {"host": "localhost", "connection": "close"}, headers, len(body)) + body
