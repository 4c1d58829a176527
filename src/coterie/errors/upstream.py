"""What a provider's failure is in the catalogue: any answer, event or broken connection becomes an ``ApiError``. Pure.

What it promises:

* It never raises for anything that a provider can send, and its work is bounded whatever the length.
* An ordered list of rules (:data:`_RULES`), the first that recognises the failure decides. The order matters because
  providers mix things up: a 429 may be an empty account, a 413 a rate limit, a 400 a wrong key, a 500 the caller's
  picture. Structure (status, codes, types, fields) comes before words.
* Only the caller's own fault is told in the provider's words, cleaned; all else has the catalogue's text. What the
  provider said stands, without keys, in ``detail`` for the log.
* What a caller wrote, and a 400 or 422 repeats, never becomes the provider's fault: no rest, no delay, no lasting
  failure comes of it (:mod:`coterie.errors.upstream_case`).
* This server's credentials, account and configuration are never the caller's fault: no 401, 403 or 404 passes.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from coterie.errors import upstream_patterns as known
from coterie.errors.catalogue import ApiError, lookup
from coterie.errors.cleaning import mask_secrets
from coterie.errors.entry import Retry
from coterie.errors.foreign import read_body, read_value
from coterie.errors.overflow import read_overflow, sentence
from coterie.errors.params import unknown_field
from coterie.errors.upstream_case import Case
from coterie.errors.upstream_sentences import SENTENCES

DEFAULT_DELAY_S: Final = 1.0
"""The delay of a rate limit or an overload whose end the provider does not tell."""

RELAYED_CODES: Final = frozenset(
    {
        "missing_required_parameter", "unknown_parameter", "unsupported_parameter", "unsupported_value", "invalid_type",
        "invalid_value", "string_above_max_length", "string_below_min_length", "array_above_max_length", "empty_array",
        "object_above_max_properties", "integer_above_max_value", "integer_below_min_value", "decimal_above_max_value",
        "decimal_below_min_value", "invalid_json_schema", "invalid_function_parameters", "context_length_exceeded",
        "invalid_base64", "invalid_image_url", "invalid_image_format", "invalid_image", "invalid_image_mode",
        "image_parse_error", "image_too_large", "image_too_small", "image_file_too_large", "empty_image_file",
        "image_file_not_found", "failed_to_download_image", "unsupported_image_media_type",
        "image_content_policy_violation", "content_policy_violation", "request_too_large", "bio_policy",
        "data_residency_mismatch", "invalid_prompt",
    }
)  # fmt: skip
"""Codes of the caller's fault that keep their meaning when a provider says them."""

TRANSPORT_CODES: Final[Mapping[str, str]] = {
    "dns": "upstream_unreachable",
    "refused": "upstream_unreachable",
    "tls": "upstream_unreachable",
    "reset_before_head": "upstream_unreachable",
    "connect_timeout": "upstream_connect_timeout",
    "timeout": "upstream_timeout",
    "broken": "upstream_stream_interrupted",
    "closed": "upstream_stream_interrupted",
    "empty": "upstream_empty_response",
    "not_http": "upstream_protocol_error",
    "head_too_large": "upstream_protocol_error",
    "upgrade": "upstream_protocol_error",
    "body_too_large": "upstream_protocol_error",
}
"""What a connection can do instead of answering, and the failure that it is."""

_RESPONSES_NAMES: Final[Mapping[str, str]] = {"max_tokens": "max_output_tokens", "reasoning_effort": "reasoning"}
_FLAT_TEXTS: Final = ("message", "detail", "error_msg", "error_message", "errorMessage", "errors", "msg", "status_msg")
_ANSWER_KEYS: Final = frozenset(
    {"choices", "data", "output", "delta", "content", "id", "model", "done", "usage", "embedding", "embeddings", "role"}
)
"""What only an answer has: an object without them that has a text of its own is an error told flatly."""


def from_response(
    status: int, headers: Mapping[str, str], body: bytes, *, prompt_param: str = "messages", now: float | None = None
) -> ApiError:
    """The failure that an HTTP answer is which is no success, whatever its body.

    ``prompt_param`` is what the caller's dialect calls the prompt ("messages", "input", "prompt"); ``now`` is Unix
    time, for delays that are given as a date.
    """
    return _classify(Case.of(read_body(status, body), status, headers, prompt_param, now, body[:600]))


def from_payload(
    payload: object,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    prompt_param: str = "messages",
    now: float | None = None,
) -> ApiError | None:
    """The failure that parsed JSON is, of a body or of a stream's event; ``None`` where it is none."""
    if status < 400 and not _is_error(payload):
        return None
    return _classify(Case.of(read_value(status, payload), status, headers or {}, prompt_param, now, b""))


