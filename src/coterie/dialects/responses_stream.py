"""Chunks of the lingua franca into the events of a Responses stream. Pure.

The rules of what comes out, for any chunks that go in:

* every event is ``event: type``, ``data: {json}`` and a blank line, LF only; ``sequence_number`` counts from 0 without
  a gap; ``[DONE]`` is last;
* ``response.created``, ``response.queued`` where it was, and ``response.in_progress`` are first (the last is missing
  where a response ends while it is queued). They come with the first event that says something, unless they are asked
  for, so that whoever holds the HTTP status until then holds it until there is an answer;
* an item has one id from its first event to the final output; its ``output_index`` is its position there, the
  ``content_index`` of a part its position in its item, and neither is ever shared;
* every item and part that was begun is closed, items in the order of their output (:mod:`.responses_items`). Before a
  failure, a cancellation, and where tokens ran out, those that were not at their end are closed as ``incomplete``;
* the last event has the whole response, which is what its events add up to: with the partial output, and with the
  usage as far as it is known;
* the stream ends exactly once: by :meth:`end`, :meth:`fail` or :meth:`cancel`; after that, every method returns
  nothing;
* a stream does not both succeed and fail: nothing is closed for the finish reason until :meth:`end` has found the
  answer whole.

What a chunk says is told in this order:

=============================  =============  =====================  ================================================
said in the delta              item           piece                  begins anew
=============================  =============  =====================  ================================================
reasoning_content, reasoning   reasoning      reasoning_text         after anything else but a call's arguments
reasoning_details              reasoning      reasoning_text,        the same; a part after one of the other kind
                                              summary_text
content                        message        output_text            a message after reasoning or the begin of a call
annotations                    (the text's)   (the text's)           never: they wait for text where there is none
refusal                        message        refusal                a part after text, and text after it
tool_calls                     function_call  arguments              with each call
=============================  =============  =====================  ================================================

Reasoning or a message is finished when the next item begins; more arguments of a call begin none. A call is finished by
nothing but the end of the answer, for its arguments may go on at any time (:mod:`coterie.wire.choices`): where the
answer does not complete, nobody knows that they were whole. An item is closed when it is finished and those before it
are closed; the rest at the end. Arguments pass as they came, JSON or not.

``reasoning_details`` count where the answer says its reasoning in no other field (else they say the same again), and of
their entries those with a text or a summary.

============================  ============  ======================  ==================
the end                       last event    status of the response  ``incomplete_details``
============================  ============  ======================  ==================
stop, tool_calls              completed     completed               null
length                        incomplete    incomplete              max_output_tokens
content_filter                incomplete    incomplete              content_filter
:meth:`cancel`                incomplete    cancelled               null
:meth:`fail`                  failed        failed                  null, ``error`` set
:meth:`fail`, by the policy   incomplete    incomplete              content_filter
============================  ============  ======================  ==================

A provider that stops in mid-answer because of its content policy has done what ``content_filter`` says. Where nothing
was said before, it is a failure like any other.

The usage of an answer that broke off is the last ``usage_so_far`` that stood in a chunk.

A whole answer that says nothing has one message with an empty text. Log probabilities beside nothing go to the open
text, or wait for the next; those of tokens that are no text have no place here. At most 64 of them, and 64 annotations,
wait; none does for a text that never comes. Fields that are not known here have no place either, but for
``service_tier``.

``feed`` and ``end`` raise ``ApiError`` for what breaks the rules of :mod:`coterie.wire.choices`; the caller then fails
the stream with it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from coterie.dialects.responses_items import (
    PIECES,
    REASONING_STEMS,
    Event,
    EventWriter,
    OutputItem,
    Piece,
    ReasoningEvents,
    Seal,
    new_item_id,
)
from coterie.dialects.responses_values import (
    response_annotations,
    response_logprobs,
    response_thoughts,
    response_usage,
    tier_of,
)
from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.errors.render_responses import error_event as error_fields
from coterie.errors.render_responses import response_error
from coterie.wire.choices import Choices
from coterie.wire.lingua import Chunk

_INCOMPLETE: Final[Mapping[str, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Finish reasons of answers that are not complete, and what ``incomplete_details`` says."""

_POLICY: Final = "content_policy_violation"

_REASONING: Final = ("reasoning_content", "reasoning")
"""Where providers put reasoning; the first is used where a delta has both."""

_MOST_HELD: Final = 64
"""Annotations, and log probabilities, that wait for a text."""


