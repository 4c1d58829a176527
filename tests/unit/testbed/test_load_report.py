"""Segments, thresholds and their text, from records made by hand."""

from __future__ import annotations

import json
from array import array

import pytest

from coterie.testbed.integrity import Outcome
from coterie.testbed.load_report import LoadReport, Tally, Thresholds, as_json, as_markdown, lateness_s
from coterie.testbed.load_stream import Record


def record(*arrivals_s: float, tokens: list[int] | None = None, outcome: Outcome | None = None) -> Record:
    return Record(
        outcome=outcome or Outcome("complete"),
        connect_s=0.001,
        head_s=0.002,
        ttft_s=0.1,
        total_s=1.0,
        arrivals_s=array("d", arrivals_s),
        tokens=array("L", tokens or [1] * len(arrivals_s)),
    )


@pytest.mark.parametrize(
    ("given", "late"),
    [
        (record(), []),
        (record(0.0), []),
        (record(0.0, 0.5, 1.0), [0, 0]),
        (record(0.0, 0.75, 0.8), [0.25, 0]),
        (record(0.0, 1.25, tokens=[1, 2]), [0.75, 0.25]),
        (record(0.0, 0.5, tokens=[2, 1]), [0, 0]),
    ],
)
def test_lateness(given: Record, late: list[float]) -> None:
    assert list(lateness_s(given, 2.0)) == pytest.approx(late)


def report(rate: float | None = 2.0) -> LoadReport:
    tally = Tally(rate)
    tally.add(record(0.0, 0.75, 1.0))
    tally.add(record(outcome=Outcome("http error", "429 a|b\n")))
    tally.add(record(0.0, outcome=Outcome("broken", "gap")))
    tally.add(record(outcome=Outcome("unfinished")))
    tally.add_lag(0.003)
    return tally.report(2.0)


def test_numbers() -> None:
    found = report()
    assert (found.requests, found.failures, found.broken, found.tokens) == (4, 2, 1, 4)
    assert found.segments["gap"].max == 750
    assert found.segments["lateness"].max == 250
    assert found.segments["loop_lag"].count == 1
    assert found.segments["ttft"].p99 == 100


def test_without_a_rate_nothing_is_late() -> None:
    assert report(rate=None).segments["lateness"].count == 0


@pytest.mark.parametrize(
    ("thresholds", "passed"),
    [
        (Thresholds(), []),
        (Thresholds(100, 250, 2, 1), []),
        (Thresholds(max_p99_ttft_ms=99), ["p99 of ttft in ms: 100, the limit is 99"]),
        (Thresholds(max_p99_lateness_ms=0), ["p99 of lateness in ms: 250, the limit is 0"]),
        (Thresholds(max_failures=1), ["failures: 2, the limit is 1"]),
        (Thresholds(max_broken=0), ["broken answers: 1, the limit is 0"]),
    ],
)
def test_thresholds(thresholds: Thresholds, passed: list[str]) -> None:
    assert thresholds.passed(report()) == passed


def test_a_limit_on_what_was_not_measured_is_passed() -> None:
    (sentence,) = Thresholds(max_p99_lateness_ms=5).passed(report(rate=None))
    assert "nothing was measured" in sentence


def test_json() -> None:
    value = json.loads(json.dumps(as_json(report(), ["x"])))
    assert value["segments_ms"]["ttft"] == {
        "count": 4, "mean": 100.0, "p50": 100.0, "p95": 100.0, "p99": 100.0, "max": 100.0, "not_kept": 0,
    }  # fmt: skip
    assert {"kind": "broken", "detail": "gap", "count": 1} in value["outcomes"]
    assert value["thresholds_passed"] == ["x"]


def test_markdown() -> None:
    text = as_markdown(report(), ["failures: 2, the limit is 1"])
    assert "| ttft | 4 | 100.00 | 100.00 | 100.00 | 100.00 | 100.00 |" in text
    assert "| broken: gap | 1 | No word of the sequence is missing. |" in text
    assert "| http error: 429 a\\|b? | 1 |  |" in text
    assert "- Passed the limit: failures: 2, the limit is 1." in text
    assert "| lateness | 0 | - | - | - | - | - |" in as_markdown(report(rate=None), [])
