"""Loads an OpenAI-compatible server with concurrent streams, and measures and judges each of them.

What it promises:

* It stops by itself: after ``requests`` requests, or ``duration_s`` seconds, and each request after ``timeout_s``.
* A host that is not this machine is refused unless the plan allows it: a load is an attack to whoever did not ask
  for it.
* Every stream has a connection of its own, so that ``connect`` is measured for each.
* It measures itself: ``loop_lag`` is how late its own event loop ran, which is the error of every other time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import orjson

from coterie.testbed.integrity import Anything, Outcome, VerifierFactory
from coterie.testbed.load_report import LoadReport, Tally
from coterie.testbed.load_stream import MeasuredStream, Record
from coterie.testbed.sockets import is_this_machine
from coterie.wire.origin import Origin

MAX_STREAMS: Final = 10_000
MAX_REQUESTS: Final = 1_000_000
MAX_DURATION_S: Final = 24 * 3600.0

_LAG_PERIOD_S: Final = 0.02
_CONNECT_TIMEOUT_S: Final = 30.0


class LoadPlanError(ValueError):
    """The plan cannot be carried out, or must not be; the text says why."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to do. Raises :class:`LoadPlanError` where that is out of bounds or not allowed."""

    url: str
    """The base URL of the API, with its ``/v1``; that is added where the URL has no path."""
    model: str
    streams: int = 1
    """How many at the same time."""
    requests: int | None = None
    """How many altogether; without it and without a duration, as many as there are streams."""
    duration_s: float | None = None
    """No request begins after it, and those that run are ended."""
    tokens: int | None = None
    """``max_tokens`` of each request."""
    rate: float | None = None
    """Tokens per second that the server keeps in each stream: the pace that lateness is measured against."""
    prompt: str = "Count."
    streamed: bool = True
    ramp_s: float = 1.0
    """Seconds over which the first streams begin, so that their tokens do not all fall into the same moments."""
    timeout_s: float = 300.0
    api_key: str | None = None
    allow_remote: bool = False
    verifier: VerifierFactory = Anything

    def __post_init__(self) -> None:
        limits = (
            ("streams", self.streams, MAX_STREAMS),
            ("requests", self.requests, MAX_REQUESTS),
            ("duration_s", self.duration_s, MAX_DURATION_S),
            ("timeout_s", self.timeout_s, MAX_DURATION_S),
            ("tokens", self.tokens, MAX_REQUESTS),
            ("rate", self.rate, 1_000_000),
        )
        for name, value, limit in limits:
            if value is not None and not 0 < value <= limit:
                raise LoadPlanError(f"{name} is {value:g}; it must be above 0 and at most {limit:g}")
        if not 0 <= self.ramp_s <= MAX_DURATION_S:
            raise LoadPlanError(f"ramp_s is {self.ramp_s:g}; it must be at least 0 and at most {MAX_DURATION_S:g}")
        host = self.target[0].host
        if not is_this_machine(host) and not self.allow_remote:
            raise LoadPlanError(f"{host} is not this machine, and remote targets are not allowed")

    @property
    def target(self) -> tuple[Origin, str]:
        """Where the load goes, and the path of the API there. Raises :class:`LoadPlanError`."""
        try:
            origin, path = Origin.parse(self.url)
        except ValueError as error:
            raise LoadPlanError(str(error)) from None
        return origin, path or "/v1"

    @property
    def most_requests(self) -> int:
        """How many requests there are at most."""
        if self.requests is not None:
            return self.requests
        return MAX_REQUESTS if self.duration_s is not None else self.streams


async def run_load(plan: LoadPlan) -> LoadReport:
    """Carry out ``plan``. Server errors and broken streams are results; nothing of them is raised."""
    run = _Run(plan)
    begun_s = perf_counter()
    lag = asyncio.create_task(run.watch_lag())
    try:
        await run.all()
    finally:
        lag.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await lag
    return run.tally.report(perf_counter() - begun_s)


def request_bytes(plan: LoadPlan) -> bytes:
    """The request of ``plan``, as it is sent. Raises :class:`LoadPlanError` for an API key that is no header."""
    origin, path = plan.target
    body: dict[str, object] = {"model": plan.model, "messages": [{"role": "user", "content": plan.prompt}]}
    if plan.tokens is not None:
        body["max_tokens"] = plan.tokens
    if plan.streamed:
        body["stream"] = True
    data = orjson.dumps(body)
    lines = [
        f"POST {path}/chat/completions HTTP/1.1",
        f"host: {origin.authority}",
        "content-type: application/json",
        f"accept: {'text/event-stream' if plan.streamed else 'application/json'}",
        f"content-length: {len(data)}",
    ]
    if plan.api_key is not None:
        if not plan.api_key.isascii() or not plan.api_key.isprintable():
            raise LoadPlanError("the API key has characters that no header can carry")
        lines.append(f"authorization: Bearer {plan.api_key}")
    return "\r\n".join((*lines, "", "")).encode("ascii") + data


class _Run:
    """The state of one load."""

    def __init__(self, plan: LoadPlan) -> None:
        self.tally = Tally(plan.rate)
        self._plan = plan
        self._origin, _ = plan.target
        self._request = request_bytes(plan)
        self._left = plan.most_requests
        self._active: set[MeasuredStream] = set()
        self._tls = ssl.create_default_context() if self._origin.tls else None

    async def all(self) -> None:
        """Every worker, until there is nothing left to do or the time is up."""
        count = min(self._plan.streams, self._left)
        workers = [asyncio.create_task(self._worker(number, count)) for number in range(count)]
        try:
            _, running = await asyncio.wait(workers, timeout=self._plan.duration_s)
            self._left = 0
            for stream in list(self._active):
                stream.stop()
            await self._end(running)
        finally:
            await self._end(workers)
        for worker in workers:
            if not worker.cancelled():
                worker.result()  # a mistake in this program is not a result

    async def _end(self, workers: Iterable[asyncio.Task[None]]) -> None:
        """Let workers take up what was stopped; those that still wait or connect are cancelled."""
        workers = list(workers)
        if workers:
            await asyncio.sleep(0)  # the workers whose stream has just been stopped
            await asyncio.sleep(0)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def watch_lag(self) -> None:
        """Measure how late timers of this process run."""
        while True:
            due_s = perf_counter() + _LAG_PERIOD_S
            await asyncio.sleep(_LAG_PERIOD_S)
            self.tally.add_lag(max(0.0, perf_counter() - due_s))

    async def _worker(self, number: int, count: int) -> None:
        await asyncio.sleep(self._plan.ramp_s * number / count)
        while self._left > 0:
            self._left -= 1
            self.tally.add(await self._one())

    async def _one(self) -> Record:
        loop = asyncio.get_running_loop()
        stream = MeasuredStream(self._request, self._plan.verifier(), streamed=self._plan.streamed)
        try:
            async with asyncio.timeout(min(_CONNECT_TIMEOUT_S, self._plan.timeout_s)):
                await loop.create_connection(lambda: stream, self._origin.host, self._origin.port, ssl=self._tls)
        except (OSError, TimeoutError):
            return Record(Outcome("broken", "connect"))
        timer = loop.call_later(self._plan.timeout_s, stream.late)
        self._active.add(stream)
        try:
            await stream.finished
        finally:
            timer.cancel()
            self._active.discard(stream)
            stream.stop()  # nothing, unless this worker was cancelled
        return stream.record
