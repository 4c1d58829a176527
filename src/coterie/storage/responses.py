"""Stored responses: what was asked, what was answered, and the events that told it.

Rules:

* A response is in one state. While it is ``queued`` or ``in_progress`` it may change; the first that finishes it
  decides what it says from then on.
* To finish a response, to add its items to its conversation and to give the conversation free is one step: all of it
  has happened, or nothing.
* What belongs to another owner, has expired or was deleted does not exist.
* What a chain of responses holds is counted before it is read, and refused where it is too much.
* Deleting takes the response, the lock that it holds, its input, its events and the traces of its items. What a
  conversation holds is the conversation's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from coterie.errors import ApiError
from coterie.storage.database import Args, Database, NotAppliedError, Row, Step
from coterie.storage.queries import queries, with_list
from coterie.storage.rows import (
    MOST_HISTORY_BYTES,
    Item,
    as_text,
    decoded,
    from_text,
    item_values,
    key,
    pack,
    size_of,
    unpack,
)

UNFINISHED: Final = frozenset({"queued", "in_progress"})
"""The states that a response leaves again."""

_PURGED_AT_ONCE: Final = 200
"""Responses that one statement deletes at most, so that others get their turn in between."""
_LIST_LENGTH: Final = 500
"""Ids that one query asks for at most."""
_PREVIOUS: Final = "previous_response_id"
_SQL: Final = queries("responses")


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it is kept. Times are Unix seconds."""

    id: str
    owner: str
    """Whose it is; empty where the server has no keys."""
    status: str
    created_at: int
    expires_at: int | None
    """From then on it does not exist; ``None``: it stays until it is deleted."""
    background: bool
    model: str
    previous_response_id: str | None
    conversation_id: str | None
    response: dict[str, Any]
    """The whole Response object."""
    input: list[Item]
    events: bytes | None
    """The whole stream, as it was sent."""
    instance: str
    """The server that makes it."""


