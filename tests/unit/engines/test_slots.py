"""The queue in front of the slots: by cases, and by Hypothesis against a model of a few lines."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coterie.engines.slots import SlotQueue, Ticket
from coterie.errors import ApiError


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def runs(ticket: Ticket) -> bool:
    return ticket.started_at_s is not None


async def test_free_slots_are_given_at_once() -> None:
    queue = SlotQueue(2, 0)
    tickets = queue.enter(2)
    for ticket in tickets:
        await ticket.turn(0)
    assert (queue.running, queue.waiting, queue.idle) == (2, 0, False)


async def test_turns_come_in_the_order_of_entering() -> None:
    queue = SlotQueue(1, 3)
    tickets = [queue.enter()[0] for _ in range(4)]
    order: list[int] = []

    async def use(number: int, ticket: Ticket) -> None:
        with ticket:
            await ticket.turn()
            order.append(number)

    await asyncio.gather(*(use(number, ticket) for number, ticket in reversed(list(enumerate(tickets)))))
    assert order == [0, 1, 2, 3]
    assert queue.idle


@pytest.mark.parametrize("count", [4, 5, 100])
async def test_a_group_enters_whole_or_not_at_all(count: int) -> None:
    queue = SlotQueue(2, 2)
    [first] = queue.enter()
    with pytest.raises(ApiError) as caught:
        queue.enter(count)
    assert caught.value.code == "server_is_overloaded"
    assert (queue.running, queue.waiting) == (1, 0)
    assert [runs(ticket) for ticket in queue.enter(3)] == [True, False, False]
    first.release()
    assert (queue.running, queue.waiting) == (2, 1)


async def test_the_delay_of_a_full_queue_is_computed_from_what_was_measured() -> None:
    clock = Clock()
    queue = SlotQueue(2, 0, clock)
    for _ in range(60):
        tickets = queue.enter(2)
        clock.now_s += 10
        for ticket in tickets:
            ticket.release()
    queue.enter(2)
    with pytest.raises(ApiError) as caught:
        queue.enter(2)
    assert caught.value.retry_after_s == pytest.approx(10)


async def test_the_delay_grows_with_the_tickets_ahead() -> None:
    queue = SlotQueue(1, 3)
    delays: list[float] = []
    for _ in range(4):
        delays.append(queue.overloaded(1).retry_after_s or 0)
        queue.enter()
    assert delays == sorted(delays)
    assert delays[-1] > delays[0]


async def test_the_delay_is_never_nothing() -> None:
    queue = SlotQueue(8, 0, Clock())
    for _ in range(100):
        queue.enter()[0].release()
    delay_s = queue.overloaded(1).retry_after_s
    assert delay_s is not None
    assert delay_s >= 0.1


async def test_a_wait_that_is_too_long_is_an_overload_and_keeps_its_place_until_released() -> None:
    queue = SlotQueue(1, 2)
    [running], [late], [last] = queue.enter(), queue.enter(), queue.enter()
    with pytest.raises(ApiError) as caught:
        await late.turn(0.001)
    assert caught.value.code == "server_is_overloaded"
    assert queue.waiting == 2
    late.release()
    running.release()
    await last.turn(0)
    assert (queue.running, queue.waiting) == (1, 0)


async def test_a_wait_can_be_taken_up_again() -> None:
    queue = SlotQueue(1, 1)
    [running], [waiting] = queue.enter(), queue.enter()
    with pytest.raises(ApiError):
        await waiting.turn(0)
    running.release()
    await waiting.turn(0)


async def test_a_waiter_that_is_cancelled_blocks_nobody() -> None:
    queue = SlotQueue(1, 2)
    [running], [cancelled], [last] = queue.enter(), queue.enter(), queue.enter()
    task = asyncio.create_task(cancelled.turn())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    cancelled.release()
    turn = asyncio.create_task(last.turn())
    running.release()
    await turn


async def test_releasing_twice_gives_one_slot_back() -> None:
    queue = SlotQueue(1, 3)
    tickets = [queue.enter()[0] for _ in range(3)]
    for _ in range(3):
        tickets[0].release()
    assert [runs(ticket) for ticket in tickets] == [True, True, False]
    assert (queue.running, queue.waiting) == (1, 1)


async def test_a_failure_gives_the_slot_back() -> None:
    queue = SlotQueue(1, 0)

    async def use() -> None:
        with queue.enter()[0] as ticket:
            await ticket.turn()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await use()
    assert queue.idle


class QueueMachine(RuleBasedStateMachine):
    """Drives a queue beside a model of it: a list of the tickets that are in, in the order of entering."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.inside: list[Ticket] = []
        self.left: list[Ticket] = []
        self.waiters: dict[Ticket, asyncio.Task[None]] = {}

    @initialize(slots=st.integers(1, 4), limit=st.integers(0, 5))
    def begin(self, slots: int, limit: int) -> None:
        self.clock = Clock()
        self.queue = SlotQueue(slots, limit, self.clock)

    @rule(count=st.integers(1, 8))
    def enter(self, count: int) -> None:
        async def enter() -> list[Ticket]:
            return self.queue.enter(count)

        if len(self.inside) + count <= self.queue.slots + self.queue.limit:
            self.inside += self.loop.run_until_complete(enter())
            return
        with pytest.raises(ApiError) as caught:
            self.loop.run_until_complete(enter())
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s > 0

    @rule(data=st.data(), seconds=st.floats(0, 1e6))
    def release(self, data: st.DataObject, seconds: float) -> None:
        self.clock.now_s += seconds
        if self.inside:
            ticket = self.inside.pop(data.draw(st.integers(0, len(self.inside) - 1)))
            ticket.release()
            self.left.append(ticket)
            self._drop(ticket)

    @rule(data=st.data())
    def release_again(self, data: st.DataObject) -> None:
        if self.left:
            data.draw(st.sampled_from(self.left)).release()

    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        if self.inside:
            ticket = data.draw(st.sampled_from(self.inside))
            if ticket not in self.waiters:
                self.waiters[ticket] = self.loop.create_task(ticket.turn())

    @rule(data=st.data())
    def stop_waiting(self, data: st.DataObject) -> None:
        if self.waiters:
            self._drop(data.draw(st.sampled_from(list(self.waiters))))

    @rule(data=st.data())
    def wait_too_short(self, data: st.DataObject) -> None:
        if self.inside:
            ticket = data.draw(st.sampled_from(self.inside))
            if runs(ticket):
                self.loop.run_until_complete(ticket.turn(0))
            else:
                with pytest.raises(ApiError, match="overloaded"):
                    self.loop.run_until_complete(ticket.turn(0))

    @invariant()
    def the_first_run_and_the_others_wait(self) -> None:
        if not hasattr(self, "queue"):
            return
        slots = self.queue.slots
        assert [runs(ticket) for ticket in self.inside] == [place < slots for place in range(len(self.inside))]
        assert self.queue.running == min(slots, len(self.inside))
        assert self.queue.waiting == max(0, len(self.inside) - slots) <= self.queue.limit
        assert self.queue.idle is (not self.inside)

    @invariant()
    def whoever_runs_is_awake(self) -> None:
        self.loop.run_until_complete(self._settle())
        for ticket, task in self.waiters.items():
            assert task.done() is runs(ticket)

    def teardown(self) -> None:
        for ticket in list(self.waiters):
            self._drop(ticket)
        self.loop.close()

    def _drop(self, ticket: Ticket) -> None:
        if (task := self.waiters.pop(ticket, None)) is not None:
            task.cancel()
            self.loop.run_until_complete(asyncio.wait([task]))

    async def _settle(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
