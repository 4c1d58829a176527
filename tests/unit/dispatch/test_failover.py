"""Attempts, failover and continuation, with providers that do what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.provider import WHOLE, ScriptedProvider, Step, delta, finish, role, usage
from tests.support.waiting import until

from coterie.config import DispatchSettings
from coterie.dispatch import failover, seats
from coterie.dispatch.health import HealthState
from coterie.dispatch.router import Router, Task
from coterie.errors import ApiError, Retry
from coterie.observe.timing import Timing
from coterie.providers.base import Offer
from coterie.wire.lingua import RESTART, Chunk, Embedded, Embedding, Generation, Shortcut, Take

CHAT = Generation("m", {"messages": [{"role": "user", "content": "Hi"}]})
PLAIN = Generation("m", CHAT.body, streamed=False)
TOO_LONG = ApiError("context_length_exceeded", param="messages", limit=1, actual=2)
MISTAKE = ApiError("invalid_value", param="seed", reason="bad")
BROKEN = ApiError("upstream_stream_interrupted")
DOWN = ApiError("upstream_unreachable", detail="refused")


def limited(delay_s: float = 30.0) -> ApiError:
    return ApiError("rate_limit_exceeded", retry_after_s=delay_s)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []


@pytest.fixture(autouse=True, name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, sleep = Clock(), asyncio.sleep

    async def fake(delay_s: float) -> None:
        if delay_s > 0.01:
            clock.slept.append(delay_s)
            clock.now_s += delay_s
        await sleep(0)

    for module in (failover, seats):
        monkeypatch.setattr(module, "now_s", lambda: clock.now_s)
    monkeypatch.setattr(asyncio, "sleep", fake)
    return clock


def provider(name: str, *script: Step, **offer: Any) -> ScriptedProvider:
    scripted = ScriptedProvider(script or WHOLE, name=name)
    scripted.offered = Offer(**{"continues": True, "seats": 4, **offer})
    return scripted


def fleet(*scripts: Sequence[Step], **settings: Any) -> tuple[Router, list[ScriptedProvider]]:
    """Providers a, b, c..., asked in this order."""
    providers = [provider(name, *script, priority=n) for n, (name, script) in enumerate(zip("abcd", scripts))]  # noqa: B905
    return Router(providers, DispatchSettings(**settings)), providers


def asked(timing: Timing) -> str:
    return "".join(attempt.provider for attempt in timing.attempts)


class Outcome:
    """What came of one request."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.error: BaseException | None = None
        self.timing = Timing()

    @property
    def text(self) -> str:
        return "".join(c["delta"].get("content") or "" for chunk in self.chunks for c in chunk["choices"])

    @property
    def code(self) -> str:
        assert isinstance(self.error, ApiError)
        return self.error.code

    @property
    def asked(self) -> str:
        return asked(self.timing)


async def outcome(router: Router, request: Generation | Embedding = CHAT) -> Outcome:
    result = Outcome()
    try:
        if isinstance(request, Embedding):
            await router.embed(request, result.timing)
        else:
            async with contextlib.aclosing(router.generate(request, result.timing)) as chunks:
                async for chunk in chunks:
                    if chunk is RESTART:
                        result.chunks.clear()
                    else:
                        result.chunks.append(chunk)
    except Exception as error:  # noqa: BLE001 - the test looks at it
        result.error = error
    assert_nothing_is_held(router)
    return result


def assert_nothing_is_held(router: Router) -> None:
    assert not any(router.seats.running.values())
    assert router.seats.waiting == 0
    assert not any(record._probe_is_out for record in router._health.values())


# Before anything was said


@pytest.mark.parametrize("request_", [CHAT, PLAIN], ids=["streamed", "plain"])
@pytest.mark.parametrize(
    "first",
    [
        (DOWN,), (role(), DOWN), (delta(""), DOWN), ({"choices": []}, limited()),
        (ApiError("upstream_auth_failed"),), (ApiError("upstream_timeout"),),
        (ApiError("model_load_failed", model="m"),),
    ],
)  # fmt: skip
async def test_a_failure_moves_the_request_on(request_: Generation, first: tuple[Step, ...]) -> None:
    router, (_, b) = fleet(first, WHOLE)
    result = await outcome(router, request_)
    assert (result.text, result.error, result.asked) == ("Hello", None, "ab")
    assert result.chunks[-1] == usage()
    assert b.generations[0].body == CHAT.body
    assert (router.tally.failovers["m"], router.tally.continuations["m"]) == (1, 0)


async def test_a_plain_answer_begins_anew_at_any_moment() -> None:
    router, (_, b) = fleet((delta("No"), delta("pe"), finish(), BROKEN), WHOLE)
    assert (await outcome(router, PLAIN)).text == "Hello"
    assert b.generations[0].body == CHAT.body


async def test_the_restart_stands_between_the_attempts() -> None:
    router, _ = fleet((delta("No"), BROKEN), WHOLE)
    chunks = [chunk async for chunk in router.generate(PLAIN, Timing())]
    assert chunks == [delta("No"), RESTART, *WHOLE]


@pytest.mark.parametrize("request_", [CHAT, PLAIN], ids=["streamed", "plain"])
@pytest.mark.parametrize("error", [MISTAKE, ApiError("content_policy_violation"), ApiError("server_shutting_down")])
async def test_what_no_other_would_do_better_is_final(request_: Generation, error: ApiError) -> None:
    router, _ = fleet((error,), WHOLE)
    result = await outcome(router, request_)
    assert (result.error, result.asked) == (error, "a")
    assert router.health("a", "m").state(1000) is HealthState.CLOSED


async def test_the_callers_fault_counts_more_than_the_failures_before_it() -> None:
    router, _ = fleet((limited(2),), (MISTAKE,), WHOLE)
    result = await outcome(router)
    assert (result.error, result.asked) == (MISTAKE, "ab")


