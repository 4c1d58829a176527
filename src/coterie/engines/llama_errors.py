"""What llama.cpp's server says when it fails, as failures of the catalogue. Pure.

Its errors are ``{"code": int, "message": str, "type": str}``. Structure decides, words only where there is nothing
else; each phrase stands with its place in llama.cpp's source. Its own text never goes to a client: it holds paths.
"""

from __future__ import annotations

import re
from typing import Any, Final

from coterie.errors import ApiError

_TEMPLATE_REFUSALS: Final = (
    "raise_exception",  # jinja: a template that calls raise_exception, such as "roles must alternate"
    "assistant messages at the end",  # server-common.cpp: more than one message to continue
    "Cannot use assistant prefill",  # server-common.cpp: continuing a thinking answer
    "Jinja Exception",  # jinja/runtime.cpp
)

_GRAMMAR_REFUSALS: Final = (
    "grammar",  # common/sampling.cpp "failed to parse grammar"
    "JSON schema",  # json-schema-to-grammar.cpp "JSON schema error at"
    "json_schema",
)

_FIELD: Final = re.compile(r"Field '([a-z_]+)':")
"""server-schema.cpp: a parameter outside of the engine's own bounds."""

_CALLERS_FIELDS: Final = frozenset(
    {
        "temperature", "top_p", "top_k", "min_p", "stop", "frequency_penalty", "presence_penalty", "logit_bias", "seed",
        "max_tokens", "logprobs", "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls",
    }
)  # fmt: skip
"""Fields that a caller can have set under the same name. A fault in any other is ours."""

_INPUT_TOO_LARGE: Final = re.compile(r"input \((\d{1,9}) tokens\) is too large to process.*batch size: (\d{1,9})")
"""server-context.cpp: an input to embed that does not fit one step."""


def classify(error: dict[str, Any], prompt_param: str) -> ApiError:
    """The failure that ``error`` is; ``prompt_param`` is the caller's name for the prompt."""
    kind, text = error.get("type"), str(error.get("message", ""))
    limit, actual = error.get("n_ctx"), error.get("n_prompt_tokens")
    if kind == "exceed_context_size_error" and isinstance(limit, int) and isinstance(actual, int):
        return ApiError("context_length_exceeded", param=prompt_param, limit=limit, actual=actual)
    if (large := _INPUT_TOO_LARGE.search(text)) is not None:
        return ApiError("context_length_exceeded", param=prompt_param, actual=large[1], limit=large[2])
    if kind == "invalid_request_error" and any(phrase in text for phrase in _GRAMMAR_REFUSALS):
        return ApiError(
            "invalid_json_schema", param="response_format", reason="the engine cannot enforce it", detail=text
        )
    if any(phrase in text for phrase in _TEMPLATE_REFUSALS):
        return ApiError("invalid_value", param=prompt_param, reason="the model's chat template refused it", detail=text)
    field = _FIELD.match(text)
    if kind == "invalid_request_error" and field is not None and field[1] in _CALLERS_FIELDS:
        return ApiError("invalid_value", param=field[1], reason="the engine does not accept it", detail=text)
    return ApiError("engine_failed", detail=f"{kind}: {text}")
