"""The histogram for what happens with every token."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from coterie.observe.distribution import Distribution, Distributions

BOUNDS = (0.1, 1.0, 10.0)


def test_a_value_on_a_bound_belongs_below_it() -> None:
    distribution = Distribution(BOUNDS)
    for value in (0.1, 0.5, 10.0, 10.1):
        distribution.add(value)
    assert distribution.buckets() == [("0.1", 1), ("1.0", 2), ("10.0", 3), ("+Inf", 4)]
    assert distribution.sum == 20.7


@given(st.lists(st.floats(0, 20)))
def test_every_value_is_counted_once(values: list[float]) -> None:
    distribution = Distribution(BOUNDS)
    for value in values:
        distribution.add(value)
    counts = [sum(bisect_left(BOUNDS, value) <= place for value in values) for place in range(4)]
    assert [count for _, count in distribution.buckets()] == counts


def test_the_page() -> None:
    registry = CollectorRegistry()
    gaps = Distributions("gaps_seconds", "Gaps.", BOUNDS, "model")
    lag = Distributions("lag_seconds", "Lag.", BOUNDS)
    for collector in (gaps, lag):
        registry.register(collector)
    gaps.of("m").add(0.5)
    lag.of().add(2)
    page = generate_latest(registry).decode()
    assert 'gaps_seconds_bucket{le="1.0",model="m"} 1.0' in page
    assert 'gaps_seconds_count{model="m"} 1.0' in page
    assert 'lag_seconds_bucket{le="1.0"} 0.0' in page
    assert "lag_seconds_sum 2.0" in page


def test_values_of_the_label_that_are_not_kept_are_forgotten() -> None:
    registry = CollectorRegistry()
    gaps = Distributions("gaps_seconds", "Gaps.", BOUNDS, "model")
    registry.register(gaps)
    for model in ("m", "gone"):
        gaps.of(model).add(0.5)
    gaps.keep(lambda model: model == "m")
    page = generate_latest(registry).decode()
    assert 'gaps_seconds_count{model="m"} 1.0' in page
    assert "gone" not in page
