"""Reading the configuration again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.provider import ScriptedProvider
from tests.support.web import settings

from coterie.api.app import make_state
from coterie.api.reload import reload
from coterie.api.state import AppState
from coterie.config import ConfigError, Settings
from coterie.errors import ApiError
from coterie.providers.http import HttpProvider


def provider(name: str, **fields: Any) -> dict[str, Any]:
    # Nobody listens there, and with a model and its context nothing is asked.
    models = [{"name": f"{name}-model", "context_tokens": 8}]
    return {"name": name, "base_url": "http://127.0.0.1:9", "models": models, **fields}


def giving(**tables: Any) -> Callable[[], Settings]:
    return lambda: settings(**tables)


def names(state: AppState) -> list[str]:
    return [each.name for each in state.router.providers]


@pytest.fixture(name="state")
async def _state() -> AppState:
    state = make_state(settings(), [ScriptedProvider()])
    await reload(state, giving(providers=[provider("a"), provider("b")]))
    return state


async def test_providers_come_and_go_beside_the_embedded_one(state: AppState) -> None:
    assert names(state) == ["scripted", "a", "b"]
    await reload(state, giving(providers=[provider("c"), provider("b")]))
    assert names(state) == ["scripted", "c", "b"]
    with pytest.raises(ApiError):
        state.router.check("a-model")
    state.router.check("c-model")


async def test_only_a_provider_that_changed_is_made_anew(state: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    _, a, b = state.router.providers
    await reload(state, giving(providers=[provider("a", weight=2), provider("b")]))
    assert state.router.providers[1] is not a
    assert state.router.providers[2] is b
    monkeypatch.setenv("B_KEY", "secret-b")
    await reload(state, giving(providers=[provider("b", api_key_env="B_KEY")]))
    new = state.router.providers[1]
    assert isinstance(new, HttpProvider)
    assert new.key == "secret-b"


async def test_keys_and_dispatch_change(state: AppState) -> None:
    await reload(state, giving(server={"api_keys": ["new-secret"]}, dispatch={"attempts": 7}))
    state.keys.check("Bearer new-secret")
    with pytest.raises(ApiError):
        state.keys.check(None)
    assert state.router.settings.attempts == 7


def _unusable() -> Settings:
    raise ConfigError(["file: server.port: is no port"])


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (_unusable, "server.port: is no port"),
        (giving(providers=[provider("c", api_key_env="NOBODY_SET_THIS")]), "NOBODY_SET_THIS is not set"),
        (giving(providers=[provider("c", ca_file="/nowhere.pem")]), "its certificates cannot be read"),
    ],
)
async def test_a_configuration_that_cannot_be_used_changes_nothing(
    state: AppState, load: Callable[[], Settings], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = state.router.providers
    await reload(state, load)
    assert state.router.providers == before
    assert reason in caplog.text


async def test_what_takes_a_restart_is_named(state: AppState, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await reload(state, giving(limits={"messages": 3}, server={"cors_origins": ["https://a.example"]}))
    assert "'limits' has changed" in caplog.text
    assert "'server' has changed" in caplog.text
    assert "'dispatch'" not in caplog.text
