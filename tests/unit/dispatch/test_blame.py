"""Which failures of one request count."""

from __future__ import annotations

import pytest
from tests.support.provider import ScriptedProvider

from coterie.dispatch.blame import DEADLINES, Blame
from coterie.dispatch.choice import Candidate
from coterie.dispatch.health import Health, HealthRules, HealthState
from coterie.errors import ApiError, Retry
from coterie.providers.base import Offer

ERROR = ApiError("upstream_error")
BROKEN = ApiError("upstream_stream_interrupted")


def candidate(name: str, seats: int = 4) -> Candidate:
    return Candidate(ScriptedProvider(name=name), Offer(seats=seats), Health(HealthRules(open_after=1)))


def states(*candidates: Candidate) -> str:
    return "".join(one.health.state(1).value[0] for one in candidates)


@pytest.mark.parametrize("code", sorted(DEADLINES | {"upstream_unreachable"}))
def test_the_transport_counts_at_once(code: str) -> None:
    a, blame = candidate("a"), Blame()
    blame.note(a, ApiError(code, limit_s=1), 1)
    assert (states(a), blame.is_open) == ("o", False)


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "server_is_overloaded"])
def test_a_rest_begins_at_once(code: str) -> None:
    a, blame = candidate("a"), Blame()
    blame.note(a, ApiError(code, retry_after_s=9), 1)
    assert (states(a), a.health.rest_s(1)) == ("r", 9)


@pytest.mark.parametrize(
    ("error", "choices", "seats"),
    [
        (ApiError("rate_limit_exceeded", retry=Retry.NEVER), 1, 4),
        (ApiError("server_is_overloaded", retry_after_s=9), 1, 0),
        (BROKEN, 2, 4),
        (ApiError("internal_error"), 1, 4),
    ],
)
def test_what_counts_for_nobody(error: ApiError, choices: int, seats: int) -> None:
    a, blame = candidate("a", seats), Blame(choices)
    blame.note(a, error, 1)
    assert not blame.is_open
    assert (states(a), a.health.blame(1)) == ("c", 0)


def test_the_callers_fault_is_an_answer() -> None:
    a, blame = candidate("a"), Blame()
    a.health.fail(1, "upstream_error", None)
    blame.note(a, ApiError("invalid_value", param="x", reason="y"), 1)
    assert states(a) == "c"


@pytest.mark.parametrize("error", [ERROR, BROKEN, ApiError("engine_failed"), ApiError("upstream_auth_failed")])
@pytest.mark.parametrize(("met", "expected"), [("a", "oc"), ("aa", "oc"), ("ab", "cc"), ("aba", "cc")])
def test_at_the_end_one_alone_is_to_blame_and_all_are_not(error: ApiError, met: str, expected: str) -> None:
    both, blame = {name: candidate(name) for name in "ab"}, Blame()
    for name in met:
        blame.note(both[name], error, 1)
        assert blame.is_open
    assert states(*both.values()) == "cc"
    blame.end([], 1)
    assert states(*both.values()) == expected
    assert not blame.is_open


@pytest.mark.parametrize(("rests", "expected"), [(False, "oo"), (True, "cc")])
def test_one_that_was_left_out_may_do_better(rests: bool, expected: str) -> None:
    a, b, c, blame = candidate("a"), candidate("b"), candidate("c"), Blame()
    if rests:
        c.health.fail(1, "rate_limit_exceeded", 9)
    for one in (a, b):
        blame.note(one, ERROR, 1)
    blame.end([c], 1)
    assert states(a, b) == expected


def test_another_failure_speaks_for_the_request() -> None:
    a, b, blame = candidate("a"), candidate("b"), Blame()
    blame.note(a, ERROR, 1)
    blame.note(b, ApiError("upstream_auth_failed"), 1)
    assert states(a, b) == "oc"
    blame.end([], 1)
    assert states(a, b) == "oo"


def test_an_answer_speaks_for_the_request() -> None:
    a, blame = candidate("a"), Blame()
    blame.settle(1)
    blame.note(a, ERROR, 1)
    blame.settle(1)
    assert (a.health.state(1), blame.is_open) == (HealthState.OPEN, False)
    blame.settle(2)
    assert a.health.failures_in_row == 1
