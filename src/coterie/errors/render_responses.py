"""A failure in the words of the Responses API. Pure.

What it promises:

* ``error.code`` of a response that failed is one of :data:`RESPONSE_ERROR_CODES`, whatever the failure was: an entry of
  the catalogue says which one is nearest.
* The ``error`` event carries the flat fields that the specification documents and the nested object that OpenAI really
  sends, with the same code. (The official SDKs raise on the nested one; Open Responses' schema demands it.)
* Messages are those of an HTTP answer: a failure that is not the caller's ends with the request's id.
"""

from __future__ import annotations

from typing import Any, Final

from coterie.errors.catalogue import ApiError
from coterie.errors.render import error_object

RESPONSE_ERROR_CODES: Final = frozenset(
    {
        "bio_policy",
        "data_residency_mismatch",
        "empty_image_file",
        "failed_to_download_image",
        "image_content_policy_violation",
        "image_file_not_found",
        "image_file_too_large",
        "image_parse_error",
        "image_too_large",
        "image_too_small",
        "invalid_base64_image",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_mode",
        "invalid_image_url",
        "invalid_prompt",
        "rate_limit_exceeded",
        "server_error",
        "unsupported_image_media_type",
        "vector_store_timeout",
    }
)
"""``ResponseErrorCode`` of OpenAI's specification 2.3.0, all of it."""


def response_error(error: ApiError, request_id: str) -> dict[str, str]:
    """The ``error`` of a response that failed."""
    return {"code": error.entry.responses_code, "message": str(error_object(error, request_id)["message"])}


def error_event(error: ApiError, request_id: str) -> dict[str, Any]:
    """The fields of an ``error`` event, but for its type and its sequence number."""
    said = {**error_object(error, request_id), "code": error.entry.responses_code}
    flat = {name: said[name] for name in ("code", "message", "param")}
    return {**flat, "error": said}


def socket_error(error: ApiError, request_id: str) -> dict[str, Any]:
    """The message that tells a failure on a socket before its response has begun (``WebSocketErrorEvent``)."""
    return {"type": "error", "status": error.status, "error": error_object(error, request_id)}
