"""Reports for people and for programs."""

from __future__ import annotations

import orjson

from coterie.conform.check import OPENAI, Check, Failure, Result, Site
from coterie.conform.report import as_json, as_markdown, rows, summary
from coterie.conform.run import Report


async def _run(site: Site) -> tuple[Failure, ...]:
    return ()


def check(name: str) -> Check:
    return Check(f"chat.{name}", "chat", f"what | {name}", OPENAI, _run)


FAILURE = Failure("done-missing", "A stream ends with [DONE].", "it <b>does not</b>", "POST /x", "HTTP 200\n```\x1b[2J")
REPORT = Report(
    "http://x",
    "m",
    "2026-11-21 10:00:00",
    1.25,
    (
        Result(check("good"), "pass", duration_s=0.5),
        Result(check("bad"), "fail", (FAILURE, FAILURE)),
        Result(check("none"), "skip", reason="no | key"),
    ),
)


def test_rows_are_what_did_not_pass() -> None:
    assert list(rows(REPORT)) == [
        ("fail", "chat.bad", "what | bad", "done-missing: it <b>does not</b> (and 1 more)"),
        ("skip", "chat.none", "what | none", "no | key"),
    ]
    assert summary(REPORT) == "3 checks in 1.2 s: 1 passed, 1 failed, 1 skipped."


def test_json() -> None:
    value = orjson.loads(orjson.dumps(as_json(REPORT)))
    assert value["counts"] == {"pass": 1, "fail": 1, "skip": 1}
    assert [entry["verdict"] for entry in value["checks"]] == ["pass", "fail", "skip"]
    assert value["checks"][1]["failures"][0] == {
        "rule": "done-missing", "words": FAILURE.words, "found": FAILURE.found, "asked": "POST /x",
        "received": FAILURE.received,
    }  # fmt: skip
    assert value["checks"][0]["source"] == OPENAI


def test_markdown() -> None:
    text = as_markdown(REPORT)
    assert "| chat | 1 | 1 | 1 |" in text
    assert f"| pass | chat.good | what \\| good | {OPENAI} |" in text
    assert "| skip (no \\| key) | chat.none |" in text
    assert "- `done-missing`: A stream ends with [DONE]." in text
    assert "  Found: it &lt;b>does not&lt;/b>." in text
    assert "      HTTP 200\n      ```?[2J\n" in text
    assert "\x1b" not in text


def test_a_report_of_passes_has_no_failures() -> None:
    report = Report("u", "m", "t", 0, REPORT.results[:1])
    assert list(rows(report)) == []
    assert "What failed" not in as_markdown(report)
