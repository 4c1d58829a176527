"""Conversations: items that outlive the responses which made them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from coterie.api.body import read_object
from coterie.api.paging import asked_page, listed
from coterie.api.reading import owner_of
from coterie.api.state import AppState
from coterie.api.writer import whole
from coterie.dialects.conversation_requests import parse_added, parse_conversation, parse_metadata
from coterie.errors import ApiError
from coterie.storage.conversations import Conversation


async def create_conversation(request: Request, state: AppState) -> ASGIApp:
    """``POST /v1/conversations``."""
    metadata, items = parse_conversation(await read_object(request, state.settings.limits))
    return whole(_shown(await state.keeping.conversations.create(owner_of(request), metadata, items)))


async def get_conversation(request: Request, state: AppState) -> ASGIApp:
    """``GET /v1/conversations/{id}``."""
    owner, conversation_id = _named(request)
    return whole(_shown(await state.keeping.conversations.get(owner, conversation_id)))


async def update_conversation(request: Request, state: AppState) -> ASGIApp:
    """``POST /v1/conversations/{id}``."""
    owner, conversation_id = _named(request)
    metadata = parse_metadata(await read_object(request, state.settings.limits))
    return whole(_shown(await state.keeping.conversations.update(owner, conversation_id, metadata)))


async def delete_conversation(request: Request, state: AppState) -> ASGIApp:
    """``DELETE /v1/conversations/{id}``."""
    owner, conversation_id = _named(request)
    if not await state.keeping.conversations.delete(owner, conversation_id):
        raise ApiError("conversation_not_found", id=conversation_id)
    return whole({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


async def add_items(request: Request, state: AppState) -> ASGIApp:
    """``POST /v1/conversations/{id}/items``."""
    owner, conversation_id = _named(request)
    items = parse_added(await read_object(request, state.settings.limits))
    await state.keeping.conversations.append(owner, conversation_id, items)
    return whole(listed(items, has_more=False))


async def list_items(request: Request, state: AppState) -> ASGIApp:
    """``GET /v1/conversations/{id}/items``."""
    owner, conversation_id = _named(request)
    page = asked_page(request.query_params)
    items, has_more = await state.keeping.conversations.page(
        owner, conversation_id, limit=page.limit, order=page.order, after=page.after
    )
    return whole(listed(items, has_more=has_more))


async def get_item(request: Request, state: AppState) -> ASGIApp:
    """``GET /v1/conversations/{id}/items/{item}``."""
    owner, conversation_id = _named(request)
    return whole(await state.keeping.conversations.item(owner, conversation_id, request.path_params["item_id"]))


async def delete_item(request: Request, state: AppState) -> ASGIApp:
    """``DELETE /v1/conversations/{id}/items/{item}``; answers with the conversation."""
    owner, conversation_id = _named(request)
    item_id = request.path_params["item_id"]
    return whole(_shown(await state.keeping.conversations.delete_item(owner, conversation_id, item_id)))


def _named(request: Request) -> tuple[str, str]:
    return owner_of(request), request.path_params["conversation_id"]


def _shown(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created_at,
        "metadata": conversation.metadata,
    }
