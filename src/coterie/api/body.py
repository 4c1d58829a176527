"""Reading a request's body within its bounds: type, encoding, size, time, JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request

from coterie.api.line import ClientLine
from coterie.config import LimitSettings
from coterie.errors import ApiError
from coterie.wire.json_body import parse_object


async def read_object(request: Request, limits: LimitSettings) -> dict[str, Any]:
    """The JSON object in the body of ``request``. Raises ``ApiError``; ``ClientDisconnect`` where the client left."""
    headers = dict(reversed(request.scope["headers"]))  # the first of a name counts
    _check_type(headers)
    _check_length(headers, limits)
    line = request.scope.get("coterie.client")
    body = line.take_body(limits.body_bytes) if isinstance(line, ClientLine) else None
    if body is None:
        body = await _receive(request, limits)
    return parse_object(body, max_depth=limits.json_depth)


def _check_type(headers: Mapping[bytes, bytes]) -> None:
    if headers.get(b"content-type") == b"application/json" and b"content-encoding" not in headers:
        return
    encoding = _plain(headers.get(b"content-encoding", b""))
    if encoding not in ("identity", ""):
        # Not unpacked at all: a few bytes could become gigabytes.
        raise ApiError("unsupported_media_type", media_type=f"content-encoding: {encoding}")
    media_type = _plain(headers.get(b"content-type", b"").partition(b";")[0])
    if media_type != "application/json":
        raise ApiError("unsupported_media_type", media_type=media_type or "none")


def _check_length(headers: Mapping[bytes, bytes], limits: LimitSettings) -> None:
    """What is beyond the limit is left to the connection, which throws it away or closes."""
    declared = headers.get(b"content-length")
    if declared is not None and int(declared) > limits.body_bytes:
        raise ApiError("request_too_large", limit=limits.body_bytes)


async def _receive(request: Request, limits: LimitSettings) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            async for part in request.stream():
                size += len(part)
                if size > limits.body_bytes:
                    raise ApiError("request_too_large", limit=limits.body_bytes)
                parts.append(part)
    except TimeoutError:
        headers = {"connection": "close"}
        raise ApiError("request_timeout", limit_s=f"{limits.body_timeout_s:g}", headers=headers) from None
    return b"".join(parts)


def _plain(value: bytes) -> str:
    return value.decode("latin-1").strip().lower()


__all__ = ["ClientDisconnect", "read_object"]