@pytest.mark.parametrize(
    ("contexts", "expected"),
    [((8, 32), "ab"), ((8, 8), "a"), ((8, 4), "a"), ((8, 0), "a"), ((0, 8), "ab"), ((8, 4, 16), "ac"), ((0, 0), "a")],
)
async def test_a_longer_context(contexts: tuple[int, ...], expected: str) -> None:
    providers = [provider(n, TOO_LONG, context_tokens=c, priority=i) for i, (n, c) in enumerate(zip("abc", contexts))]  # noqa: B905
    result = await outcome(Router(providers))
    assert (result.error, result.asked) == (TOO_LONG, expected)


async def test_a_longer_context_that_serves() -> None:
    router, (a, b) = fleet((TOO_LONG,), WHOLE)
    a.offered, b.offered = Offer(context_tokens=8), Offer(context_tokens=16, priority=1)
    assert (await outcome(router)).text == "Hello"


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ((limited(20), DOWN), "rate_limit_exceeded"),
        ((DOWN, limited(20)), "rate_limit_exceeded"),
        ((limited(4000), DOWN), "upstream_unreachable"),
        ((limited(20), limited(9)), "rate_limit_exceeded"),
        ((ApiError("upstream_error"), DOWN), "upstream_unreachable"),
        ((DOWN, ApiError("upstream_auth_failed")), "upstream_unreachable"),
        ((ApiError("upstream_quota_exhausted"), ApiError("upstream_auth_failed")), "upstream_auth_failed"),
        ((ApiError("rate_limit_exceeded", retry=Retry.NEVER), ApiError("upstream_timeout")), "upstream_timeout"),
    ],
)
async def test_the_failure_that_remains(errors: tuple[ApiError, ...], code: str) -> None:
    router, _ = fleet(*((error,) for error in errors), attempts=2)
    result = await outcome(router)
    assert (result.code, result.asked) == (code, "ab")
    if code == "rate_limit_exceeded":
        assert isinstance(result.error, ApiError)
        assert result.error.retry_after_s == min(error.retry_after_s or 99 for error in errors)


# The budget


@pytest.mark.parametrize("attempts", [1, 2, 3, 7])
async def test_no_more_attempts_than_allowed(attempts: int, clock: Clock) -> None:
    router, _ = fleet((DOWN,), attempts=attempts, retry_wait_s=1000)
    result = await outcome(router)
    assert (result.code, result.asked) == ("upstream_unreachable", "a" * attempts)
    assert len(clock.slept) == attempts - 1
    assert all(0.05 < pause_s / 2**n <= 0.2 for n, pause_s in enumerate(clock.slept))
    assert result.timing.queue_s == pytest.approx(sum(clock.slept))


@pytest.mark.parametrize(
    "error",
    [
        ApiError("upstream_auth_failed"),
        ApiError("upstream_timeout"),
        ApiError("upstream_connect_timeout"),
        ApiError("rate_limit_exceeded", retry=Retry.NEVER),
    ],
)
async def test_the_same_provider_is_not_asked_where_that_cannot_help(error: ApiError) -> None:
    router, _ = fleet((error,))
    assert (await outcome(router)).asked == "a"


async def test_the_same_provider_only_where_there_is_no_other() -> None:
    router, _ = fleet((DOWN,), (DOWN,), attempts=4)
    assert (await outcome(router)).asked[:2] == "ab"


async def test_waits_in_all_keep_the_budget(clock: Clock) -> None:
    router, _ = fleet((limited(2),), attempts=9, retry_wait_s=5)
    result = await outcome(router)
    assert result.asked == "aaa"
    assert clock.slept == [2, 2]


@pytest.mark.parametrize(("delay_s", "expected"), [(3.0, "aa"), (5.0, "aa"), (5.5, "a"), (9e9, "a")])
async def test_a_delay_is_kept_or_handed_on(delay_s: float, expected: str, clock: Clock) -> None:
    router, (a,) = fleet(WHOLE, retry_wait_s=5)
    a.scripts = [(limited(delay_s),)]
    result = await outcome(router)
    assert result.asked == expected
    assert clock.slept == [delay_s] * (len(expected) - 1)
    if expected == "a":
        assert isinstance(result.error, ApiError)
        assert (result.code, result.error.retry_after_s) == ("rate_limit_exceeded", delay_s)


async def test_no_attempt_begins_after_the_window(clock: Clock) -> None:
    router, _ = fleet((limited(4),), attempts=9, retry_wait_s=100, retry_window_s=10)
    assert (await outcome(router)).asked == "aaa"
    assert clock.slept == [4, 4]


@pytest.mark.parametrize(("took_s", "expected"), [(9, "ab"), (11, "a")])
async def test_an_attempt_that_took_the_whole_window_was_the_last(took_s: float, expected: str, clock: Clock) -> None:
    router, (a, _) = fleet((asyncio.Event(), DOWN), WHOLE, retry_window_s=10)
    [gate, _] = a.script
    assert isinstance(gate, asyncio.Event)
    task = asyncio.create_task(outcome(router))
    await a.asked.wait()
    clock.now_s += took_s
    gate.set()
    assert (await task).asked == expected


async def test_one_that_was_not_tried_is_waited_for(clock: Clock) -> None:
    router, _ = fleet((DOWN,), WHOLE)
    router.health("b", "m").fail(clock.now_s, "rate_limit_exceeded", 3)
    assert (await outcome(router)).asked == "ab"
    assert clock.slept == [3]


# Health


