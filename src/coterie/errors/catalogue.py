"""The one catalogue of failures.

What it promises:

* Every failure that leaves the process is an :class:`ApiError` whose ``entry`` stands in :data:`CATALOGUE`; no other
  module holds an error code, an error type, or builds an error body.
* Codes, types and the phrases inside messages are OpenAI's own where OpenAI has one, because clients match both: the
  official SDKs look at status and code, half of the field looks for words ("maximum context length is").
* A status steers the SDKs' retries: they send a request again after 408, 409, 429 and every status of 500 and more.
  A permanent fault therefore has another status, or its entry says ``Retry.NEVER`` and the rendered answer carries
  ``x-should-retry: false``.
* Text that a stranger sent enters a message clipped (:data:`QUOTE_LIMIT`); text of an exception never does. What the
  operator needs beyond the message goes into ``ApiError.detail``, logged under the request's id and never sent.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Fault = Literal["caller", "service", "upstream"]

QUOTE_LIMIT = 200
"""Characters of a caller's own text that an error message repeats at most."""


class Retry(enum.Enum):
    """Whether sending the same request again can help."""

    NEVER = "never"
    """The same request fails in the same way."""
    BACKOFF = "backoff"
    """It may succeed; nobody knows when."""
    AFTER = "after"
    """It is likely to succeed after a delay that the answer names (``retry-after``)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of failure.

    ``responses_code`` is one of the Responses API's ``ResponseErrorCode`` values, ``anthropic_type`` one of the
    Messages API's error types. ``message`` is a ``str.format`` template over the fields given to :class:`ApiError`
    (``param`` included). ``takes_param`` says that ``param`` is always set.
    """

    code: str
    type: str
    status: int
    fault: Fault
    retry: Retry
    message: str
    cause: str
    remedy: str
    takes_param: bool = False
    responses_code: str = "server_error"
    anthropic_type: str = "api_error"


_ANTHROPIC_BY_STATUS: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "request_too_large",
    503: "overloaded_error",
    504: "timeout_error",
}


def _caller(
    code: str, message: str, *, cause: str, remedy: str, status: int = 400, param: bool = False,
    retry: Retry = Retry.NEVER, responses_code: str = "invalid_prompt",
) -> Entry:  # fmt: skip
    return Entry(
        code=code,
        type="invalid_request_error",
        status=status,
        fault="caller",
        retry=retry,
        message=message,
        cause=cause,
        remedy=remedy,
        takes_param=param,
        responses_code=responses_code,
        anthropic_type=_ANTHROPIC_BY_STATUS.get(status, "invalid_request_error"),
    )


def _service(
    code: str, message: str, *, cause: str, remedy: str, status: int = 500, type_: str = "server_error",
    retry: Retry = Retry.BACKOFF, fault: Fault = "service", responses_code: str = "server_error",
) -> Entry:  # fmt: skip
    return Entry(
        code=code,
        type=type_,
        status=status,
        fault=fault,
        retry=retry,
        message=message,
        cause=cause,
        remedy=remedy,
        responses_code=responses_code,
        anthropic_type=_ANTHROPIC_BY_STATUS.get(status, "api_error"),
    )


