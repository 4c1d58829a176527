"""Many moments on one timer of the event loop."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from typing import Final

GRAIN_S: Final = 0.001
"""Moments closer than this are one."""


class Ticker:
    """Calls back at given times, at most :data:`GRAIN_S` late by itself; all that is due together in one go.

    A callback cannot be taken back: it has to look whether it is still wanted.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, list[Callable[[], None]]] = {}
        self._due: list[int] = []  # a heap of the slots
        self._timer: asyncio.TimerHandle | None = None

    def at(self, time_s: float, callback: Callable[[], None]) -> None:
        """Call back at ``time_s`` of the loop's clock, or as soon as the loop can where that is past."""
        slot = math.ceil(time_s / GRAIN_S)
        waiting = self._slots.get(slot)
        if waiting is not None:
            waiting.append(callback)
            return
        self._slots[slot] = [callback]
        heapq.heappush(self._due, slot)
        if self._due[0] == slot:
            self._arm()

    def stop(self) -> None:
        """Forget everything."""
        if self._timer is not None:
            self._timer.cancel()
        self._slots.clear()
        self._due.clear()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due[0] * GRAIN_S, self._run)

    def _run(self) -> None:
        self._timer = None
        now = self._loop.time() + GRAIN_S / 2
        while self._due and self._due[0] * GRAIN_S <= now:
            for callback in self._slots.pop(heapq.heappop(self._due)):
                callback()
        if self._due and self._timer is None:
            self._arm()