async def test_who_asked_to_be_left_alone_is_not_asked(clock: Clock) -> None:
    router, (a, _) = fleet((limited(30),), WHOLE)
    assert (await outcome(router)).asked == "ab"
    assert (await outcome(router)).asked == "b"
    clock.now_s += 31
    a.script = WHOLE
    assert (await outcome(router)).asked == "a"


async def test_all_rest(clock: Clock) -> None:
    router, _ = fleet((limited(40),), (limited(30),), attempts=2)
    await outcome(router)
    clock.now_s += 12
    result = await outcome(router)
    assert isinstance(result.error, ApiError)
    assert (result.code, result.error.retry_after_s, result.asked) == ("rate_limit_exceeded", 18, "")


async def test_a_failure_that_was_under_way_does_not_hide_why_it_rests(clock: Clock) -> None:
    router, (a,) = fleet((limited(30),), attempts=1)
    await outcome(router)
    router.health("a", "m").fail(clock.now_s, "model_load_failed", None)
    result = await outcome(router)
    assert (result.code, result.asked) == ("rate_limit_exceeded", "")
    assert len(a.generations) == 1


async def test_a_short_rest_is_waited_for(clock: Clock) -> None:
    router, (a,) = fleet(WHOLE)
    router.health("a", "m").fail(clock.now_s, "rate_limit_exceeded", 3)
    result = await outcome(router)
    assert (result.text, clock.slept, len(a.generations)) == ("Hello", [3], 1)


async def test_one_that_rests_a_little_is_better_than_one_that_is_down(clock: Clock) -> None:
    router, _ = fleet(WHOLE, (DOWN,))
    router.health("a", "m").fail(clock.now_s, "rate_limit_exceeded", 3)
    for _ in range(3):
        router.health("b", "m").fail(clock.now_s, "upstream_unreachable", None)
    result = await outcome(router)
    assert (result.asked, clock.slept) == ("a", [3])


async def test_one_that_is_down_is_better_than_one_that_rests_too_long(clock: Clock) -> None:
    router, _ = fleet(WHOLE, WHOLE)
    router.health("a", "m").fail(clock.now_s, "rate_limit_exceeded", 30)
    for _ in range(3):
        router.health("b", "m").fail(clock.now_s, "upstream_unreachable", None)
    assert (await outcome(router)).asked == "b"


async def test_one_request_probes_and_the_others_go_elsewhere(clock: Clock) -> None:
    router, (a, _) = fleet(WHOLE, WHOLE)
    for _ in range(3):
        router.health("a", "m").fail(clock.now_s, "upstream_unreachable", None)
    assert (await outcome(router)).asked == "b"
    clock.now_s += 5
    gate = asyncio.Event()
    a.script = (gate, *WHOLE)
    probe = asyncio.create_task(outcome_without_checks(router))
    await a.asked.wait()
    for _ in range(3):
        assert asked((await outcome_without_checks(router)).timing) == "b"
    gate.set()
    assert (await probe).asked == "a"
    assert router.health("a", "m").state(clock.now_s) is HealthState.CLOSED


async def outcome_without_checks(router: Router) -> Outcome:
    """Beside other requests."""
    result = Outcome()
    async for chunk in router.generate(CHAT, result.timing):
        result.chunks.append(chunk)
    return result


ERROR = ApiError("upstream_error")


def is_open(router: Router, names: str, task: Task = "generate") -> list[bool]:
    return [router.health(name, "m", task).state(1000) is HealthState.OPEN for name in names]


@pytest.mark.parametrize("request_", [CHAT, PLAIN, Embedding("m", ("Hi",))], ids=["streamed", "plain", "embedding"])
@pytest.mark.parametrize(
    ("first", "second", "opened"),
    [
        (ERROR, ERROR, [False, False]),
        (ApiError("upstream_model_unavailable"), ApiError("upstream_model_unavailable"), [False, False]),
        (DOWN, DOWN, [True, True]),
        (ApiError("upstream_timeout"), ApiError("upstream_timeout"), [True, True]),
        (ERROR, ApiError("upstream_auth_failed"), [True, True]),
        (ERROR, DOWN, [True, True]),
        (ERROR, None, [True, False]),
        (ERROR, limited(1), [True, False]),
    ],
)
async def test_a_failure_that_a_request_meets_everywhere_is_nobodys(
    request_: Generation | Embedding, first: ApiError, second: ApiError | None, opened: list[bool]
) -> None:
    router, providers = fleet(WHOLE, WHOLE, attempts=2, open_after=1)
    for one, failure in zip(providers, (first, second), strict=True):
        one.script = WHOLE if failure is None else (failure,)
        one.embed_failure = failure
    assert (await outcome(router, request_)).asked == "ab"
    assert is_open(router, "ab", "embed" if isinstance(request_, Embedding) else "generate") == opened


async def test_who_was_left_out_is_asked_in_the_end() -> None:
    router, _ = fleet((ERROR,), (ERROR,), WHOLE, attempts=2, open_after=2)
    results = [await outcome(router) for _ in range(3)]
    assert [result.asked for result in results] == ["ab", "ab", "c"]


async def test_a_failure_counts_as_soon_as_another_answers() -> None:
    gate = asyncio.Event()
    router, _ = fleet((ERROR,), (delta("Hel"), gate, delta("lo"), finish(), usage()), open_after=1)
    chunks = router.generate(CHAT, Timing())
    await anext(chunks)
    assert is_open(router, "ab") == [True, False]
    await chunks.aclose()


async def test_a_failure_counts_where_nobody_waits_for_another() -> None:
    router, (_, b) = fleet((ERROR,), (asyncio.Event(),), open_after=1)
    task = asyncio.create_task(outcome_without_checks(router))
    await b.asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert is_open(router, "ab") == [True, False]


