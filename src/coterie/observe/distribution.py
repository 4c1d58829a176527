"""A histogram that costs next to nothing to add to, for what happens with every token.

``prometheus_client``'s own takes a lock and walks its buckets; this one belongs to the event loop alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Distribution:
    """Counts by upper ``bounds`` (ascending)."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus wants them."""
        total, rows = 0.0, []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            rows.append(("+Inf" if bound == float("inf") else str(float(bound)), total))
        return rows

    @property
    def sum(self) -> float:
        """All values together."""
        return self._sum


class Distributions(Collector):
    """One metric: a :class:`Distribution` for each value of ``label`` (for all, where there is none)."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], label: str | None = None) -> None:
        self._name, self._text, self._bounds, self._label = name, text, bounds, label
        self._by_value: dict[str, Distribution] = {}

    def of(self, value: str = "") -> Distribution:
        """That of one value of the label."""
        found = self._by_value.get(value)
        if found is None:
            found = self._by_value[value] = Distribution(self._bounds)
        return found

    def keep(self, is_kept: Callable[[str], bool]) -> None:
        """Forget all other values of the label."""
        self._by_value = {value: found for value, found in self._by_value.items() if is_kept(value)}

    def collect(self) -> Iterable[Metric]:
        """For the page."""
        family = HistogramMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])
        for value, distribution in self._by_value.items():
            labels = [value] if self._label else []
            family.add_metric(labels, distribution.buckets(), distribution.sum)
        yield family
