"""The judge of Responses streams: good ones pass, each rule has streams that break it, and nothing makes it raise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.dialects.chat_validator import MAX_REPORTS_PER_RULE
from coterie.dialects.responses_item_rules import MAX_ITEMS, MAX_PARTS
from coterie.dialects.responses_validator import RULES, ResponsesStreamValidator, Violation, judge

DONE = b"data: [DONE]\n\n"
USAGE = {
    "input_tokens": 5, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 7,
}  # fmt: skip
RESPONSE: dict[str, Any] = {
    "id": "resp_1", "object": "response", "created_at": 1, "completed_at": None, "status": "in_progress",
    "incomplete_details": None, "model": "m", "previous_response_id": None, "instructions": None, "output": [],
    "error": None, "tools": [], "tool_choice": "auto", "truncation": "disabled", "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}}, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0,
    "top_logprobs": 0, "temperature": 1.0, "reasoning": None, "usage": None, "max_output_tokens": None,
    "max_tool_calls": None, "store": True, "background": False, "service_tier": "default", "metadata": {},
    "safety_identifier": None, "prompt_cache_key": None,
}  # fmt: skip
ERROR = {"message": "The server had an error.", "type": "server_error", "param": None, "code": "server_error"}
FAILURE = {"code": "server_error", "message": "The server had an error."}

Event = dict[str, Any]


def event(kind: str, **fields: Any) -> Event:
    return {"type": kind, **fields}


def lifecycle(name: str, status: str | None = None, **fields: Any) -> Event:
    status = status or {"created": "in_progress"}.get(name, name)
    return event(f"response.{name}", response={**RESPONSE, "status": status, **fields})


def begin() -> list[Event]:
    return [lifecycle("created"), lifecycle("in_progress")]


def part(text: str = "", **fields: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": [], **fields}


def message(*parts: Any, status: str = "completed", name: str = "msg_1") -> dict[str, Any]:
    return {"type": "message", "id": name, "status": status, "role": "assistant", "content": list(parts)}


def call(arguments: str = "", status: str = "completed", **fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": arguments,
            "status": status, **fields}  # fmt: skip


def at(index: int = 0, item_id: str = "msg_1", **fields: Any) -> dict[str, Any]:
    return {"item_id": item_id, "output_index": index, **fields}


def added(item: Any, index: Any = 0) -> Event:
    return event("response.output_item.added", output_index=index, item=item)


def done(item: Any, index: Any = 0) -> Event:
    return event("response.output_item.done", output_index=index, item=item)


def part_event(step: str, value: Any, number: Any = 0, **place: Any) -> Event:
    return event(f"response.content_part.{step}", **{**at(), "content_index": number, "part": value, **place})


def delta(text: Any, number: Any = 0, **place: Any) -> Event:
    return event(
        "response.output_text.delta", **{**at(), "content_index": number, "delta": text, "logprobs": [], **place}
    )


def text_done(text: Any, number: Any = 0, **place: Any) -> Event:
    return event(
        "response.output_text.done", **{**at(), "content_index": number, "text": text, "logprobs": [], **place}
    )


def say(text: str = "Hi") -> list[Event]:
    """A message from beginning to end."""
    return [
        added(message(status="in_progress")), part_event("added", part()), *map(delta, text), text_done(text),
        part_event("done", part(text)), done(message(part(text))),
    ]  # fmt: skip


def arguments(step: str, value: str, index: int = 0) -> Event:
    fields = {"delta": value} if step == "delta" else {"name": "look", "arguments": value}
    return event(f"response.function_call_arguments.{step}", **at(index, "fc_1"), **fields)


def use(index: int = 0) -> list[Event]:
    """A function call from beginning to end."""
    return [
        added(call(status="in_progress"), index), arguments("delta", "{", index), arguments("delta", "}", index),
        arguments("done", "{}", index), done(call("{}"), index),
    ]  # fmt: skip


def completed(*output: Any, **fields: Any) -> Event:
    return lifecycle("completed", **{"output": list(output), "usage": USAGE, "completed_at": 2, **fields})


def failed(*output: Any, **fields: Any) -> Event:
    return lifecycle("failed", output=list(output), **{"error": FAILURE, **fields})


def incomplete(*output: Any, **fields: Any) -> Event:
    return lifecycle(
        "incomplete", output=list(output), **{"incomplete_details": {"reason": "max_output_tokens"}, **fields}
    )


def error(**fields: Any) -> Event:
    return event("error", **fields)


HYBRID = error(code="server_error", message=ERROR["message"], param=None, error=ERROR)


def answer(*middle: Event, text: str = "Hi") -> list[Event]:
    """A whole answer with something between the message and the end."""
    return [*begin(), *say(text), *middle, completed(message(part(text)))]


def frames(events: list[Event]) -> bytes:
    numbered = [{**value, "sequence_number": value.get("sequence_number", n)} for n, value in enumerate(events)]
    return b"".join(b"event: %s\ndata: %s\n\n" % (str(v["type"]).encode(), orjson.dumps(v)) for v in numbered)


def stream(*events: Event) -> bytes:
    return frames(list(events)) + DONE


def changed(events: list[Event], position: int, **fields: Any) -> bytes:
    """The stream with fields of one event changed, or left out where they are ``...``."""
    value = {name: field for name, field in {**events[position], **fields}.items() if field is not ...}
    return stream(*events[:position], value, *events[position + 1 :])


def without(events: list[Event], position: int) -> bytes:
    return stream(*events[:position], *events[position + 1 :])


REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "content": []}
THOUGHT = {"type": "reasoning_text", "text": "Hm"}


def think(name: str) -> list[Event]:
    """Reasoning from beginning to end, under either specification's names."""
    place = at(0, "rs_1", content_index=0)
    return [
        added(REASONING), event("response.content_part.added", **place, part={**THOUGHT, "text": ""}),
        event(f"response.{name}.delta", **place, delta="Hm"), event(f"response.{name}.done", **place, text="Hm"),
        event("response.content_part.done", **place, part=THOUGHT), done({**REASONING, "content": [THOUGHT]}),
    ]  # fmt: skip


