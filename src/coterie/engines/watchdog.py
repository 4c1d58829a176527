"""A deadline for something that should keep happening.

One timer for a whole stream: a sign of life only notes the time, and the timer, when it fires, looks how long ago the
last one was. So a token costs one clock reading and no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coterie.errors import ApiError


class Watchdog:
    """Calls ``fail`` with ``engine_timeout`` when the first sign of life, or the next one, is late (seconds).

    The first is counted from ``since_s`` (of the event loop's clock), else from now.
    """

    def __init__(
        self, first_s: float, idle_s: float, fail: Callable[[ApiError], None], *, since_s: float | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle_s = idle_s
        self._limit_s = first_s
        self._fail = fail
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
        if self._limit_s != self._idle_s:
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
            self._fail(ApiError("engine_timeout", limit_s=f"{self._limit_s:g}"))
        else:
            self._timer = self._loop.call_at(due_s, self._look)
