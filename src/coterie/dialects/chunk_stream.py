"""Chunks of the lingua franca into the events of a stream, as far as chat and text completions share it. Pure.

The rules of what comes out, for any chunks that go in:

* every event is ``data: {json}`` and a blank line, LF only; nothing else is ever written (``event:``, ``id:``,
  ``retry:`` each break an official SDK);
* all chunks have the same ``id``, ``created`` and ``model``;
* where usage was asked for, every chunk has ``usage: null`` and the last before ``[DONE]`` has it, with no choices (it
  is missing where the provider does not count);
* a field that is not known here never takes the place of one that is; one that a choice has after its finish reason
  goes out with that reason where it is held back, else beside nothing;
* the stream ends exactly once: by :meth:`end` with every choice finished, or by :meth:`fail` with one error frame
  and no finish reason after it; both send ``[DONE]`` last. After the end, every method returns nothing;
* a stream does not both succeed and fail: the finish reason that makes the answer look whole is held back until
  :meth:`end` has found that it is.

``feed`` raises ``ApiError`` for chunks that break the rules of :mod:`coterie.wire.choices`; the caller then fails
the stream with it. It returns nothing until something semantic came, so whoever holds the HTTP status until the first
event holds it until there is an answer.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from itertools import islice
from typing import Any, Final

import orjson

from coterie.errors import ApiError
from coterie.errors.render import DONE, chat_frames
from coterie.wire.choices import Choices
from coterie.wire.lingua import Chunk

_MOST_HELD: Final = 64
"""Fields that a finish reason which is held back gathers."""


class ChunkStream(ABC):
    """The stream of one answer with ``choices`` choices. ``created`` is Unix time in seconds."""

    kind: str
    """The ``object`` of each chunk."""
    calls = True
    """Whether the dialect has tool calls."""
    templated = False
    """Whether events of text differ in nothing but their text."""
    open = False
    """Whether the dialect writes fields of a choice that are not known here."""

    def __init__(self, answer_id: str, created: int, model: str, *, choices: int, include_usage: bool) -> None:
        self._choices = Choices(choices, calls=self.calls)
        self._held: dict[str, Any] | None = None
        self._finished: set[int] = set()
        self._extra: dict[str, Any] = {}
        self._include_usage = include_usage
        self._templates: dict[int, tuple[bytes, bytes]] = {}
        self._templates_extra: dict[str, Any] | None = None
        """What the templates have that is not known here."""
        self._ended = False
        self._head: dict[str, Any] = {"id": answer_id, "object": self.kind, "created": created, "model": model}

    @abstractmethod
    def wire_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A choice as the dialect writes it; ``choice`` comes from :meth:`Choices.admit`."""

    @property
    def usage(self) -> dict[str, Any]:
        """The usage of a whole answer; empty before it came."""
        return self._choices.usage or {}

    def feed(self, chunk: Chunk) -> list[bytes]:
        """The events for ``chunk``. Raises ``ApiError``."""
        if self._ended:
            return []
        said = self._choices.admit(chunk)
        is_any_silent = self.open and len(said) < len(chunk.get("choices") or ())
        if "extra" in chunk:
            # Where the chunk itself says nothing, they go out with the next that does.
            self._extra.update(chunk["extra"])
        if said and self._choices.finished:
            said[-1:] = self._hold(said[-1])
        events = [self._choice_event(choice) for choice in said]
        if is_any_silent:
            events += self._late_events(chunk["choices"])
        return events

    def text(self, index: int, text: str, extra: dict[str, Any] | None) -> bytes | None:
        """The event for a piece of text with which a choice goes on; ``None`` where it takes :meth:`feed` to tell."""
        if not self.templated or self._ended or self._extra or not self._choices.goes_on(index):
            return None
        if extra is not self._templates_extra:
            self._templates, self._templates_extra = {}, extra
        before, behind = self._templates.get(index) or self._template(index)
        return before + orjson.dumps(text) + behind

    def end(self) -> list[bytes]:
        """The events that end a whole answer. Raises ``ApiError`` where it is not whole."""
        if self._ended:
            return []
        self._choices.check_whole()
        self._ended = True
        events = [] if self._held is None else [self._choice_event(self._held)]
        if self._include_usage and self._choices.usage is not None:
            events.append(self._event(choices=[], usage=self._choices.usage))
        return [*events, DONE]

    def fail(self, error: ApiError, request_id: str) -> list[bytes]:
        """The events that end an answer which failed."""
        if self._ended:
            return []
        self._ended = True
        return list(chat_frames(error, request_id))

    def _hold(self, last: dict[str, Any]) -> list[dict[str, Any]]:
        """Keep the last finish reason for :meth:`end`; returns what else ``last`` says."""
        if not last["delta"] and not last["logprobs"]:
            self._held = last
            return []
        self._held = {**last, "delta": {}, "logprobs": None, "first": False}
        return [{**last, "finish_reason": None, "extra": None}]

    def _late_events(self, entries: list[dict[str, Any]]) -> list[bytes]:
        """The events for what choices have beside nothing after their finish reasons."""
        events = []
        for entry in entries:
            index, extra = entry["index"], entry.get("extra")
            if not extra:
                continue
            if self._held is not None and index == self._held["index"]:
                self._held["extra"] = dict(islice({**(self._held.get("extra") or {}), **extra}.items(), _MOST_HELD))
            elif index in self._finished:
                silent = {"index": index, "delta": {}, "logprobs": None, "finish_reason": None, "first": False}
                events.append(self._event(choices=[self.wire_choice({**silent, "extra": extra})]))
        return events

    def _choice_event(self, choice: dict[str, Any]) -> bytes:
        if self.templated and not self._extra and self._templates_extra is None and _is_text_alone(choice):
            before, behind = self._templates.get(choice["index"]) or self._template(choice["index"])
            return before + orjson.dumps(choice["delta"]["content"]) + behind
        if choice["finish_reason"] is not None:
            self._finished.add(choice["index"])
        return self._event(choices=[self.wire_choice(choice)])

    def _template(self, index: int) -> tuple[bytes, bytes]:
        """What stands before and behind the text of an event that has nothing else to say."""
        mark = uuid.uuid4().hex  # which nobody can have written into the rest
        self._extra = dict(self._templates_extra or {})
        choice = {"index": index, "delta": {"content": mark}, "logprobs": None, "finish_reason": None, "first": False}
        before, _, behind = self._event(choices=[self.wire_choice(choice)]).partition(orjson.dumps(mark))
        self._templates[index] = before, behind
        return before, behind

    def _event(self, *, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        chunk = {**self._head, "choices": choices}
        if self._extra:
            chunk |= {name: value for name, value in self._extra.items() if name not in chunk}
            self._extra = {}
        if self._include_usage:
            chunk["usage"] = usage
        return b"data: " + orjson.dumps(chunk) + b"\n\n"


def _is_text_alone(choice: dict[str, Any]) -> bool:
    delta = choice["delta"]
    return (
        len(delta) == 1
        and "content" in delta
        and not choice["first"]
        and choice["finish_reason"] is None
        and choice["logprobs"] is None
        and not choice.get("extra")
    )