def summarise() -> list[Event]:
    place, summary = at(0, "rs_1", summary_index=0), {"type": "summary_text", "text": "Hm"}
    return [
        added(REASONING), event("response.reasoning_summary_part.added", **place, part={**summary, "text": ""}),
        event("response.reasoning_summary_text.delta", **place, delta="Hm"),
        event("response.reasoning_summary_text.done", **place, text="Hm"),
        event("response.reasoning_summary_part.done", **place, part=summary), done({**REASONING, "summary": [summary]}),
    ]  # fmt: skip


def refuse() -> list[Event]:
    place = at(content_index=1)
    refusal = {"type": "refusal", "refusal": "No."}
    both = message(part("Hi"), refusal)
    return [
        *begin(), *say()[:-1], event("response.content_part.added", **place, part={**refusal, "refusal": ""}),
        event("response.refusal.delta", **place, delta="No."), event("response.refusal.done", **place, refusal="No."),
        event("response.content_part.done", **place, part=refusal), done(both), completed(both),
    ]  # fmt: skip


ANNOTATION = {"type": "url_citation", "start_index": 0, "end_index": 1, "url": "u", "title": "t"}
CUT = message(part("Hi"), status="incomplete")
HALF = [*begin(), *say()[:4]]
"""A stream whose message is still to be closed."""
CLOSE = [text_done("Hi"), part_event("done", part("Hi")), done(CUT)]