class ResponseStream:
    """The stream of one response.

    ``head`` is every field of the Response object that is known before the answer: ``id``, ``created_at`` (Unix time in
    seconds), ``model`` and what echoes the request. ``logprobs`` says whether log probabilities were asked for,
    ``error_event`` whether a failure has its own event before ``response.failed``, ``queued`` that the response waits
    until :meth:`start`. ``seal`` makes the ``encrypted_content`` of reasoning items, where that was asked for.
    ``silent``: it is to say nothing, so it needs no message to do so. ``clock`` gives Unix time in seconds.
    """

    def __init__(
        self,
        head: dict[str, Any],
        *,
        logprobs: bool = False,
        error_event: bool = True,
        queued: bool = False,
        seal: Seal | None = None,
        reasoning_events: ReasoningEvents = "openai",
        silent: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._head = head
        self._silent = silent
        self._choices = Choices(1)
        self._writer = EventWriter()
        self._logprobs = logprobs
        self._error_event = error_event
        self._seal = seal
        self._reasoning_stem = REASONING_STEMS[reasoning_events]
        self._clock = clock
        self._status = "queued" if queued else "in_progress"
        self._begun = self._started = self._ended = False
        self._finish = ""
        self._usage_so_far: dict[str, Any] | None = None
        self._changed: dict[str, Any] = {}
        """Fields of the response that are no longer those of the head."""
        self._extra: dict[str, Any] | None = None
        """What the newest text that took the short way had beside it."""
        self._out: list[bytes] = []
        self._output: list[OutputItem] = []
        self._open: deque[OutputItem] = deque()
        self._speaker: OutputItem | None = None
        """The message or the reasoning that goes on where text of its kind comes."""
        self._text: Piece | None = None
        """The speaker's last part, where it is text."""
        self._calls: list[OutputItem] = []
        self._thinks_plainly = False
        """Whether reasoning came in a field of its own."""
        self._waiting_logprobs: list[dict[str, Any]] = []
        self._waiting_annotations: list[dict[str, Any]] = []

    @property
    def status(self) -> str:
        """The status of the response as of now."""
        return self._status

    @property
    def usage(self) -> dict[str, Any] | None:
        """The usage as the Responses API has it; ``None`` before it came, and where the provider does not count.

        That of an answer which broke off is known as far as the provider had counted.
        """
        return response_usage(self._choices.usage or (self._usage_so_far if self._ended else None))

    @property
    def chat_usage(self) -> dict[str, Any]:
        """The usage as the provider sent it; empty before it came."""
        return self._choices.usage or {}

    @property
    def response(self) -> dict[str, Any]:
        """The whole Response object as of now. Fresh, but for values inside of the head."""
        return {
            "id": self._head["id"],
            "object": "response",
            "status": self._status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            **self._head,
            **self._changed,
            "output": [item.wire() for item in self._output],
            "usage": self.usage,
        }

    def begin(self) -> list[bytes]:
        """The events that tell of the response. ``response.in_progress`` is not among them while it is queued."""
        self._begin()
        return self._take()

    def start(self) -> list[bytes]:
        """The event that tells that a response is not, or no longer, queued; those of :meth:`begin` where due."""
        self._start()
        return self._take()

    def feed(self, chunk: Chunk) -> list[bytes]:
        """The events for ``chunk``. Raises ``ApiError``."""
        if self._ended:
            return []
        if len(chunk) > 1:
            self._changed |= tier_of(chunk)
            self._usage_so_far = chunk.get("usage_so_far") or self._usage_so_far
        said = self._choices.admit(chunk)
        if self._text is not None and len(said) == 1 and _is_text_alone(said[0]):
            return [self._writer.write_delta(self._text, said[0]["delta"]["content"])]
        for choice in said:
            self._say(choice)
        return self._take()

    def text(self, index: int, text: str, extra: dict[str, Any] | None) -> bytes | None:
        """The event for a piece of text with which the answer goes on; ``None``, and nothing is done, where it takes
        :meth:`feed` to tell.
        """
        if self._text is None or self._ended or not self._choices.goes_on(index):
            return None
        if extra is not self._extra:
            self._extra = extra
            self._changed |= tier_of({"extra": extra})
        return self._writer.write_delta(self._text, text)

    def end(self) -> list[bytes]:
        """The events that end a whole answer. Raises ``ApiError`` where it is not whole."""
        if self._ended:
            return []
        self._choices.check_whole()
        self._usage_so_far = None
        if not self._output and not self._silent:
            self._piece("message", "output_text")
        reason = _INCOMPLETE.get(self._finish)
        if reason is not None:
            return self._finish_as("incomplete", "incomplete", incomplete_details={"reason": reason})
        return self._finish_as("completed", "completed", completed_at=int(self._clock()))

    def fail(self, error: ApiError, request_id: str) -> list[bytes]:
        """The events that end an answer which failed."""
        if self._ended:
            return []
        if error.code == _POLICY and self._output:
            return self._finish_as("incomplete", "incomplete", incomplete_details={"reason": "content_filter"})
        told = [("error", error_fields(error, request_id))] if self._error_event else []
        return self._finish_as("failed", "failed", told, error=response_error(error, request_id))

    def cancel(self) -> list[bytes]:
        """The events that end an answer which nobody wants any more."""
        return [] if self._ended else self._finish_as("incomplete", "cancelled")

    def _begin(self) -> None:
        if self._begun or self._ended:
            return
        self._begun = True
        self._emit(("response.created", {"response": self.response}))
        if self._status == "queued":
            self._emit(("response.queued", {"response": self.response}))
        else:
            self._start()

    def _start(self) -> None:
        self._begin()
        if self._started or self._ended:
            return
        self._started, self._status = True, "in_progress"
        self._emit(("response.in_progress", {"response": self.response}))

    def _finish_as(self, kind: str, status: str, told: Iterable[Event] = (), **changed: Any) -> list[bytes]:
        """End the stream with an event of ``kind``, after closing what is open and telling what is ``told``."""
        self._begin()
        for item in self._open:
            is_whole = item.is_finished or status == "completed"
            self._emit(*item.closing("completed" if is_whole else "incomplete", self._seal))
        self._emit(*told)
        self._ended, self._status = True, status
        self._changed |= changed
        self._emit((f"response.{kind}", {"response": self.response}))
        return [*self._take(), DONE]

    def _emit(self, *events: Event) -> None:
        self._out += map(self._writer.write, events)

    def _take(self) -> list[bytes]:
        out, self._out = self._out, []
        return out

    def _say(self, choice: dict[str, Any]) -> None:
        delta = choice["delta"]
        thought = next((delta[name] for name in _REASONING if isinstance(delta.get(name), str)), None)
        if thought:
            self._thinks_plainly = True
            self._add("reasoning", "reasoning_text", thought)
        elif "reasoning_details" in delta and not self._thinks_plainly:
            for kind, text in response_thoughts(delta["reasoning_details"]):
                self._add("reasoning", kind, text)
        self._say_text(delta, choice["logprobs"])
        if "refusal" in delta:
            self._add("message", "refusal", delta["refusal"])
        for fragment in delta.get("tool_calls", ()):
            self._add_to_call(fragment)
        self._finish = choice["finish_reason"] or self._finish

    def _say_text(self, delta: dict[str, Any], logprobs: dict[str, Any] | None) -> None:
        """Tell the text of ``delta``, and what waits for text or for which no text is needed."""
        text = delta.get("content", "")
        if self._logprobs and logprobs and (text or not delta):
            self._waiting_logprobs += response_logprobs(logprobs)
        if "annotations" in delta:
            self._waiting_annotations += response_annotations(delta["annotations"])
        if not text and self._text is None:
            del self._waiting_logprobs[_MOST_HELD:], self._waiting_annotations[_MOST_HELD:]
            return
        if self._waiting_logprobs:
            piece = self._piece("message", "output_text")
            logprobs_of_text, self._waiting_logprobs = self._waiting_logprobs, []
            self._emit(piece.add_with(text, logprobs_of_text))
        elif text:
            self._add("message", "output_text", text)
        if self._waiting_annotations:
            piece = self._piece("message", "output_text")
            annotations, self._waiting_annotations = self._waiting_annotations, []
            self._emit(*map(piece.annotate, annotations))

    def _add(self, item_kind: str, kind: str, text: str) -> None:
        piece = self._piece(item_kind, kind)
        self._out.append(self._writer.write_delta(piece, text))

    def _piece(self, item_kind: str, kind: str) -> Piece:
        """The open part of ``kind`` in an open item of ``item_kind``, begun where there is none."""
        item = self._speaker
        if item is None or item.kind != item_kind:
            item = self._speaker = self._begin_item(OutputItem(item_kind, new_item_id(item_kind), len(self._output)))
        piece = item.pieces[-1] if item.pieces else None
        if piece is None or piece.kind != kind:
            if piece is not None:
                self._emit(*item.closing_of(piece))
            piece = item.add_piece(kind, self._reasoning_stem if kind == "reasoning_text" else PIECES[kind].stem)
            self._emit(*piece.opening())
        self._text = piece if kind == "output_text" else None
        return piece

    def _add_to_call(self, fragment: dict[str, Any]) -> None:
        """Tell a fragment of a tool call, which is the next call or one that is open."""
        function = fragment["function"]
        if fragment["index"] == len(self._calls):
            head = {"call_id": fragment["id"], "name": function["name"]}
            item = OutputItem("function_call", new_item_id("function_call"), len(self._output), **head)
            self._calls.append(self._begin_item(item))
            item.add_piece("arguments")
        if function["arguments"]:
            piece = self._calls[fragment["index"]].pieces[0]
            self._out.append(self._writer.write_delta(piece, function["arguments"]))

    def _begin_item(self, item: OutputItem) -> OutputItem:
        """Begin ``item``, which ends whoever spoke before; closes what is finished and waits for nobody."""
        self._start()
        if self._speaker is not None:
            self._speaker.is_finished = True
            self._speaker = self._text = None
        while self._open and self._open[0].is_finished:
            self._emit(*self._open.popleft().closing("completed", self._seal))
        self._output.append(item)
        self._open.append(item)
        self._emit(item.opening())
        return item


def _is_text_alone(choice: dict[str, Any]) -> bool:
    delta = choice["delta"]
    return len(delta) == 1 and "content" in delta and choice["finish_reason"] is None and choice["logprobs"] is None
