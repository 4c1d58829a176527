"""A server that answers each path with bytes made beforehand: for testing clients, also against broken answers."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

REQUEST_ID = "req_canned"


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class CannedServer:
    """Listens on a free port while used as a context manager. ``answers`` has raw HTTP answers by path.

    A path that is in ``held`` keeps its connection open after its answer until the client closes it, which sets
    ``left``.
    """

    answers: dict[str, bytes] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    asked: list[Asked] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def __enter__(self) -> CannedServer:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[socketserver.StreamRequestHandler]:
        canned = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                asked = _read(self.rfile)
                canned.asked.append(asked)
                self.wfile.write(canned.answers.get(asked.path, error_answer(404, "not_found", "Invalid URL")))
                if asked.path in canned.held and not self.rfile.read(1):
                    canned.left.set()

        return Handler


def _read(file: Any) -> Asked:
    method, path, _ = file.readline().decode().split()
    headers: dict[str, str] = {}
    while line := file.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Asked(method, path, headers, file.read(int(headers.get("content-length", 0))))


def answer(body: object, status: int = 200) -> bytes:
    """A whole JSON answer; ``bytes`` are sent as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return _head(status, f"content-length: {len(data)}") + data


def error_answer(status: int, code: str | None, message: str, **more: object) -> bytes:
    """An answer that says a failure."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code, **more}
    return answer({"error": error}, status)


def stream_answer(*events: object, whole: bool = True) -> bytes:
    """A chat stream in chunked coding: texts as they are, anything else as JSON; cut in a chunk unless ``whole``."""
    body = "".join(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events).encode()
    head = _head(200, "transfer-encoding: chunked")
    return head + f"{len(body) + (not whole):x}\r\n".encode() + body + (b"\r\n0\r\n\r\n" if whole else b"")


def said(text: str, finish_reason: str | None = None, **delta: object) -> dict[str, object]:
    """A chunk with one choice."""
    more = {"content": text, **delta} if text or delta else {}
    return {"choices": [{"index": 0, "delta": more, "finish_reason": finish_reason}]}


def _head(status: int, framing: str) -> bytes:
    return f"HTTP/1.1 {status} Canned\r\nx-request-id: {REQUEST_ID}\r\n{framing}\r\n\r\n".encode()