@pytest.mark.parametrize(
    ("request_", "opened"),
    [
        (CHAT, True),
        (Generation("m", CHAT.body, n=2), False),
        (Generation("m", {}, prompts=("a", "b")), False),
    ],
)
async def test_choices_that_are_missing_are_nobodys_fault(request_: Generation, *, opened: bool) -> None:
    router, _ = fleet((delta("Hel"), finish(), BROKEN), open_after=1)
    await outcome(router, request_)
    assert is_open(router, "a") == [opened]


async def test_a_request_that_is_too_large_rests_nobody() -> None:
    router, _ = fleet((ApiError("rate_limit_exceeded", retry=Retry.NEVER),))
    await outcome(router)
    assert router.health("a", "m").admits(1000)


@pytest.mark.parametrize(("seats", "state"), [(0, HealthState.CLOSED), (4, HealthState.RESTING)])
async def test_a_full_queue_of_its_own_is_asked_again(seats: int, state: HealthState) -> None:
    router, (a,) = fleet((ApiError("server_is_overloaded", retry_after_s=50),))
    a.offered = Offer(seats=seats)
    result = await outcome(router)
    assert (result.code, result.asked) == ("server_is_overloaded", "a")
    assert router.health("a", "m").state(1000) is state


# After something was said


@pytest.mark.parametrize("error", [BROKEN, DOWN, ApiError("upstream_timeout"), ApiError("upstream_error"), limited()])
async def test_the_answer_goes_on_elsewhere(error: ApiError) -> None:
    router, (_, b) = fleet((role(), delta("Hel "), error), (role(), delta(" lo"), finish(), usage(9, 1)))
    result = await outcome(router)
    assert (result.text, result.error, result.asked) == ("Hel lo", None, "ab")
    assert result.chunks[-1] == usage(8, 2)
    assert b.generations[0].partial
    assert b.generations[0].body["messages"][-1] == {"role": "assistant", "content": "Hel"}
    assert (result.timing.continuations, router.tally.continuations["m"], router.tally.failovers["m"]) == (1, 1, 0)


async def test_a_text_completion_goes_on_elsewhere() -> None:
    router, (_, b) = fleet((delta("Hel "), BROKEN), (delta("lo"), finish(), usage(5, 1)))
    result = await outcome(router, Generation("m", {"max_tokens": 9}, prompts=("Say: ",)))
    assert (result.text, result.error, result.asked) == ("Hel lo", None, "ab")
    assert result.chunks[-1] == usage(4, 2)
    assert (b.generations[0].prompts, b.generations[0].body) == (("Say: Hel ",), {"max_tokens": 8})


async def test_it_can_be_cut_again_and_go_on_where_it_began() -> None:
    router, (a, b) = fleet((delta("lo"), finish(), usage()), (delta("l"), BROKEN), attempts=3)
    a.scripts = [(delta("He"), BROKEN)]
    result = await outcome(router)
    assert (result.text, result.asked) == ("Hello", "aba")
    assert a.generations[1].body["messages"][-1]["content"] == "Hel"
    assert result.timing.continuations == 2
    assert b.generations[0].body["messages"][-1]["content"] == "He"


@pytest.mark.parametrize("refusal", [MISTAKE, TOO_LONG, DOWN, limited(), ApiError("upstream_auth_failed")])
async def test_one_that_cannot_continue_is_passed_over(refusal: ApiError) -> None:
    router, (_, _, c) = fleet((delta("Hel"), BROKEN), (refusal,), (delta("lo"), finish(), usage()))
    c.offered = Offer(priority=2, continues=True, context_tokens=1000)
    result = await outcome(router)
    assert (result.text, result.error, result.asked) == ("Hello", None, "abc")


@pytest.mark.parametrize("refusal", [MISTAKE, limited(), DOWN])
async def test_the_failure_that_broke_it_is_the_one_that_is_told(refusal: ApiError) -> None:
    router, _ = fleet((delta("Hel"), ApiError("upstream_timeout")), (refusal,), attempts=2)
    result = await outcome(router)
    assert (result.text, result.code, result.asked) == ("Hel", "upstream_timeout", "ab")


CALL = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]}


@pytest.mark.parametrize(
    ("first", "request_"),
    [
        ((delta("Hel"), finish()), CHAT),
        ((delta("Hel"), {"choices": [{"index": 0, "delta": CALL, "finish_reason": None}]}), CHAT),
        ((delta("Hel"),), Generation("m", {**CHAT.body, "logprobs": True})),
        ((delta("Hel"),), Generation("m", CHAT.body, n=2)),
        ((delta("Hel"),), Generation("m", {}, prompts=("Hi", "Ho"))),
        ((delta("Hel"),), Generation("m", {**CHAT.body, "max_tokens": 1})),
    ],
)
async def test_what_cannot_go_on_fails(first: tuple[Step, ...], request_: Generation) -> None:
    router, _ = fleet((*first, BROKEN), WHOLE)
    result = await outcome(router, request_)
    assert (result.text, result.error, result.asked) == ("Hel", BROKEN, "a")


async def test_log_probabilities_alone_were_said_too() -> None:
    chunk = {"choices": [{"index": 0, "delta": {}, "finish_reason": None, "logprobs": {"content": [{}]}}]}
    router, _ = fleet((chunk, BROKEN), WHOLE)
    assert (await outcome(router, Generation("m", {**CHAT.body, "logprobs": True}))).asked == "a"


@pytest.mark.parametrize("offers", [False, True])
async def test_only_who_can_continue_is_asked(offers: bool) -> None:
    router, (a, b) = fleet((delta("Hel"), ApiError("upstream_timeout")), WHOLE, continuation=offers)
    a.offered, b.offered = Offer(), Offer(continues=not offers, priority=1)
    assert (await outcome(router)).asked == "a"


