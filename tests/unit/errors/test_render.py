"""How a failure looks on the wire: exact bodies and headers, by table."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from coterie.errors import CATALOGUE, ApiError
from coterie.errors.render import DONE, chat_frames, error_object, http_body, http_headers

JSON = {"content-type": "application/json", "x-request-id": "req_1"}

ANSWERS: dict[str, tuple[ApiError, str, dict[str, str]]] = {
    "the caller's, with a param": (
        ApiError("missing_required_parameter", param="messages[0].content"),
        '{"error":{"message":"Missing required parameter: \'messages[0].content\'.","type":"invalid_request_error",'
        '"param":"messages[0].content","code":"missing_required_parameter"}}',
        JSON,
    ),
    "the caller's, without one": (
        ApiError("not_found", method="GET", path="/v2"),
        '{"error":{"message":"Invalid URL (GET /v2)","type":"invalid_request_error","param":null,"code":"not_found"}}',
        JSON,
    ),
    "a rejected key": (
        ApiError("invalid_api_key", reason="Incorrect API key provided."),
        '{"error":{"message":"Incorrect API key provided.","type":"invalid_request_error","param":null,'
        '"code":"invalid_api_key"}}',
        {**JSON, "www-authenticate": "Bearer"},
    ),
    "extra headers": (
        ApiError("method_not_allowed", method="PUT", path="/v1/models", headers={"allow": "GET"}),
        '{"error":{"message":"Not allowed to PUT on /v1/models. (HINT: Perhaps you meant to use a different HTTP '
        'method?)","type":"invalid_request_error","param":null,"code":"method_not_allowed"}}',
        {**JSON, "allow": "GET"},
    ),
    "ours": (
        ApiError("internal_error", detail="KeyError: 'x'"),
        '{"error":{"message":"The server had an error while processing your request. Sorry about that! '
        '(request id: req_1)","type":"server_error","param":null,"code":"internal_error"}}',
        JSON,
    ),
    "an upstream's": (
        ApiError("upstream_protocol_error", detail="http://10.0.0.1"),
        '{"error":{"message":"The provider of this model sent something that is not part of the protocol. '
        '(request id: req_1)","type":"server_error","param":null,"code":"upstream_protocol_error"}}',
        JSON,
    ),
    "for ever": (
        ApiError("model_load_failed", model="m"),
        '{"error":{"message":"The model `m` could not be loaded. (request id: req_1)","type":"server_error",'
        '"param":null,"code":"model_load_failed"}}',
        {**JSON, "x-should-retry": "false"},
    ),
    "with a delay": (
        ApiError("server_is_overloaded", retry_after_s=1.2),
        '{"error":{"message":"The server is currently overloaded with other requests. Please try again in 2s. '
        '(request id: req_1)","type":"service_unavailable_error","param":null,"code":"server_is_overloaded"}}',
        {**JSON, "retry-after": "2", "retry-after-ms": "1200"},
    ),
}


@pytest.mark.parametrize(("error", "body", "headers"), ANSWERS.values(), ids=ANSWERS.keys())
def test_body_and_headers(error: ApiError, body: str, headers: dict[str, str]) -> None:
    assert http_body(error, "req_1").decode() == body
    assert http_headers(error, "req_1") == headers
    assert orjson.loads(body)["error"] == error_object(error, "req_1")


@pytest.mark.parametrize("code", CATALOGUE)
def test_all_four_fields_always_and_the_code_a_string(code: str) -> None:
    fields: dict[str, Any] = dict.fromkeys(
        (
            "reason",
            "media_type",
            "limit",
            "limit_s",
            "value",
            "expected",
            "actual",
            "model",
            "endpoint",
            "method",
            "id",
        ),
        "x",
    )
    error = ApiError(code, param="p" if CATALOGUE[code].takes_param else None, **fields, path="/")
    answer: dict[str, Any] = orjson.loads(http_body(error, "req_1"))
    assert list(answer) == ["error"]
    assert list(answer["error"]) == ["message", "type", "param", "code"]
    assert answer["error"]["code"] == code
    assert (answer["error"]["param"] is not None) == CATALOGUE[code].takes_param
    assert ("req_1" in answer["error"]["message"]) == (CATALOGUE[code].fault != "caller")
    assert http_headers(error, "req_1")["x-request-id"] == "req_1"


@pytest.mark.parametrize(
    ("delay_s", "seconds", "milliseconds", "told_not_to"),
    [
        (0.0, "1", "1", False),
        (0.0001, "1", "1", False),
        (0.3, "1", "300", False),
        (1.0, "1", "1000", False),
        (1.0001, "2", "1001", False),
        (59.5, "60", "59500", False),
        (60.0, "60", "60000", False),
        (60.5, "61", "60500", True),
        (3600.0, "3600", "3600000", True),
    ],
)
def test_delays_are_rounded_up_and_long_ones_stop_the_sdks(
    delay_s: float, seconds: str, milliseconds: str, told_not_to: bool
) -> None:
    error = ApiError("server_is_overloaded", retry_after_s=delay_s)
    headers = http_headers(error, "r")
    assert (headers["retry-after"], headers["retry-after-ms"]) == (seconds, milliseconds)
    assert headers.get("x-should-retry") == ("false" if told_not_to else None)
    assert f"Please try again in {seconds}s." in http_body(error, "r").decode()


def test_without_a_computed_delay_there_is_none() -> None:
    headers = http_headers(ApiError("server_is_overloaded"), "r")
    assert not {"retry-after", "retry-after-ms", "x-should-retry"} & headers.keys()


def test_the_end_of_a_failed_chat_stream() -> None:
    error = ApiError("engine_failed")
    assert chat_frames(error, "req_1") == (
        b'data: {"error":{"message":"The engine that was generating this answer stopped unexpectedly. '
        b'(request id: req_1)","type":"server_error","param":null,"code":"engine_failed"}}\n\n',
        b"data: [DONE]\n\n",
    )
    assert DONE == b"data: [DONE]\n\n"
