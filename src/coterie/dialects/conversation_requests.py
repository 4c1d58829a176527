"""Requests about conversations: metadata, and items to put in. Pure.

Every function raises ``ApiError`` for what the request may not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from coterie.dialects.chat_models import Metadata
from coterie.dialects.responses_input import Item, parse_items
from coterie.dialects.validation import Strict, validate
from coterie.errors import ApiError

MOST_ITEMS: Final = 20
"""Items that one request may put into a conversation, by the specification."""


class ConversationCreation(Strict):
    """The body of ``POST /v1/conversations``."""

    metadata: Metadata | None = None
    items: Any = None


class ConversationChange(Strict):
    """The body of ``POST /v1/conversations/{id}``."""

    metadata: Metadata


class ConversationAddition(Strict):
    """The body of ``POST /v1/conversations/{id}/items``; its items are checked by their own rules."""

    items: Any


def parse_conversation(body: Mapping[str, Any]) -> tuple[dict[str, str], tuple[Item, ...]]:
    """The metadata and the items of a new conversation."""
    request = validate(ConversationCreation, body)
    items = () if request.items is None else _items(body["items"])
    return dict(request.metadata or {}), items


def parse_metadata(body: Mapping[str, Any]) -> dict[str, str]:
    """The new metadata of a conversation, which replace the old."""
    return dict(validate(ConversationChange, body).metadata)


def parse_added(body: Mapping[str, Any]) -> tuple[Item, ...]:
    """Items to add to a conversation; at least one."""
    validate(ConversationAddition, body)
    items = _items(body["items"])
    if not items:
        raise ApiError("empty_array", param="items", limit=1)
    return items


def _items(given: Any) -> tuple[Item, ...]:
    items = parse_items(given, MOST_ITEMS)
    for place, item in enumerate(items):
        if item["type"] == "item_reference":
            hint = " Send the item itself."
            raise ApiError("unsupported_value", param=f"items[{place}].type", value="'item_reference'", hint=hint)
    return items
