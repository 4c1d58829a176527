"""Counting outcomes."""

from __future__ import annotations

from coterie.dispatch.tally import Tally


def test_failures_of_a_model_at_a_provider() -> None:
    tally = Tally()
    for outcome, count in (("ok", 9), ("client_closed", 4), ("upstream_error", 2), ("upstream_timeout", 1)):
        tally.attempts["a", "m", outcome] += count
    tally.attempts["a", "n", "upstream_timeout"] += 5
    tally.attempts["b", "m", "upstream_error"] += 7
    for code in ("context_length_exceeded", "invalid_value", "content_policy_violation"):
        tally.attempts["a", "m", code] += 3
    assert tally.failures_of("a", "m") == {"upstream_error": 2, "upstream_timeout": 1}
    assert tally.failures_of("a", "n") == {"upstream_timeout": 5}
    assert tally.failures_of("c", "m") == {}
