"""Requests about conversations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coterie.dialects.conversation_requests import parse_added, parse_conversation, parse_metadata
from coterie.errors import ApiError

MESSAGE = {"type": "message", "role": "user", "content": "Hello"}


def test_a_conversation_may_begin_with_nothing() -> None:
    assert parse_conversation({}) == ({}, ())
    assert parse_conversation({"metadata": None, "items": None}) == ({}, ())


def test_a_conversation_may_begin_with_items_and_metadata() -> None:
    metadata, items = parse_conversation({"metadata": {"topic": "x"}, "items": [MESSAGE]})
    assert metadata == {"topic": "x"}
    [item] = items
    assert item["id"].startswith("msg_")
    assert item["content"] == [{"type": "input_text", "text": "Hello"}]


def test_metadata_are_replaced() -> None:
    assert parse_metadata({"metadata": {"a": "b"}}) == {"a": "b"}


@pytest.mark.parametrize(
    ("parse", "body", "code", "param"),
    [
        (parse_conversation, {"name": "x"}, "unknown_parameter", "name"),
        (parse_conversation, {"items": "x"}, "invalid_type", "items"),
        (parse_conversation, {"items": [MESSAGE] * 21}, "array_above_max_length", "items"),
        (parse_conversation, {"items": [{**MESSAGE, "role": "x"}]}, "invalid_value", "items[0].role"),
        (parse_conversation, {"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
        (parse_conversation, {"metadata": {"a" * 65: ""}}, "string_above_max_length", "metadata"),
        (parse_metadata, {}, "missing_required_parameter", "metadata"),
        (parse_metadata, {"metadata": {str(n): "" for n in range(17)}}, "object_above_max_properties", "metadata"),
        (parse_added, {}, "missing_required_parameter", "items"),
        (parse_added, {"items": []}, "empty_array", "items"),
        (parse_added, {"items": [{"type": "item_reference", "id": "msg_1"}]}, "unsupported_value", "items[0].type"),
        (parse_added, {"items": [{"type": "web_search_call"}]}, "unsupported_value", "items[0].type"),
    ],
)
def test_what_is_wrong_is_named(
    parse: Callable[[dict[str, Any]], object], body: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(ApiError) as failure:
        parse(body)
    assert failure.value.code == code
    assert (failure.value.param or "").startswith(param)
