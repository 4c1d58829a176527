"""No failure tells a client where or how the server runs. Every path and key that the servers have carries a marker."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping

import orjson
import pytest
from tests.integration.conftest import API_KEY
from tests.support.counting_proxy import CountingProxy
from tests.support.failures import CASES, CHAT, NO_KEY, Case
from tests.support.leaks import MARKER, assert_clean
from tests.support.models import chat, long_chat
from tests.support.server import Answer, RawStream, Server

_HEADERS = {
    "x-timing", "x-coterie-provider",
    "date", "content-type", "content-length", "x-request-id", "x-should-retry", "retry-after", "retry-after-ms",
    "www-authenticate", "allow", "connection", "vary",
}  # fmt: skip
"""All that a failure's answer may have."""


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name.replace(" ", "_")) for case in CASES])
def test_failure_before_the_stream(case: Case, request: pytest.FixtureRequest) -> None:
    """As bytes: an SDK might hide what it does not need."""
    server: Server = request.getfixturevalue(case.server)
    with case.situation(server), CountingProxy(server.port, case.rewrite) as proxy:
        there = Server(server.process, proxy.url, server.folder)
        answer = there.ask(case.method, case.path, case.body, _headers(case))
    _check(answer, case.own_words)


def _headers(case: Case) -> dict[str, str]:
    headers = {name: value for name, value in case.headers.items() if value != NO_KEY}
    if case.server == "guarded" and "authorization" not in case.headers:
        headers["authorization"] = f"Bearer {API_KEY}"
    return headers


def _check(answer: Answer, own_words: tuple[str, ...]) -> None:
    assert answer.status >= 400
    assert answer.headers.keys() <= _HEADERS
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.json.keys() == {"error"}
    assert answer.json["error"].keys() == {"message", "type", "param", "code"}
    assert isinstance(answer.json["error"]["code"], str)
    assert_clean(answer.body.decode(), own_words)
    for name, value in answer.headers.items():
        assert_clean(value if name != "date" else "")


def test_failure_in_the_stream(server: Server) -> None:
    with RawStream(server, CHAT, long_chat("fragile")) as stream:
        assert stream.events(1)
        os.kill(server.engine("fragile")["pid"], signal.SIGKILL)
        _check_frame(stream.rest())


def test_failure_of_the_server_s_end(new_server: Callable[..., Server]) -> None:
    server = new_server('[server]\nshutdown_grace_s = 0\n[[models]]\nname = "m"\npath = "{model}"')
    with RawStream(server, CHAT, long_chat("m")) as stream:
        assert stream.events(1)
        server.signal(signal.SIGTERM)
        _check_frame(stream.rest())


def _check_frame(body: bytes) -> None:
    frame = body.split(b"\n\n")[-3]
    assert orjson.loads(frame.removeprefix(b"data: "))["error"]["code"]
    assert_clean(frame.decode())
    assert MARKER not in body.decode()


HOSTILE: Mapping[str, str] = {
    "markup": "<script>alert(1)</script>",
    "line ends": "a\r\nx-evil: 1\r\n\r\nb",
    "format": "{0.__class__} {param} %s %(a)s",
    "NUL": "\x00\x1b[31m",
    "long": "m" * 100_000,
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_caller_s_text_comes_back_as_text(server: Server, name: str) -> None:
    """Clipped, in JSON, in no header; and never taken for a format."""
    answer = server.ask("POST", CHAT, chat(HOSTILE[name]))
    assert answer.status in (400, 404)
    assert answer.headers.keys() <= _HEADERS
    assert len(answer.body) < 2000
    assert "__class__" not in answer.body.decode() or "{0.__class__}" in answer.json["error"]["message"]


def test_the_marker_is_where_it_could_leak(server: Server) -> None:
    """The log tells the operator what the client is not told: were it not there, these tests would prove nothing."""
    answer = server.ask("POST", CHAT, chat("damaged"))
    assert answer.status == 500
    assert MARKER in server.log
    assert answer.headers["x-request-id"] in server.log
