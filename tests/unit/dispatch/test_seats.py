"""Seats and those who wait for them: by cases, and by Hypothesis with waits that are cancelled at every moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.waiting import until

from coterie.dispatch import seats as seats_module
from coterie.dispatch.health import Health, HealthRules, HealthState
from coterie.dispatch.seats import Seats, now_s
from coterie.errors import ApiError

ONE = [("a", 1)]


async def waiter(seats: Seats, wanted: list[tuple[str, int]]) -> asyncio.Task[str | None]:
    """A wait that has begun."""
    task = asyncio.create_task(seats.wait(wanted))
    before = seats.waiting
    await until(lambda: seats.waiting > before or task.done())
    return task


@pytest.mark.parametrize(
    ("running", "wanted", "name"),
    [
        ({}, [("a", 1), ("b", 1)], "a"),
        ({"a": 1}, [("a", 1), ("b", 1)], "b"),
        ({"a": 1, "b": 1}, [("a", 1), ("b", 1)], None),
        ({"a": 1}, [("a", 2)], "a"),
        ({"a": 10_000}, [("a", 0)], "a"),
        ({"a": 3}, [("a", 2)], None),
        ({}, [], None),
    ],
)
async def test_a_free_seat_is_taken_at_once(
    running: dict[str, int], wanted: list[tuple[str, int]], name: str | None
) -> None:
    seats = Seats(0, 1)
    seats.running.update(running)
    assert seats.take(wanted) == name
    assert sum(seats.running.values()) == sum(running.values()) + (name is not None)


async def test_turns_come_in_the_order_of_coming() -> None:
    seats = Seats(9, 60)
    seats.take(ONE)
    tasks = [await waiter(seats, ONE) for _ in range(3)]
    for task in tasks:
        assert not any(other.done() for other in tasks[tasks.index(task) :])
        seats.release("a", 1)
        assert await task == "a"
    seats.release("a", 1)
    assert (seats.running["a"], seats.waiting) == (0, 0)


async def test_who_waits_for_another_is_passed_over() -> None:
    seats = Seats(9, 60)
    seats.take(ONE)
    seats.take([("b", 1)])
    first, second = await waiter(seats, ONE), await waiter(seats, [("a", 1), ("b", 1)])
    seats.release("b", 1)
    assert await second == "b"
    seats.release("a", 1)
    assert await first == "a"


async def test_a_newcomer_does_not_overtake() -> None:
    seats = Seats(9, 60)
    seats.take(ONE)
    waiting = await waiter(seats, ONE)
    assert seats.take([("a", 5)]) is None
    seats.release("a", 1)
    assert seats.take(ONE) is None
    assert await waiting == "a"


async def test_who_was_held_up_by_one_that_left_goes_on() -> None:
    seats = Seats(9, 60)
    seats.take(ONE)
    first, second = await waiter(seats, ONE), await waiter(seats, [("a", 2)])
    assert not second.done()
    first.cancel()
    assert await second == "a"


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_a_full_queue_refuses_at_once(limit: int) -> None:
    seats = Seats(limit, 60)
    seats.take(ONE)
    tasks = [await waiter(seats, ONE) for _ in range(limit)]
    with pytest.raises(ApiError) as caught:
        await seats.wait(ONE)
    assert caught.value.code == "server_is_overloaded"
    assert seats.waiting == limit
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize(("timeout_s", "limit_s"), [(0.001, None), (60, 0.001), (0.001, 60), (60, 0), (60, -1)])
async def test_a_wait_that_is_too_long(timeout_s: float, limit_s: float | None) -> None:
    seats = Seats(9, timeout_s)
    seats.take(ONE)
    with pytest.raises(ApiError) as caught:
        await seats.wait(ONE, limit_s)
    assert caught.value.code == "server_is_overloaded"
    assert seats.waiting == 0
    seats.release("a", 1)
    assert seats.take(ONE) == "a"


async def test_a_seat_that_comes_in_the_moment_of_leaving_goes_to_the_next() -> None:
    seats = Seats(9, 60)
    seats.take(ONE)
    leaving, staying = await waiter(seats, ONE), await waiter(seats, ONE)
    seats.release("a", 1)
    leaving.cancel()
    assert await staying == "a"
    assert leaving.cancelled()


async def test_a_recall_ends_every_wait_without_a_seat() -> None:
    seats = Seats(9, 60)
    seats.take(ONE)
    tasks = [await waiter(seats, ONE) for _ in range(2)]
    seats.recall()
    tasks[1].cancel()
    assert await tasks[0] is None
    assert (seats.running["a"], seats.waiting) == (1, 0)


# Providers that are left alone for a time

REST_S = 0.02


def resting(rest_s: float = REST_S) -> Health:
    health = Health(HealthRules())
    health.fail(now_s(), "rate_limit_exceeded", rest_s)
    return health


def opened(open_s: float = REST_S) -> Health:
    health = Health(HealthRules(open_after=1, open_s=open_s))
    health.fail(now_s(), "upstream_unreachable", None)
    return health


async def shut_waiter(
    seats: Seats, health: Health, free: int = 1, *, since_s: float | None = None
) -> asyncio.Task[str | None]:
    """A wait that has begun, for "a", which is full, and for "b", which has ``free`` seats and is left alone."""
    seats.running["a"] = 1
    task = asyncio.create_task(seats.wait(ONE, shut={"b": (free, health)}, since_s=since_s))
    before = seats.waiting
    await until(lambda: seats.waiting > before or task.done())
    return task


@pytest.mark.parametrize("free", [0, 1])
@pytest.mark.parametrize("make", [resting, opened])
async def test_who_waits_is_served_when_a_rest_ends(make: Callable[[], Health], free: int) -> None:
    seats = Seats(9, 60)
    task = await shut_waiter(seats, make(), free)
    assert await task == "b"
    assert seats.running == {"a": 1, "b": 1}


async def test_a_rest_that_has_just_ended_is_not_missed() -> None:
    seats = Seats(9, 60)
    assert await seats.wait([], shut={"b": (1, Health(HealthRules()))}) == "b"


async def test_the_earliest_of_several_rests_serves_first() -> None:
    seats, short = Seats(9, 60), resting()
    late = await shut_waiter(seats, resting(3600))
    early = await shut_waiter(seats, short)
    assert await early == "b"
    assert not late.done()
    late.cancel()


async def test_a_rest_that_was_prolonged_is_waited_for_again() -> None:
    seats, health = Seats(9, 60), resting()
    task = await shut_waiter(seats, health)
    health.fail(now_s(), "rate_limit_exceeded", 2 * REST_S)
    assert await task == "b"
    assert health.state(now_s()) is HealthState.CLOSED


async def test_a_rest_that_ends_serves_as_many_as_have_room_in_the_order_of_coming() -> None:
    seats, health = Seats(9, 60), resting()
    tasks = [await shut_waiter(seats, health, 2) for _ in range(3)]
    assert await asyncio.gather(*tasks[:2]) == ["b", "b"]
    assert not tasks[2].done()
    seats.release("b", 1)
    assert await tasks[2] == "b"


async def test_one_of_those_who_wait_probes_and_a_success_serves_the_others() -> None:
    seats, health = Seats(9, 60), opened()
    tasks = [await shut_waiter(seats, health, 3) for _ in range(3)]
    assert await tasks[0] == "b"
    assert seats.running["b"] == 1
    is_probe = health.begin(now_s())
    assert is_probe
    health.succeed(now_s(), None)
    health.end(is_probe=True)
    seats.release("b", 1)
    assert await asyncio.gather(*tasks[1:]) == ["b", "b"]


async def test_a_probe_that_fails_leaves_the_others_to_the_next() -> None:
    seats, health = Seats(9, 60), opened()
    far = asyncio.create_task(seats.wait([], shut={"c": (1, resting(3600))}))
    tasks = [await shut_waiter(seats, health) for _ in range(2)]
    assert await tasks[0] == "b"
    health.begin(now_s())
    health.fail(now_s(), "upstream_unreachable", None)
    health.end(is_probe=True)
    seats.release("b", 1)
    assert not tasks[1].done()
    assert await tasks[1] == "b"
    assert health.state(now_s()) is HealthState.PROBING
    far.cancel()


async def test_a_probe_that_was_not_taken_is_the_next_ones() -> None:
    seats, health = Seats(9, 60), opened()
    tasks = [await shut_waiter(seats, health) for _ in range(2)]
    assert await tasks[0] == "b"
    seats.release("b")
    assert await tasks[1] == "b"


async def test_a_closed_provider_holds_up_nobody_who_may_go_there() -> None:
    seats = Seats(9, 60)
    task = await shut_waiter(seats, resting(3600))
    assert seats.take([("b", 1)]) == "b"  # for a model that it still serves well
    task.cancel()


async def test_who_was_held_up_at_a_provider_that_rested_goes_on() -> None:
    seats, health = Seats(9, 60), resting()
    seats.running["b"] = 1
    first, second = await shut_waiter(seats, health, 1), await shut_waiter(seats, health, 2)
    await until(lambda: health.admits(now_s()))
    seats._ring()
    assert not second.done()
    first.cancel()
    assert await second == "b"


async def test_nobody_overtakes_who_waited_for_the_end_of_a_rest() -> None:
    seats, health = Seats(9, 60), resting(3600)
    task = await shut_waiter(seats, health)
    health._rest_until_s = now_s()
    assert seats.take([("b", 1)]) is None
    seats._ring()
    assert await task == "b"


async def test_who_waited_before_stands_where_he_stood_and_is_not_refused() -> None:
    seats = Seats(2, 60)
    begun_s = now_s()
    later = [await shut_waiter(seats, resting(3600)) for _ in range(2)]
    earlier = await shut_waiter(seats, resting(3600), since_s=begun_s)
    seats.release("a", 1)
    assert await earlier == "a"
    assert not any(task.done() for task in later)
    for task in later:
        task.cancel()


async def delay_s(seats: Seats, wanted: list[tuple[str, int]]) -> float:
    with pytest.raises(ApiError) as caught:
        await seats.wait(wanted, 0)
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


async def test_the_delay_is_measured_for_each_provider() -> None:
    seats = Seats(9, 60)
    for _ in range(60):
        for name, held_s in (("slow", 30.0), ("fast", 4.0)):
            seats.take([(name, 0)])
            seats.release(name, held_s)
            seats.take([(name, 0)])
            seats.release(name)  # not used, so not measured
    assert await delay_s(seats, [("slow", 1)]) == pytest.approx(30, rel=0.01)
    assert await delay_s(seats, [("fast", 2)]) == pytest.approx(2, rel=0.01)
    assert await delay_s(seats, [("slow", 1), ("fast", 1)]) == pytest.approx(1 / (1 / 30 + 1 / 4), rel=0.01)


async def test_the_delay_counts_those_ahead_for_the_same_providers() -> None:
    seats = Seats(9, 60)
    for name in "ab":
        seats.take([(name, 1)])
    tasks = [await waiter(seats, [(name, 1)]) for name in "aab"]
    assert await delay_s(seats, ONE) == pytest.approx(15)
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize(("held_s", "least"), [(0.0, 1), (1e6, 60)])
async def test_the_delay_has_bounds(held_s: float, least: float) -> None:
    seats = Seats(9, 60)
    for _ in range(100):
        seats.take(ONE)
        seats.release("a", held_s)
    assert await delay_s(seats, ONE) == least


SEATS = {"a": 1, "b": 2, "c": 3}
WANTED = st.lists(st.sampled_from(sorted(SEATS)), min_size=1, max_size=3, unique=True).map(
    lambda names: [(name, SEATS[name]) for name in names]
)


class Machine(RuleBasedStateMachine):
    """Waits begin, end, and are cancelled, and providers rest, with the loop at any distance behind.

    Time passes by a rule alone, which rings; the timer itself has tests of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.time_s = 1000.0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(seats_module, "now_s", lambda: self.time_s)
        self.health = {name: Health(HealthRules(open_after=1)) for name in SEATS}
        self.seats = Seats(6, 3600)
        self.held: list[str] = []
        self.waits: list[tuple[list[tuple[str, int]], asyncio.Task[str | None]]] = []

    def _turn(self) -> None:
        """One turn of the loop."""
        self.runner.run(asyncio.sleep(0))
        for wait in tuple(self.waits):
            _, task = wait
            if task.done():
                self.waits.remove(wait)
                if not task.cancelled() and task.exception() is None and (name := task.result()) is not None:
                    self.held.append(name)

    @rule(wanted=WANTED)
    def take(self, wanted: list[tuple[str, int]]) -> None:
        name = self.seats.take(wanted)
        if name is not None:
            assert name in dict(wanted)
            self.held.append(name)

    def _release(self, name: str) -> None:
        async def release() -> None:
            self.seats.release(name, 1.0)

        self.runner.run(release())

    @rule(name=st.sampled_from(sorted(SEATS)), code=st.sampled_from(["rate_limit_exceeded", "upstream_unreachable"]))
    def rest(self, name: str, code: str) -> None:
        self.health[name].fail(self.time_s, code, None)

    @rule(passed_s=st.sampled_from([1.0, 5.0, 60.0]))
    def ring(self, passed_s: float) -> None:
        async def ring() -> None:
            self.seats._ring()

        self.time_s += passed_s
        before = dict(self.seats.running)
        self.runner.run(ring())
        for name, health in self.health.items():
            if health.state(self.time_s) is HealthState.PROBING:
                assert self.seats.running[name] <= before.get(name, 0) + 1

    @rule(wanted=WANTED)
    def wait(self, wanted: list[tuple[str, int]]) -> None:
        shut = {
            name: (seats, self.health[name])
            for name, seats in SEATS.items()
            if name not in dict(wanted) and not self.health[name].admits(self.time_s)
        }
        name = self.seats.take(wanted)
        if name is not None:
            self.held.append(name)
            return

        async def begin() -> asyncio.Task[str | None]:
            task = asyncio.create_task(self.seats.wait(wanted, shut=shut))
            await asyncio.sleep(0)
            return task

        self.waits.append((wanted, self.runner.run(begin())))

    @rule()
    def turn(self) -> None:
        self._turn()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), turns=st.integers(0, 3))
    def release(self, data: st.DataObject, turns: int) -> None:
        name = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self._release(name)
        for _ in range(turns):
            self._turn()

    @precondition(lambda self: self.waits)
    @rule(data=st.data(), turns=st.integers(0, 3))
    def cancel(self, data: st.DataObject, turns: int) -> None:
        _, task = self.waits[data.draw(st.integers(0, len(self.waits) - 1))]
        task.cancel()
        for _ in range(turns):
            self._turn()

    @rule()
    def recall(self) -> None:
        self.seats.recall()

    @invariant()
    def no_provider_has_more_than_its_seats(self) -> None:
        assert all(0 <= self.seats.running[name] <= seats for name, seats in SEATS.items())
        assert all(self.seats.running[name] >= self.held.count(name) for name in SEATS)
        assert self.seats.waiting <= 6

    @invariant()
    def nobody_waits_before_a_free_seat(self) -> None:
        for waiting in self.seats._waiters:
            assert all(self.seats.running[name] >= seats for name, seats in waiting.places.items())
            for name, (seats, health) in waiting.shut.items():
                assert self.seats.running[name] >= seats or health.state(self.time_s) is not HealthState.CLOSED

    def teardown(self) -> None:
        try:
            self._drain()
        finally:
            self.patch.undo()

    def _drain(self) -> None:
        for _ in range(6):
            self._turn()
        assert {name: self.held.count(name) for name in SEATS} == {name: self.seats.running[name] for name in SEATS}
        for _, task in self.waits:
            task.cancel()
        for _ in range(6):
            self._turn()
        for name in self.held:
            self._release(name)
        assert not self.waits
        assert self.seats.waiting == sum(self.seats.running.values()) == 0
        self.runner.close()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
