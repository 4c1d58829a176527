"""Waiting for what has no event to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], bool], limit_s: float = 60) -> None:
    """Return when ``holds`` does. Raises ``TimeoutError`` where it never does."""
    async with asyncio.timeout(limit_s):
        while not holds():  # noqa: ASYNC110 - the other side is another process, or has no event
            await asyncio.sleep(0.002)
