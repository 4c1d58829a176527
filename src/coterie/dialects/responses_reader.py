"""Reading a Responses stream strictly: the framing of :class:`StrictSseReader`, with a name for each event."""

from __future__ import annotations

from coterie.wire.sse import FramingFault, SseEvent, StrictSseReader


class NamedSseReader(StrictSseReader):
    """Turns a stream into named events and the faults of its framing, in order. It raises nothing and reads on.

    An ``event:`` line stands before the data it names, once, and never without any.
    """

    _name: str | None = None

    def end(self) -> list[SseEvent | FramingFault]:
        """Return what is found where the stream ends. To be called once."""
        found = super().end()
        if self._name is not None and not any(item.rule == "framing-complete" for item in _faults(found)):
            found.append(FramingFault("framing-complete", "the last event has no blank line", self._name.encode()))
        return found

    def _line(self, line: bytes) -> None:
        if self.done or self._too_long or not line.startswith(b"event:"):
            super()._line(line)
            return
        if self._name is not None or self._data:
            self._fault("framing-event", "an 'event:' line follows another or its event's data", line)
        self._name = line[6:].removeprefix(b" ").decode("utf-8", "replace")
        self._held_bytes += len(line)

    def _dispatch(self) -> None:
        name, self._name = self._name, None
        if name is not None and not self._data and not self._too_long:
            self._fault("framing-event", "an 'event:' line has no data", name.encode())
            self._held_bytes = 0
        before = len(self._found)
        super()._dispatch()
        for item in self._found[before:]:
            if isinstance(item, SseEvent):
                item.event = name


def _faults(found: list[SseEvent | FramingFault]) -> list[FramingFault]:
    return [item for item in found if isinstance(item, FramingFault)]
