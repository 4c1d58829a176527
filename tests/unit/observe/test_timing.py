"""The ``X-Timing`` header."""

from __future__ import annotations

import json

import pytest

from coterie.observe.timing import Timing
from coterie.wire.lingua import Attempt

PHASES = ("parse_us", "admit_us", "route_us", "queue_us", "connect_us", "provider_us", "attempts")


def timing(*attempts: Attempt, **phases: float) -> Timing:
    return Timing(0.0, attempts=list(attempts), **phases)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (timing(), (0, 0, 0, 0, 0, 0, 0)),
        (timing(parse_s=0.001, admit_s=0.002, route_s=3e-6, queue_s=0.0000004), (1000, 2000, 3, 0, 0, 0, 0)),
        (timing(parse_s=0.0000006, admit_s=0.0000016, queue_s=0.9999996), (1, 2, 0, 1_000_000, 0, 0, 0)),
        (timing(Attempt("a")), (0, 0, 0, 0, 0, 0, 1)),
        (
            timing(Attempt("a", 0.0, 0.25, 0.125, 1.0), queue_s=0.5),
            (0, 0, 0, 750_000, 125_000, 625_000, 1),
        ),
        # Only the newest attempt's phases are told; a provider's own clock never makes one negative.
        (timing(Attempt("a", 0.0, 9, 9, 9), Attempt("b", 0.0, 2.0, 0.0, 1.0)), (0, 0, 0, 2_000_000, 0, 0, 2)),
    ],
)
def test_whole_microseconds(given: Timing, expected: tuple[int, ...]) -> None:
    header = json.loads(given.header())
    assert header == dict(zip(PHASES, expected, strict=True))
    assert all(type(value) is int for value in header.values())


def test_it_is_one_line_of_ascii() -> None:
    header = timing(Attempt("a")).header()
    assert header.isascii()
    assert b"\n" not in header


def test_the_provider_is_that_of_the_newest_attempt() -> None:
    assert timing().provider == ""
    assert timing(Attempt("a"), Attempt("b")).provider == "b"
