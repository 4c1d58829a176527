"""The event loop's lag."""

from __future__ import annotations

import asyncio
import time

import pytest

from coterie.observe import lag
from coterie.observe.distribution import Distribution
from coterie.observe.lag import LagWatch


async def test_what_blocks_the_loop_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "_EVERY_S", 0.001)
    lags = Distribution((0.05,))
    watch = LagWatch(lags)
    time.sleep(0.2)  # noqa: ASYNC251 - this is what is to be seen
    await asyncio.sleep(0.01)
    watch.stop()
    [(_, short), (_, all_)] = lags.buckets()
    assert all_ > short
    seen = all_
    await asyncio.sleep(0.01)
    assert lags.buckets()[-1][1] == seen, "it looks no more"
