"""Requests at once for each provider, and the bounded queue of those that wait for any of several.

What it promises:

* A provider never has more than its seats taken. (0 seats: it keeps its own queue, and is never full here.)
* Who waits is served in the order of coming, by the first of his providers that has a seat; who waits for another
  provider is passed over, not held up. Nobody who comes later takes a seat that somebody waits for.
* A full queue, or a wait that is too long, is ``server_is_overloaded`` with the delay after which a seat should be
  free: those ahead, over the pace at which the providers' seats come free, as measured.
* Leaving while waiting, at whatever moment, loses no seat.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from coterie.errors import ApiError

_FIRST_GUESS_S: Final = 5.0
_NEWEST: Final = 0.2
_SHORTEST_S: Final = 0.001


@dataclass(eq=False, slots=True)
class _Waiter:
    places: Mapping[str, int]
    turn: asyncio.Future[str | None]


class Seats:
    """The seats of every provider. ``limit`` may wait, for ``timeout_s`` seconds at most."""

    def __init__(self, limit: int, timeout_s: float) -> None:
        self.limit = limit
        self.timeout_s = timeout_s
        self.running: defaultdict[str, int] = defaultdict(int)
        """Requests that each provider has now."""
        self._waiters: list[_Waiter] = []
        self._held_s: dict[str, float] = {}
        """For how long a seat of each provider is held: a running mean."""

    @property
    def waiting(self) -> int:
        """Requests that wait for a seat."""
        return len(self._waiters)

    def take(self, wanted: Sequence[tuple[str, int]]) -> str | None:
        """A seat at the first provider of ``wanted`` (name and seats) that has one free."""
        for name, seats in wanted:
            if not seats or (self.running[name] < seats and not self._is_waited_for(name)):
                self.running[name] += 1
                return name
        return None

    async def wait(self, wanted: Sequence[tuple[str, int]], limit_s: float | None = None) -> str | None:
        """Wait for a seat at any provider of ``wanted``, for ``limit_s`` seconds at most where that is less.

        Returns ``None``, without a seat, after :meth:`recall`. Raises ``ApiError``.
        """
        if len(self._waiters) >= self.limit:
            raise self._overloaded(wanted)
        waiter = _Waiter(dict(wanted), asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self.timeout_s if limit_s is None else min(limit_s, self.timeout_s)):
                # Shielded, so that a turn is only ever set by us: one that was cancelled could not be given.
                return await asyncio.shield(waiter.turn)
        except TimeoutError:
            self._withdraw(waiter)
            raise self._overloaded(wanted) from None
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise

    def release(self, name: str, held_s: float | None = None) -> None:
        """Give a seat back after ``held_s`` seconds; ``None``: it was not used."""
        if held_s is not None:
            before_s = self._held_s.get(name, _FIRST_GUESS_S)
            self._held_s[name] = before_s + _NEWEST * (held_s - before_s)
        self.running[name] -= 1
        self._give(name)

    def recall(self) -> None:
        """End every wait, because there are other providers to choose from."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.turn.set_result(None)

    def _is_waited_for(self, name: str) -> bool:
        return any(name in waiter.places for waiter in self._waiters)

    def _give(self, name: str) -> None:
        """What is free at a provider, to those who wait for it."""
        served = []
        for waiter in self._waiters:
            seats = waiter.places.get(name)
            if seats is None:
                continue
            if self.running[name] >= seats:
                break
            self.running[name] += 1
            waiter.turn.set_result(name)
            served.append(waiter)
        for waiter in served:
            self._waiters.remove(waiter)

    def _withdraw(self, waiter: _Waiter) -> None:
        if not waiter.turn.done():
            self._waiters.remove(waiter)
            for place in waiter.places:
                self._give(place)  # nobody stands before those behind any more
        elif (name := waiter.turn.result()) is not None:
            self.release(name)  # the seat came in the moment of leaving

    def _overloaded(self, wanted: Sequence[tuple[str, int]]) -> ApiError:
        pace = sum(seats / max(_SHORTEST_S, self._held_s.get(name, _FIRST_GUESS_S)) for name, seats in wanted)
        places = dict(wanted).keys()
        ahead = sum(not places.isdisjoint(waiter.places) for waiter in self._waiters)
        delay_s = (ahead + 1) / pace if pace else _FIRST_GUESS_S
        return ApiError("server_is_overloaded", retry_after_s=min(60.0, max(1.0, delay_s)))


def now_s() -> float:
    """The clock of this room: seconds, monotonic."""
    return time.monotonic()
