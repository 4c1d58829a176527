"""Measures Coterie in the Responses benchmark: what to ask of it, and what to take down."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from bench.load_client import AnswerError, Result, all_of
from bench.responses_orders import CHAT, KINDS, BackgroundOrder, EventsOrder, Kind, check_completed, id_in
from bench.targets import Target

from coterie.testbed.percentiles import percentile

T = TypeVar("T")

TOKENS: Final = 16
"""Of a plain request, and of a stream whose whole time is measured."""
PACE_S: Final = 0.05
BRIEF_TOKENS: Final = 4
CPU_STREAMS: Final = 100
ASKERS: Final = 32
MANY: Final = 200
RAMP_S: Final = 1.0
REST_S: Final = 3.0
_SETTLE_S: Final = 0.5
_SPARE_S: Final = 1.5
"""How much earlier and longer than the measurement beside it a load runs."""

QUIET: Final = "nothing else"
CHAT_STREAMS: Final = f"{MANY} chat streams"
BACKGROUND: Final = f"{MANY} in the background"
SURROUNDINGS: Final = (QUIET, CHAT_STREAMS, BACKGROUND)
"""What else the server does while a plain chat request is measured."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure. No round begins that may not end within ``within_s`` of the beginning of the run."""

    rounds: int
    loop_s: float
    paced_tokens: int
    held_s: float
    memory_s: float
    within_s: float


FULL: Final = Plan(rounds=5, loop_s=1.0, paced_tokens=64, held_s=3.0, memory_s=3.0, within_s=340.0)
QUICK: Final = Plan(rounds=2, loop_s=0.7, paced_tokens=36, held_s=1.5, memory_s=1.5, within_s=112.0)


@dataclass(slots=True)
class Samples:
    """What was measured of one kind: latencies of answers in ms, the rest one value for each round.

    ``late_ms`` is the 99th percentile of the lateness of tokens; ``memory_kb`` is for each open stream.
    """

    plain_ms: list[float] = field(default_factory=list)
    stream_ms: list[float] = field(default_factory=list)
    plain_cpu_us: list[float] = field(default_factory=list)
    stream_cpu_us: list[float] = field(default_factory=list)
    chunk_cpu_us: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    memory_kb: float | None = None


@dataclass(slots=True)
class Findings:
    """All that was measured, by the name of the kind. ``beside_ms`` are latencies of plain chat requests by what else
    the server did; ``accepted_ms`` is how long a request took that asks for a response in the background; ``trouble``
    says what could not be measured."""

    kinds: dict[str, Samples] = field(default_factory=lambda: {kind.name: Samples() for kind in KINDS})
    beside_ms: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SURROUNDINGS})
    accepted_ms: list[float] = field(default_factory=list)
    idle_share: float = 0.0
    rounds: int = 0
    trouble: list[str] = field(default_factory=list)


