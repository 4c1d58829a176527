"""Reading a body: its type, its size, its time, its JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message
from tests.support.web import JSON

from coterie.api.body import read_object
from coterie.api.line import ClientLine
from coterie.config import LimitSettings
from coterie.errors import ApiError

LIMITS = LimitSettings(body_bytes=1024, body_timeout_s=60, json_depth=8)


def request_of(*parts: bytes, headers: Mapping[str, str] = JSON, hangs: bool = False, leaves: bool = False) -> Request:
    messages: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if leaves:
        messages.append({"type": "http.disconnect"})
    elif not hangs:
        messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


async def failure_of(request: Request, limits: LimitSettings = LIMITS) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await read_object(request, limits)
    return caught.value


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", " application/json ;x"],
)
async def test_json_by_any_of_its_names(content_type: str) -> None:
    request = request_of(b'{"a":', b"1}", headers={"content-type": content_type})
    assert await read_object(request, LIMITS) == {"a": 1}


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
async def test_no_encoding_by_any_of_its_names(encoding: str) -> None:
    assert await read_object(request_of(b"{}", headers={**JSON, "content-encoding": encoding}), LIMITS) == {}


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({}, "'none'"),
        ({"content-type": ""}, "'none'"),
        ({"content-type": "text/plain"}, "'text/plain'"),
        ({"content-type": "application/jsonp"}, "'application/jsonp'"),
        ({"content-type": "application/x-www-form-urlencoded"}, "'application/x-www-form-urlencoded'"),
        ({"content-type": "multipart/form-data; boundary=x"}, "'multipart/form-data'"),
        ({**JSON, "content-encoding": "gzip"}, "'content-encoding: gzip'"),
        ({**JSON, "content-encoding": "identity, br"}, "'content-encoding: identity, br'"),
    ],
)
async def test_other_types_and_encodings(headers: Mapping[str, str], named: str) -> None:
    error = await failure_of(request_of(b"{}", headers=headers))
    assert error.code == "unsupported_media_type"
    assert named in error.message


async def test_a_body_of_exactly_the_limit() -> None:
    body = json.dumps({"a": "x" * (1024 - len('{"a": ""}'))}).encode()
    headers = {**JSON, "content-length": "1024"}
    assert len(body) == 1024
    assert (await read_object(request_of(body[:500], body[500:], headers=headers), LIMITS)).keys() == {"a"}


async def test_a_body_that_is_announced_too_long_is_not_read() -> None:
    error = await failure_of(request_of(hangs=True, headers={**JSON, "content-length": "1025"}))
    assert error.code == "request_too_large"


async def test_a_body_that_becomes_too_long_is_read_no_further() -> None:
    assert (await failure_of(request_of(b"x" * 1000, b"x" * 25, hangs=True))).code == "request_too_large"


async def test_a_body_that_does_not_come() -> None:
    limits = LIMITS.model_copy(update={"body_timeout_s": 0.01})
    error = await failure_of(request_of(b'{"a":', hangs=True), limits)
    assert error.code == "request_timeout"
    assert error.headers == {"connection": "close"}
    assert "0.01 seconds" in error.message


@pytest.mark.parametrize("first", ["application/json", "text/plain"])
async def test_of_two_types_the_first_counts(first: str) -> None:
    other = {"application/json": "text/plain", "text/plain": "application/json"}[first]
    request = request_of(b"{}", headers={})
    request.scope["headers"] += [(b"content-type", first.encode()), (b"content-type", other.encode())]
    if first == "application/json":
        assert await read_object(request, LIMITS) == {}
    else:
        assert (await failure_of(request)).code == "unsupported_media_type"


class Brought(ClientLine):
    """A line on which a whole body has come, or ``None``."""

    def __init__(self, body: bytes | None) -> None:
        self.body = body
        self.asked: list[int] = []

    def take_body(self, limit_bytes: int) -> bytes | None:
        self.asked.append(limit_bytes)
        return self.body


async def test_a_body_that_has_come_is_taken() -> None:
    request, line = request_of(hangs=True), Brought(b'{"a": 1}')
    request.scope["coterie.client"] = line
    assert await read_object(request, LIMITS) == {"a": 1}
    assert line.asked == [1024]


async def test_one_that_has_not_is_received() -> None:
    request = request_of(b'{"a":', b"1}")
    request.scope["coterie.client"] = Brought(None)
    assert await read_object(request, LIMITS) == {"a": 1}


@pytest.mark.parametrize("headers", [{}, {**JSON, "content-length": "1025"}])
async def test_a_request_that_is_refused_keeps_its_body(headers: Mapping[str, str]) -> None:
    request, line = request_of(headers=headers), Brought(b"{}")
    request.scope["coterie.client"] = line
    await failure_of(request)
    assert not line.asked


async def test_a_client_that_leaves() -> None:
    with pytest.raises(ClientDisconnect):
        await read_object(request_of(b'{"a":', leaves=True), LIMITS)


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"[]", b"null", b'"a"', b"1", b"{", b"{}{}", b'{"a": NaN}', b'{"a": 1e400}', b'{"a": 1, "a": 2}',
        b'{"a": "\\ud800"}', b'{"a": "\xff"}', b"\xef\xbb\xbf{}", b'{"a": ' + b"[" * 9 + b"]" * 9 + b"}",
    ],
)  # fmt: skip
async def test_what_is_not_one_json_object(body: bytes) -> None:
    assert (await failure_of(request_of(body))).code == "invalid_json"
