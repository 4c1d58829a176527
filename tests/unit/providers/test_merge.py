"""Several streams as one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.provider import ScriptedProvider, delta
from tests.support.web import CHAT

from coterie.providers import merge
from coterie.providers.merge import merged
from coterie.wire.lingua import Chunk, Generation

GENERATION = Generation("m", dict(CHAT))


def texts(chunks: list[Chunk]) -> list[str]:
    return [chunk["choices"][0]["delta"]["content"] for chunk in chunks]


@given(st.lists(st.lists(st.text(max_size=2), max_size=20), min_size=1, max_size=5))
def test_every_chunk_once_and_each_stream_in_its_order(lengths: list[list[str]]) -> None:
    async def merge_all() -> list[Chunk]:
        streams = [
            ScriptedProvider([delta(text, index) for text in words]).generate(GENERATION)
            for index, words in enumerate(lengths)
        ]
        return [chunk async for chunk in merged(streams)]

    chunks = asyncio.run(merge_all())
    for index, words in enumerate(lengths):
        assert texts([chunk for chunk in chunks if chunk["choices"][0]["index"] == index]) == words


async def test_a_slow_stream_holds_no_other_back() -> None:
    gate = asyncio.Event()
    slow = ScriptedProvider((gate, delta("late")))
    fast = ScriptedProvider((delta("a"), delta("b")))
    chunks = merged([slow.generate(GENERATION), fast.generate(GENERATION)])
    assert texts([await anext(chunks), await anext(chunks)]) == ["a", "b"]
    gate.set()
    assert texts([chunk async for chunk in chunks]) == ["late"]


@pytest.mark.parametrize("error", [RuntimeError("x"), ValueError("y")])
async def test_the_first_failure_ends_all(error: Exception) -> None:
    failing = ScriptedProvider((delta("a"), error))
    other = ScriptedProvider((delta("b"), asyncio.Event()))
    chunks = merged([other.generate(GENERATION), failing.generate(GENERATION)])
    assert sorted(texts([await anext(chunks), await anext(chunks)])) == ["a", "b"]
    with pytest.raises(type(error), match=str(error)):
        await anext(chunks)
    assert other.closed.is_set()
    assert failing.closed.is_set()


async def test_closing_it_closes_them() -> None:
    providers = [ScriptedProvider((delta("a"), asyncio.Event())) for _ in range(3)]
    async with contextlib.aclosing(merged([provider.generate(GENERATION) for provider in providers])) as chunks:
        for _ in providers:
            await anext(chunks)
        assert not any(provider.closed.is_set() for provider in providers)
    assert all(provider.closed.is_set() for provider in providers)


async def test_closing_it_before_it_began_starts_nothing() -> None:
    provider = ScriptedProvider()
    async with contextlib.aclosing(merged([provider.generate(GENERATION)])):
        pass
    assert provider.pulled == 0


async def test_a_cancelled_consumer_closes_them() -> None:
    provider = ScriptedProvider((delta("a"), asyncio.Event()))

    async def consume() -> None:
        async with contextlib.aclosing(merged([provider.generate(GENERATION)])) as chunks:
            async for _ in chunks:
                pass

    task = asyncio.create_task(consume())
    await provider.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert provider.closed.is_set()


async def test_a_slow_reader_holds_them_back() -> None:
    providers = [ScriptedProvider(itertools.repeat(delta("a"))) for _ in range(3)]
    async with contextlib.aclosing(merged([provider.generate(GENERATION) for provider in providers])) as chunks:
        for taken in range(1, 30):
            await anext(chunks)
            for _ in range(5):
                await asyncio.sleep(0)
            assert sum(provider.pulled for provider in providers) <= taken + merge._AHEAD + len(providers)
