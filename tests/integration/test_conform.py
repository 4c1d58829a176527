"""``coterie conform`` as a process: our servers pass every check, and a server that breaks rules is told which."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.responses_server import text_of
from tests.support.scripted_upstream import ScriptedUpstream, Step
from tests.support.server import COTERIE, Server, serving

from coterie.config import DEFAULT_MODEL
from coterie.testbed.upstream import FaultyUpstream

KEY = "conform-key"
ENDLESS = "Count from 1 to 1000."
ENDLESS_TOKENS = 500
"""Whoever asks for this, and for so many, gets an answer that never ends, which is one to cancel."""

ROLES = ("developer", "system", "user", "assistant", "tool", "function")

PATIENCE_S = 50.0
"""Seconds for the command; far above what it takes."""

CONFIG = f"""
[server]
api_keys = ["{KEY}"]

[[providers]]
name = "scripted"
base_url = "{{scripted}}"
models = ["actor"]
"""


def conform(url: str, model: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the report."""
    done = subprocess.run(
        [str(COTERIE), "conform", url, "--model", model, "--timeout", "20", "--json", *arguments],
        capture_output=True, env={**os.environ, "CONFORM_KEY": KEY}, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr.decode()
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def failed(report: dict[str, Any]) -> dict[str, set[str]]:
    """The rules that each check found broken."""
    return {check["id"]: {f["rule"] for f in check["failures"]} for check in report["checks"] if check["failures"]}


def told(report: dict[str, Any]) -> list[str]:
    """What a failing test is to show."""
    return [f"{check['id']}: {f['rule']}: {f['found']}" for check in report["checks"] for f in check["failures"]]


def skipped(report: dict[str, Any]) -> dict[str, str]:
    """The checks that could not be made, and why."""
    return {check["id"]: check["reason"] for check in report["checks"] if check["verdict"] == "skip"}


# A model that does as it is told


def actor(request: dict[str, Any], upstream: ScriptedUpstream) -> Iterable[Step]:
    """Calls what it must, keeps schemas, stops and limits, and refuses what a gateway leaves to providers to judge."""
    wrong = _wrong(request)
    if wrong is not None:
        yield {"error": {"message": f"no such {wrong}", "type": "invalid_request_error", "param": wrong, "code": 400}}
        return
    most = request.get("max_tokens") or request.get("max_completion_tokens") or 16
    choices = range(request.get("n", 1))
    if isinstance(request.get("tool_choice"), dict):
        yield from _call(request["tool_choice"]["function"]["name"])
        reason, tokens = "stop", 5
    else:
        said = _said(request)[:most]
        reason, tokens = "length" if len(said) == most else "stop", len(said)
        yield from (_chunk(index, {"content": word}) for word in said for index in choices)
        if most >= ENDLESS_TOKENS and text_of(request["messages"][-1]) == ENDLESS:
            yield upstream.gate("endless")
    yield from (_chunk(index, {}, reason) for index in choices)
    yield _usage(sum(len(text_of(message)) for message in request["messages"]), tokens * len(choices))


def _wrong(request: dict[str, Any]) -> str | None:
    """What other models may know and this one does not."""
    for number, message in enumerate(request["messages"]):
        parts = message.get("content")
        if message["role"] not in ROLES:
            return f"messages[{number}].role"
        if isinstance(parts, list) and any(part["type"] not in ("text", "refusal") for part in parts):
            return f"messages[{number}].content[0].type"
    if isinstance(request.get("stop"), dict):
        return "stop"
    known = (None, "text", "json_object", "json_schema")
    return None if request.get("response_format", {}).get("type") in known else "response_format.type"


def _said(request: dict[str, Any]) -> list[str]:
    if request.get("response_format", {}).get("type") == "json_schema":
        return ['{"answer":', ' "yes"}']
    return ["one"] if request.get("stop") else [f" w{number}" for number in range(20)]


def _call(name: str) -> Iterator[Step]:
    head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": '{"city":'}}
    yield _chunk(0, {"tool_calls": [head]})
    yield _chunk(0, {"tool_calls": [{"index": 0, "function": {"arguments": '"Rome"}'}}]})


def _chunk(index: int, said: dict[str, Any], reason: str | None = None) -> Step:
    return {"choices": [{"index": index, "delta": said, "finish_reason": reason}]}


def _usage(prompt: int, completion: int) -> Step:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"choices": [], "usage": counts}


@pytest.fixture(scope="module")
def acted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key, over :func:`actor`."""
    with ScriptedUpstream({"actor": actor}) as upstream:
        config = CONFIG.format(scripted=upstream.base_url)
        with serving(tmp_path_factory.mktemp("conform"), config) as server:
            yield server


def test_every_group_passes(acted: Server) -> None:
    status, report = conform(acted.base_url, "actor", "--key-env", "CONFORM_KEY")
    assert told(report) == []
    assert skipped(report) == {}
    assert status == 0
    assert {check["group"] for check in report["checks"]} == {"errors", "chat", "responses", "storage", "websocket"}
    assert KEY not in json.dumps(report)


def test_the_embedded_engine_passes(server: Server) -> None:
    status, report = conform(server.base_url, DEFAULT_MODEL, "--only", "errors,chat")
    assert told(report) == []
    assert skipped(report) == dict.fromkeys(("errors.key.missing", "errors.key.wrong"), "no key was given")
    assert status == 0


def test_a_server_that_breaks_rules_is_told(tmp_path: Path) -> None:
    with FaultyUpstream(models={"cut": "cut@2"}) as upstream:
        file = tmp_path / "report.md"
        status, report = conform(upstream.base_url, "cut", "--only", "chat", "--markdown", str(file))
    assert status == 1
    found = failed(report)
    assert {"answered", "done-missing"} <= found["chat.stream"]
    assert found["chat.plain"] == {"answered"}
    assert "### chat.stream\n" in file.read_text(encoding="utf-8")
    assert report["counts"]["fail"] == len(found)
