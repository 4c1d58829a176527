"""The head of a request, and what cannot stand in one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.wire.request import request_bytes, request_head


def test_a_head() -> None:
    head = request_head("POST", "/v1/x?a=%20", {"host": "h"}, {"X-A": "\tb \u00e9"}, 7)
    assert head == b"POST /v1/x?a=%20 HTTP/1.1\r\nhost: h\r\ncontent-length: 7\r\nX-A: \tb \xe9\r\n\r\n"


BAD = {
    "a line in a value": ("GET", "/", {"a": "b\r\nc: d"}),
    "a line feed in a value": ("GET", "/", {"a": "b\n"}),
    "a carriage return in a value": ("GET", "/", {"a": "b\r"}),
    "a zero in a value": ("GET", "/", {"a": "\0"}),
    "a value outside Latin-1": ("GET", "/", {"a": "\u20ac"}),
    "a line in a name": ("GET", "/", {"a\r\nb": "c"}),
    "a colon in a name": ("GET", "/", {"a:b": "c"}),
    "no name": ("GET", "/", {"": "c"}),
    "a space in a path": ("GET", "/ HTTP/1.1", {}),
    "a line in a path": ("GET", "/\r\na: b", {}),
    "no path": ("GET", "", {}),
    "a whole URL": ("GET", "http://h/", {}),
    "a path outside ASCII": ("GET", "/\u00e9", {}),
    "a line in a method": ("GET\r\n", "/", {}),
    "no method": ("", "/", {}),
    "a length": ("GET", "/", {"Content-Length": "1"}),
    "a coding": ("GET", "/", {"transfer-encoding": "chunked"}),
    "a host": ("GET", "/", {"Host": "h"}),
    "a connection": ("GET", "/", {"Connection": "close"}),
}


@pytest.mark.parametrize(("method", "path", "headers"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_sent(method: str, path: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot"):
        request_bytes(method, path, headers, b"")


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_nothing_becomes_another_line(path: str, name: str, value: str) -> None:
    with contextlib.suppress(ValueError):
        lines = request_head("GET", "/" + path, {"host": "h"}, {name: value}, 0).split(b"\n")
        assert len(lines) == 6
        assert all(line.endswith(b"\r") for line in lines[:-1])
