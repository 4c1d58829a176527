"""The errors that are provoked: each case passes for the error it wants, and for no other answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest
from tests.unit.conform.good_server import HEADERS, error_body

from coterie.conform.check import Check, Site, Skip
from coterie.conform.errors import CHECKS
from coterie.conform.errors_cases import CASES, Case
from coterie.conform.exchange import Client, Reply, Target

BY_ID = {check.id: check for check in CHECKS}


class Answering(Site):
    """A server that answers everything alike, save the look whether a route is there."""

    def __init__(self, status: int, body: bytes, key: str | None = None, route: int = 400) -> None:
        super().__init__(Client(Target("http://127.0.0.1:1", "m", key), timeout_s=1))
        self.answer = Reply("", "", b"", status, {**HEADERS, "allow": "GET"}, body)
        self.route = Reply("", "", b"", route, HEADERS, error_body(route, None, "x"))
        self.asked: list[tuple[str, str, Any, Mapping[str, Any]]] = []

    async def ask(self, method: str, path: str, body: bytes | Mapping[str, Any] | None = None, **how: Any) -> Reply:
        self.asked.append((method, path, body, how))
        return self.route if body == {} else self.answer


def check_of(case: Case) -> Check:
    return BY_ID[f"errors.{case.id}"]


def test_names_are_used_once() -> None:
    assert len(BY_ID) == len(CHECKS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_a_case(case: Case) -> None:
    status = min(case.wanted.statuses)
    param = case.wanted.params[0] if case.wanted.params else None
    code = case.wanted.codes[0] if case.wanted.codes else "x"
    site = Answering(status, error_body(status, param, code))
    assert list(await check_of(case).run(site)) == []
    assert site.asked[-1][:2] == (case.method, case.path)
    rules = {failure.rule for failure in await check_of(case).run(Answering(500, error_body(500, param, code)))}
    assert rules == {"status"}
    if not case.optional:
        assert {f.rule for f in await check_of(case).run(Answering(200, b"{}"))} == {"refused"}
    if case.wanted.params:
        assert {f.rule for f in await check_of(case).run(Answering(status, error_body(status, "other", code)))} == {
            "error-param"
        }


@pytest.mark.parametrize("case", [case for case in CASES if case.optional], ids=lambda case: case.id)
async def test_what_may_as_well_be_read(case: Case) -> None:
    with pytest.raises(Skip, match="reads it all the same"):
        await check_of(case).run(Answering(200, b"{}"))


async def test_a_route_that_is_not_there_is_no_error_to_provoke() -> None:
    with pytest.raises(Skip, match="no POST"):
        await BY_ID["errors.responses.input.type"].run(Answering(404, b"", route=404))


def test_what_is_sent() -> None:
    by_id = {case.id: case for case in CASES}
    assert by_id["model.missing-chat-completions"].body("m") == {
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 8,
    }
    streamed = by_id["responses.input.type.streamed"].body("m")
    assert streamed == {"model": "m", "input": 7, "max_output_tokens": 16, "store": False, "stream": True}
    assert by_id["json.empty-responses"].body("m") == b""
    assert by_id["path.get"].body("m") is None
    assert orjson.dumps(by_id["responses.messages"].body("m"))


async def test_a_request_id() -> None:
    check = BY_ID["errors.request-id"]
    site = Answering(400, error_body(400, "messages", "x"))
    assert list(await check.run(site)) == []
    site.answer = replace(site.answer, headers={})
    assert [failure.rule for failure in await check.run(site)] == ["request-id"]


async def test_keys() -> None:
    with pytest.raises(Skip, match="no key"):
        await BY_ID["errors.key.wrong"].run(Answering(401, b""))
    site = Answering(401, error_body(401, None, "invalid_api_key"), key="secret")
    for name in ("missing", "wrong"):
        assert list(await BY_ID[f"errors.key.{name}"].run(site)) == []
    (*_, missing), (*_, wrong) = site.asked
    assert missing == {"headers": {}, "keyed": False}
    assert wrong == {"headers": {"authorization": "Bearer sk-wrong-key"}, "keyed": False}
    assert {f.rule for f in await BY_ID["errors.key.wrong"].run(Answering(200, b"{}", key="secret"))} == {"refused"}