GOOD: dict[str, bytes] = {
    "text": stream(*answer()),
    "no text": stream(*answer(text="")),
    "nothing at all": stream(*begin(), completed()),
    "queued first": stream(lifecycle("created", "queued"), lifecycle("queued"), *answer()[1:]),
    "comments": b": hi\n\n" + stream(*answer()).replace(b"\n\nevent", b"\n\n: c\n\nevent"),
    "no space after the colon": stream(*answer()).replace(b"event: ", b"event:").replace(b"data: ", b"data:"),
    "a call": stream(*begin(), *use(), completed(call("{}"))),
    "a call whose arguments come at once": stream(
        *begin(), added(call("{}", "in_progress")), arguments("done", "{}"), done(call("{}")), completed(call("{}"))
    ),
    "text and a call": stream(*begin(), *say(), *use(1), completed(message(part("Hi")), call("{}"))),
    "two items at a time": stream(
        *begin(), *say()[:3], *use(1)[:2], *say()[3:], *use(1)[2:], completed(message(part("Hi")), call("{}"))
    ),
    "reasoning as OpenAI names it": stream(
        *begin(), *think("reasoning_text"), completed({**REASONING, "content": [THOUGHT]})
    ),
    "reasoning as Open Responses names it": stream(
        *begin(), *think("reasoning"), completed({**REASONING, "content": [THOUGHT]})
    ),
    "a summary": stream(
        *begin(), *summarise(), completed({**REASONING, "summary": [{"type": "summary_text", "text": "Hm"}]})
    ),
    "a refusal beside text": stream(*refuse()),
    "an annotation": stream(
        *begin(), *say()[:4],
        event(
            "response.output_text.annotation.added", **at(content_index=0), annotation_index=0, annotation=ANNOTATION
        ),
        text_done("Hi"), part_event("done", part("Hi", annotations=[ANNOTATION])),
        done(message(part("Hi", annotations=[ANNOTATION]))), completed(message(part("Hi", annotations=[ANNOTATION]))),
    ),
    "a tool of the server's": stream(
        *begin(), added({"type": "web_search_call", "id": "ws_1", "status": "in_progress"}),
        event("response.web_search_call.searching", **at(0, "ws_1")),
        done({"type": "web_search_call", "id": "ws_1", "status": "completed"}),
        completed({"type": "web_search_call", "id": "ws_1", "status": "completed"}),
    ),
    "an extension": stream(*answer(event("acme:trace", value=1))),
    "unknown fields": changed(answer(), 4, obfuscation="xyz"),
    "cut at the limit": stream(*HALF, *CLOSE, incomplete(CUT)),
    "filtered": stream(*HALF, *CLOSE, incomplete(CUT, incomplete_details={"reason": "content_filter"})),
    "cancelled": stream(*HALF, *CLOSE, incomplete(CUT, status="cancelled", incomplete_details=None)),
    "cancelled before it began": stream(
        lifecycle("created", "queued"), lifecycle("queued"), incomplete(status="cancelled", incomplete_details=None)
    ),
    "failed at once": stream(lifecycle("created"), failed()),
    "failed in the middle": stream(*HALF, *CLOSE, HYBRID, failed(CUT)),
    "a call cut short": stream(
        *begin(), *use()[:2], done(call("{", "incomplete")), HYBRID, failed(call("{", "incomplete"))
    ),
    "a flat error": stream(*begin(), error(code=None, message="It failed.", param=None), failed()),
    "a nested error": stream(*begin(), error(error=ERROR), failed()),
    "an error that says more": stream(*begin(), error(error={**ERROR, "headers": {}}), failed()),
}  # fmt: skip


@dataclass(frozen=True)
class Broken:
    rule: str
    body: bytes
    also: frozenset[str] = frozenset()
    """What necessarily breaks with it."""


def broken(rule: str, *body: bytes, also: str = "") -> Broken:
    return Broken(rule, b"".join(body), frozenset(also.split()))


def response_without(name: str) -> bytes:
    events = answer()
    response = {key: value for key, value in events[-1]["response"].items() if key != name}
    return changed(events, -1 % len(events), response=response)


def final(**fields: Any) -> bytes:
    return stream(*answer()[:-1], completed(message(part("Hi")), **fields))


