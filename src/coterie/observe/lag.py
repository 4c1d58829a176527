"""How late the event loop runs what is due: the first sign of something that blocks it."""

from __future__ import annotations

import asyncio

from coterie.observe.distribution import Distribution

_EVERY_S = 0.25


class LagWatch:
    """Looks four times a second while it runs, and adds the lateness in seconds to ``lags``."""

    def __init__(self, lags: Distribution) -> None:
        self._lags = lags
        self._loop = asyncio.get_running_loop()
        self._due_s = self._loop.time() + _EVERY_S
        self._timer = self._loop.call_at(self._due_s, self._look)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        now_s = self._loop.time()
        self._lags.add(max(0.0, now_s - self._due_s))
        self._due_s = now_s + _EVERY_S
        self._timer = self._loop.call_at(self._due_s, self._look)
