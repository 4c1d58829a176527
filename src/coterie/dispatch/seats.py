"""Requests at once for each provider, and the bounded queue of those that wait for any of several.

What it promises:

* A provider never has more than its seats taken. (0 seats: it keeps its own queue, and is never full here.)
* Who waits is served in the order of coming, by the first of his providers that has a seat; who waits for another
  provider is passed over, not held up.
* A full queue, or a wait that is too long, is ``server_is_overloaded`` with the delay after which a seat should be
  free: the measured mean time that one is held, times those ahead, over the seats.
* Leaving while waiting, at whatever moment, loses no seat.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coterie.errors import ApiError

_FIRST_GUESS_S = 5.0
_NEWEST = 0.2


@dataclass(eq=False, slots=True)
class _Waiter:
    places: Mapping[str, int]
    turn: asyncio.Future[str]


class Seats:
    """The seats of every provider. ``limit`` may wait, for ``timeout_s`` seconds at most."""

    def __init__(self, limit: int, timeout_s: float) -> None:
        self.limit = limit
        self.timeout_s = timeout_s
        self.running: defaultdict[str, int] = defaultdict(int)
        """Requests that each provider has now."""
        self._waiters: list[_Waiter] = []
        self._held_s: float = _FIRST_GUESS_S

    @property
    def waiting(self) -> int:
        """Requests that wait for a seat."""
        return len(self._waiters)

    def take(self, wanted: Sequence[tuple[str, int]]) -> str | None:
        """A seat at the first provider of ``wanted`` (name and seats) that has one free."""
        for name, seats in wanted:
            if not seats or self.running[name] < seats:
                self.running[name] += 1
                return name
        return None

    async def wait(self, wanted: Sequence[tuple[str, int]]) -> str:
        """Wait for a seat at any provider of ``wanted``. Raises ``ApiError``."""
        if len(self._waiters) >= self.limit:
            raise self._overloaded(wanted)
        waiter = _Waiter(dict(wanted), asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self.timeout_s):
                return await asyncio.shield(waiter.turn)
        except TimeoutError:
            self._withdraw(waiter)
            raise self._overloaded(wanted) from None
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise

    def release(self, name: str, held_s: float) -> None:
        """Give a seat back after ``held_s`` seconds."""
        self._held_s += _NEWEST * (held_s - self._held_s)
        self._pass_on(name)

    def _pass_on(self, name: str) -> None:
        self.running[name] -= 1
        for waiter in self._waiters:
            seats = waiter.places.get(name)
            if seats is not None and self.running[name] < seats:
                self.running[name] += 1
                self._waiters.remove(waiter)
                waiter.turn.set_result(name)
                return

    def _withdraw(self, waiter: _Waiter) -> None:
        if waiter.turn.done():
            self._pass_on(waiter.turn.result())  # the seat came in the moment of leaving
        else:
            self._waiters.remove(waiter)

    def _overloaded(self, wanted: Sequence[tuple[str, int]]) -> ApiError:
        seats = max(1, sum(count for _, count in wanted))
        delay_s = self._held_s * (len(self._waiters) + 1) / seats
        return ApiError("server_is_overloaded", retry_after_s=min(60.0, max(1.0, delay_s)))


def now_s() -> float:
    """The clock of this room: seconds, monotonic."""
    return time.monotonic()
