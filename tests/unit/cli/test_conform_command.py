"""``coterie conform``: options in, a report and an exit status out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Ran

from coterie.conform import run as running
from coterie.conform.chat import CHECKS
from coterie.conform.check import OPENAI, Check, Failure, Result
from coterie.conform.run import NoServer, Plan, Report

FAILURE = Failure("done-missing", "A stream ends with [DONE].", "it does not", "POST /v1/x", "HTTP 200")
GOOD = Result(CHECKS[0], "pass")
BAD = Result(Check("chat.bad", "chat", "a stream", OPENAI, CHECKS[0].run), "fail", (FAILURE,))
SKIPPED = Result(Check("chat.key", "chat", "a key", OPENAI, CHECKS[0].run), "skip", reason="no key was given")


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that were carried out; each finds :data:`BAD` where storage is asked for."""
    seen: list[Plan] = []

    async def run(plan: Plan) -> Report:
        seen.append(plan)
        if plan.target.model == "nobody":
            raise NoServer("refused: no")
        results = (GOOD, SKIPPED, BAD) if "storage" in plan.groups else (GOOD, SKIPPED)
        return Report(plan.target.url, plan.target.model, "2026-11-21 10:00:00", 0.5, results)

    monkeypatch.setattr(running, "run", run)
    return seen


def test_a_server_that_passes(coterie: Callable[..., Ran], plans: list[Plan]) -> None:
    ran = coterie("conform", "http://x", "--model", "m", "--only", "chat, errors")
    assert (ran.status, ran.err) == (0, "")
    assert "no key was given" in ran.out
    assert "2 checks in 0.5 s: 1 passed, 0 failed, 1 skipped." in ran.out
    [plan] = plans
    assert (plan.target.url, plan.target.model, plan.target.key, plan.groups) == (
        "http://x",
        "m",
        None,
        ("chat", "errors"),
    )


def test_a_server_that_fails(coterie: Callable[..., Ran], plans: list[Plan], tmp_path: Path) -> None:
    ran = coterie("conform", "http://x", "--model", "m", "--markdown", "report.md", "--timeout", "5", "--limit", "9")
    assert ran.status == 1
    assert "done-missing: it does not" in ran.out
    assert "- `done-missing`: A stream ends with [DONE]." in (tmp_path / "report.md").read_text()
    assert (plans[0].timeout_s, plans[0].limit_s, len(plans[0].groups)) == (5, 9, 5)


def test_json(coterie: Callable[..., Ran], plans: list[Plan]) -> None:
    ran = coterie("conform", "http://x", "--model", "m", "--json")
    assert ran.status == 1
    assert json.loads(ran.out)["counts"] == {"pass": 1, "fail": 1, "skip": 1}


def test_a_key_from_the_environment(
    coterie: Callable[..., Ran], plans: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", "secret")
    ran = coterie("conform", "http://x", "--model", "m", "--only", "chat", "--key-env", "THE_KEY", "--json")
    assert plans[0].target.key == "secret"
    assert "secret" not in ran.out


def test_nobody_there(coterie: Callable[..., Ran], plans: list[Plan]) -> None:
    ran = coterie("conform", "http://x", "--model", "nobody")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error: Nothing answers at http://x: refused: no.")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("http://x",), "--model"),
        (("x", "--model", "m"), "http://"),
        (("http://x", "--model", "m", "--only", "chats"), "chat"),
        (("http://x", "--model", "m", "--key-env", "NOT_THERE"), "NOT_THERE"),
        (("http://x", "--model", "m", "--markdown", "no/such/folder"), "cannot be"),
        (("http://x", "--model", "m", "--timeout", "0"), "--timeout"),
    ],
)
def test_mistakes(coterie: Callable[..., Ran], plans: list[Plan], arguments: tuple[str, ...], says: str) -> None:
    ran = coterie("conform", *arguments)
    assert ran.status == 2
    assert says in ran.err