class Meter:
    """Asks one server, and takes down what it costs. A round asks in every way, each time in another order, and gives
    its costs only where it could measure all of them."""

    def __init__(self, target: Target, plan: Plan, findings: Findings) -> None:
        self.target = target
        self._findings = findings
        self._client = target.client
        self._plan = plan

    async def memory(self, kind: Kind) -> None:
        """Measure what an open stream takes, which needs a process that has not carried much."""
        await self._warm(kind)
        await self._attempt(f"memory, {kind.name}", self._memory(kind))

    async def prepare(self) -> None:
        """Warm up, and measure the cost at rest."""
        for kind in KINDS:
            await self._warm(kind)
        await asyncio.sleep(REST_S)  # for what it tidies up
        cpu_s = self.target.cpu_s()
        await asyncio.sleep(REST_S)
        self._findings.idle_share = (self.target.cpu_s() - cpu_s) / REST_S

    async def round(self) -> None:
        number = self._findings.rounds
        kinds, surroundings = _turned(KINDS, number), _turned(SURROUNDINGS, number)
        await self._attempt("plain requests", self._plain(kinds))
        await self._attempt("whole streams", self._whole(kinds))
        await self._attempt("paced streams", self._paced(kinds))
        for kind in kinds:
            await self._attempt(f"{MANY} streams, {kind.name}", self._late(kind))
        for name in surroundings:
            await self._attempt(f"beside {name}", self._beside(name))
        self._findings.rounds += 1

    async def _attempt(self, what: str, measuring: Awaitable[None]) -> None:
        try:
            await measuring
        except AnswerError as error:
            self._findings.trouble.append(f"{what}: {error}")

    async def _warm(self, kind: Kind) -> None:
        await self._client.closed_loop(kind.order(TOKENS, False, 0.0), streams=4, duration_s=0.5)
        await self._client.at_once(kind.order(BRIEF_TOKENS, True, 0.0), streams=4, ramp_s=0.1)

    async def _memory(self, kind: Kind) -> None:
        await asyncio.sleep(1.0)
        before_kb = self.target.pss_kb()
        lasting_s = RAMP_S + self._plan.memory_s
        async with self._meanwhile(self._streams(kind, lasting_s + _SETTLE_S)):
            await asyncio.sleep(lasting_s)
            self._findings.kinds[kind.name].memory_kb = (self.target.pss_kb() - before_kb) / MANY

    async def _plain(self, kinds: Sequence[Kind]) -> None:
        for kind in kinds:
            order = kind.order(TOKENS, False, 0.0)
            alone = await self._client.closed_loop(order, streams=1, duration_s=self._plan.loop_s)
            self._findings.kinds[kind.name].plain_ms += map(_total_ms, alone)
        costs = {kind: await self._plain_cpu_us(kind) for kind in kinds}
        for kind, cost_us in costs.items():
            self._findings.kinds[kind.name].plain_cpu_us.append(cost_us)

    async def _plain_cpu_us(self, kind: Kind) -> float:
        order = kind.order(TOKENS, False, 0.0)
        cpu_s, begun_s = self.target.cpu_s(), time.monotonic()
        busy = await self._client.closed_loop(order, streams=ASKERS, duration_s=self._plan.loop_s)
        return self._since(cpu_s, begun_s) / len(busy) * 1e6

    async def _whole(self, kinds: Sequence[Kind]) -> None:
        for kind in kinds:
            order = kind.order(TOKENS, True, 0.0)
            alone = await self._client.closed_loop(order, streams=1, duration_s=self._plan.loop_s)
            self._findings.kinds[kind.name].stream_ms += map(_total_ms, alone)

    async def _paced(self, kinds: Sequence[Kind]) -> None:
        await self._paced_cpu_us(CHAT, BRIEF_TOKENS)  # the connections, which are kept
        costs = {
            kind: [await self._paced_cpu_us(kind, tokens) for tokens in (BRIEF_TOKENS, self._plan.paced_tokens)]
            for kind in kinds
        }
        for kind, (brief_us, long_us) in costs.items():
            chunk_us = (long_us - brief_us) / (self._plan.paced_tokens - BRIEF_TOKENS)
            samples = self._findings.kinds[kind.name]
            samples.chunk_cpu_us.append(chunk_us)
            samples.stream_cpu_us.append(brief_us - BRIEF_TOKENS * chunk_us)

    async def _paced_cpu_us(self, kind: Kind, tokens: int) -> float:
        """For each stream."""
        cpu_s, begun_s = self.target.cpu_s(), time.monotonic()
        results = await self._client.at_once(kind.order(tokens, True, PACE_S), streams=CPU_STREAMS, ramp_s=PACE_S)
        await asyncio.sleep(PACE_S)  # what it tidies up after an answer is part of the cost
        cost_us = self._since(cpu_s, begun_s) / CPU_STREAMS * 1e6
        if tokens > BRIEF_TOKENS and percentile(_late_ms(results, since_s=0.0), 90) > PACE_S * 1000:
            raise AnswerError("it did not keep up, and tokens that come together cost less")
        return cost_us

    async def _late(self, kind: Kind) -> None:
        begun_s = time.monotonic()
        results = await self._streams(kind, RAMP_S + self._plan.held_s)
        late_ms = _late_ms(results, since_s=begun_s + RAMP_S)
        self._findings.kinds[kind.name].late_ms.append(percentile(late_ms, 99))

    async def _beside(self, name: str) -> None:
        load = {QUIET: self._no_load, CHAT_STREAMS: self._chat_load, BACKGROUND: self._background_load}[name]
        lasting_s = RAMP_S + _SETTLE_S + self._plan.loop_s + _SPARE_S
        async with load(lasting_s) as streams:
            begun_s = time.monotonic()
            probed = await self._probe()
            ended_s = time.monotonic()
        for stream in streams:
            if not _due_s(stream, 0) < begun_s < ended_s < _due_s(stream, -1):
                raise AnswerError("not all of it ran for as long as was measured")
        self._findings.beside_ms[name] += map(_total_ms, probed)

    @contextlib.asynccontextmanager
    async def _no_load(self, _lasting_s: float) -> AsyncIterator[list[Result]]:
        yield []

    @contextlib.asynccontextmanager
    async def _chat_load(self, lasting_s: float) -> AsyncIterator[list[Result]]:
        """Many chat streams; what comes of them is there when the context ends."""
        results: list[Result] = []
        async with self._meanwhile(self._streams(CHAT, lasting_s)) as streaming:
            await asyncio.sleep(RAMP_S + _SETTLE_S)
            yield results
        results += streaming.result()

    @contextlib.asynccontextmanager
    async def _background_load(self, lasting_s: float) -> AsyncIterator[list[Result]]:
        """Many responses in the background, to which nobody listens until the context ends; then all of each is read
        to its end."""
        tokens, results = _tokens(lasting_s), list[Result]()
        order = BackgroundOrder(tokens, streamed=False, pace_s=PACE_S)
        accepted = await self._client.at_once(order, streams=MANY, ramp_s=RAMP_S)
        await asyncio.sleep(_SETTLE_S)
        yield results
        orders = [EventsOrder(tokens, pace_s=PACE_S, response_id=id_in(one)) for one in accepted]
        results += await all_of(self._client.one(order) for order in orders)
        for result in results:
            check_completed(result)
        self._findings.accepted_ms += map(_total_ms, accepted)

    async def _probe(self) -> list[Result]:
        order = CHAT.order(TOKENS, False, 0.0)
        return await self._client.closed_loop(order, streams=1, duration_s=self._plan.loop_s)

    async def _streams(self, kind: Kind, lasting_s: float) -> list[Result]:
        """Many paced streams, each of which lasts so long."""
        order = kind.order(_tokens(lasting_s), True, PACE_S)
        return await self._client.at_once(order, streams=MANY, ramp_s=RAMP_S)

    @contextlib.asynccontextmanager
    async def _meanwhile(self, work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
        """Do ``work`` beside what is done in this context, and to its end."""
        task = asyncio.create_task(work)
        try:
            yield task
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _since(self, cpu_s: float, begun_s: float) -> float:
        elapsed_s = time.monotonic() - begun_s
        return max(0.0, self.target.cpu_s() - cpu_s - self._findings.idle_share * elapsed_s)


def _turned(things: Sequence[T], by: int) -> Sequence[T]:
    first = by % len(things)
    return (*things[first:], *things[:first])


def _tokens(lasting_s: float) -> int:
    return round(lasting_s / PACE_S)


def _total_ms(result: Result) -> float:
    return result.total_s * 1000


def _late_ms(results: Sequence[Result], *, since_s: float) -> list[float]:
    """How late the tokens were that were due since then, sorted."""
    return sorted(
        late_s * 1000
        for result in results
        for at_s, late_s in zip(result.arrivals_s, result.lateness_s, strict=True)
        if at_s - late_s > since_s
    )


def _due_s(result: Result, number: int) -> float:
    """When a token was due, on the monotonic clock."""
    return result.arrivals_s[number] - result.lateness_s[number]
