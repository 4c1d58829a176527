"""The embedded provider: choices, usage, queues and readiness, with engines that play; and once with the real one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.engine import spec
from tests.support.provider import delta, finish
from tests.support.waiting import until

from coterie.engines.llama_cpp import LlamaCppEngine
from coterie.engines.llama_request import Job
from coterie.engines.slots import Ticket
from coterie.engines.spec import EngineState, ModelFacts
from coterie.errors import ApiError
from coterie.providers.base import ModelCard, Provider
from coterie.providers.embedded import EmbeddedModel, EmbeddedProvider
from coterie.wire.lingua import Chunk, Chunks, Embedded, Embedding, Generation, Prompt

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


class PlayingEngine(LlamaCppEngine):
    """An engine with the real queue that says what a test tells it."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(spec(**changes))
        self.jobs: list[Job] = []
        self.waits: list[float | None] = []
        self.script: Callable[[Job], list[Chunk | Exception | asyncio.Event]] = whole
        self.load_failure: ApiError | None = None
        self.failed_a_moment_ago = False
        self.inputs: list[tuple[Prompt, ...]] = []
        self.open = 0

    @property
    def refuses(self) -> bool:
        return self.failed_a_moment_ago

    async def facts(self) -> ModelFacts:
        if self.load_failure is not None:
            self.state = EngineState.FAILED
            self.failed_a_moment_ago = True
            raise self.load_failure
        self.loads = max(1, self.loads)
        self.state = EngineState.READY
        return ModelFacts(context_tokens=256, vocabulary=1000, vision=False)

    async def generate(self, ticket: Ticket, job: Job, prompt_param: str, wait_s: float | None) -> Chunks:
        self.jobs.append(job)
        self.waits.append(wait_s)
        with ticket:
            await ticket.turn(wait_s)
            self.open += 1
            try:
                for step in self.script(job):
                    if isinstance(step, Exception):
                        raise step
                    if isinstance(step, asyncio.Event):
                        await step.wait()
                    else:
                        yield step
            finally:
                self.open -= 1

    async def embed(self, inputs: tuple[Prompt, ...]) -> Embedded:
        self.inputs.append(inputs)
        return Embedded([[float(len(entry))] for entry in inputs], len(inputs))

    async def preload(self) -> None:
        await self.facts()


def whole(job: Job) -> list[Chunk | Exception | asyncio.Event]:
    used: Chunk = {
        "choices": [],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    }
    return [delta(f"<{job.index}>", job.index), finish(index=job.index), used]


def provider_of(
    engine: PlayingEngine, *, preload: bool = False, embedder: PlayingEngine | None = None
) -> EmbeddedProvider:
    embedder = embedder or PlayingEngine(task="embed", slots=1)
    return EmbeddedProvider([EmbeddedModel(ModelCard("m", 1, "coterie"), engine, embedder, preload)])


async def chunks_of(provider: Provider, generation: Generation) -> list[Chunk]:
    async with contextlib.aclosing(provider.generate(generation)) as chunks:
        return [chunk async for chunk in chunks]


async def failure_of(provider: Provider, generation: Generation) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await chunks_of(provider, generation)
    return caught.value


async def test_one_choice() -> None:
    engine = PlayingEngine()
    said, end, used = await chunks_of(provider_of(engine), Generation("m", CHAT))
    assert (said, end) == (delta("<0>"), finish())
    assert used["usage"]["total_tokens"] == 12
    assert engine.queue.idle
    assert engine.waits == [60]


