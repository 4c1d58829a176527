"""Turns by themselves: no application around them, the real storage below."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from tests.support.provider import WHOLE, ScriptedProvider, Step

from coterie.errors import ApiError
from coterie.turns.keeping import Keeping
from coterie.turns.turn import Item, Plan, Turn
from coterie.wire.lingua import Generation, Shortcut


class Sink:
    """Takes events; waits for ``gate`` before it takes the event ``at``, without having taken it."""

    def __init__(self, at: int = -1) -> None:
        self.events: list[bytes] = []
        self.told = asyncio.Event()
        """Set by the first event."""
        self.waits = asyncio.Event()
        """Set when it holds the turn up."""
        self.gate = asyncio.Event()
        self._at = at

    @property
    def ready(self) -> bool:
        return len(self.events) != self._at

    def put(self, event: bytes) -> bool:
        if self.ready:
            self.events.append(event)
        return self.ready or self.events[-1] is event

    async def write(self, event: bytes) -> None:
        if len(self.events) == self._at:
            self.waits.set()
            await self.gate.wait()
        self.events.append(event)
        self.told.set()

    @property
    def stream(self) -> bytes:
        return b"".join(self.events)


class Running:
    """A turn that runs. ``failure`` is what its interruption is told as; ``None``: its client has gone."""

    def __init__(self, keeping: Keeping, plan: Plan, script: Iterable[Step] = WHOLE, sink: Sink | None = None) -> None:
        self._shortcut = Shortcut()
        self.turn = Turn(plan, keeping, related, self._shortcut)
        self.sink = sink or Sink()
        self.failure: ApiError | None = None
        self.accepted = asyncio.Event()
        """Set when a turn in the background is accepted; it begins when ``go`` is set."""
        self.go = asyncio.Event()
        self.provider = ScriptedProvider(script)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        if self.turn.plan.parsed.background:
            await self.turn.accept()
            self.accepted.set()
            await self.go.wait()
        async with contextlib.aclosing(self.provider.generate(Generation("m", {}, shortcut=self._shortcut))) as chunks:
            sink = self.sink if self.turn.plan.told and not self.turn.plan.parsed.background else None
            await self.turn.run(chunks, sink, lambda: self.failure)

    def stop(self, failure: ApiError) -> None:
        """The server stops."""
        self.failure = failure
        self.task.cancel()


def related(error: ApiError) -> ApiError:
    """``error`` in the words of the request, which are those of the tests."""
    return error if error.entry.code != "context_length_exceeded" else error.at("input")


async def finished(
    keeping: Keeping, plan: Plan, script: Iterable[Step] = WHOLE, sink: Sink | None = None
) -> tuple[Turn, Sink]:
    """A turn that has ended."""
    running = Running(keeping, plan, script, sink)
    await running.task
    return running.turn, running.sink


async def rows(keeping: Keeping) -> list[Any]:
    """All that is stored of responses."""
    await keeping.stop()
    return list(await keeping.responses._db.fetch("SELECT id, status FROM responses"))


async def stored(keeping: Keeping, turn: Turn) -> Any:
    """What is stored of a turn."""
    row = await keeping.responses.get(turn.plan.owner, turn.plan.id)
    assert row is not None
    return row


async def conversation(keeping: Keeping, *items: Item) -> str:
    """A new conversation."""
    return (await keeping.conversations.create("", {}, items)).id


async def texts(keeping: Keeping, conversation_id: str) -> list[str]:
    """The texts of a conversation's items."""
    items = await keeping.conversations.history("", conversation_id, 1000)
    return [item["content"][0]["text"] for item in items]


async def is_free(keeping: Keeping, conversation_id: str) -> bool:
    """Whether no response holds a conversation."""
    return (await keeping.conversations.get("", conversation_id)).locked_by is None
