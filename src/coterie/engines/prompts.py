"""The line in which prompts wait to be computed.

A step of the engine takes in as much of the waiting prompts as fits and cannot be interrupted, so prompts that are
handed over together all end when the last of them does: each waits for all. One after another, each waits for those
before it alone, and the sum of the work is the same: half of a burst has its first token sooner, the first one in the
time of its own prompt. (Where steps are cheap, on a GPU, the line lets everybody through.)

What it promises:

* at most ``at_once`` prompts are being computed; the others wait in the order in which they came;
* a wait that is too long, or is given up, leaves no trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from coterie.errors import ApiError


class PromptLine:
    """See the module."""

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def place(self, wait_s: float | None, too_late: Callable[[], ApiError]) -> AsyncIterator[None]:
        """Wait at most ``wait_s`` seconds for a place, and hold it; raises what ``too_late`` makes after them."""
        try:
            async with asyncio.timeout(wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise too_late() from None
        try:
            yield
        finally:
            self._free.release()
