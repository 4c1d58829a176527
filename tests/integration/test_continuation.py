"""Answers that break off and go on with the real engine."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.models import QUESTION, long_chat, model_file
from tests.support.server import RawStream, Server, serving

from coterie.dialects.chat_validator import judge
from coterie.testbed.upstream import FaultyUpstream

CHAT = "/v1/chat/completions"

CONFIG = """
[engine]
context_tokens = 2048
threads = 1

[[models]]
name = "m"
path = "{model}"
"""

BEFORE_IT = """
[[providers]]
name = "first"
base_url = "{url}"
priority = -1
models = ["m"]
"""


def _chunks(body: bytes) -> list[dict[str, Any]]:
    assert judge(body, include_usage=True, choices=1) == []
    return [json.loads(event.removeprefix(b"data: ")) for event in body.split(b"\n\n")[:-2]]


def _text(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def test_an_engine_that_is_killed_in_the_middle_of_an_answer(new_server: Callable[..., Server]) -> None:
    server = new_server(CONFIG)
    body = {**long_chat("m", max_tokens=150), "stream_options": {"include_usage": True}}
    with RawStream(server, CHAT, body) as stream:
        assert stream.events(20)
        os.kill(server.engine("m")["pid"], signal.SIGKILL)
        chunks = _chunks(stream.rest())
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == 150
    assert server.engine("m")["loads"] == 2
    metrics = server.ask("GET", "/metrics").body.decode()
    assert 'coterie_continuations_total{model="m"} 1.0' in metrics


def test_another_server_s_answer_goes_on_here(tmp_path: Path) -> None:
    with FaultyUpstream(models={"m": "cut@5"}) as first:
        config = CONFIG.format(model=model_file()) + BEFORE_IT.format(url=first.base_url)
        with serving(tmp_path, config) as server:
            body = {
                "model": "m", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12, "temperature": 0,
                "stream_options": {"include_usage": True},
            }  # fmt: skip
            with RawStream(server, CHAT, body) as stream:
                chunks = _chunks(stream.rest())
            assert _text(chunks).startswith(" w0 w1 w2 w3 w4")
            assert len(_text(chunks)) > len(" w0 w1 w2 w3 w4")
            assert chunks[-1]["usage"]["completion_tokens"] <= 12

            # What only the other server honours goes there alone, and is not continued here.
            with RawStream(server, CHAT, {**body, "repetition_penalty": 1.1}) as stream:
                assert json.loads(stream.rest().split(b"\n\n")[-3].removeprefix(b"data: "))["error"]
