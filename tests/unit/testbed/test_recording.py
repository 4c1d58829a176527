"""What is written down of what was seen: times, and bodies that were packed."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.testbed.exchange_tap import SeenRequest, SeenResponse
from coterie.testbed.recording import NotScrubbableError, exchange_of

REQUEST = SeenRequest("POST", "/v1/x", [("authorization", "Bearer x")], bytearray(b"{}"))


def seen(*chunks: bytes, encoding: str = "gzip", complete: bool = True) -> SeenResponse:
    made = SeenResponse(200, "OK", [("content-encoding", encoding)], 0.001, complete=complete)
    made.chunks = [(0.5 * number, data) for number, data in enumerate(chunks)]
    made.size_bytes = sum(map(len, chunks))
    return made


def test_times_are_milliseconds_and_secrets_are_gone() -> None:
    exchange = exchange_of(REQUEST, seen(b"a", b"b", encoding="identity"), "reset", 1000.00049, 100)
    assert exchange.response is not None
    assert [at for at, _ in exchange.response.chunks] == [0, 500]
    assert (exchange.response.head_ms, exchange.ended_ms, exchange.ended) == (1, 1000, "reset")
    assert exchange.request.headers == [("authorization", "[redacted]")]


def test_no_answer() -> None:
    assert exchange_of(REQUEST, SeenResponse(), "closed", 1, 100).response is None


@given(st.binary(max_size=50).filter(lambda data: not {*b'@":-_'} & {*data}), st.integers(0, 60))
def test_a_packed_body_is_unpacked_however_it_is_cut(body: bytes, cut: int) -> None:
    packed = gzip.compress(body)
    exchange = exchange_of(REQUEST, seen(packed[:cut], packed[cut:]), "complete", 1, 50)
    assert exchange.response is not None
    assert exchange.response.body == body
    assert exchange.response.headers == []


def test_what_is_cut_off_is_unpacked_as_far_as_it_came() -> None:
    packed = gzip.compress(bytes(50), compresslevel=0)
    exchange = exchange_of(REQUEST, seen(packed[:40], complete=False), "closed", 1, 50)
    assert exchange.response is not None
    assert 0 < len(exchange.response.body) < 50


PACKED = gzip.compress(b"hello")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (seen(PACKED[:-1]), "broken"),
        (seen(PACKED + b"x"), "broken"),
        (seen(b"hello"), "broken"),
        (seen(PACKED, encoding="br"), "cannot be read"),
        (seen(PACKED, encoding="gzip, gzip"), "cannot be read"),
        (seen(gzip.compress(bytes(51))), "more bytes"),
    ],
)
def test_what_cannot_be_looked_into(response: SeenResponse, reason: str) -> None:
    with pytest.raises(NotScrubbableError, match=reason):
        exchange_of(REQUEST, response, "complete", 1, 50)


def test_a_packed_request() -> None:
    request = SeenRequest("POST", "/", [("content-encoding", "gzip")], bytearray(PACKED))
    with pytest.raises(NotScrubbableError, match="request"):
        exchange_of(request, SeenResponse(), "closed", 1, 50)
