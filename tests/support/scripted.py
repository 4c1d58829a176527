"""An upstream that answers each model with bytes made beforehand."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

SO_FAR = ("So", " far", " so", " good")
"""The tokens of :func:`after_tokens`."""


class ScriptedUpstream:
    """Listens on a free port while used as a context manager. ``answers`` has raw HTTP answers by model."""

    def __init__(self, answers: Mapping[str, bytes]) -> None:
        self.answers = answers
        self.base_url = ""

    def __enter__(self) -> ScriptedUpstream:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[socketserver.StreamRequestHandler]:
        answers = self.answers

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                model = _asked(self.rfile).get("model", "")
                self.wfile.write(answers.get(model) or refusal(404, {"error": {"message": "There is nothing here."}}))

        return Handler


def _asked(file: Any) -> dict[str, Any]:
    length = 0
    while line := file.readline().decode().strip():
        name, _, value = line.partition(":")
        length = int(value) if name.lower() == "content-length" else length
    body: dict[str, Any] = json.loads(file.read(length)) if length else {}
    return body


def refusal(status: int, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole JSON answer, after which the connection closes."""
    return _answer(status, "application/json", json.dumps(body).encode(), headers or {})


def streamed(*chunks: Any) -> bytes:
    """A stream that says ``chunks`` and ends properly."""
    return _answer(200, "text/event-stream", b"".join([*map(_event, chunks), b"data: [DONE]\n\n"]), {})


def after_tokens(*odd: Any) -> bytes:
    """A stream that says :data:`SO_FAR`, then ``odd``, and ends properly."""
    return streamed(*(chunk({"content": token}) for token in SO_FAR), *odd)


def chunk(delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    """A chunk with one choice."""
    choice = {"index": 0, "delta": dict(delta), "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def _event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _answer(status: int, content_type: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    named = {"content-type": content_type, "content-length": len(body), "connection": "close", **headers}
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join((*lines, "", "")).encode() + body
