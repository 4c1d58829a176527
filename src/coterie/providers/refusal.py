"""What another server says instead of an answer. What it promises:

* A refusal is judged by its status and its body, and neither is waited for nor read without bound.
* Where the body does not come whole the status decides, with what came of it. A status that means anything from a full
  context to a bug (:data:`TOLD_BY_BODY`) decides nothing without the body: the failure is that of the transport then.
* Nobody asks for compression. A refusal's body is unpacked where that can be done, and else it is as if it had not
  come; an answer that is compressed is none.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from coterie.errors import ApiError
from coterie.errors.upstream import from_response, from_transport
from coterie.providers.deadlines import late
from coterie.wire.http1 import Exchange, ExchangeError, Head

BODY_BYTES: Final = 256 * 1024
"""More of a refusal's body is not read, nor unpacked."""

BODY_S: Final = 2.0
"""How long the body of a refusal may take after its head."""

TOLD_BY_BODY: Final = frozenset({400, 413, 422})
"""Statuses of which only the body tells whose failure it is."""

_UNPACKABLE: Final = frozenset({"gzip", "x-gzip", "deflate"})
_EITHER_HEADER: Final = zlib.MAX_WBITS | 32  # zlib's own way to say "gzip or zlib"


async def refusal_of(head: Head, exchange: Exchange, prompt_param: str) -> ApiError:
    """The failure that an answer is whose status is not 200, also where its body breaks off or is late."""
    body, broken = await _refusal_body(exchange)
    told = body if broken is not None else _unpacked(head, body)
    if told is None:
        told, broken = b"", ApiError("upstream_protocol_error", detail=f"a refusal that is {_coding(head)}")
    if broken is not None and head.status in TOLD_BY_BODY:
        return broken
    return from_response(head.status, head.headers, told, prompt_param=prompt_param)


async def _refusal_body(exchange: Exchange) -> tuple[bytes, ApiError | None]:
    """What came of a body within the bounds, and what kept the rest from coming."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in exchange:
                body += part
                if len(body) > BODY_BYTES:
                    break
    except TimeoutError:
        return bytes(body), late(BODY_S, first=False)
    except ExchangeError as error:
        return bytes(body), from_transport(error.kind, detail=str(error))
    except ApiError as deadline:
        return bytes(body), deadline
    return bytes(body[:BODY_BYTES]), None


def _unpacked(head: Head, body: bytes) -> bytes | None:
    """``body`` as it was before it was compressed, within the same bound; ``None`` where it cannot be had."""
    coding = _coding(head)
    if coding == "identity":
        return body
    if coding not in _UNPACKABLE:
        return None
    try:
        return zlib.decompressobj(_EITHER_HEADER).decompress(body, BODY_BYTES)
    except zlib.error:
        return None


def _coding(head: Head) -> str:
    return head.headers.get("content-encoding", "").strip().lower() or "identity"


def check_coding(head: Head) -> None:
    """Raise ``ApiError`` for an answer that is compressed, against what was asked for."""
    if _coding(head) != "identity":
        raise ApiError("upstream_protocol_error", detail=f"an answer that is {_coding(head)[:100]}")