OPENAI_REQUIRES = ("created_at", "metadata", "instructions", "model", "tools", "parallel_tool_calls", "tool_choice")
OPEN_REQUIRES = (
    "completed_at", "previous_response_id", "truncation", "text", "presence_penalty", "frequency_penalty",
    "top_logprobs", "reasoning", "usage", "max_output_tokens", "max_tool_calls", "store", "background",
    "service_tier", "safety_identifier", "prompt_cache_key",
)  # fmt: skip
BROKEN = [
    broken("framing-bom", b"\xef\xbb\xbf", stream(*answer())),
    broken("framing-lf", stream(*answer()).replace(b"\n", b"\r\n")),
    broken("framing-field", b"id: 1\n", stream(*answer())),
    broken("framing-field", stream(*answer()).replace(b"event:", b"retry: 9\nevent:", 1)),
    broken("framing-event", b"event: ping\n\n", stream(*answer())),
    broken("framing-event", b"event: ping\n", stream(*answer())),
    broken("framing-event", b"data: {}\nevent: x\n\n", also="event-shape sequence terminal-missing done-missing"),
    broken("framing-one-line", stream(*answer()).replace(b",", b",\ndata: ", 1)),
    broken("framing-empty-data", b"data:\n\n", stream(*answer())),
    broken("framing-complete", stream(*answer())[:-1], also="done-missing"),
    broken("framing-complete", frames(answer()), b"event: x\n", also="done-missing"),
    broken("framing-size", stream(*answer(event("acme:x", value="a" * 1024 * 1024))), also="sequence"),
    broken("done-last", stream(*answer()), DONE),
    broken("done-last", stream(*answer()), b"event: x\n\n"),
    broken("event-json", b"data: {\n\n", stream(*answer())),
    broken("event-json", b"data: []\n\n", stream(*answer())),
    broken("event-name", stream(*answer()).replace(b"event: response.created\n", b"")),
    broken("event-name", stream(*answer()).replace(b"event: response.created\n", b"event: response.queued\n")),
    broken("event-name", frames(answer()), b"event: done\n", DONE),
    broken("event-known", stream(*answer(event("response.thinking.delta", delta="a")))),
    broken("event-known", stream(*answer(event("keepalive")))),
    broken("event-shape", stream(*answer(event(7)))),  # type: ignore[arg-type]
    broken("event-shape", changed(answer(), 4, logprobs=...)),
    broken("event-shape", changed(answer(), 2, output_index=...), also="item-first output-final"),
    broken("event-shape", changed([*begin(), *use(), completed(call("{}"))], 5, name=...)),
    broken("event-shape", changed(answer(), 6, text=None), also="text-done"),
    broken("sequence", changed(answer(), 4, sequence_number=9)),
    broken("sequence", changed(answer(), 0, sequence_number=1)),
    broken("sequence", changed(answer(), 4, sequence_number="4")),
    broken("sequence", stream(*answer()).replace(b',"sequence_number":4', b"")),
    broken("created-first", without(answer(), 0)),
    broken("created-first", stream(*answer(lifecycle("created")))),
    broken("progress-order", without(answer(), 1)),
    broken("progress-order", stream(lifecycle("created"), completed())),
    broken("progress-order", stream(*begin(), *answer()[1:])),
    broken("progress-order", stream(*begin(), lifecycle("queued"), *answer()[2:])),
    broken("response-same", final(id="resp_2")),
    *(broken("response-openai", response_without(name), also="response-open") for name in OPENAI_REQUIRES),
    broken("response-openai", final(object="thing"), also="response-open"),
    broken("response-openai", final(metadata="x")),
    broken("response-openai", final(id=""), also="response-same"),
    *(broken("response-open", response_without(name)) for name in OPEN_REQUIRES),
    broken("response-open", final(temperature=None)),
    broken("response-open", final(truncation=None)),
    broken("response-open", final(created_at=1.5)),
    broken("status", stream(*answer()[:-1], lifecycle("completed", "in_progress", output=[message(part("Hi"))]))),
    broken("status", changed(answer(), 0, response={**RESPONSE, "status": "completed"})),
    broken("incomplete-details", stream(*HALF, *CLOSE, incomplete(CUT, incomplete_details=None))),
    broken("incomplete-details", stream(*HALF, *CLOSE, incomplete(CUT, incomplete_details={"reason": "stop"}))),
    broken("incomplete-details", final(incomplete_details={"reason": "max_output_tokens"})),
    broken("error-object", stream(*begin(), failed(error=None))),
    broken("error-object", stream(*begin(), failed(error={"code": "server_error"}))),
    broken("error-object", stream(*begin(), failed(error={**FAILURE, "code": 500}))),
    broken("error-object", final(error=FAILURE)),
    broken("error-code", stream(*begin(), failed(error={**FAILURE, "code": "context_length_exceeded"}))),
    broken("item-first", stream(*begin(), delta("a"), completed())),
    broken("item-first", without(answer(), 2), also="output-final"),
    broken("item-index", stream(*begin(), *use(1), completed(call("{}"), call("{}"))), also="output-final"),
    broken("item-index", stream(*answer(added(message(status="in_progress", name="msg_2"))))),
    broken("item-index", stream(*answer(added(message(status="in_progress"), MAX_ITEMS)))),
    broken("item-id", stream(*begin(), *say(), added(message(status="in_progress"), 1), done(message(), 1),
           completed(message(part("Hi")), message()))),
    broken("item-id", changed(answer(), 4, item_id="msg_2")),
    broken("item-id", stream(*answer()[:-1], completed(message(part("Hi"), name="msg_2")))),
    broken("item-id", stream(*answer()[:-1], completed("msg_1")), also="item-shape"),
    broken("item-shape", stream(*begin(), added({**call(status="in_progress"), "call_id": None}), *use()[1:],
           completed(call("{}")))),
    broken("item-shape", stream(*begin(), added({"type": "x", "id": ""}), done({"type": "x", "id": ""}),
           completed({"type": "x", "id": ""}))),
    broken("item-status", stream(*begin(), added(call()), *use()[1:], completed(call("{}")))),
    broken("item-status", stream(*begin(), *use()[:-1], done(call("{}", "in_progress")),
           completed(call("{}", "in_progress")))),
    broken("item-last", stream(*answer(done(message(part("Hi")))))),
    broken("item-last", stream(*answer(delta("a")))),
    broken("item-closed", stream(*answer()[:-2], completed(message(part("Hi"))))),
    broken("item-closed", stream(*HALF, HYBRID, failed(CUT))),
    broken("part-first", without(answer(), 3)),
    broken("part-first", changed(answer(), 4, content_index=1), also="text-sum"),
    broken("part-first", stream(*begin(), added(message(status="in_progress")), done(message(part("Hi"))),
           completed(message(part("Hi"))))),
    broken("part-index", stream(*begin(), *say()[:2], part_event("added", part()), *say()[2:],
           completed(message(part("Hi"))))),
    broken("part-index", stream(*begin(), *say()[:2], part_event("added", part(), MAX_PARTS), *say()[2:],
           completed(message(part("Hi"))))),
    broken("part-shape", changed(answer(), 3, part={"type": "output_text", "text": ""})),
    broken("part-shape", changed(answer(), 3, part={}), also="text-kind"),
    broken("part-last", stream(*begin(), *say()[:-1], delta("a"), say()[-1], completed(message(part("Hi"))))),
    broken("part-last", stream(*begin(), *say()[:-1], *say()[-2:], completed(message(part("Hi"))))),
    broken("part-closed", without(answer(), 7)),
    broken("text-kind", changed(answer(), 4, type="response.refusal.delta"), also="text-sum"),
    broken("text-kind", changed(answer(), 7, part={"type": "refusal", "refusal": "Hi"})),
    broken("text-sum", without(answer(), 4)),
    broken("text-sum", changed(answer(), 4, delta="h")),
    broken("text-sum", changed([*begin(), *use(), completed(call("{}"))], 3, delta="[")),
    broken("text-same", changed(answer(), 7, part=part("Ho"))),
    broken("text-same", stream(*begin(), *say()[:-1], done(message(part("Ho"))), completed(message(part("Ho"))))),
    broken("text-same", stream(*begin(), *say()[:-1], done(message()), completed(message()))),
    broken("text-same", stream(*begin(), *use()[:-1], done(call("{ }")), completed(call("{ }")))),
    broken("text-same", stream(*begin(), added(call(status="in_progress")), done(call("{}")), completed(call("{}")))),
    broken("text-sum", stream(*begin(), *use()[:1], *use()[3:], completed(call("{}")))),
    broken("text-done", without(answer(), 6)),
    broken("text-done", without([*begin(), *use(), completed(call("{}"))], 5)),
    broken("text-done", stream(*begin(), *say()[:5], text_done("Hi"), *say()[5:], completed(message(part("Hi"))))),
    broken("output-final", stream(*answer()[:-1], completed())),
    broken("output-final", stream(*answer()[:-1], completed(message(part("Ho"))))),
    broken("output-final", stream(*answer()[:-1], completed(message(part("Hi")), call("{}")))),
    broken("output-final", stream(*begin(), completed(message(part("Hi"))))),
    broken("usage-shape", final(usage={**USAGE, "total_tokens": None})),
    broken("usage-shape", final(usage={**USAGE, "input_tokens_details": {}})),
    broken("usage-sum", final(usage={**USAGE, "total_tokens": 8})),
    broken("error-event", stream(*begin(), error(), failed())),
    broken("error-event", stream(*begin(), error(message="It failed.", code=None), failed())),
    broken("error-event", stream(*begin(), error(error={**ERROR, "code": 500}), failed())),
    broken("error-event", stream(*begin(), error(error="It failed."), failed())),
    broken("error-event", stream(*begin(), {**HYBRID, "code": "invalid_prompt"}, failed())),
    broken("error-failed", stream(*begin(), HYBRID, HYBRID, failed())),
    broken("error-failed", stream(*begin(), HYBRID, completed())),
    broken("error-failed", stream(*begin(), HYBRID, *say(), failed(message(part("Hi"))))),
    broken("terminal-last", stream(*answer(), event("acme:x"))),
    broken("terminal-last", stream(*answer(), failed(message(part("Hi"))))),
    broken("terminal-missing", stream(*answer()[:-1])),
    broken("terminal-missing", stream(*begin(), HYBRID)),
    broken("terminal-missing", b"", also="done-missing"),
    broken("done-missing", frames(answer())),
]  # fmt: skip


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD.keys())
def test_a_good_stream_passes(body: bytes) -> None:
    assert judge(body) == []


