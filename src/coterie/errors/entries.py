"""Every failure there is, as data. The rules that entries keep stand in :mod:`coterie.errors.catalogue`."""

from __future__ import annotations

from typing import Final

from coterie.errors.entries_service import SERVICE, UPSTREAM
from coterie.errors.entries_stored import STORED
from coterie.errors.entry import Retry
from coterie.errors.entry_kinds import caller

_BODY = (
    caller(
        "invalid_json",
        "We could not parse the JSON body of your request: {reason}.",
        cause="The body is not one JSON object: broken syntax, NaN or an infinite number, a lone surrogate, "
        "a key given twice, or nesting beyond the limit.",
        remedy="Send one JSON object, as an OpenAI SDK or a JSON library writes it.",
    ),
    caller(
        "unsupported_media_type",
        "Unsupported media type: '{media_type}'. Send 'application/json', without a content encoding.",
        status=415,
        cause="The content-type header is not application/json, or the body is compressed.",
        remedy="Set 'content-type: application/json' and send the body uncompressed.",
    ),
    caller(
        "request_too_large",
        "Request too large: the limit is {limit} bytes.",
        status=413,
        cause="The body is longer than 'limits.body_bytes'.",
        remedy="Send less, or raise 'limits.body_bytes' on the server.",
    ),
    caller(
        "request_timeout",
        "The body of your request did not arrive within {limit_s} seconds.",
        status=408,
        retry=Retry.BACKOFF,
        cause="The client stopped sending before the body was complete.",
        remedy="Send the request again; on a slow line raise 'limits.body_timeout_s'.",
    ),
    caller(
        "invalid_http_request",
        "The request is not valid HTTP/1.1.",
        cause="The bytes on the connection could not be read as an HTTP request.",
        remedy="Use an HTTP client; check that the URL does not say 'https' where the server speaks plain HTTP.",
    ),
    caller(
        "headers_too_large",
        "The headers of your request are too large: the limits are {limit} bytes and {limit_s} seconds.",
        status=431,
        cause="The request line and headers are longer than 'limits.header_bytes' or took too long to arrive.",
        remedy="Send fewer or shorter headers.",
    ),
)

_PARAMETERS = (
    caller(
        "missing_required_parameter",
        "Missing required parameter: '{param}'.",
        param=True,
        cause="A parameter that the request needs is absent.",
        remedy="Send it.",
    ),
    caller(
        "unknown_parameter",
        "Unknown parameter: '{param}'.",
        param=True,
        cause="The request has a field that the API does not know.",
        remedy="Remove it, or correct its name.",
    ),
    caller(
        "unsupported_parameter",
        "Unsupported parameter: '{param}' is not supported with this model.{hint}",
        param=True,
        cause="The API knows this field, but nothing behind this endpoint can honour it.",
        remedy="Leave it out; an answer that ignored it would not be what you asked for.",
    ),
    caller(
        "unsupported_value",
        "Unsupported value: '{param}' does not support {value} with this model.{hint}",
        param=True,
        cause="The API knows this value, but nothing behind this endpoint can honour it.",
        remedy="Use one of the values that the message names.",
    ),
    caller(
        "invalid_type",
        "Invalid type for '{param}': expected {expected}, but got {actual} instead.",
        param=True,
        cause="A field has another JSON type than the API's.",
        remedy="Send the type that the message names.",
    ),
    caller(
        "invalid_value",
        "Invalid value for '{param}': {reason}.",
        param=True,
        cause="A field has the right type but a value that it may not have.",
        remedy="Send one of the values that the message allows.",
    ),
    caller(
        "string_above_max_length",
        "Invalid '{param}': string too long. Expected a string with maximum length {limit}, "
        "but got a string with length {actual} instead.",
        param=True,
        cause="A string is longer than its limit.",
        remedy="Shorten it.",
    ),
    caller(
        "string_below_min_length",
        "Invalid '{param}': string too short. Expected a string with minimum length {limit}, "
        "but got a string with length {actual} instead.",
        param=True,
        cause="A string is shorter than its minimum, often empty.",
        remedy="Send a longer one, or leave the field out.",
    ),
    caller(
        "array_above_max_length",
        "Invalid '{param}': array too long. Expected an array with maximum length {limit}, "
        "but got an array with length {actual} instead.",
        param=True,
        cause="An array has more elements than its limit.",
        remedy="Send fewer.",
    ),
    caller(
        "empty_array",
        "Invalid '{param}': empty array. Expected an array with minimum length {limit}, "
        "but got an empty array instead.",
        param=True,
        cause="An array that needs an element has none.",
        remedy="Send at least one element.",
    ),
    caller(
        "object_above_max_properties",
        "Invalid '{param}': object with too many properties. Expected an object with at most {limit} properties, "
        "but got an object with {actual} properties instead.",
        param=True,
        cause="An object has more members than its limit.",
        remedy="Send fewer.",
    ),
    caller(
        "integer_above_max_value",
        "Invalid '{param}': integer above maximum value. Expected a value <= {limit}, but got {actual} instead.",
        param=True,
        cause="A whole number is above its maximum.",
        remedy="Send a smaller one.",
    ),
    caller(
        "integer_below_min_value",
        "Invalid '{param}': integer below minimum value. Expected a value >= {limit}, but got {actual} instead.",
        param=True,
        cause="A whole number is below its minimum.",
        remedy="Send a greater one.",
    ),
    caller(
        "decimal_above_max_value",
        "Invalid '{param}': decimal above maximum value. Expected a value <= {limit}, but got {actual} instead.",
        param=True,
        cause="A number is above its maximum.",
        remedy="Send a smaller one.",
    ),
    caller(
        "decimal_below_min_value",
        "Invalid '{param}': decimal below minimum value. Expected a value >= {limit}, but got {actual} instead.",
        param=True,
        cause="A number is below its minimum.",
        remedy="Send a greater one.",
    ),
    caller(
        "invalid_json_schema",
        "Invalid schema for '{param}': {reason}.",
        param=True,
        cause="'response_format' holds something that is not a JSON Schema, is too large, or uses a keyword that the "
        "engine cannot enforce.",
        remedy="Correct the place that 'param' names; docs/api.md lists the keywords that are enforced.",
    ),
    caller(
        "invalid_function_parameters",
        "Invalid schema for '{param}': {reason}.",
        param=True,
        cause="A tool's 'parameters' are not a JSON Schema of an object, are too large, or use a keyword that the "
        "engine cannot enforce.",
        remedy="Correct the place that 'param' names; docs/api.md lists the keywords that are enforced.",
    ),
    caller(
        "context_length_exceeded",
        "This model's maximum context length is {limit} tokens. However, your messages resulted in {actual} tokens. "
        "Please reduce the length of the messages.",
        param=True,
        cause="The prompt does not fit the context that one slot of the model has.",
        remedy="Send fewer or shorter messages, or serve the model with a longer 'context_tokens'.",
    ),
)

