"""Requests at once for each provider, and the bounded queue of those that wait for any of several.

What it promises:

* A provider never has more than its seats taken. (0 seats: it keeps its own queue, and is never full here.)
* Who waits is served in the order of coming, by the first of his providers that has a seat; who waits for another
  provider is passed over, not held up. Nobody who comes later takes a seat that somebody waits for.
* A provider that is left alone now can be waited for too. When its time is over (one timer watches the earliest), or
  its probe has ended well, it serves those who wait as any other; a provider to be probed is given to one of them.
* Who was served in vain waits on where he stood, and no full queue refuses him.
* A full queue, or a wait that is too long, is ``server_is_overloaded`` with the delay after which a seat should be
  free: those ahead, over the pace at which the providers' seats come free, as measured.
* Leaving while waiting, at whatever moment, loses no seat.
"""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from coterie.dispatch.health import Health, HealthState
from coterie.errors import ApiError

_FIRST_GUESS_S: Final = 5.0
_NEWEST: Final = 0.2
_SHORTEST_S: Final = 0.001
_INF: Final = float("inf")
_NONE: Final[Mapping[str, tuple[int, Health]]] = {}


@dataclass(eq=False, slots=True)
class _Waiter:
    places: Mapping[str, int]
    shut: Mapping[str, tuple[int, Health]]
    since_s: float
    turn: asyncio.Future[str | None]

    def seats(self, name: str, time_s: float) -> int | None:
        """How many a provider has that it would go to now; ``None``: it would not go there."""
        if name in self.shut:
            seats, health = self.shut[name]
            return seats if health.admits(time_s) else None
        return self.places.get(name)

    def probe(self, name: str, time_s: float) -> Health | None:
        """The record of a provider that it would probe."""
        _, health = self.shut.get(name, (0, None))
        return health if health is not None and health.state(time_s) is HealthState.PROBING else None

    def openings_s(self, time_s: float) -> list[float]:
        """Seconds until each provider that was left alone may be asked."""
        return [health.opens_in_s(time_s) for _, health in self.shut.values()]


class Seats:
    """The seats of every provider. ``limit`` may wait, for ``timeout_s`` seconds at most."""

    def __init__(self, limit: int, timeout_s: float) -> None:
        self.limit = limit
        self.timeout_s = timeout_s
        self.running: defaultdict[str, int] = defaultdict(int)
        """Requests that each provider has now."""
        self._waiters: list[_Waiter] = []
        self._timer: asyncio.TimerHandle | None = None
        """Rings when a provider may be asked again that somebody waits for."""
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

    async def wait(
        self,
        wanted: Sequence[tuple[str, int]],
        limit_s: float | None = None,
        *,
        shut: Mapping[str, tuple[int, Health]] = _NONE,
        since_s: float | None = None,
    ) -> str | None:
        """Wait for a seat at any provider of ``wanted``, for ``limit_s`` seconds at most where that is less.

        ``shut`` are the providers that may not be asked now (name, seats and record), for when they may. Who has waited
        before says since when, by the clock of :func:`now_s`.
        Returns ``None``, without a seat, after :meth:`recall`. Raises ``ApiError``.
        """
        if since_s is None and len(self._waiters) >= self.limit:
            raise self._overloaded(wanted)
        time_s = now_s()
        turn: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(dict(wanted), shut, time_s if since_s is None else since_s, turn)
        insort(self._waiters, waiter, key=lambda one: one.since_s)
        self._ring_in(min(waiter.openings_s(time_s), default=_INF))
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
        if any(name in waiter.shut for waiter in self._waiters):
            self._ring_again()  # its record has changed
        self._give(name)

    def recall(self) -> None:
        """End every wait, because there are other providers to choose from."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.turn.set_result(None)

    def _is_waited_for(self, name: str) -> bool:
        time_s = now_s() if self._waiters else 0.0
        return any(waiter.seats(name, time_s) is not None for waiter in self._waiters)

    def _give(self, name: str) -> None:
        """What is free at a provider, to those who wait for it."""
        served: list[_Waiter] = []
        probed: set[Health | None] = set()
        time_s = now_s() if self._waiters else 0.0
        for waiter in self._waiters:
            seats = waiter.seats(name, time_s)
            probe = waiter.probe(name, time_s)
            if seats is None or probe in probed:
                continue
            if seats and self.running[name] >= seats:
                break
            self.running[name] += 1
            waiter.turn.set_result(name)
            served.append(waiter)
            probed |= {probe} - {None}
        for waiter in served:
            self._waiters.remove(waiter)

    # Providers that are left alone for a time

    def _ring_in(self, delay_s: float) -> None:
        """Ring after that time, or at the time set before where that is earlier."""
        if delay_s == _INF:
            return
        loop = asyncio.get_running_loop()
        at_s = loop.time() + max(_SHORTEST_S, delay_s)
        if self._timer is not None:
            if self._timer.when() <= at_s:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._ring_again()
        for name in dict.fromkeys(name for waiter in self._waiters for name in waiter.shut):
            self._give(name)

    def _ring_again(self) -> None:
        """Ring when the next provider may be asked; what may be asked already is given out as it comes free.

        Called before that is done: so whatever opens between the two is not missed.
        """
        time_s = now_s()
        openings_s = (delay_s for waiter in self._waiters for delay_s in waiter.openings_s(time_s) if delay_s)
        self._ring_in(min(openings_s, default=_INF))

    def _withdraw(self, waiter: _Waiter) -> None:
        if not waiter.turn.done():
            self._waiters.remove(waiter)
            for place in (*waiter.places, *waiter.shut):
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
