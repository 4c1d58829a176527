"""Reading a request's body within its bounds: type, encoding, size, time, JSON."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect, Request

from coterie.config import LimitSettings
from coterie.errors import ApiError
from coterie.wire.json_body import parse_object


async def read_object(request: Request, limits: LimitSettings) -> dict[str, Any]:
    """The JSON object in the body of ``request``. Raises ``ApiError``; ``ClientDisconnect`` where the client left."""
    _check_type(request)
    return parse_object(await _read(request, limits), max_depth=limits.json_depth)


def _check_type(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        # Not unpacked at all: a few bytes could become gigabytes.
        raise ApiError("unsupported_media_type", media_type=f"content-encoding: {encoding}")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError("unsupported_media_type", media_type=media_type or "none")


async def _read(request: Request, limits: LimitSettings) -> bytes:
    """The body. What is beyond the limit is left to the connection, which throws it away or closes."""
    declared = request.headers.get("content-length")
    if declared is not None and int(declared) > limits.body_bytes:
        raise ApiError("request_too_large", limit=limits.body_bytes)
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


__all__ = ["ClientDisconnect", "read_object"]
