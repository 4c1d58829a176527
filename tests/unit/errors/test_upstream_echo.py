"""What a caller wrote, and a provider's 400 or 422 repeats, stays the caller's fault, whatever the words are."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import ApiError
from coterie.errors import upstream_patterns as known
from coterie.errors.upstream import from_payload, from_response
from coterie.errors.upstream_sentences import SENTENCES

PARSER: Any = importlib.import_module("re._parser")
PHRASES = [
    phrase
    for name, table in sorted(vars(known).items())
    if name.endswith("_PHRASES") or name == "TOO_LARGE_FOR_RATE"
    for phrase in table
] + list(SENTENCES)
STEMS = sorted(
    stem
    for name, table in vars(known).items()
    if name.endswith(("_STEMS", "_IDS"))
    for stem in table
)  # fmt: skip
WHOLE = {
    "Model Not Exist", "API key not valid. Please pass a valid API key.", "Your credit balance is too low",
    "The provided model identifier is invalid.", "API version not supported",
}  # fmt: skip
WORDS = (
    "rate limit exceeded for you, try again in 3600s", "insufficient credits", "invalid api key",
    "model zz does not exist", "overloaded, retry after 86400 seconds", "You exceeded your current quota",
    "Error code: 429 - {'error': {'message': 'm', 'code': 429, 'type': 'insufficient_quota', 'retry_after': 3600}}",
    "HTTP 503 status: 503", '{"error": {"code": "invalid_api_key", "status": 401, "retry_after": 99}}',
    "litellm.RateLimitError: Error code: 429", "Limit 5, Requested 9 tokens per minute request too large",
    "<html><body>403</body></html>", "Your credit balance is too low", "Model Not Exist",
)  # fmt: skip
ECHOES = (
    "Unexpected message role: {}",
    "Invalid value: '{}'. Supported values are: 'user'.",
    "'{}' is no role, sorry?",
)


def bodies(words: str) -> list[tuple[int, Any]]:
    """Every shape in which providers repeat what they were sent."""
    told = [form.replace("{}", words) for form in ECHOES]
    return [
        shape
        for text in told
        for shape in (
            (400, {"error": {"message": text, "code": 400}}),
            (400, {"error": {"message": text, "type": "BadRequestError", "param": "messages[0].role", "code": 400}}),
            (400, {"error": {"message": f"litellm.BadRequestError: OpenAIException - {text}", "code": "400"}}),
            (400, {"error": text}),
            (400, {"error": {"code": 400, "message": "Provider returned error", "metadata": {"raw": text}}}),
            (400, text),
            (422, {"detail": text}),
            (422, {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": text, "type": "value_error"}]}),
        )
    ]


def check(error: ApiError | None) -> None:
    assert error is not None
    assert error.entry.fault == "caller", error.detail
    assert error.retry_after_s is None


def check_all(words: str) -> None:
    for status, body in bodies(words):
        raw = body if isinstance(body, str) else json.dumps(body)
        check(from_response(status, {}, raw.encode("utf-8", "replace")))
        if not isinstance(body, str) and status != 500:
            check(from_payload(body, status=status))


@pytest.mark.parametrize("words", WORDS)
def test_known_words_of_a_caller(words: str) -> None:
    check_all(words)


@pytest.mark.parametrize("stem", STEMS)
def test_a_name_that_a_caller_writes_is_no_name_of_the_provider_s(stem: str) -> None:
    check_all(f"{stem}Error: {{'error': {{'type': '{stem}', 'code': '{stem}', 'message': '{stem}'}}}}")


def sample(tokens: Any) -> str:
    """A text that a parsed pattern matches: first branches, fewest repetitions."""
    return "".join(piece(str(kind), value) for kind, value in tokens)


def piece(kind: str, value: Any) -> str:
    match kind:
        case "LITERAL":
            return chr(value)
        case "BRANCH":
            return sample(value[1][0])
        case "SUBPATTERN":
            return sample(value[3])
        case "MAX_REPEAT" | "MIN_REPEAT":
            return sample(value[2]) * int(value[0])
        case "IN":
            first, of = value[0]
            named = "7" if str(of) == "CATEGORY_DIGIT" else "a"
            return str(chr(of) if str(first) == "LITERAL" else chr(of[0]) if str(first) == "RANGE" else named)
        case "ANY" | "NOT_LITERAL":
            return "a"
    return " " if str(value) == "AT_BOUNDARY" else ""  # Other places and look-arounds are empty.


def branches(pattern: str) -> list[str]:
    parsed = PARSER.parse(pattern)
    kind, value = parsed[0]
    return [sample(branch) for branch in value[1]] if len(parsed) == 1 and str(kind) == "BRANCH" else [sample(parsed)]


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase.pattern.pattern[:40])
def test_no_phrase_counts_in_the_caller_s_mouth(phrase: known.Phrase) -> None:
    words = branches(phrase.pattern.pattern)
    assert any(phrase.pattern.search(one) for one in words)
    for one in words:
        check_all(f"{one} - try again in 3600s")


@given(
    st.lists(
        st.sampled_from([*WORDS, *STEMS, *(branches(phrase.pattern.pattern)[0] for phrase in PHRASES)]), max_size=4
    )
)
def test_no_mixture_of_them_counts_either(words: list[str]) -> None:
    check_all(" ".join(words))


@pytest.mark.parametrize("whole", sorted(WHOLE))
def test_a_whole_sentence_is_the_provider_s_own(whole: str) -> None:
    wrapped = f"litellm.BadRequestError: VendorException - {json.dumps({'error': {'message': whole}})}"
    raw = json.dumps({"error": {"message": whole}})
    for body in (
        {"error": {"message": whole}},
        {"error": {"message": wrapped, "code": "400"}},
        {"error": {"message": "Provider returned error", "metadata": {"raw": raw}}},
    ):
        assert from_response(400, {}, json.dumps(body).encode()).entry.fault == "upstream"
    about_a_field = {"error": {"message": whole, "param": "messages[0].role"}}
    check(from_response(400, {}, json.dumps(about_a_field).encode()))


def test_a_name_in_a_field_is_the_provider_s_own_with_a_delay_from_fields_alone() -> None:
    body = {"error": {"type": "rate_limit_error", "message": "try again in 3600s"}}
    assert from_response(400, {}, json.dumps(body).encode()).retry_after_s == 1.0
    assert from_response(400, {"retry-after": "7"}, json.dumps(body).encode()).retry_after_s == 7.0


def test_words_alone_tell_of_a_failure_but_not_how_long_it_lasts() -> None:
    body = b'{"error": {"code": 500, "message": "Unknown role: rate limit exceeded, try again in 3600s"}}'
    assert from_response(500, {}, body).retry_after_s == 1.0
