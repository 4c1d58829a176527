"""The judgement of one stream: each rule by table, the sequence by Hypothesis."""

from __future__ import annotations

import json
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.testbed.integrity import (
    RULES,
    Anything,
    KnownText,
    Outcome,
    Sequence,
    StreamJudge,
    Verifier,
    broken_sequence,
    error_code,
    judge_plain,
)

DONE = b"[DONE]"
ROLE = b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}'
USAGE = b'{"choices":[],"usage":{"total_tokens":1}}'
STOP = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
ERROR = b'{"error":{"message":"x","type":"server_error","param":null,"code":"upstream_timeout"}}'


def said(text: str) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}).encode()


def judged(events: list[bytes], verifier: Verifier | None = None) -> Outcome:
    judge = StreamJudge(verifier or Anything())
    for event in events:
        judge.event(event)
    return judge.end()


A = said("a")
STREAMS: dict[str, tuple[list[bytes], Outcome]] = {
    "complete": ([ROLE, A, A, STOP, USAGE, DONE], Outcome("complete")),
    "content with the finish reason": (
        [b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}', DONE],
        Outcome("complete"),
    ),
    "an error": ([A, ERROR, DONE], Outcome("error frame", "upstream_timeout")),
    "an error alone": ([ERROR, DONE], Outcome("error frame", "upstream_timeout")),
    "an error without an end": ([A, ERROR], Outcome("broken", "no-done")),
    "nothing": ([], Outcome("broken", "no-done")),
    "no end": ([A, STOP], Outcome("broken", "no-done")),
    "no finish reason": ([A, DONE], Outcome("broken", "no-finish")),
    "two finish reasons": ([A, STOP, STOP, DONE], Outcome("broken", "after-finish")),
    "text after the finish reason": ([A, STOP, A, DONE], Outcome("broken", "after-finish")),
    "an error after the finish reason": ([A, STOP, ERROR, DONE], Outcome("broken", "after-finish")),
    "text after an error": ([ERROR, A, DONE], Outcome("broken", "after-error")),
    "two errors": ([ERROR, ERROR, DONE], Outcome("broken", "after-error")),
    "two ends": ([A, STOP, DONE, DONE], Outcome("broken", "after-done")),
    "text after the end": ([A, STOP, DONE, A], Outcome("broken", "after-done")),
    "garbage after the end": ([A, STOP, DONE, b"x"], Outcome("broken", "after-done")),
    "garbage": ([A, b"<html>", STOP, DONE], Outcome("broken", "not-json")),
    "a list": ([b"[]", STOP, DONE], Outcome("broken", "not-json")),
    "no choices": ([b"{}", STOP, DONE], Outcome("broken", "shape")),
    "another choice": ([A.replace(b'"index": 0', b'"index": 1'), STOP, DONE], Outcome("broken", "shape")),
    "text that is none": ([A.replace(b'"a"', b"7"), STOP, DONE], Outcome("broken", "shape")),
    "a delta that is none": ([b'{"choices":[{"index":0,"delta":[1]}]}', STOP, DONE], Outcome("broken", "shape")),
    "the first broken rule counts": ([b"x", A, DONE, DONE], Outcome("broken", "not-json")),
}


@pytest.mark.parametrize(("events", "outcome"), STREAMS.values(), ids=STREAMS.keys())
def test_outcomes(events: list[bytes], outcome: Outcome) -> None:
    assert judged(events) == outcome


def test_only_content_counts_as_a_token() -> None:
    judge = StreamJudge(Sequence())
    events = [ROLE, said(" w0"), said(" w1 w"), said("2"), STOP, USAGE, DONE]
    assert [judge.event(event) for event in events] == [0, 1, 2, 0, 0, 0, 0]
    assert judge.end() == Outcome("complete")


@pytest.mark.parametrize(
    ("text", "tokens", "rule"),
    [
        ("", None, None),
        (" w0 w1 w2", None, None),
        ("w0 w1 w2", 3, None),
        (" w7.0 w7.1", 2, None),
        (" w0 w1 w3", None, "gap"),
        (" w1 w2", None, "gap"),
        (" w0 w1 w1 w2", None, "repeat"),
        (" w0 w2 w1", None, "order"),
        (" w0 w1", 3, "count"),
        (" w0 w1", 1, "count"),
        ("", 1, "count"),
        (" w0 x1", None, "text"),
        (" w0 w", None, "text"),
        (" w0 w-1", None, "text"),
        (" w0" * 1 + "9" * 99, None, "text"),
    ],
)
def test_the_rules_of_the_sequence(text: str, tokens: int | None, rule: str | None) -> None:
    for pieces in ([text], list(text)):
        verifier = Sequence(tokens)
        for piece in pieces:
            verifier.feed(piece)
        assert verifier.end(whole=True) == rule


