"""A judge of chat completion streams, ours or a stranger's. Pure: bytes in, violations out.

What it promises:

* It knows the protocol and nothing of any server. Every rule stands in :data:`RULES`, with where it comes from: the SSE
  standard (SSE), OpenAI's specification (spec), what breaks a client, mostly an official SDK (SDK), or the contract
  that a client can tell every ending of a stream from every other (ending).
* No input makes it raise, and how a stream is cut into reads does not change its verdict.
* Memory is bounded: no text is kept but the first id and model, an event is read up to its limit, a stream
  has at most :data:`MAX_CHOICES` choices, and each rule is reported at most :data:`MAX_REPORTS_PER_RULE` times.

Where the sources are silent:

* A role, a tool call's id and a function's name stand once, at the start. The Python SDK joins what is repeated, so
  that a second "assistant" makes "assistantassistant". An empty string adds nothing and may be repeated.
* The fragments of tool calls that have begun come in any order: each has the number of its call, by which the SDKs join
  them. Calls begin one after the other.
* "tool_calls" is a finish reason only where there was a tool call. The reverse does not hold: a choice with tool calls
  may end with "stop", as OpenAI's do where the request forced the function, and with "length" or "content_filter".
* A choice that has finished may still appear, with nothing in its delta.
* A chunk without choices is the usage chunk or carries moderation results.
* An error frame after every choice has finished is a second ending. Where the number of choices is not given, those
  that appeared count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from coterie.wire.sse import DONE, FRAMING_RULES, FramingFault, SseEvent, StrictSseReader

MAX_CHOICES: Final = 128
"""The specification's maximum of ``n``."""

MAX_REPORTS_PER_RULE: Final = 5
"""A server that breaks a rule on each of a million chunks is told so this many times."""

MAX_EXCERPT_CHARS: Final = 200
"""Characters of the offending event that a violation repeats at most."""

RULES: Final[Mapping[str, str]] = {
    **FRAMING_RULES,
    "event-json": "The data of an event is one JSON object or exactly '[DONE]' (spec).",
    "chunk-shape": "A chunk has id, object 'chat.completion.chunk', created, model and choices; usage is an object "
    "or null (spec).",
    "chunk-same": "All chunks of a stream have the same id, created and model (spec).",
    "choice-shape": "A choice has index, delta and finish_reason; logprobs is an object or null (spec).",
    "choice-index": "Choices are numbered from 0 without a gap, below 128, and are as many as were asked for (spec).",
    "choices-empty": "Only the usage chunk and a moderation chunk have no choices (spec).",
    "delta-shape": "In a delta role is a string, content and refusal are strings or null, tool_calls is an array, "
    "function_call an object of strings (spec).",
    "role-first": "The first delta of each choice has the role 'assistant' (SDK: the message takes its role from it).",
    "role-once": "No later delta has a role (SDK: it is joined to the first).",
    "tool-call-shape": "A tool call fragment has an index and a function; id, type 'function', function.name and "
    "function.arguments have the right types (spec, SDK).",
    "tool-call-head": "The first fragment of a tool call has id, type and function.name (SDK: the call is nameless).",
    "tool-call-once": "No later fragment of a tool call has an id or a name (SDK: it is joined to the first).",
    "tool-call-index": "The tool calls of a choice are numbered from 0 and begin one after the other (SDK: they are "
    "kept in a list).",
    "finish-reason": "A finish reason is stop, length, tool_calls, content_filter or function_call (spec).",
    "finish-call": "The finish reason tool_calls or function_call follows such a call (spec).",
    "finish-once": "A choice has one finish reason (ending).",
    "finish-last": "A choice that has finished brings nothing more (ending).",
    "finish-missing": "In a stream that succeeds each choice gets its finish reason (ending).",
    "usage-shape": "Usage has prompt_tokens, completion_tokens and total_tokens, whole numbers of at least 0 (spec).",
    "usage-sum": "total_tokens is prompt_tokens plus completion_tokens (spec).",
    "usage-choices": "The chunk with the usage has no choices (spec).",
    "usage-once": "One chunk has the usage, on every other it is null or absent (spec).",
    "usage-last": "The usage comes after every finish reason and directly before '[DONE]' (spec).",
    "usage-missing": "A stream that succeeds has the usage where include_usage was asked for (spec).",
    "usage-unasked": "A stream has no usage where include_usage was not asked for (spec).",
    "error-alone": "An object with 'error' has no other key (SDK: whatever else it says is lost).",
    "error-shape": "An error has message, type, param and code; message is a text, type a string, param and code are "
    "strings or null, never numbers (spec).",
    "error-last": "After an error frame nothing follows but '[DONE]' (ending).",
    "outcome-one": "A stream does not both succeed and fail (ending).",
    "outcome-none": "A stream has a choice or an error frame (ending).",
    "done-missing": "A stream ends with 'data: [DONE]' (spec; SDK: without it a cut is not noticed).",
}
"""Every rule: its name, and what must hold. Names are stable."""

