"""Responses that are generated in the background: for nobody who waits, and for whoever asks.

What it promises:

* at most ``responses.background`` are generated at once and ``responses.background_queue`` wait, in the order in which
  they came; one more is refused at once, with the delay after which there should be room;
* each has ``responses.background_timeout_s`` in all, and then fails as ``response_timeout``; until then a model that
  has no room for it is asked again, as long as it has said nothing;
* one that is cancelled stops at once, wherever it was; the engine behind it too;
* the end of the server ends them like any other answer: those that do not finish in time are stored as failed, also
  those that it ends before they ever ran.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Final

from coterie.api.active import ActiveRequest, ActiveRequests
from coterie.config import ResponsesSettings
from coterie.dispatch.failover import is_semantic
from coterie.errors import ApiError
from coterie.observe.metrics import Metrics
from coterie.turns.asking import Asking
from coterie.turns.turn import Turn
from coterie.wire.lingua import Chunks

_FIRST_GUESS_S: Final = 10.0
"""How long one is assumed to take before any was measured."""

_WEIGHT: Final = 0.2
"""Weight of the newest measurement in the running mean."""

_SHORTEST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 30.0
"""Bounds of the delay that a model without room asks for."""

_pause = asyncio.sleep


class Background:
    """See the module."""

    def __init__(self, settings: ResponsesSettings, active: ActiveRequests, metrics: Metrics) -> None:
        self._settings = settings
        self._active = active
        self._metrics = metrics
        self._slots = asyncio.Semaphore(self._settings.background)
        self._tasks: set[asyncio.Task[None]] = set()
        self._entering = 0
        """Responses that are being accepted."""
        self._mean_s = _FIRST_GUESS_S

    @property
    def count(self) -> int:
        """Responses that run or wait."""
        return len(self._tasks)

    @contextlib.contextmanager
    def room(self) -> Iterator[None]:
        """While one more is accepted, which then :meth:`begin` is told.

        Raises ``ApiError`` ``server_is_overloaded`` where it could not even wait.
        """
        ahead = self.count + self._entering + 1 - self._settings.background
        if ahead > self._settings.background_queue:
            raise ApiError("server_is_overloaded", retry_after_s=self._mean_s * ahead / self._settings.background)
        self._entering += 1
        try:
            yield
        finally:
            self._entering -= 1

    def begin(self, turn: Turn, asking: Asking) -> None:
        """Generate ``turn``, which was accepted. Returns at once."""
        begun: asyncio.Future[ActiveRequest] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._generate(turn, asking, begun))
        request = self._active.admit(task)
        begun.set_result(request)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._ended(task, request, turn))

    def _ended(self, task: asyncio.Task[None], request: ActiveRequest, turn: Turn) -> None:
        if turn.abandon(request.failure or self._active.shutting_down()):  # it was ended before its first step
            self._count(turn)
        self._tasks.discard(task)
        self._active.leave(request)

    async def _generate(self, turn: Turn, asking: Asking, begun: asyncio.Future[ActiveRequest]) -> None:
        request = begun.result()
        loop = asyncio.get_running_loop()
        limit_s = self._settings.background_timeout_s
        late = ApiError("response_timeout", limit_s=f"{limit_s:g}")
        timer = loop.call_later(limit_s, request.end_with, late)
        try:
            async with contextlib.aclosing(self._chunks(turn, asking)) as chunks:
                await turn.run(chunks, None, lambda: request.failure)
        finally:
            timer.cancel()
            self._count(turn)

    async def _chunks(self, turn: Turn, asking: Asking) -> Chunks:
        """The chunks of its answer, once there is a slot."""
        async with self._slots:
            started_s = time.perf_counter()
            await turn.start()
            async with contextlib.aclosing(_patiently(asking)) as chunks:
                async for chunk in chunks:
                    yield chunk
            self._mean_s += _WEIGHT * (time.perf_counter() - started_s - self._mean_s)

    def _count(self, turn: Turn) -> None:
        outcome = "ok" if turn.failure is None else turn.failure.entry.fault
        code = "" if turn.failure is None else turn.failure.code
        self._metrics.count_request("background", "responses", turn.plan.parsed.model, outcome, code)


async def _patiently(asking: Asking) -> Chunks:
    """The chunks of the answer, asked for until there is room for it."""
    while True:
        said = False
        try:
            async with contextlib.aclosing(asking.chunks()) as chunks:
                async for chunk in chunks:
                    said = said or is_semantic(chunk)
                    yield chunk
            return
        except ApiError as error:
            # What a provider said itself is in the detail: it is down, and that is not a matter of room here.
            if said or error.code != "server_is_overloaded" or error.detail is not None:
                raise
            delay_s = min(_LONGEST_WAIT_S, max(_SHORTEST_WAIT_S, error.retry_after_s or 0.0))
        await _pause(delay_s)
