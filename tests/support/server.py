"""A real ``coterie serve`` process: started, asked, watched and ended.

What it promises: a :class:`Server` that is handed out has greeted, which it does once it answers requests; whatever
becomes of the test, the process is gone when :func:`serving` ends. Whoever waits looks at something, and not for ever.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

PATIENCE_S = 60.0
"""Seconds until something that should happen counts as not happening; far above what it takes on a busy machine."""

COTERIE = Path(sys.executable).with_name("coterie")
"""The installed program."""

_GREETING = re.compile(r" at (http://\S+)/v1$", re.MULTILINE)
_LOOK_EVERY_S = 0.01

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """A running server. ``folder`` has its configuration, state and log."""

    process: subprocess.Popen[str]
    url: str
    folder: Path

    @property
    def base_url(self) -> str:
        """What an SDK takes."""
        return f"{self.url}/v1"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        """What it wrote to standard error so far."""
        return log_file(self.folder).read_text(encoding="utf-8", errors="replace")

    def ask(
        self, method: str, path: str, body: bytes | Mapping[str, Any] | None = None, headers: Mapping[str, str] = {}
    ) -> Answer:
        """One exchange on a connection of its own. A mapping is sent as JSON."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)) as connection:
            return exchange(connection, method, path, body, headers)

    def engine(self, model: str, task: str = "generate") -> dict[str, Any]:
        """What ``/status`` says of an engine."""
        rows = self.ask("GET", "/status").json["engines"]
        return next(row for row in rows if row["model"] == model and row["task"] == task)

    def wait_for(self, model: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Look at an engine until ``condition`` holds."""
        return eventually(lambda: self.engine(model), condition)

    def signal(self, number: int) -> None:
        """Send a signal to the server's process alone."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the process to end by itself; its exit status."""
        return self.process.wait(PATIENCE_S)


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | Mapping[str, Any] | None = None,
    headers: Mapping[str, str] = {},
) -> Answer:
    """One exchange on an open connection."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    typed = {} if data is None else {"content-type": "application/json"}
    connection.request(method, path, data, {**typed, **headers})
    response = connection.getresponse()
    content = response.read()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)


class RawStream:
    """A streamed answer as bytes, read event by event."""

    def __init__(self, server: Server, path: str, body: Mapping[str, Any], headers: Mapping[str, str] = {}) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        data = json.dumps({**body, "stream": True}).encode()
        self._connection.request("POST", path, data, {"content-type": "application/json", **headers})
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.body = b""
        """What was read so far."""

    def __enter__(self) -> RawStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def events(self, count: int) -> bytes:
        """Read ``count`` more events; the last of them. Empty where the stream ended before."""
        event = b""
        for _ in range(count):
            event = b""
            while not event.endswith(b"\n\n") and (line := self._response.readline()):
                event += line
            self.body += event
        return event

    def rest(self) -> bytes:
        """Read to the end; the whole body."""
        while part := self._response.read1(65_536):
            self.body += part
        return self.body

    def close(self) -> None:
        """Leave, whether or not the stream has ended."""
        self._response.close()
        self._connection.close()


@contextlib.contextmanager
def serving(folder: Path, config: str, *arguments: str) -> Iterator[Server]:
    """Serve with the TOML ``config`` from ``folder``, on a free port, with a state of its own."""
    process = start(folder, config, *arguments)
    try:
        yield Server(process, _greeting(process, folder), folder)
    finally:
        _end(process)


def start(folder: Path, config: str, *arguments: str) -> subprocess.Popen[str]:
    """Start ``coterie serve`` without waiting for it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "coterie-test.toml"
    file.write_text(config, encoding="utf-8")
    options = ["--config", str(file), "--port", "0", "--state-dir", str(folder / "state"), *arguments]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COTERIE_")}
    with log_file(folder).open("a", encoding="utf-8") as log:
        return subprocess.Popen(
            [str(COTERIE), "serve", *options],
            stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True, cwd=folder, env=environ,
        )  # fmt: skip


def log_file(folder: Path) -> Path:
    """Where the standard error of a server in ``folder`` goes."""
    return folder / "stderr.log"


def eventually(look: Callable[[], Value], condition: Callable[[Value], bool]) -> Value:
    """Look until ``condition`` holds, and return what was seen; fail after :data:`PATIENCE_S`."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition(seen := look()):
        assert time.monotonic() < deadline_s, f"still {seen!r}"
        time.sleep(_LOOK_EVERY_S)
    return seen


def process_gone(pid: int) -> bool:
    """Whether no process has this id, or only one that waits to be buried."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return _gone_by_signal(pid)
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")


def _gone_by_signal(pid: int) -> bool:
    """The same where there is no ``/proc``."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _greeting(process: subprocess.Popen[str], folder: Path) -> str:
    """The URL that the server tells once it answers."""
    assert process.stdout is not None
    said = ""
    guard = threading.Timer(PATIENCE_S, process.kill)
    guard.start()
    try:
        while (match := _GREETING.search(said)) is None:
            line = process.stdout.readline()
            assert line, f"no greeting; standard error says: {log_file(folder).read_text(encoding='utf-8')}"
            said += line
    finally:
        guard.cancel()
        guard.join()
    return match[1]


def _end(process: subprocess.Popen[str]) -> None:
    with process:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(PATIENCE_S / 2)
        except subprocess.TimeoutExpired:
            process.kill()
