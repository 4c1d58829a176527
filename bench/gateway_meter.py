"""Measures one target of the gateway benchmark: what to ask of it, and what to take down."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from bench.load_client import AnswerError, Order, Result
from bench.targets import Target

from coterie.testbed.percentiles import percentile

PLAIN: Final = Order(16, streamed=False)
SHORT: Final = Order(1, streamed=False)
FIRST: Final = Order(2)
PACE_S: Final = 0.05
BRIEF_TOKENS: Final = 4
ASKERS: Final = 32
FAST_PACE_S: Final = 0.005
ON_TIME_MS: Final = 50.0
LADDER: Final = (1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 250, 350, 500, 750, 1000, 1250, 1500, 2000)
MANY: Final = 1000
REST_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure. ``peers_in_full``: also what takes the peers long."""

    rounds: int
    loop_s: float
    paced_tokens: int
    held_s: float
    memory_streams: int
    peers_in_full: bool


FULL: Final = Plan(rounds=5, loop_s=1.5, paced_tokens=64, held_s=5.0, memory_streams=500, peers_in_full=True)
QUICK: Final = Plan(rounds=2, loop_s=1.0, paced_tokens=44, held_s=3.0, memory_streams=200, peers_in_full=False)


@dataclass(slots=True)
class Samples:
    """What was measured of one target over all rounds: latencies of answers in ms, the rest one value for each round.

    ``idle_share`` is processor time in a second in which nobody asks; ``memory_kb`` is for each open stream; ``held``
    is the 99th percentile of lateness in ms by number of streams; ``trouble`` says what could not be measured.
    """

    idle_share: float = 0.0
    plain_alone_ms: list[float] = field(default_factory=list)
    plain_busy_ms: list[float] = field(default_factory=list)
    first_alone_ms: list[float] = field(default_factory=list)
    first_busy_ms: list[float] = field(default_factory=list)
    plain_cpu_us: list[float] = field(default_factory=list)
    short_cpu_us: list[float] = field(default_factory=list)
    stream_cpu_us: list[float] = field(default_factory=list)
    chunk_cpu_us: list[float] = field(default_factory=list)
    requests_per_s: list[float] = field(default_factory=list)
    memory_kb: float | None = None
    held: dict[int, float] = field(default_factory=dict)
    gaps_ms: list[float] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)


