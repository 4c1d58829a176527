"""``coterie testbed load``, ``record`` and ``replay``: options in, files and exit status out."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Ran

from coterie.cli import testbed_commands
from coterie.testbed.exchange_file import Exchange, Response, scrubbed_request, write
from coterie.testbed.replayer import Replayer

EVENTS = (
    'data: {"choices":[{"index":0,"delta":{"content":" w0 w1"}}]}\n\n',
    'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    "data: [DONE]\n\n",
)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder with one recorded stream."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    body = b'{"model":"m","messages":[{"role":"user","content":"Count."}],"stream":true}'
    headers = [("content-type", "text/event-stream"), ("transfer-encoding", "chunked")]
    chunks = [(0.0, event) for event in EVENTS]
    response = Response(status=200, reason="OK", headers=headers, head_ms=0, chunks=chunks)  # type: ignore[arg-type]
    request = scrubbed_request("POST", "/v1/chat/completions", [], body)
    write(folder, 1, Exchange(request=request, response=response, ended="complete", ended_ms=0))
    return folder


@pytest.fixture
def url(recordings: Path) -> Iterator[str]:
    """A server that plays it, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    replayer = Replayer(recordings, speed=0)
    asyncio.run_coroutine_threadsafe(replayer.__aenter__(), loop).result()
    yield replayer.url
    asyncio.run_coroutine_threadsafe(replayer.__aexit__(None, None, None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_load_that_is_good(coterie: Callable[..., Ran], url: str, tmp_path: Path) -> None:
    ran = coterie(
        "testbed", "load", url, "--model", "m", "--streams", "2", "--requests", "3", "--ramp", "0", "--rate", "20",
        "--verify", "sequence", "--json", "out.json", "--markdown", "out.md", "--api-key", "hidden",
        "--max-failures", "0", "--max-broken", "0", "--max-p99-ttft-ms", "60000", "--max-p99-lateness-ms", "60000",
    )  # fmt: skip
    assert (ran.status, ran.err) == (0, "")
    assert "| complete | 3 |" in ran.out
    assert (tmp_path / "out.md").read_text() == ran.out
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["requests"], result["failures"], result["tokens"], result["thresholds_passed"]) == (3, 0, 6, [])
    assert "hidden" not in ran.out + json.dumps(result)


def test_a_limit_that_is_passed(coterie: Callable[..., Ran], url: str) -> None:
    ran = coterie("testbed", "load", url, "--model", "other", "--ramp", "0", "--max-failures", "0")
    assert ran.status == 1
    assert "| http error: 404 no_recording | 1 |" in ran.out
    assert "Passed the limit: failures: 1, the limit is 0." in ran.out


@pytest.mark.parametrize(("text", "status"), [(" w0 w1", 0), (" w0 w2", 1)])
def test_a_text_from_a_file(coterie: Callable[..., Ran], url: str, tmp_path: Path, text: str, status: int) -> None:
    (tmp_path / "text").write_text(text)
    ran = coterie("testbed", "load", url, "--model", "m", "--ramp", "0", "--verify", "text", "--max-broken", "0")
    assert ran.status == status


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("load", "http://example.com", "--model", "m"), "not this machine"),
        (("load", "nonsense", "--model", "m"), "http://"),
        (("load", "http://localhost", "--model", "m", "--streams", "99999"), "streams"),
        (("load", "http://localhost", "--model", "m", "--verify", "nowhere.txt"), "nowhere.txt"),
        (("record", "--upstream", "http://localhost/v1", "--folder", "x"), "path"),
        (("replay", "--folder", "nowhere"), "no recorded exchange"),
    ],
)
def test_mistakes_are_plain_lines(coterie: Callable[..., Ran], options: tuple[str, ...], words: str) -> None:
    ran = coterie("testbed", *options)
    assert ran.status == 1
    assert words in ran.err
    assert "Traceback" not in ran.err


def test_record_and_replay_listen_until_they_are_stopped(
    coterie: Callable[..., Ran], recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once() -> None:
        return None

    monkeypatch.setattr(testbed_commands, "_stop_signal", at_once)
    ran = coterie("testbed", "replay", "--folder", str(recordings), "--port", "0")
    assert (ran.status, ran.err) == (0, "")
    assert "Listening on http://127.0.0.1:" in ran.out
    ran = coterie("testbed", "record", "--upstream", "http://localhost:1", "--folder", "new", "--port", "0")
    assert (ran.status, ran.err) == (0, "")
    assert "0 exchanges recorded in new" in ran.out
    assert (tmp_path / "new").is_dir()
