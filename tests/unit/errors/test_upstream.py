"""Foreign failures become the catalogue's: by table, by structure, and whatever a provider sends."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coterie.dialects.responses_relate import CODES
from coterie.errors import CATALOGUE, ApiError, Retry
from coterie.errors.cleaning import MAX_CLEAN, MAX_DETAIL
from coterie.errors.entries import RELAYED
from coterie.errors.entries_stored import STORED
from coterie.errors.render import http_body, http_headers
from coterie.errors.upstream import (
    DEFAULT_DELAY_S,
    RELAYED_CODES,
    TRANSPORT_CODES,
    from_payload,
    from_response,
    from_transport,
)

ROWS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "fixtures" / "upstream.json").read_bytes())
LONGEST_MESSAGE = max(MAX_CLEAN, 400)


def respond(row: dict[str, Any]) -> ApiError:
    body = row["body"] if isinstance(row["body"], str) else json.dumps(row["body"])
    return from_response(
        row["status"], row.get("headers", {}), body.encode(), prompt_param=row.get("prompt_param", "messages"), now=0
    )


@pytest.mark.parametrize("row", ROWS, ids=[row["source"] for row in ROWS])
def test_a_provider_s_answer(row: dict[str, Any]) -> None:
    error = respond(row)
    assert error.code == row["code"], error.detail
    assert row.get("says", "") in error.message
    if "param" in row:
        assert error.param == row["param"]
    if "retry_after_s" in row:
        assert error.retry_after_s == row["retry_after_s"]
    if "retry" in row:
        assert error.retry is Retry(row["retry"])
    if error.retry is Retry.AFTER:
        assert error.retry_after_s is not None


@pytest.mark.parametrize("row", ROWS, ids=[row["source"] for row in ROWS])
def test_the_same_as_a_payload_of_a_stream(row: dict[str, Any]) -> None:
    if isinstance(row["body"], str):
        assert from_payload(row["body"]) is None
        return
    error = from_payload(
        row["body"], status=row["status"], headers=row.get("headers"), prompt_param=row.get("prompt_param", "messages")
    )
    assert error is not None
    assert error.code == row["code"]


GOOD: tuple[Any, ...] = (
    {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "error"}}]},
    {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "error": None},
    {"id": "c", "choices": [], "usage": {"total_tokens": 3}},
    {"id": "c", "choices": [], "base_resp": {"status_code": 0, "status_msg": "success"}},
    {"object": "list", "data": [{"embedding": [0.5]}]},
    {"id": "r", "object": "response", "status": "completed", "error": None, "output": []},
    {"type": "response.created", "response": {"status": "in_progress", "error": None}},
    {"type": "response.output_text.delta", "delta": "error"},
    {"type": "message_start", "message": {"role": "assistant", "content": []}},
    {"type": "ping"},
    {"model": "m", "message": {"role": "assistant", "content": "x"}, "done": False},
    {},
    [],
    None,
    7,
    "text",
)


@pytest.mark.parametrize("payload", GOOD, ids=str)
def test_what_is_no_failure_is_none(payload: object) -> None:
    assert from_payload(payload) is None


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"error": "text"}, "upstream_error"),
        ({"error": {"code": 503, "message": "m"}}, "server_is_overloaded"),
        ({"error": {"code": "429", "message": "m"}}, "rate_limit_exceeded"),
        ({"error": {"code": 400, "message": "m"}}, "invalid_request_error"),
        ({"error": {"type": "BadRequestError", "message": "m"}}, "invalid_request_error"),
        ({"error": {}}, "upstream_error"),
        ({"object": "error", "message": "m", "code": 401}, "upstream_auth_failed"),
        ({"choices": [{"error": {"code": 504, "message": "m"}}]}, "upstream_timeout"),
        ({"choices": [{"error": {"code": 502, "message": "Upstream idle timeout exceeded"}}]}, "upstream_timeout"),
        ({"choices": [{"delta": {}, "finish_reason": "error"}]}, "upstream_error"),
        ({"choices": [{"delta": {}, "finish_reason": "error"}], "error": {"code": 429}}, "rate_limit_exceeded"),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "m", "param": None}, "rate_limit_exceeded"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, "server_is_overloaded"),
        ({"type": "response.failed", "response": {"status": "failed", "error": {"code": "context_length_exceeded"}}},
         "context_length_exceeded"),
        ({"status": "failed", "error": {"code": "server_error", "message": "m"}}, "upstream_error"),
        ({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
         "upstream_quota_exhausted"),
        ({"code": "Throttling", "message": "m"}, "rate_limit_exceeded"),
        ([{"error": {"code": 429}}], "rate_limit_exceeded"),
        ({"fault": {"faultstring": "m", "detail": {"errorcode": "policies.ratelimit.QuotaViolation"}}},
         "rate_limit_exceeded"),
    ],
    ids=str,
)  # fmt: skip
def test_a_failure_inside_of_a_success(payload: object, code: str) -> None:
    error = from_payload(payload)
    assert error is not None
    assert error.code == code


@pytest.mark.parametrize(("kind", "code"), TRANSPORT_CODES.items())
def test_a_broken_connection(kind: str, code: str) -> None:
    error = from_transport(kind, detail="api_key=Zq7MARKER9 to gpu-1:8000")
    assert error.code == code
    assert error.detail is not None
    assert "gpu-1:8000" in error.detail
    assert "Zq7MARKER9" not in error.detail
    assert "gpu-1" not in error.message
    assert "{" not in error.message


def test_an_unknown_kind_of_connection_failure_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        from_transport("sunspots")


# Tables.


def test_the_relayed_codes_are_the_catalogue_s_codes_of_the_caller() -> None:
    callers = {entry.code for entry in CATALOGUE.values() if entry.fault == "caller" and entry.status == 400}
    unsaid = {
        "invalid_json",
        "invalid_http_request",
        "invalid_request_error",
        *CODES.values(),
        *(entry.code for entry in STORED),
    }
    assert callers - unsaid == RELAYED_CODES - {"request_too_large"}
    assert {entry.code for entry in RELAYED} <= RELAYED_CODES | {"invalid_request_error"}


@pytest.mark.parametrize("code", sorted(RELAYED_CODES))
def test_every_code_of_the_caller_is_relayed(code: str) -> None:
    body = json.dumps({"error": {"code": code, "message": "Take another one.", "param": "messages[0]"}})
    error = from_response(400, {}, body.encode())
    assert error.code == code
    assert error.param == ("messages" if code == "context_length_exceeded" else "messages[0]")


@pytest.mark.parametrize("code", sorted(RELAYED_CODES))
@pytest.mark.parametrize("message", ["", "https://a.b/c", None, {"x": 1}])
def test_a_code_without_a_message_still_says_something(code: str, message: object) -> None:
    error = from_response(400, {}, json.dumps({"error": {"code": code, "message": message}}).encode())
    assert len(error.message) > 10
    assert "None" not in error.message
    assert "{" not in error.message
    assert error.param is not None or not error.entry.takes_param


# What keeps its order.


@pytest.mark.parametrize(
    "text", ["exceeded on tokens per min (TPM): reduce the length of the messages", "rate limit hit"]
)
def test_a_rate_limit_is_no_overflow(text: str) -> None:
    assert from_response(429, {}, json.dumps({"error": {"message": text}}).encode()).code == "rate_limit_exceeded"


def test_a_long_delay_is_told_truly_and_an_absent_one_has_a_default() -> None:
    assert from_response(429, {"Retry-After": "86400"}, b"").retry_after_s == 86400
    assert from_response(429, {}, b"").retry_after_s == DEFAULT_DELAY_S
    assert from_response(429, {"retry-after": "0"}, b"").retry_after_s == DEFAULT_DELAY_S


def test_a_delay_stands_in_the_headers_that_a_gateway_repeats() -> None:
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1750000060000", "X-Odd": [1]}
    body = json.dumps({"error": {"code": 429, "message": "m", "metadata": {"headers": headers}}}).encode()
    assert from_response(429, {}, body, now=1_750_000_000.0).retry_after_s == 60.0
    assert from_response(429, {"Retry-After": "2"}, body, now=1_750_000_000.0).retry_after_s == 2.0


def test_an_unbelievable_delay_is_not_told() -> None:
    headers = {"retry-after": "Fri, 01 Jan 2099 00:00:00 GMT"}
    assert from_response(503, headers, b"").retry_after_s == DEFAULT_DELAY_S


def test_only_the_caller_s_fault_is_told_in_the_provider_s_words() -> None:
    for status in (401, 402, 403, 404, 429, 500, 502, 503, 504):
        error = from_response(status, {}, b'{"error": {"message": "Very Private Words Inside"}}')
        assert "Private" not in error.message
        assert error.detail is not None
        assert "Very Private Words Inside" in error.detail


WORDS_OF_OTHERS = (
    "You exceeded your current quota, please check your plan and billing details", "insufficient balance",
    "Invalid API key", "the api key is missing from the pool", "The model `x` does not exist", "unknown model",
    "upstream answered with status 401", "Error code: 402", "HTTP 404: model not found", "status: 407",
)  # fmt: skip


@pytest.mark.parametrize("words", WORDS_OF_OTHERS)
@pytest.mark.parametrize(
    ("status", "code"), [(500, "upstream_error"), (502, "upstream_error"), (503, "server_is_overloaded")]
)
def test_words_alone_are_no_reason_for_a_failure_of_the_provider_s_own(status: int, code: str, words: str) -> None:
    for body in (
        words,
        {"error": words},
        {"detail": words},
        {"error": {"message": words, "type": "server_error", "code": status}},
        [{"error": {"message": words, "status": "INTERNAL"}}],
    ):
        raw = body if isinstance(body, str) else json.dumps(body)
        assert from_response(status, {}, raw.encode()).code == code, body
    told = from_payload({"error": {"message": words, "code": status}})
    assert told is not None
    assert told.code == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": {"message": "m", "code": "insufficient_quota"}}, "upstream_quota_exhausted"),
        ({"error": {"message": "m", "type": "authentication_error"}}, "upstream_auth_failed"),
        ({"error": {"message": "m", "code": "model_not_found"}}, "upstream_model_unavailable"),
        ({"error": {"message": "m", "code": 401}}, "upstream_auth_failed"),
        ({"error": {"message": "m", "code": "402"}}, "upstream_quota_exhausted"),
        ({"detail": "Error code: 401 - {'error': {'message': 'm', 'code': 'invalid_api_key'}}"},
         "upstream_auth_failed"),
        ({"detail": "It said: Error code: 401 - {'error': {'message': 'm', 'type': 'invalid_api_key'}}."},
         "upstream_auth_failed"),
        ({"detail": "Error code: 402 - {'error': {'message': 'm', 'code': 'invalid_request_error'}}"},
         "upstream_quota_exhausted"),
        ({"error": "litellm.AuthenticationError: m"}, "upstream_auth_failed"),
        ({"error": {"message": "Error code: 401", "type": "invalid_request_error"}}, "upstream_error"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_500_says_by_structure_counts(body: object, code: str) -> None:
    assert from_response(500, {}, json.dumps(body).encode()).code == code


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("insufficient balance", "upstream_quota_exhausted"),
        ("Invalid API key", "upstream_auth_failed"),
        ("The model `x` does not exist", "upstream_model_unavailable"),
    ],
)
def test_where_there_is_no_status_words_are_the_last_resort(words: str, code: str) -> None:
    error = from_payload({"error": words})
    assert error is not None
    assert error.code == code


# Whatever comes.


def check(error: ApiError) -> None:
    assert CATALOGUE[error.code] is error.entry
    assert error.status not in (401, 403, 404, 405, 408)
    assert len(error.message) <= LONGEST_MESSAGE
    assert not {unicodedata.category(character) for character in error.message} & {"Cc", "Cs", "Zl", "Zp"}
    assert error.detail is not None
    assert len(error.detail) <= MAX_DETAIL + 100
    assert error.param is not None or not error.entry.takes_param
    assert (error.retry is Retry.AFTER) == (error.retry_after_s is not None)
    orjson.loads(http_body(error, "r"))
    assert all(isinstance(value, str) for value in http_headers(error, "r").values())


WORDS = st.sampled_from(
    ["error", "message", "code", "type", "param", "detail", "status", "loc", "msg", "metadata", "raw", "choices",
     "details",  "retryDelay", "n_ctx", "n_prompt_tokens", "errors", "base_resp", "object", "response", "delta"]
)  # fmt: skip
SAYINGS = st.sampled_from(
    ["rate limit exceeded", "maximum context length is 5 tokens", "image input is not supported", "model not found",
     "{'error': {'message': 'x'", "Error code: 429 - {'a': (1, None)}", "invalid_value", "invalid_base64", "429",
     "error", "sk-abc", "\ud800", "\x00", "<html>", "try again in 1e9s"]
)  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), SAYINGS)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(WORDS, st.text(max_size=5)), inner, max_size=6)
    ),
    max_leaves=25,
)
STATUSES = st.one_of(st.integers(100, 999), st.sampled_from([200, 400, 401, 403, 404, 413, 422, 429, 500, 502, 503]))


@given(STATUSES, st.dictionaries(st.sampled_from(["retry-after", "Retry-After-Ms", "x-a"]), st.text()), st.binary())
@example(400, {}, b"\xef\xbb\xbf{}")
@example(400, {}, b'"\\ud800"')
@example(400, {}, b"[" * 2000)
@example(400, {}, b"Bad things: " + b'{"error": ' * 1900)
def test_any_bytes_are_a_failure(status: int, headers: dict[str, str], body: bytes) -> None:
    check(from_response(status, headers, body))


@given(STATUSES, JSON, st.sampled_from(["messages", "input", "prompt"]))
def test_any_json_is_a_failure_or_none(status: int, payload: object, prompt_param: str) -> None:
    error = from_payload(payload, status=status, prompt_param=prompt_param)
    if error is not None:
        check(error)
    assert error is not None or status < 400
    check(from_response(status, {}, json.dumps(payload).encode(), prompt_param=prompt_param))


@pytest.mark.parametrize(
    "body",
    [
        b"a b " * 2_500_000,
        b'{"error": {"code": "invalid_value", "message": "' + b"a b " * 2_500_000,
        b'{"error": {"message": "' + b"x" * 200_000 + b'"}}',
        b"[" * 10_000_000,
        b'{"error":' * 25_000,
        b'{"a": 1, ' * 1_000_000,
        b"<html>" + b"<p>" * 3_000_000,
    ],
    ids=["text", "cut off", "one string", "brackets", "nested", "objects", "page"],
)
def test_ten_megabytes_are_a_failure_like_any_other(body: bytes) -> None:
    check(from_response(400, {"retry-after": "9" * 1_000_000}, body))


@pytest.mark.parametrize(
    ("code", "expected", "responses_code"),
    [
        ("bio_policy", "bio_policy", "bio_policy"),
        ("data_residency_mismatch", "data_residency_mismatch", "data_residency_mismatch"),
        ("vector_store_timeout", "vector_store_timeout", "vector_store_timeout"),
        ("invalid_prompt", "invalid_prompt", "invalid_prompt"),
    ],
)
def test_codes_of_the_responses_api_pass_as_they_are(code: str, expected: str, responses_code: str) -> None:
    body = json.dumps({"error": {"code": code, "message": "No.", "type": "invalid_request_error", "param": None}})
    error = from_response(400, {}, body.encode())
    assert (error.code, error.entry.responses_code) == (expected, responses_code)


@pytest.mark.parametrize("param", ["messages[0].content[1].image_url.url", "input[0].content[0].image_url"])
def test_a_policy_about_a_picture_is_told_by_its_place(param: str) -> None:
    body = {"error": {"code": "content_policy_violation", "message": "No.", "param": param}}
    assert from_response(400, {}, json.dumps(body).encode()).code == "image_content_policy_violation"
