"""The Responses benchmark's page, in Markdown. Pure, but for what it says of the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from bench.gateway_summary import Goal
from bench.responses_meter import ASKERS, CPU_STREAMS, MANY, SURROUNDINGS, TOKENS, Findings, Plan
from bench.responses_orders import CHAT, KINDS
from bench.responses_summary import Row, accepted_ms, beside_rows, goals, kind_rows

from coterie.version import __version__

_HEADS: Final = tuple(kind.name if kind is CHAT else f"Responses, {kind.name}" for kind in KINDS)


def page(findings: Findings, plan: Plan, quick: bool) -> str:
    """The whole page."""
    command = 'make bench-responses ARGS="--quick"' if quick else "make bench-responses"
    lines = [
        "# What the Responses API costs",
        "",
        f"`{command}` wrote this page: Coterie {__version__}; Python {platform.python_version()}, {os.cpu_count()} "
        f"cores, {platform.system()} {platform.machine()}. The same upstream was asked for the same answers as chat "
        f"completions, as responses, and as responses that are stored in SQLite, in turn, in each of {findings.rounds} "
        "rounds; upstream, server and client share the cores.",
        "",
        "## What is aimed at",
        "",
        "| | measured | aimed at | |",
        "|---|--:|--:|---|",
        *map(_goal, goals(findings)),
        "",
        "## What was measured",
        "",
        *_table(_HEADS, kind_rows(findings)),
        "",
        "## Plain chat requests beside other work",
        "",
        *_table(SURROUNDINGS, beside_rows(findings)),
        "",
        f"Accepting a response into the background took {_number(accepted_ms(findings, 50), 2)} ms (p50) and "
        f"{_number(accepted_ms(findings, 99), 2)} ms (p99).",
        "",
        "## How it was measured",
        "",
        "- CPU is what the system accounts to the server's process, all its threads together, less what it takes at "
        f"rest ({findings.idle_share * 1000:.1f} ms in a second). Medians of the rounds; ratios are taken within each "
        "round. Latencies are of all requests together.",
        f"- Plain requests have {TOKENS} tokens; CPU: {ASKERS} askers that never pause, over kept connections; "
        "latency: one request at a time.",
        f"- CPU per chunk: {CPU_STREAMS} streams of 20 tokens a second, long ones ({plan.paced_tokens} tokens) less "
        "short ones. A stream of events says its text four times more at its end, and what is stored grows with it: "
        "that is part of the cost of a chunk. A round in which the server did not keep up does not count.",
        f"- Whole stream: {TOKENS} tokens as fast as they come, from the request to the end. A stored one ends when it "
        "is stored.",
        "- Lateness: each token carries the moment at which it was due, on the clock that upstream and client share; "
        f"counted once all {MANY} streams stand; the median of the rounds.",
        f"- Memory: growth of the process's share of memory with {MANY} streams of 20 tokens a second, "
        f"{plan.memory_s:g} s after the last has begun, in a server of its own for each column.",
        f"- In the background: {MANY} responses of 20 tokens a second to which nobody listens. Afterwards the events "
        "of each were read, and all were complete.",
        *(f"- Once it could not be measured: {_cell(trouble)}." for trouble in findings.trouble),
        *_cut(findings, plan),
        "",
    ]
    return "\n".join(lines)


def _cut(findings: Findings, plan: Plan) -> Iterator[str]:
    if findings.rounds < plan.rounds:
        yield f"- {plan.rounds} rounds were meant to be; the machine was too slow for them in {plan.within_s:g} s."


def _goal(goal: Goal) -> str:
    verdict = {True: "met", False: "**missed**", None: "not measured"}[goal.met]
    measured = "-" if goal.measured is None else f"{goal.measured:.2f}{goal.unit}"
    return f"| {goal.text} | {measured} | ≤ {goal.limit:g}{goal.unit} | {verdict} |"


def _table(heads: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    yield "| | " + " | ".join(heads) + " |"
    yield "|---|" + "--:|" * len(heads)
    for row in rows:
        yield f"| {row.text} | " + " | ".join(_number(number, row.digits) for number in row.numbers) + " |"


def _number(number: float | None, digits: int) -> str:
    return "-" if number is None else f"{number:,.{digits}f}"


def _cell(text: str) -> str:
    """A stranger's text as it can stand on the page."""
    return "".join(letter for letter in text if letter.isprintable() and letter not in "|<>`")
