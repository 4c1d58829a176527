"""One request, tried until it is answered or cannot be: attempts, failover, continuation. What it promises:

* **Before anything semantic went out** a failure moves the request to another provider; to the same one again only
  where that may help and there is no other. Nobody sees the failed attempts. For an answer that is not streamed that
  is any time before its end: what a broken attempt said is void (:data:`coterie.wire.lingua.RESTART`).
* **Afterwards** the answer goes on elsewhere where it can be continued (:mod:`coterie.dispatch.answer_so_far`); else
  its stream ends with the failure that broke it. It never just ends.
* What is the caller's fault is final at once. A context that is too short is only tried again where it is longer.
* All attempts together keep the budget: ``attempts`` in number, the last beginning within ``retry_window_s``, and waits
  between them (a provider's ``Retry-After``, or a short pause before asking the same one again) of at most
  ``retry_wait_s`` in all. A delay that does not fit is not waited for: the client gets the failure with the delay.
* The failure that remains is the one that helps the client most: one with a delay rather than one without.
* A consumer that leaves ends the attempt, and nobody is blamed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Final, Protocol

from coterie.dispatch.answer_so_far import AnswerSoFar
from coterie.dispatch.choice import Candidate, ranked
from coterie.dispatch.health import Health
from coterie.dispatch.seats import Seats, now_s
from coterie.dispatch.tally import Tally
from coterie.errors import ApiError, Retry
from coterie.observe.timing import Timing
from coterie.wire.lingua import RESTART, Attempt, Chunk, Embedded, Embedding, Generation

_log = logging.getLogger(__name__)

_PAUSE_S: Final = 0.2
"""Before asking the same provider again; doubles, with a random part."""

_NOT_AGAIN: Final = frozenset(
    {"upstream_timeout", "upstream_connect_timeout", "upstream_total_timeout", "engine_timeout"}
)
"""Failures that took a deadline to find out; the same provider would take as long again."""

_RANK: Final = {"rate_limit_exceeded": 2, "server_is_overloaded": 1}


class Budget(Protocol):
    """The operator's bounds (``coterie.config.DispatchSettings``)."""

    @property
    def attempts(self) -> int: ...  # noqa: D102
    @property
    def retry_window_s(self) -> float: ...  # noqa: D102
    @property
    def retry_wait_s(self) -> float: ...  # noqa: D102
    @property
    def continuation(self) -> bool: ...  # noqa: D102


class Desk(Protocol):
    """Where a run finds providers; the router."""

    seats: Seats
    tally: Tally

    def candidates(self, request: Generation | Embedding) -> list[Candidate]:
        """Those that can serve it. Raises ``ApiError`` where there is none."""
        ...


class _Run:
    """One request between its attempts."""

    def __init__(self, request: Generation | Embedding, timing: Timing) -> None:
        self.request = request
        self.timing = timing
        self.said: AnswerSoFar | None = None
        self.broken_by: ApiError | None = None
        """The failure that broke an answer of which something went out."""
        self.attempts = 0
        self.waited_s = 0.0
        self.failed: dict[str, ApiError] = {}
        """The newest failure of each provider that was tried."""
        self.too_short_tokens = 0
        """A context of this length is known to be too short."""
        self._began_s = now_s()

    @property
    def remaining(self) -> ApiError:
        """What the client is told."""
        return self.broken_by or max(reversed(self.failed.values()), key=lambda error: _RANK.get(error.code, 0))

    def note(self, candidate: Candidate, error: ApiError) -> None:
        """Remember a failed attempt."""
        self.failed.pop(candidate.provider.name, None)
        self.failed[candidate.provider.name] = error
        if error.code == "context_length_exceeded":
            self.too_short_tokens = max(self.too_short_tokens, candidate.offer.context_tokens, 1)
        if self.broken_by is None and self.said is not None and self.said.started:
            self.broken_by = error

    def may_go_on(self, budget: Budget, error: ApiError) -> bool:
        """Whether another attempt is allowed after ``error``."""
        if self.attempts >= budget.attempts or now_s() - self._began_s > budget.retry_window_s:
            return False
        if self.broken_by is None:
            return error.entry.elsewhere or error.code == "context_length_exceeded"
        # A provider that refuses to continue an answer has not judged the request.
        may = error.entry.elsewhere or error is not self.broken_by
        return may and budget.continuation and self.said is not None and self.said.continuable

    def suits(self, candidate: Candidate) -> bool:
        """Whether a provider can continue, where that is needed, and has a longer context, where one was too short."""
        if self.broken_by is not None and not candidate.offer.continues:
            return False
        return not self.too_short_tokens or candidate.offer.context_tokens > self.too_short_tokens


