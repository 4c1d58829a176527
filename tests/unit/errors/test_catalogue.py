"""The catalogue is sound, the code base uses it soundly, and nothing that a stranger sent makes a message grow."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import coterie
from coterie.errors import CATALOGUE, ApiError, Entry, Retry, lookup
from coterie.errors.catalogue import QUOTE_LIMIT, clip
from coterie.errors.render import http_headers
from coterie.errors.render_responses import RESPONSE_ERROR_CODES

SOURCE = Path(coterie.__file__).parent

OPENAI_TYPES = {"invalid_request_error", "server_error", "service_unavailable_error", "rate_limit_error"}
ANTHROPIC_TYPES = {
    "invalid_request_error", "authentication_error", "billing_error", "permission_error", "not_found_error",
    "request_too_large", "rate_limit_error", "timeout_error", "api_error", "overloaded_error",
}  # fmt: skip
FIELDS = {
    "reason", "media_type", "limit", "limit_s", "param", "hint", "value", "expected", "actual", "model", "endpoint",
    "method", "path", "id",
}  # fmt: skip

each_entry = pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE.keys())


def retried_by_the_sdks(status: int) -> bool:
    return status in (408, 409, 429) or status >= 500


def placeholders(entry: Entry) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(entry.message) if name is not None}


def filled(entry: Entry, text: str = "x") -> ApiError:
    fields: dict[str, Any] = dict.fromkeys(placeholders(entry) - {"param"}, text)
    return ApiError(entry.code, param="messages" if entry.takes_param else None, **fields)


@each_entry
def test_an_entry_uses_the_words_of_the_protocols(entry: Entry) -> None:
    assert entry.type in OPENAI_TYPES
    assert entry.anthropic_type in ANTHROPIC_TYPES
    assert entry.responses_code in RESPONSE_ERROR_CODES
    assert CATALOGUE[entry.code] is entry
    assert lookup(entry.code) is entry


@each_entry
def test_fault_status_and_retry_agree(entry: Entry) -> None:
    assert 400 <= entry.status < 600
    assert (entry.status < 500) == (entry.fault == "caller" or entry.code == "rate_limit_exceeded")
    assert not (entry.elsewhere and entry.fault == "caller")
    assert entry.elsewhere or entry.fault != "upstream"
    assert (entry.type == "invalid_request_error") == (entry.fault == "caller")
    if entry.retry is not Retry.NEVER:
        assert retried_by_the_sdks(entry.status)
    told = http_headers(filled(entry), "r").get("x-should-retry")
    assert told == ("false" if entry.retry is Retry.NEVER and retried_by_the_sdks(entry.status) else None)


@each_entry
def test_a_message_is_filled_by_documented_fields_alone(entry: Entry) -> None:
    assert placeholders(entry) <= FIELDS
    assert ("param" in placeholders(entry)) <= entry.takes_param
    error = filled(entry, "{not a field}")
    assert error.message
    assert str(error) == error.message
    assert not {"{" + name + "}" for name in FIELDS} & {error.message}
    assert ("{not a field}" in error.message) == bool(placeholders(entry) - {"param"})


@each_entry
def test_cause_and_remedy_are_sentences(entry: Entry) -> None:
    for text in (entry.cause, entry.remedy):
        assert text[0].isupper() or text[0] == "'"
        assert text.endswith(".")
        assert "  " not in text


def test_words_that_clients_match_stand_in_the_messages() -> None:
    matched = {
        "context_length_exceeded": "maximum context length is",
        "model_not_found": "does not exist or you do not have access to it",
        "missing_required_parameter": "Missing required parameter: '",
        "unsupported_parameter": "is not supported with this model.",
        "internal_error": "The server had an error while processing your request. Sorry about that!",
        "server_is_overloaded": "overloaded",
    }
    for code, words in matched.items():
        assert words in CATALOGUE[code].message


def test_an_unknown_code_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        ApiError("no_such_code")


# Messages do not grow with their cause.


def test_text_is_clipped_at_the_limit() -> None:
    assert clip("a" * QUOTE_LIMIT) == "a" * QUOTE_LIMIT
    assert clip("a" * (QUOTE_LIMIT + 1)) == "a" * (QUOTE_LIMIT - 3) + "..."
    assert clip(12) == "12"


@each_entry
def test_no_stranger_makes_a_message_long(entry: Entry) -> None:
    error = filled(entry, "x" * 5_000_000)
    assert len(error.message) <= len(entry.message) + QUOTE_LIMIT * len(placeholders(entry))


def test_a_long_param_is_clipped_in_the_field_and_in_the_message() -> None:
    error = ApiError("unknown_parameter", param="p" * 1_000)
    assert error.param == "p" * (QUOTE_LIMIT - 3) + "..."
    assert error.message == f"Unknown parameter: '{error.param}'."


def test_detail_never_enters_the_message() -> None:
    error = ApiError("internal_error", detail="secret")
    assert error.detail == "secret"
    assert "secret" not in error.message


def test_at_moves_a_failure_to_another_param_and_keeps_the_rest() -> None:
    error = ApiError(
        "unsupported_value", param="a", value="'v'", hint=" Take w.", retry_after_s=2.5, detail="d", headers={"x": "y"}
    )
    moved = error.at("b.c")
    assert (moved.code, moved.param, moved.status) == ("unsupported_value", "b.c", 400)
    assert moved.message == "Unsupported value: 'b.c' does not support 'v' with this model. Take w."
    assert (moved.retry_after_s, moved.detail, moved.headers) == (2.5, "d", {"x": "y"})
    assert error.param == "a"


# The code base.


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def api_errors() -> Iterator[tuple[str, ast.Call]]:
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ApiError":
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", node


def test_every_code_is_used_outside_the_catalogue() -> None:
    patterns: set[str] = set()
    words: set[str] = set()
    for path, tree in trees():
        if path.parent.name == "errors" and path.stem in ("catalogue", "entries", "entry"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                patterns.add("".join(str(v.value) if isinstance(v, ast.Constant) else "*" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
    # "integer_above_max_value" and its three siblings are put together from their parts.
    assert "*_*_value" in patterns
    made = {f"{kind}_{bound}_value" for kind in ("integer", "decimal") for bound in ("below_min", "above_max")}
    assert set(CATALOGUE) - made <= words


def test_no_place_raises_an_unknown_code_or_forgets_the_param() -> None:
    wrong = []
    seen = 0
    for place, call in api_errors():
        code = call.args[0] if call.args else None
        if not isinstance(code, ast.Constant):
            continue
        seen += 1
        name = str(code.value)
        entry = CATALOGUE.get(name)
        names = {keyword.arg for keyword in call.keywords}
        if entry is None:
            wrong.append(f"{place}: unknown code {name}")
        elif None in names:
            continue
        elif entry.takes_param != ("param" in names):
            wrong.append(f"{place}: {name} and its param")
        elif "said" not in names and (missing := placeholders(entry) - names - {"hint"}):
            wrong.append(f"{place}: {name} lacks {missing}")
    assert seen > 30
    assert wrong == []


def test_a_provider_s_own_words_replace_the_message_and_stay() -> None:
    error = ApiError("invalid_request_error", said="No {braces} here.", param="a", retry=Retry.BACKOFF)
    assert error.message == "No {braces} here."
    moved = error.at("b")
    assert (moved.message, moved.param, moved.retry) == (error.message, "b", Retry.BACKOFF)


def test_what_an_entry_says_of_a_retry_can_be_overruled() -> None:
    error = ApiError("rate_limit_exceeded", retry=Retry.NEVER)
    assert http_headers(error, "r")["x-should-retry"] == "false"
