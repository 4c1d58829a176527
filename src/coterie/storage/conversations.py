"""Conversations: items in an order that only grows at its end.

Rules:

* One turn at a time: whoever makes a response in a conversation holds its lock, and a second one is told so.
* Items appended at the same time by several get places one after another, each one's together.
* An id occurs once in a conversation.
* What belongs to another owner or was deleted does not exist. Conversations do not expire.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal

from coterie.errors import ApiError
from coterie.storage.database import Database, NotAppliedError, Row, Step
from coterie.storage.queries import queries
from coterie.storage.rows import MOST_HISTORY_BYTES, Item, as_text, decoded, from_text, item_values, key
from coterie.wire.ids import new_id

MAX_PAGE_ITEMS: Final = 100
"""Items that a page has at most."""
MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
"""A page has no more bytes than that, if it has more than one item."""

_BEFORE_ALL: Final = -1
_AFTER_ALL: Final = 2**62
_SQL: Final = queries("conversations")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation without its items. Times are Unix seconds."""

    id: str
    owner: str
    created_at: int
    metadata: dict[str, str]
    locked_by: str | None
    """The response that is being made in it."""


class ConversationStore:
    """The conversations in ``db``. Every method may raise :class:`ApiError` ``storage_failed``.

    Where a method needs a conversation that does not exist it raises ``conversation_not_found``, and ``item_not_found``
    for an item.
    """

    def __init__(self, db: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._db = db
        self._clock = clock

    async def create(self, owner: str, metadata: dict[str, str], items: Sequence[Item] = ()) -> Conversation:
        """Make a conversation that holds ``items``, each of which has an ``id`` of its own."""
        made = Conversation(new_id("conv"), owner, int(self._clock()), dict(metadata), None)
        row = (made.id, owner, made.created_at, as_text(made.metadata))
        await self._apply(items, lambda: [Step(_SQL["create"], [row]), *_append(made.id, owner, items)])
        return made

    async def get(self, owner: str, conversation_id: str) -> Conversation:
        """The conversation ``conversation_id``."""
        row = await self._db.fetch_one(_SQL["get"], key(conversation_id), owner)
        if row is None:
            raise _not_found(conversation_id)
        return _conversation(row)

    async def update(self, owner: str, conversation_id: str, metadata: dict[str, str]) -> Conversation:
        """Replace the metadata."""
        await self._db.execute(_SQL["update"], key(conversation_id), owner, as_text(metadata))
        return await self.get(owner, conversation_id)

    async def delete(self, owner: str, conversation_id: str) -> bool:
        """Delete a conversation and its items, from the disk too; ``False`` where there is none."""
        deleted = await self._db.execute(_SQL["delete"], key(conversation_id), owner)
        if deleted:
            await self._db.forget()
        return deleted > 0

    async def page(
        self,
        owner: str,
        conversation_id: str,
        *,
        limit: int = 20,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
    ) -> tuple[list[Item], bool]:
        """Up to ``limit`` items that follow the item ``after`` in ``order``, and whether there are more.

        There are fewer, but one at least, where so many would have more than :data:`MAX_PAGE_BYTES`.
        Raises ``invalid_value`` where ``after`` is not an item of the conversation, and ``ValueError`` for a page of
        more than :data:`MAX_PAGE_ITEMS`.
        """
        if not 1 <= limit <= MAX_PAGE_ITEMS:
            raise ValueError(f"a page has 1 to {MAX_PAGE_ITEMS} items, not {limit}")
        conversation = await self.get(owner, conversation_id)
        start = _BEFORE_ALL if order == "asc" else _AFTER_ALL
        if after is not None:
            start = await self._position(conversation, after)
        rows = await self._db.fetch(_SQL[f"sizes_{order}"], conversation.id, start, limit + 1)
        count = _on_a_page([row["size"] for row in rows[:limit]])
        return await self._items(conversation, order, start, count), len(rows) > count

    async def history(
        self, owner: str, conversation_id: str, limit: int, most_bytes: int = MOST_HISTORY_BYTES
    ) -> list[Item]:
        """Every item, the oldest first.

        Raises ``invalid_value`` where there are more than ``limit``, or they have more than ``most_bytes`` bytes of
        JSON; they are not read then.
        """
        conversation = await self.get(owner, conversation_id)
        total = await self._db.fetch_one(_SQL["total"], conversation.id)
        if total is not None and total["items"] > limit:
            raise ApiError("invalid_value", param="conversation", reason=f"it holds more than {limit} items")
        if total is not None and total["size"] > most_bytes:
            raise ApiError("invalid_value", param="conversation", reason=f"it is longer than {most_bytes} bytes")
        return await self._items(conversation, "asc", _BEFORE_ALL, limit)

    async def item(self, owner: str, conversation_id: str, item_id: str) -> Item:
        """One item."""
        row = await self._db.fetch_one(_SQL["get_item"], key(conversation_id), owner, key(item_id))
        if row is None:
            await self.get(owner, conversation_id)
            raise ApiError("item_not_found", id=item_id)
        item: Item = await decoded(len(row["item"]), lambda: from_text(row["item"]))
        return item

    async def delete_item(self, owner: str, conversation_id: str, item_id: str) -> Conversation:
        """Delete one item, from the disk too; returns its conversation."""
        conversation = await self.get(owner, conversation_id)
        if not await self._db.execute(_SQL["delete_item"], conversation.id, key(item_id)):
            raise ApiError("item_not_found", id=item_id)
        await self._db.forget()
        return conversation

    async def append(self, owner: str, conversation_id: str, items: Sequence[Item]) -> None:
        """Add ``items`` at the end, all or none; raises ``invalid_value`` where one's id is there already."""
        try:
            await self._apply(items, lambda: _append(key(conversation_id), owner, items))
        except NotAppliedError:
            raise _not_found(conversation_id) from None

    async def lock(self, owner: str, conversation_id: str, response_id: str, instance: str) -> None:
        """Take the conversation for ``response_id``, made by ``instance``; who has it already keeps it.

        Raises ``conversation_locked`` where another response has it.
        """
        if not await self._db.execute(_SQL["lock"], key(conversation_id), owner, response_id, instance):
            await self.get(owner, conversation_id)
            raise ApiError("conversation_locked", id=conversation_id)

    async def unlock(self, conversation_id: str, response_id: str) -> None:
        """Give the conversation free, where ``response_id`` has it."""
        await self._db.execute(_SQL["unlock"], key(conversation_id), response_id)

    async def unlock_all(self, instance: str) -> int:
        """Give free what ``instance`` has locked, when nothing of it runs any more; returns how many those were."""
        return await self._db.execute(_SQL["unlock_all"], instance)

    async def _items(self, conversation: Conversation, order: str, start: int, count: int) -> list[Item]:
        rows = await self._db.fetch(_SQL[f"page_{order}"], conversation.id, start, count)
        return await decoded(sum(len(row["item"]) for row in rows), lambda: [from_text(row["item"]) for row in rows])

    async def _position(self, conversation: Conversation, item_id: str) -> int:
        row = await self._db.fetch_one(_SQL["get_item"], conversation.id, conversation.owner, key(item_id))
        if row is None:
            raise ApiError("invalid_value", param="after", reason=f"no item '{item_id}' is in this conversation")
        position: int = row["position"]
        return position

    async def _apply(self, items: Sequence[Item], prepare: Callable[[], Sequence[Step]]) -> None:
        try:
            await self._db.apply(prepare)
        except NotAppliedError as error:
            if error.sql != _SQL["append_item"]:
                raise
            reason = f"an item with the id '{items[error.row]['id']}' is in the conversation already"
            raise ApiError("invalid_value", param=f"items[{error.row}].id", reason=reason) from None


def _append(conversation_id: str, owner: str, items: Sequence[Item]) -> list[Step]:
    count = len(items)
    rows = [(conversation_id, count, place, *item_values(item)) for place, item in enumerate(items)]
    return [
        Step(_SQL["make_room"], [(conversation_id, owner, count)], needed=True),
        Step(_SQL["append_item"], rows, needed=True),
    ]


def _on_a_page(sizes: Sequence[int]) -> int:
    """How many of items of these sizes are on a page."""
    fitting = sum(1 for total in accumulate(sizes) if total <= MAX_PAGE_BYTES)
    return max(fitting, min(1, len(sizes)))


def _conversation(row: Row) -> Conversation:
    return Conversation(row["id"], row["owner"], row["created_at"], from_text(row["metadata"]), row["locked_by"])


def _not_found(conversation_id: str) -> ApiError:
    return ApiError("conversation_not_found", id=conversation_id)