async def answer(desk: Desk, budget: Budget, generation: Generation, timing: Timing) -> AsyncGenerator[Chunk, None]:
    """The chunks of the answer. Raises ``ApiError``. See the module."""
    run = _Run(generation, timing)
    while True:
        candidate, attempt = await _seated(desk, budget, run)
        if run.said is None or run.broken_by is None:
            run.said, part = AnswerSoFar(generation), generation
        else:
            part = run.said.continued()
        try:
            chunks = _attempt(desk, candidate, dataclasses.replace(part, attempt=attempt), run.said)
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
            return
        except ApiError as error:
            _conclude(run, budget, candidate, error)
            if not generation.streamed:
                yield RESTART


async def embed(desk: Desk, budget: Budget, embedding: Embedding, timing: Timing) -> Embedded:
    """The vectors. Raises ``ApiError``."""
    run = _Run(embedding, timing)
    while True:
        candidate, attempt = await _seated(desk, budget, run)
        try:
            with _judged(desk, candidate, embedding.model, attempt):
                embedded = await candidate.provider.embed(embedding)
                attempt.first_token_s = time.perf_counter() - attempt.started_s
                return embedded
        except ApiError as error:
            _conclude(run, budget, candidate, error)


def _conclude(run: _Run, budget: Budget, candidate: Candidate, error: ApiError) -> None:
    """After a failed attempt: raise the failure that remains, or return for another attempt."""
    run.note(candidate, error)
    if error.entry.fault != "caller":
        _log.warning(
            "attempt %d, on %s, failed: %s%s", run.attempts, candidate.provider.name, error.code,
            f": {error.detail[:1000]}" if error.detail else "",
        )  # fmt: skip
    if not run.may_go_on(budget, error):
        raise run.remaining from None


@contextlib.contextmanager
def _judged(desk: Desk, candidate: Candidate, model: str, attempt: Attempt) -> Iterator[None]:
    """An attempt on a seat that was taken: its outcome is counted, and its provider's health learns of it."""
    outcome = "client_closed"
    try:
        yield
        outcome = "ok"
    except ApiError as error:
        outcome = error.code
        _blame(candidate.health, error)
        raise
    finally:
        if outcome == "ok":
            candidate.health.succeed(now_s(), attempt.first_token_s)
        elif outcome == "client_closed":
            candidate.health.abstain()
        desk.tally.attempts[attempt.provider, model, outcome] += 1
        desk.seats.release(attempt.provider, time.perf_counter() - attempt.started_s)


async def _attempt(
    desk: Desk, candidate: Candidate, generation: Generation, said: AnswerSoFar
) -> AsyncGenerator[Chunk, None]:
    """The chunks of one attempt."""
    attempt = generation.attempt
    with _judged(desk, candidate, generation.model, attempt):
        async with contextlib.aclosing(candidate.provider.generate(generation)) as chunks:
            async for chunk in chunks:
                if attempt.first_token_s is None and is_semantic(chunk):
                    attempt.first_token_s = time.perf_counter() - attempt.started_s
                    said.started = said.started or generation.streamed
                yield said.feed(chunk)


