"""A model server that says what a script tells it: for answers that need wits, and for answers that wait for the test.

A script is chosen by the model's name. It gets the request and yields chunks of a chat stream; a :class:`Gate` among
them holds the stream until the test opens it, which a test in another process does by ``GET /gates/NAME``.
"""

from __future__ import annotations

import contextlib
import json
import select
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from tests.support.server import PATIENCE_S

_LOOK_EVERY_S = 0.01


class Gate:
    """Holds streams until it is ``opened``."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.left = threading.Event()
        """Set where the client leaves a stream that is held."""

    def pass_through(self, client: Any) -> bool:
        """Wait. Whether the client is still there."""
        self.reached.set()
        deadline_s = time.monotonic() + PATIENCE_S
        while not self.opened.wait(_LOOK_EVERY_S) and time.monotonic() < deadline_s:
            if select.select([client], [], [], 0)[0]:  # it has nothing more to say, so this is its end
                self.left.set()
                return False
        return True


Step = dict[str, Any] | Gate
Script = Callable[[dict[str, Any], "ScriptedUpstream"], Iterable[Step]]


class ScriptedUpstream:
    """Listens on a free port while used as a context manager."""

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self.scripts = scripts
        self.asked: list[dict[str, Any]] = []
        """The requests that came."""
        self._gates: defaultdict[str, Gate] = defaultdict(Gate)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.upstream = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": _LOOK_EVERY_S})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def base_url(self) -> str:
        """What a provider's ``base_url`` is."""
        return f"{self.url}/v1"

    def gate(self, name: str) -> Gate:
        """The gate of this name."""
        return self._gates[name]

    def __enter__(self) -> ScriptedUpstream:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for gate in self._gates.values():
            gate.opened.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    upstream: ScriptedUpstream


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        _, _, name = self.path.rpartition("/gates/")
        if name:
            self.server.upstream.gate(unquote(name)).opened.set()
        self._head(200 if name else 404, "application/json")
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        upstream = self.server.upstream
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        upstream.asked.append(body)
        with contextlib.suppress(ConnectionError):  # the client has left
            self._head(200, "text/event-stream")
            self._play(upstream.scripts[body["model"]](body, upstream))

    def _play(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if not isinstance(step, Gate):
                self.wfile.write(b"data: " + json.dumps(step).encode() + b"\n\n")
            elif not step.pass_through(self.connection):
                return
        self.wfile.write(b"data: [DONE]\n\n")

    def _head(self, status: int, media_type: str) -> None:
        """The answer ends with its connection."""
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
        """Say nothing."""


# What scripts are made of


def delta(**said: Any) -> Step:
    """A chunk that says something."""
    return {"choices": [{"index": 0, "delta": said, "finish_reason": None}]}


def words(first: int, last: int) -> list[Step]:
    """Chunks that say the words from ``first`` up to ``last``, which is not said."""
    return [delta(content=word(number)) for number in range(first, last)]


def word(number: int) -> str:
    """A word that tells its place."""
    return f" w{number}"


def call(name: str, arguments: Mapping[str, Any], *, index: int = 0, call_id: str = "call_1") -> list[Step]:
    """Chunks of a tool call, its arguments in two pieces."""
    text = json.dumps(arguments)
    half = len(text) // 2
    head = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": text[:half]}}
    return [delta(tool_calls=[head]), delta(tool_calls=[{"index": index, "function": {"arguments": text[half:]}}])]


def end(reason: str = "stop", *, prompt_tokens: int = 7, completion_tokens: int = 5) -> list[Step]:
    """The finish reason and the usage."""
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    return [{"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}, {"choices": [], "usage": usage}]
