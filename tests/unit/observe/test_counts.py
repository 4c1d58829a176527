"""The page shows our own counters as it would show the library's."""

from __future__ import annotations

import re

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from coterie.observe.counts import Counts, Level

LABELS = ("route", "code")


def page(collector: Counts | Level) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def without_times(text: str) -> str:
    return re.sub(r"(_created\{.*\}) .*", r"\1", text)


COUNTED = [
    [],
    [(("/a", ""), 1)],
    [(("/a", ""), 1), (("/b", 'quoted "x"\n'), 2), (("/a", ""), 1), (("/c", ""), 0)],
    [(("/a", ""), 12_345_678_901)],
]


@pytest.mark.parametrize("counted", COUNTED)
def test_counters(counted: list[tuple[tuple[str, str], int]]) -> None:
    ours = Counts("met", "What it is.", LABELS)
    registry = CollectorRegistry()
    theirs = Counter("met", "What it is.", LABELS, registry=registry)
    for values, count in counted:
        ours.add(values, count)
        theirs.labels(*values).inc(count)
    assert without_times(page(ours)) == without_times(generate_latest(registry).decode())


def test_a_counter_tells_since_when_it_counts() -> None:
    counts = Counts("met", "What it is.", LABELS)
    counts.add(("/a", ""))
    [since] = re.findall(r"met_created\{.*\} (.*)", page(counts))
    counts.add(("/a", ""))
    counts.add(("/b", ""))
    first, second = re.findall(r"met_created\{.*\} (.*)", page(counts))
    assert first == since
    assert float(second) >= float(first) > 1e9


@pytest.mark.parametrize("steps", ["", "+", "++-", "+-"])
def test_levels(steps: str) -> None:
    ours = Level("met", "What it is.")
    registry = CollectorRegistry()
    theirs = Gauge("met", "What it is.", registry=registry)
    for step in steps:
        for level in (ours, theirs):
            level.inc() if step == "+" else level.dec()
    assert page(ours) == generate_latest(registry).decode()


def test_what_is_forgotten_begins_anew() -> None:
    counts = Counts("met", "What it is.", LABELS)
    for route in ("/a", "/b", "/a"):
        counts.add((route, ""))
    counts.keep(lambda values: values[0] == "/b")
    assert list(counts) == [("/b", "")]
    assert ("/a", "") not in counts
    counts.add(("/a", ""))
    assert len(counts) == 2
    assert 'met_total{code="",route="/a"} 1.0' in page(counts)
