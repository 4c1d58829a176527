"""One request, tried until it is answered or cannot be: attempts, failover, continuation. What it promises:

* **Before anything semantic went out** a failure moves the request to another provider; to the same one again only
  where that may help and there is no other. Nobody sees the failed attempts. For an answer that is not streamed that
  is any time before its end: what a broken attempt said is void (:data:`coterie.wire.lingua.RESTART`).
* **Afterwards** the answer goes on elsewhere where it can be continued (:mod:`coterie.dispatch.answer_so_far`); else
  its stream ends with the failure that broke it, whatever failed after that. It never just ends.
* What is the caller's fault is final at once, and so is what no other provider would do better. A context that is too
  short is only tried again where it is longer (or where nobody knew how long it was, and now somebody does).
* Who asked to be left alone is not asked before that time is over. A provider that its health refuses is asked only
  where no other is left that was not tried.
* All attempts together keep the budget: ``attempts`` in number, the last beginning within ``retry_window_s`` of the
  first, and waits between them (a provider's ``Retry-After``, or a short pause before asking the same one again) of at
  most ``retry_wait_s`` in all. A delay that does not fit is not waited for: the client gets the failure with the delay.
* The failure that remains is the one that helps the client most: that can be tried again after the shortest delay,
  else the newest that can be tried again, else the newest.
* A consumer that leaves ends the attempt, and nobody is blamed; nor is a provider for a bug in this process, which is
  raised as it is, or for what the request itself may have caused (:mod:`coterie.dispatch.blame`).
* Who waits for room is also served by a provider that was left alone when the wait began, as soon as it may be asked.
* Providers may be replaced at any time: one is only asked if it is still there when there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import random
import time
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Final, Protocol

from coterie.dispatch.answer_so_far import AnswerSoFar
from coterie.dispatch.blame import DEADLINES, Blame
from coterie.dispatch.choice import Candidate, ranked
from coterie.dispatch.health import Health
from coterie.dispatch.seats import Seats, now_s
from coterie.dispatch.tally import Tally
from coterie.errors import ApiError, Retry
from coterie.errors.cleaning import mask_secrets
from coterie.observe.timing import Timing
from coterie.wire.lingua import RESTART, Attempt, Chunk, Embedded, Embedding, Generation, Shortcut

_log = logging.getLogger(__name__)

_PAUSE_S: Final = 0.2
"""Before asking the same provider again; doubles, with a random part."""

_INF: Final = float("inf")

_HONOURED_S: Final = 60.0
"""Clients wait for no longer delay."""


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
    """One request between its attempts. ``said`` is what went out of its answer."""

    def __init__(self, request: Generation | Embedding, timing: Timing, said: AnswerSoFar | None = None) -> None:
        self.request = request
        self.timing = timing
        self.said = said
        self.blame = Blame(request.choices if isinstance(request, Generation) else 1)
        self.broken_by: ApiError | None = None
        """The failure that broke an answer of which something went out."""
        self.attempts = 0
        self.waited_s = 0.0
        self.failed: dict[str, ApiError] = {}
        """The newest failure of each provider that was tried."""
        self._again_at_s: dict[str, float] = {}
        self._too_short_tokens = 0
        """A context of this length is known to be too short."""
        self._began_s = 0.0

    @property
    def remaining(self) -> ApiError:
        """What the client is told."""
        return self.broken_by or min(reversed(self.failed.values()), key=_helplessness)

    def begin(self, provider: str) -> Attempt:
        """An attempt begins."""
        self._began_s = self._began_s or now_s()
        self.attempts += 1
        attempt = Attempt(provider, time.perf_counter())
        self.timing.attempts.append(attempt)
        return attempt

    def note(self, candidate: Candidate, error: ApiError) -> None:
        """Remember a failed attempt."""
        name = candidate.provider.name
        self.failed.pop(name, None)
        self.failed[name] = error
        pause_s = _PAUSE_S * 2.0 ** (self.attempts - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._again_at_s[name] = now_s() + max(pause_s, error.retry_after_s or 0.0)
        if error.code == "context_length_exceeded":
            self._too_short_tokens = max(self._too_short_tokens, candidate.offer.context_tokens, 1)
        if self.broken_by is None and self.said is not None and self.said.started:
            self.broken_by = error

    def is_final(self, error: ApiError) -> bool:
        """Whether the newest failure says all there is to say."""
        return self.broken_by is None and not error.entry.elsewhere and error.code != "context_length_exceeded"

    def may_go_on(self, budget: Budget, error: ApiError) -> bool:
        """Whether another attempt is allowed after ``error``."""
        if self.attempts >= budget.attempts:
            return False
        if self.broken_by is None:
            return True
        # A provider that refuses to continue an answer has not judged the request.
        may = error.entry.elsewhere or error is not self.broken_by
        return may and self.said is not None and self.said.continuable

    def window_s(self, budget: Budget) -> float:
        """Seconds within which the next attempt must begin."""
        return self._began_s + budget.retry_window_s - now_s() if self.attempts else _INF

    def candidates(self, desk: Desk) -> list[Candidate]:
        """Who may be asked next. Raises ``ApiError`` where nobody ever could."""
        try:
            return [candidate for candidate in desk.candidates(self.request) if self._suits(candidate)]
        except ApiError:
            if self.failed:
                return []
            raise

    def delay_s(self, candidate: Candidate, time_s: float) -> float | None:
        """Seconds until a provider should be asked; ``None``: not again."""
        rest_s = candidate.health.rest_s(time_s)
        error = self.failed.get(candidate.provider.name)
        if error is None:
            return rest_s
        if error.retry is Retry.NEVER or not error.entry.elsewhere or error.code in DEADLINES:
            return None  # (the same provider would take as long again)
        return max(rest_s, self._again_at_s[candidate.provider.name] - time_s, 0.0)

    def _suits(self, candidate: Candidate) -> bool:
        """Whether a provider can continue, where that is needed, and has a longer context, where one was too short."""
        if self.broken_by is not None and not candidate.offer.continues:
            return False
        return not self._too_short_tokens or candidate.offer.context_tokens > self._too_short_tokens


async def answer(desk: Desk, budget: Budget, generation: Generation, timing: Timing) -> AsyncGenerator[Chunk, None]:
    """The chunks of the answer. Raises ``ApiError``. See the module."""
    said = AnswerSoFar(generation, followed=generation.streamed and budget.continuation)
    run = _Run(generation, timing, said)
    part = generation
    try:
        while True:
            candidate = await _seated(desk, budget, run)
            attempt, shortcut = run.begin(candidate.provider.name), Shortcut()
            try:
                with _Judged(desk, run, candidate, attempt):
                    chunks = candidate.provider.generate(part.tried(attempt, shortcut))
                    async with contextlib.aclosing(chunks):
                        async for chunk in chunks:
                            if attempt.first_token_s is None and is_semantic(chunk):
                                attempt.first_token_s = time.perf_counter() - attempt.started_s
                                said.started = generation.streamed
                                run.blame.settle(now_s())
                            yield said.feed(chunk)
                            if shortcut.take is None and attempt.first_token_s is not None:
                                shortcut.take = functools.partial(_pass, said, generation.shortcut)
                return
            except ApiError as error:
                _conclude(desk, budget, run, candidate, error)
            if run.broken_by is not None:
                part = said.continued()
            if not generation.streamed:
                yield RESTART
    finally:
        _settle(desk, run)


def _pass(said: AnswerSoFar, shortcut: Shortcut, index: int, text: str, extra: dict[str, Any] | None) -> bool:
    """The short way of text through here."""
    if said.seam or shortcut.take is None or not shortcut.take(index, text, extra):
        return False
    said.add(text)
    return True


async def embed(desk: Desk, budget: Budget, embedding: Embedding, timing: Timing) -> Embedded:
    """The vectors. Raises ``ApiError``."""
    run = _Run(embedding, timing)
    try:
        while True:
            candidate = await _seated(desk, budget, run)
            attempt = run.begin(candidate.provider.name)
            try:
                with _Judged(desk, run, candidate, attempt):
                    embedded = await candidate.provider.embed(dataclasses.replace(embedding, attempt=attempt))
                    attempt.first_token_s = time.perf_counter() - attempt.started_s
                    run.blame.settle(now_s())
                    return embedded
            except ApiError as error:
                _conclude(desk, budget, run, candidate, error)
    finally:
        _settle(desk, run)


def is_semantic(chunk: Chunk) -> bool:
    """Whether a chunk says something that a client could act on: text, a call, a finish reason."""
    for choice in chunk["choices"]:
        if choice["finish_reason"] is not None or choice.get("logprobs"):
            return True
        if any(value for name, value in choice["delta"].items() if name != "role"):
            return True
    return False


def _helplessness(error: ApiError) -> tuple[bool, float]:
    """How little a client can do about a failure."""
    delay_s = error.retry_after_s or _INF
    return error.retry is Retry.NEVER, delay_s if delay_s <= _HONOURED_S else _INF


# Outcomes


def _settle(desk: Desk, run: _Run) -> None:
    """A request is over, however it ended: decide which failures count."""
    if run.blame.is_open:
        untried = [one for one in run.candidates(desk) if one.provider.name not in run.failed]
        run.blame.end(untried, now_s())


class _Judged:
    """An attempt on a seat that was taken: its outcome is counted, and its provider's health learns of it."""

    __slots__ = ("_attempt", "_candidate", "_desk", "_is_probe", "_run")

    def __init__(self, desk: Desk, run: _Run, candidate: Candidate, attempt: Attempt) -> None:
        self._desk = desk
        self._run = run
        self._candidate = candidate
        self._attempt = attempt
        self._is_probe = candidate.health.begin(now_s())

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        health, attempt, tally = self._candidate.health, self._attempt, self._desk.tally
        outcome = "internal_error"
        try:
            if error is None:
                outcome = "ok"
                health.succeed(now_s(), attempt.first_token_s)
            elif isinstance(error, ApiError):
                outcome = error.code
                self._run.blame.note(self._candidate, error, now_s())
            elif isinstance(error, (GeneratorExit, asyncio.CancelledError)):
                outcome = "client_closed"
        finally:
            health.end(is_probe=self._is_probe)
            tally.attempts[attempt.provider, self._run.request.model, outcome] += 1
            self._desk.seats.release(attempt.provider, time.perf_counter() - attempt.started_s)


