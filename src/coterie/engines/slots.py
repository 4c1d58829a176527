"""The bounded queue in front of an engine's slots.

What it promises:

* At most ``slots`` tickets are running; at most ``limit`` wait, in the order in which they came.
* A group enters whole or not at all: the choices of one request never find themselves half admitted. (A group may
  take the free slots and the free places together.)
* A full queue answers at once with ``server_is_overloaded`` and the delay after which a place should be free: the
  measured mean time that a slot is held, times the tickets ahead, over the number of slots.
* A ticket that is released, or withdrawn while it waits, never blocks another; releasing twice does nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from coterie.errors import ApiError

_FIRST_GUESS_S = 5.0
"""How long a slot is assumed to be held before anything was measured."""

_WEIGHT = 0.2
"""Weight of the newest measurement in the running mean."""


class Ticket:
    """One place in the queue, later one slot. Use as ``async with ticket.running(timeout)``."""

    def __init__(self, queue: SlotQueue) -> None:
        self._queue = queue
        self._turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.entered_at_s = 0.0
        self.started_at_s: float | None = None

    @property
    def waited_s(self) -> float | None:
        """Seconds from entering the queue to the slot; ``None`` while it waits."""
        return None if self.started_at_s is None else self.started_at_s - self.entered_at_s

    async def turn(self, timeout_s: float | None = None) -> None:
        """Wait for a slot. Raises ``ApiError`` ``server_is_overloaded`` after ``timeout_s`` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._turn)
        except TimeoutError:
            raise self._queue.overloaded(1) from None

    def release(self) -> None:
        """Give the slot or the place back."""
        self._queue.leave(self)

    def __enter__(self) -> Ticket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def start(self, now_s: float) -> None:
        """Called by the queue when a slot is this ticket's."""
        self.started_at_s = now_s
        if not self._turn.done():
            self._turn.set_result(None)


class SlotQueue:
    """See the module. ``clock`` gives seconds."""

    def __init__(self, slots: int, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.slots = slots
        self.limit = limit
        self._clock = clock
        self._running: set[Ticket] = set()
        self._waiting: deque[Ticket] = deque()
        self._mean_held_s = _FIRST_GUESS_S

    @property
    def running(self) -> int:
        """Slots in use."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Tickets that wait."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nobody runs or waits."""
        return not self._running and not self._waiting

    def enter(self, count: int = 1) -> list[Ticket]:
        """Take ``count`` places at once. Raises ``ApiError`` ``server_is_overloaded`` where there are not as many."""
        if count > self.slots - self.running + self.limit - self.waiting:
            raise self.overloaded(count)
        tickets = [Ticket(self) for _ in range(count)]
        for ticket in tickets:
            ticket.entered_at_s = self._clock()
        self._waiting.extend(tickets)
        self._advance()
        return tickets

    def leave(self, ticket: Ticket) -> None:
        """Take ``ticket`` out, running or waiting."""
        if ticket in self._running:
            self._running.remove(ticket)
            held_s = self._clock() - (ticket.started_at_s or 0.0)
            self._mean_held_s += _WEIGHT * (held_s - self._mean_held_s)
        elif ticket in self._waiting:
            self._waiting.remove(ticket)
        self._advance()

    def overloaded(self, count: int) -> ApiError:
        """The failure of ``count`` requests for which there is no place now, with the computed delay."""
        ahead = self.waiting + count
        return ApiError("server_is_overloaded", retry_after_s=max(0.1, self._mean_held_s * ahead / self.slots))

    def _advance(self) -> None:
        while self._waiting and len(self._running) < self.slots:
            ticket = self._waiting.popleft()
            self._running.add(ticket)
            ticket.start(self._clock())
