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
    assert tally.failures() == {
        ("a", "m"): {"upstream_error": 2, "upstream_timeout": 1},
        ("a", "n"): {"upstream_timeout": 5},
        ("b", "m"): {"upstream_error": 7},
    }


def test_counts_of_what_is_gone_are_dropped() -> None:
    tally = Tally()
    for provider, model in (("a", "m"), ("a", "gone"), ("gone", "m"), ("b", "elsewhere"), ("a", "elsewhere")):
        tally.attempts[provider, model, "ok"] = 2
        tally.attempts[provider, model, "upstream_error"] = 1
        tally.failovers[model] = tally.continuations[model] = 3
    served = {("a", "m"), ("b", "elsewhere"), (None, "m"), (None, "elsewhere")}
    tally.keep(lambda provider, model: (provider, model) in served)
    assert tally.attempts == {
        ("a", "m", "ok"): 2, ("a", "m", "upstream_error"): 1,
        ("b", "elsewhere", "ok"): 2, ("b", "elsewhere", "upstream_error"): 1,
    }  # fmt: skip
    assert tally.failovers == tally.continuations == {"m": 3, "elsewhere": 3}
