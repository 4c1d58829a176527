"""What a provider can do wrong, and what a client must see of it: one table, whatever the API and the way it comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coterie.testbed import bodies

LEAK = "zq9leaked"
"""Stands like a secret in what upstreams say of their own failures."""

IMAGE_PARAMS = ("messages[0].content[1].image_url.url", "input[0].content[1].image_url")
PROMPT_PARAMS = ("messages", "input")

CHAT_INPUT = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        ],
    }
]
RESPONSES_INPUT = [
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "What is it?"},
            {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"},
        ],
    }
]
"""The same question in both APIs."""

_CALLER, _SERVER = "invalid_request_error", "server_error"


@dataclass(frozen=True)
class Outcome:
    """What a client sees of a kind of failure: as an HTTP answer, and as the ``error.code`` of a response."""

    status: int
    type: str
    response_code: str
    hopeless: bool = False
    """Whether the SDKs, which would try again, are told not to."""
    delayed: bool = False
    """Whether it is told when to try again."""


IMAGE_CODES = (
    "invalid_image", "invalid_image_format", "invalid_image_url", "invalid_image_mode", "image_too_large",
    "image_too_small", "image_parse_error", "image_content_policy_violation", "image_file_too_large",
    "unsupported_image_media_type", "empty_image_file", "failed_to_download_image", "image_file_not_found",
)  # fmt: skip
"""Codes that both APIs have."""

OUTCOMES: Mapping[str, Outcome] = {
    "invalid_base64": Outcome(400, _CALLER, "invalid_base64_image"),
    "invalid_base64_image": Outcome(400, _CALLER, "invalid_base64_image"),
    **{code: Outcome(400, _CALLER, code) for code in IMAGE_CODES},
    "context_length_exceeded": Outcome(400, _CALLER, "invalid_prompt"),
    "invalid_request_error": Outcome(400, _CALLER, "invalid_prompt"),
    "unsupported_value": Outcome(400, _CALLER, "invalid_prompt"),
    "content_policy_violation": Outcome(400, _CALLER, "invalid_prompt"),
    "rate_limit_exceeded": Outcome(429, "rate_limit_error", "rate_limit_exceeded", delayed=True),
    "server_is_overloaded": Outcome(503, "service_unavailable_error", _SERVER, delayed=True),
    "upstream_auth_failed": Outcome(502, _SERVER, _SERVER, hopeless=True),
    "upstream_model_unavailable": Outcome(502, _SERVER, _SERVER, hopeless=True),
    "upstream_quota_exhausted": Outcome(503, _SERVER, _SERVER, hopeless=True),
    "upstream_error": Outcome(502, _SERVER, _SERVER),
    "upstream_unreachable": Outcome(502, _SERVER, _SERVER),
    "upstream_timeout": Outcome(504, _SERVER, _SERVER),
    "upstream_stream_interrupted": Outcome(502, _SERVER, _SERVER),
    "upstream_protocol_error": Outcome(502, _SERVER, _SERVER),
    "upstream_empty_response": Outcome(502, _SERVER, _SERVER),
    "engine_failed": Outcome(500, _SERVER, _SERVER),
}


@dataclass(frozen=True)
class Refusal:
    """A provider says what is wrong, with ``body``. ``params`` are those of chat and of responses."""

    name: str
    status: int
    body: Any
    code: str
    params: tuple[str | None, str | None] = (None, None)
    says: str = ""
    delay_s: int | None = None
    in_stream: bool = True
    """Whether ``body`` tells the same where no status says that it is an error."""


def _error(message: str, code: object, kind: str = _CALLER, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _image(code: str, told: str) -> Refusal:
    body = _error("There is something about this image.", told, param=IMAGE_PARAMS[0])
    return Refusal(told, 400, body, code, IMAGE_PARAMS, "something about this image")


def _ours(name: str, status: int, body: Any, code: str, delay_s: int | None = None, says: str = "") -> Refusal:
    """A failure that is not the caller's: nothing of what was said of it is told."""
    return Refusal(name, status, bodies.with_secrets(body, LEAK), code, says=says, delay_s=delay_s)


_TOO_LONG = r"maximum context length is 4096 tokens\b.* resulted in 5000 tokens"
_TRY_AGAIN = r"Please try again in \d+s\."
_OVERFLOW = "context_length_exceeded"
_CONTENT = "content_policy_violation"
_NO_CREDIT = {name: failure.body for name, failure in bodies.NO_CREDIT.items()}

