"""A server from its start to its end: loading, unloading, the endpoints for operators, and who may ask."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.conftest import API_KEY
from tests.support.failures import CHAT
from tests.support.leaks import MARKER
from tests.support.models import chat, long_chat
from tests.support.server import PATIENCE_S, RawStream, Server, eventually, exchange, log_file, process_gone, start

from coterie.version import __version__

NewServer = Callable[..., Server]

CONFIG = """
[engine]
context_tokens = 512
threads = 1
unload_after_s = {unload}

[[models]]
name = "m"
path = "{model}"
"""


def _config(unload_after_s: float = 0) -> str:
    return CONFIG.replace("{unload}", str(unload_after_s))


def test_a_model_is_loaded_with_its_first_request(new_server: NewServer) -> None:
    server = new_server(_config())
    before = server.engine("m")
    assert (before["state"], before["pid"], before["loads"]) == ("unloaded", None, 0)
    assert server.ask("GET", "/ready").status == 200, "a request that came now would be served"
    assert server.ask("POST", CHAT, chat("m")).status == 200
    after = server.engine("m")
    assert (after["state"], after["loads"]) == ("ready", 1)
    assert not process_gone(after["pid"])


def test_preload(new_server: NewServer) -> None:
    server = new_server(_config(), "--preload")
    server.wait_for("m", lambda engine: engine["state"] == "ready")
    eventually(lambda: server.ask("GET", "/ready").status, lambda status: status == 200)
    assert server.engine("m")["loads"] == 1


def test_preload_is_not_ready_before_the_model_is_there(new_server: NewServer) -> None:
    server = new_server(_config(), "--preload")
    first = server.ask("GET", "/ready")
    assert (first.status, first.json["error"]["code"]) == (503, "not_ready")
    assert int(first.headers["retry-after"]) >= 1
    eventually(lambda: server.ask("GET", "/ready").status, lambda status: status == 200)


def test_an_idle_model_is_unloaded_and_loaded_again(new_server: NewServer) -> None:
    server = new_server(_config(unload_after_s=0.2))
    with RawStream(server, CHAT, chat("m", max_tokens=100)) as stream:
        assert stream.events(1)
        pid = server.engine("m")["pid"]
        assert stream.rest().endswith(b"data: [DONE]\n\n"), "a model that is busy is not idle"
    server.wait_for("m", lambda engine: engine["state"] == "unloaded" and engine["pid"] is None)
    assert process_gone(pid)
    assert server.ask("POST", CHAT, chat("m")).status == 200
    assert server.engine("m")["loads"] == 2


def test_a_second_server_on_the_same_state(new_server: NewServer, linked_model: Path) -> None:
    server = new_server(_config())
    second = start(server.folder, _config().replace("{model}", str(linked_model)))
    with second:
        assert second.wait(PATIENCE_S) == 1
    told = log_file(server.folder).read_text(encoding="utf-8")
    assert f"error: another server already runs on the state folder {server.folder / 'state'}" in told
    assert f"(process {server.process.pid}, {server.url})" in told
    assert "--state-dir" in told
    assert "Traceback" not in told
    assert server.ask("GET", "/health").status == 200


def test_a_second_server_on_the_same_port(new_server: NewServer, linked_model: Path, tmp_path: Path) -> None:
    server = new_server(_config())
    folder = tmp_path / "second"
    with start(folder, _config().replace("{model}", str(linked_model)), "--port", str(server.port)) as second:
        assert second.wait(PATIENCE_S) == 1
    told = log_file(folder).read_text(encoding="utf-8")
    assert f"error: another program already listens on 127.0.0.1:{server.port}" in told
    assert "--port" in told
    assert "Traceback" not in told


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with start(tmp_path, '[[models]]\nname = "m"\npath = "nowhere.gguf"') as process:
        assert process.wait(PATIENCE_S) == 1
    told = log_file(tmp_path).read_text(encoding="utf-8")
    assert told.startswith("error: ")
    assert "nowhere.gguf" in told
    assert "Traceback" not in told


def test_a_killed_server_leaves_no_engine(new_server: NewServer) -> None:
    server = new_server(_config())
    assert server.ask("POST", CHAT, chat("m")).status == 200
    pid = server.engine("m")["pid"]
    server.signal(signal.SIGKILL)
    assert server.ended() == -signal.SIGKILL
    eventually(lambda: process_gone(pid), bool)


def test_an_engine_that_is_killed_is_started_anew_before_anybody_notices(new_server: NewServer) -> None:
    server = new_server(_config(), "--preload")
    pid = server.wait_for("m", lambda engine: engine["state"] == "ready")["pid"]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.ask, "POST", CHAT, long_chat("m", max_tokens=200))
        server.wait_for("m", lambda engine: engine["running"] == 1)
        os.kill(pid, signal.SIGKILL)
        assert answer.result().json["usage"]["completion_tokens"] == 200
    assert server.engine("m")["loads"] == 2


def test_a_killed_server_locks_nobody_out(new_server: NewServer) -> None:
    server = new_server(_config())
    server.signal(signal.SIGKILL)
    server.ended()
    assert new_server(_config()).ask("GET", "/health").status == 200


def test_state_and_secrets_of_a_server_are_its_owner_s_alone(new_server: NewServer) -> None:
    server = new_server(_config())
    lock = server.folder / "state" / "serve.lock"
    assert lock.stat().st_mode & 0o077 == 0
    assert json.loads(lock.read_text(encoding="utf-8")) == {"pid": server.process.pid, "url": server.url}


def test_operators_endpoints(server: Server) -> None:
    assert server.ask("GET", "/health").json == {"status": "ok"}
    assert server.ask("GET", "/version").json == {"version": __version__}
    page = server.ask("GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert b"/openapi.json" in page.body
    description = server.ask("GET", "/openapi.json").json
    assert description["openapi"].startswith("3.")
    assert {CHAT, "/v1/completions", "/v1/embeddings", "/v1/models"} <= description["paths"].keys()


def test_status(server: Server) -> None:
    status = server.ask("GET", "/status").json
    assert status["version"] == __version__
    assert status["active_requests"] == 0
    assert MARKER not in json.dumps(status)


def test_metrics_count(server: Server) -> None:
    before = _metrics(server)
    assert server.ask("POST", CHAT, chat()).status == 200
    assert server.ask("POST", CHAT, chat("none")).status == 404
    after = _metrics(server)
    good = ("coterie_requests_total", CHAT, "ok", "")
    bad = ("coterie_requests_total", CHAT, "caller", "model_not_found")
    assert after[good] == before[good] + 1
    assert after[bad] == before[bad] + 1
    assert MARKER not in server.ask("GET", "/metrics").body.decode()


def _metrics(server: Server) -> Counter[tuple[str, ...]]:
    """Requests by route, outcome and code, over all models: other tests ask the same server for several."""
    counts: Counter[tuple[str, ...]] = Counter()
    for family in text_string_to_metric_families(server.ask("GET", "/metrics").body.decode()):
        for sample in family.samples:
            if sample.name == "coterie_requests_total":
                key = (sample.name, *(sample.labels[name] for name in ("route", "outcome", "code")))
                counts[key] += int(sample.value)
    return counts


@pytest.mark.parametrize("path", ["/health", "/ready", "/version", "/openapi.json", "/docs"])
def test_public_without_a_key(guarded: Server, path: str) -> None:
    assert guarded.ask("GET", path).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/smollm2-135m-instruct"),
        ("GET", "/metrics"),
        ("GET", "/status"),
    ],
)
def test_protected_by_the_key(guarded: Server, method: str, path: str) -> None:
    body = b"{" if method == "POST" else None
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Bearer {API_KEY}x"}):
        answer = guarded.ask(method, path, body, headers)
        assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
    answer = guarded.ask(method, path, body, {"authorization": f"Bearer {API_KEY}"})
    assert answer.status == (400 if method == "POST" else 200)


def test_cors(guarded: Server) -> None:
    """A browser of the origin can read answers and failures; another one's cannot."""
    for path, status in (("/health", 200), ("/v1/models", 401)):
        answer = guarded.ask("GET", path, headers={"origin": "https://app.example"})
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "access-control-expose-headers" in answer.headers
        assert "Origin" in answer.headers["vary"]
        other = guarded.ask("GET", path, headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_cors_preflight(guarded: Server) -> None:
    """Browsers ask before they send JSON or a key; nobody has a key at that point."""
    asking = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    answer = guarded.ask("OPTIONS", CHAT, headers=asking)
    assert answer.status in (200, 204)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert allowed == "*" or {"authorization", "content-type"} <= {name.strip() for name in allowed.split(",")}


def test_a_connection_that_says_nothing_is_closed(guarded: Server) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=PATIENCE_S)) as connection:
        connection.connect()
        assert connection.sock.recv(1) == b""


def test_a_connection_serves_many_requests(server: Server) -> None:
    """Also after failures: nothing of one request is left to the next."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)) as connection:
        for body, status in ((chat("none"), 404), (b"{", 400), (chat(max_tokens=1), 200), (chat(n=0), 400)):
            assert exchange(connection, "POST", CHAT, body).status == status
        assert exchange(connection, "GET", "/health").status == 200
