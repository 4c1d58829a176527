"""A judge of Responses streams, ours or a stranger's. Pure: bytes in, violations out.

What it promises:

* It knows the protocol and nothing of any server. Every rule stands in
  :data:`~coterie.dialects.responses_rules.RULES`, with where it comes from: OpenAI's specification, Open Responses,
  both, what breaks an official SDK (SDK), or the contract that a client can tell every ending from every other
  (ending, contract).
* No input makes it raise, and how a stream is cut into reads does not change its verdict.
* Memory is bounded: of texts and items only digests are kept, a stream has at most :data:`MAX_ITEMS` items of
  :data:`MAX_PARTS` parts, an event is read up to its limit, and each rule is reported a few times.

Where the sources are silent:

* The text of a part or call begins with what its ``added`` event says of it, mostly nothing.
* Arguments and texts of an item that is done as "incomplete" need no done event of their own: it was cut short.
* An empty text needs neither deltas nor a done event.
* A response that was cancelled ends with response.incomplete and the status "cancelled".
* A response that ends as failed or cancelled may never have been in progress.
* The names response.reasoning_text.* (OpenAI) and response.reasoning.* (Open Responses) say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from coterie.dialects.chat_validator import (
    MAX_EXCERPT_CHARS,
    MAX_REPORTS_PER_RULE,
    Violation,
    _is_count,
    _parsed,
    _show,
)
from coterie.dialects.responses_item_rules import (
    MAX_ITEMS,
    MAX_PARTS,
    PARTS,
    TEXTS,
    Stream,
    digest_of,
    judge_annotation,
    judge_item,
    judge_of_item,
    judge_part,
    judge_text,
    short_id,
)
from coterie.dialects.responses_reader import NamedSseReader
from coterie.dialects.responses_rules import (
    RULES,
    Finding,
    Json,
    error_event_findings,
    event_findings,
    response_findings,
)
from coterie.wire.sse import DONE, FramingFault, SseEvent

__all__ = ["MAX_ITEMS", "MAX_PARTS", "RULES", "ResponsesStreamValidator", "Violation", "judge"]

_STATUSES: Final[Mapping[str, tuple[str, ...]]] = {
    "response.created": ("queued", "in_progress"),
    "response.queued": ("queued",),
    "response.in_progress": ("in_progress",),
    "response.completed": ("completed",),
    "response.incomplete": ("incomplete", "cancelled"),
    "response.failed": ("failed",),
}
"""The events that carry a response, and which status fits each."""
_TERMINAL: Final = ("response.completed", "response.incomplete", "response.failed")
_NEVER_STARTED: Final = ("failed", "cancelled")


# The rules of an event, each a generator of findings.


def _judge_event(stream: Stream, name: str | None, event: Json) -> Iterator[Finding]:
    kind = event.get("type")
    yield from _sequence(stream, event)
    if not isinstance(kind, str):
        yield "event-shape", f"type is {_show(kind)}, not a string"
        return
    if name != kind:
        yield "event-name", f"the type is {_show(kind)}, the 'event:' line says {_show(name)}"
    yield from event_findings(kind, event)
    yield from _order(stream, kind)
    yield from _rules_of(stream, kind, event)
    stream.events += 1


def _rules_of(stream: Stream, kind: str, event: Json) -> Iterator[Finding]:
    if kind in _STATUSES:
        return _lifecycle(stream, kind, event)
    if kind == "error":
        return _error(stream, event)
    stem, _, step = kind.rpartition(".")
    if stem == "response.output_item" and step in ("added", "done"):
        return judge_item(stream, step, event)
    if stem in PARTS and step in ("added", "done"):
        return judge_part(stream, PARTS[stem], step, event)
    if stem in TEXTS and step in ("delta", "done"):
        return judge_text(stream, TEXTS[stem], step, event)
    if kind == "response.output_text.annotation.added":
        return judge_annotation(stream, event)
    return judge_of_item(stream, event)


def _sequence(stream: Stream, event: Json) -> Iterator[Finding]:
    number = event.get("sequence_number")
    if number != stream.sequence or type(number) is not int:
        yield "sequence", f"sequence_number is {_show(number)}, not {stream.sequence}"
    stream.sequence = 1 + (number if isinstance(number, int) and _is_count(number) else stream.sequence)


def _order(stream: Stream, kind: str) -> Iterator[Finding]:
    if (stream.events == 0) != (kind == "response.created"):
        yield "created-first", f"the {'first event' if not stream.events else 'event after the first'} is {_show(kind)}"
    if stream.terminal is not None:
        yield "terminal-last", f"{_show(kind)} follows {stream.terminal}"
    if stream.after_error and kind != "response.failed":
        yield "error-failed", f"{_show(kind)} follows the error event"
    stream.after_error = False


def _lifecycle(stream: Stream, kind: str, event: Json) -> Iterator[Finding]:
    response = event.get("response")
    if kind in ("response.queued", "response.in_progress"):
        yield from _progress(stream, kind)
    stream.seen.add(kind)
    if isinstance(response, dict):
        yield from _response(stream, kind, response)
    if kind in _TERMINAL:
        yield from _terminal(stream, kind, response if isinstance(response, dict) else {})


def _progress(stream: Stream, kind: str) -> Iterator[Finding]:
    if kind in stream.seen:
        yield "progress-order", f"{kind} is there again"
    elif stream.items or (kind == "response.queued" and "response.in_progress" in stream.seen):
        yield "progress-order", f"{kind} comes late"


def _response(stream: Stream, kind: str, response: Json) -> Iterator[Finding]:
    yield from response_findings(response)
    status = response.get("status")
    if status not in _STATUSES[kind]:
        yield "status", f"response.status is {_show(status)}"
    given = response.get("id")
    if isinstance(given, str):
        stream.id = short_id(given) if stream.id is None else stream.id
        if short_id(given) != stream.id:
            yield "response-same", f"response.id is {_show(given)}, but was {_show(stream.id)}"


def _terminal(stream: Stream, kind: str, response: Json) -> Iterator[Finding]:
    first = stream.terminal is None
    stream.terminal = kind
    if "response.in_progress" not in stream.seen and response.get("status") not in _NEVER_STARTED:
        yield "progress-order", f"{kind} comes without response.in_progress"
    for index, item in sorted(stream.items.items()):
        if item.done is None and first:
            yield "item-closed", f"the item at output_index {index} is open at the end"
    output = response.get("output")
    if isinstance(output, list) and first:
        yield from _output(stream, output)


def _output(stream: Stream, output: list[Any]) -> Iterator[Finding]:
    for index in sorted(index for index in stream.items if index >= len(output)):
        yield "output-final", f"the item at output_index {index} is not in the final output"
    for position, item in enumerate(output[:MAX_ITEMS]):
        known = stream.items.get(position)
        given = item.get("id") if isinstance(item, dict) else None
        if known is None:
            yield "output-final", f"output[{position}] never came as an event"
        elif not isinstance(given, str) or short_id(given) != known.id:
            yield "item-id", f"output[{position}].id is {_show(given)}, but was {_show(known.id)}"
        elif known.done and digest_of(item) not in (known.done, b""):
            yield "output-final", f"output[{position}] is not as it was when done"


def _error(stream: Stream, event: Json) -> Iterator[Finding]:
    yield from error_event_findings(event)
    if stream.error_events:
        yield "error-failed", "an error event is there again"
    stream.error_events += 1
    stream.after_error = True


def _judge_end(stream: Stream, *, done: bool) -> Iterator[Finding]:
    if stream.terminal is None:
        yield "terminal-missing", "the stream ends without response.completed, .incomplete or .failed"
    if not done:
        yield "done-missing", "the stream ends without '[DONE]'"


class ResponsesStreamValidator:
    """Judges one stream: :meth:`feed` its bytes as they come, then :meth:`end`.

    ``done`` is false for a server that is known to end its streams without "[DONE]": OpenAI's own does.
    """

    def __init__(self, *, done: bool = True) -> None:
        self._wants_done = done
        self._reader = NamedSseReader()
        self._stream = Stream()
        self._violations: list[Violation] = []
        self._reports: Counter[str] = Counter()

    def feed(self, chunk: bytes) -> None:
        """Judge the next bytes of the body."""
        self._take(self._reader.feed(chunk))

    def end(self) -> list[Violation]:
        """Judge the end of the body and return everything that was found. To be called once."""
        self._take(self._reader.end())
        self._report_all(_judge_end(self._stream, done=self._reader.done or not self._wants_done), b"")
        return list(self._violations)

    def _take(self, items: Iterable[SseEvent | FramingFault]) -> None:
        for item in items:
            if isinstance(item, FramingFault):
                self._report(item.rule, item.message, item.excerpt)
            elif item.data == DONE:
                self._done(item)
            elif item.data:
                self._event(item)

    def _done(self, item: SseEvent) -> None:
        if item.event is not None:
            self._report("event-name", "'[DONE]' has an 'event:' line", item.event.encode())

    def _event(self, item: SseEvent) -> None:
        value = _parsed(item.data)
        if isinstance(value, dict):
            self._report_all(_judge_event(self._stream, item.event, value), item.data)
        else:
            self._report("event-json", "the data of an event is neither a JSON object nor '[DONE]'", item.data)

    def _report_all(self, findings: Iterator[Finding], data: bytes) -> None:
        for rule, message in findings:
            self._report(rule, message, data)

    def _report(self, rule: str, message: str, data: bytes) -> None:
        self._reports[rule] += 1
        if self._reports[rule] <= MAX_REPORTS_PER_RULE:
            excerpt = data[: MAX_EXCERPT_CHARS * 4].decode("utf-8", "replace")[:MAX_EXCERPT_CHARS]
            self._violations.append(Violation(rule, message, excerpt))


def judge(body: bytes, *, done: bool = True) -> list[Violation]:
    """Judge a whole body. An empty list says that it keeps every rule."""
    validator = ResponsesStreamValidator(done=done)
    validator.feed(body)
    return validator.end()
