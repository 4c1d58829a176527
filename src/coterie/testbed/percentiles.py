"""Mean, percentiles and maximum of measured values. Pure.

A percentile is the nearest rank: ``p`` of ``n`` values is the smallest of them that at least ``p`` % of all do not
exceed, the ``ceil(p / 100 * n)``-th of the sorted values. So it is always a value that was measured, and of fewer than
a hundred values the 99th percentile is the largest.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

MAX_VALUES: Final = 4_000_000
"""Values that one :class:`Segment` keeps; what comes later is only counted."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A segment in numbers, in the values' own unit. All are ``None`` where nothing was measured."""

    count: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None
    not_kept: int = 0
    """Values that came beyond :data:`MAX_VALUES`, and are in none of the numbers."""


class Segment:
    """Collects the values of one thing that is measured, in bounded memory."""

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        self._values = array("d")
        self._max_values = max_values
        self._not_kept = 0

    def add(self, value: float) -> None:
        """Take one value."""
        if len(self._values) < self._max_values:
            self._values.append(value)
        else:
            self._not_kept += 1

    def extend(self, values: Iterable[float]) -> None:
        """Take several values."""
        for value in values:
            self.add(value)

    def summary(self) -> Summary:
        """The numbers so far."""
        values = sorted(self._values)
        if not values:
            return Summary(0, None, None, None, None, None, self._not_kept)
        p50, p95, p99 = (percentile(values, percent) for percent in (50, 95, 99))
        mean = sum(values) / len(values)
        return Summary(len(values), mean, p50, p95, p99, values[-1], self._not_kept)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest rank of ``percent`` (1 to 100) in ``ordered``, which is sorted and not empty."""
    rank = -(-percent * len(ordered) // 100)
    return ordered[rank - 1]