def _conclude(desk: Desk, budget: Budget, run: _Run, candidate: Candidate, error: ApiError) -> None:
    """After a failed attempt: raise the failure that remains, or return for another attempt."""
    if error.detail:
        error.detail = mask_secrets(error.detail[:2000])  # it may quote what a provider sent
    run.note(candidate, error)
    if run.is_final(error):
        raise error
    goes_on = run.may_go_on(budget, error)
    if goes_on or error is not run.remaining:  # (what the client is told is logged where it is told)
        _log.warning(
            "attempt %d, on %s, failed: %s%s", run.attempts, candidate.provider.name, error.code,
            f": {error.detail}" if error.detail else "",
        )  # fmt: skip
    if not goes_on:
        raise run.remaining from None


# The next provider


async def _seated(desk: Desk, budget: Budget, run: _Run) -> Candidate:
    """The next provider to ask, with a seat there taken. Raises the failure that remains where there is none."""
    queued_at_s: float | None = None
    while True:
        delay_s, chosen = _choose(desk, budget, run)
        if delay_s:
            await _pause(run, delay_s)
            continue
        name = desk.seats.take(_wanted(chosen))
        if name is None:
            since_s, queued_at_s = queued_at_s, queued_at_s or now_s()
            limit_s = min(queued_at_s + desk.seats.timeout_s - now_s(), run.window_s(budget))
            name = await _waited(desk, run, chosen, limit_s, since_s)
            chosen = _still_chosen(desk, budget, run)
        for candidate in chosen:
            if candidate.provider.name == name:
                _count_going_on(desk.tally, run)
                return candidate
        if name is not None:
            desk.seats.release(name)


