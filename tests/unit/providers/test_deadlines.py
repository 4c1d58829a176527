"""Deadlines of an exchange: each has its own failure, and only one is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.support.waiting import until

from coterie.errors import ApiError
from coterie.providers.deadlines import Deadlines, late

LONG_S = 60.0


class Exchange:
    """Notes how it failed."""

    def __init__(self) -> None:
        self.failures: list[ApiError] = []

    async def failed(self) -> ApiError:
        await until(lambda: bool(self.failures), 10)
        (failure,) = self.failures
        return failure


@pytest.fixture(name="exchange")
def _exchange() -> Iterator[Exchange]:
    exchange = Exchange()
    yield exchange
    assert len(exchange.failures) <= 1


async def test_the_first_token(exchange: Exchange) -> None:
    deadlines = Deadlines(0.01, LONG_S, LONG_S, exchange.failures.append)
    failure = await exchange.failed()
    assert (failure.code, failure.status) == ("upstream_timeout", 504)
    assert "No first token came within 0.01 seconds." in failure.message
    assert deadlines.failure is failure
    deadlines.stop()


async def test_the_next_token(exchange: Exchange) -> None:
    deadlines = Deadlines(LONG_S, 0.01, LONG_S, exchange.failures.append)
    deadlines.touch()
    failure = await exchange.failed()
    assert "Nothing after the last token came within 0.01 seconds." in failure.message
    deadlines.stop()


async def test_the_whole_answer(exchange: Exchange) -> None:
    deadlines = Deadlines(LONG_S, LONG_S, 0.01, exchange.failures.append)
    deadlines.touch()
    deadlines.hold()  # a slow reader has no more time than others
    failure = await exchange.failed()
    assert (failure.code, failure.status) == ("upstream_total_timeout", 504)
    assert "within 0.01 seconds" in failure.message
    deadlines.stop()


async def test_only_the_first_that_passes_is_told(exchange: Exchange) -> None:
    deadlines = Deadlines(0.01, 0.01, 0.02, exchange.failures.append)
    failure = await exchange.failed()
    deadlines.touch()  # what a reader does that was slow when it happened
    await asyncio.sleep(0.04)
    assert exchange.failures == [failure]
    assert deadlines.failure is failure
    deadlines.stop()


async def test_after_the_stop_nothing_is_late(exchange: Exchange) -> None:
    for touched in (False, True):
        deadlines = Deadlines(0.01, 0.01, 0.01, exchange.failures.append)
        if touched:
            deadlines.touch()
        deadlines.stop()
        deadlines.stop()
        await asyncio.sleep(0.03)
        assert exchange.failures == []
        assert deadlines.failure is None


def test_words() -> None:
    assert "within 5 seconds" in late(5.0, first=True).message
    assert late(0.5, first=True).message != late(0.5, first=False).message
