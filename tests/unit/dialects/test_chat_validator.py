"""The judge of chat streams: good streams pass, each rule has streams that break it, and nothing makes it raise."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.dialects.chat_validator import MAX_REPORTS_PER_RULE, RULES, ChatStreamValidator, Violation, judge

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
ERROR = {"message": "The server had an error.", "type": "server_error", "param": None, "code": "server_error"}


def frame(value: object) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def chunk(*choices: object, **fields: Any) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return frame({**head, "choices": list(choices), **fields})


def choice(delta: object, finish: str | None = None, index: object = 0, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish, **fields}


def say(text: str, index: int = 0) -> bytes:
    return chunk(choice({"content": text}, index=index))


def role(index: int = 0) -> bytes:
    return chunk(choice({"role": "assistant", "content": ""}, index=index))


def finish(reason: str = "stop", index: int = 0) -> bytes:
    return chunk(choice({}, reason, index))


def call(index: object = 0, *, choice_index: int = 0, **fields: Any) -> bytes:
    return chunk(choice({"tool_calls": [{"index": index, **fields}]}, index=choice_index))


def call_head(index: int = 0, choice_index: int = 0) -> bytes:
    function = {"name": "look", "arguments": ""}
    return call(index, choice_index=choice_index, id=f"call_{index}", type="function", function=function)


def call_part(index: int = 0, choice_index: int = 0) -> bytes:
    return call(index, choice_index=choice_index, function={"arguments": "{}"})


def usage(**fields: Any) -> bytes:
    return chunk(usage={**USAGE, **fields})


def error(**fields: Any) -> bytes:
    return frame({"error": {**ERROR, **fields}})


def error_without(name: str) -> bytes:
    return frame({"error": {key: value for key, value in ERROR.items() if key != name}})


def chunk_without(name: str) -> bytes:
    return frame({key: value for key, value in orjson.loads(say("a")[6:]).items() if key != name})


def stream(*middle: bytes) -> bytes:
    """A whole answer with something in its middle."""
    return b"".join((role(), *middle, finish(), DONE))


Settings = dict[str, Any]

GOOD: dict[str, tuple[bytes, Settings]] = {
    "text": (stream(say("Hel"), say("lo")), {}),
    "everything in one chunk": (chunk(choice({"role": "assistant", "content": "a"}, "stop")) + DONE, {}),
    "no text": (stream(), {"choices": 1}),
    "cut at the limit": (role() + say("a") + finish("length") + DONE, {}),
    "refusal": (stream(chunk(choice({"refusal": "No."})), chunk(choice({"content": None, "refusal": None}))), {}),
    "log probabilities": (stream(chunk(choice({"content": "a"}, logprobs={"content": [], "refusal": None}))), {}),
    "comments between events": (b": hi\n\n" + role() + b":\n\n: x\n\n" + say("a") + finish() + b": x\n\n" + DONE, {}),
    "no space after the colon": (stream(say("a")).replace(b"data: ", b"data:"), {}),
    "unknown fields": (stream(chunk(choice({"content": "a", "reasoning_content": "b"}), obfuscation="x")), {}),
    "usage asked for": (role() + chunk(choice({}, "stop"), usage=None) + usage() + DONE, {"include_usage": True}),
    "usage null where it was not asked for": (stream(chunk(choice({}), usage=None)), {"include_usage": False}),
    "usage where nobody knows": (role() + finish() + usage(prompt_tokens_details={}) + DONE, {}),
    "moderation": (role() + finish() + chunk(moderation={}) + usage() + DONE, {"include_usage": True}),
    "two choices mixed": (
        role() + role(1) + say("a", 1) + say("b") + finish() + say("c", 1) + finish("length", 1) + DONE,
        {"choices": 2},
    ),
    "two choices one after the other": (role() + finish() + role(1) + finish("stop", 1) + DONE, {}),
    "two choices in one chunk": (
        chunk(choice({"role": "assistant"}), choice({"role": "assistant"}, index=1))
        + chunk(choice({}, "stop"), choice({}, "length", index=1))
        + DONE,
        {"choices": 2},
    ),
    "tool calls among each other": (
        role() + call_head() + call_head(1) + call_part() + call_part(1) + call_part() + finish("tool_calls") + DONE,
        {},
    ),
    "tool calls": (
        role() + say("a") + call_head() + call_part() + call_head(1) + call_part(1) + finish("tool_calls") + DONE,
        {},
    ),
    "a call in one chunk with its role": (
        chunk(
            choice(
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"index": 1, "id": "d", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    ],
                },
                "tool_calls",
            )
        )
        + DONE,
        {},
    ),
    "a forced call": (stream(call_head(), call_part()), {}),
    "a type again, an empty name": (
        stream(call_head(), call(type="function", id="", function={"name": "", "arguments": "{}"})),
        {},
    ),
    "a deprecated function call": (
        role() + chunk(choice({"function_call": {"name": "f", "arguments": "{}"}})) + finish("function_call") + DONE,
        {},
    ),
    "a finished choice that appears again": (role() + finish() + chunk(choice({"content": ""})) + DONE, {}),
    "failed at once": (error() + DONE, {"include_usage": True, "choices": 2}),
    "failed in the middle": (role() + say("a") + error(param="messages", code=None) + DONE, {"include_usage": True}),
    "failed with one choice finished": (role() + finish() + role(1) + error() + DONE, {}),
    "failed before the second choice": (role() + finish() + error() + DONE, {"choices": 2}),
    "an error that says more": (error(misalignment={}) + DONE, {}),
}  # fmt: skip


@dataclass(frozen=True)
class Broken:
    rule: str
    body: bytes
    also: frozenset[str] = frozenset()
    """What necessarily breaks with it."""
    include_usage: bool | None = None
    choices: int | None = None


def broken(rule: str, *body: bytes, also: str = "", **settings: Any) -> Broken:
    return Broken(rule, b"".join(body), frozenset(also.split()), **settings)


BROKEN = [
    broken("framing-bom", b"\xef\xbb\xbf", stream()),
    broken("framing-bom", b"\xef\xbb\xbf", also="done-missing outcome-none"),
    broken("framing-lf", stream().replace(b"\n", b"\r\n")),
    broken("framing-lf", stream().replace(b"\n", b"\r")),
    broken("framing-lf", stream(), b"\r", also="done-last"),
    broken("framing-field", b"event: message\n", stream()),
    broken("framing-field", b"id: 1\n", stream()),
    broken("framing-field", stream(b"retry: 3000\n\n")),
    broken("framing-field", stream(b"event: ping\n\n")),
    broken("framing-field", stream(b"<html>\n\n")),
    broken("framing-one-line", stream(say("a").replace(b",", b",\ndata: ", 1))),
    broken("framing-empty-data", stream(b"data:\n\n")),
    broken("framing-empty-data", stream(b"data: \n\n")),
    broken("framing-complete", stream()[:-1], also="done-missing"),
    broken("framing-complete", stream()[:-2], also="done-missing"),
    broken("framing-complete", role(), finish(), b": cut", also="done-missing"),
    broken("framing-size", stream(say("a" * 1024 * 1024))),
    broken("framing-size", stream(b"data: [\n" * 200_000, b"\n")),
    broken("framing-size", stream(b":" + b"a" * 2 * 1024 * 1024 + b"\n\n")),
    broken("event-json", stream(b"data: {\n\n")),
    broken("event-json", stream(b"data: []\n\n")),
    broken("event-json", stream(b"data: null\n\n")),
    broken("event-json", stream(b"data: [DONE] \n\n")),
    broken("event-json", stream(b'data: {"a": NaN}\n\n')),
    broken("event-json", stream(b'data: {"a": "\xff"}\n\n')),
    broken("event-json", stream(b"data: " + b'{"a":' * 5000 + b"\n\n")),
    *(broken("chunk-shape", stream(chunk_without(name))) for name in ("id", "object", "created", "model", "choices")),
    broken("chunk-shape", chunk(choice({"role": "assistant"}, "stop"), id=""), DONE),
    broken("chunk-shape", stream(chunk(choice({}), object="chat.completion"))),
    broken("chunk-shape", stream(chunk(choice({}), created="1")), also="chunk-same"),
    broken("chunk-shape", stream(chunk(choice({}), created=1.0))),
    broken("chunk-shape", stream(chunk(choice({}), created=True))),
    broken("chunk-shape", stream(chunk(choice({}), model=None))),
    broken("chunk-shape", stream(chunk(choice({}), usage=7))),
    broken("chunk-shape", stream(frame({"object": "error", "message": "flat", "code": 500}))),
    broken("chunk-same", stream(chunk(choice({}), id="chatcmpl-2"))),
    broken("chunk-same", stream(chunk(choice({}), created=2))),
    broken("chunk-same", stream(chunk(choice({}), model="n"))),
    broken("choice-shape", stream(chunk({"index": 0, "delta": {}}))),
    broken("choice-shape", stream(chunk({"index": 0, "finish_reason": None}))),
    broken("choice-shape", stream(chunk({"delta": {}, "finish_reason": None}))),
    *(broken("choice-shape", stream(chunk(choice({}, index=index)))) for index in (-1, "0", 0.5, True, None)),
    broken("choice-shape", stream(chunk(choice(None)))),
    broken("choice-shape", stream(chunk(choice("a")))),
    broken("choice-shape", stream(chunk("a"))),
    broken("choice-shape", stream(chunk({**choice({}), "finish_reason": ["stop"]}))),
    broken("choice-shape", stream(chunk(choice({}, logprobs=[])))),
    broken("choice-index", role(1), finish("stop", 1), DONE),
    broken("choice-index", stream(role(2), finish("stop", 2))),
    broken("choice-index", stream(chunk(choice({}, index=128)))),
    broken("choice-index", stream(), choices=2),
    broken("choice-index", stream(role(1), finish("stop", 1)), choices=1),
    broken("choices-empty", chunk(prompt_filter_results=[]), stream()),
    broken("choices-empty", stream(chunk(usage=None))),
    broken("delta-shape", stream(chunk(choice({"content": 1})))),
    broken("delta-shape", stream(chunk(choice({"content": [{"type": "text", "text": "a"}]})))),
    broken("delta-shape", stream(chunk(choice({"refusal": False})))),
    broken("delta-shape", stream(chunk(choice({"role": None})))),
    broken("delta-shape", stream(chunk(choice({"tool_calls": None})))),
    broken("delta-shape", stream(chunk(choice({"function_call": "f"})))),
    broken("delta-shape", stream(chunk(choice({"function_call": {"arguments": None}})))),
    broken("role-first", say("a"), finish(), DONE),
    broken("role-first", chunk(choice({"role": "user"})), finish(), DONE),
    broken("role-first", stream(say("a", 1), finish("stop", 1))),
    broken("role-once", stream(role())),
    broken("role-once", stream(chunk(choice({"role": "tool", "content": "a"})))),
    broken("tool-call-shape", stream(chunk(choice({"tool_calls": ["f"]})))),
    broken("tool-call-shape", stream(call("0", function={}))),
    broken("tool-call-shape", stream(call_head(), call())),
    broken("tool-call-shape", stream(call_head(), call(id=None, function={}))),
    broken("tool-call-shape", stream(call_head(), call(type="custom", function={}))),
    broken("tool-call-shape", stream(call_head(), call(function={"name": None}))),
    broken("tool-call-shape", stream(call_head(), call(function={"arguments": {}}))),
    broken("tool-call-head", stream(call_part())),
    broken("tool-call-head", stream(call(id="c", type="function", function={"arguments": ""}))),
    broken("tool-call-head", stream(call(type="function", function={"name": "f"}))),
    broken("tool-call-head", stream(call(id="c", function={"name": "f"}))),
    broken("tool-call-once", stream(call_head(), call_head())),
    broken("tool-call-once", stream(call_head(), call(id="other", function={}))),
    broken("tool-call-once", stream(call_head(), call(function={"name": "look"}))),
    broken("tool-call-index", stream(call_head(1))),
    broken("tool-call-index", stream(call_head(), call_head(2))),
    broken("finish-reason", role(), finish("error"), DONE),
    broken("finish-reason", role(), finish(""), DONE),
    broken("finish-call", role(), finish("tool_calls"), DONE),
    broken("finish-call", role(), finish("function_call"), DONE),
    broken("finish-call", role(), role(1), call_head(0, 1), finish("tool_calls", 1), finish("tool_calls"), DONE),
    broken("finish-once", stream(finish())),
    broken("finish-once", role(), finish("length"), finish("stop"), DONE),
    broken("finish-last", role(), finish(), say("a"), DONE),
    broken("finish-last", role(), finish(), chunk(choice({"refusal": "a"})), DONE),
    broken("finish-last", role(), call_head(), finish(), call_part(), DONE),
    broken("finish-missing", role(), say("a"), DONE),
    broken("finish-missing", stream(role(1))),
    broken("finish-missing", role(), say("a"), also="done-missing"),
    broken("usage-shape", role(), finish(), usage(total_tokens=None), DONE),
    broken("usage-shape", role(), finish(), usage(prompt_tokens=-1), DONE),
    broken("usage-shape", role(), finish(), usage(completion_tokens=2.0), DONE),
    broken("usage-shape", role(), finish(), chunk(usage={}), DONE),
    broken("usage-sum", role(), finish(), usage(total_tokens=8), DONE),
    broken("usage-choices", role(), chunk(choice({}, "stop"), usage=USAGE), DONE),
    broken("usage-once", role(), finish(), usage(), usage(), DONE, also="usage-last"),
    broken("usage-last", role(), usage(), finish(), DONE),
    broken("usage-last", role(), finish(), usage(), chunk(choice({})), DONE),
    broken("usage-last", role(), finish(), usage(), DONE, choices=2, also="choice-index"),
    broken("usage-missing", stream(), include_usage=True),
    broken("usage-unasked", role(), finish(), usage(), DONE, include_usage=False),
    broken("error-alone", role(), frame({"error": ERROR, "choices": []}), DONE),
    broken("error-alone", role(), frame({"type": "error", "error": ERROR}), DONE),
    *(broken("error-shape", error_without(name), DONE) for name in ERROR),
    broken("error-shape", error(code=500), DONE),
    broken("error-shape", error(message=""), DONE),
    broken("error-shape", error(type=None), DONE),
    broken("error-shape", error(param=["messages"]), DONE),
    broken("error-shape", frame({"error": "text"}), DONE),
    broken("error-shape", frame({"error": None}), DONE),
    broken("error-last", error(), error(), DONE),
    broken("error-last", role(), error(), finish(), DONE),
    broken("error-last", role(), error(), say("a"), DONE),
    broken("outcome-one", role(), finish(), error(), DONE),
    broken("outcome-one", role(), finish(), usage(), error(), DONE, also="usage-last"),
    broken("outcome-none", DONE),
    broken("outcome-none", b"", also="done-missing"),
    broken("outcome-none", b": hi\n\n", also="done-missing"),
    broken("outcome-none", chunk(usage=USAGE), DONE, also="usage-last"),
    broken("done-missing", role(), finish()),
    broken("done-missing", role(), error()),
    broken("done-last", stream(), DONE),
    broken("done-last", stream(), say("a")),
    broken("done-last", stream(), error()),
    broken("done-last", stream(), b": bye\n\n"),
    broken("done-last", stream(), b"\n"),
    broken("done-last", stream(), b"<html>"),
]


@pytest.mark.parametrize(("body", "settings"), GOOD.values(), ids=GOOD.keys())
def test_a_good_stream_passes(body: bytes, settings: Settings) -> None:
    assert judge(body, **settings) == []


@pytest.mark.parametrize("case", BROKEN, ids=[f"{case.rule}-{number}" for number, case in enumerate(BROKEN)])
def test_a_broken_stream_is_told_by_its_rule_alone(case: Broken) -> None:
    violations = judge(case.body, include_usage=case.include_usage, choices=case.choices)
    assert {violation.rule for violation in violations} == {case.rule} | case.also


def test_every_rule_has_a_broken_stream() -> None:
    assert {case.rule for case in BROKEN} == RULES.keys()


def test_a_violation_says_where_and_what() -> None:
    [violation] = judge(stream(chunk(choice({"content": 1}), id="chatcmpl-1")))
    assert violation.rule == "delta-shape"
    assert violation.message == "choices[0].delta.content is 1, not a string or null"
    assert violation.excerpt.startswith('{"id":"chatcmpl-1"')
    assert str(violation) == f"delta-shape: {violation.message} in {violation.excerpt}"
    assert str(Violation("done-missing", "x", "")) == "done-missing: x"


def test_reports_and_their_text_are_bounded() -> None:
    violations = judge(stream(*[say("a" * 9999).replace(b"chatcmpl-1", b"chatcmpl-" + b"2" * 9999)] * 50))
    assert [violation.rule for violation in violations] == ["chunk-same"] * MAX_REPORTS_PER_RULE
    assert all(len(violation.excerpt) == 200 and len(violation.message) < 200 for violation in violations)


def judge_in(reads: list[bytes]) -> list[Violation]:
    validator = ChatStreamValidator(include_usage=True)
    for read in reads:
        validator.feed(read)
    return validator.end()


json_values: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 1, 2.5, "", "x", [], {}, [1], [{}], {"a": 1}, 2**63]
)


def object_of(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: kind | json_values for name, kind in fields.items()})


text = st.sampled_from(["", "a"])
index = st.integers(0, 2)
odd_functions = object_of(name=text, arguments=text)
odd_calls = object_of(index=index, id=text, type=st.just("function"), function=odd_functions)
odd_deltas = object_of(
    role=st.just("assistant"), content=text, tool_calls=st.lists(odd_calls, max_size=2), function_call=odd_functions
)
reasons = st.sampled_from(["stop", "tool_calls", None])
odd_choices = object_of(index=index, delta=odd_deltas, finish_reason=reasons, logprobs=json_values)
odd_chunks = object_of(
    id=text, created=index, model=text, choices=st.lists(odd_choices, max_size=2),
    usage=object_of(**dict.fromkeys(USAGE, index)),
)  # fmt: skip
odd_errors = st.fixed_dictionaries({"error": object_of(**dict.fromkeys(ERROR, text)) | json_values})
bits = st.sampled_from([
    b"data: ", b"event: x", b"\n", b"\n\n", b"\r", b"\xef\xbb\xbf", b": c", b"{", DONE,
    role(), say("a"), call_head(), call_part(), finish(), usage(), error(),
])  # fmt: skip
odd_events = (odd_chunks | odd_errors | json_values).map(frame)
odd_bytes = st.lists(st.binary(max_size=8) | bits | odd_events, max_size=6).map(b"".join)


@given(odd_bytes, st.data())
def test_no_bytes_raise_and_no_cut_changes_the_verdict(body: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=10)))
    reads = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert judge_in(reads) == judge(body, include_usage=True)


# Valid streams, whose events know what they are, so that it is known which mutation must matter.


@dataclass(frozen=True)
class Event:
    kind: str
    body: bytes
    index: int = -1


@dataclass(frozen=True)
class Answer:
    events: list[Event]
    settings: Settings

    @property
    def body(self) -> bytes:
        return b"".join(event.body for event in self.events)


@st.composite
def choice_events(draw: st.DrawFn, index: int) -> list[Event]:
    events = [Event("role", role(index), index)]
    events += [Event("text", say("a", index), index)] * draw(st.integers(0, 3))
    calls = draw(st.integers(0, 2))
    for number in range(calls):
        events.append(Event("head", call_head(number, index), index))
        events += [Event("part", call_part(number, index), index)] * draw(st.integers(1, 2))
    reason = draw(st.sampled_from(["stop", "length", "content_filter", *["tool_calls"] * calls]))
    return [*events, Event("finish", finish(reason, index), index)]


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    count = draw(st.integers(1, 3))
    queues = [draw(choice_events(index)) for index in range(count)]
    order = draw(st.permutations([index for index, queue in enumerate(queues) for _ in queue]))
    events = [queues[index].pop(0) for index in order]
    include_usage = draw(st.booleans())
    if draw(st.booleans()):
        last_finish = max(position for position, event in enumerate(events) if event.kind == "finish")
        events = [*events[: draw(st.integers(0, last_finish))], Event("error", error())]
    elif include_usage:
        events.append(Event("usage", usage()))
    comment = draw(st.sampled_from([b"", b": hi\n\n"]))
    events = [Event(event.kind, comment + event.body, event.index) for event in events]
    return Answer([*events, Event("done", DONE)], {"include_usage": include_usage, "choices": count})


def dropped(events: list[Event]) -> Iterator[tuple[str, list[Event]]]:
    failed = any(event.kind == "error" for event in events)
    for position, event in enumerate(events):
        rest = [*events[:position], *events[position + 1 :]]
        missed_later = any(later.index == event.index for later in events[position + 1 :])
        if (
            event.kind in ("usage", "error", "done")
            or (event.kind == "role" and missed_later)
            or (event.kind == "head" and any(e.kind == "part" and e.index == event.index for e in events[position:]))
            or (event.kind == "finish" and not failed)
        ):
            yield f"drop {event.kind}", rest


def duplicated(events: list[Event]) -> Iterator[tuple[str, list[Event]]]:
    for position, event in enumerate(events):
        if event.kind not in ("text", "part"):
            yield f"duplicate {event.kind}", [*events[: position + 1], *events[position:]]


def swapped(events: list[Event]) -> Iterator[tuple[str, list[Event]]]:
    free = {("text", "text"), ("part", "part"), ("part", "head"), ("text", "head")}
    for position, (one, two) in enumerate(itertools.pairwise(events)):
        bound = one.index == two.index and (one.kind, two.kind) not in free
        if bound or two.kind in ("usage", "error", "done"):
            yield f"swap {one.kind}, {two.kind}", [*events[:position], two, one, *events[position + 2 :]]


def misframed(body: bytes) -> Iterator[tuple[str, bytes]]:
    yield "byte order mark", b"\xef\xbb\xbf" + body
    yield "CRLF", body.replace(b"\n", b"\r\n")
    yield "no last line end", body[:-1]
    yield "one line end too many", body + b"\n"
    yield "an event name", body.replace(b"data:", b"event: message\ndata:", 1)
    yield "an id", body.replace(b"data:", b"id: 1\ndata:", 1)
    yield "empty data", b"data:\n\n" + body
    yield "a comment after the end", body + b": bye\n\n"


def mutations(answer: Answer) -> list[tuple[str, bytes]]:
    changed = [*dropped(answer.events), *duplicated(answer.events), *swapped(answer.events)]
    return [(name, Answer(events, {}).body) for name, events in changed] + [*misframed(answer.body)]


@given(answers())
def test_every_valid_stream_is_accepted(answer: Answer) -> None:
    assert judge(answer.body, **answer.settings) == []


@given(answers())
def test_every_mutation_that_matters_is_rejected(answer: Answer) -> None:
    accepted = [name for name, body in mutations(answer) if not judge(body, **answer.settings)]
    assert accepted == []