@pytest.mark.parametrize(
    ("generation", "prompt_tokens", "cached"),
    [
        (Generation("m", CHAT, 3), 10, 4),
        (Generation("m", {}, 1, ("a", "b", "c")), 30, 12),
        (Generation("m", {}, 2, ("a", "b")), 20, 8),
    ],
    ids=["choices", "prompts", "both"],
)
async def test_usage_counts_a_prompt_once(generation: Generation, prompt_tokens: int, cached: int) -> None:
    chunks = await chunks_of(provider_of(PlayingEngine()), generation)
    count = generation.n * len(generation.prompts or (None,))
    assert chunks[-1]["usage"] == {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 2 * count,
        "total_tokens": prompt_tokens + 2 * count,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    assert [chunk for chunk in chunks if "usage" in chunk] == chunks[-1:]


async def test_the_indexes_of_prompts_and_choices() -> None:
    engine = PlayingEngine()
    await chunks_of(provider_of(engine), Generation("m", {}, 2, ("a", [1, 2])))
    jobs = sorted(engine.jobs, key=lambda job: job.index)
    assert [(job.index, job.body["prompt"]) for job in jobs] == [(0, "a"), (1, "a"), (2, [1, 2]), (3, [1, 2])]


async def test_more_choices_than_slots_follow_each_other() -> None:
    engine = PlayingEngine(slots=2)
    chunks = await chunks_of(provider_of(engine), Generation("m", CHAT, 6))
    assert sum(bool(chunk["choices"]) for chunk in chunks) == 12
    assert engine.waits.count(None) == 5
    assert engine.queue.idle


async def test_more_choices_than_places_are_the_callers_fault() -> None:
    engine = PlayingEngine(slots=1, queue=2)
    failure = await failure_of(provider_of(engine), Generation("m", CHAT, 4))
    assert (failure.code, failure.param) == ("integer_above_max_value", "n")
    assert len(await chunks_of(provider_of(engine), Generation("m", CHAT, 3))) == 7


async def test_a_full_queue() -> None:
    gate = asyncio.Event()
    engine = PlayingEngine(slots=1, queue=0)
    engine.script = lambda job: [gate, *whole(job)]
    provider = provider_of(engine)
    first = asyncio.create_task(chunks_of(provider, Generation("m", CHAT)))
    await until(lambda: engine.open == 1)
    assert (await failure_of(provider, Generation("m", CHAT))).code == "server_is_overloaded"
    gate.set()
    await first
    assert engine.queue.idle


@pytest.mark.parametrize("n", [1, 3])
async def test_a_failure_gives_every_place_back(n: int) -> None:
    engine = PlayingEngine(slots=4)
    engine.script = lambda job: [
        delta("a", job.index),
        ApiError("engine_failed") if job.index == n - 1 else asyncio.Event(),
    ]
    assert (await failure_of(provider_of(engine), Generation("m", CHAT, n))).code == "engine_failed"
    assert (engine.open, engine.queue.idle) == (0, True)


@pytest.mark.parametrize("n", [1, 3])
async def test_closing_ends_every_choice(n: int) -> None:
    engine = PlayingEngine(slots=4)
    engine.script = lambda job: [delta("a", job.index), asyncio.Event()]
    async with contextlib.aclosing(provider_of(engine).generate(Generation("m", CHAT, n))) as chunks:
        for _ in range(n):
            await anext(chunks)
        assert engine.open == n
    assert (engine.open, engine.queue.idle) == (0, True)


@pytest.mark.parametrize(
    ("generation", "code"),
    [
        (Generation("m", {**CHAT, "max_tokens": 257}), "integer_above_max_value"),
        (Generation("m", {}, 1, ([1000],)), "invalid_value"),
    ],
)
async def test_what_does_not_fit_is_never_generated(generation: Generation, code: str) -> None:
    engine = PlayingEngine()
    assert (await failure_of(provider_of(engine), generation)).code == code
    assert engine.jobs == []
    assert engine.queue.idle


async def test_a_model_that_cannot_be_loaded() -> None:
    engine = PlayingEngine()
    engine.load_failure = ApiError("model_load_failed", model="m")
    provider = provider_of(engine)
    assert (await failure_of(provider, Generation("m", CHAT))).code == "model_load_failed"
    assert engine.queue.idle
    assert not provider.ready()


# Embeddings.


async def test_many_inputs_go_in_parts_and_keep_their_order() -> None:
    embedder = PlayingEngine(task="embed", slots=1)
    inputs = tuple("x" * length for length in range(1, 40))
    embedded = await provider_of(PlayingEngine(), embedder=embedder).embed(Embedding("m", inputs))
    assert embedded == Embedded([[float(length)] for length in range(1, 40)], 39)
    assert [len(part) for part in embedder.inputs] == [16, 16, 7]
    assert embedder.queue.idle


async def test_a_token_that_the_model_has_not() -> None:
    embedder = PlayingEngine(task="embed", slots=1)
    with pytest.raises(ApiError) as caught:
        await provider_of(PlayingEngine(), embedder=embedder).embed(Embedding("m", ("a", [1000])))
    assert caught.value.param == "input[1]"
    assert (embedder.inputs, embedder.queue.idle) == ([], True)


# State.


async def test_status() -> None:
    engine, embedder = PlayingEngine(), PlayingEngine(task="embed", slots=1)
    provider = provider_of(engine, embedder=embedder)
    [row] = provider.status()
    assert row == {
        "model": "m", "task": "generate", "state": "unloaded", "pid": None,
        "slots": 2, "running": 0, "waiting": 0, "loads": 0,
    }  # fmt: skip
    await provider.embed(Embedding("m", ("a",)))
    assert [(row["task"], row["state"]) for row in provider.status()] == [("generate", "unloaded"), ("embed", "ready")]


READY: dict[str, tuple[bool, EngineState, int, bool, bool]] = {
    "not asked for yet": (False, EngineState.UNLOADED, 0, False, True),
    "being loaded for a request": (False, EngineState.LOADING, 0, False, True),
    "loaded": (False, EngineState.READY, 1, False, True),
    "failed a moment ago": (False, EngineState.FAILED, 0, True, False),
    "failed, and may be tried again": (False, EngineState.FAILED, 0, False, True),
    "to be loaded at start": (True, EngineState.UNLOADED, 0, False, False),
    "being loaded at start": (True, EngineState.LOADING, 0, False, False),
    "loaded at start": (True, EngineState.READY, 1, False, True),
    "unloaded when idle": (True, EngineState.UNLOADED, 1, False, True),
    "being loaded again": (True, EngineState.LOADING, 1, False, True),
    "failed at start": (True, EngineState.FAILED, 0, True, False),
    "failed at start, and may be tried again": (True, EngineState.FAILED, 0, False, True),
}


@pytest.mark.parametrize(("preload", "state", "loads", "failed", "expected"), READY.values(), ids=READY.keys())
async def test_readiness(preload: bool, state: EngineState, loads: int, failed: bool, expected: bool) -> None:
    engine = PlayingEngine()
    engine.state, engine.loads, engine.failed_a_moment_ago = state, loads, failed
    assert provider_of(engine, preload=preload).ready() is expected


@pytest.mark.parametrize("preload", [True, False])
async def test_a_start_loads_what_is_to_be_preloaded(preload: bool) -> None:
    engine = PlayingEngine()
    provider = provider_of(engine, preload=preload)
    await provider.start()
    assert (engine.state is EngineState.READY) is preload
    assert provider.ready()


async def test_a_model_that_fails_at_start_does_not_stop_it() -> None:
    engine = PlayingEngine()
    engine.load_failure = ApiError("model_load_failed", model="m")
    provider = provider_of(engine, preload=True)
    await provider.start()
    assert not provider.ready()
    assert [card.id for card in provider.models()] == ["m"]


# The real engine.


async def test_more_choices_than_slots_of_the_real_engine() -> None:
    engine = LlamaCppEngine(spec())
    provider = EmbeddedProvider([EmbeddedModel(ModelCard("m", 1, "x"), engine, PlayingEngine(task="embed"))])
    try:
        async with asyncio.timeout(20):
            chunks = await chunks_of(provider, Generation("m", {"max_tokens": 3}, 2, ("Once", "Twice")))
    finally:
        await provider.stop()
    ends = [choice for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert sorted(choice["index"] for choice in ends) == [0, 1, 2, 3]
    assert chunks[-1]["usage"]["completion_tokens"] == 12
