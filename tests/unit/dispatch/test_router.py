"""Which provider serves a model."""

from __future__ import annotations

import pytest
from tests.support.provider import ScriptedProvider

from coterie.config import DispatchSettings
from coterie.dispatch.router import _RECORDS, Reading, Router
from coterie.dispatch.seats import now_s
from coterie.errors import ApiError
from coterie.providers.base import ModelCard, Offer
from coterie.wire.lingua import Embedding, Generation


@pytest.fixture(name="providers")
async def _providers() -> list[ScriptedProvider]:
    return [ScriptedProvider(model=name) for name in ("a", "b", "a")]


async def test_every_model_once_in_the_providers_order(providers: list[ScriptedProvider]) -> None:
    assert [card.id for card in Router(providers).models()] == ["a", "b"]


@pytest.mark.parametrize("model", ["c", "", "A", "a "])
async def test_an_unknown_model(model: str, providers: list[ScriptedProvider]) -> None:
    router = Router(providers)
    for find in (router.check, router.card, lambda name: router.candidates(Generation(name, {}))):
        with pytest.raises(ApiError) as caught:
            find(model)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


class Unread(ScriptedProvider):
    """Its list of models was not read yet."""

    unread = True


async def test_an_unknown_model_while_nobody_can_say_who_serves_it(providers: list[ScriptedProvider]) -> None:
    unread = Unread(model="")
    router = Router([*providers, unread])
    for find in (router.check, router.card, lambda name: router.candidates(Generation(name, {}))):
        with pytest.raises(ApiError) as caught:
            find("c")
        assert (caught.value.code, caught.value.status, caught.value.retry_after_s) == ("server_is_overloaded", 503, 2)
        find("a")
    unread.unread = False
    with pytest.raises(ApiError, match="`c` does not exist"):
        router.check("c")


async def test_it_is_ready_when_all_are(providers: list[ScriptedProvider]) -> None:
    router = Router(providers)
    assert router.ready()
    providers[1].is_ready = False
    assert not router.ready()


async def test_the_rows_of_all(providers: list[ScriptedProvider]) -> None:
    assert [row["model"] for row in Router(providers).status()] == ["a", "b", "a"]


async def test_all_are_started_and_stopped(providers: list[ScriptedProvider]) -> None:
    router = Router(providers)
    await router.start()
    await router.stop()
    assert [provider.calls for provider in providers] == [["start", "stop"]] * 3


# How requests are read

OPEN, CLOSED = Offer(open=True), Offer()
REFUSAL = ApiError("unknown_parameter", param="top_k")


@pytest.mark.parametrize(
    ("offers", "reading"),
    [
        ((), Reading.KNOWN),
        ((CLOSED,), Reading.KNOWN),
        ((CLOSED, CLOSED), Reading.KNOWN),
        ((OPEN, OPEN), Reading.OPEN),
        ((CLOSED, OPEN), Reading.BOTH),
        ((OPEN, CLOSED), Reading.BOTH),
    ],
)
async def test_a_request_is_read_by_those_who_serve_it(offers: tuple[Offer, ...], reading: Reading) -> None:
    router = fleet(*offers)
    assert router.reading("m") is reading
    for unknown in ("n", None, 7, ["m"], {"m": 1}):
        assert router.reading(unknown) is Reading.KNOWN


def fleet(*offers: Offer) -> Router:
    providers = [ScriptedProvider(name=name) for name, _ in zip("abcdef", offers, strict=False)]
    for provider, offer in zip(providers, offers, strict=True):
        provider.offered = offer
    return Router(providers)


@pytest.mark.parametrize("request_", [Generation("m", {}, known=REFUSAL), Embedding("m", (), refusal=REFUSAL)])
@pytest.mark.parametrize(("offers", "names"), [((OPEN, CLOSED), "a"), ((CLOSED, OPEN, OPEN), "bc"), ((CLOSED,), "")])
async def test_who_would_refuse_a_request_is_not_asked(
    request_: Generation | Embedding, offers: tuple[Offer, ...], names: str
) -> None:
    router = fleet(*offers)
    if names:
        assert "".join(candidate.provider.name for candidate in router.candidates(request_)) == names
    else:
        with pytest.raises(ApiError) as caught:
            router.candidates(request_)
        assert caught.value is REFUSAL


# Providers that come and go


async def test_new_providers_start_before_old_ones_stop() -> None:
    kept, old, new = (ScriptedProvider(name=name) for name in ("kept", "old", "new"))
    router = Router([kept, old])
    for name in ("kept", "old"):
        router.health(name, "m").fail(0, "upstream_error", None)
    await router.replace([kept, new])
    assert [provider.calls for provider in (kept, old, new)] == [[], ["stop"], ["start"]]
    assert router.providers == (kept, new)
    assert (router.health("kept", "m").failures_in_row, router.health("old", "m").failures_in_row) == (1, 0)


async def test_a_start_that_fails_changes_nothing() -> None:
    old, good, bad = (ScriptedProvider(name=name) for name in ("old", "good", "bad"))

    async def fail() -> None:
        raise ApiError("upstream_unreachable")

    bad.start = fail  # type: ignore[method-assign]
    router = Router([old])
    with pytest.raises(ApiError):
        await router.replace([bad, good])
    assert router.providers == (old,)
    assert (old.calls, good.calls, bad.calls) == ([], ["start", "stop"], ["stop"])


