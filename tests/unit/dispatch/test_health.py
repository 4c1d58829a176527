"""What a provider's past says: by cases, and by Hypothesis against a model of a few lines."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coterie.dispatch.health import _LASTING, WINDOW, Health, HealthRules, HealthState

RULES = HealthRules(open_after=3, open_s=5, open_max_s=60)
ERROR = "upstream_error"


def opened(at_s: float = 0.0) -> Health:
    health = Health(RULES)
    for _ in range(RULES.open_after):
        health.fail(at_s, ERROR, None)
    return health


def test_it_begins_closed() -> None:
    health = Health(RULES)
    assert (health.state(0), health.admits(0), health.available_in_s(0), health.blame(0)) == (
        HealthState.CLOSED, True, 0, 0
    )  # fmt: skip


def test_when_it_should_be_asked_again() -> None:
    health = opened()
    assert [health.opens_in_s(time_s) for time_s in (0, 4, 5, 6)] == [5, 1, 0, 0]
    assert health.begin(6)
    assert health.opens_in_s(6) == float("inf")
    health.fail(6, ERROR, None)
    health.end(is_probe=True)
    assert health.opens_in_s(7) == 9
    health.fail(7, "rate_limit_exceeded", 30)
    assert health.opens_in_s(7) == 30
    assert health.opens_in_s(40) == 0
    health.succeed(8, None)
    assert health.opens_in_s(8) == 29


def test_it_opens_after_failures_in_a_row_only() -> None:
    health = Health(RULES)
    for _ in range(2):
        health.fail(0, ERROR, None)
        health.fail(0, ERROR, None)
        assert health.state(0) is HealthState.CLOSED
        health.succeed(0, None)
    for _ in range(3):
        health.fail(0, ERROR, None)
    assert (health.state(0), health.admits(0), health.available_in_s(1)) == (HealthState.OPEN, False, 4)


@pytest.mark.parametrize("code", sorted(_LASTING))
def test_one_lasting_failure_is_enough(code: str) -> None:
    health = Health(RULES)
    health.fail(0, code, None)
    assert (health.state(0), health.available_in_s(0)) == (HealthState.OPEN, opened().available_in_s(0))


def test_half_of_a_whole_window_is_enough() -> None:
    health = Health(HealthRules(open_after=1000))
    for number in range(WINDOW):
        assert health.state(0) is HealthState.CLOSED
        (health.succeed(0, None) if number % 2 == 0 else health.fail(0, ERROR, None))
    assert health.state(0) is HealthState.OPEN


def test_a_window_is_not_judged_twice() -> None:
    health = Health(HealthRules(open_after=1000))
    for _ in range(WINDOW):
        health.fail(0, ERROR, None)
    health.succeed(100, None)
    health.fail(100, ERROR, None)
    assert health.state(100) is HealthState.CLOSED


def test_each_failed_probe_doubles_the_time_up_to_the_most() -> None:
    health, time_s, times_s = opened(), 0.0, []
    for _ in range(6):
        times_s.append(health.available_in_s(time_s))
        time_s += times_s[-1]
        assert health.state(time_s) is HealthState.PROBING
        health.fail(time_s, ERROR, None)
    assert times_s == [5, 10, 20, 40, 60, 60]


def test_failures_that_were_under_way_do_not_prolong_it() -> None:
    health = opened()
    for _ in range(50):
        health.fail(1, ERROR, None)
    assert health.available_in_s(1) == 4


def test_a_success_closes_it_and_the_next_time_is_short_again() -> None:
    health = opened()
    health.fail(5, ERROR, None)
    health.succeed(15, None)
    assert (health.state(15), health.available_in_s(15)) == (HealthState.CLOSED, 0)
    for _ in range(3):
        health.fail(20, ERROR, None)
    assert health.available_in_s(20) == 5


def test_exactly_one_probe_at_a_time() -> None:
    health = opened()
    old = health.begin(4)
    assert not old
    assert health.admits(5)
    assert health.begin(5)
    assert not health.admits(5)
    assert not health.begin(5)
    health.end(is_probe=False)
    health.end(is_probe=old)
    assert not health.admits(5)
    health.end(is_probe=True)
    assert health.admits(5)


def test_answers_under_way_hold_no_probe_back() -> None:
    health = Health(RULES)
    for _ in range(10):
        health.begin(0)
    for _ in range(3):
        health.fail(0, ERROR, None)
    assert health.admits(5)


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "server_is_overloaded"])
@pytest.mark.parametrize(("asked_s", "rest_s"), [(7.5, 7.5), (None, 5), (250, 250), (1e9, 300)])
def test_it_rests_as_long_as_it_asks(code: str, asked_s: float | None, rest_s: float) -> None:
    health = Health(RULES)
    health.fail(100, code, asked_s)
    assert (health.state(100), health.admits(100), health.rest_code) == (HealthState.RESTING, False, code)
    assert health.rest_s(101) == health.available_in_s(101) == rest_s - 1
    assert (health.state(100 + rest_s), health.rest_s(100 + rest_s)) == (HealthState.CLOSED, 0)
    assert (health.failures_in_row, health.blame(100)) == (0, 0)


def test_nothing_shortens_a_rest() -> None:
    health = Health(RULES)
    health.fail(0, "rate_limit_exceeded", 30)
    health.fail(0, "rate_limit_exceeded", 2)
    health.succeed(1, 0.1)
    for _ in range(5):
        health.fail(1, ERROR, None)
    assert (health.state(2), health.rest_s(2)) == (HealthState.RESTING, 28)


def test_a_probe_that_is_told_to_wait_leaves_the_provider_to_another_probe() -> None:
    health = opened()
    health.fail(5, "server_is_overloaded", 10)
    assert [health.state(time_s) for time_s in (5, 14.9, 15)] == [HealthState.RESTING] * 2 + [HealthState.PROBING]


def test_blame_is_forgotten_by_halves() -> None:
    health = Health(RULES)
    health.fail(0, ERROR, None)
    assert health.blame(30) == pytest.approx(health.blame(0) / 2)
    for _ in range(100):
        health.fail(0, ERROR, None)
    assert 0.99 < health.blame(0) <= 1


def test_the_first_token_is_a_running_mean() -> None:
    health = Health(RULES)
    for time_s in (1.0, None, 2.0):
        health.succeed(0, time_s)
    assert health.first_token_s == pytest.approx(1.2)


class Machine(RuleBasedStateMachine):
    """The table as a model: when it is open or rests, for how long, and whether a probe is out."""

    def __init__(self) -> None:
        super().__init__()
        self.health = Health(HealthRules(open_after=2, open_s=4, open_max_s=20))
        self.now_s = 0.0
        self.running: list[bool] = []
        self.in_row = 0
        self.recent: list[bool] = []
        self.open_until_s: float | None = None
        self.open_for_s = 0.0
        self.rest_until_s = 0.0

    @property
    def expected(self) -> HealthState:
        if self.now_s < self.rest_until_s:
            return HealthState.RESTING
        if self.open_until_s is None:
            return HealthState.CLOSED
        return HealthState.OPEN if self.now_s < self.open_until_s else HealthState.PROBING

    @rule(seconds=st.sampled_from([0.5, 1, 3, 5, 21]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def begin(self) -> None:
        is_probe = self.expected is HealthState.PROBING and True not in self.running
        assert self.health.begin(self.now_s) == is_probe
        self.running.append(is_probe)

    def _end(self, data: st.DataObject) -> None:
        is_probe = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.health.end(is_probe=is_probe)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        self._end(data)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        self._end(data)
        self.health.succeed(self.now_s, 0.1)
        self.in_row, self.open_until_s, self.open_for_s = 0, None, 0.0
        self.recent = [*self.recent, False][-WINDOW:]

    @precondition(lambda self: self.running)
    @rule(data=st.data(), code=st.sampled_from([ERROR, "upstream_timeout", "upstream_auth_failed"]))
    def fail(self, data: st.DataObject, code: str) -> None:
        self._end(data)
        self.health.fail(self.now_s, code, None)
        self.in_row += 1
        self.recent = [*self.recent, True][-WINDOW:]
        half = len(self.recent) == WINDOW and sum(self.recent) >= WINDOW / 2
        closed = self.open_until_s is None
        if (closed and (self.in_row >= 2 or half or code == "upstream_auth_failed")) or (
            self.open_until_s is not None and self.open_until_s <= self.now_s
        ):
            self.open_for_s = min(20.0, max(4.0, self.open_for_s * 2))
            self.open_until_s = self.now_s + self.open_for_s
            self.recent = []

    @precondition(lambda self: self.running)
    @rule(data=st.data(), asked_s=st.sampled_from([None, 0.5, 6.0]))
    def is_told_to_wait(self, data: st.DataObject, asked_s: float | None) -> None:
        self._end(data)
        self.health.fail(self.now_s, "rate_limit_exceeded", asked_s)
        self.rest_until_s = max(self.rest_until_s, self.now_s + (asked_s or 4.0))

    @invariant()
    def is_as_expected(self) -> None:
        assert self.health.state(self.now_s) is self.expected
        probing = self.expected is HealthState.PROBING and True not in self.running
        assert self.health.admits(self.now_s) == (self.expected is HealthState.CLOSED or probing)
        assert 0 <= self.health.blame(self.now_s) <= 1
        waits = self.expected in (HealthState.OPEN, HealthState.RESTING)
        assert (self.health.available_in_s(self.now_s) > 0) == waits

    @invariant()
    def comes_back(self) -> None:
        later_s = self.now_s + self.health.available_in_s(self.now_s)
        assert self.health.admits(later_s) or True in self.running


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
