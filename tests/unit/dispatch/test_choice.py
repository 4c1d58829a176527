"""The order in which providers are asked."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.provider import ScriptedProvider

from coterie.dispatch.choice import Candidate, ranked
from coterie.dispatch.health import Health, HealthRules
from coterie.providers.base import Offer

NOW_S = 100.0


def candidate(
    name: str, *, priority: int = 0, weight: float = 1.0, first_token_s: float | None = None, blamed: int = 0,
    open_for_s: float = 0.0,
) -> Candidate:  # fmt: skip
    health = Health(HealthRules(open_after=1000 if not open_for_s else 1, open_s=open_for_s or 5.0))
    if first_token_s is not None:
        health.succeed(NOW_S, first_token_s)
    for _ in range(blamed):
        health.fail(NOW_S, "upstream_error", None)
    if open_for_s:
        health.fail(NOW_S, "upstream_error", None)
    return Candidate(ScriptedProvider(name=name), Offer(priority=priority, weight=weight), health)


def order(candidates: list[Candidate], running: dict[str, int] | None = None) -> list[str]:
    return [one.provider.name for one in ranked(candidates, running or {}, NOW_S)]


@pytest.mark.parametrize(
    ("candidates", "running", "expected"),
    [
        ([], {}, []),
        ([candidate("a")], {"a": 9}, ["a"]),
        ([candidate("b", priority=1), candidate("a"), candidate("c", priority=2)], {"a": 99}, ["a", "b", "c"]),
        ([candidate("b"), candidate("a")], {"b": 1}, ["a", "b"]),
        ([candidate("b"), candidate("a", weight=4)], {"b": 2, "a": 3}, ["a", "b"]),
        # 5 times as slow counts as 4 times.
        ([candidate("b", first_token_s=5), candidate("a", first_token_s=1)], {"b": 1, "a": 3}, ["a", "b"]),
        ([candidate("b", blamed=3), candidate("a")], {"b": 1, "a": 3}, ["a", "b"]),
        ([candidate("b", open_for_s=5), candidate("a", priority=9)], {"a": 99}, ["a", "b"]),
        ([candidate("b", open_for_s=9), candidate("a", open_for_s=2, priority=1)], {}, ["a", "b"]),
    ],
)
def test_the_order(candidates: list[Candidate], running: dict[str, int], expected: list[str]) -> None:
    assert order(candidates, running) == expected


def drawn(candidates: list[Candidate]) -> Counter[str]:
    return Counter(order(candidates)[0] for _ in range(400))


def test_idle_equals_share_the_load() -> None:
    firsts = drawn([candidate(name) for name in "abcd"])
    assert min(firsts[name] for name in "abcd") > 40


def test_idle_providers_share_it_by_weight() -> None:
    firsts = drawn([candidate("light"), candidate("heavy", weight=3)])
    assert firsts["heavy"] > 2 * firsts["light"] > 0


@pytest.mark.parametrize("bad", [candidate("bad", blamed=1), candidate("bad", first_token_s=9)])
def test_one_that_was_bad_is_asked_again_some_time(bad: Candidate) -> None:
    firsts = drawn([bad, candidate("good", first_token_s=0.1)])
    assert firsts["good"] > firsts["bad"] > 0


@given(
    st.lists(
        st.builds(
            candidate, st.uuids().map(str), priority=st.integers(-2, 2), weight=st.floats(0.01, 1000),
            first_token_s=st.none() | st.floats(0, 1e6), blamed=st.integers(0, 5),
            open_for_s=st.sampled_from([0.0, 1.0, 7.0]),
        ),
        max_size=6,
    )
)  # fmt: skip
def test_everybody_is_there_once_and_who_is_admitted_comes_first(candidates: list[Candidate]) -> None:
    result = ranked(candidates, {}, NOW_S)
    assert sorted(map(id, result)) == sorted(map(id, candidates))
    places = [(one.health.available_in_s(NOW_S), one.offer.priority) for one in result]
    assert places == sorted(places)
