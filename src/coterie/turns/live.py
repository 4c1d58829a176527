"""The events of a response while it runs, for whoever listens besides the client that asked for it.

The journal is the one place where they are kept: what is said is written there first, and a listener reads it from
there, from any event on. So nothing grows in memory, and a listener that is slow holds up nobody but itself.

The journal is closed when there is nothing more to come and the last listener has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Final

from coterie.errors.render import DONE
from coterie.storage.journal import JournalFile

END: Final = b"\n\n"
"""Ends every event."""


class Live:
    """Events of one response, kept in ``journal``."""

    def __init__(self, journal: JournalFile) -> None:
        self._journal = journal
        self._ended = False
        self._listeners = 0
        self._news: asyncio.Future[None] | None = None

    def say(self, events: list[bytes]) -> None:
        """Keep ``events``, and tell those who listen. Raises ``ApiError`` ``storage_failed``."""
        self._journal.write(b"".join(events))
        self._tell()

    def said(self) -> bytes:
        """All that was said. Raises ``ApiError`` ``storage_failed``."""
        return self._journal.read(0)

    def forget(self) -> None:
        """Delete the journal; who listens still gets what there is to come."""
        self._journal.forget()

    def end(self) -> None:
        """There will be no more."""
        self._ended = True
        self._tell()
        self._close()

    async def follow(self, after: int) -> AsyncGenerator[bytes, None]:
        """The events whose number is greater than ``after`` (-1: all), up to the end mark."""
        self._listeners += 1
        try:
            offset, number, rest = 0, 0, b""
            while True:
                ended = self._ended  # read before the journal is: whatever was said until then is in it
                data = self._journal.read(offset)
                offset += len(data)
                *events, rest = (rest + data).split(END)
                for event in events:
                    if _is_wanted(event, number, after):
                        yield event + END
                    number += 1
                if ended:
                    return
                if not data:
                    await self._wait()
        finally:
            self._listeners -= 1
            self._close()

    async def _wait(self) -> None:
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._news)

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set_result(None)
            self._news = None

    def _close(self) -> None:
        if self._ended and not self._listeners:
            self._journal.close()


def replay(events: bytes, after: int) -> Iterator[bytes]:
    """The events of a stream that was kept whole, as :meth:`Live.follow` gives them."""
    for number, event in enumerate(events.split(END)[:-1]):
        if _is_wanted(event, number, after):
            yield event + END


def _is_wanted(event: bytes, number: int, after: int) -> bool:
    """The end mark always is: who has all events still waits for it."""
    return number > after or event + END == DONE
