"""The events of a response while it runs, for whoever listens besides the client that asked for it.

The journal is the one place where they are kept: what is said is written there first, and a listener reads it from
there, from any event on, a block at a time. So nothing grows in memory, and a listener that is slow holds up nobody
but itself.

A journal that fails takes nothing more: it would hold half an event. The end is then kept here, so that whoever listens
is told it.

The journal is closed when there is nothing more to come, the last listener has left and its end is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator
from typing import Final

from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.storage.journal import JournalFile

_log = logging.getLogger(__name__)

END: Final = b"\n\n"
"""Ends every event."""

_BLOCK_BYTES: Final = 256 * 1024
"""Bytes that a listener reads at once."""


class Live:
    """Events of one response, kept in ``journal``."""

    def __init__(self, journal: JournalFile) -> None:
        self.held = False
        """Whether it is still needed after its end; see :meth:`release`."""
        self._journal = journal
        self._size = 0
        """Bytes of whole events in the journal."""
        self._failed = False
        self._rest = b""
        """What the journal did not take of the end."""
        self._ended = False
        self._listeners = 0
        self._news: asyncio.Future[None] | None = None

    def say(self, events: list[bytes]) -> None:
        """Keep ``events``, and tell those who listen. Raises ``ApiError`` ``storage_failed``."""
        self._write(b"".join(events))
        self._tell()

    def said(self) -> bytes:
        """All that was said. Raises ``ApiError`` ``storage_failed``."""
        return self._read(0, self._size + len(self._rest))

    def forget(self) -> None:
        """Delete the journal; who listens still gets what there is to come."""
        try:
            self._journal.forget()
        except OSError as error:  # what it holds is stored; the next start deletes it
            _log.error("a journal was not deleted: %s", error)

    def end(self, tail: list[bytes]) -> None:
        """There will be no more than ``tail``."""
        try:
            self._write(b"".join(tail))
        except ApiError:
            self._rest = b"".join(tail)
        self._ended = True
        self._tell()
        self._close()

    def release(self) -> None:
        """It is :attr:`held` no longer."""
        self.held = False
        self._close()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While inside, :meth:`follow` finds what it needs."""
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1
            self._close()

    async def follow(self, after: int) -> AsyncGenerator[bytes, None]:
        """The events whose number is greater than ``after`` (-1: all), up to the end mark."""
        offset, number, rest = 0, 0, b""
        while True:
            ended = self._ended  # read before the journal is: whatever was said until then is in it
            data = self._read(offset, _BLOCK_BYTES)
            offset += len(data)
            *events, rest = (rest + data).split(END)
            for event in events:
                if _is_wanted(event, number, after):
                    yield event + END
                number += 1
            if not data:
                if ended:
                    return
                await self._wait()

    def _write(self, data: bytes) -> None:
        if self._failed:
            raise ApiError("storage_failed", detail="the journal has failed before")
        try:
            self._journal.write(data)
        except ApiError:
            self._failed = True
            raise
        self._size += len(data)

    def _read(self, offset: int, most: int) -> bytes:
        """What was said, from byte ``offset`` on, but ``most`` bytes of it."""
        if offset < self._size:
            data = self._journal.read(offset, min(most, self._size - offset))
            if offset + len(data) < self._size:
                return data
        else:
            data = b""
        start = offset + len(data) - self._size
        return data + self._rest[start : start + most - len(data)]

    async def _wait(self) -> None:
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._news)

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set_result(None)
            self._news = None

    def _close(self) -> None:
        if self._ended and not self._listeners and not self.held:
            self._journal.close()


def replay(events: bytes, after: int) -> Iterator[bytes]:
    """The events of a stream that was kept whole, as :meth:`Live.follow` gives them."""
    for number, event in enumerate(events.split(END)[:-1]):
        if _is_wanted(event, number, after):
            yield event + END


def _is_wanted(event: bytes, number: int, after: int) -> bool:
    """The end mark always is: who has all events still waits for it."""
    return number > after or event + END == DONE