REFUSALS = (
    _image("invalid_base64", "invalid_base64"),
    _image("invalid_base64", "invalid_base64_image"),
    *(_image(code, code) for code in IMAGE_CODES),
    *(
        Refusal(f"too long, {style}", 400, bodies.OVERFLOWS[style].body, _OVERFLOW, PROMPT_PARAMS, _TOO_LONG)
        for style in ("openai", "vllm", "llamacpp")
    ),
    Refusal("flat", 400, {"object": "error", "message": "There is no such thing.", "type": "BadRequestError",
                          "param": None, "code": 400}, "invalid_request_error", says="no such thing"),
    Refusal("numbered", 400, _error("This is too hot.", 400, "BadRequestError", "temperature"),
            "invalid_request_error", ("temperature", "temperature"), "too hot"),
    Refusal("detail", 422, {"detail": [{"loc": ["body", "temperature"], "msg": "Input should be less than 2",
                                        "type": "less_than"}]},
            "invalid_request_error", ("temperature", "temperature"), "should be less than 2", in_stream=False),
    Refusal("unsupported", 400, _error("Unsupported value: 'temperature' does not support 0.3 with this model.",
                                       "unsupported_value", param="temperature"),
            "unsupported_value", ("temperature", "temperature"), "does not support 0.3"),
    Refusal("filter of Azure", 400, bodies.FILTERED.body, _CONTENT, PROMPT_PARAMS, "content management policy"),
    Refusal("safety system", 400, _error("Your request was rejected as a result of our safety system.", _CONTENT),
            _CONTENT, says="safety system"),
    _ours("401", 401, bodies.UNAUTHORIZED.body, "upstream_auth_failed"),
    _ours("403", 403, _error("You are not allowed to use this.", None, "permission_error"), "upstream_auth_failed"),
    _ours("404", 404, bodies.unknown_model("m").body, "upstream_model_unavailable"),
    _ours("429 with a delay", 429, bodies.rate_limit(3).body, "rate_limit_exceeded", 3, _TRY_AGAIN),
    _ours("429 with a number", 429, _error("Too many requests", 429, ""), "rate_limit_exceeded", 1, _TRY_AGAIN),
    _ours("429 without a code", 429, {"error": {"message": "Rate limit reached for requests"}},
          "rate_limit_exceeded", 1, _TRY_AGAIN),
    _ours("429 for money", 429, _NO_CREDIT["openai"], "upstream_quota_exhausted"),
    _ours("402", 402, _NO_CREDIT["deepseek"], "upstream_quota_exhausted"),
    _ours("402 of OpenRouter", 402, _NO_CREDIT["openrouter"], "upstream_quota_exhausted"),
    _ours("500", 500, bodies.ERRORS["openai"], "upstream_error"),
    _ours("500 of llama.cpp", 500, bodies.ERRORS["llamacpp"], "upstream_error"),
    _ours("500 as text", 500, bodies.ERRORS["text"], "upstream_error"),
    _ours("503", 503, bodies.UNAVAILABLE.body, "server_is_overloaded", 1, _TRY_AGAIN),
    _ours("529", 529, _error("Overloaded", None, "overloaded_error"), "server_is_overloaded", 1, _TRY_AGAIN),
)  # fmt: skip
"""Failures that an upstream puts into words."""


@dataclass(frozen=True)
class Break:
    """A provider breaks off or sends what is no answer: a fault of the testbed."""

    fault: str
    code: str
    says: str = ""
    delay_s: int | None = None
    hopeless: bool = False
    """Whether it is, though what has its code is not."""


BREAKS_BEFORE = (
    Break("html", "upstream_error"),
    Break("redirect", "upstream_error", hopeless=True),
    Break("reset", "upstream_unreachable"),
    Break("silent", "upstream_timeout", r"No first token came within 0\.5 seconds"),
    Break("slow-first@20", "upstream_timeout"),
    Break("endless-headers", "upstream_protocol_error"),
    Break("wrong-type:as=html", "upstream_protocol_error"),
    Break("blank", "upstream_empty_response"),
    Break("empty", "upstream_empty_response"),
    Break("role-only:then=reset", "upstream_stream_interrupted"),
    Break("role-only:then=error", "upstream_error"),
    Break("rate-limit@7", "rate_limit_exceeded", r"Please try again in 7s\.", 7),
    Break("rate-limit@90", "rate_limit_exceeded", r"Please try again in 90s\.", 90),
    Break("rate-limit-bare", "rate_limit_exceeded", _TRY_AGAIN, 1),
)
"""Before anything is said."""

BREAKS_AFTER = (
    Break("cut@20", "upstream_stream_interrupted"),
    Break("close@20", "upstream_stream_interrupted"),
    Break("end@20", "upstream_stream_interrupted"),
    Break("no-finish", "upstream_stream_interrupted"),
    Break("tool-cut", "upstream_stream_interrupted"),
    Break("stall@20", "upstream_timeout", "within 0.5 seconds"),
    Break("malformed@20", "upstream_protocol_error"),
    Break("bad-utf8@20", "upstream_protocol_error"),
    Break("huge@10", "upstream_protocol_error"),
    Break("after-finish", "upstream_protocol_error"),
    Break("finish-error@20", "upstream_error"),
    Break("error-event@20:style=openrouter", "upstream_error"),
    Break("error-event@20:style=tgi", "upstream_error"),
    Break("error-event@20:style=sglang", "server_is_overloaded", _TRY_AGAIN, 1),
)
"""After some tokens."""