async def test_a_fault_of_the_callers_in_the_middle_is_final() -> None:
    router, _ = fleet((delta("Hel"), ApiError("content_policy_violation")), WHOLE)
    result = await outcome(router)
    assert (result.code, result.asked) == ("content_policy_violation", "a")


async def test_no_room_to_go_on_is_the_failure_that_broke_it() -> None:
    router, _ = fleet((delta("Hel"), ApiError("upstream_timeout")), WHOLE, queue=0)
    router.seats.running["b"] = 4
    chunks = router.generate(CHAT, Timing())
    assert await anext(chunks) == delta("Hel")
    with pytest.raises(ApiError) as caught:
        await anext(chunks)
    assert caught.value.code == "upstream_timeout"


async def test_a_model_that_is_gone_meanwhile_hides_no_failure() -> None:
    router, _ = fleet((DOWN,))

    async def vanish() -> AsyncIterator[Chunk]:
        async for chunk in router.generate(PLAIN, Timing()):
            yield chunk
            router.providers = ()

    with pytest.raises(ApiError) as caught:
        _ = [chunk async for chunk in vanish()]
    assert caught.value.code == "upstream_unreachable"


# Leaving, and bugs


@pytest.mark.parametrize("taken", range(6))
async def test_a_consumer_that_leaves_blames_nobody(taken: int) -> None:
    router, providers = fleet((role(), delta("He"), BROKEN), (delta("l"), delta("lo"), finish(), usage()))
    chunks = router.generate(CHAT, Timing())
    for _ in range(taken):
        await anext(chunks)
    begun = [one for one in providers if one.generations]
    await chunks.aclose()
    assert all(one.closed.is_set() for one in begun)
    assert_nothing_is_held(router)
    assert router.health(begun[-1].name if begun else "a", "m").failures_in_row == 0
    assert router.tally.attempts[begun[-1].name if begun else "a", "m", "client_closed"] == (1 if begun else 0)


async def test_a_consumer_that_is_cancelled_while_a_provider_thinks() -> None:
    router, (a,) = fleet((asyncio.Event(),))
    task = asyncio.create_task(outcome_without_checks(router))
    await a.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_is_held(router)
    assert router.tally.attempts["a", "m", "client_closed"] == 1


async def test_a_consumer_that_is_cancelled_while_it_waits_for_a_seat(clock: Clock) -> None:
    router, (a,) = fleet(WHOLE)
    a.offered = Offer(seats=1)
    for _ in range(3):
        router.health("a", "m").fail(clock.now_s - 100, "upstream_unreachable", None)
    router.seats.running["a"] = 1
    for early in (True, False):
        task = asyncio.create_task(outcome_without_checks(router))
        await until(lambda: router.seats.waiting == 1)
        if not early:
            router.seats.release("a")  # the seat comes in the moment of leaving
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert_nothing_is_held(router)
    assert router.health("a", "m").admits(clock.now_s)
    assert not a.generations


@pytest.mark.parametrize("said", [(), (delta("x"),)])
@pytest.mark.parametrize("bug", [RuntimeError("bug"), KeyError("bug"), TimeoutError()])
async def test_a_bug_is_raised_as_it_is(said: tuple[Step, ...], bug: Exception) -> None:
    router, _ = fleet((*said, bug), WHOLE)
    result = await outcome(router)
    assert (result.error, result.asked) == (bug, "a")
    assert router.tally.attempts["a", "m", "internal_error"] == 1
    assert router.health("a", "m").failures_in_row == 0


async def test_a_probe_that_is_abandoned_leaves_room_for_another(clock: Clock) -> None:
    router, (a,) = fleet((asyncio.Event(),))
    for _ in range(3):
        router.health("a", "m").fail(clock.now_s - 100, "upstream_unreachable", None)
    task = asyncio.create_task(outcome_without_checks(router))
    await a.asked.wait()
    assert not router.health("a", "m").admits(clock.now_s)
    task.cancel()
    await asyncio.wait([task])
    assert router.health("a", "m").admits(clock.now_s)


# Seats, and providers that come and go


async def test_a_full_provider_is_passed_over() -> None:
    router, _ = fleet(WHOLE, WHOLE)
    router.seats.running["a"] = 4
    assert (await outcome_without_checks(router)).asked == "b"


async def test_a_full_queue_is_an_overload() -> None:
    router, _ = fleet(WHOLE, queue=0)
    router.seats.running["a"] = 4
    with pytest.raises(ApiError) as caught:
        await outcome_without_checks(router)
    assert caught.value.code == "server_is_overloaded"


async def waiting_request(router: Router) -> asyncio.Task[Outcome]:
    task = asyncio.create_task(outcome_without_checks(router))
    await until(lambda: router.seats.waiting == 1)
    return task


async def test_a_provider_that_was_replaced_during_the_wait_is_not_asked() -> None:
    router, (a,) = fleet(WHOLE)
    router.seats.running["a"] = 4
    task = await waiting_request(router)
    again = provider("a")
    router.providers = (again,)
    router.seats.release("a")
    assert (await task).text == "Hello"
    assert (len(a.generations), len(again.generations)) == (0, 1)


async def test_who_waits_hears_of_new_providers() -> None:
    router, (a,) = fleet(WHOLE)
    router.seats.running["a"] = 4
    task = await waiting_request(router)
    await router.replace([a, provider("b")])
    assert (await task).asked == "b"
    assert router.seats.running == {"a": 4, "b": 0}


async def test_a_provider_that_is_gone_after_the_wait_is_the_models_end() -> None:
    router, _ = fleet(WHOLE)
    router.seats.running["a"] = 4
    task = await waiting_request(router)
    await router.replace([])
    with pytest.raises(ApiError) as caught:
        await task
    assert caught.value.code == "model_not_found"