_BODY = (
    _caller(
        "invalid_json",
        "We could not parse the JSON body of your request: {reason}.",
        cause="The body is not one JSON object: broken syntax, NaN or an infinite number, a lone surrogate, "
        "a key given twice, or nesting beyond the limit.",
        remedy="Send one JSON object, as an OpenAI SDK or a JSON library writes it.",
    ),
    _caller(
        "unsupported_media_type",
        "Unsupported media type: '{media_type}'. Send 'application/json', without a content encoding.",
        status=415,
        cause="The content-type header is not application/json, or the body is compressed.",
        remedy="Set 'content-type: application/json' and send the body uncompressed.",
    ),
    _caller(
        "request_too_large",
        "Request too large: the limit is {limit} bytes.",
        status=413,
        cause="The body is longer than 'limits.body_bytes'.",
        remedy="Send less, or raise 'limits.body_bytes' on the server.",
    ),
    _caller(
        "request_timeout",
        "The body of your request did not arrive within {limit_s} seconds.",
        status=408,
        retry=Retry.BACKOFF,
        cause="The client stopped sending before the body was complete.",
        remedy="Send the request again; on a slow line raise 'limits.body_timeout_s'.",
    ),
    _caller(
        "invalid_http_request",
        "The request is not valid HTTP/1.1.",
        cause="The bytes on the connection could not be read as an HTTP request.",
        remedy="Use an HTTP client; check that the URL does not say 'https' where the server speaks plain HTTP.",
    ),
    _caller(
        "headers_too_large",
        "The headers of your request are too large: the limits are {limit} bytes and {limit_s} seconds.",
        status=431,
        cause="The request line and headers are longer than 'limits.header_bytes' or took too long to arrive.",
        remedy="Send fewer or shorter headers.",
    ),
)

_PARAMETERS = (
    _caller(
        "missing_required_parameter",
        "Missing required parameter: '{param}'.",
        param=True,
        cause="A parameter that the request needs is absent.",
        remedy="Send it.",
    ),
    _caller(
        "unknown_parameter",
        "Unknown parameter: '{param}'.",
        param=True,
        cause="The request has a field that the API does not know.",
        remedy="Remove it, or correct its name.",
    ),
    _caller(
        "unsupported_parameter",
        "Unsupported parameter: '{param}' is not supported with this model.{hint}",
        param=True,
        cause="The API knows this field, but nothing behind this endpoint can honour it.",
        remedy="Leave it out; an answer that ignored it would not be what you asked for.",
    ),
    _caller(
        "unsupported_value",
        "Unsupported value: '{param}' does not support {value} with this model.{hint}",
        param=True,
        cause="The API knows this value, but nothing behind this endpoint can honour it.",
        remedy="Use one of the values that the message names.",
    ),
    _caller(
        "invalid_type",
        "Invalid type for '{param}': expected {expected}, but got {actual} instead.",
        param=True,
        cause="A field has another JSON type than the API's.",
        remedy="Send the type that the message names.",
    ),
    _caller(
        "invalid_value",
        "Invalid value for '{param}': {reason}.",
        param=True,
        cause="A field has the right type but a value that it may not have.",
        remedy="Send one of the values that the message allows.",
    ),
    _caller(
        "string_above_max_length",
        "Invalid '{param}': string too long. Expected a string with maximum length {limit}, "
        "but got a string with length {actual} instead.",
        param=True,
        cause="A string is longer than its limit.",
        remedy="Shorten it.",
    ),
    _caller(
        "string_below_min_length",
        "Invalid '{param}': string too short. Expected a string with minimum length {limit}, "
        "but got a string with length {actual} instead.",
        param=True,
        cause="A string is shorter than its minimum, often empty.",
        remedy="Send a longer one, or leave the field out.",
    ),
    _caller(
        "array_above_max_length",
        "Invalid '{param}': array too long. Expected an array with maximum length {limit}, "
        "but got an array with length {actual} instead.",
        param=True,
        cause="An array has more elements than its limit.",
        remedy="Send fewer.",
    ),
    _caller(
        "empty_array",
        "Invalid '{param}': empty array. Expected an array with minimum length {limit}, "
        "but got an empty array instead.",
        param=True,
        cause="An array that needs an element has none.",
        remedy="Send at least one element.",
    ),
    _caller(
        "object_above_max_properties",
        "Invalid '{param}': object with too many properties. Expected an object with at most {limit} properties, "
        "but got an object with {actual} properties instead.",
        param=True,
        cause="An object has more members than its limit.",
        remedy="Send fewer.",
    ),
    _caller(
        "integer_above_max_value",
        "Invalid '{param}': integer above maximum value. Expected a value <= {limit}, but got {actual} instead.",
        param=True,
        cause="A whole number is above its maximum.",
        remedy="Send a smaller one.",
    ),
    _caller(
        "integer_below_min_value",
        "Invalid '{param}': integer below minimum value. Expected a value >= {limit}, but got {actual} instead.",
        param=True,
        cause="A whole number is below its minimum.",
        remedy="Send a greater one.",
    ),
    _caller(
        "decimal_above_max_value",
        "Invalid '{param}': decimal above maximum value. Expected a value <= {limit}, but got {actual} instead.",
        param=True,
        cause="A number is above its maximum.",
        remedy="Send a smaller one.",
    ),
    _caller(
        "decimal_below_min_value",
        "Invalid '{param}': decimal below minimum value. Expected a value >= {limit}, but got {actual} instead.",
        param=True,
        cause="A number is below its minimum.",
        remedy="Send a greater one.",
    ),
    _caller(
        "invalid_json_schema",
        "Invalid schema for '{param}': {reason}.",
        param=True,
        cause="'response_format' holds something that is not a JSON Schema, is too large, or uses a keyword that the "
        "engine cannot enforce.",
        remedy="Correct the place that 'param' names; docs/api.md lists the keywords that are enforced.",
    ),
    _caller(
        "invalid_function_parameters",
        "Invalid schema for '{param}': {reason}.",
        param=True,
        cause="A tool's 'parameters' are not a JSON Schema of an object, are too large, or use a keyword that the "
        "engine cannot enforce.",
        remedy="Correct the place that 'param' names; docs/api.md lists the keywords that are enforced.",
    ),
    _caller(
        "context_length_exceeded",
        "This model's maximum context length is {limit} tokens. However, your messages resulted in {actual} tokens. "
        "Please reduce the length of the messages.",
        param=True,
        cause="The prompt does not fit the context that one slot of the model has.",
        remedy="Send fewer or shorter messages, or serve the model with a longer 'context_tokens'.",
    ),
)

