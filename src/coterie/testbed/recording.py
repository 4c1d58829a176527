"""From what was seen on a connection to what is written down: unpacked, scrubbed, with its times. Pure."""

from __future__ import annotations

import zlib
from typing import Final

from coterie.testbed.exchange_file import (
    Ended,
    Exchange,
    Response,
    recorded_chunk,
    scrubbed_request,
    scrubbed_response,
)
from coterie.testbed.exchange_tap import SeenRequest, SeenResponse

_MS: Final = 1000.0
_UNPACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})


class NotScrubbableError(Exception):
    """A body cannot be looked into, so nobody knows what secrets are in it. The text says why."""


def exchange_of(
    request: SeenRequest, response: SeenResponse, ended: Ended, ended_ms: float, limit_bytes: int
) -> Exchange:
    """What is written down of an exchange that took ``ended_ms``; ``limit_bytes`` bound an unpacked body.

    Raises :class:`NotScrubbableError` and ``ValueError``.
    """
    if (request.header("content-encoding") or "identity").lower() != "identity":
        raise NotScrubbableError("a compressed request")
    return Exchange(
        request=scrubbed_request(request.method, request.target, request.headers, bytes(request.body)),
        response=_response(response, limit_bytes) if response.status else None,
        ended=ended,
        ended_ms=round(ended_ms, 3),
    )


def _response(seen: SeenResponse, limit_bytes: int) -> Response:
    encoding = (seen.header("content-encoding") or "identity").lower()
    chunks, headers = [data for _, data in seen.chunks], seen.headers
    if encoding != "identity":
        chunks, headers = _unpacked(seen, encoding, limit_bytes)
    response = Response(
        status=seen.status,
        reason=seen.reason,
        headers=headers,
        head_ms=round(seen.head_s * _MS, 3),
        chunks=[
            (round(at_s * _MS, 3), recorded_chunk(data)) for (at_s, _), data in zip(seen.chunks, chunks, strict=True)
        ],
    )
    return scrubbed_response(response)


def _unpacked(seen: SeenResponse, encoding: str, limit_bytes: int) -> tuple[list[bytes], list[tuple[str, str]]]:
    """The chunks and headers of a compressed answer as if it were none."""
    if encoding not in _UNPACKED:
        raise NotScrubbableError("an answer in a compression that cannot be read")
    unpacker = zlib.decompressobj(wbits=47)  # a header of gzip or of zlib, whichever there is
    chunks: list[bytes] = []
    left = limit_bytes
    for _, data in seen.chunks:
        try:
            chunks.append(unpacker.decompress(data, left + 1))
        except zlib.error:
            raise NotScrubbableError("an answer whose compression is broken") from None
        left -= len(chunks[-1])
        if left < 0:
            raise NotScrubbableError("more bytes than are recorded")
    if unpacker.unused_data or (seen.complete and seen.size_bytes and not unpacker.eof):
        raise NotScrubbableError("an answer whose compression is broken")
    grown = sum(map(len, chunks)) - seen.size_bytes
    return chunks, [
        (name, str(int(value) + grown) if name.lower() == "content-length" and value.isdigit() else value)
        for name, value in seen.headers
        if name.lower() != "content-encoding"
    ]
