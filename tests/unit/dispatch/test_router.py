"""Which provider serves a model."""

from __future__ import annotations

import pytest
from tests.support.provider import ScriptedProvider

from coterie.dispatch.router import Router
from coterie.errors import ApiError
from coterie.wire.lingua import Generation


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
