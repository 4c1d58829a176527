"""What the events of a Responses stream add up to, and how one that broke off is ended. Pure.

:func:`fold` goes by the events alone, as a client does: the lifecycle events have the response, all but its output;
the output is the items in the order of their indexes, each with the deltas that came to it. What no delta tells (the
status of an item, ``encrypted_content``) is taken from its ``output_item.done``; its text there is not looked at.

:func:`close` writes the end of a stream that was cut between any two of its events, so that the whole keeps the rules
of :mod:`coterie.dialects.responses_stream`: it goes on from exactly where the telling stopped.

Both are for streams of that module: what they do with others is not defined. ``[DONE]`` may be among the events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from coterie.dialects.responses_items import (
    INDEX_OF,
    PART_STEMS,
    REASONING_STEMS,
    EventWriter,
    OutputItem,
    Piece,
    ReasoningEvents,
    Seal,
)
from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.errors.render_responses import error_event as error_fields
from coterie.errors.render_responses import response_error

_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


def fold(events: Iterable[bytes | dict[str, Any]]) -> dict[str, Any]:
    """The Response object as of the last of ``events``; empty where there are none."""
    folded = _Folded(events)
    return folded.response()


def close(
    events: Iterable[bytes | dict[str, Any]],
    error: ApiError,
    request_id: str,
    *,
    error_event: bool = True,
    seal: Seal | None = None,
    reasoning_events: ReasoningEvents = "openai",
) -> list[bytes]:
    """The events that end a stream of which ``events`` are out, because of ``error``.

    Where its end is out already, what is missing of that; where nothing is out, nothing: no stream has begun then.
    ``reasoning_events`` matters only for reasoning of which no text is out.
    """
    folded = _Folded(events, REASONING_STEMS[reasoning_events])
    if folded.is_done or not folded.head:
        return []
    if folded.is_ended:
        return [DONE]
    writer = EventWriter(folded.next_number)
    out = []
    if not folded.is_started and folded.head["status"] == "in_progress":
        out.append(writer.write(("response.in_progress", {"response": folded.response()})))
    for item in folded.items:
        status = "completed" if item.is_finished else "incomplete"
        out += map(writer.write, item.closing(status, seal))
    if error_event and folded.error is None:
        out.append(writer.write(("error", error_fields(error, request_id))))
    folded.head |= {"status": "failed", "error": folded.error or response_error(error, request_id)}
    out.append(writer.write(("response.failed", {"response": folded.response()})))
    return [*out, DONE]


def whole_events(stream: bytes) -> list[bytes]:
    """The events of ``stream``, less what is torn at its end."""
    *events, _torn = stream.split(b"\n\n")
    return [event + b"\n\n" for event in events if event]


class _Folded:
    """The state of a stream after some events."""

    def __init__(
        self, events: Iterable[bytes | dict[str, Any]], reasoning_stem: str = REASONING_STEMS["openai"]
    ) -> None:
        self.head: dict[str, Any] = {}
        """The response of the last lifecycle event."""
        self.items: list[OutputItem] = []
        self.next_number = 0
        self.error: dict[str, Any] | None = None
        """What the ``error`` event says of the response."""
        self.is_started = self.is_ended = self.is_done = False
        self._reasoning_stem = reasoning_stem
        for event in events:
            self._take(event)

    def response(self) -> dict[str, Any]:
        """The response with the output of the events."""
        return {**self.head, "output": [item.wire() for item in self.items]} if self.head else {}

    def begin_item(self, said: dict[str, Any]) -> None:
        """An item begins."""
        item = said["item"]
        kind, index = item["type"], said["output_index"]
        begun = OutputItem(kind, item["id"], index, item.get("call_id", ""), item.get("name", ""), item["status"])
        if kind == "function_call":
            begun.add_piece("arguments")
        if self.items and self.items[-1].kind != "function_call":
            self.items[-1].is_finished = True  # nothing more comes to it; a call may go on until the end
        self.items.append(begun)

    def begin_part(self, said: dict[str, Any]) -> None:
        """A part begins."""
        kind = said["part"]["type"]
        self.items[said["output_index"]].add_piece(kind, self._reasoning_stem if kind == "reasoning_text" else "")

    def annotate(self, said: dict[str, Any]) -> None:
        """A text is annotated."""
        self._piece(said).annotations.append(said["annotation"])

    def close_part(self, said: dict[str, Any]) -> None:
        """A part is closed."""
        self._piece(said).is_closed = True

    def close_item(self, said: dict[str, Any]) -> None:
        """An item is closed."""
        item = self.items[said["output_index"]]
        item.status, item.sealed, item.is_closed = said["item"]["status"], said["item"].get("encrypted_content"), True

    def _take(self, event: bytes | dict[str, Any]) -> None:
        if event == DONE:
            self.is_done = True
            return
        said = event if isinstance(event, dict) else orjson.loads(event[event.index(b"data: ") + 6 :])
        self.next_number = said["sequence_number"] + 1
        kind: str = said["type"]
        if "response" in said:
            self._take_response(kind, said["response"])
        elif kind == "error":
            self.error = {name: said[name] for name in ("code", "message")}
        elif kind in _STEPS:
            _STEPS[kind](self, said)
        else:
            self._take_text(kind, said)

    def _take_response(self, kind: str, response: dict[str, Any]) -> None:
        self.head = dict(response)
        self.is_started = self.is_started or kind == "response.in_progress"
        self.is_ended = self.is_ended or kind in _TERMINAL

    def _take_text(self, kind: str, said: dict[str, Any]) -> None:
        """Take in a delta, or the event that tells the whole text."""
        stem, _, verb = kind.rpartition(".")
        piece = self._piece(said)
        piece.stem = stem
        if verb == "delta":
            piece.texts.append(said["delta"])
            piece.logprobs += said.get("logprobs", ())
        else:
            piece.is_told = True

    def _piece(self, said: dict[str, Any]) -> Piece:
        item: OutputItem = self.items[said["output_index"]]
        for name, parts in item.parts.items():
            position: int | None = said.get(INDEX_OF[name])
            if position is not None:
                return parts[position]
        return item.pieces[0]


_STEPS: Final[Mapping[str, Callable[[_Folded, dict[str, Any]], None]]] = {
    "response.output_item.added": _Folded.begin_item,
    **{f"{stem}.added": _Folded.begin_part for stem in PART_STEMS.values()},
    "response.output_text.annotation.added": _Folded.annotate,
    **{f"{stem}.done": _Folded.close_part for stem in PART_STEMS.values()},
    "response.output_item.done": _Folded.close_item,
}
