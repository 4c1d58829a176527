"""The deadlines of one exchange with a provider: first token, idle between tokens, the whole answer.

They run on one timer at a time, and none for a token: a token only notes the time, and the timer, when it fires,
looks what is due and sets itself again. A reader who is slow stops the clock of the idle deadline, since nobody is
waiting for the provider then. Each deadline ends the exchange with its own failure. (The connection's is the pool's.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coterie.errors import ApiError


def late(limit_s: float, *, first: bool) -> ApiError:
    """A provider's failure to say the first thing, or the next one."""
    what = "No first token" if first else "Nothing after the last token"
    return ApiError("upstream_timeout", hint=f" {what} came within {limit_s:g} seconds.")


class Deadlines:
    """Calls ``fail`` when one of them (seconds) has passed, and once at most."""

    __slots__ = ("_ends_s", "_fail", "_first", "_held", "_idle_s", "_last_s", "_limit_s", "_time", "_timer", "_total_s",
                 "failure")  # fmt: skip

    def __init__(self, first_s: float, idle_s: float, total_s: float, fail: Callable[[ApiError], None]) -> None:
        loop = asyncio.get_running_loop()
        self.failure: ApiError | None = None
        """What ``fail`` was called with."""
        self._fail = fail
        self._idle_s = idle_s
        self._total_s = total_s
        self._limit_s = first_s
        self._first = True
        self._held = False
        self._time = loop.time
        self._last_s = loop.time()
        self._ends_s = self._last_s + total_s
        # Soon enough also for the idle deadline after a first token that comes at once.
        self._timer = loop.call_later(min(first_s, idle_s, total_s), self._look)

    def hold(self) -> None:
        """Stop the clock until the next :meth:`touch`: nobody is waiting, so nothing can be late."""
        self._held = True

    def touch(self) -> None:
        """Note a token."""
        self._held = False
        self._last_s = self._time()
        if self._first:
            self._first = False
            self._limit_s = self._idle_s

    def stop(self) -> None:
        """No more deadlines."""
        self._timer.cancel()

    def _look(self) -> None:
        now_s = self._time()
        if self._held:
            self._last_s = now_s
        due_s = self._last_s + self._limit_s
        if now_s >= due_s:
            self._end(late(self._limit_s, first=self._first))
        elif now_s >= self._ends_s:
            self._end(ApiError("upstream_total_timeout", limit_s=f"{self._total_s:g}"))
        else:
            soonest_s = min(due_s, self._ends_s, now_s + min(self._limit_s, self._idle_s))
            self._timer = asyncio.get_running_loop().call_at(soonest_s, self._look)

    def _end(self, failure: ApiError) -> None:
        self.failure = failure
        self._fail(failure)