async def test_a_stop_that_fails_leaves_no_other_running() -> None:
    providers = [ScriptedProvider(name=name) for name in "ab"]

    async def fail() -> None:
        raise RuntimeError("x")

    providers[0].stop = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        await Router(providers).stop()
    assert providers[1].calls == ["stop"]


# What is known of them


async def test_models_that_come_and_go_leave_no_records() -> None:
    provider = ScriptedProvider()
    router = Router([provider])
    for number in range(5 * _RECORDS):
        provider.model = f"model-{number}"
        router.candidates(Generation(provider.model, {}))
        router.report()
    assert len(router._health) <= _RECORDS
    assert ("scripted", provider.model, "generate") in router._health


async def test_counts_of_models_that_come_and_go_are_bounded_though_nobody_looks() -> None:
    provider = ScriptedProvider()
    router = Router([provider])
    for number in range(3 * _RECORDS):
        provider.model = f"model-{number}"
        router.candidates(Generation(provider.model, {}))
        for outcome in ("ok", "upstream_error"):
            router.tally.attempts["scripted", provider.model, outcome] += 1
        router.tally.failovers[provider.model] += 1
        router.tally.continuations[provider.model] += 1
    assert len(router.tally.attempts) <= 2 * _RECORDS
    assert len(router.tally.failovers) <= _RECORDS
    assert len(router.tally.continuations) <= _RECORDS
    assert router.tally.attempts["scripted", provider.model, "ok"] == 1


def counted(*names: str) -> tuple[Router, list[ScriptedProvider]]:
    """Providers of "m" with a count, and a failover to it."""
    providers = [ScriptedProvider(name=name) for name in names]
    router = Router(providers)
    for name in names:
        router.tally.attempts[name, "m", "ok"] = 1
    router.tally.failovers["m"] = 1
    return router, providers


async def test_counts_of_a_provider_that_was_replaced_are_dropped() -> None:
    router, (kept, _) = counted("kept", "old")
    await router.replace([kept])
    assert router.tally.attempts == {("kept", "m", "ok"): 1}
    assert router.tally.failovers == {"m": 1}
    await router.replace([ScriptedProvider(name="kept", model="other")])
    assert not router.tally.attempts
    assert not router.tally.failovers


async def test_counts_of_a_model_that_discovery_dropped_are_dropped() -> None:
    router, (a, b) = counted("a", "b")
    a.model = "new"
    assert router.counts()["attempts"] == {("b", "m", "ok"): 1}
    b.model = "new"
    router.configure(DispatchSettings())
    assert not router.tally.attempts
    assert not router.tally.failovers


async def test_records_of_what_is_served_are_kept() -> None:
    provider = ScriptedProvider()
    provider.offer = lambda model: Offer()  # type: ignore[method-assign]
    router = Router([provider])
    for number in range(2 * _RECORDS):
        router.health("scripted", f"model-{number}").fail(0, "upstream_error", None)
    router.configure(DispatchSettings())
    assert all(record.failures_in_row for record in router._health.values())
    assert len(router._health) == 2 * _RECORDS


async def test_rows_of_what_was_asked_for() -> None:
    listing, other = ScriptedProvider(name="a"), ScriptedProvider(name="b")
    listing.offer = lambda model: Offer()  # type: ignore[method-assign]
    listing.models = lambda: [ModelCard(f"m-{number}", 0, "") for number in range(2000)]  # type: ignore[method-assign]
    router = Router([listing, other])
    assert (len(router.report()), router.asked()) == (2001, [])
    router.candidates(Generation("m-7", {}))
    router.health("a", "m-8", "embed").fail(now_s(), "rate_limit_exceeded", 60)
    router.tally.attempts["b", "m", "ok"] = router.tally.attempts["b", "m", "upstream_error"] = 1
    router.tally.attempts["b", "gone", "ok"] = router.tally.attempts["gone", "m", "ok"] = 1
    rows = [(row["provider"], row["model"], row["state"]) for row in router.asked()]
    assert rows == [("a", "m-7", "closed"), ("a", "m-8", "resting"), ("b", "m", "closed")]
    others = [row for row in router.report() if row["model"] not in ("m-7", "m-8", "m")]
    assert len(others) == 1998
    assert all((row["state"], row["answered"], row["failures"]) == ("closed", 0, {}) for row in others)


async def test_what_each_provider_has_now() -> None:
    router = fleet(Offer(), Offer())
    router.seats.running["a"] = 2
    assert router.counts()["running"] == {"a": 2, "b": 0}


async def test_the_report() -> None:
    router = fleet(Offer(seats=3), OPEN)
    assert router.report()[1] == {
        "provider": "b", "model": "m", "state": "closed", "available_in_s": 0.0, "running": 0, "seats": 0,
        "first_token_ms": None, "answered": 0, "failures": {},
    }  # fmt: skip
    assert not router._health
    router.seats.running["a"] = 2
    router.health("a", "m").succeed(0, 0.0123)
    router.health("b", "m", "embed").fail(now_s(), "rate_limit_exceeded", 60)
    for outcome, count in (("ok", 5), ("client_closed", 1), ("invalid_value", 3), ("upstream_error", 2)):
        router.tally.attempts["a", "m", outcome] = count
    first, second = router.report()
    assert first == {
        "provider": "a", "model": "m", "state": "closed", "available_in_s": 0.0, "running": 2, "seats": 3,
        "first_token_ms": 12.3, "answered": 5, "failures": {"upstream_error": 2},
    }  # fmt: skip
    assert second["state"] == "resting"
    assert 55 < second["available_in_s"] <= 60