async def test_a_provider_that_failed_during_the_wait_is_left_alone(clock: Clock) -> None:
    router, _ = fleet(WHOLE, WHOLE)
    router.seats.running.update(a=4, b=4)
    task = await waiting_request(router)
    router.health("a", "m").fail(clock.now_s, "rate_limit_exceeded", 60)
    router.seats.running["b"] = 3
    router.seats.release("a")
    assert (await task).asked == "b"
    assert router.seats.running == {"a": 3, "b": 3}


@pytest.mark.parametrize("rests", [True, False], ids=["a rest", "left alone for failures"])
async def test_who_waits_for_room_hears_of_a_provider_that_may_be_asked_again(rests: bool, clock: Clock) -> None:
    router, _ = fleet(WHOLE, WHOLE, open_after=1, open_s=0.01)
    code = "rate_limit_exceeded" if rests else "upstream_unreachable"
    router.health("a", "m").fail(clock.now_s, code, 30 if rests else None)
    router.seats.running["b"] = 4
    task = await waiting_request(router)
    clock.now_s += 31
    router.seats._ring()  # (the event loop's clock does not go with the test's)
    assert (await task).asked == "a"
    assert router.health("a", "m").state(clock.now_s) is HealthState.CLOSED
    assert router.seats.running == {"a": 0, "b": 4}


async def test_the_end_of_a_rest_is_heard_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (failover, seats):
        monkeypatch.setattr(module, "now_s", time.monotonic)
    router, _ = fleet(WHOLE, WHOLE, retry_wait_s=0)
    router.health("a", "m").fail(time.monotonic(), "rate_limit_exceeded", 0.05)
    router.seats.running["b"] = 4
    task = await waiting_request(router)
    assert (await task).asked == "a"


async def test_one_of_those_who_wait_probes_and_the_others_follow_its_success(clock: Clock) -> None:
    router, (a, _) = fleet(WHOLE, WHOLE, open_after=1)
    router.health("a", "m").fail(clock.now_s, "upstream_unreachable", None)
    router.seats.running["b"] = 4
    gate = asyncio.Event()
    a.script = (gate, *WHOLE)
    tasks = [asyncio.create_task(outcome_without_checks(router)) for _ in range(3)]
    await until(lambda: router.seats.waiting == 3)
    clock.now_s += 31
    router.seats._ring()
    await a.asked.wait()
    await asyncio.sleep(0)
    assert (len(a.generations), router.seats.waiting) == (1, 2)
    gate.set()
    assert [(await task).asked for task in tasks] == ["a", "a", "a"]


async def test_who_was_served_in_vain_waits_on_though_the_queue_is_full(clock: Clock) -> None:
    router, (a, _) = fleet(WHOLE, WHOLE, queue=1, retry_wait_s=0)
    router.health("a", "m").fail(clock.now_s, "rate_limit_exceeded", 30)
    router.seats.running["b"] = 4
    first = await waiting_request(router)
    clock.now_s += 31
    router.seats._ring()
    router.health("a", "m").fail(clock.now_s, "rate_limit_exceeded", 30)
    second = await waiting_request(router)
    await until(lambda: router.seats.waiting == 2)
    router.seats.release("b")
    assert (await first).asked == "b"
    assert not a.generations
    assert (await second).asked == "b"


async def test_who_failed_a_request_is_not_waited_for(clock: Clock) -> None:
    router, (a, _) = fleet((DOWN,), WHOLE, open_after=1)
    router.seats.running["b"] = 4
    task = await waiting_request(router)
    clock.now_s += 31
    router.seats._ring()
    assert router.seats.running["a"] == 0
    a.script = WHOLE
    router.seats.release("b")
    assert (await task).asked == "ab"


async def test_a_running_answer_outlives_its_provider() -> None:
    gate = asyncio.Event()
    router, (a,) = fleet((delta("Hel"), gate, delta("lo"), finish(), usage()))
    task = asyncio.create_task(outcome(router))
    await until(lambda: a.pulled == 1)
    await router.replace([provider("a")])
    gate.set()
    assert (await task).text == "Hello"
    assert router.health("a", "m").first_token_s is None


# What is told of it


async def test_the_log_names_each_failure_that_the_client_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coterie.dispatch.failover")
    router, _ = fleet((DOWN,), (ApiError("upstream_timeout"),), attempts=2)
    await outcome(router)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["attempt 1, on a, failed: upstream_unreachable: refused"]


async def test_attempts_are_measured() -> None:
    router, _ = fleet((DOWN,), WHOLE)
    result = await outcome(router)
    first, second = result.timing.attempts
    assert first.first_token_s is None
    assert second.first_token_s is not None
    assert router.health("b", "m").first_token_s == second.first_token_s
    assert router.tally.attempts == {("a", "m", "upstream_unreachable"): 1, ("b", "m", "ok"): 1}


# Embeddings

EMBEDDING = Embedding("m", ("Hi",))


async def test_embeddings_move_on() -> None:
    router, (a, b) = fleet(WHOLE, WHOLE)
    a.embed_failure = DOWN
    b.vectors = [[1.0]]
    timing = Timing()
    assert await router.embed(EMBEDDING, timing) == Embedded([[1.0]], 7)
    assert asked(timing) == "ab"
    assert timing.attempts[1].first_token_s is not None
    assert_nothing_is_held(router)


async def test_each_attempt_of_an_embedding_is_the_providers_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    router, (a, _) = fleet(WHOLE, WHOLE)

    async def fail(embedding: Embedding) -> Embedded:
        embedding.attempt.connect_s = 0.25
        raise DOWN

    monkeypatch.setattr(a, "embed", fail)
    timing = Timing()
    await router.embed(EMBEDDING, timing)
    assert [attempt.connect_s for attempt in timing.attempts] == [0.25, None]


