from __future__ import annotations

import asyncio
import threading
from typing import Literal

import pytest
from tests.support.stored import NOW_S, Clock, message, response_object, stored_response

from coterie.errors import ApiError
from coterie.storage import ConversationStore, Database, ResponseStore
from coterie.storage import conversations as stored
from coterie.storage.conversations import MAX_PAGE_ITEMS, Conversation
from coterie.storage.rows import as_text, from_text

ITEMS = [message(f"msg_{number}", f"text {number}") for number in range(7)]


async def made(conversations: ConversationStore, count: int = 7) -> str:
    return (await conversations.create("ann", {"topic": "tea"}, ITEMS[:count])).id


async def test_a_conversation_comes_out_as_it_went_in(conversations: ConversationStore, clock: Clock) -> None:
    clock.now_s = NOW_S + 5.7
    created = await conversations.create("ann", {"topic": "tea 🍵"}, ITEMS)
    assert created.id.startswith("conv_")
    assert created == Conversation(created.id, "ann", NOW_S + 5, {"topic": "tea 🍵"}, None)
    assert await conversations.get("ann", created.id) == created
    assert await conversations.history("ann", created.id, 7) == ITEMS


async def test_metadata_is_replaced(conversations: ConversationStore) -> None:
    conversation_id = await made(conversations)
    updated = await conversations.update("ann", conversation_id, {"mood": "calm"})
    assert updated.metadata == {"mood": "calm"}
    assert await conversations.get("ann", conversation_id) == updated


async def test_a_deleted_conversation_is_gone_with_its_items(conversations: ConversationStore, db: Database) -> None:
    conversation_id = await made(conversations)
    other = await conversations.create("ann", {}, [message("msg_0")])
    assert await conversations.delete("ann", conversation_id)
    assert not await conversations.delete("ann", conversation_id)
    (row,) = await db.fetch("SELECT conversation_id FROM conversation_items")
    assert row[0] == other.id


@pytest.mark.parametrize("owner", ["bob", ""])
@pytest.mark.parametrize("theirs", [True, False])
async def test_what_is_foreign_or_was_never_made_does_not_exist(
    conversations: ConversationStore, owner: str, theirs: bool
) -> None:
    real = await made(conversations, 1)
    wanted = real if theirs else "conv_\0"
    calls = (
        conversations.get(owner, wanted),
        conversations.update(owner, wanted, {"topic": "stolen"}),
        conversations.page(owner, wanted),
        conversations.page(owner, wanted, after="msg_0"),
        conversations.history(owner, wanted, 10),
        conversations.item(owner, wanted, "msg_0"),
        conversations.delete_item(owner, wanted, "msg_0"),
        conversations.append(owner, wanted, [message("msg_1")]),
        conversations.lock(owner, wanted, "resp_1", "here"),
    )
    for call in calls:
        with pytest.raises(ApiError) as failure:
            await call
        assert failure.value.code == "conversation_not_found"
    assert not await conversations.delete(owner, wanted)
    assert await conversations.history("ann", real, 10) == ITEMS[:1]
    assert (await conversations.get("ann", real)).metadata == {"topic": "tea"}


# ---------------------------------------------------------------- items


@pytest.mark.parametrize(
    ("order", "limit", "after", "expected", "more"),
    [
        ("asc", 3, None, [0, 1, 2], True),
        ("asc", 3, 2, [3, 4, 5], True),
        ("asc", 3, 5, [6], False),
        ("asc", 7, None, [0, 1, 2, 3, 4, 5, 6], False),
        ("asc", 3, 6, [], False),
        ("desc", 3, None, [6, 5, 4], True),
        ("desc", 3, 4, [3, 2, 1], True),
        ("desc", 3, 1, [0], False),
        ("desc", 100, None, [6, 5, 4, 3, 2, 1, 0], False),
    ],
)
async def test_pages_follow_their_cursor(
    conversations: ConversationStore,
    order: Literal["asc", "desc"],
    limit: int,
    after: int | None,
    expected: list[int],
    more: bool,
) -> None:
    conversation_id = await made(conversations)
    cursor = None if after is None else f"msg_{after}"
    page = await conversations.page("ann", conversation_id, limit=limit, order=order, after=cursor)
    assert page == ([ITEMS[number] for number in expected], more)