def is_semantic(chunk: Chunk) -> bool:
    """Whether a chunk says something that a client could act on: text, a call, a finish reason."""
    for choice in chunk["choices"]:
        if choice["finish_reason"] is not None:
            return True
        if any(value for name, value in choice["delta"].items() if name != "role"):
            return True
    return False


def _blame(health: Health, error: ApiError) -> None:
    if error.entry.elsewhere:
        health.fail(now_s(), error.code, error.retry_after_s)
    elif error.entry.fault == "caller":
        health.succeed(now_s(), None)
    else:
        health.abstain()


async def _seated(desk: Desk, budget: Budget, run: _Run) -> tuple[Candidate, Attempt]:
    """The next provider to ask, with a seat there. Raises the failure that remains where there is none."""
    started_s = time.perf_counter()
    candidates = [candidate for candidate in desk.candidates(run.request) if run.suits(candidate)]
    delay_s, soonest = _soonest(candidates, run)
    run.timing.route_s += time.perf_counter() - started_s
    if not soonest or delay_s > budget.retry_wait_s - run.waited_s:
        raise _no_attempt(run, soonest, delay_s)
    if delay_s:
        await asyncio.sleep(delay_s)
        run.waited_s += delay_s
        run.timing.queue_s += delay_s
    return await _take_seat(desk, ranked(soonest, desk.seats.running, now_s()), run)


def _soonest(candidates: list[Candidate], run: _Run) -> tuple[float, list[Candidate]]:
    """Those that can be asked first, and in how many seconds; one that was not tried yet before one that was."""
    delays = [(_delay_s(candidate, run), candidate) for candidate in candidates]
    known = [(delay_s, candidate) for delay_s, candidate in delays if delay_s is not None]
    first_s = min((delay_s for delay_s, _ in known), default=0.0)
    return first_s, [candidate for delay_s, candidate in known if delay_s <= first_s]


def _delay_s(candidate: Candidate, run: _Run) -> float | None:
    """Seconds until a provider should be asked; ``None``: not again."""
    rest_s = candidate.health.rest_s(now_s())
    error = run.failed.get(candidate.provider.name)
    if error is None:
        return rest_s
    if error.retry is Retry.NEVER or not error.entry.elsewhere or error.code in _NOT_AGAIN:
        return None
    pause_s = _PAUSE_S * 2.0 ** (run.attempts - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    return max(rest_s, pause_s)


def _no_attempt(run: _Run, resting: list[Candidate], delay_s: float) -> ApiError:
    """The failure where no attempt is made: the one before, or why the providers want to be left alone."""
    if run.failed:
        return run.remaining
    code = resting[0].health.last_failure if resting else "server_is_overloaded"
    return ApiError(code, retry_after_s=max(1.0, delay_s))


async def _take_seat(desk: Desk, chosen: list[Candidate], run: _Run) -> tuple[Candidate, Attempt]:
    admitted = [candidate for candidate in chosen if candidate.health.admits(now_s())] or chosen
    wanted = [(candidate.provider.name, candidate.offer.seats) for candidate in admitted]
    name = desk.seats.take(wanted)
    if name is None:
        asked_s = time.perf_counter()
        try:
            name = await desk.seats.wait(wanted)
        finally:
            run.timing.queue_s += time.perf_counter() - asked_s
    candidate = next(candidate for candidate in admitted if candidate.provider.name == name)
    candidate.health.begin()
    if run.attempts:
        _count_going_on(desk.tally, run)
    run.attempts += 1
    attempt = Attempt(name, time.perf_counter())
    run.timing.attempts.append(attempt)
    return candidate, attempt


def _count_going_on(tally: Tally, run: _Run) -> None:
    if run.broken_by is None:
        tally.failovers[run.request.model] += 1
    else:
        tally.continuations[run.request.model] += 1
        run.timing.continuations += 1
