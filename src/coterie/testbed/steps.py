"""Of what the scripts of a misbehaving upstream are made: steps, and the good answer as a whole and in parts. Pure.

A script is an iterator of steps: bytes are one write; :class:`Wait` is a pause, :data:`PACE` the pause between two
tokens of a paced stream; an :class:`Ending` is the last step. A script that just ends leaves the connection open for
the next request. Whoever plays a script asks for the next step when the one before is done, so what a script counts is
what was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import Any, Final, TypeAlias

import orjson

from coterie.testbed.answers import DONE_EVENT, Answer
from coterie.testbed.bodies import head, response
from coterie.testbed.faults import Plan
from coterie.testbed.log import Entry


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause."""

    seconds: float


class Ending(Enum):
    """How a connection ends, or does not."""

    RESET = "reset"
    CLOSE = "closed"
    SILENCE = "silence"


class _Pace(Enum):
    PACE = 0


PACE: Final = _Pace.PACE
"""The pause between two tokens."""

Step: TypeAlias = bytes | Wait | Ending | _Pace
Steps: TypeAlias = Iterator[Step]
Events: TypeAlias = Iterable[bytes | Wait | _Pace]
"""The events of a stream, not yet framed as chunks of HTTP, and pauses."""


@dataclass(slots=True)
class Call:
    """One request to a script."""

    plan: Plan
    answer: Answer | None
    """``None`` where the request is for something else than text."""
    good: bytes
    """The whole answer, where ``answer`` is ``None``."""
    earlier: int
    """Requests of the same name before this one."""
    marker: str
    rate: float
    """Tokens a second; 0 for no pace."""
    entry: Entry

    @property
    def text(self) -> Answer:
        """The answer, which must be text."""
        assert self.answer is not None
        return self.answer

    @property
    def point(self) -> int:
        """The token at which the fault comes."""
        return min(self.plan.count, self.text.count)


# The good answer


def good(call: Call) -> Steps:
    """The good answer."""
    if call.answer is None:
        yield call.good
    elif call.answer.ask.stream:
        yield from whole_stream(whole_events(call))
    else:
        if call.rate:
            yield Wait(call.answer.count / call.rate)
        yield plain_answer(call)


def plain_answer(call: Call, count: int | None = None, finish: str | None = None) -> bytes:
    """The whole plain answer."""
    return json_answer(plain_body(call, count, finish))


def plain_body(call: Call, count: int | None = None, finish: str | None = None) -> dict[str, Any]:
    """The same before it is written."""
    sent = call.text.count if count is None else count
    call.entry.tokens_sent = sent
    return call.text.body(sent, finish or call.text.finish)


def json_answer(body: object) -> bytes:
    """A whole answer with status 200."""
    return response(200, orjson.dumps(body))


def whole_events(call: Call) -> Events:
    """Every event of the good stream."""
    return chain(begun(call, call.text.count), ended(call, call.text.count))


def begun(call: Call, count: int) -> Events:
    """The events up to ``count`` tokens."""
    return chain(call.text.opening(), token_events(call, 0, count))


def token_events(call: Call, first: int, end: int) -> Events:
    """The events of the tokens from ``first`` on, paced."""
    for index in range(first, end):
        if call.rate and index:
            yield PACE
        call.entry.tokens_sent = index + 1
        yield from call.text.token(index)


def ended(call: Call, count: int, finish: str | None = None) -> list[bytes]:
    """The events after the last of ``count`` tokens."""
    return [*call.text.closing(finish), *call.text.usage_event(count), DONE_EVENT]


_STREAM_HEAD: Final = head(
    200,
    {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "transfer-encoding": "chunked"},
)
_LAST_CHUNK: Final = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """``data`` framed as a chunk of HTTP."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def open_stream(events: Events) -> Steps:
    """A stream without its end: the head goes with the first event, or before a pause."""
    opening = _STREAM_HEAD
    for event in events:
        if isinstance(event, bytes):
            yield opening + chunk(event)
            opening = b""
            continue
        if opening:
            yield opening
            opening = b""
        yield event
    if opening:
        yield opening


def whole_stream(events: Events) -> Steps:
    """A stream with its end."""
    yield from open_stream(events)
    yield _LAST_CHUNK