@pytest.mark.parametrize("case", BROKEN, ids=[f"{case.rule}-{number}" for number, case in enumerate(BROKEN)])
def test_a_broken_stream_is_told_by_its_rule_alone(case: Broken) -> None:
    assert {violation.rule for violation in judge(case.body)} == {case.rule} | case.also


def test_every_rule_has_a_broken_stream() -> None:
    assert {case.rule for case in BROKEN} == RULES.keys()


def test_a_stream_may_be_allowed_to_end_without_done() -> None:
    assert judge(frames(answer()), done=False) == []
    assert judge(stream(*answer()), done=False) == []


def test_a_violation_says_where_and_what() -> None:
    [violation] = judge(final(usage={**USAGE, "output_tokens": 3}))
    assert violation.rule == "usage-sum"
    assert violation.message == "response.usage says 5 + 3 = 7"
    assert violation.excerpt.startswith('{"type":"response.completed"')


def test_reports_and_their_text_are_bounded() -> None:
    violations = judge(stream(*begin(), *[delta("a" * 9999)] * 50, completed()))
    assert [violation.rule for violation in violations] == ["item-first"] * MAX_REPORTS_PER_RULE
    assert all(len(violation.excerpt) == 200 and len(violation.message) < 200 for violation in violations)


def test_no_text_is_kept() -> None:
    validator = ResponsesStreamValidator()
    validator.feed(frames([*begin(), *say()[:2]]))
    body = frames([*begin(), *say()[:2], *[delta("a" * 100_000)] * 20])[len(frames([*begin(), *say()[:2]])) :]
    validator.feed(body)
    [item] = validator._stream.items.values()
    [known] = item.parts.values()
    assert known.text.length == 2_000_000
    assert not hasattr(known.text, "__dict__")


