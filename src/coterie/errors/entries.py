"""Every failure there is, as data. The rules that entries keep stand in :mod:`coterie.errors.catalogue`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coterie.errors.entry import Entry, Retry

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
    retry: Retry = Retry.BACKOFF, elsewhere: bool = True,
) -> Entry:  # fmt: skip
    return Entry(
        code=code,
        type=type_,
        status=status,
        fault="service",
        retry=retry,
        message=message,
        cause=cause,
        remedy=remedy,
        elsewhere=elsewhere,
        anthropic_type=_ANTHROPIC_BY_STATUS.get(status, "api_error"),
    )


def _upstream(
    code: str, message: str, *, cause: str, remedy: str, status: int = 502, type_: str = "server_error",
    retry: Retry = Retry.BACKOFF, responses_code: str = "server_error",
) -> Entry:  # fmt: skip
    return Entry(
        code=code,
        type=type_,
        status=status,
        fault="upstream",
        retry=retry,
        message=message,
        cause=cause,
        remedy=remedy,
        elsewhere=True,
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

RELAYED: Final = (
    _caller(
        "invalid_request_error",
        "The request was refused by the provider of this model.",
        cause="A provider refused the request as invalid, for a reason that has no code of its own; the message is "
        "the provider's, cleaned.",
        remedy="Change what the message names.",
    ),
    _caller(
        "content_policy_violation",
        "Your request was rejected as a result of the safety system of this model's provider.",
        cause="A provider's content filter refused the request.",
        remedy="Change the content of the request.",
    ),
    *(
        _caller(code, message, responses_code=code, cause=cause, remedy="Send another image.")
        for code, message, cause in (
            ("invalid_image", "The image could not be used.", "An image is broken, or not one."),
            ("invalid_image_mode", "The colour mode of the image is not supported.", "An image's mode is unusual."),
            ("image_parse_error", "You uploaded an unsupported image.", "An image's bytes could not be decoded."),
            ("image_too_large", "The image is too large.", "An image has more pixels than the model takes."),
            ("image_too_small", "The image is too small.", "An image has fewer pixels than the model needs."),
            ("image_file_too_large", "The file of the image is too large.", "An image has more bytes than its limit."),
            ("empty_image_file", "The file of the image is empty.", "An image has no bytes."),
            (
                "image_file_not_found",
                "The file of the image was not found.",
                "An image's file id or URL leads nowhere.",
            ),
            (
                "failed_to_download_image",
                "The image could not be downloaded from its URL.",
                "The provider could not fetch the image.",
            ),
            (
                "unsupported_image_media_type",
                "The media type of the image is not supported.",
                "The image's media type is not one that the provider reads.",
            ),
            (
                "image_content_policy_violation",
                "The image was rejected as a result of the safety system of this model's provider.",
                "A provider's content filter refused an image.",
            ),
        )
    ),
)
"""What only a provider can say of a request. The message is the provider's where it can be shown."""

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
        elsewhere=False,
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
        elsewhere=False,
        cause="The server was told to stop, and the answer was not complete within 'server.shutdown_grace_s'.",
        remedy="Send the request again once the server is back.",
    ),
    _service(
        "not_ready",
        "The server is not ready to serve requests.",
        status=503,
        type_="service_unavailable_error",
        retry=Retry.AFTER,
        elsewhere=False,
        cause="A model that is loaded at start is still being loaded, or the load of a model failed a moment ago.",
        remedy="Ask again a little later; if it lasts, run 'coterie doctor' on the server.",
    ),
)

_UPSTREAM = (
    _upstream(
        "rate_limit_exceeded",
        "Rate limit reached for requests to this model.",
        status=429,
        type_="rate_limit_error",
        retry=Retry.AFTER,
        responses_code="rate_limit_exceeded",
        cause="Every provider of the model that could be asked limits how often, and the limit is reached.",
        remedy="Send the request again after 'retry-after'; add a provider, or ask the provider for a higher limit.",
    ),
    _upstream(
        "upstream_auth_failed",
        "The provider of this model refused this server's credentials.",
        retry=Retry.NEVER,
        cause="A provider answered 401 or 403: the key that is configured for it is missing, wrong or not allowed.",
        remedy="Correct the provider's 'api_key_env' or 'api_key' on the server. The caller's key is not concerned.",
    ),
    _upstream(
        "upstream_model_unavailable",
        "The provider of this model does not have it at present.",
        retry=Retry.NEVER,
        cause="A provider does not know the model that the configuration sends to it.",
        remedy="Correct the provider's 'models' on the server, or load the model there.",
    ),
    _upstream(
        "upstream_quota_exhausted",
        "The account of this server at the provider of this model is exhausted.",
        status=503,
        retry=Retry.NEVER,
        cause="A provider answered that the account which its key belongs to has no credit or quota left.",
        remedy="Top the account up, or add another provider of the model.",
    ),
    _upstream(
        "upstream_error",
        "The provider of this model had an error while processing the request.",
        cause="A provider answered with an error of its own (a status of 500 or more, or one that makes no sense).",
        remedy="Send the request again; the server's log says what the provider answered.",
    ),
    _upstream(
        "upstream_unreachable",
        "The provider of this model could not be reached.",
        cause="The connection to a provider was refused or broken before it answered, its name does not resolve, or "
        "its certificate is not valid.",
        remedy="Send the request again; 'coterie providers' shows which one is down.",
    ),
    _upstream(
        "upstream_connect_timeout",
        "The provider of this model could not be connected to in time.",
        status=504,
        cause="A provider did not take the connection within its 'connect_timeout_s'.",
        remedy="Send the request again; 'coterie providers' shows which one is down.",
    ),
    _upstream(
        "upstream_timeout",
        "The provider of this model did not answer in time.{hint}",
        status=504,
        cause="A provider's 'first_token_timeout_s' or 'idle_timeout_s' passed: it went silent before the first token, "
        "or between two.",
        remedy="Send the request again, or raise the provider's deadlines on the server.",
    ),
    _upstream(
        "upstream_total_timeout",
        "The provider of this model did not finish its answer within {limit_s} seconds.",
        status=504,
        cause="The whole answer took longer than the provider's 'total_timeout_s'.",
        remedy="Ask for a shorter answer ('max_completion_tokens'), or raise 'total_timeout_s' on the server.",
    ),
    _upstream(
        "upstream_empty_response",
        "The provider of this model ended its answer without saying anything.",
        cause="A provider's stream ended at once, without an error, a token or a finish reason.",
        remedy="Send the request again; the server's log says which provider it was.",
    ),
    _upstream(
        "upstream_stream_interrupted",
        "The answer broke off before it was complete.",
        cause="A provider ended its stream without saying that the answer was finished.",
        remedy="Send the request again.",
    ),
    _upstream(
        "upstream_protocol_error",
        "The provider of this model sent something that is not part of the protocol.",
        cause="A provider's stream broke the rules of chat.completion.chunk.",
        remedy="Send the request again; the server's log says what was received.",
    ),
)

ENTRIES: Final = (*_BODY, *_PARAMETERS, *_IMAGES, *RELAYED, *_ACCESS, *_SERVICE, *_UPSTREAM)
"""In the order in which the documentation tells them."""