class ResponseStore:
    """The responses in ``db``. Every method may raise :class:`ApiError` ``storage_failed``.

    ``clock`` tells the Unix time that expiry is judged by.
    """

    def __init__(self, db: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._db = db
        self._clock = clock

    async def create(self, stored: StoredResponse) -> None:
        """Store a new response."""
        await self._db.apply(lambda: _create(stored))

    async def set_response(self, response_id: str, status: str, response: dict[str, Any]) -> bool:
        """Replace the object of an unfinished response; ``False`` where it is gone or finished."""
        return await self._db.execute(_SQL["set_response"], response_id, status, as_text(response)) > 0

    async def finish(
        self,
        response_id: str,
        *,
        status: str,
        response: dict[str, Any],
        events: bytes | None = None,
        conversation_items: Sequence[Item] | None = None,
    ) -> bool:
        """Store how a response ended, append ``conversation_items`` to its conversation and give that free.

        ``False``, and nothing but the conversation's freedom, where the response is gone or was finished before. An
        item whose id the conversation has already stays there as it is.
        """
        try:
            await self._db.apply(lambda: _finish(response_id, status, response, events, conversation_items or ()))
        except NotAppliedError:
            await self._db.execute(_SQL["unlock"], response_id)
            return False
        return True

    async def get(self, owner: str, response_id: str, *, events: bool = True) -> StoredResponse | None:
        """A response, or ``None`` where there is none. Without ``events`` they are not read, and ``None``."""
        sql = _SQL["get"] if events else _SQL["get_without_events"]
        row = await self._db.fetch_one(sql, key(response_id), owner, self._now_s())
        return None if row is None else (await _read([row]))[0]

    async def delete(self, owner: str, response_id: str) -> bool:
        """Delete a response, from the disk too; ``False`` where there is none."""
        stored_id, now_s = key(response_id), self._now_s()
        steps = [
            Step(_SQL["delete"], [(stored_id, owner, now_s)], needed=True),
            Step(_SQL["unlock"], [(stored_id,)]),
        ]
        try:
            await self._db.apply(lambda: steps)
        except NotAppliedError:
            return False
        await self._db.forget()
        return True

    async def history(
        self, owner: str, response_id: str, limit: int, most_bytes: int = MOST_HISTORY_BYTES
    ) -> list[StoredResponse]:
        """The chain of responses that ends with ``response_id``, oldest first, without their events.

        Raises ``previous_response_not_found`` where a link is missing, ``previous_response_not_finished`` where one
        is queued or in progress, and ``invalid_value`` where the chain has more than ``limit`` links or, with what was
        asked, more than ``most_bytes`` bytes of JSON.
        """
        chain = (key(response_id), owner, self._now_s(), limit)
        links = await self._db.fetch(_SQL["chain"], *chain)
        for link in links:
            _check_link(link, response_id)
        if len(links) > limit:
            raise _too_much(f"has more than {limit} responses")
        if sum(link["size"] for link in links) > most_bytes:
            raise _too_much(f"is longer than {most_bytes} bytes")
        rows = await self._db.fetch(_SQL["history"], *chain)
        for row in rows:
            _check_link(row, response_id)  # one may have been deleted meanwhile
        return await _read(rows)

    async def items(self, owner: str, ids: Sequence[str]) -> dict[str, Item]:
        """The items among ``ids`` that are in a response or a conversation of ``owner``, by id."""
        found: dict[str, Item] = {}
        for some in _parts(list(dict.fromkeys(ids))):
            wanted = {key(item_id): item_id for item_id in some}
            items = await self._items_of_responses(owner, list(wanted))
            items |= await self._items_of_conversations(owner, [one for one in wanted if one not in items])
            found |= {wanted[stored]: item for stored, item in items.items()}
        return found

    async def unfinished(self, instance: str) -> list[StoredResponse]:
        """Every response that ``instance`` has not finished, whoever owns it, the oldest first."""
        return await _read(await self._db.fetch(_SQL["unfinished"], instance))

    async def unfinished_ids(self, instance: str) -> list[str]:
        """The ids of :meth:`unfinished`, to be read one at a time by :meth:`load`."""
        return [row["id"] for row in await self._db.fetch(_SQL["unfinished_ids"], instance)]

    async def load(self, response_id: str) -> StoredResponse | None:
        """A response whoever owns it, expired or not; ``None`` where there is none."""
        row = await self._db.fetch_one(_SQL["load"], key(response_id))
        return None if row is None else (await _read([row]))[0]

    async def purge(self, now_s: float) -> int:
        """Delete what has expired, from the disk too; returns how many responses that were."""
        purged = 0
        while (some := await self._purge_some(int(now_s))) > 0:
            purged += some
        if purged:
            await self._db.forget()
        return purged

    async def _purge_some(self, now_s: int) -> int:
        async with self._db.transaction() as transaction:
            ids = [row["id"] for row in await transaction.fetch(_SQL["expired"], now_s, _PURGED_AT_ONCE)]
            if ids:  # in the order in which the end of a response takes them: neither waits for the other for ever
                await transaction.execute(with_list(_SQL["purge"], ids, after=0), *ids)
                await transaction.execute(with_list(_SQL["unlock_all"], ids, after=0), *ids)
        return len(ids)

    async def _items_of_responses(self, owner: str, keys: list[str]) -> dict[str, Item]:
        places = await self._db.fetch(
            with_list(_SQL["find_items"], keys, after=2), owner, self._now_s(), *keys
        )  # fmt: skip
        holders = {place["response_id"] for place in places}
        bodies = await self._bodies(sorted(holders))
        found = ((place["item_id"], bodies.get(place["response_id"], {})) for place in places)
        return {item_id: items[item_id] for item_id, items in found if item_id in items}

    async def _bodies(self, response_ids: list[str]) -> dict[str, dict[str, Item]]:
        """The items of each response, by their keys."""
        if not response_ids:
            return {}
        rows = await self._db.fetch(with_list(_SQL["bodies"], response_ids, after=0), *response_ids)
        return await decoded(_length(rows), lambda: {row["id"]: _items_by_key(row) for row in rows})

    async def _items_of_conversations(self, owner: str, keys: list[str]) -> dict[str, Item]:
        if not keys:
            return {}
        rows = await self._db.fetch(with_list(_SQL["find_conversation_items"], keys, after=1), owner, *keys)
        return await decoded(
            sum(len(row["item"]) for row in rows), lambda: {row["item_id"]: from_text(row["item"]) for row in rows}
        )

    def _now_s(self) -> int:
        return int(self._clock())


def _create(stored: StoredResponse) -> list[Step]:
    events, packed = pack(stored.events)
    response, asked = as_text(stored.response), as_text(stored.input)
    row: Args = (
        stored.id, stored.owner, stored.status, stored.created_at, stored.expires_at, int(stored.background),
        stored.model, stored.previous_response_id, stored.conversation_id, stored.instance,
        response, asked, events, packed,
    )  # fmt: skip
    return [
        Step(_SQL["create"], [row]),
        Step(_SQL["measure"], [(stored.id, size_of(response), size_of(asked))]),
        _index(stored.id, _output(stored.response), is_output=1),
        _index(stored.id, stored.input, is_output=0),
    ]


def _finish(
    response_id: str, status: str, response: dict[str, Any], events: bytes | None, appended: Sequence[Item]
) -> list[Step]:
    stored, packed = pack(events)
    text = as_text(response)
    count = len(appended)
    rows = [(response_id, count, place, *item_values(item)) for place, item in enumerate(appended)]
    return [
        Step(_SQL["finish"], [(response_id, status, text, stored, packed)], needed=True),
        Step(_SQL["measure_anew"], [(response_id, size_of(text))]),
        _index(response_id, _output(response), is_output=1),
        Step(_SQL["make_room"], [(response_id, count)] if appended else []),
        Step(_SQL["append_item"], rows),
        Step(_SQL["unlock"], [(response_id,)]),
    ]


def _index(response_id: str, items: Iterable[Item], *, is_output: int) -> Step:
    return Step(_SQL["index_item"], [(response_id, key(item["id"]), is_output) for item in items if item.get("id")])


def _output(response: dict[str, Any]) -> list[Item]:
    return response.get("output") or []


def _too_much(reason: str) -> ApiError:
    return ApiError("invalid_value", param=_PREVIOUS, reason=f"the conversation it ends {reason}")


def _check_link(row: Row, asked_for: str) -> None:
    if row["id"] is None:
        missing = asked_for if row["link"] == key(asked_for) else row["link"]
        raise ApiError("previous_response_not_found", param=_PREVIOUS, id=missing)
    if row["status"] in UNFINISHED:
        raise ApiError("previous_response_not_finished", param=_PREVIOUS, id=row["id"])


def _items_by_key(row: Row) -> dict[str, Item]:
    items = [*from_text(row["input"]), *_output(from_text(row["response"]))]
    return {key(item["id"]): item for item in items if item.get("id")}


def _parts(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + _LIST_LENGTH] for start in range(0, len(ids), _LIST_LENGTH))


async def _read(rows: Sequence[Row]) -> list[StoredResponse]:
    return await decoded(_length(rows), lambda: [_stored(row) for row in rows])


def _length(rows: Sequence[Row]) -> int:
    return sum(len(row["response"]) + len(row["input"]) for row in rows)


def _stored(row: Row) -> StoredResponse:
    return StoredResponse(
        id=row["id"],
        owner=row["owner"],
        status=row["status"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        background=bool(row["background"]),
        model=row["model"],
        previous_response_id=row["previous_response_id"],
        conversation_id=row["conversation_id"],
        response=from_text(row["response"]),
        input=from_text(row["input"]),
        events=unpack(row["events"], row["events_packed"]),
        instance=row["instance"],
    )
