"""A report for people and for programs. Pure. What a stranger said stands in it as text, whatever it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from coterie.conform.check import GROUPS, Failure, Result
from coterie.conform.run import Report

TITLES: Final = ("verdict", "check", "what should hold", "what was found")
"""The columns of :func:`rows`."""

_MAX_FOUND_CHARS: Final = 300
_SOURCES: Final = (
    "The sources: OpenAI's OpenAPI description 2.3.0, the Open Responses specification of 2026-04-24, RFC 9110, and "
    "the contract: what the official SDKs and the clients in use need to tell one failure from another."
)


def rows(report: Report) -> Iterator[tuple[str, ...]]:
    """One row for each check that did not pass."""
    for result in report.results:
        if result.verdict != "pass":
            yield result.verdict, result.check.id, result.check.says, _line(_found(result))


def summary(report: Report) -> str:
    """The counts, in one line."""
    counts = ", ".join(f"{report.count(verdict)} {word}" for verdict, word in _WORDS)
    return f"{len(report.results)} checks in {report.duration_s:.1f} s: {counts}."


_WORDS: Final = (("pass", "passed"), ("fail", "failed"), ("skip", "skipped"))


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    return {
        "url": report.url,
        "model": report.model,
        "began_at": report.began_at,
        "duration_s": round(report.duration_s, 3),
        "counts": {verdict: report.count(verdict) for verdict, _ in _WORDS},
        "checks": [_result(result) for result in report.results],
    }


def _result(result: Result) -> dict[str, Any]:
    return {
        "id": result.check.id,
        "group": result.check.group,
        "says": result.check.says,
        "source": result.check.source,
        "verdict": result.verdict,
        "reason": result.reason,
        "duration_s": round(result.duration_s, 3),
        "failures": [
            {"rule": f.rule, "words": f.words, "found": f.found, "asked": f.asked, "received": f.received}
            for f in result.failures
        ],
    }


def as_markdown(report: Report) -> str:
    """The report for people."""
    return "\n".join((*_head(report), "", *_table(report), "", *_details(report), ""))


def _head(report: Report) -> Iterator[str]:
    yield "# Conformance"
    yield ""
    yield f"`{_line(report.url)}`, model `{_line(report.model)}`, {report.began_at} UTC. {summary(report)}"
    yield ""
    yield _SOURCES
    yield ""
    yield "| group | passed | failed | skipped |"
    yield "|---|--:|--:|--:|"
    for group in GROUPS:
        counts = [report.count(verdict, group) for verdict, _ in _WORDS]
        if any(counts):
            yield f"| {group} | {' | '.join(map(str, counts))} |"


def _table(report: Report) -> Iterator[str]:
    yield "| verdict | check | what should hold | source |"
    yield "|---|---|---|---|"
    for result in report.results:
        note = f" ({_cell(result.reason)})" if result.reason else ""
        check = result.check
        yield f"| {result.verdict}{note} | {check.id} | {_cell(check.says)} | {check.source} |"


def _details(report: Report) -> Iterator[str]:
    failed = [result for result in report.results if result.failures]
    if failed:
        yield "## What failed"
    for result in failed:
        yield ""
        yield f"### {result.check.id}"
        for failure in result.failures:
            yield ""
            yield from _failure(failure)


def _failure(failure: Failure) -> Iterator[str]:
    yield f"- `{failure.rule}`: {_text(failure.words)}"
    yield f"  Found: {_text(_line(failure.found))}."
    for text in (failure.asked, failure.received):
        if text:
            yield ""
            yield from (f"      {line}" for line in _printable(text).split("\n"))


def _found(result: Result) -> str:
    if not result.failures:
        return result.reason
    first = result.failures[0]
    more = f" (and {len(result.failures) - 1} more)" if len(result.failures) > 1 else ""
    return f"{first.rule}: {first.found}"[:_MAX_FOUND_CHARS] + more


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def _line(text: str) -> str:
    return _printable(text).replace("\n", " ")


def _text(text: str) -> str:
    """Text as it can stand in Markdown outside of code."""
    return text.replace("\\", "\\\\").replace("<", "&lt;").replace("`", "\\`").replace("*", "\\*")


def _cell(text: str) -> str:
    return _text(_line(text)).replace("|", "\\|")
