"""A provider that does what a test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Any

from coterie.providers.base import ModelCard, Offer
from coterie.wire.lingua import Chunk, Embedded, Embedding, Generation


@dataclass(frozen=True, slots=True)
class Short:
    """A piece of text for the short way; where that is not open, it is a chunk."""

    text: str
    index: int = 0


Step = Chunk | Short | BaseException | asyncio.Event
"""A chunk is yielded, an exception raised, an event awaited."""

SECRET = "PRIVATE /etc/x"
"""Text of exceptions, which no client may ever see."""


def delta(content: str, index: int = 0) -> Chunk:
    return {"choices": [{"index": index, "delta": {"content": content}, "finish_reason": None}]}


def role(index: int = 0) -> Chunk:
    return {"choices": [{"index": index, "delta": {"role": "assistant"}, "finish_reason": None}]}


def finish(reason: str = "stop", index: int = 0) -> Chunk:
    return {"choices": [{"index": index, "delta": {}, "finish_reason": reason}]}


def usage(prompt: int = 3, completion: int = 2) -> Chunk:
    total = prompt + completion
    return {
        "choices": [],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total},
    }


WHOLE: tuple[Chunk, ...] = (delta("Hel"), delta("lo"), finish(), usage())
"""A good answer: "Hello"."""


class ScriptedProvider:
    """Serves ``model`` by playing ``script``, the same for each request."""

    unread = False

    def __init__(self, script: Iterable[Step] = WHOLE, *, model: str = "m", name: str = "scripted") -> None:
        self.name = name
        self.offered = Offer()
        self.script = script
        self.scripts: list[Iterable[Step]] = []
        """Scripts of the next requests; ``script`` follows."""
        self.model = model
        self.pulled = 0
        """Chunks that were taken."""
        self.shortened = 0
        """Pieces of text that took the short way."""
        self.asked = asyncio.Event()
        """Set when a request begins to generate."""
        self.paused = asyncio.Event()
        """Set when it waits for an event of a script."""
        self.closed = asyncio.Event()
        """Set when a generator has ended, in whatever way."""
        self.generations: list[Generation] = []
        self.vectors = [[0.5, -1.0]]
        self.embed_failure: Exception | None = None
        self.embed_gate: asyncio.Event | None = None
        self.is_ready = True
        self.calls: list[str] = []

    def offer(self, model: str) -> Offer | None:
        return self.offered if model == self.model else None

    def models(self) -> list[ModelCard]:
        return [ModelCard(self.model, 1_700_000_000, "tests")]

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        self.generations.append(generation)
        self.asked.set()
        try:
            for step in self.scripts.pop(0) if self.scripts else self.script:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, asyncio.Event):
                    self.paused.set()
                    await step.wait()
                    continue
                if isinstance(step, Short) and self._is_taken(generation, step):
                    continue
                self.pulled += 1
                yield delta(step.text, step.index) if isinstance(step, Short) else step
        finally:
            self.closed.set()

    def _is_taken(self, generation: Generation, step: Short) -> bool:
        take = generation.shortcut.take
        taken = take is not None and take(step.index, step.text, None)
        self.shortened += taken
        return taken

    async def embed(self, embedding: Embedding) -> Embedded:
        self.asked.set()
        try:
            if self.embed_gate is not None:
                await self.embed_gate.wait()
            if self.embed_failure is not None:
                raise self.embed_failure
            return Embedded(self.vectors, 7)
        finally:
            self.closed.set()

    def status(self) -> list[dict[str, Any]]:
        row = {"model": self.model, "task": "generate", "state": "ready", "pid": 1}
        return [{**row, "slots": 4, "running": 1, "waiting": 2, "loads": 3}]

    def ready(self) -> bool:
        return self.is_ready

    async def start(self) -> None:
        self.calls.append("start")

    async def stop(self) -> None:
        self.calls.append("stop")
