"""Streams of a real server as bytes, judged."""

from __future__ import annotations

from typing import Any

from tests.support.failures import CHAT
from tests.support.models import chat
from tests.support.server import RawStream, Server

from coterie.dialects.chat_validator import judge


def judged_stream(server: Server, include_usage: bool = False, **changes: Any) -> bytes:
    """The bytes of a whole chat stream, which keep every rule of the protocol."""
    if include_usage:
        changes["stream_options"] = {"include_usage": True}
    with RawStream(server, CHAT, chat(**changes)) as stream:
        assert stream.status == 200
        body = stream.rest()
    assert judge(body, include_usage=include_usage, choices=changes.get("n", 1)) == []
    return body
