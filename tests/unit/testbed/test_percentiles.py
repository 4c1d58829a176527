"""Nearest ranks, by table and by their definition."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.testbed.percentiles import Segment, Summary, percentile


@pytest.mark.parametrize(
    ("count", "percent", "rank"),
    [(1, 50, 1), (1, 99, 1), (2, 50, 1), (3, 50, 2), (10, 95, 10), (99, 99, 99), (100, 99, 99), (200, 95, 190)],
)
def test_the_rank(count: int, percent: int, rank: int) -> None:
    assert percentile(range(1, count + 1), percent) == rank


@given(st.lists(st.integers(-50, 50), min_size=1), st.integers(1, 100))
def test_the_definition(values: list[int], percent: int) -> None:
    def share(limit: float) -> int:
        return 100 * sum(value <= limit for value in values)

    found = percentile(sorted(values), percent)
    assert found in values
    assert share(found) >= percent * len(values)
    assert all(share(value) < percent * len(values) for value in values if value < found)


def test_a_summary() -> None:
    segment = Segment()
    segment.extend([4.0, 1.0, 3.0])
    segment.add(2.0)
    assert segment.summary() == Summary(4, 2.5, 2.0, 4.0, 4.0, 4.0)


def test_nothing_measured_is_no_number() -> None:
    assert Segment().summary() == Summary(0, None, None, None, None, None)


def test_values_beyond_the_bound_are_only_counted() -> None:
    segment = Segment(max_values=2)
    segment.extend([1.0, 2.0, 100.0])
    summary = segment.summary()
    assert (summary.count, summary.max, summary.not_kept) == (2, 2.0, 1)
    assert summary.mean is not None
    assert math.isclose(summary.mean, 1.5)
