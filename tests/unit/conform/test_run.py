"""Running checks: none ends the others, time is bounded, and the key is never shown."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from types import ModuleType

import pytest
from tests.support.raw_server import Peer, raw_server

from coterie.conform import run as running
from coterie.conform.check import OPENAI, Check, Failure, Group, Run, Site, Skip
from coterie.conform.exchange import Target
from coterie.conform.run import NoServer, Plan, Report, checks_of, run

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
CHAT: tuple[Group, ...] = ("chat",)
FAILURE = Failure("r", "words", "found secret", "asked secret", "received secret")


async def good(site: Site) -> Iterable[Failure]:
    return ()


async def bad(site: Site) -> Iterable[Failure]:
    return [FAILURE, FAILURE]


async def skipped(site: Site) -> Iterable[Failure]:
    raise Skip("not with secret")


async def odd(site: Site) -> Iterable[Failure]:
    raise KeyError("id")


async def endless(site: Site) -> Iterable[Failure]:
    await asyncio.Event().wait()
    return ()


async def many(site: Site) -> Iterable[Failure]:
    return (Failure("r", "w", str(number)) for number in range(1000))


async def reported(monkeypatch: pytest.MonkeyPatch, *runs: Run, limit_s: float = 60, timeout_s: float = 30) -> Report:
    module = ModuleType("coterie.conform.chat")
    module.__dict__["CHECKS"] = [Check(each.__name__, "chat", "says", OPENAI, each) for each in runs]
    monkeypatch.setitem(sys.modules, "coterie.conform.chat", module)

    async def script(peer: Peer) -> None:
        await peer.answer(ANSWER)
        await peer.closed()

    async with raw_server(script) as server:
        target = Target(f"http://127.0.0.1:{server.origin.port}", "m", "secret")
        return await run(Plan(target, CHAT, timeout_s, limit_s))


async def test_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await reported(monkeypatch, good, bad, skipped, odd, good)
    assert [result.verdict for result in report.results] == ["pass", "fail", "skip", "fail", "pass"]
    assert [report.count(verdict) for verdict in ("pass", "fail", "skip")] == [2, 2, 1]
    assert report.count("fail", "chat") == 2
    assert report.count("fail", "errors") == 0
    [unreadable] = report.results[3].failures
    assert (unreadable.rule, unreadable.found) == ("readable", "the answer could not be judged: KeyError: 'id'")


async def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await reported(monkeypatch, bad, skipped)
    assert "secret" not in repr(report.results)
    [failure] = report.results[0].failures
    assert (failure.found, failure.asked, failure.received) == ("found ***", "asked ***", "received ***")
    assert report.results[1].reason == "not with ***"


async def test_a_check_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await reported(monkeypatch, endless, good, timeout_s=0.1)
    assert [[failure.rule for failure in result.failures] for result in report.results] == [["in-time"], []]


async def test_the_time_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await reported(monkeypatch, endless, good, limit_s=0.3)
    assert [result.verdict for result in report.results] == ["fail", "skip"]
    assert report.results[1].reason == "the time for all checks is up"


async def test_failures_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    [result] = (await reported(monkeypatch, many)).results
    assert len(result.failures) == running.MAX_FAILURES_PER_CHECK


async def test_nobody_there() -> None:
    async with raw_server(lambda peer: peer.closed()) as server:
        port = server.origin.port
    with pytest.raises(NoServer, match="refused"):
        await run(Plan(Target(f"http://127.0.0.1:{port}", "m"), CHAT))


def test_checks_have_names_words_and_sources() -> None:
    checks = checks_of(("websocket", "errors", "chat", "responses", "storage"))
    assert len({check.id for check in checks}) == len(checks) > 200
    assert all(check.id.startswith(f"{check.group}.") and check.says and check.source for check in checks)
    assert next(check.group for check in checks_of(("storage", "chat"))) == "chat"
