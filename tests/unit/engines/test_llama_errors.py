"""What llama.cpp's server says when it fails."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.provider import SECRET

from coterie.engines.llama_errors import classify
from coterie.errors import CATALOGUE, ApiError

BAD = "invalid_request_error"


def error(message: object, type_: object = BAD, **more: object) -> dict[str, Any]:
    return {"code": 400, "message": message, "type": type_, **more}


FULL = "request (3031 tokens) exceeds the available context size (2048 tokens), try increasing it"
TOO_LARGE = "input (3001 tokens) is too large to process. increase the physical batch size (current batch size: 1024)"

CASES: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "a full context": (
        error(FULL, "exceed_context_size_error", n_prompt_tokens=3031, n_ctx=2048),
        "context_length_exceeded",
        "prompt",
    ),
    "a full context without numbers": (error(FULL, "exceed_context_size_error"), "engine_failed", None),
    "an input that does not fit a step": (error(TOO_LARGE, "server_error"), "context_length_exceeded", "prompt"),
    "a grammar": (error("failed to parse grammar"), "invalid_json_schema", "response_format"),
    "a schema": (error("JSON schema error at /properties/x"), "invalid_json_schema", "response_format"),
    "a template that refuses": (error("raise_exception: roles must alternate"), "invalid_value", "prompt"),
    "a template that fails": (error("Jinja Exception: no", "server_error"), "invalid_value", "prompt"),
    "two answers begun": (error("Cannot have 2 or more assistant messages at the end"), "invalid_value", "prompt"),
    "a caller's field": (error("Field 'top_k': Value must be between 0 and 9"), "invalid_value", "top_k"),
    "our own field": (error("Field 'repeat_last_n': Value must be between -1 and 9"), "engine_failed", None),
    "a field of another failure": (error("Field 'top_k': x", "server_error"), "engine_failed", None),
    "memory": (error("failed to allocate", "server_error"), "engine_failed", None),
    "our key": (error("Invalid API Key", "authentication_error"), "engine_failed", None),
    "nothing": ({}, "engine_failed", None),
    "other types": ({"type": 5, "message": ["x"]}, "engine_failed", None),
}


@pytest.mark.parametrize(("body", "code", "param"), CASES.values(), ids=CASES.keys())
def test_classes(body: dict[str, Any], code: str, param: str | None) -> None:
    failure = classify(body, "prompt")
    assert (failure.code, failure.param) == (code, param)


@pytest.mark.parametrize(
    ("body", "numbers"),
    [(CASES["a full context"][0], (2048, 3031)), (CASES["an input that does not fit a step"][0], (1024, 3001))],
)
def test_the_numbers_of_a_full_context(body: dict[str, Any], numbers: tuple[int, int]) -> None:
    limit, actual = numbers
    message = classify(body, "messages").message
    assert f"maximum context length is {limit} tokens" in message
    assert f"resulted in {actual} tokens" in message


PHRASES = [text for body, _, _ in CASES.values() if isinstance(text := body.get("message"), str)]


@pytest.mark.parametrize("phrase", PHRASES)
@pytest.mark.parametrize("kind", [BAD, "server_error", "exceed_context_size_error", SECRET])
def test_its_words_are_for_the_log(phrase: str, kind: str) -> None:
    body = error(f"{phrase} {SECRET}", kind, n_ctx=SECRET, n_prompt_tokens=[SECRET])
    failure = classify(body, "prompt")
    assert SECRET not in failure.message
    assert SECRET not in (failure.param or "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)

KEYS = st.sampled_from(["type", "message", "code", "n_ctx", "n_prompt_tokens"])

KINDS = st.sampled_from([BAD, "server_error", "exceed_context_size_error"])


@given(
    st.dictionaries(KEYS | st.text(), JSON)
    | st.builds(lambda kind, phrase, rest: {**rest, "type": kind, "message": phrase + SECRET}, KINDS,
                st.sampled_from(PHRASES) | st.text(), st.dictionaries(KEYS, JSON))
)  # fmt: skip
def test_anything_is_a_failure_of_the_catalogue(body: dict[str, Any]) -> None:
    failure = classify(body, "prompt")
    assert isinstance(failure, ApiError)
    assert failure.code in CATALOGUE
    assert SECRET not in failure.message
    assert failure.param in (None, "prompt", "response_format", "top_k")
