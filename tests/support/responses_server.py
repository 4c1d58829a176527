"""A server for tests of the Responses API: the default model, models that follow a script, and models that fail."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.models import model_file
from tests.support.scripted_upstream import Script, ScriptedUpstream, Step, call, delta, end, words
from tests.support.server import Server, serving

from coterie.testbed.upstream import FaultyUpstream

WORDS = 20
"""Words of the answer of "gated"."""

HELD_AT = 8
"""Words before its gate."""

TEMPERATURE = "21 degrees and sunny"
"""What the tool of "weather" is to give."""

FAULTS = {
    "cut": "cut@20",
    "stalled": "stall@20",
    "rate-limited": "rate-limit@1",
    "unavailable": "unavailable",
    "filtered": "filter",
    "overflowing": "overflow",
    "half-filtered": "filter-finish@5",
}
"""Models that fail, and how."""

_CONFIG = """
[dispatch]
attempts = 1
open_s = 0.01
open_max_s = 0.01

[engine]
slots = 4
context_tokens = 384
threads = 1

[[models]]
name = "smollm2-135m-instruct"
path = "{model}"

[[providers]]
name = "scripted"
base_url = "{scripted}"
models = {scripts}

[[providers]]
name = "faulty"
base_url = "{faulty}"
first_token_timeout_s = 0.5
idle_timeout_s = 0.5
models = {faults}
"""


@dataclass(frozen=True)
class Responsive:
    """A running server and the model server whose answers are scripted."""

    server: Server
    upstream: ScriptedUpstream


@contextlib.contextmanager
def responsive(folder: Path) -> Iterator[Responsive]:
    """Serve."""
    with ScriptedUpstream(SCRIPTS) as scripted, FaultyUpstream(models=FAULTS) as faulty:
        config = _CONFIG.format(
            model=model_file(),
            scripted=scripted.base_url,
            scripts=json.dumps(list(SCRIPTS)),
            faulty=faulty.base_url,
            faults=json.dumps(list(FAULTS)),
        )
        with serving(folder, config) as server:
            yield Responsive(server, scripted)


def text_of(message: dict[str, Any]) -> str:
    """The text of a chat message."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


Steps = Iterable[Step]


def _mirror(request: dict[str, Any], upstream: ScriptedUpstream) -> Steps:
    """Says what it was asked, as JSON: the roles and the texts."""
    yield delta(content=json.dumps([[message["role"], text_of(message)] for message in request["messages"]]))
    yield from end()


def _weather(request: dict[str, Any], upstream: ScriptedUpstream) -> Steps:
    """Calls its tool, then says what the tool gave."""
    outputs = [message for message in request["messages"] if message["role"] == "tool"]
    if outputs:
        yield delta(content=f"In Paris: {text_of(outputs[-1])}.")
        yield from end()
    else:
        yield delta(content="Let me look.")
        yield from call(request["tools"][0]["function"]["name"], {"city": "Paris"})
        yield from end("tool_calls")


def _two_calls(request: dict[str, Any], upstream: ScriptedUpstream) -> Steps:
    """Calls its tool twice at once."""
    name = request["tools"][0]["function"]["name"]
    yield from call(name, {"city": "Paris"})
    yield from call(name, {"city": "Oslo"}, index=1, call_id="call_2")
    yield from end("tool_calls")


def _thinker(request: dict[str, Any], upstream: ScriptedUpstream) -> Steps:
    yield from (delta(reasoning_content=thought) for thought in ("Two and two", " is four."))
    yield delta(content="4")
    yield from end()


def _refuser(request: dict[str, Any], upstream: ScriptedUpstream) -> Steps:
    yield from (delta(refusal=text) for text in ("I cannot", " help with that."))
    yield from end()


def _structured(request: dict[str, Any], upstream: ScriptedUpstream) -> Steps:
    yield from (delta(content=text) for text in ('{"name": "Par', 'is", "inhabitants": 2100000}'))
    yield from end()


def _gated(request: dict[str, Any], upstream: ScriptedUpstream) -> Steps:
    """Says some words, waits at the gate that the last message names, and says the rest."""
    yield from words(0, HELD_AT)
    yield upstream.gate(text_of(request["messages"][-1]))
    yield from words(HELD_AT, WORDS)
    yield from end()


SCRIPTS: dict[str, Script] = {
    "mirror": _mirror,
    "weather": _weather,
    "two-calls": _two_calls,
    "thinker": _thinker,
    "refuser": _refuser,
    "structured": _structured,
    "gated": _gated,
}
"""Models that follow a script, by name."""