@given(st.integers(0, 60), st.data())
def test_how_the_sequence_is_cut_does_not_matter(count: int, data: st.DataObject) -> None:
    text = "".join(f" w{number}" for number in range(count))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    verifier = Sequence(count)
    begun = sum(verifier.feed(text[a:b]) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True))
    assert begun == count
    assert verifier.end(whole=True) is None


@given(st.lists(st.integers(0, 12), max_size=12))
def test_only_a_whole_sequence_in_order_is_one(numbers: list[int]) -> None:
    rule = broken_sequence(array("Q", numbers))
    assert (rule is None) == (numbers == list(range(len(numbers))))
    assert (rule == "repeat") == (len(set(numbers)) < len(numbers))
    assert (rule == "order") == (rule is not None and sorted(numbers) == list(range(len(numbers))))


def test_the_last_word_of_a_cut_stream_may_be_half_of_one() -> None:
    judge = StreamJudge(Sequence())
    for number in range(12):
        judge.event(said(f" w{number}"))
    judge.event(said(" w1"))  # of " w12"
    assert judge.cut_short() == Outcome("unfinished")


@pytest.mark.parametrize("events", [[said(" w0 w2 "), ERROR, DONE], [said(" w0 w2 ")]])
def test_text_is_judged_also_where_the_answer_is_not_whole(events: list[bytes]) -> None:
    assert judged(events, Sequence(5)) == Outcome("broken", "gap")


def test_an_error_needs_no_whole_sequence() -> None:
    assert judged([said(" w0 w1 w2"), ERROR, DONE], Sequence(5)) == Outcome("error frame", "upstream_timeout")


def test_a_silent_truncation_is_found() -> None:
    assert judged([said(" w0 w1 w2"), STOP, DONE], Sequence(5)) == Outcome("broken", "count")


@pytest.mark.parametrize(
    ("text", "finish", "whole", "rule"),
    [
        ("one two", "stop", True, None),
        ("one", "stop", True, "text"),
        ("one", "length", True, None),
        ("one", "", False, None),
        ("one three", "stop", True, "text"),
        ("one two three", "length", True, "text"),
        ("two", "", False, "text"),
    ],
)
def test_a_known_text(text: str, finish: str, whole: bool, rule: str | None) -> None:
    for pieces in ([text], list(text)):
        verifier = KnownText("one two")
        assert [verifier.feed(piece) for piece in pieces] == [1] * len(pieces)
        assert verifier.end(whole=whole, finish_reason=finish) == rule


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ({"message": {"content": " w0 w1"}, "finish_reason": "stop", "index": 0}, Outcome("complete")),
        ({"message": {"content": " w0 w2"}, "finish_reason": "stop", "index": 0}, Outcome("broken", "gap")),
        ({"message": {"content": None}, "finish_reason": "stop", "index": 0}, Outcome("complete")),
        ({"message": {"content": " w0"}, "finish_reason": None, "index": 0}, Outcome("broken", "no-finish")),
        ({"message": {"content": 1}, "finish_reason": "stop", "index": 0}, Outcome("broken", "shape")),
        ({"message": "x", "finish_reason": "stop", "index": 0}, Outcome("broken", "shape")),
    ],
)
def test_a_plain_answer(answer: object, outcome: Outcome) -> None:
    assert judge_plain(json.dumps({"choices": [answer]}).encode(), Sequence()) == outcome


def test_a_plain_answer_that_is_none() -> None:
    assert judge_plain(b"<html>", Anything()) == Outcome("broken", "not-json")
    assert judge_plain(b"[]", Anything()) == Outcome("broken", "shape")
    assert judge_plain(b'{"choices":[]}', Anything()) == Outcome("broken", "shape")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": {"code": "a", "type": "b"}}, "a"),
        ({"error": {"code": None, "type": "b"}}, "b"),
        ({"error": {"code": 503}}, "503"),
        ({"error": "text"}, "unknown"),
        ([], "unknown"),
        ({"error": {"code": "x" * 999}}, "x" * 64),
    ],
)
def test_an_errors_code(body: object, code: str) -> None:
    assert error_code(body) == code


def test_every_rule_that_breaks_is_explained() -> None:
    assert {outcome.detail for _, outcome in STREAMS.values() if outcome.kind == "broken"} <= RULES.keys()
