"""Counting outcomes."""

from __future__ import annotations

from coterie.dispatch.tally import Tally


def test_failures_of_a_provider_over_its_models() -> None:
    tally = Tally()
    for outcome, count in (("ok", 9), ("client_closed", 4), ("upstream_error", 2), ("upstream_timeout", 1)):
        tally.attempts["a", "m", outcome] += count
    tally.attempts["a", "n", "upstream_timeout"] += 5
    tally.attempts["b", "m", "upstream_error"] += 7
    assert list(tally.failures_of("a").items()) == [("upstream_timeout", 6), ("upstream_error", 2)]
    assert tally.failures_of("c") == {}
