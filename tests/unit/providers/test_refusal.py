"""Refusals whose body comes whole, late, in part, compressed or not at all."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any, cast

import orjson
import pytest

from coterie.errors import ApiError
from coterie.errors.upstream import from_response
from coterie.providers import refusal
from coterie.providers.refusal import BODY_BYTES, TOLD_BY_BODY, check_coding, refusal_of
from coterie.wire.http1 import Exchange, ExchangeError, Head

LATE = TimeoutError()
RESET = ExchangeError("the connection broke", "broken")
DEADLINE = ApiError("upstream_total_timeout", limit_s="1")

MESSAGE = "temperature must not be above 2"
BODY = orjson.dumps({"error": {"message": MESSAGE, "type": "invalid_request_error", "param": "temperature"}})
OTHER_CODINGS = ("br", "zstd", "gzip, gzip", "compress")


async def refused(status: int, *parts: bytes, end: Exception | None = None, coding: str | None = None) -> ApiError:
    """What a refusal is whose body comes in ``parts`` and then ends, in the way of ``end``."""

    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part
        if end is LATE:
            await asyncio.Event().wait()
        elif end is not None:
            raise end

    head = Head(status, {} if coding is None else {"content-encoding": coding})
    return await refusal_of(head, cast("Exchange", body()), "messages")


async def test_a_whole_refusal_is_told_by_its_body() -> None:
    failure = await refused(400, BODY[:7], BODY[7:])
    assert (failure.param, MESSAGE in failure.message) == ("temperature", True)


ENDS: dict[str, tuple[Any, str]] = {
    "late": (LATE, "upstream_timeout"),
    "reset": (RESET, "upstream_stream_interrupted"),
    "deadline": (DEADLINE, "upstream_total_timeout"),
}


@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("part", [b"", BODY[:-9]], ids=["nothing", "a part"])
@pytest.mark.parametrize("status", sorted(TOLD_BY_BODY))
async def test_a_status_that_says_nothing_alone_leaves_the_transport(
    status: int, part: bytes, end: Exception, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal, "BODY_S", 0.01)
    assert (await refused(status, part, end=end)).code == code


@pytest.mark.parametrize("end", [LATE, RESET, DEADLINE], ids=ENDS.keys())
@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_a_status_that_says_enough_decides(status: int, end: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "BODY_S", 0.01)
    assert (await refused(status, end=end)).code == from_response(status, {}, b"").code


async def test_a_body_is_read_within_its_bound() -> None:
    parts = [b"x" * 1024] * (BODY_BYTES // 1024 + 2)
    assert (await refused(503, *parts, end=AssertionError("all of it was read"))).code == "server_is_overloaded"


PACKED = {
    "gzip": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY),
    " GZIP": gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
    "identity": BODY,
    "": BODY,
}


@pytest.mark.parametrize(("coding", "packed"), PACKED.items(), ids=PACKED.keys())
async def test_a_compressed_refusal_is_unpacked(coding: str, packed: bytes) -> None:
    failure = await refused(400, packed[:9], packed[9:], coding=coding)
    assert (failure.param, MESSAGE in failure.message) == ("temperature", True)


async def test_a_bomb_is_unpacked_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[bytes] = []

    def noted(status: int, headers: Any, body: bytes, **fields: Any) -> ApiError:
        bodies.append(body)
        return from_response(status, headers, body, **fields)

    monkeypatch.setattr("coterie.providers.refusal.from_response", noted)
    bomb = gzip.compress(b" " * (100 * BODY_BYTES))
    assert (await refused(503, bomb, coding="gzip")).code == "server_is_overloaded"
    assert [len(body) for body in bodies] == [BODY_BYTES]


@pytest.mark.parametrize("coding", [*OTHER_CODINGS, "gzip"])
async def test_what_cannot_be_unpacked_is_not_shown(coding: str) -> None:
    for status in TOLD_BY_BODY:
        assert (await refused(status, b"\x1b\x03\x00 mojibake", coding=coding)).code == "upstream_protocol_error"
    failure = await refused(503, b"\x1b\x03\x00 mojibake", coding=coding)
    assert (failure.code, "mojibake" in repr(failure.detail)) == ("server_is_overloaded", False)


@pytest.mark.parametrize("coding", ["gzip", *OTHER_CODINGS])
def test_a_compressed_answer_is_none(coding: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_coding(Head(200, {"content-encoding": coding}))
    assert caught.value.code == "upstream_protocol_error"


@pytest.mark.parametrize("headers", [{}, {"content-encoding": ""}, {"content-encoding": "Identity"}])
def test_a_plain_answer_is_one(headers: dict[str, str]) -> None:
    check_coding(Head(200, headers))
