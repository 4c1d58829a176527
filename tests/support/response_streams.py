"""Responses streams for tests: what goes into the machine, and what a client reads from what comes out."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import strategies as st
from tests.support.chunks import USAGE, any_chunks, chunk, fragment, logprob, usage

from coterie.dialects.responses_stream import ResponseStream
from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.wire.lingua import Chunk

HEAD: dict[str, Any] = {
    "id": "resp_1", "created_at": 100, "model": "m", "instructions": None, "max_output_tokens": None,
    "max_tool_calls": None, "metadata": {}, "parallel_tool_calls": True, "previous_response_id": None,
    "prompt_cache_key": None, "reasoning": None, "safety_identifier": None, "service_tier": "default", "store": True,
    "background": False, "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
    "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "presence_penalty": 0.0, "frequency_penalty": 0.0,
}  # fmt: skip
"""A response before its answer."""


def new(**options: Any) -> ResponseStream:
    """A machine whose clock stands at 107 seconds and a half."""
    return ResponseStream(HEAD, clock=lambda: 107.5, **options)


def run(
    machine: ResponseStream, chunks: list[Chunk], ending: ApiError | str | None = None, *, short: bool = False
) -> list[bytes]:
    """All events, for a caller who keeps the rule: what raises is what the stream fails with.

    ``ending`` comes after the chunks: a failure, "cancel", or the end of the answer. ``short``: text takes the short
    way where it may.
    """
    events: list[bytes] = []
    try:
        for each in chunks:
            text = plain_text(each) if short else None
            event = None if text is None else machine.text(0, text, each.get("extra"))
            events += machine.feed(each) if event is None else [event]
        if isinstance(ending, ApiError):
            raise ending
        events += machine.cancel() if ending == "cancel" else machine.end()
    except ApiError as error:
        events += machine.fail(error, "req_1")
    return events


def plain_text(each: Chunk) -> str | None:
    """The text of a chunk that says nothing else, but for what passes through."""
    match each:
        case {"choices": [{"index": 0, "delta": {"content": str(text), **others}} as choice]}:
            is_alone = not others and not choice.get("finish_reason") and not choice.get("logprobs")
            beside = each.keys() - {"choices", "extra"} | choice.keys() - {
                "index",
                "delta",
                "finish_reason",
                "logprobs",
            }
            return text if text and is_alone and not beside and _can_be_written(text) else None
    return None


def _can_be_written(text: str) -> bool:
    return text == text.encode(errors="replace").decode()


def said(event: bytes) -> dict[str, Any]:
    """What an event says, after looking at how it is written."""
    name, data, *rest = event.split(b"\n")
    assert rest == [b"", b""]
    found: dict[str, Any] = orjson.loads(data.removeprefix(b"data: "))
    assert name == b"event: " + found["type"].encode()
    return found


def read(events: list[bytes]) -> list[dict[str, Any]]:
    """What a stream that has ended says."""
    assert events[-1] == DONE
    return [said(event) for event in events[:-1]]


def kinds(events: list[bytes]) -> list[str]:
    """The types of some events, without the "response." that most begin with."""
    return [said(event)["type"].removeprefix("response.") for event in events if event != DONE]


_words = st.sampled_from(["a", "b c", "ü\n", "\U0001f600", '"}\r\n\ndata: x', "%d%b"])
_citations = st.sampled_from(
    [
        {"type": "url_citation", "url_citation": {"url": "https://a.b/%d", "title": "T", "start_index": 1}},
        {"type": "url_citation", "url": "u"},
        {"type": "url_citation", "url_citation": {"url": "\ud800"}},
        {"type": "x"},
        7,
    ]
)
_entries = st.builds(logprob, _words, bytes=st.sampled_from([None, [1], ["x"]]), top_logprobs=st.just([logprob("t")]))
_details = st.sampled_from(["summary", "text", "encrypted"])
_thoughts = st.builds(lambda kind, text: {"type": f"reasoning.{kind}", kind: text}, _details, _words)
_deltas = st.one_of(
    st.builds(lambda thoughts: {"reasoning_details": thoughts}, st.lists(_thoughts, max_size=3)),
    st.builds(lambda text: {"content": text}, _words),
    st.builds(lambda text: {"content": text}, _words),
    st.builds(lambda text: {"reasoning_content": text}, _words),
    st.builds(lambda text: {"reasoning": text}, _words),
    st.builds(lambda text: {"refusal": text}, _words),
    st.builds(lambda notes: {"annotations": notes}, st.lists(_citations, max_size=2)),
    st.fixed_dictionaries(
        {},
        optional={
            "content": _words,
            "reasoning": _words,
            "refusal": _words,
            "annotations": st.lists(_citations),
            "reasoning_details": st.lists(_thoughts, max_size=2),
        },
    ),
)


@st.composite
def answers(draw: st.DrawFn) -> list[Chunk]:
    """The chunks of a good answer of everything, mixed: calls go on among each other and between text."""
    chunks: list[Chunk] = []
    calls = 0
    for step in draw(st.lists(st.sampled_from(["say", "say", "call", "go on"]), max_size=10)):
        if step == "say":
            logprobs = draw(st.none() | st.builds(lambda entries: {"content": entries}, st.lists(_entries, max_size=2)))
            chunks.append(chunk(draw(_deltas), logprobs=logprobs))
        elif step == "call":
            chunks.append(chunk(fragment(calls, f"call_{calls}", "look", draw(_words | st.just("")))))
            calls += 1
        elif calls:
            chunks.append(chunk(fragment(draw(st.integers(0, calls - 1)), arguments=draw(_words))))
        if draw(st.booleans()) and chunks:
            chunks[-1]["usage_so_far"] = {**USAGE, "completion_tokens": len(chunks), "total_tokens": 5 + len(chunks)}
    reasons = ["stop", "length", "content_filter", *(["tool_calls"] if calls else [])]
    tier = draw(st.sampled_from([{}, {"extra": {"service_tier": "flex", "system_fingerprint": "f"}}]))
    chunks += [chunk(draw(st.sampled_from([{}, {"content": "end"}])), draw(st.sampled_from(reasons))) | tier]
    counted = draw(st.sampled_from([usage(), {"choices": [], "usage": None}]))
    return [*chunks, counted]


any_answers = st.one_of(
    answers(),
    st.lists(any_chunks, max_size=10),
    st.builds(
        lambda good, bad, place: [*good[:place], *bad, *good[place:]],
        answers(),
        st.lists(any_chunks, max_size=2),
        st.integers(0, 12),
    ),
)
"""Good answers, broken ones, and good ones with something broken in them."""

endings = st.sampled_from(
    [None, None, "cancel", ApiError("engine_failed"), ApiError("server_shutting_down", retry_after_s=2)]
)
extras = st.sampled_from([None, {"service_tier": "flex"}, {"system_fingerprint": "f"}])
"""What passes through beside text."""

options = st.fixed_dictionaries(
    {},
    optional={
        "logprobs": st.booleans(),
        "error_event": st.booleans(),
        "queued": st.booleans(),
        "seal": st.just(lambda text: f"<{text}>"),
        "reasoning_events": st.sampled_from(["openai", "open_responses"]),
    },
)
"""Options of the machine."""
