"""Several streams of chunks as one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from coterie.wire.lingua import Chunk, Chunks

_END = object()

_AHEAD = 8
"""Chunks that the streams together may be ahead of the consumer, so that a slow reader holds every stream back."""


async def merged(streams: Sequence[Chunks]) -> AsyncGenerator[Chunk, None]:
    """The chunks of all ``streams`` as they come, each stream's in its order.

    The first failure ends all streams. Closing this closes them.
    """
    inbox: asyncio.Queue[Chunk | BaseException | object] = asyncio.Queue(_AHEAD)
    tasks = [asyncio.create_task(_pump(stream, inbox)) for stream in streams]
    open_streams = len(tasks)
    try:
        while open_streams:
            item = await inbox.get()
            if item is _END:
                open_streams -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                assert isinstance(item, dict)
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(stream: Chunks, inbox: asyncio.Queue[Chunk | BaseException | object]) -> None:
    async with contextlib.aclosing(stream) as chunks:
        try:
            async for chunk in chunks:
                await inbox.put(chunk)
        except Exception as error:  # noqa: BLE001 - not handled here: carried over to the consumer, who raises it
            await inbox.put(error)
        else:
            await inbox.put(_END)