_SAME_ON_ALL_CHUNKS: Final = ("id", "created", "model")
_FINISH_REASONS: Final = ("stop", "length", "tool_calls", "content_filter", "function_call")
_BROUGHT_BY_A_DELTA: Final = ("content", "refusal", "tool_calls", "function_call")

_Finding = tuple[str, str]
"""A rule and what was found."""
_Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: its name in :data:`RULES`, what was found, and the start of the event, where it was one."""

    rule: str
    message: str
    excerpt: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}" + (f" in {self.excerpt}" if self.excerpt else "")


# Shapes: which fields an object has, and of which kind.


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class _Shape:
    rule: str
    required: Mapping[str, _Kind] = field(default_factory=dict)
    optional: Mapping[str, _Kind] = field(default_factory=dict)

    def misfits(self, value: object, path: str) -> Iterator[_Finding]:
        if not isinstance(value, dict):
            yield self.rule, f"{path} is {_show(value)}, not an object"
            return
        prefix = f"{path}." if path else ""
        for name in (name for name in self.required if name not in value):
            yield self.rule, f"{prefix}{name} is missing"
        for name, kind in (*self.required.items(), *self.optional.items()):
            if name in value and not kind.holds(value[name]):
                yield self.rule, f"{prefix}{name} is {_show(value[name])}, not {kind.name}"


def _show(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


_TEXT: Final = _Kind("a string", lambda value: isinstance(value, str))
_FILLED_TEXT: Final = _Kind("a string with something in it", lambda value: isinstance(value, str) and value != "")
_TEXT_OR_NULL: Final = _Kind("a string or null", lambda value: value is None or isinstance(value, str))
_WHOLE: Final = _Kind("a whole number", lambda value: type(value) is int)
_COUNT: Final = _Kind("a whole number of at least 0", _is_count)
_ARRAY: Final = _Kind("an array", lambda value: isinstance(value, list))
_OBJECT: Final = _Kind("an object", lambda value: isinstance(value, dict))
_OBJECT_OR_NULL: Final = _Kind("an object or null", lambda value: value is None or isinstance(value, dict))


def _constant(text: str) -> _Kind:
    return _Kind(f"'{text}'", lambda value: value == text)


_CHUNK: Final = _Shape(
    "chunk-shape",
    {
        "id": _FILLED_TEXT,
        "object": _constant("chat.completion.chunk"),
        "created": _WHOLE,
        "model": _TEXT,
        "choices": _ARRAY,
    },
    {"usage": _OBJECT_OR_NULL},
)
_CHOICE: Final = _Shape(
    "choice-shape", {"index": _COUNT, "delta": _OBJECT, "finish_reason": _TEXT_OR_NULL}, {"logprobs": _OBJECT_OR_NULL}
)
_DELTA: Final = _Shape(
    "delta-shape",
    optional={
        "role": _TEXT,
        "content": _TEXT_OR_NULL,
        "refusal": _TEXT_OR_NULL,
        "tool_calls": _ARRAY,
        "function_call": _OBJECT,
    },
)
_FUNCTION_CALL: Final = _Shape("delta-shape", optional={"name": _TEXT, "arguments": _TEXT})
_TOOL_CALL: Final = _Shape(
    "tool-call-shape", {"index": _COUNT, "function": _OBJECT}, {"id": _TEXT, "type": _constant("function")}
)
_FUNCTION: Final = _Shape("tool-call-shape", optional={"name": _TEXT, "arguments": _TEXT})
_USAGE: Final = _Shape("usage-shape", {"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT})
_ERROR: Final = _Shape(
    "error-shape", {"message": _FILLED_TEXT, "type": _TEXT, "param": _TEXT_OR_NULL, "code": _TEXT_OR_NULL}
)


# State: what must be remembered of the events so far.


@dataclass(slots=True)
class _Choice:
    begun: bool = False
    finished: bool = False
    tool_calls: int = 0
    function_call: bool = False


@dataclass(slots=True)
class _Stream:
    include_usage: bool | None
    asked_choices: int | None
    head: dict[str, str | int] = field(default_factory=dict)
    choices: dict[int, _Choice] = field(default_factory=dict)
    usage: bool = False
    failed: bool = False

    @property
    def succeeded(self) -> bool:
        """Every choice has finished, as far as can be known."""
        return len(self.choices) >= (self.asked_choices or 1) and all(c.finished for c in self.choices.values())


# The rules of an event, each a generator of findings.


def _judge_event(stream: _Stream, value: _Json) -> Iterator[_Finding]:
    if stream.failed:
        yield "error-last", "an event follows the error frame"
        return
    if stream.usage:
        yield "usage-last", "an event other than '[DONE]' follows the usage"
    yield from _judge_error(stream, value) if "error" in value else _judge_chunk(stream, value)


def _judge_error(stream: _Stream, frame: _Json) -> Iterator[_Finding]:
    if stream.succeeded:
        yield "outcome-one", "an error frame follows the last finish reason"
    if len(frame) > 1:
        yield "error-alone", f"the error frame has {len(frame) - 1} other keys"
    yield from _ERROR.misfits(frame["error"], "error")
    stream.failed = True


def _judge_chunk(stream: _Stream, chunk: _Json) -> Iterator[_Finding]:
    yield from _CHUNK.misfits(chunk, "")
    for rules in (_same_head, _choices, _usage):
        yield from rules(stream, chunk)


def _same_head(stream: _Stream, chunk: _Json) -> Iterator[_Finding]:
    for name in _SAME_ON_ALL_CHUNKS:
        value = chunk.get(name)
        if isinstance(value, str | int) and stream.head.setdefault(name, value) != value:
            yield "chunk-same", f"{name} is {_show(value)}, but was {_show(stream.head[name])}"


def _choices(stream: _Stream, chunk: _Json) -> Iterator[_Finding]:
    entries = chunk.get("choices")
    if not isinstance(entries, list):
        return
    if not entries and chunk.get("usage") is None and chunk.get("moderation") is None:
        yield "choices-empty", "choices is empty on a chunk that brings neither usage nor moderation"
    for position, entry in enumerate(entries):
        path = f"choices[{position}]"
        yield from _CHOICE.misfits(entry, path)
        if isinstance(entry, dict) and _is_count(entry.get("index")):
            yield from _judge_choice(stream, entry, path)


def _judge_choice(stream: _Stream, entry: _Json, path: str) -> Iterator[_Finding]:
    index = entry["index"]
    if index >= MAX_CHOICES:
        yield "choice-index", f"{path}.index is {index}"
        return
    choice = stream.choices.setdefault(index, _Choice())
    delta = entry.get("delta")
    if isinstance(delta, dict):
        for rules in (_delta_shape, _role, _after_finish, _tool_calls):
            yield from rules(choice, delta, f"{path}.delta")
    yield from _finish(choice, entry.get("finish_reason"), path)


def _delta_shape(choice: _Choice, delta: _Json, path: str) -> Iterator[_Finding]:
    yield from _DELTA.misfits(delta, path)
    if isinstance(delta.get("function_call"), dict):
        choice.function_call = True
        yield from _FUNCTION_CALL.misfits(delta["function_call"], f"{path}.function_call")


def _role(choice: _Choice, delta: _Json, path: str) -> Iterator[_Finding]:
    role = delta.get("role")
    if not choice.begun and role != "assistant":
        yield "role-first", f"{path} is the first of its choice, its role is {_show(role)}"
    elif choice.begun and role:
        yield "role-once", f"{path}.role is there again"
    choice.begun = True


def _after_finish(choice: _Choice, delta: _Json, path: str) -> Iterator[_Finding]:
    brought = [name for name in _BROUGHT_BY_A_DELTA if delta.get(name)]
    if choice.finished and brought:
        yield "finish-last", f"{path} brings {brought[0]} after the finish reason"


def _tool_calls(choice: _Choice, delta: _Json, path: str) -> Iterator[_Finding]:
    fragments = delta.get("tool_calls")
    for position, fragment in enumerate(fragments if isinstance(fragments, list) else ()):
        place = f"{path}.tool_calls[{position}]"
        yield from _TOOL_CALL.misfits(fragment, place)
        if isinstance(fragment, dict) and _is_count(fragment.get("index")):
            yield from _tool_call(choice, fragment, place)


def _tool_call(choice: _Choice, fragment: _Json, path: str) -> Iterator[_Finding]:
    function = fragment.get("function")
    if isinstance(function, dict):
        yield from _FUNCTION.misfits(function, f"{path}.function")
    name = function.get("name") if isinstance(function, dict) else None
    index = fragment["index"]
    if index == choice.tool_calls:
        choice.tool_calls += 1
        if not (fragment.get("id") and fragment.get("type") and name):
            yield "tool-call-head", f"{path} begins a call without id, type or function.name"
    elif index > choice.tool_calls:
        yield "tool-call-index", f"{path}.index is {index} after {choice.tool_calls} calls"
    elif fragment.get("id") or name:
        yield "tool-call-once", f"{path} has an id or a name again"


def _finish(choice: _Choice, reason: object, path: str) -> Iterator[_Finding]:
    if not isinstance(reason, str):
        return
    if reason not in _FINISH_REASONS:
        yield "finish-reason", f"{path}.finish_reason is {_show(reason)}"
    if choice.finished:
        yield "finish-once", f"{path} has a finish reason again"
    if (reason == "tool_calls" and not choice.tool_calls) or (reason == "function_call" and not choice.function_call):
        yield "finish-call", f"{path}.finish_reason is {_show(reason)}, but there was no such call"
    choice.finished = True


def _usage(stream: _Stream, chunk: _Json) -> Iterator[_Finding]:
    usage = chunk.get("usage")
    if not isinstance(usage, dict):
        return
    yield from _USAGE.misfits(usage, "usage")
    counts: list[Any] = [usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    if all(_is_count(count) for count in counts) and counts[0] + counts[1] != counts[2]:
        yield "usage-sum", f"usage says {counts[0]} + {counts[1]} = {counts[2]}"
    if stream.usage:
        yield "usage-once", "usage is there again"
    if chunk.get("choices"):
        yield "usage-choices", "the chunk with the usage has choices"
    if not stream.succeeded:
        yield "usage-last", "the usage comes before the last finish reason"
    if stream.include_usage is False:
        yield "usage-unasked", "usage is there, but was not asked for"
    stream.usage = True


def _judge_end(stream: _Stream, *, done: bool) -> Iterator[_Finding]:
    if not done:
        yield "done-missing", "the stream ends without '[DONE]'"
    if stream.failed:
        return
    if not stream.choices:
        yield "outcome-none", "the stream has neither a choice nor an error frame"
        return
    for index in sorted(index for index, choice in stream.choices.items() if not choice.finished):
        yield "finish-missing", f"choice {index} has no finish reason"
    count = stream.asked_choices or len(stream.choices)
    if sorted(stream.choices) != list(range(count)):
        yield "choice-index", f"the stream has the choices {sorted(stream.choices)}"
    if stream.include_usage and stream.succeeded and not stream.usage:
        yield "usage-missing", "usage was asked for, but is not there"


class ChatStreamValidator:
    """Judges one stream: :meth:`feed` its bytes as they come, then :meth:`end`.

    ``include_usage`` is what the request's ``stream_options`` said, ``choices`` its ``n``; ``None`` where that is not
    known.
    """

    def __init__(self, *, include_usage: bool | None = None, choices: int | None = None) -> None:
        self._reader = StrictSseReader()
        self._stream = _Stream(include_usage, choices)
        self._violations: list[Violation] = []
        self._reports: Counter[str] = Counter()

    def feed(self, chunk: bytes) -> None:
        """Judge the next bytes of the body."""
        self._take(self._reader.feed(chunk))

    def end(self) -> list[Violation]:
        """Judge the end of the body and return everything that was found. To be called once."""
        self._take(self._reader.end())
        self._report_all(_judge_end(self._stream, done=self._reader.done), b"")
        return list(self._violations)

    def _take(self, items: list[SseEvent | FramingFault]) -> None:
        for item in items:
            if isinstance(item, FramingFault):
                self._report(item.rule, item.message, item.excerpt)
            elif item.data and item.data != DONE:
                self._event(item.data)

    def _event(self, data: bytes) -> None:
        value = _parsed(data)
        if isinstance(value, dict):
            self._report_all(_judge_event(self._stream, value), data)
        else:
            self._report("event-json", "the data of an event is neither a JSON object nor '[DONE]'", data)

    def _report_all(self, findings: Iterator[_Finding], data: bytes) -> None:
        for rule, message in findings:
            self._report(rule, message, data)

    def _report(self, rule: str, message: str, data: bytes) -> None:
        self._reports[rule] += 1
        if self._reports[rule] <= MAX_REPORTS_PER_RULE:
            excerpt = data[: MAX_EXCERPT_CHARS * 4].decode("utf-8", "replace")[:MAX_EXCERPT_CHARS]
            self._violations.append(Violation(rule, message, excerpt))


def judge(body: bytes, *, include_usage: bool | None = None, choices: int | None = None) -> list[Violation]:
    """Judge a whole body. An empty list says that it keeps every rule."""
    validator = ChatStreamValidator(include_usage=include_usage, choices=choices)
    validator.feed(body)
    return validator.end()


def _parsed(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
