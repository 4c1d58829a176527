"""The short way of text through a provider: an event that differs from the one before in nothing but its text.

Nearly every event of a stream is the same JSON with another piece of text in it. So where one event was read in full
and only went on with a piece of text, what stands before and behind the text is kept (:class:`TextForm`). Bytes that
have the same before and behind, and one JSON string in between, are an event that says the same with another text: the
grammar lets any string stand where a string stood. Only the string needs to be read.

What :class:`ShortText` promises:

* It takes whole events of that form alone, in their order, from where the stream's parser stands between two events.
  Any other is left to be read in full, before anything behind it is taken.
* A form is only ever taken from an event that was read in full, and only kept if that event, with another string in the
  place, reads as the same with that string. It is dropped with the next event that is read in full and does more than
  to go on with text, because that may have changed what the same bytes mean.
* What a server sends may change with every event (a time, say). So learning is given up where forms do not serve.
* Each read counts for the deadlines and for the bound of the whole stream, as it would on the usual way.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import orjson

from coterie.wire.http1 import ExchangeError
from coterie.wire.lingua import Chunk, Shortcut
from coterie.wire.sse import SseEvent, SseParser

_PLACE: Final = re.compile(rb'"content"[ \t]*:[ \t]*("(?:[^"\\]|\\.)*")')
_PREFIX: Final = b"data: "
EVENT_END: Final = b"\n\n"
"""The end of the line and the blank line."""

_SERVES: Final = 4
"""Texts that a form has to have read for its learning to have paid."""

_VAIN: Final = 4
"""Forms that did not pay, after which no other is learned."""


class TextForm:
    """What stands before and behind the text of an event, as bytes of the stream; each has one of its quotes."""

    __slots__ = ("_around", "_before", "_behind", "_text", "extra", "index")

    def __init__(self, before: bytes, behind: bytes, index: int, extra: dict[str, Any] | None) -> None:
        self.index = index
        """The choice that the text is of."""
        self.extra = extra
        """What else the event has that passes through."""
        self._before = _PREFIX + before
        self._behind = behind + EVENT_END
        self._around = len(self._before) + len(self._behind)
        self._text = slice(len(self._before) - 1, 1 - len(self._behind))

    @classmethod
    def of(cls, data: bytes, extra: dict[str, Any] | None) -> TextForm | None:
        """That of an event with this ``data``, which only goes on with a text; ``None`` where it has none."""
        place = _PLACE.search(data)
        if place is None or b"\n" in data or b"\r" in data:
            return None
        before, behind = data[: place.start(1)], data[place.end(1) :]
        payload, probe = orjson.loads(data), uuid.uuid4().hex  # which no event can have already
        choice = payload["choices"][0]
        choice["delta"]["content"] = probe
        if orjson.loads(before + orjson.dumps(probe) + behind) != payload:
            return None
        return cls(before + b'"', b'"' + behind, choice["index"], extra)

    def text(self, event: bytes) -> str | None:
        """The text of a whole event with its blank line; ``None`` where it is not of this form, or says nothing."""
        if len(event) <= self._around or not event.startswith(self._before) or not event.endswith(self._behind):
            return None
        try:
            text: str = orjson.loads(event[self._text])
        except orjson.JSONDecodeError:
            return None
        return text


class ShortText:
    """Reads the text of one stream past ``parser``, for ``shortcut``. Each read is a ``touch``.

    A stream of more than ``limit_bytes`` is too long, whichever way they take.
    """

    __slots__ = ("_at_rest", "_form", "_limit_bytes", "_missed", "_parser", "_served", "_shortcut", "_touch", "_vain",
                 "size_bytes")  # fmt: skip

    def __init__(self, parser: SseParser, shortcut: Shortcut, limit_bytes: int, touch: Callable[[], None]) -> None:
        self.size_bytes = 0
        """What came so far."""
        self._parser = parser
        self._at_rest = False
        """Whether the parser was, when it was last fed."""
        self._shortcut = shortcut
        self._limit_bytes = limit_bytes
        self._touch = touch
        self._form: TextForm | None = None
        self._served = 0
        self._missed = False
        """Whether another event came than the form's."""
        self._vain = 0

    def counted(self, data: bytes) -> bytes:
        """``data``, which takes the usual way. Raises ``ExchangeError`` where the stream is too long."""
        self.size_bytes += len(data)
        if self.size_bytes > self._limit_bytes:
            raise ExchangeError(f"a stream of more than {self._limit_bytes} bytes", "body_too_large")
        return data

    def take(self, data: bytes) -> int:
        """Take what can be taken of a read. Returns how many bytes that is."""
        if self.size_bytes + len(data) > self._limit_bytes:
            return 0
        taken = self._take_from(data, 0)
        self.size_bytes += taken
        return taken

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What of a read is to be read in full, cut so that :meth:`learn` can be told of each event.

        What can be taken by then is taken between two of them.
        """
        at = 0
        while at < len(data) and (at := self._take_from(data, at)) < len(data):
            begin, at = at, self._end_of_piece(data, at)
            yield data[begin:at]

    def learn(self, events: Sequence[SseEvent], chunk: Chunk | None, *, goes_on: bool) -> None:
        """``events`` were read in full; the last is ``chunk``. ``goes_on`` is that of the stream that read it."""
        self._at_rest = self._parser.at_rest
        if not events:
            return
        if self._form is not None:
            if goes_on and not self._missed:
                return  # it was refused, and changed nothing
            self._vain += self._missed and self._served < _SERVES
            self._form = None
        if goes_on and chunk is not None and self._shortcut.take is not None and self._vain < _VAIN:
            self._form, self._served, self._missed = TextForm.of(events[-1].data, chunk.get("extra")), 0, False

    def _end_of_piece(self, data: bytes, begin: int) -> int:
        """The end of the event that begins or goes on there; of all that came, where it could not be taken anyway."""
        if self._parser.at_rest and not data.startswith(_PREFIX, begin):
            return len(data)
        end = data.find(EVENT_END, begin)
        return len(data) if end < 0 else end + len(EVENT_END)

    def _take_from(self, data: bytes, begin: int) -> int:
        """Take one event after the other from ``begin`` on. Returns where the first begins that is not taken."""
        form, take, at = self._form, self._shortcut.take, begin
        if form is None or take is None or not self._at_rest:
            return begin
        while at < len(data) and (end := data.find(EVENT_END, at) + len(EVENT_END)) > 1:
            text = form.text(data[at:end])
            if text is None:
                self._missed = True
                break
            if not take(form.index, text, form.extra):
                break
            self._served += 1
            at = end
        if at > begin:
            self._touch()
        return at
