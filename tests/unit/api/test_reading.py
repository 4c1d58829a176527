"""Reading a request in the way of those who serve its model."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from starlette.requests import Request
from tests.support.provider import ScriptedProvider
from tests.support.web import CHAT, settings

from coterie.api.edge import Exchange
from coterie.api.reading import check_named, owner_of, parsed_now, read, read_served, start_of
from coterie.dialects.chat import DialectLimits, parse_chat, parse_chat_openly
from coterie.dispatch.router import Router
from coterie.errors import ApiError
from coterie.wire.lingua import Generation

LIMITS = DialectLimits(messages=10, choices=4)
FOREIGN = {**CHAT, "knob": 1}
"""A parameter that OpenAI has not, and other servers have."""


def router(*kinds: bool) -> Router:
    """Providers of one model that take what they do not know (true), or only what OpenAI has."""
    providers = [ScriptedProvider(name=f"p{i}") for i in range(len(kinds))]
    for provider, is_open in zip(providers, kinds, strict=True):
        provider.offered = dataclasses.replace(provider.offered, open=is_open)
    return Router(providers, settings().dispatch)


def generation(router: Router, body: Any) -> Generation:
    return read(router, dict(body), LIMITS, parse_chat, parse_chat_openly).generation


def test_where_nobody_is_open_what_is_unknown_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        generation(router(False, False), FOREIGN)
    assert caught.value.param == "knob"
    assert generation(router(False), CHAT).known is None


def test_where_all_are_open_what_is_unknown_is_passed_on() -> None:
    found = generation(router(True), FOREIGN)
    assert found.body["knob"] == 1
    assert found.known is None


def test_where_some_are_the_others_have_a_reading_of_their_own() -> None:
    found = generation(router(True, False), CHAT)
    assert isinstance(found.known, Generation)
    assert found.known == generation(router(False), CHAT)


def test_and_where_they_would_refuse_it_their_refusal() -> None:
    found = generation(router(True, False), FOREIGN)
    assert found.body["knob"] == 1
    assert isinstance(found.known, ApiError)
    assert found.known.param == "knob"


def test_a_model_that_nobody_serves_is_told_before_what_else_is_wrong() -> None:
    with pytest.raises(ApiError) as caught:
        read_served(router(False), {"model": "other", "messages": 3}, LIMITS, parse_chat, parse_chat_openly)
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("kinds", [(False,), (True,), (True, False)])
@pytest.mark.parametrize(
    "body", [CHAT, FOREIGN, {**CHAT, "model": ""}, {**CHAT, "model": 3}, {**CHAT, "n": 0}], ids=str
)
def test_what_is_served_is_read_alike(kinds: tuple[bool, ...], body: Any) -> None:
    found: list[object] = []
    for way in (read, read_served):
        try:
            parsed = way(router(*kinds), dict(body), LIMITS, parse_chat, parse_chat_openly)
        except ApiError as error:
            found.append((error.code, error.param))
        else:
            known = parsed.generation.known
            found.append(dataclasses.replace(parsed.generation, known=None))
            found.append((known.code, known.param) if isinstance(known, ApiError) else known)
    half = len(found) // 2
    assert found[:half] == found[half:]


def test_a_model_that_nobody_serves_is_told_before_anything_else() -> None:
    with pytest.raises(ApiError) as caught:
        check_named(router(False), "other")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("name", ["m", "", None, 3, ["m"], "x" * 100_000])
def test_what_cannot_be_a_name_is_left_to_the_dialect(name: object) -> None:
    check_named(router(False), name)


def request(**scope: Any) -> Request:
    inner: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": []}
    exchange = Exchange(inner, None, [])  # type: ignore[arg-type]
    return Request({**inner, "coterie.exchange": exchange, **scope})


def test_the_clock_of_a_request() -> None:
    asked = request()
    timing = start_of(asked)
    assert timing.started_s == asked.scope["coterie.exchange"].started_s
    assert timing.admit_s >= 0
    parsed_now(timing)
    assert timing.parse_s >= 0


def test_whose_request_it_is() -> None:
    assert owner_of(request(**{"coterie.owner": "ann"})) == "ann"
