"""A deadline for something that should keep happening.

One timer for a whole stream: a sign of life only notes the time, and the timer, when it fires, looks how long ago the
last one was. So a token costs one clock reading and no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coterie.errors import ApiError


def engine_timeout(limit_s: float, *, first: bool) -> ApiError:
    """An engine's failure to show a sign of life."""
    return ApiError("engine_timeout", limit_s=f"{limit_s:g}")


class Watchdog:
    """Calls ``fail`` with what ``late`` makes when the first sign of life, or the next one, is late (seconds).

    The first is counted from ``since_s`` (of the event loop's clock), else from now.
    """

    def __init__(
        self,
        first_s: float,
        idle_s: float,
        fail: Callable[[ApiError], None],
        *,
        since_s: float | None = None,
        late: Callable[..., ApiError] = engine_timeout,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle_s = idle_s
        self._limit_s = first_s
        self._fail = fail
        self._late = late
        self._first = True
        self._held = False
        self._last_s = self._loop.time() if since_s is None else since_s
        self._timer = self._loop.call_at(self._last_s + first_s, self._look)

    def hold(self) -> None:
        """Stop the clock until the next :meth:`touch`: nobody is waiting, so nothing can be late."""
        self._held = True

    def touch(self) -> None:
        """Note a sign of life."""
        self._held = False
        self._last_s = self._loop.time()
        if self._first:
            self._first = False
            self._limit_s = self._idle_s
            self._timer.cancel()
            self._timer = self._loop.call_at(self._last_s + self._limit_s, self._look)

    def stop(self) -> None:
        """No more deadlines."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._held:
            self._last_s = self._loop.time()
        due_s = self._last_s + self._limit_s
        if self._loop.time() >= due_s:
            self._fail(self._late(self._limit_s, first=self._first))
        else:
            self._timer = self._loop.call_at(due_s, self._look)