def from_transport(kind: str, *, detail: str | None = None) -> ApiError:
    """The failure of a connection; ``kind`` is a key of :data:`TRANSPORT_CODES`. Raises ``KeyError`` for another."""
    return ApiError(TRANSPORT_CODES[kind], detail=mask_secrets(f"{kind}: {detail}" if detail else kind))


def _is_error(payload: object) -> bool:
    if isinstance(payload, dict):
        choices = payload.get("choices")
        if payload.get("error"):
            return True
        if choices and isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict) and (choice.get("finish_reason") == "error" or choice.get("error")):
                    return True
            return False
        return _is_told_apart(payload)
    return (
        isinstance(payload, list) and bool(payload) and isinstance(payload[0], dict) and bool(payload[0].get("error"))
    )


def _is_told_apart(payload: dict[Any, Any]) -> bool:
    """Errors without a telling ``error``: typed events, failed responses, flat objects."""
    if payload.get("object") == "error" or payload.get("type") in ("error", "response.failed"):
        return True
    if payload.get("status") == "failed" or isinstance(payload.get("fault"), dict):
        return True
    base = payload.get("base_resp")  # MiniMax: part of every answer, 0 where it is well
    if isinstance(base, dict) and base.get("status_code"):
        return True
    if payload.get("error") is not None and payload.get("error") is not False and not _ANSWER_KEYS & payload.keys():
        return True
    text = next((payload[key] for key in _FLAT_TEXTS if payload.get(key)), None)
    return isinstance(text, (str, list)) and not _ANSWER_KEYS & payload.keys()


def _classify(case: Case) -> ApiError:
    return next(error for rule in _RULES if (error := rule(case)) is not None)


def _sentences(case: Case) -> ApiError | None:
    """Whole sentences of providers that blame the request for what is theirs."""
    if not case.echoes or case.foreign.param not in (None, "model"):
        return None
    for text in case.foreign.sure_texts[:8]:
        for phrase in SENTENCES:
            if phrase.pattern.fullmatch(text[:600].rstrip(" \n")):
                return _of_provider(case, phrase.code)
    return None


def _misconfigured(case: Case) -> ApiError | None:
    """What was set up for this provider cannot work: no repetition helps."""
    if known.has_stem(case.sure_ids, known.CONFIGURATION_STEMS):
        return ApiError("upstream_error", retry=Retry.NEVER, detail=case.detail)
    return None


def _page(case: Case) -> ApiError | None:
    """A page, not an answer: a proxy's or a firewall's, which the account and the key do not matter to."""
    return _upstream(case, "upstream_error") if case.foreign.is_html and case.status in (400, 403, 422) else None


def _unknown_field(case: Case) -> ApiError | None:
    """A validator takes no fields but its own, and the caller sent another."""
    if not case.echoes or case.param is not None:
        return None
    extra = (issue.place for issue in case.foreign.issues if "extraforbidden" in issue.kind.replace("_", ""))
    name = next((name for place in extra if (name := unknown_field(place)) is not None), None)
    return None if name is None else ApiError("unknown_parameter", param=name, detail=case.detail)


def _content(case: Case) -> ApiError | None:
    by_words = case.status in (400, 403, 422, 451) or not case.foreign.status_known
    named = known.has_stem(case.ids, known.CONTENT_STEMS) or case.ids & known.CONTENT_IDS
    if not named and not (by_words and known.first_phrase(known.CONTENT_PHRASES, case.text)):
        return None
    if "bio_policy" in case.foreign.names:
        return _callers(case, "bio_policy")
    of_image = (
        "imagecontentpolicyviolation" in case.ids
        or "image_url" in (case.foreign.param or "")
        or known.CONTENT_OF_IMAGE.search(case.text)
    )
    return _callers(case, "image_content_policy_violation" if of_image else "content_policy_violation")


def _own_code(case: Case) -> ApiError | None:
    """The provider uses a code that is in the catalogue: nothing is clearer."""
    if case.status not in known.INVALID_STATUSES and case.foreign.status_known and case.status not in (415, 500, 502):
        return None
    if case.foreign.param == "model":
        return None
    for name in case.foreign.names:
        code = known.IMAGE_ALIASES.get(name, name)
        if code == "context_length_exceeded":
            return _overflowed(case)
        if code == "vector_store_timeout":
            return _upstream(case, code)
        if code in RELAYED_CODES:
            return _callers(case, code)
    return None