_IMAGES = (
    caller(
        "invalid_base64",
        "Invalid base64 data in '{param}'. Expected a base64-encoded image in a data URL.",
        param=True,
        responses_code="invalid_base64_image",
        cause="The part after ';base64,' of a data URL is not base64.",
        remedy="Encode the bytes of the image in standard base64, with padding.",
    ),
    caller(
        "invalid_base64_image",
        "Invalid base64 data in '{param}'. Expected a base64-encoded image in a data URL.",
        param=True,
        responses_code="invalid_base64_image",
        cause="What chat completions call 'invalid_base64', in the words of the Responses API.",
        remedy="Encode the bytes of the image in standard base64, with padding.",
    ),
    caller(
        "invalid_image_url",
        "Invalid image URL in '{param}': {reason}.",
        param=True,
        responses_code="invalid_image_url",
        cause="An image's URL is neither a data URL nor an http(s) URL.",
        remedy="Send 'data:image/png;base64,...' or an http(s) URL.",
    ),
    caller(
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
    caller(
        "invalid_request_error",
        "The request was refused by the provider of this model.",
        cause="A provider refused the request as invalid, for a reason that has no code of its own; the message is "
        "the provider's, cleaned.",
        remedy="Change what the message names.",
    ),
    caller(
        "content_policy_violation",
        "Your request was rejected as a result of the safety system of this model's provider.",
        cause="A provider's content filter refused the request.",
        remedy="Change the content of the request.",
    ),
    caller(
        "invalid_prompt",
        "The provider of this model cannot use the prompt.",
        cause="A provider refused the prompt as a whole; the message is the provider's, cleaned.",
        remedy="Change the prompt.",
    ),
    caller(
        "bio_policy",
        "Your request was rejected as a result of the safety system of this model's provider.",
        responses_code="bio_policy",
        cause="A provider's rules about biology refused the request.",
        remedy="Change the content of the request.",
    ),
    caller(
        "data_residency_mismatch",
        "The provider of this model does not process this data in this region.",
        responses_code="data_residency_mismatch",
        cause="A provider keeps data in a region, and the request would leave it.",
        remedy="Ask the operator of this server for a provider in your region.",
    ),
    *(
        caller(code, message, responses_code=code, cause=cause, remedy="Send another image.")
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
    caller(
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
        status=404,
        param=True,
        cause="No model of that name is served here.",
        remedy="Ask 'GET /v1/models' for the names; 'coterie serve --model' adds one.",
    ),
    caller(
        "invalid_api_key",
        "{reason}",
        status=401,
        responses_code="server_error",
        cause="The server has API keys, and the request carries none or another one.",
        remedy="Send 'Authorization: Bearer KEY' with a key of this server.",
    ),
    caller(
        "not_found",
        "Invalid URL ({method} {path})",
        status=404,
        cause="No route has this path.",
        remedy="Check the path; an SDK's 'base_url' must end in '/v1'.",
    ),
    caller(
        "method_not_allowed",
        "Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)",
        status=405,
        cause="The route exists, but not for this method.",
        remedy="Use a method that the 'allow' header names.",
    ),
)

ENTRIES: Final = (*_BODY, *_PARAMETERS, *_IMAGES, *RELAYED, *_ACCESS, *STORED, *SERVICE, *UPSTREAM)
"""In the order in which the documentation tells them."""
