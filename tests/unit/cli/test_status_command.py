from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.canned import CannedServer, answer, error_answer

from coterie.cli.state_lock import StateLock
from coterie.cli.status import uptime

Coterie = Callable[..., Any]

ENGINE = {
    "model": "m",
    "task": "generate",
    "state": "ready",
    "pid": 77,
    "slots": 4,
    "running": 3,
    "waiting": 2,
    "loads": 1,
}
STATUS = {
    "version": "1.2.3",
    "started_at": 1000,
    "ready": True,
    "active_requests": 5,
    "engines": [ENGINE, {**ENGINE, "state": "unloaded", "pid": None}],
}


def test_the_table(coterie: Coterie, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000 + 3700.0)
    with CannedServer({"/status": answer(STATUS)}) as canned:
        ran = coterie("status", "--url", f"{canned.url}/v1")
    assert ran.status == 0
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["version", "1.2.3"] in rows
    assert ["up", "for", "1", "h", "1", "min"] in rows
    assert ["ready", "yes"] in rows
    assert ["requests", "5", "being", "answered"] in rows
    assert rows[-3:] == [
        ["model", "task", "state", "slots", "running", "waiting", "loads", "pid"],
        ["m", "generate", "ready", "4", "3", "2", "1", "77"],
        ["m", "generate", "unloaded", "4", "3", "2", "1", "-"],
    ]


def test_a_server_that_is_not_ready(coterie: Coterie) -> None:
    with CannedServer({"/status": answer({**STATUS, "ready": False, "engines": []})}) as canned:
        assert "ready     no" in coterie("status", "--url", canned.url).out


def test_as_json(coterie: Coterie) -> None:
    with CannedServer({"/status": answer(STATUS)}) as canned:
        ran = coterie("status", "--url", canned.url, "--json")
        assert json.loads(ran.out) == {"url": canned.url, **STATUS}


def test_the_server_of_the_state_folder_with_its_key(
    coterie: Coterie, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COTERIE_SERVER__API_KEYS", '["own-secret"]')
    with CannedServer({"/status": answer(STATUS)}) as canned, StateLock(tmp_path / "state") as lock:
        lock.tell(canned.url)
        assert coterie("status").status == 0
        assert canned.asked[0].headers["authorization"] == "Bearer own-secret"


def test_nothing_runs(coterie: Coterie) -> None:
    ran = coterie("status", "--json")
    assert (ran.status, ran.out) == (1, "")
    assert "No server runs" in ran.err


def test_a_wrong_key_is_told(coterie: Coterie) -> None:
    with CannedServer({"/status": error_answer(401, "invalid_api_key", "Incorrect API key provided.")}) as canned:
        ran = coterie("status", "--url", canned.url, "--api-key", "wrong-key")
        assert canned.asked[0].headers["authorization"] == "Bearer wrong-key"
    assert ran.status == 1
    assert "invalid_api_key" in ran.err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (86_401, "1 d 1 s"),
    ],
)
def test_uptime(seconds: float, text: str) -> None:
    assert uptime(seconds) == text
