"""The gateway benchmark's measurements in numbers, and what is aimed at. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.gateway_meter import FAST_PACE_S, MANY, ON_TIME_MS, Meter

from coterie.testbed.percentiles import percentile

STEP_MS: Final = (35.0, 50.0)
"""A pause between these, above what is to be expected, is that of a delayed acknowledgement."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One target; ``None`` where something was not measured. ``added`` latencies are over the upstream's own."""

    name: str
    version: str
    streams: int
    plain_cpu_us: float | None
    short_cpu_us: float | None
    stream_cpu_us: float | None
    chunk_cpu_us: float | None
    idle_share: float
    plain_alone_p50_ms: float | None
    plain_alone_p99_ms: float | None
    plain_busy_p50_ms: float | None
    plain_busy_p99_ms: float | None
    first_alone_p50_ms: float | None
    first_alone_p99_ms: float | None
    first_busy_p50_ms: float | None
    first_busy_p99_ms: float | None
    requests_per_s: float | None
    memory_kb: float | None
    held: int | None
    many_p99_ms: float | None
    paused_gaps: float | None
    paused_firsts: float | None
    trouble: tuple[str, ...]

    @classmethod
    def of(cls, meter: Meter, direct: Meter) -> Summary:
        """The numbers of ``meter``; for the upstream itself latencies are not what is added but its own."""
        mine, its = meter.samples, direct.samples

        def added(name: str, percent: int) -> float | None:
            base: list[float] | None = None if meter is direct else getattr(its, name)
            return _added(getattr(mine, name), base, percent)

        return cls(
            name=meter.target.name,
            version=meter.target.version,
            streams=meter.target.streams,
            plain_cpu_us=_median(mine.plain_cpu_us),
            short_cpu_us=_median(mine.short_cpu_us),
            stream_cpu_us=_median(mine.stream_cpu_us),
            chunk_cpu_us=_median(mine.chunk_cpu_us),
            idle_share=mine.idle_share,
            plain_alone_p50_ms=added("plain_alone_ms", 50),
            plain_alone_p99_ms=added("plain_alone_ms", 99),
            plain_busy_p50_ms=added("plain_busy_ms", 50),
            plain_busy_p99_ms=added("plain_busy_ms", 99),
            first_alone_p50_ms=added("first_alone_ms", 50),
            first_alone_p99_ms=added("first_alone_ms", 99),
            first_busy_p50_ms=added("first_busy_ms", 50),
            first_busy_p99_ms=added("first_busy_ms", 99),
            requests_per_s=_median(mine.requests_per_s),
            memory_kb=mine.memory_kb,
            held=max((streams for streams, late_ms in mine.held.items() if late_ms <= ON_TIME_MS), default=None),
            many_p99_ms=mine.held.get(MANY),
            paused_gaps=_paused(mine.gaps_ms, FAST_PACE_S * 1000),
            paused_firsts=_paused(mine.first_alone_ms, _median(its.first_alone_ms) or 0.0),
            trouble=tuple(mine.trouble),
        )


@dataclass(frozen=True, slots=True)
class Goal:
    """What is aimed at: ``measured`` beside ``limit``, which it must not pass, or must reach where ``at_least``."""

    text: str
    unit: str
    limit: float
    measured: float | None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """``None`` where nothing was measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def goals(summaries: Mapping[str, Summary]) -> Iterator[Goal]:
    """What is aimed at, for Coterie beside the others that took part."""
    own, rust, python = summaries["Coterie"], summaries.get("sglang-router"), summaries.get("LiteLLM")
    costs: tuple[tuple[str, Callable[[Summary], float | None]], ...] = (
        ("CPU per plain request", lambda one: one.plain_cpu_us),
        ("CPU per streamed chunk", lambda one: one.chunk_cpu_us),
    )
    for what, cost in costs:
        yield Goal(f"{what}, over sglang-router's", " times", 1.3, _ratio(own, rust, cost))
    for what, cost in costs:
        yield Goal(f"{what}, LiteLLM's over it", " times", 40, _ratio(python, own, cost), at_least=True)
    yield Goal("added latency, one request at a time, p50", " ms", 1.5, own.plain_alone_p50_ms)
    yield Goal("added latency, one request at a time, p99", " ms", 3.2, own.plain_alone_p99_ms)
    yield Goal(f"lateness of {MANY} streams at 20 tokens/s, p99", " ms", ON_TIME_MS, own.many_p99_ms)
    yield Goal("memory for each open stream", " KB", 60, own.memory_kb)


def _ratio(one: Summary | None, other: Summary | None, cost: Callable[[Summary], float | None]) -> float | None:
    over, under = (None if side is None else cost(side) for side in (one, other))
    return None if over is None or not under else over / under


def _added(values: Sequence[float], base: Sequence[float] | None, percent: int) -> float | None:
    if not values or (base is not None and not base):
        return None
    return percentile(sorted(values), percent) - (percentile(sorted(base), percent) if base is not None else 0.0)


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _paused(values_ms: Sequence[float], expected_ms: float) -> float | None:
    low_ms, high_ms = STEP_MS
    if not values_ms:
        return None
    return sum(low_ms <= value_ms - expected_ms <= high_ms for value_ms in values_ms) / len(values_ms)
