"""Failures and what they show."""

from __future__ import annotations

import pytest
from tests.unit.conform.good_server import GoodSite

from coterie.conform.check import Rules, received
from coterie.conform.exchange import Reply
from coterie.dialects.chat_validator import Violation

RULES = Rules({"a": "What must hold."})
REPLY = Reply("GET", "/x", b"", 200, {"content-type": "text/plain"}, b"hi\xff", "cut")


def test_failures_say_the_rule_the_words_and_the_bytes() -> None:
    failure = RULES.broken("a", "it does not", REPLY)
    assert (failure.rule, failure.words, failure.found, failure.asked) == (
        "a", "What must hold.", "it does not", "GET /x",
    )  # fmt: skip
    assert failure.received == "HTTP 200 text/plain\nhi\ufffd\n(cut)"
    assert RULES.broken("a", "x").received == ""
    with pytest.raises(KeyError):
        RULES.broken("b", "x")


def test_violations_and_findings_become_failures() -> None:
    [failure] = RULES.judged([Violation("a", "found", "bytes")], REPLY)
    assert (failure.found, failure.received) == ("found", "bytes")
    assert [failure.found for failure in RULES.found([("a", "x"), ("a", "y")], REPLY)] == ["x", "y"]


def test_what_came_is_clipped() -> None:
    assert received(Reply("", "", b"")) == "(no answer)\n"
    assert len(received(Reply("", "", b"", 200, {}, b"a" * 10_000))) < 1100


async def test_an_answer_is_asked_for_once() -> None:
    site = GoodSite()
    first = await site.once("models", lambda: site.ask("GET", "/models"))
    assert await site.once("models", lambda: site.ask("GET", "/other")) is first