@pytest.mark.parametrize(("error", "expected"), [(MISTAKE, "a"), (DOWN, "aba"), (RuntimeError("bug"), "a")])
async def test_embeddings_fail(error: Exception, expected: str) -> None:
    router, providers = fleet(WHOLE, WHOLE)
    for one in providers:
        one.embed_failure = error
    result = await outcome(router, EMBEDDING)
    assert result.error is error
    assert len(result.asked) == len(expected)
    assert result.asked[:2] == expected[:2]


async def test_an_embedding_that_nobody_waits_for() -> None:
    router, (a,) = fleet(WHOLE)
    a.embed_gate = asyncio.Event()
    task = asyncio.create_task(router.embed(EMBEDDING, Timing()))
    await a.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_is_held(router)
    assert router.tally.attempts == {("a", "m", "client_closed"): 1}


async def test_a_server_without_embeddings_still_generates() -> None:
    router, (a,) = fleet(WHOLE, attempts=1)
    a.embed_failure = DOWN
    for _ in range(5):
        await outcome(router, EMBEDDING)
    assert router.health("a", "m", "embed").state(1000) is HealthState.OPEN
    assert router.health("a", "m").admits(1000)


# Anything at all

TRUTH = "Hel lo \n wor ld"

FAILURES = [BROKEN, DOWN, limited(1), limited(99), ApiError("upstream_timeout"), MISTAKE, TOO_LONG, RuntimeError("bug")]


class Teller(ScriptedProvider):
    """Tells the truth from where it is to go on; ``plan`` has, for each request, after how many pieces it fails how."""

    def __init__(self, name: str, plan: list[tuple[int, Exception]], size: int) -> None:
        super().__init__(name=name)
        self.offered = Offer(continues=True, seats=1)
        self.plan = plan
        self.size = size

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        cut, failure = self.plan.pop(0) if self.plan else (99, None)
        last = generation.body["messages"][-1]
        rest = TRUTH[len(last["content"]) if generation.partial else 0 :]
        steps: list[Step] = [role(), *(delta(rest[at : at + self.size]) for at in range(0, len(rest), self.size))]
        steps = [*steps, finish(), usage()]
        self.scripts = [steps[:cut] if failure is None else [*steps[: min(cut, len(steps))], failure]]
        async for chunk in super().generate(generation):
            yield chunk


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)  # (each example makes its clock go on)
@given(
    plans=st.lists(
        st.tuples(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(FAILURES)), max_size=4), st.integers(1, 5)),
        min_size=1, max_size=3,
    ),
    attempts=st.integers(1, 5), streamed=st.booleans(),
)  # fmt: skip
def test_an_answer_is_whole_or_fails(plans: list[tuple[Any, int]], attempts: int, *, streamed: bool) -> None:
    providers = [Teller(name, list(plan), size) for name, (plan, size) in zip("abc", plans, strict=False)]
    router = Router(providers, DispatchSettings(attempts=attempts))
    result = asyncio.run(outcome(router, CHAT if streamed else PLAIN))
    if result.error is None:
        assert result.text == TRUTH
        assert result.chunks[-1].keys() >= {"usage"}
        assert [c["finish_reason"] for chunk in result.chunks for c in chunk["choices"]].count("stop") == 1
    else:
        assert result.error in FAILURES or result.code in ("rate_limit_exceeded", "server_is_overloaded")
        assert TRUTH.startswith(result.text)
    assert 1 <= len(result.asked) <= attempts
    assert sum(router.tally.attempts.values()) == len(result.asked)


# The short way of text


class Short(ScriptedProvider):
    """Gives every text to the shortcut, and only what is not taken to the consumer."""

    def __init__(self, name: str, *script: Step, priority: int = 0) -> None:
        super().__init__(script or WHOLE, name=name)
        self.offered = Offer(continues=True, seats=4, priority=priority)
        self.taken: list[str] = []
        self.takes: list[Take | None] = []
        """What the shortcut had for each text."""

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        async with contextlib.aclosing(super().generate(generation)) as chunks:
            async for chunk in chunks:
                text, take = text_alone(chunk), generation.shortcut.take
                if text:
                    self.takes.append(take)
                if text and take is not None and take(0, text, chunk.get("extra")):
                    self.taken.append(text)
                else:
                    yield chunk


def text_alone(chunk: Chunk) -> str:
    """The text of a chunk that says nothing else."""
    if chunk.get("usage") or len(chunk["choices"]) != 1:
        return ""
    (choice,) = chunk["choices"]
    return choice["delta"].get("content") or "" if choice["finish_reason"] is None else ""


async def short_outcome(
    router: Router, request: Generation = CHAT, accepts: Sequence[bool] = (True,)
) -> tuple[Outcome, list[dict[str, Any] | None]]:
    """The outcome for a consumer who takes the short way where ``accepts`` says so; and what passed beside texts."""
    result, extras, calls = Outcome(), list[dict[str, Any] | None](), 0

    def take(index: int, text: str, extra: dict[str, Any] | None) -> bool:
        nonlocal calls
        calls += 1
        if not accepts[(calls - 1) % len(accepts)]:
            return False
        extras.append(extra)
        result.chunks.append(delta(text, index))
        return True

    try:
        async with contextlib.aclosing(
            router.generate(dataclasses.replace(request, shortcut=Shortcut(take)), result.timing)
        ) as chunks:
            async for chunk in chunks:
                if chunk is RESTART:
                    result.chunks.clear()
                else:
                    result.chunks.append(chunk)
    except Exception as error:  # noqa: BLE001 - the test looks at it
        result.error = error
    assert_nothing_is_held(router)
    return result, extras


