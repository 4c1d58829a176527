"""Entries by whose fault they are: what those of one kind have in common."""

from __future__ import annotations

from collections.abc import Mapping

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


def caller(
    code: str, message: str, *, cause: str, remedy: str, status: int = 400, param: bool = False,
    retry: Retry = Retry.NEVER, responses_code: str = "invalid_prompt",
) -> Entry:  # fmt: skip
    """The caller's fault: what was sent cannot be served, and would not be the next time."""
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


def service(
    code: str, message: str, *, cause: str, remedy: str, status: int = 500, type_: str = "server_error",
    retry: Retry = Retry.BACKOFF, elsewhere: bool = True,
) -> Entry:  # fmt: skip
    """Ours: the same request may well succeed, here or elsewhere."""
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


def upstream(
    code: str, message: str, *, cause: str, remedy: str, status: int = 502, type_: str = "server_error",
    retry: Retry = Retry.BACKOFF, responses_code: str = "server_error",
) -> Entry:  # fmt: skip
    """A provider's: another one may do better."""
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