def _choose(desk: Desk, budget: Budget, run: _Run) -> tuple[float, list[Candidate]]:
    """Whom to ask next, in the order of preference, and in how many seconds. Raises the failure that remains.

    One that was not tried yet before one that was; then one that its health admits; then the one that is free soonest.
    """
    started_s, time_s = time.perf_counter(), now_s()
    candidates = run.candidates(desk)
    patience_s = min(max(0.0, budget.retry_wait_s - run.waited_s), run.window_s(budget))
    places: list[tuple[tuple[bool, bool, float], Candidate]] = []
    for candidate in candidates:
        delay_s = run.delay_s(candidate, time_s)
        if delay_s is not None and delay_s <= patience_s:
            tried = candidate.provider.name in run.failed
            places.append(((tried, not candidate.health.admits(time_s + delay_s), delay_s), candidate))
    if not places:
        raise run.remaining if run.failed else _resting(candidates, time_s)
    first = min(place for place, _ in places)
    chosen = ranked([candidate for place, candidate in places if place == first], desk.seats.running, time_s)
    run.timing.route_s += time.perf_counter() - started_s
    return first[2], chosen


def _resting(candidates: list[Candidate], time_s: float) -> ApiError:
    """The failure of a request whose providers all asked to be left alone."""
    soonest = min((candidate.health for candidate in candidates), key=lambda health: health.rest_s(time_s))
    return ApiError(soonest.rest_code, retry_after_s=max(1.0, soonest.rest_s(time_s)))