_IMAGES = (
    _caller(
        "invalid_base64",
        "Invalid base64 data in '{param}'. Expected a base64-encoded image in a data URL.",
        param=True,
        responses_code="invalid_base64_image",
        cause="The part after ';base64,' of a data URL is not base64.",
        remedy="Encode the bytes of the image in standard base64, with padding.",
    ),
    _caller(
        "invalid_image_url",
        "Invalid image URL in '{param}': {reason}.",
        param=True,
        responses_code="invalid_image_url",
        cause="An image's URL is neither a data URL nor an http(s) URL.",
        remedy="Send 'data:image/png;base64,...' or an http(s) URL.",
    ),
    _caller(
        "invalid_image_format",
        "You uploaded an unsupported image in '{param}'. Please make sure your image is of one the following formats: "
        "['png', 'jpeg', 'gif', 'webp'].",
        param=True,
        responses_code="invalid_image_format",
        cause="The media type of an image is not one of those that the API knows.",
        remedy="Convert the image.",
    ),
)

_ACCESS = (
    _caller(
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
        status=404,
        param=True,
        cause="No model of that name is served here.",
        remedy="Ask 'GET /v1/models' for the names; 'coterie serve --model' adds one.",
    ),
    _caller(
        "invalid_api_key",
        "{reason}",
        status=401,
        responses_code="server_error",
        cause="The server has API keys, and the request carries none or another one.",
        remedy="Send 'Authorization: Bearer KEY' with a key of this server.",
    ),
    _caller(
        "not_found",
        "Invalid URL ({method} {path})",
        status=404,
        cause="No route has this path.",
        remedy="Check the path; an SDK's 'base_url' must end in '/v1'.",
    ),
    _caller(
        "method_not_allowed",
        "Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)",
        status=405,
        cause="The route exists, but not for this method.",
        remedy="Use a method that the 'allow' header names.",
    ),
)

