from __future__ import annotations

import json
from typing import Any

import pytest

from coterie.testbed import bodies
from coterie.testbed.bodies import Failure, failure_bytes, with_secrets

FAILURES: dict[str, Failure] = {
    **{name: value for name, value in vars(bodies).items() if isinstance(value, Failure)},
    **{f"overflow-{style}": failure for style, failure in bodies.OVERFLOWS.items()},
    **{f"no-credit-{style}": failure for style, failure in bodies.NO_CREDIT.items()},
    "rate-limit": bodies.rate_limit(2),
    "unknown-model": bodies.unknown_model("m"),
    "bad-request": bodies.bad_request("no", "messages"),
}
TELLTALES = ["/srv/zq7/", "sk-zq7", "gpu-7.zq7.internal", "org-zq7", "Traceback (most recent call last)"]


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_a_whole_answer(name: str) -> None:
    head, _, body = failure_bytes(FAILURES[name]).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert status.startswith(f"HTTP/1.1 {FAILURES[name].status} ")
    assert int(headers["content-length"]) == len(body) > 0
    if headers["content-type"] == "application/json":
        assert isinstance(json.loads(body), dict)
    else:
        assert b"<html>" in body


@pytest.mark.parametrize("name", FAILURES)
def test_a_marker_is_in_every_secret(name: str) -> None:
    plain, leaky = failure_bytes(FAILURES[name]).decode(), failure_bytes(FAILURES[name], "zq7").decode()
    assert "zq7" not in plain
    assert [telltale for telltale in TELLTALES if telltale not in leaky] == []


@pytest.mark.parametrize("style", bodies.ERRORS)
def test_errors_in_an_answer_leak_too(style: str) -> None:
    error: Any = bodies.ERRORS[style]
    assert with_secrets(error, "") is error
    leaky = json.dumps(with_secrets(error, "zq7"))
    assert [telltale for telltale in TELLTALES if telltale not in leaky] == []
    assert "zq7" not in json.dumps(error)


def test_the_delay_of_a_rate_limit() -> None:
    failure = bodies.rate_limit(0.5)
    assert failure.headers["retry-after"] == "0.5"
    assert "try again in 0.5s" in failure.body["error"]["message"]
