"""Which provider serves a model."""

from __future__ import annotations

import pytest
from tests.support.provider import ScriptedProvider

from coterie.dispatch.router import _RECORDS, Reading, Router
from coterie.dispatch.seats import now_s
from coterie.errors import ApiError
from coterie.providers.base import Offer
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


async def test_records_of_what_is_served_are_kept() -> None:
    provider = ScriptedProvider()
    provider.offer = lambda model: Offer()  # type: ignore[method-assign]
    router = Router([provider])
    for number in range(2 * _RECORDS):
        router.health("scripted", f"model-{number}").fail(0, "upstream_error", None)
    assert all(record.failures_in_row for record in router._health.values())
    assert len(router._health) == 2 * _RECORDS


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
