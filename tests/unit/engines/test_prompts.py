"""The line of prompts: order, bound, and what a wait that ends early leaves behind."""

from __future__ import annotations

import asyncio

import pytest

from coterie.engines.prompts import PromptLine
from coterie.errors import ApiError


def _late() -> ApiError:
    return ApiError("server_is_overloaded", retry_after_s=1.0)


class _Computing:
    """Prompts that end when they are told to."""

    def __init__(self, at_once: int) -> None:
        self.line = PromptLine(at_once)
        self.begun: list[int] = []
        self.ends: dict[int, asyncio.Event] = {}

    async def compute(self, number: int, wait_s: float | None = None) -> None:
        self.ends[number] = asyncio.Event()
        async with self.line.place(wait_s, _late):
            self.begun.append(number)
            await self.ends[number].wait()


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("at_once", [1, 2, 3])
async def test_at_most_so_many_and_in_order(at_once: int) -> None:
    computing = _Computing(at_once)
    async with asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(computing.compute(number))
        for ended in range(5):
            await _settle()
            assert computing.begun == list(range(min(5, ended + at_once)))
            computing.ends[ended].set()


async def test_a_wait_that_is_too_long_fails_and_leaves_the_others_in_place() -> None:
    computing = _Computing(1)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(computing.compute(0))
        await _settle()
        with pytest.raises(ApiError) as failure:
            await computing.compute(1, wait_s=0.0)
        tasks.create_task(computing.compute(2))
        computing.ends[0].set()
        await _settle()
        assert computing.begun == [0, 2]
        computing.ends[2].set()
    assert failure.value.code == "server_is_overloaded"


async def test_one_that_leaves_while_it_waits_or_computes_makes_room() -> None:
    computing = _Computing(1)
    async with asyncio.TaskGroup() as tasks:
        first, second = (tasks.create_task(computing.compute(number)) for number in (0, 1))
        third = tasks.create_task(computing.compute(2))
        await _settle()
        second.cancel()
        first.cancel()
        await _settle()
        assert computing.begun == [0, 2]
        third.cancel()


async def test_a_failure_gives_the_place_back() -> None:
    line = PromptLine(1)
    with pytest.raises(ApiError):
        async with line.place(None, _late):
            raise _late()
    async with line.place(0.0, _late):
        pass
