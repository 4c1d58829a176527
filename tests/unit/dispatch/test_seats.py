"""Seats and those who wait for them: by cases, and by Hypothesis with waits that are cancelled at every moment."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.waiting import until

from coterie.dispatch.seats import Seats
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
    """Waits begin, end, and are cancelled, with the loop at any distance behind."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
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

    @rule(wanted=WANTED)
    def wait(self, wanted: list[tuple[str, int]]) -> None:
        name = self.seats.take(wanted)
        if name is not None:
            self.held.append(name)
            return

        async def begin() -> asyncio.Task[str | None]:
            task = asyncio.create_task(self.seats.wait(wanted))
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
        self.seats.release(name, 1.0)
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

    def teardown(self) -> None:
        for _ in range(6):
            self._turn()
        assert {name: self.held.count(name) for name in SEATS} == {name: self.seats.running[name] for name in SEATS}
        for _, task in self.waits:
            task.cancel()
        for _ in range(6):
            self._turn()
        for name in self.held:
            self.seats.release(name, 1.0)
        assert not self.waits
        assert self.seats.waiting == sum(self.seats.running.values()) == 0
        self.runner.close()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
