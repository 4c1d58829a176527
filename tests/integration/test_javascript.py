"""The official JavaScript SDK against the real server; the tests are in ``tests/js``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.integration.conftest import API_KEY
from tests.support.behind import behind
from tests.support.failures import CHAT
from tests.support.models import chat
from tests.support.responses_server import responsive
from tests.support.server import PATIENCE_S, Server

FOLDER = Path(__file__).parents[1] / "js"


def test_javascript_sdk(server: Server, guarded: Server) -> None:
    for _ in range(16):
        # Short answers make the delay that a full queue computes a short one.
        assert server.ask("POST", CHAT, chat("single", max_tokens=1)).status == 200
    environ = {**os.environ, "COTERIE_URL": server.url, "GUARDED_URL": guarded.url, "GUARDED_KEY": API_KEY}
    _run("sdk.test.mjs", environ)


def test_failures_of_a_provider(tmp_path: Path) -> None:
    faults = {name: name for name in ("unavailable", "reset", "silent", "unauthorized", "html", "overflow")}
    faults |= {"rate-limit": "rate-limit@1", "cut": "cut@20", "stall": "stall@20", "malformed": "malformed@20"}
    with behind(tmp_path, faults, dispatch="attempts = 1") as running:
        _run("providers.test.mjs", {**os.environ, "COTERIE_URL": running.server.url})


def test_responses(tmp_path: Path) -> None:
    with responsive(tmp_path) as running:
        where = {"COTERIE_URL": running.server.url, "UPSTREAM_URL": running.upstream.url}
        _run("responses.test.mjs", {**os.environ, **where})


def _run(file: str, environ: dict[str, str]) -> None:
    node = shutil.which("node")
    assert node is not None, "'make test' needs Node"
    assert (FOLDER / "node_modules" / "openai").is_dir(), "'make test' installs it"
    ran = subprocess.run(
        [node, "--test", "--test-reporter=spec", file],
        cwd=FOLDER, env=environ, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "fail 0" in ran.stdout
    assert "skipped 0" in ran.stdout
