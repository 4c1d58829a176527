"""Counters and gauges that cost next to nothing to count with, for what happens with every request.

``prometheus_client``'s own take a lock and look their labels up each time; these belong to the event loop alone. The
page shows them as it would show those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Labels = tuple[str, ...]


class _Row:
    __slots__ = ("count", "created_s")

    def __init__(self) -> None:
        self.count: float = 0
        self.created_s = time.time()


class Counts(Collector):
    """One metric: a counter for each combination of values of ``labels``."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._rows: dict[Labels, _Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, values: Labels) -> bool:
        return values in self._rows

    def __iter__(self) -> Iterator[Labels]:
        return iter(self._rows)

    def add(self, values: Labels, count: float = 1) -> None:
        """Count ``count`` (0 or more) for ``values`` of the labels."""
        row = self._rows.get(values)
        if row is None:
            row = self._rows[values] = _Row()
        row.count += count

    def keep(self, is_kept: Callable[[Labels], bool]) -> None:
        """Forget all others."""
        self._rows = {values: row for values, row in self._rows.items() if is_kept(values)}

    def collect(self) -> Iterable[Metric]:
        """For the page."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, row in self._rows.items():
            family.add_metric(values, row.count, created=row.created_s)
        yield family


class Level(Collector):
    """One metric: how many there are now."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text
        self._count = 0

    def inc(self) -> None:
        """One more."""
        self._count += 1

    def dec(self) -> None:
        """One less."""
        self._count -= 1

    def collect(self) -> Iterable[Metric]:
        """For the page."""
        yield GaugeMetricFamily(self._name, self._text, value=self._count)
