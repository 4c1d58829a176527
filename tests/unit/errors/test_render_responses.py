"""Failures in the words of the Responses API."""

from __future__ import annotations

from typing import Any

import pytest

from coterie.errors import CATALOGUE, ApiError, Entry
from coterie.errors.render_responses import RESPONSE_ERROR_CODES, error_event, response_error, socket_error

ID = "req_1"


def filled(entry: Entry) -> ApiError:
    names = ("reason", "media_type", "limit", "limit_s", "hint", "value", "expected", "actual", "model", "endpoint")
    fields: dict[str, Any] = dict.fromkeys((*names, "method", "path", "id"), "x")
    return ApiError(entry.code, param="input" if entry.takes_param else None, **fields)


def test_the_codes_are_the_twenty_of_the_specification() -> None:
    assert len(RESPONSE_ERROR_CODES) == 20


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE.keys())
def test_every_failure_has_a_code_of_the_specification_everywhere(entry: Entry) -> None:
    error = filled(entry)
    event = error_event(error, ID)
    assert event.keys() == {"code", "message", "param", "error"}
    assert event["error"].keys() == {"type", "code", "message", "param"}
    assert {**event["error"], "type": ""} == {**{k: event[k] for k in ("code", "message", "param")}, "type": ""}
    assert response_error(error, ID) == {"code": event["code"], "message": event["message"]}
    assert event["code"] in RESPONSE_ERROR_CODES


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("invalid_base64", "invalid_base64_image"),
        ("image_too_large", "image_too_large"),
        ("image_content_policy_violation", "image_content_policy_violation"),
        ("rate_limit_exceeded", "rate_limit_exceeded"),
        ("context_length_exceeded", "invalid_prompt"),
        ("upstream_auth_failed", "server_error"),
        ("server_is_overloaded", "server_error"),
        ("internal_error", "server_error"),
    ],
)
def test_codes_are_mapped(code: str, expected: str) -> None:
    assert response_error(filled(CATALOGUE[code]), ID)["code"] == expected


def test_only_a_failure_that_is_not_the_callers_names_the_request() -> None:
    assert ID in response_error(ApiError("internal_error"), ID)["message"]
    assert ID not in response_error(ApiError("missing_required_parameter", param="model"), ID)["message"]


def test_a_failure_on_a_socket_keeps_the_catalogues_code_and_status() -> None:
    error = ApiError("previous_response_not_found", param="previous_response_id", id="resp_1")
    assert socket_error(error, ID) == {
        "type": "error",
        "status": 404,
        "error": {
            "message": "Previous response with id 'resp_1' not found.",
            "type": "invalid_request_error",
            "param": "previous_response_id",
            "code": "previous_response_not_found",
        },
    }
