from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coterie.cli import testbed
from coterie.testbed.faults import FAULTS
from coterie.testbed.upstream import FaultyUpstream

Coterie = Callable[..., Any]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[FaultyUpstream]:
    """What would be served, which is closed at once."""
    made: list[FaultyUpstream] = []

    def serve(upstream: FaultyUpstream) -> None:
        made.append(upstream)
        asyncio.run(upstream.stop())

    monkeypatch.setattr(testbed, "_serve", serve)
    return made


def test_all_faults_are_listed(coterie: Coterie) -> None:
    lines = coterie("testbed", "faults").out.splitlines()
    table = lines[1 : lines.index("")]
    assert [line.split()[0].split("@")[0].split(":")[0] for line in table if line[0] != " "] == list(FAULTS)
    assert any("overflow:style=openai|vllm|llamacpp" in line for line in table)
    assert any(line.startswith(":tokens=") for line in lines)


def test_all_faults_as_json(coterie: Coterie) -> None:
    told = json.loads(coterie("testbed", "faults", "--json").out)
    assert {fault["name"]: fault["summary"] for fault in told["faults"]} == {
        name: fault.summary for name, fault in FAULTS.items()
    }


def test_the_options_reach_the_upstream(coterie: Coterie, served: list[FaultyUpstream], tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    ran = coterie(
        "testbed", "upstream", "--port", "0", "--model", "llama=cut@4", "--model", "b=ok", "--tokens", "7",
        "--rate", "20", "--seed", "3", "--api-key", "k", "--leak", "--log", str(log),
    )  # fmt: skip
    assert ran.status == 0, ran.err
    settings = served[0].settings
    assert settings.models == {"llama": "cut@4", "b": "ok"}
    assert (settings.tokens, settings.rate, settings.seed) == (7, 20, 3)
    assert (settings.api_key, settings.marker) == ("k", testbed.LEAK_MARKER)
    assert log.exists()


def test_wrong_faults_are_told_together(coterie: Coterie, served: list[FaultyUpstream]) -> None:
    ran = coterie("testbed", "upstream", "--model", "a", "--model", "b=cat@4", "--model", "c=cut@x")
    assert (ran.status, served) == (1, [])
    assert "--model a: after the name comes '=' and one of ok, rate-limit" in ran.err
    assert "--model b=cat@4: after the name" in ran.err
    assert "--model c=cut@x: the number of 'cut' is a whole number, not 'x'" in ran.err


def test_a_port_that_is_taken(coterie: Coterie) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = coterie("testbed", "upstream", "--port", str(taken.getsockname()[1]))
    assert ran.status == 1
    assert "Address already in use" in ran.err


def test_a_log_that_cannot_be_written(coterie: Coterie, tmp_path: Path) -> None:
    ran = coterie("testbed", "upstream", "--port", "0", "--log", str(tmp_path / "none" / "log"))
    assert ran.status == 1
    assert "log: No such file or directory" in ran.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal(coterie: Coterie, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    answers: list[bytes] = []

    def ask(upstream: FaultyUpstream) -> None:
        with socket.create_connection(("127.0.0.1", upstream.port), timeout=30) as client:
            client.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
            answers.append(client.recv(15))
        os.kill(os.getpid(), number)

    start = FaultyUpstream.start

    async def started(upstream: FaultyUpstream) -> None:
        await start(upstream)
        threading.Thread(target=ask, args=(upstream,)).start()

    monkeypatch.setattr(FaultyUpstream, "start", started)
    ran = coterie("testbed", "upstream", "--port", "0")
    assert ran.status == 0, ran.err
    assert answers == [b"HTTP/1.1 200 OK"]
    assert "Serving http://127.0.0.1:" in ran.out
    assert "cut" in ran.out
