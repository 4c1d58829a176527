"""Judges one streamed answer: that it is whole, in order, and ends exactly once. Pure.

A stream goes through these states; the events are those of :class:`_Said`:

=========  ========  ========  ============  =======  ===========
state      QUIET     CONTENT   FINISH        ERROR    DONE
=========  ========  ========  ============  =======  ===========
OPEN       OPEN      OPEN      FINISHED      ERRORED  no-finish
FINISHED   FINISHED  after-finish for each of three   DONE
ERRORED    after-error for each of four               DONE
DONE       after-done for all
=========  ========  ========  ============  =======  ===========

What is no state there is a rule of :data:`RULES` that is broken; the first that is broken decides the outcome. A stream
that ends in any state but DONE breaks ``no-done``. QUIET is a chunk that brings no text: one with a role alone, or with
the usage.

What the text must be is a :class:`Verifier`'s matter: nothing at all, the numbered words of the fault-injecting
upstream, or a known text. It works on the text, not on the chunks, so a server may cut the text as it likes.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, Protocol

import orjson

from coterie.wire.sse import DONE

Kind = Literal["complete", "error frame", "http error", "broken", "unfinished"]
"""``unfinished`` is a stream that the measurement ended because its time was up."""

RULES: Final[Mapping[str, str]] = {
    "connect": "A connection can be made.",
    "timeout": "An answer ends within the time limit.",
    "cut": "An answer is complete by the framing of HTTP.",
    "not-http": "The server speaks HTTP.",
    "content-type": "A stream says that it is one: text/event-stream.",
    "size": "An event has at most 1 MiB, a body that is no stream 16 MiB.",
    "not-json": "An event is a JSON object, or [DONE].",
    "shape": "A chunk has a list of choices of which ours is number 0, and its text is a string.",
    "no-finish": "[DONE] follows a finish reason or an error.",
    "no-done": "The stream ends with [DONE].",
    "half-event": "The last event is whole.",
    "after-finish": "After the finish reason come only the usage and [DONE].",
    "after-error": "After an error comes only [DONE].",
    "after-done": "After [DONE] comes nothing.",
    "after-end": "After the answer comes nothing on the connection.",
    "gap": "No word of the sequence is missing.",
    "repeat": "No word of the sequence comes twice.",
    "order": "The words of the sequence come in order.",
    "count": "There are as many words as were asked for.",
    "text": "The text is the expected one.",
}
"""What makes a stream ``broken``, by name, and what must hold."""

MAX_WORDS: Final = 1_000_000
"""Words of one stream at most that are kept to be judged; more break ``count``."""

_WORD: Final = re.compile(r"w(?:[0-9]{1,12}\.)?([0-9]{1,12})")
_LONGEST_WORD: Final = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended. ``detail``: an error's code, status and code, or the broken rule; else empty."""

    kind: Kind
    detail: str = ""

    @property
    def label(self) -> str:
        """Kind and detail in one line."""
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


class Verifier(Protocol):
    """Compares the text of one answer, as it comes, with what it must be."""

    def feed(self, text: str) -> int:
        """Take a piece of the text; returns how many tokens begin in it."""

    def end(self, *, whole: bool, finish_reason: str = "") -> str | None:
        """The broken rule, if any. ``whole``: the answer was announced as complete, so that none of it may lack."""


VerifierFactory = Callable[[], Verifier]
"""Makes the verifier of one answer."""


class Anything:
    """Accepts any text; each piece counts as one token."""

    def feed(self, text: str) -> int:
        """See :class:`Verifier`."""
        return 1

    def end(self, *, whole: bool, finish_reason: str = "") -> str | None:
        """See :class:`Verifier`."""
        return None


class Sequence:
    """Expects the words `` w0 w1 w2 ...`` (or `` w7.0 w7.1 ...`` of a seed), ``tokens`` of them where it is given."""

    def __init__(self, tokens: int | None = None) -> None:
        self._tokens = tokens
        self._numbers = array("Q")
        self._tail = ""  # a word that may go on in the next piece
        self._foreign = False

    def feed(self, text: str) -> int:
        """See :class:`Verifier`."""
        *words, self._tail = (self._tail + text).split(" ")
        for word in words:
            self._take(word)
        if len(self._tail) > _LONGEST_WORD:
            self._foreign, self._tail = True, ""
        return text.count("w")

    def end(self, *, whole: bool, finish_reason: str = "") -> str | None:
        """See :class:`Verifier`. The last word of an answer that is not whole may be half of one: it is left out."""
        if whole:
            self._take(self._tail)
        self._tail = ""
        if self._foreign:
            return "text"
        broken = broken_sequence(self._numbers)
        if broken is None and whole and self._tokens is not None and len(self._numbers) != self._tokens:
            return "count"
        return broken if len(self._numbers) <= MAX_WORDS else "count"

    def _take(self, word: str) -> None:
        if not word or len(self._numbers) > MAX_WORDS:
            return
        numbered = _WORD.fullmatch(word)
        if numbered is None:
            self._foreign = True
        else:
            self._numbers.append(int(numbered[1]))


