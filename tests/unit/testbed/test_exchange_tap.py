"""Requests and answers, read from bytes cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.testbed.exchange_tap import MAX_CHUNKS, MAX_HEAD_BYTES, RequestTap, ResponseTap, SeenRequest, TapError

POST = b"POST /v1/x?a=1 HTTP/1.1\r\nHost: h\r\nX-A: b\r\ncontent-length: 3\r\n\r\nabc"


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(min(cut, len(stream)) for cut in cuts)
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


def response_of(stream: bytes, *, limit: int = 1000, is_head: bool = False) -> ResponseTap:
    tap = ResponseTap(lambda: 1.0, limit, is_head=is_head)
    tap.feed(stream)
    return tap


@given(st.lists(st.integers(0, 2 * len(POST)), max_size=8))
def test_requests_cut_anywhere(cuts: list[int]) -> None:
    seen: list[SeenRequest] = []
    tap = RequestTap(seen.append, 1000)
    for piece in pieces(POST * 2, cuts):
        tap.feed(piece)
    assert tap.between_requests
    for request in seen:
        assert (request.method, request.target, bytes(request.body)) == ("POST", "/v1/x?a=1", b"abc")
        assert request.headers == [("Host", "h"), ("X-A", "b"), ("content-length", "3")]
        assert request.header("host") == "h"
    assert len(seen) == 2


def test_a_request_that_is_not_whole_is_not_given_out() -> None:
    seen: list[SeenRequest] = []
    tap = RequestTap(seen.append, 1000)
    tap.feed(POST[:-1])
    assert not seen
    assert not tap.between_requests


def test_too_large_a_request_is_given_out_without_its_body() -> None:
    seen: list[SeenRequest] = []
    RequestTap(seen.append, 2).feed(POST)
    assert seen[0].too_large
    assert not seen[0].body


def test_a_head_that_asks_first_is_told() -> None:
    told: list[bool] = []
    tap = RequestTap(lambda request: None, 1000, lambda: told.append(True))
    tap.feed(b"POST / HTTP/1.1\r\nexpect: 100-Continue\r\ncontent-length: 1\r\n\r\n")
    assert told == [True]


@pytest.mark.parametrize(
    "stream",
    [
        b"\x16\x03\x01 hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * MAX_HEAD_BYTES,
    ],
)
def test_what_is_no_request(stream: bytes) -> None:
    with pytest.raises(TapError):
        RequestTap(lambda request: None, 1000).feed(stream)


CHUNKED = b"HTTP/1.1 200 Very Fine\r\nX-A: b\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


@given(st.lists(st.integers(0, len(CHUNKED)), max_size=8))
def test_answers_cut_anywhere(cuts: list[int]) -> None:
    tap = ResponseTap(lambda: 1.0, 1000, is_head=False)
    for piece in pieces(CHUNKED, cuts):
        if piece:
            tap.feed(piece)
    response = tap.response
    assert (response.status, response.reason, response.complete) == (200, "Very Fine", True)
    assert response.header("x-a") == "b"
    assert b"".join(data for _, data in response.chunks) == b"abcde"


@pytest.mark.parametrize("length", range(len(CHUNKED)))
def test_an_answer_that_is_cut_is_not_complete(length: int) -> None:
    assert not response_of(CHUNKED[:length]).response.complete


def test_interim_answers_are_left_out() -> None:
    response = response_of(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\ncontent-length: 0\r\n\r\n").response
    assert (response.status, response.reason, response.complete) == (201, "Made", True)
    assert response.headers == [("content-length", "0")]


def test_an_answer_to_head_has_no_body() -> None:
    tap = response_of(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", is_head=True)
    assert tap.response.complete


def test_only_an_unframed_answer_ends_with_the_connection() -> None:
    assert response_of(b"HTTP/1.1 200 OK\r\n\r\nabc").response.ends_with_connection
    assert not response_of(CHUNKED[:60]).response.ends_with_connection
    assert not response_of(b"").response.ends_with_connection


def test_too_large_an_answer_is_dropped() -> None:
    response = response_of(CHUNKED, limit=4).response
    assert response.too_large
    assert response.complete
    assert not response.chunks


def test_too_many_pieces_are_dropped() -> None:
    head, _, _ = CHUNKED.partition(b"3\r\nabc")
    assert not response_of(head + b"1\r\na\r\n" * MAX_CHUNKS, limit=10**9).response.too_large
    response = response_of(head + b"1\r\na\r\n" * (MAX_CHUNKS + 1), limit=10**9).response
    assert response.too_large
    assert not response.chunks


@pytest.mark.parametrize(
    "stream", [b"hello", CHUNKED + b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * MAX_HEAD_BYTES]
)
def test_what_is_no_answer(stream: bytes) -> None:
    with pytest.raises(TapError):
        response_of(stream)


def test_nothing_may_follow_an_answer() -> None:
    tap = response_of(CHUNKED)
    with pytest.raises(TapError, match="follow"):
        tap.feed(b"x")
