"""What nothing here can honour: every parameter of every table, what it accepts and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from coterie.dialects.support import (
    CHAT_UNSUPPORTED,
    COMPLETIONS_UNSUPPORTED,
    EMBEDDINGS_UNSUPPORTED,
    WITHOUT_EFFECT,
    Unsupported,
    refuse_unsupported,
)
from coterie.errors import ApiError

CASES = [
    (CHAT_UNSUPPORTED, "audio", [], [{"voice": "alloy", "format": "wav"}, {}, False]),
    (CHAT_UNSUPPORTED, "function_call", [], ["none", "auto", {"name": "f"}]),
    (CHAT_UNSUPPORTED, "functions", [], [[], [{"name": "f"}]]),
    (CHAT_UNSUPPORTED, "modalities", [["text"]], [["text", "audio"], ["audio"], [], "text"]),
    (CHAT_UNSUPPORTED, "moderation", [], [{"model": "x"}]),
    (CHAT_UNSUPPORTED, "prediction", [], [{"type": "content", "content": "x"}]),
    (CHAT_UNSUPPORTED, "reasoning_effort", ["none"], ["low", "high", "", 1]),
    (CHAT_UNSUPPORTED, "service_tier", ["auto", "default"], ["flex", "priority", 1]),
    (CHAT_UNSUPPORTED, "store", [False], [True, 0, "false"]),
    (CHAT_UNSUPPORTED, "verbosity", ["medium"], ["low", "high"]),
    (CHAT_UNSUPPORTED, "web_search_options", [], [{}, {"search_context_size": "low"}]),
    (COMPLETIONS_UNSUPPORTED, "best_of", [1], [2, True, 1.0, "1"]),
    (COMPLETIONS_UNSUPPORTED, "echo", [False], [True, 0]),
    (COMPLETIONS_UNSUPPORTED, "suffix", [], ["", "x"]),
    (EMBEDDINGS_UNSUPPORTED, "dimensions", [], [256, 0]),
]

Table = Mapping[str, Unsupported]


def test_every_parameter_of_every_table_is_tried() -> None:
    tables = (CHAT_UNSUPPORTED, COMPLETIONS_UNSUPPORTED, EMBEDDINGS_UNSUPPORTED)
    assert sorted(name for _, name, _, _ in CASES) == sorted(name for table in tables for name in table)


@pytest.mark.parametrize(("table", "name", "accepted", "refused"), CASES)
def test_accepted_values_are_taken_out(table: Table, name: str, accepted: list[Any], refused: list[Any]) -> None:
    for value in [None, *accepted]:
        assert refuse_unsupported({"model": "m", name: value}, table) == {"model": "m"}
    assert list(table[name].accepted) == accepted


@pytest.mark.parametrize(("table", "name", "accepted", "refused"), CASES)
def test_refused_values_say_what_to_do(table: Table, name: str, accepted: list[Any], refused: list[Any]) -> None:
    for value in refused:
        with pytest.raises(ApiError) as caught:
            refuse_unsupported({name: value}, table)
        assert caught.value.code == ("unsupported_value" if accepted else "unsupported_parameter")
        assert caught.value.param == name
        assert caught.value.message.endswith(table[name].hint or "with this model.")


def test_the_value_stands_in_the_message_as_json_and_clipped() -> None:
    with pytest.raises(ApiError, match=r"'store' does not support true with this model\. Chat completions are not"):
        refuse_unsupported({"store": True}, CHAT_UNSUPPORTED)
    with pytest.raises(ApiError) as caught:
        refuse_unsupported({"verbosity": "x" * 1_000_000}, CHAT_UNSUPPORTED)
    assert len(caught.value.message) < 400


def test_the_body_is_not_changed_and_the_rest_passes() -> None:
    body = {"store": False, "temperature": 1, "other": {"store": True}}
    assert refuse_unsupported(body, CHAT_UNSUPPORTED) == {"temperature": 1, "other": {"store": True}}
    assert body["store"] is False


def test_what_has_no_effect_says_why_and_is_not_refused_too() -> None:
    assert not WITHOUT_EFFECT.keys() & CHAT_UNSUPPORTED.keys()
    assert all(WITHOUT_EFFECT.values())
