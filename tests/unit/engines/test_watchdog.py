"""The watchdog, in a loop whose time the test sets."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from coterie.engines.watchdog import Watchdog
from coterie.errors import ApiError


@dataclass(order=True)
class _Timer:
    at_s: float
    call: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """As much of a loop as a watchdog uses."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[_Timer] = []
        self.looks = 0

    def time(self) -> float:
        return self.now_s

    def call_at(self, at_s: float, call: Callable[[], None]) -> _Timer:
        timer = _Timer(at_s, call)
        heapq.heappush(self.timers, timer)
        return timer

    def pass_s(self, seconds: float) -> None:
        """Let time pass, calling each timer when it is due."""
        end_s = self.now_s + seconds
        while self.timers and self.timers[0].at_s <= end_s:
            timer = heapq.heappop(self.timers)
            self.now_s = max(self.now_s, timer.at_s)
            if not timer.cancelled:
                self.looks += 1
                timer.call()
        self.now_s = end_s

    @property
    def pending(self) -> int:
        return sum(not timer.cancelled for timer in self.timers)


@pytest.fixture(name="loop")
def _loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLoop]:
    loop = FakeLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: cast("Any", loop))
    yield loop
    monkeypatch.undo()


@pytest.fixture(name="failures")
def _failures() -> list[ApiError]:
    return []


@pytest.fixture(name="dog")
def _dog(loop: FakeLoop, failures: list[ApiError]) -> Watchdog:
    return Watchdog(10, 2, failures.append)


def told(failures: list[ApiError]) -> list[str]:
    return [failure.message for failure in failures]


LATE_FIRST = "The engine did not answer within 10 seconds."
LATE_NEXT = "The engine did not answer within 2 seconds."


def test_the_first_sign_is_late(loop: FakeLoop, dog: Watchdog, failures: list[ApiError]) -> None:
    loop.pass_s(9.9)
    assert failures == []
    loop.pass_s(0.1)
    assert told(failures) == [LATE_FIRST]
    assert failures[0].code == "engine_timeout"


def test_it_fails_once(loop: FakeLoop, dog: Watchdog, failures: list[ApiError]) -> None:
    loop.pass_s(1000)
    assert told(failures) == [LATE_FIRST]
    assert loop.pending == 0


def test_after_the_first_sign_the_shorter_limit_holds(loop: FakeLoop, dog: Watchdog, failures: list[ApiError]) -> None:
    loop.pass_s(9)
    dog.touch()
    loop.pass_s(1.9)
    assert failures == []
    loop.pass_s(0.1)
    assert told(failures) == [LATE_NEXT]


def test_signs_keep_it_quiet_and_cost_no_timer(loop: FakeLoop, dog: Watchdog, failures: list[ApiError]) -> None:
    for _ in range(1000):
        loop.pass_s(0.01)
        dog.touch()
        assert loop.pending == 1
    assert failures == []
    assert loop.looks <= 6
    loop.pass_s(2)
    assert told(failures) == [LATE_NEXT]


def test_one_limit_for_both(loop: FakeLoop, failures: list[ApiError]) -> None:
    dog = Watchdog(2, 2, failures.append)
    loop.pass_s(1)
    dog.touch()
    loop.pass_s(1.5)
    assert failures == []
    loop.pass_s(0.5)
    assert told(failures) == [LATE_NEXT]


def test_a_stopped_one_is_quiet(loop: FakeLoop, dog: Watchdog, failures: list[ApiError]) -> None:
    dog.touch()
    dog.stop()
    loop.pass_s(1000)
    assert failures == []
    assert loop.pending == 0


def test_nothing_is_late_while_nobody_waits(loop: FakeLoop, dog: Watchdog, failures: list[ApiError]) -> None:
    dog.touch()
    dog.hold()
    loop.pass_s(1000)
    assert failures == []
    dog.touch()
    loop.pass_s(1.9)
    assert failures == []
    loop.pass_s(0.1)
    assert told(failures) == [LATE_NEXT]


def test_nor_before_the_first_sign(loop: FakeLoop, dog: Watchdog, failures: list[ApiError]) -> None:
    loop.pass_s(9)
    dog.hold()
    loop.pass_s(1000)
    assert failures == []
    assert loop.pending == 1
    dog.touch()
    loop.pass_s(1.9)
    assert failures == []
    loop.pass_s(0.1)
    assert told(failures) == [LATE_NEXT]


def test_many_holds_cost_no_timer(loop: FakeLoop, dog: Watchdog, failures: list[ApiError]) -> None:
    dog.touch()
    for _ in range(100):
        dog.hold()
        loop.pass_s(5)
        dog.touch()
        loop.pass_s(0.01)
        assert loop.pending == 1
    assert failures == []


def test_the_first_may_be_counted_from_earlier(loop: FakeLoop, failures: list[ApiError]) -> None:
    Watchdog(10, 2, failures.append, since_s=loop.time() - 8)
    loop.pass_s(1.9)
    assert failures == []
    loop.pass_s(0.1)
    assert told(failures) == [LATE_FIRST]


def test_its_words_are_the_callers(loop: FakeLoop, failures: list[ApiError]) -> None:
    def late(limit_s: float, *, first: bool) -> ApiError:
        return ApiError("upstream_timeout", hint=f" {limit_s:g} {first}")

    Watchdog(10, 2, failures.append, late=late)
    loop.pass_s(10)
    dog = Watchdog(10, 2, failures.append, late=late)
    dog.touch()
    loop.pass_s(2)
    assert [message.rpartition(".")[2] for message in told(failures)] == [" 10 True", " 2 False"]


async def test_it_ends_a_wait_in_a_real_loop() -> None:
    failed: asyncio.Future[ApiError] = asyncio.get_running_loop().create_future()
    Watchdog(0.01, 60, failed.set_result)
    assert (await failed).code == "engine_timeout"
