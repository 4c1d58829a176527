"""Continuous batching: rows of one batch do not touch each other. The real engine with the real model, eight slots.

Texts are compared piece by piece as they came, so a token that differs, or is cut otherwise, is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from coterie.config import DEFAULT_MODEL, load_settings
from coterie.engines.llama_cpp import LlamaCppEngine
from coterie.engines.llama_request import chat_job
from coterie.engines.spec import EngineSpec
from coterie.models.store import ModelStore

SLOTS = 8
WORDS = ("river", "engine", "garden", "winter", "copper", "letter", "island", "market", "planet", "violin", "bridge")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine() -> AsyncIterator[LlamaCppEngine]:
    path = ModelStore(load_settings(environ={}).models_dir).path_of(DEFAULT_MODEL)
    engine = LlamaCppEngine(
        EngineSpec(
            model=DEFAULT_MODEL, path=str(path), slots=SLOTS, context_tokens=512, queue=64, queue_timeout_s=120,
            threads=0, gpu_layers=0, load_timeout_s=120, first_token_timeout_s=120, idle_timeout_s=60,
            unload_after_s=0,
        )
    )  # fmt: skip
    yield engine
    await engine.stop()


def greedy(place: int) -> dict[str, Any]:
    """Rows of different lengths, so that they begin and end at different steps of a batch."""
    return {
        "messages": [{"role": "user", "content": f"Write {place + 1} sentences about a {WORDS[place % len(WORDS)]}."}],
        "max_tokens": 12 + 4 * place,
        "temperature": 0,
    }


def sampled(place: int) -> dict[str, Any]:
    return {**greedy(place), "temperature": 1.3, "seed": 1000 + place}


async def pieces(engine: LlamaCppEngine, body: dict[str, Any]) -> list[str]:
    """The text of one answer as it came, and why it ended."""
    tickets = engine.enter(1)
    said: list[str] = []
    try:
        async with contextlib.aclosing(engine.generate(tickets[0], chat_job(body, 0), "messages", None)) as chunks:
            async for chunk in chunks:
                said += [choice["finish_reason"] or choice["delta"]["content"] for choice in chunk["choices"]]
    finally:
        engine.leave(tickets)
    return said


async def together(engine: LlamaCppEngine, bodies: list[dict[str, Any]]) -> list[list[str]]:
    return await asyncio.gather(*(pieces(engine, body) for body in bodies))


async def one_by_one(engine: LlamaCppEngine, bodies: list[dict[str, Any]]) -> list[list[str]]:
    return [await pieces(engine, body) for body in bodies]


async def test_greedy_output_is_the_same_alone_and_in_a_full_batch(engine: LlamaCppEngine) -> None:
    bodies = [greedy(place) for place in range(SLOTS)]

    assert await together(engine, bodies) == await one_by_one(engine, bodies)


async def test_rows_that_end_are_replaced_by_waiting_ones_and_the_others_do_not_change(engine: LlamaCppEngine) -> None:
    bodies = [greedy(place) for place in range(SLOTS + 4)]
    tasks = [asyncio.create_task(pieces(engine, body)) for body in bodies]
    await asyncio.sleep(0)

    assert engine.queue.running == SLOTS
    assert engine.queue.waiting == 4
    assert await asyncio.gather(*tasks) == await one_by_one(engine, bodies)
    assert engine.queue.idle


async def test_sampling_of_one_row_does_not_reach_another(engine: LlamaCppEngine) -> None:
    """Greedy rows between rows with temperature, seeds, biases and penalties of their own."""
    wild = {"frequency_penalty": 1.5, "presence_penalty": 1.5, "logit_bias": {"28": -100}, "top_p": 0.9, "min_p": 0.1}
    bodies = [greedy(place) if place % 2 else {**sampled(place), **wild} for place in range(SLOTS)]
    plain = [greedy(place) for place in range(1, SLOTS, 2)]

    mixed = await together(engine, bodies)

    assert mixed[1::2] == await one_by_one(engine, plain)
    assert mixed == await together(engine, bodies)


async def test_the_same_seed_gives_the_same_text_and_another_seed_another(engine: LlamaCppEngine) -> None:
    bodies = [sampled(place) for place in range(SLOTS)]
    first = await together(engine, bodies)

    assert await together(engine, bodies) == first
    assert await one_by_one(engine, bodies) == first
    assert await together(engine, [{**body, "seed": body["seed"] + 77} for body in bodies]) != first


async def test_a_structured_row_does_not_constrain_its_neighbours(engine: LlamaCppEngine) -> None:
    json_row = {**greedy(3), "response_format": {"type": "json_object"}}
    bodies = [greedy(0), json_row, greedy(1), json_row, greedy(2)]

    mixed = await together(engine, bodies)

    assert mixed[0::2] == await one_by_one(engine, [greedy(0), greedy(1), greedy(2)])
    assert mixed[1] == mixed[3] == await pieces(engine, json_row)


async def test_a_row_that_is_cancelled_frees_its_slot_and_leaves_the_others_as_they_were(
    engine: LlamaCppEngine,
) -> None:
    bodies = [greedy(place) for place in range(SLOTS - 1)]
    expected = await one_by_one(engine, bodies)
    tickets = engine.enter(1)
    long_row = {**greedy(10), "max_tokens": 400, "logit_bias": {"2": -100}}
    doomed = engine.generate(tickets[0], chat_job(long_row, 0), "messages", None)
    await anext(doomed)
    others = asyncio.create_task(together(engine, bodies))
    await anext(doomed)

    await doomed.aclose()
    engine.leave(tickets)

    assert await others == expected
    while await engine.busy_slots():  # noqa: ASYNC110 - another process knows, and only tells when it is asked
        await asyncio.sleep(0.01)
    assert engine.queue.idle
