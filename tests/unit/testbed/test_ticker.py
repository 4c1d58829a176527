from __future__ import annotations

import asyncio

from coterie.testbed.ticker import Ticker


async def test_callbacks_come_in_the_order_of_their_times() -> None:
    loop = asyncio.get_running_loop()
    ticker, came, over = Ticker(loop), [], asyncio.Event()
    now = loop.time()
    ticker.at(now + 0.03, over.set)
    for place in (2, 0, 1):
        ticker.at(now + 0.01 * place, lambda place=place: came.append((place, loop.time())))  # type: ignore[misc]
    ticker.at(now - 5, lambda: came.append((-1, loop.time())))
    await over.wait()
    assert [place for place, _ in came] == [-1, 0, 1, 2]
    assert all(time >= now + 0.01 * place - 0.001 for place, time in came)


async def test_a_thousand_moments_are_one_timer() -> None:
    loop = asyncio.get_running_loop()
    ticker, came, over = Ticker(loop), 0, asyncio.Event()

    def count() -> None:
        nonlocal came
        came += 1
        if came == 1000:
            over.set()

    at = loop.time() + 0.01
    for _ in range(1000):
        ticker.at(at, count)
    assert len(ticker._slots) == 1
    await over.wait()
    assert ticker._slots == {}


async def test_a_callback_may_ask_for_the_next() -> None:
    loop = asyncio.get_running_loop()
    ticker, over, left = Ticker(loop), asyncio.Event(), 5

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            ticker.at(loop.time(), again)
        else:
            over.set()

    ticker.at(loop.time(), again)
    await over.wait()
    assert left == 0


async def test_after_a_stop_nothing_comes() -> None:
    loop = asyncio.get_running_loop()
    ticker, came, over = Ticker(loop), [], asyncio.Event()
    ticker.at(loop.time() + 0.001, lambda: came.append(1))
    ticker.stop()
    loop.call_later(0.01, over.set)
    await over.wait()
    assert came == []
