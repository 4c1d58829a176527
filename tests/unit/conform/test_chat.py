"""The checks of chat completions: a good server passes, and each way to be bad is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.conform.good_server import Spoil, edited, found_by, put, replaced, spoilt

from coterie.conform.chat import CHECKS
from coterie.conform.check import Skip
from coterie.conform.exchange import Reply

CHAT = ("POST", "/chat/completions")
MESSAGE = ("choices", 0, "message")

BROKEN: list[tuple[str, str, Spoil]] = [
    ("chat.models", "shape", spoilt("GET", "/models", put("object", value="models"))),
    ("chat.models", "shape", spoilt("GET", "/models", put("data", 0, "created"))),
    ("chat.model", "shape", spoilt("GET", "/models/m", put("owned_by"))),
    ("chat.plain", "shape", spoilt(*CHAT, put("id"))),
    ("chat.plain", "shape", spoilt(*CHAT, put("choices", value=[]))),
    ("chat.plain", "shape", spoilt(*CHAT, put("choices", 0, "finish_reason", value=None))),
    ("chat.plain", "shape", spoilt(*CHAT, put(*MESSAGE, "content", value=7))),
    ("chat.plain", "shape", spoilt(*CHAT, put("usage", "total_tokens"))),
    ("chat.n", "effect", spoilt(*CHAT, put("choices", 1))),
    ("chat.limit", "effect", spoilt(*CHAT, put("usage", "completion_tokens", value=40))),
    ("chat.stop", "effect", spoilt(*CHAT, put(*MESSAGE, "content", value="one two"))),
    ("chat.tool", "effect", spoilt(*CHAT, put(*MESSAGE, "tool_calls"))),
    ("chat.tool", "effect", spoilt(*CHAT, put(*MESSAGE, "tool_calls", 0, "function", "arguments", value={}))),
    ("chat.schema", "effect", spoilt(*CHAT, put(*MESSAGE, "content", value="yes"))),
    ("chat.stream", "done-missing", replaced(b"data: [DONE]\n\n", b"")),
    ("chat.stream.usage", "usage-sum", replaced(b'"total_tokens":6', b'"total_tokens":7')),
    ("chat.stream.n", "choice-index", replaced(b'"index":1', b'"index":2')),
    ("chat.stream.tool", "tool-call-head", replaced(b'"name":"get_weather",', b"")),
    ("chat.request-id", "request-id", lambda reply: replace(reply, headers={"content-type": "application/json"})),
    ("chat.stream.limit", "finish-reason", replaced(b'"length"', b'"error"')),
]


@pytest.mark.parametrize("name", [check.id for check in CHECKS])
async def test_a_good_server_passes(name: str) -> None:
    assert await found_by(name) == set()


@pytest.mark.parametrize(("name", "rule", "spoil"), BROKEN)
async def test_a_bad_server_is_told(name: str, rule: str, spoil: Spoil) -> None:
    assert await found_by(name, spoil) == {rule}


async def test_what_is_refused_by_name_is_skipped() -> None:
    def refuse(reply: Reply) -> Reply:
        error = {"message": "n must be 1", "type": "invalid_request_error", "param": "n", "code": None}
        return edited(Reply(reply.method, reply.path, b"", 400, reply.headers, reply.body), lambda _: {"error": error})

    with pytest.raises(Skip, match="n must be 1"):
        await found_by("chat.n", refuse)
    assert await found_by("chat.plain", refuse) == {"success"}
