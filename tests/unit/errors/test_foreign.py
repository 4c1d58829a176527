"""Bodies of every shape, unwrapped."""

from __future__ import annotations

import json

import pytest

from coterie.errors.foreign import MAX_NODES, UNKNOWN_STATUS, Issue, read_body, read_value


@pytest.mark.parametrize(
    "value",
    [
        {"error": {"message": "Say this"}},
        {"error": "Say this"},
        {"message": "Say this"},
        {"detail": "Say this"},
        {"title": "Bad", "detail": "Say this"},
        {"errors": [{"message": "Say this"}]},
        [{"error": {"message": "Say this"}}],
        "Say this",
        json.dumps({"error": {"message": "Say this"}}),
        {"error": {"message": json.dumps({"error": {"message": "Say this"}})}},
        {"error": {"message": "Wrapped - {'error': {'message': \"Say this\", 'param': None}}"}},
        {"error": {"message": "Provider returned error", "metadata": {"raw": '{"message": "Say this"}'}}},
        {"choices": [{"error": {"message": "Say this"}}]},
        {"type": "response.failed", "response": {"error": {"message": "Say this"}}},
    ],
    ids=str,
)
def test_the_sentence_is_found(value: object) -> None:
    assert read_value(400, value).texts[0] == "Say this"


@pytest.mark.parametrize(
    ("status", "value", "expected"),
    [
        (429, {"error": {"code": 400}}, 429),
        (500, {"error": {"code": 429}}, 429),
        (502, {"error": {"code": "400"}}, 400),
        (400, {"error": {"code": "429"}}, 429),
        (400, {"error": {"code": 500}}, 400),
        (200, {"error": {"code": 503}}, 503),
        (200, {"error": {"http_status_code": 422}}, 422),
        (200, {"error": {"code": 40303}}, UNKNOWN_STATUS),
        (200, {"error": {"code": True}}, UNKNOWN_STATUS),
        (500, {"error": {"message": "Error code: 401 - no"}}, 401),
        (302, "", 302),
    ],
    ids=str,
)
def test_a_number_for_a_code_is_a_status(status: int, value: object, expected: int) -> None:
    foreign = read_value(status, value)
    assert foreign.status == expected
    assert not {"400", "429", "500", "503"} & set(foreign.names)


def test_names_are_one_in_every_spelling() -> None:
    value = {"error": {"code": "rate_limit", "type": "RateLimit", "status": "RATE-LIMIT", "details": [{"reason": "r"}]}}
    assert read_value(429, value).ids == {"ratelimit", "r"}


def test_a_class_in_front_of_a_message_is_a_name() -> None:
    assert "litellm" not in read_value(500, "litellm.RateLimitError: x").ids
    assert "ratelimiterror" in read_value(500, "litellm.RateLimitError: x").ids


def test_issues_keep_their_place() -> None:
    value = {"detail": [{"loc": ["body", "a", 0], "msg": "wrong", "type": "t"}]}
    assert read_value(422, value).issues == [Issue(("body", "a", 0), "wrong")]


def test_numbers_and_delays_of_fields() -> None:
    foreign = read_value(400, {"error": {"n_ctx": 5, "n_prompt_tokens": 9, "retry_after_ms": 1500}})
    assert (foreign.limit, foreign.actual, foreign.delay) == (5, 9, 1.5)


@pytest.mark.parametrize(
    ("body", "text", "empty", "is_html"),
    [
        (b"", "", True, False),
        (b" \r\n", "", True, False),
        (b"plain words", "plain words", False, False),
        (b"\xef\xbb\xbfplain words", "plain words", False, False),
        (b"<!DOCTYPE html><p>words", "", False, True),
        (b'{"error": {"message": "cut \\"here', 'cut "here', False, False),
        (b'data: {"error": {"message": "an event"}}\n\n', "an event", False, False),
        (b"\xff words", "\ufffd words", False, False),
    ],
)
def test_bodies_that_are_no_json(body: bytes, text: str, empty: bool, is_html: bool) -> None:
    foreign = read_body(400, body)
    assert (foreign.texts[:1], foreign.empty, foreign.is_html) == ([text] if text else [], empty, is_html)


def test_a_body_with_many_values_is_read_in_part() -> None:
    value = {"errors": [{"errors": [{"message": f"m{i}{j}"} for j in range(50)]} for i in range(50)]}
    assert 0 < len(read_value(400, value).texts) <= MAX_NODES