@pytest.mark.parametrize("after", ["msg_9", "", "\0"])
async def test_a_cursor_that_is_no_item_is_told(conversations: ConversationStore, after: str) -> None:
    with pytest.raises(ApiError) as failure:
        await conversations.page("ann", await made(conversations), after=after)
    assert (failure.value.code, failure.value.param) == ("invalid_value", "after")


@pytest.mark.parametrize("limit", [0, -1, MAX_PAGE_ITEMS + 1])
async def test_a_page_is_bounded(conversations: ConversationStore, limit: int) -> None:
    with pytest.raises(ValueError, match="1 to 100"):
        await conversations.page("ann", "conv_1", limit=limit)


async def test_a_history_beyond_its_limit_is_told(conversations: ConversationStore) -> None:
    with pytest.raises(ApiError, match="more than 6 items") as failure:
        await conversations.history("ann", await made(conversations), 6)
    assert (failure.value.code, failure.value.param) == ("invalid_value", "conversation")


async def test_one_item_is_read_and_deleted(conversations: ConversationStore) -> None:
    conversation_id = await made(conversations, 3)
    assert await conversations.item("ann", conversation_id, "msg_1") == ITEMS[1]
    assert (await conversations.delete_item("ann", conversation_id, "msg_1")).id == conversation_id
    for call in (conversations.item, conversations.delete_item):
        with pytest.raises(ApiError) as failure:
            await call("ann", conversation_id, "msg_1")
        assert failure.value.code == "item_not_found"
    await conversations.append("ann", conversation_id, [ITEMS[1]])
    assert await conversations.history("ann", conversation_id, 9) == [ITEMS[0], ITEMS[2], ITEMS[1]]


async def test_an_id_occurs_once_and_nothing_is_added_where_one_is_there(conversations: ConversationStore) -> None:
    conversation_id = await made(conversations, 2)
    with pytest.raises(ApiError, match="'msg_1' is in the conversation already") as failure:
        await conversations.append("ann", conversation_id, [message("msg_5"), message("msg_1", "changed")])
    assert (failure.value.code, failure.value.param) == ("invalid_value", "items[1].id")
    assert await conversations.history("ann", conversation_id, 9) == ITEMS[:2]


async def test_a_conversation_with_an_id_twice_is_not_made(conversations: ConversationStore, db: Database) -> None:
    with pytest.raises(ApiError) as failure:
        await conversations.create("ann", {}, [message("msg_1"), message("msg_1")])
    assert failure.value.param == "items[1].id"
    assert await db.fetch("SELECT id FROM conversations") == []


async def test_the_same_id_may_be_in_two_conversations(conversations: ConversationStore) -> None:
    one, two = await made(conversations, 1), await made(conversations, 1)
    await conversations.delete_item("ann", one, "msg_0")
    assert await conversations.item("ann", two, "msg_0") == ITEMS[0]


async def test_items_appended_at_once_all_stay_each_ones_together(conversations: ConversationStore) -> None:
    conversation_id = await made(conversations, 0)
    groups = [[message(f"msg_{writer}_{number}") for number in range(3)] for writer in range(15)]
    await asyncio.gather(*(conversations.append("ann", conversation_id, group) for group in groups))
    items = await conversations.history("ann", conversation_id, 100)
    found = [items[start : start + 3] for start in range(0, len(items), 3)]
    assert sorted(found, key=str) == sorted(groups, key=str)


# ---------------------------------------------------------------- locks


async def test_of_two_locks_at_once_one_wins(conversations: ConversationStore) -> None:
    for _ in range(10):
        conversation_id = await made(conversations, 0)
        locks = (conversations.lock("ann", conversation_id, one, "here") for one in ("resp_1", "resp_2"))
        first, second = await asyncio.gather(*locks, return_exceptions=True)
        loser = first or second
        assert (first is None) != (second is None)
        assert isinstance(loser, ApiError)
        assert (loser.code, loser.status) == ("conversation_locked", 409)
        holder = (await conversations.get("ann", conversation_id)).locked_by
        assert holder == ("resp_1" if first is None else "resp_2")


