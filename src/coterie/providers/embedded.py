"""The embedded provider: models run by engines of this machine.

A request with several choices (``n``, or several prompts) is several jobs of the engine, which enter its queue together
and whose chunks are merged; their usage is added up, the tokens of each prompt once, as OpenAI counts them.
A model's embeddings come from a second engine with its own settings (an input must be computed in one step), loaded
only when asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from coterie.config import EMBEDDED
from coterie.engines.llama_cpp import LlamaCppEngine
from coterie.engines.llama_request import Job, chat_job, text_job
from coterie.engines.slots import Ticket
from coterie.engines.spec import EngineState, PromptCache
from coterie.errors import ApiError
from coterie.providers.base import ModelCard, Offer
from coterie.providers.fitness import check_fitness, check_inputs, check_room
from coterie.providers.merge import merged
from coterie.providers.tools import with_tools
from coterie.wire.lingua import Chunk, Chunks, Embedded, Embedding, Generation

_EMBED_INPUTS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """One model and its engines."""

    card: ModelCard
    generator: LlamaCppEngine
    embedder: LlamaCppEngine
    preload: bool = False


class EmbeddedProvider:
    """Serves ``models`` with engines of this machine. See the module."""

    name = EMBEDDED
    unread = False

    def __init__(self, models: list[EmbeddedModel]) -> None:
        self._models = {model.card.id: model for model in models}

    def models(self) -> list[ModelCard]:
        """The models that it serves."""
        return [model.card for model in self._models.values()]

    def offer(self, model: str) -> Offer | None:
        """How it would serve ``model``. The engine has a queue of its own, and goes on with an assistant's message."""
        if model not in self._models:
            return None
        return Offer(context_tokens=self._models[model].generator.spec.context_tokens, continues=True)

    def engines(self) -> list[LlamaCppEngine]:
        """Every engine, loaded or not."""
        return [engine for model in self._models.values() for engine in (model.generator, model.embedder)]

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """Generate every choice. Raises ``ApiError``."""
        attempt = generation.attempt
        if isinstance(generation.known, ApiError):
            raise generation.known
        generation = generation.known or generation
        if generation.partial and generation.body.get("tools"):
            # They are told to the model as a form of its whole answer, which has begun without it.
            raise ApiError("unsupported_parameter", param="tools")
        engine = self._models[generation.model].generator
        check_room(generation, engine.spec.slots + engine.spec.queue)
        tickets = engine.enter(len(generation.prompts or (None,)) * generation.n)
        try:
            facts = await engine.facts()
            check_fitness(generation, facts)
            streams = self._streams(engine, generation, tickets)
            usage = _UsageSum(generation.n)
            async with contextlib.aclosing(merged(streams) if len(streams) > 1 else _only(streams[0])) as chunks:
                async for chunk in chunks:
                    if attempt.queue_s is None and tickets[0].waited_s is not None:
                        attempt.queue_s = tickets[0].waited_s
                    if chunk.get("usage"):
                        usage.add(chunk["usage"])
                    else:
                        yield chunk
            yield {"choices": [], "usage": usage.total()}
        finally:
            engine.leave(tickets)

    async def embed(self, embedding: Embedding) -> Embedded:
        """Compute vectors, some inputs at a time so that no answer of the engine grows without bound."""
        if embedding.refusal is not None:
            raise embedding.refusal
        engine = self._models[embedding.model].embedder
        tickets = engine.enter(1)
        try:
            await tickets[0].turn(engine.spec.queue_timeout_s)
            check_inputs(embedding, await engine.facts())
            vectors: list[list[float]] = []
            tokens = 0
            for start in range(0, len(embedding.inputs), _EMBED_INPUTS_AT_ONCE):
                part = await engine.embed(embedding.inputs[start : start + _EMBED_INPUTS_AT_ONCE])
                vectors += part.vectors
                tokens += part.prompt_tokens
            return Embedded(vectors, tokens)
        finally:
            engine.leave(tickets)

    def status(self) -> list[dict[str, Any]]:
        """State, slots and queue of every engine that was used or generates."""
        return [
            {
                "model": engine.spec.model,
                "task": engine.spec.task,
                "state": engine.state.value,
                "pid": engine.worker_pid,
                "slots": engine.spec.slots,
                "running": engine.queue.running,
                "waiting": engine.queue.waiting,
                "loads": engine.loads,
            }
            for engine in self.engines()
            if engine.spec.task == "generate" or engine.state is not EngineState.UNLOADED
        ]

    def ready(self) -> bool:
        """Whether every model that preloads has been loaded once, and none failed to load a moment ago.

        One that was unloaded when idle comes back with the next request, so it is ready; so is one whose load failed
        some time ago: the next request tries again, and if nobody sent one, nothing would ever change.
        """
        return all(self._engine_ready(model) for model in self._models.values())

    async def start(self) -> None:
        """Load the models that preload. A model that fails to load stays a failure of its requests."""
        for model in self._models.values():
            if model.preload:
                with contextlib.suppress(ApiError):
                    await model.generator.preload()

    async def stop(self) -> None:
        """End every engine."""
        for engine in self.engines():
            await engine.stop()

    def _engine_ready(self, model: EmbeddedModel) -> bool:
        engine = model.generator
        tried = engine.loads > 0 or engine.state is EngineState.FAILED
        return not engine.refuses and (tried or not model.preload)

    def _streams(self, engine: LlamaCppEngine, generation: Generation, tickets: list[Ticket]) -> list[Chunks]:
        body, wrap = with_tools(generation.body)
        jobs = _jobs(generation, body, engine.spec.prompt_cache)
        # The first ticket's wait is bounded; the others follow as slots come free, the answer having begun.
        waits = [engine.spec.queue_timeout_s] + [None] * (len(jobs) - 1)
        return [
            wrap(engine.generate(ticket, job, generation.prompt_param, wait_s))
            for ticket, job, wait_s in zip(tickets, jobs, waits, strict=True)
        ]


def _jobs(generation: Generation, body: dict[str, Any], cache: PromptCache) -> list[Job]:
    if generation.prompts is None:
        return [chat_job(body, index, cache) for index in range(generation.n)]
    return [
        text_job(body, prompt, place * generation.n + choice, cache)
        for place, prompt in enumerate(generation.prompts)
        for choice in range(generation.n)
    ]


async def _only(stream: Chunks) -> AsyncGenerator[Chunk, None]:
    """One stream, closed with its consumer."""
    async with contextlib.aclosing(stream) as chunks:
        async for chunk in chunks:
            yield chunk


class _UsageSum:
    """Adds usages up: completions all, prompts once for each ``n`` choices."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._prompt = 0
        self._cached = 0
        self._completion = 0

    def add(self, usage: dict[str, Any]) -> None:
        self._prompt += usage["prompt_tokens"]
        self._cached += usage["prompt_tokens_details"]["cached_tokens"]
        self._completion += usage["completion_tokens"]

    def total(self) -> dict[str, Any]:
        prompt = self._prompt // self._n
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._completion,
            "total_tokens": prompt + self._completion,
            "prompt_tokens_details": {"cached_tokens": min(prompt, self._cached // self._n)},
        }
