"""The gateway benchmark's page, in Markdown. Pure, but for what it says of the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bench.gateway_meter import ASKERS, FIRST, MANY, ON_TIME_MS, PLAIN, Plan
from bench.gateway_summary import Goal, Summary, goals

Cell = Callable[[Summary], float | None]

_ROWS: Final[tuple[tuple[str, int, Cell], ...]] = (
    (f"CPU per plain request of {PLAIN.tokens} tokens, µs", 0, lambda one: one.plain_cpu_us),
    ("CPU per plain request of 1 token, µs", 0, lambda one: one.short_cpu_us),
    ("CPU per stream, beside its chunks, µs", 0, lambda one: one.stream_cpu_us),
    ("CPU per streamed chunk, µs", 1, lambda one: one.chunk_cpu_us),
    ("CPU at rest, ms in a second", 1, lambda one: one.idle_share * 1000),
    ("plain, one at a time, p50, ms", 2, lambda one: one.plain_alone_p50_ms),
    ("plain, one at a time, p99, ms", 2, lambda one: one.plain_alone_p99_ms),
    (f"plain, {ASKERS} at once, p50, ms", 1, lambda one: one.plain_busy_p50_ms),
    (f"plain, {ASKERS} at once, p99, ms", 1, lambda one: one.plain_busy_p99_ms),
    ("first token, one at a time, p50, ms", 2, lambda one: one.first_alone_p50_ms),
    ("first token, one at a time, p99, ms", 2, lambda one: one.first_alone_p99_ms),
    (f"first token, {ASKERS} at once, p50, ms", 1, lambda one: one.first_busy_p50_ms),
    (f"first token, {ASKERS} at once, p99, ms", 1, lambda one: one.first_busy_p99_ms),
    (f"plain requests a second, {ASKERS} at once", 0, lambda one: one.requests_per_s),
    ("memory per 1,000 open streams, MB", 1, lambda one: None if one.memory_kb is None else one.memory_kb / 1.024),
    (f"most streams with p99 lateness ≤ {ON_TIME_MS:.0f} ms", 0, lambda one: one.held),
    (f"p99 lateness of {MANY} streams, ms", 1, lambda one: one.many_p99_ms),
    ("gaps with a 40 ms pause, %", 1, lambda one: _percent(one.paused_gaps)),
    ("first tokens after a 40 ms pause, %", 1, lambda one: _percent(one.paused_firsts)),
)


def page(summaries: Sequence[Summary], absent: Mapping[str, str], plan: Plan, quick: bool) -> str:
    """The whole page."""
    command = 'make bench-gateway ARGS="--quick"' if quick else "make bench-gateway"
    versions = ", ".join(f"{one.name} {one.version}" for one in summaries if one.version)
    streams = ", ".join(f"{one.name} {one.streams}" for one in summaries)
    lines = [
        "# What a gateway costs",
        "",
        f"`{command}` wrote this page: {versions}; Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.machine()}. The same upstream was asked directly and through each gateway, "
        f"in turn, in each of {plan.rounds} rounds; upstream, gateway and client share the cores.",
        "",
        *(f"**{name} did not take part**: {_cell(reason)}\n" for name, reason in absent.items()),
        "![Costs of the gateways](gateway.svg)",
        "",
        "## What is aimed at",
        "",
        "| | measured | aimed at | |",
        "|---|--:|--:|---|",
        *map(_goal, goals({one.name: one for one in summaries})),
        "",
        "## What was measured",
        "",
        "| | " + " | ".join(one.name for one in summaries) + " |",
        "|---|" + "--:|" * len(summaries),
        *(_row(text, digits, cell, summaries) for text, digits, cell in _ROWS),
        "",
        "For *direct*, CPU and memory are the upstream's and latencies its own; for a gateway, latencies are what it "
        "adds to them. A dash is what was not measured.",
        "",
        "- CPU is what the system accounts to the gateway's processes, less what they take at rest. Medians of the "
        "rounds; latencies are of all requests together.",
        f"- Plain requests: {ASKERS} askers that never pause, over connections that are kept. Coterie asks for a "
        "stream also where its client does not, and so pays for each token of a plain answer too; the others pass "
        "such a request on as it is.",
        f"- CPU per chunk: paced streams of 20 tokens a second, long ones less short ones; streams at once: {streams}.",
        f"- First token: streams of {FIRST.tokens} tokens, from the request to the first text.",
        "- Lateness: each token carries the moment at which it was due, on the clock that upstream and client share; "
        f"counted once all streams stand, in the better of two tries. Up to {MANY} streams are expected, and "
        "where they are, more are tried.",
        "- A 40 ms pause is a gap of 35 to 50 ms above the pace, in a stream of a token each 5 ms, or as much before "
        "the first token of one request at a time: small writes that wait for a delayed acknowledgement (or, where "
        "first tokens take that long anyway, nothing of the kind).",
        "- Each gateway is one process with one worker. LiteLLM: no database, no callbacks, production mode, a master "
        "key since it does not start without one. sglang-router: round robin, its health checks on.",
        "- *bare relay* is no gateway but a bound: protocols of asyncio that read and write the same JSON, check "
        "nothing, and tell no failure (`bench/bare_relay.py`).",
        *(f"- {one.name} failed: {_cell(trouble)}." for one in summaries for trouble in dict.fromkeys(one.trouble)),
        "",
    ]
    return "\n".join(lines)


def _goal(goal: Goal) -> str:
    limit = f"{'≥' if goal.at_least else '≤'} {goal.limit:g}{goal.unit}"
    measured = "-" if goal.measured is None else f"{goal.measured:.2f}{goal.unit}"
    verdict = {True: "met", False: "**missed**", None: "not measured"}[goal.met]
    return f"| {goal.text} | {measured} | {limit} | {verdict} |"


def _row(text: str, digits: int, cell: Cell, summaries: Sequence[Summary]) -> str:
    values = (cell(one) for one in summaries)
    return f"| {text} | " + " | ".join("-" if value is None else f"{value:,.{digits}f}" for value in values) + " |"


def _percent(share: float | None) -> float | None:
    return None if share is None else share * 100


def _cell(text: str) -> str:
    """A stranger's text as it can stand on the page."""
    return "".join(letter for letter in text if letter.isprintable() and letter not in "|<>`")
