"""The requests that are being answered, and how they are ended before their time.

A request ends early for one of two reasons: its client has gone, or the server is told to stop. Both cancel its task;
what the task then does depends on the reason that is noted here. (A look at a flag for each token would cost more, and
would not reach a task that waits for a slot.)
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from coterie.errors import ApiError


@dataclass(eq=False)
class ActiveRequest:
    """One of them. ``failure`` is what the client is told; ``client_gone`` says that there is nobody to tell."""

    task: asyncio.Task[Any]
    client_gone: bool = False
    failure: ApiError | None = None

    def end_for_client(self) -> None:
        """The client has gone."""
        if not self.client_gone and self.failure is None:
            self.client_gone = True
            self.task.cancel()

    def end_with(self, failure: ApiError) -> None:
        """The answer must end with ``failure``."""
        if not self.client_gone and self.failure is None:
            self.failure = failure
            self.task.cancel()


@dataclass
class ActiveRequests:
    """All of them. ``draining`` is set when the server stops: new requests are refused, running ones may finish."""

    draining: bool = False
    _ends_at_s: float = 0.0
    _requests: set[ActiveRequest] = field(default_factory=set)
    _empty: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where there are none any more, while the server stops: nobody waits for it before."""
    _tells: set[Callable[[], None]] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._requests)

    def enter(self) -> ActiveRequest:
        """Note the current task's request. Raises ``ApiError`` ``server_shutting_down``."""
        if self.draining:
            raise self.shutting_down()
        task = asyncio.current_task()
        assert task is not None
        return self.admit(task)

    def admit(self, task: asyncio.Task[Any]) -> ActiveRequest:
        """Note a request that ``task`` works on, and that was accepted before."""
        request = ActiveRequest(task)
        self._requests.add(request)
        return request

    def leave(self, request: ActiveRequest) -> None:
        """The request is answered, or was ended."""
        self._requests.discard(request)
        if self.draining and not self._requests:
            self._empty.set()

    @contextlib.contextmanager
    def told_of_stop(self, tell: Callable[[], None]) -> Iterator[None]:
        """While inside, ``tell`` is called when the server is told to stop: for who waits for no running request."""
        self._tells.add(tell)
        try:
            yield
        finally:
            self._tells.discard(tell)

    async def drain(self, grace_s: float) -> None:
        """Refuse new requests; give running ones ``grace_s`` seconds, then end them; return when all have left."""
        self.draining = True
        self._ends_at_s = time.monotonic() + grace_s
        for tell in tuple(self._tells):
            tell()
        if await self._left_within(grace_s):
            return
        for request in tuple(self._requests):
            request.end_with(self.shutting_down())
        await self._left_within(_END_S)

    def shutting_down(self) -> ApiError:
        """The failure of a request that the stop ends or keeps out; the delay is what is left of the grace time."""
        return ApiError("server_shutting_down", retry_after_s=max(1.0, self._ends_at_s - time.monotonic()))

    async def _left_within(self, limit_s: float) -> bool:
        if not self._requests:
            return True
        self._empty.clear()
        try:
            async with asyncio.timeout(limit_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True


_END_S = 5.0
"""Seconds for the last frame of an answer that was ended; a client that does not even read that is let go."""