def _still_chosen(desk: Desk, budget: Budget, run: _Run) -> list[Candidate]:
    """Whom to ask now, after a wait in which providers may have failed or gone; nobody where a delay is due."""
    try:
        delay_s, chosen = _choose(desk, budget, run)
    except ApiError:
        return []
    return [] if delay_s else chosen


async def _pause(run: _Run, delay_s: float) -> None:
    run.waited_s += delay_s
    run.timing.queue_s += delay_s
    await asyncio.sleep(delay_s)


async def _waited(desk: Desk, run: _Run, chosen: list[Candidate], limit_s: float, since_s: float | None) -> str | None:
    """A seat that was waited for; ``None`` where there are other providers now. Raises the failure that remains."""
    asked_s = time.perf_counter()
    try:
        return await desk.seats.wait(_wanted(chosen), limit_s, shut=_shut(desk, run, chosen), since_s=since_s)
    except ApiError as error:
        raise run.remaining if run.failed else error from None
    finally:
        run.timing.queue_s += time.perf_counter() - asked_s


def _wanted(candidates: list[Candidate]) -> list[tuple[str, int]]:
    return [(candidate.provider.name, candidate.offer.seats) for candidate in candidates]


def _shut(desk: Desk, run: _Run, chosen: list[Candidate]) -> dict[str, tuple[int, Health]]:
    """Who would be asked before any that failed this request, but is left alone now."""
    time_s, names = now_s(), {candidate.provider.name for candidate in chosen} | run.failed.keys()
    return {
        candidate.provider.name: (candidate.offer.seats, candidate.health)
        for candidate in run.candidates(desk)
        if candidate.provider.name not in names and not candidate.health.admits(time_s)
    }


def _count_going_on(tally: Tally, run: _Run) -> None:
    if run.broken_by is not None:
        tally.continuations[run.request.model] += 1
        run.timing.continuations += 1
    elif run.attempts:
        tally.failovers[run.request.model] += 1