def test_a_deeply_nested_item_is_judged() -> None:
    item = call("{}", x="nested")
    body = stream(*begin(), *use()[:-1], done(item), completed(item))
    assert judge(body.replace(b'"nested"', b"[" * 300 + b"]" * 300)) == []


def judge_in(reads: list[bytes]) -> list[Violation]:
    validator = ResponsesStreamValidator()
    for read in reads:
        validator.feed(read)
    return validator.end()


json_values: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 1, 2.5, "", "x", [], {}, [1], [{}], {"a": 1}, 2**63, "msg_1"]
)


@st.composite
def odd_events(draw: st.DrawFn) -> bytes:
    """A good stream's events, out of order, twice or not at all, with fields changed or missing."""
    events = draw(st.sampled_from([answer(), refuse(), [*begin(), *use(), HYBRID, failed(call("{}"))]]))
    chosen = draw(st.lists(st.sampled_from(events), max_size=12))
    for position, value in enumerate(chosen):
        if draw(st.booleans()):
            name = draw(st.sampled_from(sorted(value)))
            chosen[position] = {**value, name: draw(json_values)}
    return frames(chosen) + draw(st.sampled_from([b"", DONE]))


bits = st.sampled_from([
    b"data: ", b"event: x", b"event:", b"\n", b"\n\n", b"\r", b"\xef\xbb\xbf", b": c", b"{", DONE, stream(*answer()),
])  # fmt: skip
odd_bytes = st.lists(st.binary(max_size=8) | bits | odd_events(), max_size=5).map(b"".join)


@given(odd_bytes, st.data())
def test_no_bytes_raise_and_no_cut_changes_the_verdict(body: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=10)))
    reads = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert judge_in(reads) == judge(body)


KINDS: list[Callable[[], list[Event]]] = [answer, refuse, lambda: [*begin(), *use(), completed(call("{}"))]]


@given(st.sampled_from(KINDS), st.data())
def test_a_good_stream_that_loses_an_event_is_found_out(make: Callable[[], list[Event]], data: st.DataObject) -> None:
    events = make()
    lost = data.draw(st.integers(0, len(events) - 1))
    assert judge(without(events, lost)) != []
