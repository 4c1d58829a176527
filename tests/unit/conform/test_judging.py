"""The rules for answers outside of streams."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from coterie.conform.check import Skip
from coterie.conform.exchange import Reply
from coterie.conform.judging import RULES, Wanted, contains, declined, find, has_request_id, need, ok, refused

HEADERS = {"content-type": "application/json; charset=utf-8", "x-request-id": "req_1"}
ERROR: dict[str, Any] = {"message": "No.", "type": "invalid_request_error", "param": "input[0].role", "code": "bad"}
WANTED = Wanted((400,), ("input",), ("bad", "worse"))


def reply(value: Any = None, **fields: Any) -> Reply:
    body = value if isinstance(value, bytes) else orjson.dumps(value if value is not None else {"error": ERROR})
    return replace(Reply("POST", "/responses", b"{}", 400, HEADERS, body), **fields)


def error(**fields: Any) -> bytes:
    merged = {name: value for name, value in {**ERROR, **fields}.items() if value is not ...}
    return orjson.dumps({"error": merged})


GOOD: dict[str, tuple[Reply, Wanted]] = {
    "all that is wanted": (reply(), WANTED),
    "nothing named": (reply(error(param=None, code=None)), Wanted((400, 422))),
    "an error in words": (reply(error(message="No such file. Errors are told.")), WANTED),
    "more keys": (reply({"error": {**ERROR, "details": []}, "detail": "x"}), WANTED),
    "a 405 with its methods": (reply(status=405, headers={**HEADERS, "allow": "POST"}), Wanted((405,))),
}
BAD: dict[str, tuple[str, Reply]] = {
    "success": ("refused", reply({}, status=200)),
    "another status": ("status", reply(status=500)),
    "a redirect": ("status", reply(status=307)),
    "text": ("json", reply(b"Bad Request", headers={**HEADERS, "content-type": "text/plain"})),
    "an array": ("json", reply([])),
    "flat": ("error-shape", reply(ERROR)),
    "detail": ("error-shape", reply({"detail": "Not Found"})),
    "a string": ("error-shape", reply({"error": "No."})),
    "no param": ("error-shape", reply(error(param=...))),
    "a number for a code": ("error-shape", reply(error(code=400))),
    "no message": ("error-shape", reply(error(message=""))),
    "a list for a param": ("error-shape", reply(error(param=["input"]))),
    "another param": ("error-param", reply(error(param="model"))),
    "another code": ("error-code", reply(error(code="good"))),
    "a traceback": ("no-leak", reply(error(message="Traceback (most recent call last): ..."))),
    "a file": ("no-leak", reply(error(message="/usr/lib/python3/x.py: no"))),
    "an exception": ("no-leak", reply(error(message="gateway.BadRequestError: no"))),
    "an object": ("no-leak", reply(error(message="<starlette.requests.Request object at 0x7f5b>"))),
    "a page": ("no-leak", reply(error(message="<html><body>Bad Gateway"))),
    "no Allow": ("allow", reply(status=405)),
    "no answer": ("answered", reply(b"", status=0, broken="refused")),
    "half an answer": ("answered", reply(b"", broken="cut")),
}


@pytest.mark.parametrize(("answer", "wanted"), GOOD.values(), ids=GOOD.keys())
def test_an_error_that_is_as_it_should_be(answer: Reply, wanted: Wanted) -> None:
    assert list(refused(answer, wanted)) == []


@pytest.mark.parametrize(("rule", "answer"), BAD.values(), ids=BAD.keys())
def test_an_error_that_breaks_a_rule(rule: str, answer: Reply) -> None:
    failures = list(refused(answer, WANTED))
    assert rule in {failure.rule for failure in failures}
    assert all(failure.words == RULES.words[failure.rule] for failure in failures)
    assert failures[0].asked == "POST /responses {}"


def test_a_failure_shows_what_came() -> None:
    [failure] = refused(reply(status=500), Wanted((400,)))
    assert failure.found == "the status is 500, not 400"
    assert failure.received.startswith('HTTP 500 application/json; charset=utf-8\n{"error":{"message":"No."')
    assert len(next(iter(refused(reply(b"a" * 100_000), WANTED))).received) < 1200


@pytest.mark.parametrize(
    ("answer", "rules"),
    [
        (reply({}, status=200), set()),
        (reply({}, status=404), {"success"}),
        (reply([], status=200), {"json"}),
        (reply({}, status=200, headers={"content-type": "text/html"}), {"json"}),
        (reply({}, status=200, broken="cut"), {"answered"}),
    ],
)
def test_a_success(answer: Reply, rules: set[str]) -> None:
    assert {failure.rule for failure in ok(answer)} == rules


def test_a_request_id() -> None:
    assert list(has_request_id(reply())) == []
    assert [failure.rule for failure in has_request_id(reply(headers={"x-request-id": ""}))] == ["request-id"]
    assert [failure.rule for failure in has_request_id(reply(headers={}, broken="cut"))] == ["answered"]


def test_what_is_needed_is_there_or_the_check_is_skipped() -> None:
    good = reply({}, status=200)
    assert need(good, what="it") is good
    with pytest.raises(Skip, match="it needs it, which got status 400"):
        need(reply(), what="it")
    with pytest.raises(Skip, match="cut"):
        need(replace(good, broken="cut"), what="it")


def test_a_refusal_by_name_names_it_in_its_param_or_message() -> None:
    assert declined(reply(), ["input"])
    assert not declined(reply(), ["tools"])
    assert declined(reply(error(param=None, message="tools are not for this model", code=7)), ["tools"])
    assert not declined(reply(b"no"), ["input"])
    assert not declined(reply(status=500), ["input"])


@pytest.mark.parametrize(
    ("value", "part", "holds"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([{"a": 1, "b": 2}], [{"a": 1}], True),
        ([1, 2], [1], False),
        (1.0, 1, True),
        (1, True, False),
        (None, {}, False),
        ("a", "a", True),
    ],
)
def test_containing(value: Any, part: Any, holds: bool) -> None:
    assert contains(value, part) is holds


def test_finding() -> None:
    value = {"a": [{"b": 1}]}
    assert find(value, "a", 0, "b") == find(value, "a", -1, "b") == 1
    assert find(value, "a", 1) is find(value, "a", "b") is find(value, 0) is find(value, "x", "y") is None