class KnownText:
    """Expects ``text``; of an answer that ended for its length, the beginning of it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._differs = False

    def feed(self, text: str) -> int:
        """See :class:`Verifier`."""
        if not self._text.startswith(text, self._position):
            self._differs = True
        self._position += len(text)
        return 1

    def end(self, *, whole: bool, finish_reason: str = "") -> str | None:
        """See :class:`Verifier`."""
        lacks = whole and finish_reason != "length" and self._position != len(self._text)
        return "text" if self._differs or lacks else None


def broken_sequence(numbers: array[int]) -> str | None:
    """The rule that ``numbers`` break, which must be 0, 1, 2, ..."""
    count = len(numbers)
    if numbers == array("Q", range(count)):
        return None
    if len(set(numbers)) < count:
        return "repeat"
    return "order" if max(numbers) == count - 1 else "gap"


class _State(Enum):
    OPEN = 0
    FINISHED = 1
    ERRORED = 2
    DONE = 3


class _Said(Enum):
    """What an event says."""

    QUIET = 0
    CONTENT = 1
    FINISH = 2
    ERROR = 3
    DONE = 4


_STEPS: Final[Mapping[tuple[_State, _Said], _State | str]] = {
    (_State.OPEN, _Said.QUIET): _State.OPEN,
    (_State.OPEN, _Said.CONTENT): _State.OPEN,
    (_State.OPEN, _Said.FINISH): _State.FINISHED,
    (_State.OPEN, _Said.ERROR): _State.ERRORED,
    (_State.OPEN, _Said.DONE): "no-finish",
    (_State.FINISHED, _Said.QUIET): _State.FINISHED,
    (_State.FINISHED, _Said.DONE): _State.DONE,
    (_State.ERRORED, _Said.DONE): _State.DONE,
}
"""The module's table; what is not here breaks the state's rule of :data:`_AFTER`."""

_AFTER: Final = {
    _State.FINISHED: "after-finish",
    _State.ERRORED: "after-error",
    _State.DONE: "after-done",
}


class StreamJudge:
    """Follows one stream of chat completion chunks with one choice."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._state = _State.OPEN
        self._broken: str | None = None
        self._finish_reason = ""
        self._error_code = ""

    def event(self, data: bytes) -> int:
        """Take one event's data; returns how many tokens begin in it: 0 where it has no content."""
        if data == DONE:
            self._step(_Said.DONE)
            return 0
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            chunk = None
        if not isinstance(chunk, dict):
            self.broke("not-json" if self._state is not _State.DONE else "after-done")
            return 0
        if chunk.get("error"):
            self._error_code = error_code(chunk)
            self._step(_Said.ERROR)
            return 0
        return self._chunk(chunk)

    def broke(self, rule: str) -> None:
        """The stream breaks ``rule`` of :data:`RULES`; only the first counts."""
        if self._broken is None:
            self._broken = rule

    def end(self) -> Outcome:
        """The stream is over. To be called once."""
        ended = self._state is _State.DONE
        if not ended:
            self.broke("no-done")
        wrong = self._verifier.end(whole=bool(ended and self._finish_reason), finish_reason=self._finish_reason)
        if self._broken == "no-done" and wrong:
            self._broken = wrong  # it came before the end did not
        return self._outcome(wrong)

    def cut_short(self) -> Outcome:
        """The stream was ended by its reader: what came of it is judged alone."""
        wrong = self._verifier.end(whole=False)
        return Outcome("broken", self._broken or wrong or "") if self._broken or wrong else Outcome("unfinished")

    def _outcome(self, wrong: str | None) -> Outcome:
        broken = self._broken or wrong
        if broken:
            return Outcome("broken", broken)
        return Outcome("error frame", self._error_code) if self._error_code else Outcome("complete")

    def _chunk(self, chunk: dict[str, Any]) -> int:
        choice = _only_choice(chunk)
        if choice is None:
            self.broke("shape")
            return 0
        delta = choice.get("delta") or {}
        content = delta.get("content") if isinstance(delta, dict) else 0
        finish = choice.get("finish_reason")
        if not isinstance(content, str | None) or not isinstance(finish, str | None):
            self.broke("shape")
            return 0
        tokens = 0
        if content:
            self._step(_Said.CONTENT)
            tokens = self._verifier.feed(content)
        if finish:
            self._finish_reason = finish
            self._step(_Said.FINISH)
        if not content and not finish:
            self._step(_Said.QUIET)
        return tokens

    def _step(self, said: _Said) -> None:
        step = _STEPS.get((self._state, said)) or _AFTER[self._state]
        if isinstance(step, _State):
            self._state = step
            return
        self.broke(step)
        if said is _Said.DONE:
            self._state = _State.DONE


def judge_plain(body: bytes, verifier: Verifier) -> Outcome:
    """The outcome of a body that is a whole chat completion."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Outcome("broken", "not-json")
    choice = _only_choice(answer) if isinstance(answer, dict) else None
    message = choice.get("message") if choice else None
    if not choice or not isinstance(message, dict) or not isinstance(message.get("content"), str | None):
        return Outcome("broken", "shape")
    finish = choice.get("finish_reason")
    if not isinstance(finish, str) or not finish:
        return Outcome("broken", "no-finish")
    verifier.feed(message.get("content") or "")
    wrong = verifier.end(whole=True, finish_reason=finish)
    return Outcome("broken", wrong) if wrong else Outcome("complete")


def error_code(body: object) -> str:
    """The code (or the type) of an OpenAI error; ``unknown`` where there is none."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        for name in ("code", "type"):
            value = error.get(name)
            if isinstance(value, str | int) and value:
                return str(value)[:64]
    return "unknown"


def _only_choice(chunk: dict[str, Any]) -> dict[str, Any] | None:
    """Choice 0; an empty one where there is no choice (the usage); ``None`` for any other shape."""
    choices = chunk.get("choices")
    if choices == []:
        return {}
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return None
    return choices[0] if choices[0].get("index") == 0 else None
