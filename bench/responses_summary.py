"""The Responses benchmark's measurements in numbers, and what is aimed at. Pure.

Costs are compared within each round, and the median of the rounds counts; latencies are of all rounds together.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.gateway_summary import Goal
from bench.responses_meter import BACKGROUND, MANY, QUIET, SURROUNDINGS, Findings, Samples
from bench.responses_orders import CHAT, KINDS, STORED, UNSTORED, Kind

from coterie.testbed.percentiles import percentile

Values = Callable[[Samples], Sequence[float]]


def _chunk_cpu_us(samples: Samples) -> Sequence[float]:
    return samples.chunk_cpu_us


def _stream_cpu_us(samples: Samples) -> Sequence[float]:
    return samples.stream_cpu_us


def _plain_cpu_us(samples: Samples) -> Sequence[float]:
    return samples.plain_cpu_us


def _plain_ms(samples: Samples) -> Sequence[float]:
    return samples.plain_ms


def _stream_ms(samples: Samples) -> Sequence[float]:
    return samples.stream_ms


_COSTS: Final[tuple[tuple[str, int, Values], ...]] = (
    ("CPU per streamed chunk", 1, _chunk_cpu_us),
    ("CPU per stream, beside its chunks", 0, _stream_cpu_us),
    ("CPU per plain request", 0, _plain_cpu_us),
)
_LATENCIES: Final[tuple[tuple[str, Values], ...]] = (("plain request", _plain_ms), ("whole stream", _stream_ms))


@dataclass(frozen=True, slots=True)
class Row:
    """A line of numbers, shown with so many ``digits``; ``None`` where one was not measured."""

    text: str
    digits: int
    numbers: tuple[float | None, ...]


def kind_rows(findings: Findings) -> Iterator[Row]:
    """What was measured, for each kind in turn."""
    everything = [findings.kinds[kind.name] for kind in KINDS]
    for text, digits, cost in _COSTS:
        yield Row(f"{text}, µs", digits, tuple(_median(cost(one)) for one in everything))
        yield Row(f"{text}, chat's = 1", 2, tuple(_over_chat(findings, kind, cost) for kind in KINDS))
    for text, latency in _LATENCIES:
        for percent in (50, 99):
            numbers = tuple(_percentile(latency(one), percent) for one in everything)
            yield Row(f"{text}, one at a time, p{percent}, ms", 2, numbers)
    yield Row(
        f"lateness of the tokens of {MANY} streams, p99, ms", 1, tuple(_median(one.late_ms) for one in everything)
    )
    yield Row("memory for each open stream, KB", 1, tuple(one.memory_kb for one in everything))


def beside_rows(findings: Findings) -> Iterator[Row]:
    """Latency of plain chat requests, for each of what else the server did in turn."""
    for percent in (50, 99):
        numbers = tuple(_percentile(findings.beside_ms[name], percent) for name in SURROUNDINGS)
        usual = _percentile(findings.beside_ms[QUIET], percent)
        yield Row(f"p{percent}, ms", 2, numbers)
        yield Row(f"p{percent}, more than usual, ms", 2, tuple(_less(number, usual) for number in numbers))
        yield Row(f"p{percent}, usual = 1", 2, tuple(_ratio(number, usual) for number in numbers))


def goals(findings: Findings) -> Iterator[Goal]:
    """What is aimed at."""
    for kind in (UNSTORED, STORED):
        ratio = _over_chat(findings, kind, _chunk_cpu_us)
        yield Goal(f"CPU per streamed chunk, {kind.name}, over a chat stream's", " times", 1.5, ratio)
    stored, unstored = (findings.kinds[kind.name] for kind in (STORED, UNSTORED))
    for text, latency in _LATENCIES:
        added_ms = _less(_percentile(latency(stored), 50), _percentile(latency(unstored), 50))
        yield Goal(f"what storing adds to a {text}, one at a time, p50", " ms", 2, added_ms)
    usual_p99_ms = _percentile(findings.beside_ms[QUIET], 99)
    if usual_p99_ms is not None:
        text = f"plain chat request beside {BACKGROUND}, p50, within the usual p99"
        yield Goal(text, " ms", round(usual_p99_ms, 2), _percentile(findings.beside_ms[BACKGROUND], 50))
    yield Goal(f"lateness of {MANY} stored streams at 20 tokens/s, p99", " ms", 50, _median(stored.late_ms))
    yield Goal("memory for each open stored stream", " KB", 60, stored.memory_kb)


def accepted_ms(findings: Findings, percent: int) -> float | None:
    """How long a request for a response in the background took."""
    return _percentile(findings.accepted_ms, percent)


def _over_chat(findings: Findings, kind: Kind, values: Values) -> float | None:
    rounds = zip(values(findings.kinds[kind.name]), values(findings.kinds[CHAT.name]), strict=True)
    return _median([over / under for over, under in rounds if under > 0])


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None


def _percentile(values: Sequence[float], percent: int) -> float | None:
    return percentile(sorted(values), percent) if values else None


def _less(number: float | None, base: float | None) -> float | None:
    return None if number is None or base is None else number - base


def _ratio(number: float | None, base: float | None) -> float | None:
    return None if number is None or not base else number / base
