"""Running the checks: one after the other, each bounded in time, and none can end the others."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from time import perf_counter
from typing import Final

from coterie.conform.check import GROUPS, Check, Failure, Group, Result, Site, Skip, Verdict
from coterie.conform.exchange import Client, Target
from coterie.conform.judging import RULES

MAX_FAILURES_PER_CHECK: Final = 20
DEFAULT_TIMEOUT_S: Final = 60.0
DEFAULT_LIMIT_S: Final = 1800.0
_EXCHANGES_PER_CHECK: Final = 3
"""A check may take as long as so many of its exchanges."""


class NoServer(Exception):  # noqa: N818 - it says what is missing
    """Nobody answers at the URL; the text says how."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to judge: the target, which groups, and for how long an exchange and the whole may take (seconds)."""

    target: Target
    groups: Collection[Group] = GROUPS
    timeout_s: float = DEFAULT_TIMEOUT_S
    limit_s: float = DEFAULT_LIMIT_S


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a plan. ``began_at`` is UTC."""

    url: str
    model: str
    began_at: str
    duration_s: float
    results: tuple[Result, ...]

    def count(self, verdict: str, group: str | None = None) -> int:
        """How many checks ended so."""
        return sum(r.verdict == verdict and group in (None, r.check.group) for r in self.results)


def checks_of(groups: Collection[Group]) -> list[Check]:
    """The checks of these groups, in order."""
    return [check for group in GROUPS if group in groups for check in import_module(f"coterie.conform.{group}").CHECKS]


async def run(plan: Plan) -> Report:
    """Carry out ``plan``. Raises :class:`NoServer`; whatever else the server does is a result."""
    began_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    begun_s = perf_counter()
    async with Client(plan.target, plan.timeout_s) as client:
        first = await client.ask("GET", "/models")
        if first.status == 0 and first.broken is not None:
            raise NoServer(first.broken)
        site = Site(client)
        results = [
            await _result(site, check, plan.limit_s - (perf_counter() - begun_s)) for check in checks_of(plan.groups)
        ]
    masked = tuple(_masked(result, plan.target.key) for result in results)
    return Report(plan.target.url, plan.target.model, began_at, perf_counter() - begun_s, masked)


async def _result(site: Site, check: Check, left_s: float) -> Result:
    if left_s <= 0:
        return Result(check, "skip", reason="the time for all checks is up")
    begun_s = perf_counter()
    limit_s = min(left_s, site.client.timeout_s * _EXCHANGES_PER_CHECK)
    failures, reason = await _failures(site, check, limit_s)
    verdict: Verdict = "skip" if reason else "fail" if failures else "pass"
    return Result(check, verdict, tuple(failures[:MAX_FAILURES_PER_CHECK]), reason, perf_counter() - begun_s)


async def _failures(site: Site, check: Check, limit_s: float) -> tuple[list[Failure], str]:
    try:
        async with asyncio.timeout(limit_s):
            return _distinct(await check.run(site)), ""
    except Skip as skip:
        return [], str(skip)
    except TimeoutError:
        return [RULES.broken("in-time", f"it took more than {limit_s:.0f} s")], ""
    except Exception as error:  # noqa: BLE001 - whatever a stranger answered, the other checks are still to be made
        return [RULES.broken("readable", f"the answer could not be judged: {type(error).__name__}: {error}")], ""


def _distinct(failures: Iterable[Failure]) -> list[Failure]:
    """Each rule with the same finding once."""
    return list({(failure.rule, failure.found): failure for failure in failures}.values())


def _masked(result: Result, key: str | None) -> Result:
    """``result`` without the key, which a server may have said back."""
    if key is None:
        return result
    failures = tuple(
        replace(f, found=_hide(f.found, key), asked=_hide(f.asked, key), received=_hide(f.received, key))
        for f in result.failures
    )
    return replace(result, failures=failures, reason=_hide(result.reason, key))


def _hide(text: str, key: str) -> str:
    return text.replace(key, "***")
