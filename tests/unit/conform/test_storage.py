"""The checks of storage: a good server passes, and each way to be bad is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.conform.good_server import Spoil, found_by, put, replaced, spoilt

from coterie.conform.check import Skip
from coterie.conform.exchange import Reply
from coterie.conform.storage import CHECKS

ONE = ("GET", r"/responses/\w+")
ITEMS = ("GET", r"/conversations/\w+/items\?.*")


def found_again(method: str, path: str) -> Spoil:
    """What was deleted is still answered."""
    return _status(method, path, lambda reply: reply.status == 404, 200)


def lost(method: str, path: str, status: int = 404) -> Spoil:
    return _status(method, path, lambda reply: True, status)


def _status(method: str, path: str, holds: Callable[[Reply], bool], status: int) -> Spoil:
    def spoil(reply: Reply) -> Reply:
        asked = reply.method == method and re.fullmatch(path, reply.path) and holds(reply)
        return replace(reply, status=status) if asked else reply

    return spoil


def resumed(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda reply: replace(reply, body=change(reply.body)) if "starting_after" in reply.path else reply


def typed(method: str, content_type: str) -> Spoil:
    def spoil(reply: Reply) -> Reply:
        headers = {**reply.headers, "content-type": content_type}
        return replace(reply, headers=headers) if reply.method == method else reply

    return spoil


def not_text(value: Any) -> None:
    value["data"][0]["content"][0]["text"] = "Other"


BROKEN: list[tuple[str, set[str], Spoil]] = [
    ("storage.get", {"equal"}, spoilt(*ONE, put("metadata", value={}))),
    ("storage.get", {"equal"}, spoilt(*ONE, put("output", 0, "content", 0, "text", value="Other"))),
    ("storage.get", {"status", "response-open"}, spoilt(*ONE, put("status"))),
    ("storage.input_items", {"equal"}, spoilt("GET", r"/responses/\w+/input_items", not_text)),
    ("storage.input_items", {"shape"}, spoilt("GET", r"/responses/\w+/input_items", put("has_more"))),
    ("storage.stream", {"equal"}, spoilt(*ONE, put("usage", value=None))),
    ("storage.store.false", {"refused"}, found_again(*ONE)),
    ("storage.delete", {"gone"}, found_again(*ONE)),
    ("storage.delete", {"success"}, lost("DELETE", r"/responses/\w+", 202)),
    ("storage.memory", {"echo"}, spoilt("POST", "/responses", put("previous_response_id", value=None))),
    ("storage.memory", {"effect"}, spoilt("POST", "/responses", put("usage", value={
        "input_tokens": 5, "output_tokens": 1, "total_tokens": 6, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }))),
    ("storage.background", {"echo"}, spoilt("POST", "/responses", put("background", value=False))),
    ("storage.background", {"status"}, spoilt(*ONE, put("status", value="cancelled"))),
    ("storage.cancel", {"status", "response-openai"}, spoilt(
        "POST", r"/responses/\w+/cancel", put("status", value="paused"))),
    ("storage.cancel", {"status"}, spoilt(*ONE, put("status", value="completed"))),
    ("storage.cancel.stored", {"refused"}, lost("POST", r"/responses/\w+/cancel", 200)),
    ("storage.resume", {"equal"}, resumed(lambda body: body[body.index(b"\n\n") + 2 :])),
    ("storage.resume", {"stream"}, typed("GET", "application/json")),
    ("storage.resume.cut", {"sequence"}, resumed(lambda body: body.replace(b'_number":4', b'_number":0', 1))),
    ("storage.resume.cut", {"done-missing"}, resumed(lambda body: body.removesuffix(b"data: [DONE]\n\n"))),
    ("storage.conversation", {"echo"}, spoilt("POST", "/conversations", put("metadata", value={}))),
    ("storage.conversation", {"shape"}, spoilt("POST", "/conversations", put("object"))),
    ("storage.conversation.update", {"equal"}, spoilt("GET", r"/conversations/\w+", put("metadata", value={}))),
    ("storage.conversation.items", {"effect"}, spoilt("GET", r".*limit=1", put("has_more", value=False))),
    ("storage.conversation.items", {"equal"}, spoilt("GET", r".*limit=100", lambda value: value["data"].reverse())),
    ("storage.conversation.items", {"refused"}, found_again("GET", r"/conversations/\w+/items/\w+")),
    ("storage.conversation.turn", {"effect"}, spoilt(*ITEMS, lambda value: value["data"].pop())),
    ("storage.conversation.turn", {"echo"}, spoilt("POST", "/responses", lambda r: r | {"conversation": None})),
    ("storage.conversation.delete", {"shape"}, spoilt("DELETE", r"/conversations/\w+", put("deleted"))),
    ("storage.conversation.delete", {"refused"}, found_again("GET", r"/conversations/\w+")),
]  # fmt: skip


@pytest.mark.parametrize("name", [check.id for check in CHECKS])
async def test_a_good_server_passes(name: str) -> None:
    assert await found_by(name) == set()


@pytest.mark.parametrize(("name", "rules", "spoil"), BROKEN)
async def test_a_bad_server_is_told(name: str, rules: set[str], spoil: Spoil) -> None:
    assert await found_by(name, spoil) == rules


@pytest.mark.parametrize("name", [check.id for check in CHECKS if check.id.startswith("storage.conversation.")])
async def test_without_conversations_what_needs_them_is_skipped(name: str) -> None:
    with pytest.raises(Skip, match="POST /conversations"):
        await found_by(name, lost("POST", "/conversations"))


async def test_a_response_that_was_over_is_not_cancelled() -> None:
    with pytest.raises(Skip, match="over before"):
        await found_by("storage.cancel", lost("POST", r"/responses/\w+/cancel", 400))


async def test_a_broken_stream_is_not_resumed() -> None:
    assert await found_by("storage.resume", replaced(b"data: [DONE]\n\n", b"")) == {"done-missing"}