class Meter:
    """Asks one target, and takes down what it costs."""

    def __init__(self, target: Target, plan: Plan) -> None:
        self.target = target
        self.samples = Samples()
        self._client = target.client
        self._plan = plan

    async def prepare(self) -> None:
        """Warm up, and measure its cost at rest, and memory, which needs a process that has not carried much."""
        await self._client.closed_loop(PLAIN, streams=4, duration_s=0.5)
        await self._client.at_once(Order(BRIEF_TOKENS), streams=4, ramp_s=0.1)
        await asyncio.sleep(REST_S)  # for what it tidies up
        cpu_s = self.target.cpu_s()
        await asyncio.sleep(REST_S)
        self.samples.idle_share = (self.target.cpu_s() - cpu_s) / REST_S
        if self._plan.peers_in_full or self.target.is_fast:
            await self._attempt("memory", self._memory())

    async def round(self) -> None:
        await self._attempt("plain requests", self._plain())
        await self._attempt("first tokens", self._first())
        await self._attempt("paced streams", self._paced())
        await self._attempt("pauses", self._pauses())

    async def hold(self) -> None:
        """Find how many paced streams it keeps: up from a number that it surely can, or down to it."""
        await self._attempt("many streams", self._climb())

    async def _attempt(self, what: str, measuring: Awaitable[None]) -> None:
        try:
            await measuring
        except AnswerError as error:
            self.samples.trouble.append(f"{what}: {error}")

    async def _plain(self) -> None:
        samples = self.samples
        alone = await self._client.closed_loop(PLAIN, streams=1, duration_s=self._plan.loop_s)
        samples.plain_alone_ms += [result.total_s * 1000 for result in alone]
        busy, cpu_s, elapsed_s = await self._loaded(PLAIN)
        samples.plain_busy_ms += [result.total_s * 1000 for result in busy]
        samples.requests_per_s.append(len(busy) / elapsed_s)
        samples.plain_cpu_us.append(cpu_s / len(busy) * 1e6)
        busy, cpu_s, _ = await self._loaded(SHORT)
        samples.short_cpu_us.append(cpu_s / len(busy) * 1e6)

    async def _loaded(self, order: Order) -> tuple[list[Result], float, float]:
        cpu_s, begun_s = self.target.cpu_s(), time.monotonic()
        results = await self._client.closed_loop(order, streams=ASKERS, duration_s=self._plan.loop_s)
        elapsed_s = time.monotonic() - begun_s
        return results, self._since(cpu_s, elapsed_s), elapsed_s

    async def _first(self) -> None:
        alone = await self._client.closed_loop(FIRST, streams=1, duration_s=self._plan.loop_s)
        self.samples.first_alone_ms += [result.first_s * 1000 for result in alone]
        busy = await self._client.closed_loop(FIRST, streams=ASKERS, duration_s=self._plan.loop_s)
        self.samples.first_busy_ms += [result.first_s * 1000 for result in busy]

    async def _paced(self) -> None:
        tokens = self._plan.paced_tokens
        await self._cpu_us(BRIEF_TOKENS)  # the connections, which are kept
        brief_us, long_us = await self._cpu_us(BRIEF_TOKENS), await self._cpu_us(tokens)
        chunk_us = (long_us - brief_us) / (tokens - BRIEF_TOKENS)
        self.samples.chunk_cpu_us.append(chunk_us)
        self.samples.stream_cpu_us.append(brief_us - BRIEF_TOKENS * chunk_us)

    async def _cpu_us(self, tokens: int) -> float:
        """For each of the target's paced streams."""
        streams = self.target.streams
        cpu_s, begun_s = self.target.cpu_s(), time.monotonic()
        await self._client.at_once(Order(tokens, pace_s=PACE_S), streams=streams, ramp_s=PACE_S)
        await asyncio.sleep(PACE_S)  # what it tidies up after an answer is part of the cost
        return self._since(cpu_s, time.monotonic() - begun_s) / streams * 1e6

    async def _pauses(self) -> None:
        tokens = round(self._plan.loop_s / FAST_PACE_S)
        result = await self._client.one(Order(tokens, pace_s=FAST_PACE_S))
        self.samples.gaps_ms += [(later - earlier) * 1000 for earlier, later in pairwise(result.arrivals_s)]

    async def _memory(self) -> None:
        streams = self._plan.memory_streams if self.target.is_fast else self._plan.memory_streams // 5
        before_kb = self.target.pss_kb()
        order, ramp_s = Order(8, pace_s=1.0), streams / 100
        asking = asyncio.create_task(self._client.at_once(order, streams=streams, ramp_s=min(ramp_s, 5.0)))
        await asyncio.sleep(min(ramp_s, 5.0) + 2.0)
        self.samples.memory_kb = (self.target.pss_kb() - before_kb) / streams
        await asking

    async def _climb(self) -> None:
        if not self._plan.peers_in_full:
            await self._keeps(MANY)
            return
        chunk_s = statistics.median(self.samples.chunk_cpu_us) / 1e6
        most = min(0.7 * PACE_S / chunk_s, MANY)
        rung = max((place for place, streams in enumerate(LADDER) if streams <= most), default=0)
        if await self._keeps(LADDER[rung]):
            while rung + 1 < len(LADDER) and await self._keeps(LADDER[rung + 1]):
                rung += 1
        else:
            while rung and not await self._keeps(LADDER[rung - 1]):
                rung -= 1
        if MANY not in self.samples.held and self.target.is_fast:
            await self._keeps(MANY)

    async def _keeps(self, streams: int) -> bool:
        """Whether hardly any token is late; where some are, in the better of two tries."""
        late_ms = await self._late_ms(streams)
        if late_ms > ON_TIME_MS:
            late_ms = min(late_ms, await self._late_ms(streams))
        self.samples.held[streams] = late_ms
        return late_ms <= ON_TIME_MS

    async def _late_ms(self, streams: int) -> float:
        """The 99th percentile of lateness, once all streams stand."""
        ramp_s = max(1.0, streams / 400)
        order = Order(round((self._plan.held_s + ramp_s) / PACE_S), pace_s=PACE_S)
        begun_s = time.monotonic()
        results = await self._client.at_once(order, streams=streams, ramp_s=ramp_s)
        late_ms = sorted(
            late_s * 1000
            for result in results
            for at_s, late_s in zip(result.arrivals_s, result.lateness_s, strict=True)
            if at_s - late_s > begun_s + ramp_s
        )
        return percentile(late_ms, 99)

    def _since(self, cpu_s: float, elapsed_s: float) -> float:
        return max(0.0, self.target.cpu_s() - cpu_s - self.samples.idle_share * elapsed_s)