def _quota(case: Case) -> ApiError | None:
    if case.status == 402:
        if case.delay_s is not None and any("inflight" in name for name in case.sure_ids):
            return _limited(case)
        return _upstream(case, "upstream_quota_exhausted")
    by_words = case.is_told_by_words or (case.status in (403, 429) and not case.is_its_own)
    weak = known.has_stem(case.sure_ids, known.QUOTA_WEAK_STEMS) or (
        by_words and known.first_phrase(known.QUOTA_PHRASES, case.words)
    )
    if known.has_stem(case.sure_ids, known.QUOTA_STEMS) or (weak and case.delay_s is None):
        return _upstream(case, "upstream_quota_exhausted")
    return None


def _too_large_for_rate(case: Case) -> ApiError | None:
    """The request alone is more than the provider's limit per minute: no waiting helps."""
    numbers = known.RATE_NUMBERS.search(case.text)
    exceeds = numbers is not None and int(numbers[2]) > int(numbers[1])
    limited = case.status == 429 or known.has_stem(case.sure_ids, known.RATE_STEMS)
    if known.first_phrase(known.TOO_LARGE_FOR_RATE, case.words) or (exceeds and limited):
        return ApiError("rate_limit_exceeded", retry=Retry.NEVER, detail=case.detail)
    return None


def _overload(case: Case) -> ApiError | None:
    named = known.has_stem(case.sure_ids, known.OVERLOAD_STEMS) or case.sure_ids & known.OVERLOAD_IDS
    by_words = case.status == 429 or (case.is_open and case.status not in known.INVALID_STATUSES)
    if (
        (named and case.status != 404)
        or case.status in known.OVERLOAD_STATUSES
        or (by_words and known.first_phrase(known.OVERLOAD_PHRASES, case.words))
    ):
        return _overloaded(case)
    return None


def _rate(case: Case) -> ApiError | None:
    named = known.has_stem(case.sure_ids, known.RATE_STEMS) or case.sure_ids & known.RATE_IDS
    by_words = case.is_open or case.status in (403, 413)
    if case.status == 429 or named or (by_words and known.first_phrase(known.RATE_PHRASES, case.words)):
        return _limited(case)
    return None


def _auth_named(case: Case) -> ApiError | None:
    if known.has_stem(case.sure_ids, known.MODEL_STEMS):
        return None
    named = known.has_stem(case.sure_ids, known.AUTH_STEMS) and case.status != 404
    if named or (case.is_told_by_words and known.first_phrase(known.AUTH_PHRASES, case.words)):
        return _upstream(case, "upstream_auth_failed")
    return None


def _unsupported(case: Case) -> ApiError | None:
    """The model cannot do what the caller asks for, permanently, whatever status says so."""
    if not case.is_open and case.status not in (404, 501):
        return None
    if case.param is not None and known.has_stem(case.ids, known.UNSUPPORTED_STEMS):
        return _callers(case, "unsupported_parameter")
    phrase = known.first_phrase(known.UNSUPPORTED_PHRASES, case.text)
    if phrase is None:
        return None
    param = case.prompt_param if phrase.param == "prompt" else _spelled(case, phrase.param)
    what = "images or other media" if phrase.param == "prompt" else ""
    return ApiError(phrase.code, param=param, value=what, detail=case.detail)


def _model(case: Case) -> ApiError | None:
    """The model, which this server chose, is not there."""
    named = known.has_stem(case.sure_ids, known.MODEL_STEMS) or case.sure_ids & known.MODEL_IDS
    pointed = case.foreign.param == "model" and case.status in (400, 404, 422)
    missing = case.status == 404 and known.MODEL_WORD.search(case.text)
    told = (case.status == 404 or case.is_told_by_words) and known.first_phrase(known.MODEL_PHRASES, case.words)
    if named or pointed or missing or told:
        return _upstream(case, "upstream_model_unavailable")
    return None


def _auth(case: Case) -> ApiError | None:
    return _upstream(case, "upstream_auth_failed") if case.status in known.AUTH_STATUSES else None


def _output_limit(case: Case) -> ApiError | None:
    """More tokens are asked for than the model ever writes; the prompt may be short."""
    if not case.echoes or not known.first_phrase(known.OUTPUT_PHRASES, case.text):
        return None
    param = case.param if case.param and "max" in case.param else _spelled(case, "max_tokens")
    return _callers(replace(case, param=param), "integer_above_max_value")


