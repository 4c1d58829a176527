"""Which request opens a WebSocket, and what of it the protocol of the WebSocket needs."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

SOCKET_PATH = "/v1/responses"
"""The path that has a WebSocket."""

_SOCKET_VERSION = b"13"
_SOCKET_KEY_BYTES = 16


class SocketProtocol(Protocol):
    """What takes a connection over once it is a WebSocket's."""

    def take_over(self, head: SocketHead, transport: asyncio.Transport) -> None:
        """Answer the handshake."""
        ...

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        ...


@dataclass(frozen=True, slots=True)
class SocketHead:
    """The head of a request that opens a WebSocket, and what came behind it."""

    target: bytes
    """As it stands in the first line."""
    headers: list[tuple[bytes, bytes]]
    """Names are in lower case."""
    key: bytes
    early: bytes


def opens_socket(target: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a ``GET`` of HTTP/1.1 that offers ``websocket`` is a whole handshake of version 13, on the right path.

    (RFC 6455, 4.2.1.) One with a body is none.
    """
    return target.partition(b"?")[0] == SOCKET_PATH.encode() and _is_whole(headers)


def _is_whole(headers: list[tuple[bytes, bytes]]) -> bool:
    found: Mapping[bytes, bytes] = dict(headers)
    bodiless = b"transfer-encoding" not in found and found.get(b"content-length", b"0") == b"0"
    versioned = found.get(b"sec-websocket-version") == _SOCKET_VERSION
    return bodiless and versioned and b"host" in found and _is_key(found.get(b"sec-websocket-key", b""))


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == _SOCKET_KEY_BYTES
    except binascii.Error:
        return False
