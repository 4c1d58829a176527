"""What an upstream saw: one entry a request, bounded in memory, to be read, awaited and written to a file.

No secret is kept: of a header that carries one, only its digest is.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TextIO, TypeAlias

import orjson

MAX_ENTRIES: Final = 10_000
"""Entries kept; the oldest go first."""

MAX_BODY_BYTES: Final = 64 * 1024
"""A longer body of a request is not kept."""

MAX_BODIES_BYTES: Final = 32 * 1024 * 1024
"""Bodies kept, all together; beyond, those of the oldest entries are dropped with their entries."""

SECRET_HEADERS: Final = frozenset({"authorization", "api-key", "x-api-key", "cookie", "proxy-authorization"})
"""Headers of which a digest is kept."""

Ended: TypeAlias = Literal["done", "client_closed", "fault"]
"""``done``: the answer was written whole, be it an error; ``fault``: the upstream broke it off; ``client_closed``."""


@dataclass(slots=True)
class Entry:
    """One request, and how far its answer has come."""

    number: int
    arrived_at_s: float
    """Unix time."""
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any = None
    """The parsed JSON; ``None`` where there is none, or too much of it."""
    body_bytes: int = 0
    model: str | None = None
    fault: str | None = None
    """The fault's name, where the model's name has one."""
    stream: bool = False
    asked_to_continue: bool = False
    """Whether the last message was the assistant's, or a field asked for the same."""
    continue_flag: bool = False
    """Whether ``continue_final_message`` or ``prefix`` was set."""
    continued_from: int | None = None
    """The token with which the answer went on, where it did."""
    status: int | None = None
    tokens_sent: int = 0
    ended: Ended | None = None
    """``None`` while it is being answered."""
    ended_at_s: float | None = None


def _kept(entry: Entry) -> int:
    return 0 if entry.body is None else entry.body_bytes


def digests(headers: Mapping[str, str]) -> dict[str, str]:
    """``headers`` with the values that are secret replaced by the start of their SHA-256."""
    return {
        name: f"sha256:{digest(value)}" if name in SECRET_HEADERS else value for name, value in headers.items()
    }  # fmt: skip


def digest(text: str) -> str:
    """Enough of a SHA-256 to tell two secrets apart."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


class RequestLog:
    """The entries, oldest first. Belongs to one event loop."""

    def __init__(self, file: TextIO | None = None, most: int = MAX_ENTRIES) -> None:
        """``file`` gets each entry as a line of JSON when it has ended."""
        self._entries: deque[Entry] = deque()
        self._file = file
        self._changed: asyncio.Future[None] | None = None
        self._number = 0
        self._most = most
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[Entry]:
        """All that is kept."""
        return list(self._entries)

    def next_number(self) -> int:
        """The number of the next entry, counted from 1."""
        self._number += 1
        return self._number

    def add(self, entry: Entry) -> None:
        """A request has come."""
        self._entries.append(entry)
        self._kept_bytes += _kept(entry)
        while len(self._entries) > self._most or self._kept_bytes > MAX_BODIES_BYTES:
            self._kept_bytes -= _kept(self._entries.popleft())
        self.changed()

    def ended(self, entry: Entry) -> None:
        """The entry will not change any more."""
        if self._file is not None:
            self._file.write(orjson.dumps(entry).decode() + "\n")
            self._file.flush()
        self.changed()

    def changed(self) -> None:
        """An entry is not what it was: whoever waits looks again."""
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None

    def clear(self) -> None:
        """Forget what is kept; those being answered still end in the file."""
        self._entries.clear()
        self._kept_bytes = 0
        self.changed()

    async def saw(self, holds: Callable[[Entry], bool], count: int) -> list[Entry]:
        """Wait until ``holds`` for ``count`` entries, and return these."""
        while True:
            found = [entry for entry in self._entries if holds(entry)]
            if len(found) >= count:
                return found
            if self._changed is None:
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._changed)