def _overflow(case: Case) -> ApiError | None:
    foreign = case.foreign
    named = known.has_stem(case.ids, known.OVERFLOW_STEMS) or case.ids & known.OVERFLOW_IDS
    counted = foreign.limit is not None and foreign.actual is not None and foreign.actual >= foreign.limit
    silent = foreign.empty and case.status in (400, 413)  # Cerebras
    by_words = (case.is_open or case.status == 413) and not known.OVERFLOW_GUARD.search(case.text)
    if named or counted or silent or (by_words and known.first_phrase(known.OVERFLOW_PHRASES, case.text)):
        return _overflowed(case)
    return None


def _image(case: Case) -> ApiError | None:
    phrase = known.first_phrase(known.IMAGE_PHRASES, case.text) if case.is_open or case.status == 413 else None
    return None if phrase is None else _callers(case, phrase.code)


def _timeout(case: Case) -> ApiError | None:
    by_words = case.is_open and case.status not in known.INVALID_STATUSES
    if (
        case.status in known.TIMEOUT_STATUSES
        or (by_words and known.has_stem(case.ids, known.TIMEOUT_STEMS))
        or (by_words and known.first_phrase(known.TIMEOUT_PHRASES, case.text))
    ):
        return _upstream(case, "upstream_timeout")
    return None


def _invalid(case: Case) -> ApiError | None:
    if case.status == 413:
        return _callers(case, "request_too_large", "The request is too large for the provider of this model.")
    named = known.has_stem(case.ids, known.INVALID_STEMS) and not known.has_stem(case.ids, known.FAILED_STEMS)
    if case.status in known.INVALID_STATUSES or (named and (not case.foreign.status_known or case.status == 500)):
        return _callers(case, "invalid_request_error")
    return None


def _misplaced(case: Case) -> ApiError | None:
    """The provider has no such route, or sends us elsewhere: this server's configuration."""
    if case.status in (404, 405) or 300 <= case.status < 400:
        detail = f"no such route there; is the provider's URL right? {case.detail}"
        return ApiError("upstream_error", retry=Retry.NEVER, detail=detail)
    return None


def _failed(case: Case) -> ApiError:
    return _upstream(case, "upstream_error")


_RULES: Final[tuple[Callable[[Case], ApiError | None], ...]] = (
    _sentences, _misconfigured, _page, _content, _own_code, _quota, _too_large_for_rate, _overload, _rate, _auth_named,
    _unsupported, _model, _auth, _output_limit, _overflow, _image, _timeout, _unknown_field, _invalid, _misplaced,
    _failed,
)  # fmt: skip


def _upstream(case: Case, code: str) -> ApiError:
    return ApiError(code, detail=case.detail)


def _of_provider(case: Case, code: str) -> ApiError:
    if code == "server_is_overloaded":
        return _overloaded(case)
    return ApiError(code, retry=Retry.NEVER if code == "upstream_error" else None, detail=case.detail)


def _overloaded(case: Case) -> ApiError:
    return ApiError("server_is_overloaded", retry_after_s=case.delay_s or DEFAULT_DELAY_S, detail=case.detail)


def _spelled(case: Case, param: str) -> str:
    """What the caller's dialect calls ``param``."""
    return _RESPONSES_NAMES.get(param, param) if case.prompt_param == "input" else param


def _limited(case: Case) -> ApiError:
    return ApiError("rate_limit_exceeded", retry_after_s=case.delay_s or DEFAULT_DELAY_S, detail=case.detail)


def _overflowed(case: Case) -> ApiError:
    foreign = case.foreign
    sentences = [*foreign.texts, *(issue.text for issue in foreign.issues)]
    telling = (one for one in sentences if known.first_phrase(known.OVERFLOW_PHRASES, one))
    overflow = read_overflow(next(telling, case.text), foreign.limit, foreign.actual)
    return ApiError(
        "context_length_exceeded",
        param=case.prompt_param,
        said=sentence(overflow),
        limit=overflow.limit,
        actual=overflow.actual,
        detail=case.detail,
    )


def _callers(case: Case, code: str, otherwise: str | None = None) -> ApiError:
    """The caller's fault, in the provider's words; without any in ``otherwise``, or the catalogue's."""
    entry, param = lookup(code), case.param
    if entry.takes_param and param is None:
        if "image" not in code and code != "invalid_base64":
            code, entry = "invalid_request_error", lookup("invalid_request_error")
        else:
            param = case.prompt_param
    blanks = {name for _, name, _, _ in string.Formatter().parse(entry.message) if name} - {"param", "hint"}
    if not case.said and otherwise is None and blanks:
        otherwise = f"Invalid '{param}'." if param else lookup("invalid_request_error").message
    return ApiError(code, param=param, said=case.said or otherwise, detail=case.detail)