_SERVICE = (
    _service(
        "internal_error",
        "The server had an error while processing your request. Sorry about that!",
        cause="A bug in the server.",
        remedy="Look for the request's id in the server's log; it stands beside the traceback.",
    ),
    _service(
        "engine_failed",
        "The engine that was generating this answer stopped unexpectedly.",
        cause="The engine's process crashed, was killed, or reported an error of its own.",
        remedy="Send the request again: the engine is started anew. The server's log has its last words.",
    ),
    _service(
        "model_load_failed",
        "The model `{model}` could not be loaded.",
        retry=Retry.NEVER,
        cause="The model's file is missing or damaged, or there is not enough memory for it.",
        remedy="Run 'coterie doctor' on the server.",
    ),
    _service(
        "engine_timeout",
        "The engine did not answer within {limit_s} seconds.",
        status=504,
        cause="Loading the model, the first token or the next token took longer than its limit.",
        remedy="Send a shorter prompt, or raise the limits under 'engine' on the server.",
    ),
    _service(
        "server_is_overloaded",
        "The server is currently overloaded with other requests.",
        status=503,
        type_="service_unavailable_error",
        retry=Retry.AFTER,
        cause="Every slot of the model is busy and its waiting queue is full, or the wait was too long.",
        remedy="Send the request again after 'retry-after', or serve the model with more slots.",
    ),
    _service(
        "server_shutting_down",
        "The server is shutting down.",
        status=503,
        type_="service_unavailable_error",
        retry=Retry.AFTER,
        cause="The server was told to stop, and the answer was not complete within 'server.shutdown_grace_s'.",
        remedy="Send the request again once the server is back.",
    ),
    _service(
        "not_ready",
        "The server is not ready to serve requests.",
        status=503,
        type_="service_unavailable_error",
        retry=Retry.AFTER,
        cause="A model that is loaded at start is still being loaded, or the load of a model failed a moment ago.",
        remedy="Ask again a little later; if it lasts, run 'coterie doctor' on the server.",
    ),
    _service(
        "upstream_stream_interrupted",
        "The answer broke off before it was complete.",
        status=502,
        fault="upstream",
        cause="A provider ended its stream without saying that the answer was finished.",
        remedy="Send the request again.",
    ),
    _service(
        "upstream_protocol_error",
        "The provider of this model sent something that is not part of the protocol.",
        status=502,
        fault="upstream",
        cause="A provider's stream broke the rules of chat.completion.chunk.",
        remedy="Send the request again; the server's log says what was received.",
    ),
)

CATALOGUE: Mapping[str, Entry] = {entry.code: entry for entry in (*_BODY, *_PARAMETERS, *_IMAGES, *_ACCESS, *_SERVICE)}
"""Every failure there is, by code."""


def lookup(code: str) -> Entry:
    """Return the entry of ``code``; raises ``KeyError`` for a code that does not exist."""
    return CATALOGUE[code]


class ApiError(Exception):
    """A failure from the catalogue, on its way back to the client.

    ``code`` must stand in the catalogue; ``fields`` fill its message. ``retry_after_s`` is the computed delay in
    seconds, for entries that take one. ``detail`` is for the log alone. ``headers`` are extra response headers.
    """

    def __init__(
        self,
        code: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        detail: str | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> None:
        self.entry = lookup(code)
        self.param = None if param is None else clip(param)
        self.retry_after_s = retry_after_s
        self.detail = detail
        self._fields: dict[str, Any] = fields
        self.headers: Mapping[str, str] = headers or {}
        self.message = _fill(self.entry.message, {"hint": "", **fields, "param": param})
        super().__init__(self.message)

    def at(self, param: str) -> ApiError:
        """The same failure of another parameter."""
        return ApiError(
            self.code, param=param, retry_after_s=self.retry_after_s, detail=self.detail, headers=self.headers,
            **self._fields,
        )  # fmt: skip

    @property
    def code(self) -> str:
        """The catalogue's code."""
        return self.entry.code

    @property
    def status(self) -> int:
        """The HTTP status, used while no byte of the answer was sent."""
        return self.entry.status


def _fill(template: str, fields: Mapping[str, object]) -> str:
    return template.format(**{name: clip(value) for name, value in fields.items()})


def clip(value: object) -> str:
    """Return ``value`` as text of at most :data:`QUOTE_LIMIT` characters, so that no message grows with its cause."""
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= QUOTE_LIMIT else f"{text[: QUOTE_LIMIT - 3]}..."
