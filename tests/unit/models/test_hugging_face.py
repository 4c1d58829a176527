"""Pulls from a server on 127.0.0.1 in the role of Hugging Face."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from coterie.models.catalogue import CatalogModel, HuggingFace
from coterie.models.errors import ModelError
from coterie.models.pull import pull
from coterie.models.store import ModelStore

CONTENT = bytes(range(256)) * 4096
HALF = len(CONTENT) // 2
ETAG = '"one"'


@dataclass
class Hub:
    """What the server has and does; ``requests`` is what it was asked."""

    url: str = ""
    content: bytes = CONTENT
    etag: str | None = ETAG
    ranges: bool = True
    announce: bool = True
    redirect: str | None = None
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Answers to give first."""
    cut_after: list[int] = field(default_factory=list)
    """After how many bytes to drop the connection, answer by answer."""
    content_range: str | None = None
    stall: threading.Event | None = None
    """Before the last byte, tell ``stalled`` and wait for this."""
    stalled: threading.Event = field(default_factory=threading.Event)
    requests: list[dict[str, str]] = field(default_factory=list)

    def environ(self, **more: str) -> dict[str, str]:
        return {"HF_ENDPOINT": self.url, **more}

    def model(self, content: bytes = CONTENT, **changes: Any) -> CatalogModel:
        facts: dict[str, Any] = {
            "name": "little",
            "summary": "",
            "licence": "MIT",
            "size_bytes": len(content),
            "context_tokens": 1,
            "sha256": hashlib.sha256(content).hexdigest(),
            "file": "little.gguf",
            "source": HuggingFace("owner/repo", "abc", "little.gguf"),
        }
        return CatalogModel(**{**facts, **changes})


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    @property
    def hub(self) -> Hub:
        assert isinstance(self.server, _Server)
        return self.server.hub

    def do_GET(self) -> None:
        self.hub.requests.append({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}})
        if self.hub.statuses:
            self._refuse(*self.hub.statuses.pop(0))
        elif self.hub.redirect is not None and not self.path.startswith("/content"):
            self._refuse(302, {"location": self.hub.redirect})
        else:
            self._serve()

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"content-length": "0", **headers}.items():
            self.send_header(key, value)
        self.end_headers()

    def _serve(self) -> None:
        offset = self._offset()
        self.send_response(206 if offset else 200)
        if self.hub.etag is not None:
            self.send_header("etag", self.hub.etag)
        if self.hub.announce:
            self.send_header("content-length", str(len(self.hub.content) - offset))
        if offset:
            last = len(self.hub.content) - 1
            default = f"bytes {offset}-{last}/{len(self.hub.content)}"
            self.send_header("content-range", self.hub.content_range or default)
        self.end_headers()
        self._send(self.hub.content[offset:])

    def _offset(self) -> int:
        asked = self.headers.get("range")
        if asked is None or not self.hub.ranges or self.headers.get("if-range") != self.hub.etag:
            return 0
        return int(asked.removeprefix("bytes=").rstrip("-"))

    def _send(self, body: bytes) -> None:
        if self.hub.stall is not None:
            self.wfile.write(body[:-1])
            self.wfile.flush()
            self.hub.stalled.set()
            self.hub.stall.wait(60)
            return
        self.wfile.write(body[: self.hub.cut_after.pop(0)] if self.hub.cut_after else body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("NO_PROXY", "*")
    state = Hub()
    server = _Server(state)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    if state.stall is not None:
        state.stall.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Puller:
    """Pulls one model from the hub, with pauses that take no time."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub = hub
        self.store = ModelStore(folder)
        self.pauses: list[float] = []

    def pull(self, content: bytes = CONTENT, **environ: str) -> None:
        pull(self.hub.model(content), self.store, environ=self.hub.environ(**environ), pause=self.pauses.append)

    def partial(self, data: bytes, tag: str | None = ETAG) -> None:
        path = self.store.workspace("little") / "little.gguf"
        path.write_bytes(data)
        if tag is not None:
            path.with_name("little.gguf.etag").write_text(tag)

    def has_all(self) -> bool:
        return self.store.path_of("little").read_bytes() == CONTENT

    def has_nothing(self) -> bool:
        partial = self.store.folder / ".partial" / "little"
        return not self.store.installed("little") and not (partial.exists() and any(partial.iterdir()))


@pytest.fixture
def puller(hub: Hub, tmp_path: Path) -> Puller:
    return Puller(hub, tmp_path / "models")


def test_a_whole_file(hub: Hub, puller: Puller) -> None:
    puller.pull()
    assert puller.has_all()
    assert hub.requests[0]["path"] == "/owner/repo/resolve/abc/little.gguf"
    assert "range" not in hub.requests[0]
    assert "authorization" not in hub.requests[0]


def test_what_is_installed_is_not_asked_for(hub: Hub, puller: Puller) -> None:
    puller.pull()
    puller.pull()
    assert len(hub.requests) == 1


def test_a_partial_file_is_continued(hub: Hub, puller: Puller) -> None:
    puller.partial(CONTENT[:HALF])
    puller.pull()
    assert puller.has_all()
    assert hub.requests[0]["range"] == f"bytes={HALF}-"
    assert hub.requests[0]["if-range"] == ETAG


def test_a_complete_partial_file_needs_no_request(hub: Hub, puller: Puller) -> None:
    puller.partial(CONTENT)
    puller.pull()
    assert puller.has_all()
    assert hub.requests == []


def test_without_a_tag_it_starts_again(hub: Hub, puller: Puller) -> None:
    puller.partial(b"?" * HALF, tag=None)
    puller.pull()
    assert puller.has_all()
    assert "range" not in hub.requests[0]


def test_a_weak_tag_is_not_kept(hub: Hub, puller: Puller) -> None:
    hub.etag = 'W/"one"'
    hub.cut_after = [HALF]
    puller.pull()
    assert puller.has_all()
    assert "range" not in hub.requests[1]


def test_a_partial_file_that_is_too_long_is_dropped(hub: Hub, puller: Puller) -> None:
    puller.partial(CONTENT + b"?")
    puller.pull()
    assert puller.has_all()


def test_an_ignored_range_starts_again(hub: Hub, puller: Puller) -> None:
    hub.ranges = False
    puller.partial(b"?" * HALF)
    puller.pull()
    assert puller.has_all()
    assert "range" in hub.requests[0]


def test_a_changed_file_starts_again(hub: Hub, puller: Puller) -> None:
    hub.etag = '"two"'
    puller.partial(b"?" * HALF)
    puller.pull()
    assert puller.has_all()


@pytest.mark.parametrize("answer", [f"bytes 1-{len(CONTENT) - 1}/{len(CONTENT)}", "nonsense"])
def test_a_range_at_another_place_starts_again(hub: Hub, puller: Puller, answer: str) -> None:
    hub.content_range = answer
    puller.partial(CONTENT[:HALF])
    puller.pull()
    assert puller.has_all()
    assert "range" not in hub.requests[1]


def test_a_range_of_a_file_of_another_size(hub: Hub, puller: Puller) -> None:
    hub.content_range = f"bytes {HALF}-{len(CONTENT)}/{len(CONTENT) + 1}"
    puller.partial(CONTENT[:HALF])
    with pytest.raises(ModelError, match="pins"):
        puller.pull()
    assert puller.has_nothing()


def test_an_unsatisfiable_range_starts_again(hub: Hub, puller: Puller) -> None:
    hub.statuses = [(416, {})]
    puller.partial(CONTENT[:HALF])
    puller.pull()
    assert puller.has_all()


def test_a_broken_line_is_continued(hub: Hub, puller: Puller) -> None:
    hub.cut_after = [HALF, 1000]
    puller.pull()
    assert puller.has_all()
    assert [request.get("range") for request in hub.requests] == [None, f"bytes={HALF}-", f"bytes={HALF + 1000}-"]


def test_a_tag_does_not_outlive_its_bytes(hub: Hub, puller: Puller) -> None:
    hub.etag, hub.cut_after = None, [HALF]
    puller.partial(b"?" * HALF)
    puller.pull()
    assert puller.has_all()
    assert "range" in hub.requests[0]
    assert "range" not in hub.requests[1]


@pytest.mark.parametrize(("announce", "says"), [(True, f"sends {len(CONTENT) + 10**6} bytes"), (False, "sends more")])
def test_an_excess_is_refused_and_never_written(hub: Hub, puller: Puller, announce: bool, says: str) -> None:
    hub.content, hub.announce = CONTENT + bytes(10**6), announce
    told: list[int] = []
    with pytest.raises(ModelError, match=says):
        pull(hub.model(), puller.store, lambda done, total, phase: told.append(done), environ=hub.environ())
    assert max(told, default=0) <= (0 if announce else len(CONTENT))
    assert puller.has_nothing()


def test_a_wrong_hash_leaves_nothing(hub: Hub, puller: Puller) -> None:
    hub.content = CONTENT[::-1]
    with pytest.raises(ModelError, match="not the file that the catalogue pins") as caught:
        puller.pull()
    assert caught.value.remedy
    assert puller.has_nothing()


def test_a_wrong_hash_keeps_what_was_installed(hub: Hub, puller: Puller) -> None:
    puller.pull()
    hub.content = b"?" * len(CONTENT)
    with pytest.raises(ModelError):
        puller.pull(CONTENT[::-1])
    assert puller.has_all()


@pytest.mark.parametrize(
    ("status", "word"), [(404, "HF_ENDPOINT"), (410, "HF_ENDPOINT"), (401, "TOKEN"), (403, "TOKEN")]
)
def test_a_final_refusal_is_not_repeated(hub: Hub, puller: Puller, status: int, word: str) -> None:
    hub.statuses = [(status, {})]
    with pytest.raises(ModelError, match=str(status)) as caught:
        puller.pull()
    assert word in caught.value.remedy
    assert len(hub.requests) == 1


def test_a_passing_refusal_is_repeated_after_the_time_it_names(hub: Hub, puller: Puller) -> None:
    hub.statuses = [(503, {}), (429, {"retry-after": "7"}), (503, {"retry-after": "9999"})]
    puller.pull()
    assert puller.has_all()
    assert puller.pauses == [1, 7, 30]


def test_tries_are_limited(hub: Hub, puller: Puller) -> None:
    hub.statuses = [(500, {})] * 100
    with pytest.raises(ModelError, match="failed 5 times"):
        puller.pull()
    assert len(hub.requests) == 5
    assert puller.pauses == [1, 2, 4, 8]


def test_nobody_listens(puller: Puller) -> None:
    with pytest.raises(ModelError, match="refused"):
        puller.pull(HF_ENDPOINT="http://127.0.0.1:1")


@pytest.mark.parametrize("endpoint", ["file:///etc", "ftp://127.0.0.1", "127.0.0.1", "http://[", "http://\x00"])
def test_an_endpoint_that_is_none(puller: Puller, endpoint: str) -> None:
    with pytest.raises(ModelError) as caught:
        puller.pull(HF_ENDPOINT=endpoint)
    assert "HF_ENDPOINT" in caught.value.remedy + str(caught.value)


def test_a_token_with_a_line_break_is_no_header(puller: Puller) -> None:
    with pytest.raises(ModelError, match="cannot be asked for"):
        puller.pull(HF_TOKEN="a\nb: c")


def test_a_redirect_keeps_the_token_within_the_origin(hub: Hub, puller: Puller) -> None:
    hub.redirect = "/content/little"
    puller.pull(HF_TOKEN="secret\n")
    assert [request["authorization"] for request in hub.requests] == ["Bearer secret"] * 2


def test_a_redirect_to_another_host_drops_the_token_and_keeps_the_range(hub: Hub, puller: Puller) -> None:
    hub.redirect = hub.url.replace("127.0.0.1", "localhost") + "/content/little"
    puller.partial(CONTENT[:HALF])
    puller.pull(HF_TOKEN="secret")
    assert puller.has_all()
    assert hub.requests[0]["authorization"] == "Bearer secret"
    assert "authorization" not in hub.requests[1]
    assert hub.requests[1]["range"] == f"bytes={HALF}-"


def test_a_full_disk_is_seen_before_the_first_byte(hub: Hub, puller: Puller) -> None:
    with pytest.raises(ModelError, match="Not enough disk space"):
        pull(hub.model(size_bytes=10**18), puller.store, environ=hub.environ())
    assert hub.requests == []


def test_progress_says_each_phase(hub: Hub, puller: Puller) -> None:
    told: list[tuple[int, int, str]] = []
    pull(hub.model(), puller.store, lambda *step: told.append(step), environ=hub.environ())
    assert [phase for _, _, phase in told if phase == "download"]
    assert told[-1] == (len(CONTENT), len(CONTENT), "verify")


def test_two_pulls_make_one_download(hub: Hub, puller: Puller) -> None:
    hub.stall = threading.Event()
    waiting = threading.Event()

    def tell(done: int, total: int, phase: str) -> None:
        if phase == "wait":
            waiting.set()

    first = threading.Thread(target=puller.pull)
    first.start()
    assert hub.stalled.wait(30)
    second = threading.Thread(target=pull, args=(hub.model(), puller.store, tell), kwargs={"environ": hub.environ()})
    second.start()
    assert waiting.wait(30)
    stall, hub.stall = hub.stall, None
    stall.set()
    first.join(30)
    second.join(30)
    assert puller.has_all()
    assert [request.get("range") for request in hub.requests] == [None, f"bytes={len(CONTENT) - 1}-"]


KILLED = """
import hashlib, os, sys
from pathlib import Path
from coterie.models.catalogue import CatalogModel, HuggingFace
from coterie.models.pull import pull
from coterie.models.store import ModelStore
content = bytes(range(256)) * 4096
source = HuggingFace("owner/repo", "abc", "little.gguf")
digest = hashlib.sha256(content).hexdigest()
pull(CatalogModel("little", "", "MIT", len(content), 1, digest, "little.gguf", source), ModelStore(Path(sys.argv[1])))
"""


def test_killed_in_the_middle_and_pulled_again(hub: Hub, puller: Puller) -> None:
    hub.stall = threading.Event()
    command = [sys.executable, "-c", KILLED, str(puller.store.folder)]
    with subprocess.Popen(command, env={**hub.environ(), "NO_PROXY": "*"}) as process:
        assert hub.stalled.wait(30)
        process.send_signal(signal.SIGKILL)
    hub.stall.set()
    hub.stall = None
    assert process.returncode == -signal.SIGKILL
    assert puller.store.list() == ()
    puller.pull()
    assert puller.has_all()
    assert puller.store.verify("little").ok
