"""A failure as each dialect's wire form. Pure: values in, values out.

What it promises:

* ``{"error": {"message", "type", "param", "code"}}`` with all four always present, ``code`` always a string. (Without
  the wrapper the JavaScript SDK shows "400 status code (no body)"; an integer code makes Codex retry for ever.)
* ``x-request-id`` on every answer. ``retry-after`` in whole seconds, at least 1, and ``retry-after-ms``, exactly where
  a delay was computed. ``x-should-retry: false`` where the SDKs would retry in vain: their rule is 408, 409, 429 and
  every status of 500 and more; and a delay of more than 60 seconds, which some of them ignore and some sleep in full.
* A failure that is not the caller's ends with the request's id, so that a report leads to the log line.
"""

from __future__ import annotations

import math
from typing import Final

import orjson

from coterie.errors.catalogue import ApiError
from coterie.errors.entry import Retry

DONE: Final = b"data: [DONE]\n\n"
"""The last bytes of every chat stream."""

_LONGEST_HONOURED_DELAY_S: Final = 60.0


def error_object(error: ApiError, request_id: str) -> dict[str, str | None]:
    """The four fields that OpenAI's ``Error`` schema requires."""
    return {
        "message": _message(error, request_id),
        "type": error.entry.type,
        "param": error.param,
        "code": error.entry.code,
    }


def http_body(error: ApiError, request_id: str) -> bytes:
    """The body of an HTTP answer that says ``error``."""
    return orjson.dumps({"error": error_object(error, request_id)})


def http_headers(error: ApiError, request_id: str) -> dict[str, str]:
    """The headers of an HTTP answer that says ``error``."""
    headers = {"content-type": "application/json", "x-request-id": request_id, **error.headers}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    delay_s = error.retry_after_s
    if delay_s is not None:
        headers["retry-after"] = str(_whole_seconds(delay_s))
        headers["retry-after-ms"] = str(max(1, math.ceil(delay_s * 1000)))
    if _retried_by_sdks(error.status) and (
        error.retry is Retry.NEVER or (delay_s is not None and delay_s > _LONGEST_HONOURED_DELAY_S)
    ):
        headers["x-should-retry"] = "false"
    return headers


def chat_frames(error: ApiError, request_id: str) -> tuple[bytes, bytes]:
    """The end of a chat stream that failed after its first byte: one error frame, then ``[DONE]``.

    Every official SDK raises ``APIError`` with code, type and param on exactly this frame; a finish reason "error",
    a flat object or a bare close raise nothing.
    """
    return b"data: " + http_body(error, request_id) + b"\n\n", DONE


def _message(error: ApiError, request_id: str) -> str:
    message = error.message
    if error.retry_after_s is not None:
        message = f"{message} Please try again in {_whole_seconds(error.retry_after_s)}s."
    if error.entry.fault != "caller":
        message = f"{message} (request id: {request_id})"
    return message


def _whole_seconds(delay_s: float) -> int:
    return max(1, math.ceil(delay_s))


def _retried_by_sdks(status: int) -> bool:
    return status in (408, 409, 429) or status >= 500
