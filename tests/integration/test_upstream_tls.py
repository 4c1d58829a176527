"""A provider over TLS, through the real server: certificates that are trusted and not, and ends without a farewell."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.canned import answer, said, stream_answer
from tests.support.leaks import MARKER, assert_clean
from tests.support.raw_server import AUTHORITY, server_context
from tests.support.server import PATIENCE_S, RawStream, Server, serving

from coterie.dialects.chat_validator import judge

CHAT = "/v1/chat/completions"

MESSAGE = {"role": "assistant", "content": "Hello"}
PLAIN = answer({"id": "x", "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]})
STREAM = stream_answer(said("Hel"), said("lo"), said("", "stop"), "[DONE]")
BEGINNING = stream_answer(said("Hel"), whole=False)
"""Ends in the middle of a chunk of the coding."""

UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + (
    f"data: {json.dumps(said('Hel'))}\n\n".encode()
)
"""Only the connection's end tells where it ends."""

_CONFIG = """
[dispatch]
attempts = 1

[[providers]]
name = "trusted"
base_url = "https://localhost:{port}/v1"
ca_file = "{authority}"
models = [{models}]

[[providers]]
name = "untrusted"
base_url = "https://localhost:{port}/v1"
models = [{{ name = "untrusted", context_tokens = 4096 }}]
"""


def _end(connection: ssl.SSLSocket) -> None:
    """The TCP connection ends, but TLS does not: no ``close_notify``."""
    connection.shutdown(socket.SHUT_RDWR)


def _reset(connection: ssl.SSLSocket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Cut = Callable[[ssl.SSLSocket], None]

CUTS: dict[str, tuple[bytes, Cut]] = {
    "ended": (BEGINNING, _end),
    "reset": (BEGINNING, _reset),
    "ended-unframed": (UNTIL_CLOSE, _end),
    "reset-unframed": (UNTIL_CLOSE, _reset),
}
"""What models say before their connection is cut, and how."""


class Upstream(socketserver.ThreadingTCPServer):
    """Listens with TLS, and answers by the name of the model."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.context = server_context()
        self.asked: list[str] = []
        self.accepted = threading.Event()
        self.may_cut = threading.Event()
        """Set when the client has read what stands before the cut."""


class _Handler(socketserver.BaseRequestHandler):
    server: Upstream

    def handle(self) -> None:
        self.server.accepted.set()
        with (
            contextlib.suppress(OSError),  # a handshake that fails, a client that leaves
            self.server.context.wrap_socket(self.request, server_side=True) as connection,
            connection.makefile("rb") as file,
        ):
            while (body := _read(file)) is not None:
                self.server.asked.append(body["model"])
                if body["model"] in CUTS:
                    beginning, cut = CUTS[body["model"]]
                    connection.sendall(beginning)
                    self.server.may_cut.wait(PATIENCE_S)
                    cut(connection)
                    return
                connection.sendall(STREAM if body.get("stream") else PLAIN)


def _read(file: Any) -> Any:
    """The body of the next request; ``None`` where the client has left."""
    if not file.readline():
        return None
    size = 0
    while line := file.readline().strip().lower():
        if line.startswith(b"content-length:"):
            size = int(line.partition(b":")[2])
    return json.loads(file.read(size))


@pytest.fixture(scope="module", name="pair")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Upstream]]:
    folder = tmp_path_factory.mktemp(f"{MARKER}-tls")
    authority = shutil.copy(AUTHORITY, folder / f"{MARKER}.pem")
    models = ", ".join(f'{{ name = "{name}", context_tokens = 4096 }}' for name in ("good", *CUTS))
    with Upstream() as upstream:
        thread = threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        config = _CONFIG.format(port=upstream.server_address[1], authority=authority, models=models)
        try:
            with serving(folder, config) as server:
                yield server, upstream
        finally:
            upstream.may_cut.set()
            upstream.shutdown()
            thread.join()


def _body(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}]}


def _chunks(body: bytes) -> list[Any]:
    *events, done = body.removesuffix(b"\n\n").split(b"\n\n")
    assert done == b"data: [DONE]"
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


def _text(chunks: list[Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def test_an_answer_over_tls(pair: tuple[Server, Upstream]) -> None:
    found = pair[0].ask("POST", CHAT, _body("good"))
    assert (found.status, found.headers["x-coterie-provider"]) == (200, "trusted")
    assert found.json["choices"][0]["message"]["content"] == "Hello"


def test_a_stream_over_tls(pair: tuple[Server, Upstream]) -> None:
    with RawStream(pair[0], CHAT, _body("good")) as stream:
        body = stream.rest()
    assert (stream.status, judge(body, include_usage=False, choices=1)) == (200, [])
    assert _text(_chunks(body)) == "Hello"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_an_authority_that_is_not_trusted(pair: tuple[Server, Upstream], stream: bool) -> None:
    server, upstream = pair
    upstream.accepted.clear()
    found = server.ask("POST", CHAT, {**_body("untrusted"), "stream": stream})
    assert (found.status, found.headers["content-type"]) == (502, "application/json")
    assert found.json["error"].keys() == {"message", "type", "param", "code"}
    error = found.json["error"]
    assert (error["code"], error["type"], error["param"]) == ("upstream_unreachable", "server_error", None)
    assert_clean(error["message"])
    assert not any(MARKER in value or "localhost" in value for value in found.headers.values())
    assert "certificate" not in error["message"].lower()
    assert upstream.accepted.wait(PATIENCE_S)
    assert "untrusted" not in upstream.asked, "nothing is said to who is not trusted"
    assert "certificate" in server.log


@pytest.mark.parametrize("model", CUTS)
def test_a_stream_that_is_cut_without_a_farewell(pair: tuple[Server, Upstream], model: str) -> None:
    server, upstream = pair
    upstream.may_cut.clear()
    with RawStream(server, CHAT, _body(model)) as stream:
        assert stream.status == 200
        while b"Hel" not in stream.body:
            assert stream.events(1)
        upstream.may_cut.set()
        body = stream.rest()
    assert judge(body, include_usage=False, choices=1) == []
    *chunks, failure = _chunks(body)
    assert _text(chunks) == "Hel"
    assert not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"])
    error = failure["error"]
    assert (error["code"], error["type"], error["param"]) == ("upstream_stream_interrupted", "server_error", None)
    assert_clean(error["message"])


@pytest.mark.parametrize("model", CUTS)
def test_an_answer_that_is_cut_without_a_farewell(pair: tuple[Server, Upstream], model: str) -> None:
    server, upstream = pair
    upstream.may_cut.set()
    found = server.ask("POST", CHAT, _body(model))
    assert found.status == 502
    assert found.json["error"]["code"] in ("upstream_stream_interrupted", "upstream_unreachable")
    assert_clean(found.json["error"]["message"])