async def test_who_has_a_lock_keeps_it(conversations: ConversationStore) -> None:
    conversation_id = await made(conversations, 0)
    for _ in range(2):
        await conversations.lock("ann", conversation_id, "resp_1", "here")
    await conversations.unlock(conversation_id, "resp_2")
    with pytest.raises(ApiError):
        await conversations.lock("ann", conversation_id, "resp_2", "here")
    await conversations.unlock(conversation_id, "resp_1")
    await conversations.lock("ann", conversation_id, "resp_2", "here")


async def test_a_locked_conversation_can_be_read_added_to_and_deleted(conversations: ConversationStore) -> None:
    conversation_id = await made(conversations, 1)
    await conversations.lock("ann", conversation_id, "resp_1", "here")
    await conversations.append("ann", conversation_id, [ITEMS[1]])
    assert (await conversations.get("ann", conversation_id)).locked_by == "resp_1"
    assert await conversations.delete("ann", conversation_id)


async def test_the_locks_of_one_instance_are_given_free(conversations: ConversationStore) -> None:
    mine, theirs = [await made(conversations, 0) for _ in range(3)], await made(conversations, 0)
    for number, conversation_id in enumerate(mine):
        await conversations.lock("ann", conversation_id, f"resp_{number}", "here")
    await conversations.lock("ann", theirs, "resp_9", "elsewhere")
    assert await conversations.unlock_all("here") == 3
    assert [(await conversations.get("ann", one)).locked_by for one in [*mine, theirs]] == [None] * 3 + ["resp_9"]


# ---------------------------------------------------------------- how much there is to read


async def test_a_history_of_too_many_bytes_is_refused_before_it_is_read(
    conversations: ConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [*ITEMS, message("msg_ü", "ü" * 100)]
    conversation_id = (await conversations.create("ann", {}, items[:5])).id
    await conversations.append("ann", conversation_id, items[5:])
    size = sum(len(as_text(item).encode()) for item in items)
    assert await conversations.history("ann", conversation_id, 10, most_bytes=size) == items
    monkeypatch.setattr(conversations, "_items", None)
    with pytest.raises(ApiError, match=f"longer than {size - 1} bytes") as failure:
        await conversations.history("ann", conversation_id, 10, size - 1)
    assert (failure.value.code, failure.value.param) == ("invalid_value", "conversation")


async def test_a_finished_responses_items_count(conversations: ConversationStore, responses: ResponseStore) -> None:
    conversation = await conversations.create("ann", {})
    await responses.create(stored_response(id="resp_1", conversation_id=conversation.id))
    end = response_object("resp_1")
    await responses.finish("resp_1", status="completed", response=end, conversation_items=ITEMS[:1])
    size = len(as_text(ITEMS[0]))
    assert await conversations.history("ann", conversation.id, 10, size) == ITEMS[:1]
    with pytest.raises(ApiError, match="longer than"):
        await conversations.history("ann", conversation.id, 10, size - 1)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(("most", "count"), [(0, 1), (1, 1), (2, 2), (3, 3), (9, 4)])
async def test_a_page_has_as_many_items_as_fit_and_one_at_least(
    conversations: ConversationStore,
    monkeypatch: pytest.MonkeyPatch,
    order: Literal["asc", "desc"],
    most: int,
    count: int,
) -> None:
    monkeypatch.setattr(stored, "MAX_PAGE_BYTES", len(as_text(ITEMS[0])) * most)
    conversation_id = await made(conversations, 4)
    in_order = ITEMS[:4] if order == "asc" else ITEMS[3::-1]
    assert await conversations.page("ann", conversation_id, order=order) == (in_order[:count], count < 4)


async def test_an_empty_page_has_no_more(conversations: ConversationStore) -> None:
    assert await conversations.page("ann", await made(conversations, 0)) == ([], False)


async def test_long_items_are_decoded_off_the_event_loop(
    conversations: ConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()

    def told(text: str) -> object:
        threads.add(threading.current_thread())
        return from_text(text)

    monkeypatch.setattr(stored, "from_text", told)
    long = message("msg_long", "long " * 50_000)
    conversation_id = (await conversations.create("ann", {}, [long])).id
    threads.clear()
    assert await conversations.item("ann", conversation_id, "msg_long") == long
    assert threads
    assert threading.current_thread() not in threads
