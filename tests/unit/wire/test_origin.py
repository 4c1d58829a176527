"""Base URLs, taken apart or refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.wire.origin import Origin

GOOD = {
    # URL: host, port, TLS, prefix, what the Host header says
    "http://a": ("a", 80, False, "", "a"),
    "https://api.example.com/v1": ("api.example.com", 443, True, "/v1", "api.example.com"),
    "http://A.example:8000/v1/": ("a.example", 8000, False, "/v1", "a.example:8000"),
    "http://127.0.0.1:11434": ("127.0.0.1", 11434, False, "", "127.0.0.1:11434"),
    "https://h:80/x//y": ("h", 80, True, "/x//y", "h:80"),
    "http://h:443": ("h", 443, False, "", "h:443"),
    "http://h:/": ("h", 80, False, "", "h"),
    "http://[::1]:8080/v1": ("::1", 8080, False, "/v1", "[::1]:8080"),
    "https://[2001:DB8:0::1]": ("2001:db8::1", 443, True, "", "[2001:db8::1]"),
    "http://m\u00fcnchen.example": ("xn--mnchen-3ya.example", 80, False, "", "xn--mnchen-3ya.example"),
    "http://gpu_box": ("gpu_box", 80, False, "", "gpu_box"),
    "HTTPS://h/a%20b": ("h", 443, True, "/a%20b", "h"),
}

BAD = {
    "": "begin with",
    "localhost:8000": "begin with",
    "ftp://h": "begin with",
    "//h": "begin with",
    "http://": "host",
    "http:///v1": "host",
    "http://:80": "host",
    "http://u@h": "user name",
    "http://u:zq7secret@h": "user name",
    "http://h/v1?zq7secret=1": "query",
    "http://h/?": "query",
    "http://h/#": "fragment",
    "http://h:0": "port",
    "http://h:65536": "port",
    "http://h:x": "port",
    "http://h:+1": "port",
    "http://h:999999": "port",
    "http://[::1": "host",
    "http://[::1]x": "host",
    "http://[h]": "host",
    "http://[fe80::1%25eth0]": "host",
    "http://::1": "host",
    "http://a..b": "host",
    "http://-a": "host",
    "http://a b": "space",
    "http://a\n.b": "control",
    "http://a/\r\nx: y": "control",
    "http://h/\u00e9": "percent-encoded",
    "http://" + "a" * 64: "host",
}


@pytest.mark.parametrize("url", GOOD)
def test_a_base_url(url: str) -> None:
    origin, prefix = Origin.parse(url)
    assert (origin.host, origin.port, origin.tls, prefix, origin.authority) == GOOD[url]
    assert origin.unix_path is None


@pytest.mark.parametrize("url", BAD)
def test_what_is_no_base_url(url: str) -> None:
    with pytest.raises(ValueError, match=BAD[url]) as raised:
        Origin.parse(url)
    assert "zq7secret" not in str(raised.value)


@given(st.text(alphabet=":/[]@?#.%-a0 \r\n\u00fc\u2100\uff0f", max_size=30))
def test_any_text_is_a_url_or_a_value_error_and_fits_into_a_request(rest: str) -> None:
    with contextlib.suppress(ValueError):
        origin, prefix = Origin.parse("http://" + rest)
        for written in (origin.authority, prefix):
            assert written.isascii()
            assert not any(character.isspace() for character in written)
        assert origin.host
        assert not prefix.endswith("/")
