"""The checks of the Responses API: a good server passes, and each way to be bad is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.conform.good_server import Spoil, edited, found_by, put, replaced, spoilt

from coterie.conform.check import Skip
from coterie.conform.exchange import Reply
from coterie.conform.responses import CHECKS, calls_of, texts_of

CREATE = ("POST", "/responses")

BROKEN: list[tuple[str, set[str], Spoil]] = [
    ("responses.create", {"response-openai", "response-open"}, spoilt(*CREATE, put("tools"))),
    ("responses.create", {"response-open"}, spoilt(*CREATE, put("completed_at"))),
    ("responses.create", {"usage-sum"}, spoilt(*CREATE, put("usage", "total_tokens", value=0))),
    ("responses.create", {"usage-shape"}, spoilt(*CREATE, put("usage", value=None))),
    ("responses.create", {"status"}, spoilt(*CREATE, put("status", value="in_progress"))),
    ("responses.stream", {"done-missing"}, replaced(b"data: [DONE]\n\n", b"")),
    ("responses.stream", {"event-name"}, replaced(b"event: response.created\n", b"")),
    ("responses.limit", {"effect"}, spoilt(*CREATE, put("usage", value={
        "input_tokens": 0, "output_tokens": 99, "total_tokens": 99, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }))),
    ("responses.limit", {"status"}, spoilt(*CREATE, lambda r: r | {"status": "completed", "incomplete_details": None})),
    ("responses.stream.limit", {"incomplete-details"}, replaced(b'"reason":"max_output_tokens"', b'"reason":"long"')),
    ("responses.tool", {"effect"}, spoilt(*CREATE, put("output", value=[]))),
    ("responses.tool", {"effect"}, spoilt(*CREATE, put("output", 0, "arguments", value="Rome"))),
    ("responses.stream.tool", {"event-shape"}, replaced(b'"name":"get_weather","arguments":"{\\"city\\":\\"Rome\\"}",'
     b'"sequence', b'"arguments":"{\\"city\\":\\"Rome\\"}","sequence')),
    ("responses.schema", {"effect"}, spoilt(*CREATE, put("output", 0, "content", 0, "text", value="yes"))),
    ("responses.store", {"echo"}, spoilt(*CREATE, put("store", value=True))),
    ("responses.echo.temperature", {"echo"}, spoilt(*CREATE, put("temperature", value=1))),
    ("responses.echo.metadata", {"echo"}, spoilt(*CREATE, put("metadata", value={}))),
    ("responses.echo.tools", {"echo"}, spoilt(*CREATE, put("tools", value=[]))),
    ("responses.echo.text.format", {"echo"}, spoilt(*CREATE, lambda r: r | {"text": {}})),
    ("responses.echo.defaults", {"echo"}, spoilt(*CREATE, put("truncation", value="auto"))),
    ("responses.echo.safety_identifier", {"echo"}, spoilt(*CREATE, put("safety_identifier"))),
    ("responses.input.loop", {"item-shape"}, spoilt(*CREATE, put("output", 0, "id"))),
    ("responses.input_tokens", {"effect"}, spoilt("POST", "/responses/input_tokens", put("input_tokens", value=3))),
    ("responses.input_tokens", {"shape"}, spoilt("POST", "/responses/input_tokens", put("object"))),
    ("responses.request-id", {"request-id"}, lambda reply: replace(reply, headers={})),
    ("responses.compact", {"shape"}, spoilt("POST", "/responses/compact", put("output", value={}))),
]  # fmt: skip


@pytest.mark.parametrize("name", [check.id for check in CHECKS])
async def test_a_good_server_passes(name: str) -> None:
    assert await found_by(name) == set()


@pytest.mark.parametrize(("name", "rules", "spoil"), BROKEN)
async def test_a_bad_server_is_told(name: str, rules: set[str], spoil: Spoil) -> None:
    assert await found_by(name, spoil) == rules


async def test_a_parameter_that_is_refused_by_name_is_skipped() -> None:
    def refuse(reply: Reply) -> Reply:
        if b'"temperature"' not in reply.sent:
            return reply
        error = {"message": "Not here.", "type": "invalid_request_error", "param": "temperature", "code": None}
        return edited(Reply(reply.method, reply.path, b"", 400, reply.headers, reply.body), lambda _: {"error": error})

    with pytest.raises(Skip, match=r"Not here\."):
        await found_by("responses.echo.temperature", refuse)


async def test_without_responses_one_check_fails_and_the_others_are_skipped() -> None:
    def gone(reply: Reply) -> Reply:
        return Reply(reply.method, reply.path, reply.sent, 404, reply.headers, b"{}")

    assert await found_by("responses.create", gone) == {"success"}
    with pytest.raises(Skip, match="POST /responses"):
        await found_by("responses.stream", gone)


def test_what_a_response_says() -> None:
    parts = [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
    response = {"output": [{"type": "message", "content": parts}, {"type": "function_call", "name": "f"}, "odd"]}
    assert texts_of(response) == "a"
    assert calls_of(response) == [{"type": "function_call", "name": "f"}]
    assert texts_of(None) == texts_of({}) == ""
    assert calls_of({"output": 7}) == []
