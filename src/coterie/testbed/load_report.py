"""What a load came to: times by segment, outcomes by kind, thresholds, as Markdown and as JSON. Pure.

The segments, all in milliseconds:

=========  ============================================================================================================
connect    from the start to the connection
head       from the request to the answer's status and headers
ttft       from the request to the first token with content; a chunk with a role alone is none
gap        between two chunks with content that follow each other in one stream
lateness   of token ``i`` against the first token's time plus ``i / rate``; 0 where it came early. Only with a rate
total      from the request to the end of the answer
loop_lag   how late the measuring process itself ran; times below it say nothing
=========  ============================================================================================================

A request that failed counts in the segments that it reached. Percentiles are nearest ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

from coterie.testbed.integrity import RULES, Kind, Outcome
from coterie.testbed.load_stream import Record
from coterie.testbed.percentiles import Segment, Summary

SEGMENTS: Final = ("connect", "head", "ttft", "gap", "lateness", "total", "loop_lag")
"""The names of the module's table."""

_MS: Final = 1000.0
_NO_FAILURES: Final[frozenset[Kind]] = frozenset({"complete", "unfinished"})


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The result of a load."""

    duration_s: float
    tokens: int
    """Tokens with content that came, of all streams."""
    segments: Mapping[str, Summary]
    """By the names of :data:`SEGMENTS`, in milliseconds."""
    outcomes: Mapping[Outcome, int]

    @property
    def requests(self) -> int:
        """How many requests there were."""
        return sum(self.outcomes.values())

    @property
    def failures(self) -> int:
        """Requests that did not end as a complete answer, less those that the end of the measurement cut short."""
        return sum(count for outcome, count in self.outcomes.items() if outcome.kind not in _NO_FAILURES)

    @property
    def broken(self) -> int:
        """Requests whose answer broke a rule: neither a good answer nor an honest error."""
        return sum(count for outcome, count in self.outcomes.items() if outcome.kind == "broken")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a load may not pass; ``None`` is no limit."""

    max_p99_ttft_ms: float | None = None
    max_p99_lateness_ms: float | None = None
    max_failures: int | None = None
    max_broken: int | None = None

    def passed(self, report: LoadReport) -> list[str]:
        """One sentence for each limit that ``report`` passes; a limit on what was never measured counts as passed."""
        measured: tuple[tuple[str, float | None, float | None], ...] = (
            ("p99 of ttft in ms", report.segments["ttft"].p99, self.max_p99_ttft_ms),
            ("p99 of lateness in ms", report.segments["lateness"].p99, self.max_p99_lateness_ms),
            ("failures", report.failures, self.max_failures),
            ("broken answers", report.broken, self.max_broken),
        )
        return [
            f"{name}: {'nothing was measured' if value is None else f'{value:g}'}, the limit is {limit:g}"
            for name, value, limit in measured
            if limit is not None and (value is None or value > limit)
        ]


class Tally:
    """Collects records. ``rate``: tokens per second that lateness is measured against."""

    def __init__(self, rate: float | None = None) -> None:
        self._rate = rate
        self._segments = {name: Segment() for name in SEGMENTS}
        self._outcomes: Counter[Outcome] = Counter()
        self._tokens = 0

    def add(self, record: Record) -> None:
        """Take one request."""
        self._outcomes[record.outcome] += 1
        self._tokens += sum(record.tokens)
        times = (
            ("connect", record.connect_s),
            ("head", record.head_s),
            ("ttft", record.ttft_s),
            ("total", record.total_s),
        )
        for name, seconds in times:
            if seconds is not None:
                self._segments[name].add(seconds * _MS)
        self._segments["gap"].extend((later - earlier) * _MS for earlier, later in pairwise(record.arrivals_s))
        if self._rate is not None:
            self._segments["lateness"].extend(seconds * _MS for seconds in lateness_s(record, self._rate))

    def add_lag(self, seconds: float) -> None:
        """Take one measurement of the program's own lag."""
        self._segments["loop_lag"].add(seconds * _MS)

    def report(self, duration_s: float) -> LoadReport:
        """The result so far."""
        summaries = {name: segment.summary() for name, segment in self._segments.items()}
        return LoadReport(duration_s, self._tokens, summaries, dict(self._outcomes))


def lateness_s(record: Record, rate: float) -> Iterator[float]:
    """How late each token but the first came, in seconds; 0 where it came early."""
    token = 0
    for arrival_s, count in zip(record.arrivals_s, record.tokens, strict=True):
        for _ in range(count):
            if token:
                yield max(0.0, arrival_s - token / rate)
            token += 1


def as_json(report: LoadReport, passed: list[str]) -> dict[str, Any]:
    """The result for programs; ``passed`` are the thresholds that were."""
    ordered = sorted(report.outcomes.items(), key=lambda item: item[0].label)
    return {
        "duration_s": round(report.duration_s, 3),
        "requests": report.requests,
        "failures": report.failures,
        "broken": report.broken,
        "tokens": report.tokens,
        "percentiles": "nearest rank",
        "segments_ms": {name: asdict(summary) for name, summary in report.segments.items()},
        "outcomes": [{"kind": outcome.kind, "detail": outcome.detail, "count": count} for outcome, count in ordered],
        "thresholds_passed": passed,
    }


def as_markdown(report: LoadReport, passed: list[str]) -> str:
    """The result for people."""
    return "\n".join((*_head_lines(report), "", *_segment_lines(report), "", *_outcome_lines(report, passed), ""))


def _head_lines(report: LoadReport) -> Iterator[str]:
    per_s = report.tokens / report.duration_s if report.duration_s else 0.0
    yield f"{report.requests} requests in {report.duration_s:.1f} s, {report.failures} failures."
    yield f"{report.tokens} tokens, {per_s:.1f} per second."


def _segment_lines(report: LoadReport) -> Iterator[str]:
    yield "| ms | count | mean | p50 | p95 | p99 | max |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for name, summary in report.segments.items():
        values = (summary.mean, summary.p50, summary.p95, summary.p99, summary.max)
        yield f"| {name} | {summary.count} | {' | '.join(map(_number, values))} |"


def _outcome_lines(report: LoadReport, passed: list[str]) -> Iterator[str]:
    yield "| outcome | count | what should hold |"
    yield "|---|--:|---|"
    for outcome, count in sorted(report.outcomes.items(), key=lambda item: item[0].label):
        rule = RULES[outcome.detail] if outcome.kind == "broken" else ""
        yield f"| {_cell(outcome.label)} | {count} | {rule} |"
    if passed:
        yield ""
        yield from (f"- Passed the limit: {sentence}." for sentence in passed)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _cell(text: str) -> str:
    """``text`` of a stranger as it can stand in a table."""
    return "".join(letter if letter.isprintable() else "?" for letter in text).replace("|", "\\|")
