"""What failing upstreams say: statuses, headers and bodies in the shapes of real servers. Pure.

With a marker, everything that is said holds what must not leak: a path, a key, a host's name, an organisation's id and
a traceback, each with the marker in it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer that is none. ``body`` is text, or what becomes JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON


def _openai(message: str, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


RATE_LIMIT: Final = Failure(
    429,
    _openai("Rate limit reached for requests. Please try again later.", "requests", "rate_limit_exceeded"),
)
SERVER_ERROR: Final = Failure(
    500, _openai("The server had an error while processing your request. Sorry about that!", "server_error", None)
)
UNAVAILABLE: Final = Failure(
    503,
    {
        "error": {
            "message": "The engine is currently busy and cannot accept new requests. Please try again later or on a "
            "different instance.",
            "type": "Service Unavailable",
            "param": None,
            "code": 503,
        }
    },
)
UNAUTHORIZED: Final = Failure(
    401,
    _openai("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    {"www-authenticate": "Bearer"},
)
FILTERED: Final = Failure(
    400,
    {
        "error": {
            "code": "content_filter",
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management "
            "policy. Please modify your prompt and retry.",
            "param": "prompt",
            "type": None,
            "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {
                    "hate": {"filtered": False, "severity": "safe"},
                    "jailbreak": {"filtered": True, "detected": True},
                    "self_harm": {"filtered": False, "severity": "safe"},
                    "sexual": {"filtered": False, "severity": "safe"},
                    "violence": {"filtered": False, "severity": "safe"},
                },
            },
        }
    },
)
NO_CONTINUATION: Final = Failure(
    400,
    _openai("The last message must be from the user: an assistant message cannot be continued.",
            "invalid_request_error", None, "messages"),
)  # fmt: skip
BAD_GATEWAY: Final = Failure(
    502,
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    "<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
    content_type="text/html",
)
PAGE: Final = Failure(
    200, "<!doctype html>\n<html><head><title>Sign in</title></head><body>Please sign in.</body></html>\n", {}, HTML
)

OVERFLOWS: Final[Mapping[str, Failure]] = {
    "openai": Failure(
        400,
        _openai(
            "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens. "
            "Please reduce the length of the messages.",
            "invalid_request_error", "context_length_exceeded", "messages",
        ),
    ),
    "vllm": Failure(
        400,
        {"error": {
            "message": "This model's maximum context length is 4096 tokens. However, your prompt contains 5000 input "
            "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
            "prompt. (parameter=input_tokens, value=5000)",
            "type": "BadRequestError", "param": "input_tokens", "code": 400,
        }},
    ),
    "llamacpp": Failure(
        400,
        {"error": {
            "code": 400,
            "message": "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
            "type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096,
        }},
    ),
    "sglang": Failure(
        400,
        {"object": "error",
         "message": "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
         "type": "BadRequestError", "param": None, "code": 400},
    ),
    "ollama": Failure(
        400, _openai("the input length exceeds the context length", "invalid_request_error", None)
    ),
    "tgi": Failure(
        422,
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` "
                  "tokens and 60 `max_new_tokens`",
         "error_type": "validation"},
    ),
}  # fmt: skip
"""A full context, as several servers say it."""

NO_CREDIT: Final[Mapping[str, Failure]] = {
    "openrouter": Failure(
        402,
        {"error": {
            "message": "This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, but "
            "can only afford 120.",
            "code": 402, "metadata": {"limit_source": "openrouter_credits"},
        }},
    ),
    "openai": Failure(
        429,
        _openai(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota", "insufficient_quota",
        ),
    ),
    "deepseek": Failure(402, _openai("Insufficient Balance", "unknown_error", "invalid_request_error")),
}  # fmt: skip
"""An empty account."""

ERRORS: Final[Mapping[str, Any]] = {
    "openai": _openai("The server had an error while processing your request. Sorry about that!", "server_error", None),
    "vllm": {"error": {"message": "EngineCore encountered an issue.", "type": "Internal Server Error", "param": None,
                       "code": 500}},
    "sglang": {"error": {"object": "error", "message": "The request queue is full.", "type": "SERVICE_UNAVAILABLE",
                         "param": None, "code": 503}},
    "llamacpp": {"error": {"code": 500, "message": "failed to decode the batch", "type": "server_error"}},
    "tgi": {"error": {"message": "Request failed during generation: out of memory", "http_status_code": 424}},
    "openrouter": {"id": "gen-0", "object": "chat.completion.chunk", "created": 1, "model": "m", "provider": "p",
                   "error": {"code": "server_error", "message": "Provider disconnected unexpectedly"},
                   "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]},
    "text": {"error": "the runner has stopped"},
}  # fmt: skip
"""An error object in an answer with status 200."""


def rate_limit(after_s: float) -> Failure:
    """A rate limit that says for how long."""
    message = f"Rate limit reached for requests. Please try again in {after_s:g}s."
    headers = {"retry-after": f"{after_s:g}", "x-ratelimit-remaining-requests": "0"}
    return Failure(429, _openai(message, "requests", "rate_limit_exceeded"), headers)


def unknown_model(model: str) -> Failure:
    """The model is not served here."""
    message = f"The model `{model}` does not exist or you do not have access to it."
    return Failure(404, _openai(message, "invalid_request_error", "model_not_found"))


def bad_request(message: str, param: str | None = None, status: int = 400) -> Failure:
    """A mistake of whoever asks."""
    return Failure(status, _openai(message, "invalid_request_error", None, param))


def unknown_url(method: str, path: str) -> Failure:
    """There is nothing at this path."""
    return bad_request(f"Invalid URL ({method} {path})", status=404)


def secrets(marker: str) -> str:
    """What must not leak, with ``marker`` in each; empty without one."""
    if not marker:
        return ""
    return (
        f' [/srv/{marker}/models/weights.gguf key=sk-{marker} host=gpu-7.{marker}.internal organization=org-{marker}]'
        f'\nTraceback (most recent call last):\n  File "/opt/{marker}/engine/worker.py", line 88, in step\n'
        f"RuntimeError: {marker} at 0x7f3a2c1d9e40"
    )  # fmt: skip


def with_secrets(body: Any, marker: str) -> Any:
    """``body`` with :func:`secrets` in its message: a new value, or the same where there is no marker."""
    if not marker:
        return body
    if isinstance(body, str):
        return body + secrets(marker)
    body = copy.deepcopy(body)
    told = body["error"] if isinstance(body.get("error"), dict) else body
    key = "message" if "message" in told else "error"
    told[key] = told.get(key, "") + secrets(marker)
    told["metadata"] = {**told.get("metadata", {}), "raw": secrets(marker)}
    return body


def failure_bytes(failure: Failure, marker: str = "") -> bytes:
    """The whole answer as it is written."""
    body = with_secrets(failure.body, marker)
    data = body.encode() if isinstance(body, str) else orjson.dumps(body)
    headers = {**failure.headers, **({"x-served-by": f"gpu-7.{marker}.internal"} if marker else {})}
    return response(failure.status, data, headers, failure.content_type)


_REASONS: Final[Mapping[int, str]] = {
    200: "OK", 302: "Found", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 404: "Not Found",
    413: "Content Too Large", 422: "Unprocessable Entity", 429: "Too Many Requests", 500: "Internal Server Error",
    502: "Bad Gateway", 503: "Service Unavailable",
}  # fmt: skip


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Status line and headers."""
    lines = [f"HTTP/1.1 {status} {_REASONS[status]}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join((*lines, "", "")).encode("latin-1", "replace")


def response(
    status: int, body: bytes, headers: Mapping[str, str] | None = None, content_type: str = JSON
) -> bytes:  # fmt: skip
    """A whole answer with a length."""
    named = {"content-type": content_type, "content-length": str(len(body)), **(headers or {})}
    return head(status, named) + body