async def test_nothing_takes_the_short_way_before_something_was_said() -> None:
    a = Short("a", role(), delta(""), delta("Hel"), {**delta("lo"), "extra": {"x": 1}}, delta("!"), finish(), usage())
    result, extras = await short_outcome(Router([a]))
    assert (result.text, result.error) == ("Hello!", None)
    assert (a.takes[0], a.taken) == (None, ["lo", "!"])
    assert extras == [{"x": 1}, None]


async def test_nor_where_nobody_takes_it() -> None:
    a = Short("a", delta("Hel"), delta("lo"), finish(), usage())
    result = await outcome(Router([a]))
    assert (result.text, a.taken) == ("Hello", [])


async def test_an_answer_goes_on_with_exactly_what_took_the_short_way() -> None:
    a = Short("a", delta("Hel"), delta("lo"), delta(" "), BROKEN)
    b = Short("b", role(), delta(" wor"), delta("ld"), finish(), usage(9, 2), priority=1)
    result, _ = await short_outcome(Router([a, b]), Generation("m", {**CHAT.body, "max_tokens": 10}))
    assert (result.text, result.error, result.asked) == ("Hello world", None, "ab")
    assert (a.taken, b.taken) == (["lo", " "], ["ld"])
    assert b.generations[0].body["messages"][-1] == {"role": "assistant", "content": "Hello"}
    assert b.generations[0].body["max_tokens"] == 7
    assert result.chunks[-1] == usage(6, 5)


async def test_what_was_refused_counts_once() -> None:
    a = Short("a", *map(delta, "abcdefg"), BROKEN)
    b = Short("b", *map(delta, "hij"), finish(), usage(), priority=1)
    result, _ = await short_outcome(Router([a, b]), accepts=(False, True))
    assert (result.text, result.error) == ("abcdefghij", None)
    assert a.taken == ["c", "e", "g"]
    assert b.generations[0].body["messages"][-1]["content"] == "abcdefg"


async def test_at_the_seam_text_goes_the_usual_way() -> None:
    a = Short("a", delta("Hel"), delta("  \n"), BROKEN)
    b = Short("b", delta(" "), delta(" "), delta("\nlo"), delta("!"), finish(), usage(), priority=1)
    result, _ = await short_outcome(Router([a, b]))
    assert (result.text, result.error) == ("Hel  \nlo!", None)
    assert (a.taken, b.taken) == (["  \n"], ["!"])
    assert len([take for take in b.takes if take is not None]) == 3  # of which two were at the seam


async def test_each_attempt_has_a_shortcut_of_its_own() -> None:
    a = Short("a", delta("Hel"), delta("l"), BROKEN)
    b = Short("b", delta("o"), delta("!"), finish(), usage(), priority=1)
    request = dataclasses.replace(CHAT, shortcut=Shortcut())
    router = Router([a, b])
    timing = Timing()
    _ = [chunk async for chunk in router.generate(request, timing)]
    shortcuts = [a.generations[0].shortcut, b.generations[0].shortcut, request.shortcut]
    assert len({*map(id, shortcuts)}) == 3
    assert b.takes[0] is None  # nothing was said in the second attempt


async def test_the_consumers_shortcut_is_looked_at_for_every_text() -> None:
    a = Short("a", *map(delta, "abcd"), finish(), usage())
    request, seen = dataclasses.replace(CHAT, shortcut=Shortcut()), list[str]()

    def take(index: int, text: str, extra: dict[str, Any] | None) -> bool:
        seen.append(text)
        request.shortcut.take = None  # the short way is closed again
        return True

    async for chunk in Router([a]).generate(request, Timing()):
        if text_alone(chunk) == "b":
            request.shortcut.take = take
    assert (seen, a.taken) == (["c"], ["c"])


async def test_a_restart_voids_what_took_the_short_way() -> None:
    a = Short("a", delta("No"), delta("pe"), delta("!"), BROKEN)
    b = Short("b", priority=1)
    result, _ = await short_outcome(Router([a, b]), PLAIN)
    assert (result.text, result.error, a.taken, b.taken) == ("Hello", None, ["pe", "!"], ["lo"])
    assert b.generations[0].body == CHAT.body
    assert result.chunks[-1] == usage()


class ShortTeller(Teller):
    """Tells the truth the short way."""

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        async with contextlib.aclosing(super().generate(generation)) as chunks:
            async for chunk in chunks:
                text, take = text_alone(chunk), generation.shortcut.take
                if not (text and take is not None and take(0, text, None)):
                    yield chunk


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(
    plans=st.lists(
        st.tuples(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(FAILURES)), max_size=4), st.integers(1, 5)),
        min_size=1, max_size=3,
    ),
    accepts=st.lists(st.booleans(), min_size=1, max_size=5), streamed=st.booleans(),
)  # fmt: skip
def test_the_short_way_leads_where_the_usual_one_does(
    plans: list[tuple[Any, int]], accepts: list[bool], *, streamed: bool
) -> None:
    results, heard = [], []
    for way in (False, True):
        kind = ShortTeller if way else Teller
        providers = [kind(name, list(plan), size) for name, (plan, size) in zip("abc", plans, strict=False)]
        for priority, each in enumerate(providers):
            each.offered = Offer(continues=True, seats=1, priority=priority)
        router, request = Router(providers, DispatchSettings(attempts=3)), CHAT if streamed else PLAIN
        result = (
            asyncio.run(short_outcome(router, request, accepts))[0] if way else asyncio.run(outcome(router, request))
        )
        said = result.error.code if isinstance(result.error, ApiError) else type(result.error)
        results.append((result.text, said, result.asked, result.chunks[-1:] if result.error is None else None))
        heard.append([(each.name, generation.body) for each in providers for generation in each.generations])
    assert results[0] == results[1]
    assert heard[0] == heard[1]
