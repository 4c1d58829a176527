from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.stored import NOW_S, Clock, message, response_object, stored_response

from coterie.errors import ApiError
from coterie.storage import ConversationStore, Database, ResponseStore, StoredResponse
from coterie.storage.rows import PACKED_FROM_BYTES, as_text

LONG_EVENTS = b'event: response.output_text.delta\ndata: {"delta":"x"}\n\n' * 200


def code_of(failure: pytest.ExceptionInfo[ApiError]) -> str:
    return failure.value.code


async def everything(db: Database) -> dict[str, int]:
    """How many rows each table has."""
    tables = ("responses", "response_items", "conversations", "conversation_items")
    return {table: len(await db.fetch(f"SELECT 1 FROM {table}")) for table in tables}


async def chain(responses: ResponseStore, length: int, **fields: Any) -> list[str]:
    """Store ``length`` finished responses, each of which goes on from the one before."""
    ids = [f"resp_{number:03}" for number in range(length)]
    for number, one in enumerate(ids):
        before = ids[number - 1] if number else None
        await responses.create(
            stored_response(id=one, status="completed", previous_response_id=before, input=[message(f"msg_{number}")])
        )
    return ids


# ---------------------------------------------------------------- create, get


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"background": True, "status": "queued"},
        {"previous_response_id": "resp_1", "expires_at": None},
        {"conversation_id": "conv_1", "input": [message("msg_1", "\0 ü 🎲"), {"type": "x", "id": None}]},
        {"status": "completed", "events": b"event: x\ndata: {}\n\n"},
        {"status": "completed", "events": LONG_EVENTS},
        {"owner": ""},
    ],
)
async def test_a_response_comes_out_as_it_went_in(responses: ResponseStore, fields: dict[str, Any]) -> None:
    stored = stored_response(**fields)
    await responses.create(stored)
    assert await responses.get(stored.owner, stored.id) == stored


async def test_a_response_can_be_had_without_its_events(responses: ResponseStore) -> None:
    await responses.create(stored_response(id="resp_1", events=b"data: {}\n\n"))
    found = await responses.get("ann", "resp_1", events=False)
    assert found == stored_response(id="resp_1")


async def test_a_long_response_comes_out_as_it_went_in(responses: ResponseStore) -> None:
    stored = stored_response(input=[message("msg_1", "long " * 100_000)])
    await responses.create(stored)
    assert await responses.get("ann", stored.id) == stored


@pytest.mark.parametrize("response_id", ["resp_2", "", "\0", "resp_1\0", "ü" * 5000, "\ud800", "' OR 1=1 --"])
async def test_what_was_not_stored_does_not_exist(responses: ResponseStore, response_id: str) -> None:
    await responses.create(stored_response(id="resp_1"))
    assert await responses.get("ann", response_id) is None
    assert not await responses.delete("ann", response_id)
    assert await responses.items("ann", [response_id]) == {}
    with pytest.raises(ApiError) as failure:
        await responses.history("ann", response_id, 10)
    assert code_of(failure) == "previous_response_not_found"


async def test_a_foreign_owners_response_does_not_exist(responses: ResponseStore) -> None:
    await responses.create(stored_response(id="resp_1", status="completed", input=[message("msg_1")]))
    for owner in ("bob", ""):
        assert await responses.get(owner, "resp_1") is None
        assert not await responses.delete(owner, "resp_1")
        assert await responses.items(owner, ["msg_1"]) == {}
        with pytest.raises(ApiError) as failure:
            await responses.history(owner, "resp_1", 10)
        assert code_of(failure) == "previous_response_not_found"
    assert await responses.get("ann", "resp_1") is not None


async def test_an_expired_response_does_not_exist(responses: ResponseStore, clock: Clock) -> None:
    await responses.create(stored_response(id="resp_1", status="completed", input=[message("msg_1")]))
    clock.now_s = NOW_S + 59.9
    assert await responses.get("ann", "resp_1") is not None
    clock.now_s = NOW_S + 60
    assert await responses.get("ann", "resp_1") is None
    assert await responses.get("ann", "resp_1", events=False) is None
    assert not await responses.delete("ann", "resp_1")
    assert await responses.items("ann", ["msg_1"]) == {}
    with pytest.raises(ApiError) as failure:
        await responses.history("ann", "resp_1", 10)
    assert code_of(failure) == "previous_response_not_found"


async def test_the_same_response_is_not_stored_twice(responses: ResponseStore) -> None:
    await responses.create(stored_response(id="resp_1", input=[message("msg_1")]))
    with pytest.raises(ApiError) as failure:
        await responses.create(stored_response(id="resp_1", model="other"))
    assert code_of(failure) == "storage_failed"
    found = await responses.get("ann", "resp_1")
    assert found is not None
    assert found.model == "m"


# ---------------------------------------------------------------- set_response, finish


async def test_a_queued_response_goes_on(responses: ResponseStore) -> None:
    await responses.create(stored_response(id="resp_1", status="queued"))
    assert await responses.set_response("resp_1", "in_progress", response_object("resp_1", "in_progress"))
    assert await responses.get("ann", "resp_1") == stored_response(id="resp_1", status="in_progress")


@pytest.mark.parametrize("events", [None, b"event: x\ndata: {}\n\n", LONG_EVENTS])
async def test_a_finished_response_says_how_it_ended(responses: ResponseStore, events: bytes | None) -> None:
    await responses.create(stored_response(id="resp_1", input=[message("msg_1")]))
    end = response_object("resp_1", "completed", message("msg_2", role="assistant"))
    assert await responses.finish("resp_1", status="completed", response=end, events=events)
    assert await responses.get("ann", "resp_1") == stored_response(
        id="resp_1", status="completed", response=end, events=events, input=[message("msg_1")]
    )


async def test_long_events_lie_compressed(responses: ResponseStore, db: Database) -> None:
    assert len(LONG_EVENTS) > PACKED_FROM_BYTES
    await responses.create(stored_response(id="resp_1"))
    await responses.finish("resp_1", status="completed", response={}, events=LONG_EVENTS)
    (row,) = await db.fetch("SELECT events FROM responses")
    assert len(row["events"]) < len(LONG_EVENTS) // 10


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed", "cancelled"])
async def test_the_first_end_stands(responses: ResponseStore, status: str) -> None:
    await responses.create(stored_response(id="resp_1"))
    assert await responses.finish("resp_1", status=status, response=response_object("resp_1", status), events=b"1")
    other = response_object("resp_1", "failed", message("msg_9"))
    assert not await responses.finish("resp_1", status="failed", response=other, events=b"2")
    assert not await responses.set_response("resp_1", "in_progress", other)
    assert await responses.get("ann", "resp_1") == stored_response(id="resp_1", status=status, events=b"1")
    assert await responses.items("ann", ["msg_9"]) == {}


async def test_a_response_deleted_meanwhile_stores_nothing(
    responses: ResponseStore, conversations: ConversationStore, db: Database
) -> None:
    conversation = await conversations.create("ann", {})
    await conversations.lock("ann", conversation.id, "resp_1", "here")
    await responses.create(stored_response(id="resp_1", conversation_id=conversation.id, input=[message("msg_1")]))
    assert await responses.delete("ann", "resp_1")
    end = response_object("resp_1", "completed", message("msg_2"))
    assert not await responses.finish(
        "resp_1", status="completed", response=end, events=LONG_EVENTS, conversation_items=[message("msg_2")]
    )
    counts = {"responses": 0, "response_items": 0, "conversations": 1, "conversation_items": 0}
    assert await everything(db) == counts
    assert (await conversations.get("ann", conversation.id)).locked_by is None


async def test_the_end_of_a_turn_is_in_its_conversation(
    responses: ResponseStore, conversations: ConversationStore
) -> None:
    conversation = await conversations.create("ann", {}, [message("msg_0")])
    await conversations.lock("ann", conversation.id, "resp_1", "here")
    await responses.create(stored_response(id="resp_1", conversation_id=conversation.id))
    added = [message("msg_0", "again"), message("msg_1"), message("msg_2")]
    end = response_object("resp_1")
    assert await responses.finish("resp_1", status="completed", response=end, conversation_items=added)
    await conversations.append("ann", conversation.id, [message("msg_3")])
    items = [message("msg_0"), message("msg_1"), message("msg_2"), message("msg_3")]
    assert await conversations.history("ann", conversation.id, 10) == items
    assert (await conversations.get("ann", conversation.id)).locked_by is None


async def test_a_turn_that_adds_nothing_gives_its_conversation_free(
    responses: ResponseStore, conversations: ConversationStore
) -> None:
    conversation = await conversations.create("ann", {})
    await conversations.lock("ann", conversation.id, "resp_1", "here")
    await responses.create(stored_response(id="resp_1", conversation_id=conversation.id))
    assert await responses.finish("resp_1", status="failed", response=response_object("resp_1", "failed"))
    assert (await conversations.get("ann", conversation.id)).locked_by is None


async def test_a_turn_outlives_its_conversation(responses: ResponseStore, conversations: ConversationStore) -> None:
    conversation = await conversations.create("ann", {})
    await responses.create(stored_response(id="resp_1", conversation_id=conversation.id))
    await conversations.delete("ann", conversation.id)
    end = response_object("resp_1")
    assert await responses.finish("resp_1", status="completed", response=end, conversation_items=[message("msg_1")])
    found = await responses.get("ann", "resp_1")
    assert found is not None
    assert found.status == "completed"


async def test_a_turn_adds_nothing_to_a_foreign_conversation(
    responses: ResponseStore, conversations: ConversationStore, db: Database
) -> None:
    foreign = await conversations.create("bob", {})
    await responses.create(stored_response(id="resp_1", conversation_id=foreign.id))
    await responses.finish("resp_1", status="completed", response={}, conversation_items=[message("msg_1")])
    assert (await everything(db))["conversation_items"] == 0
    (row,) = await db.fetch("SELECT next_position FROM conversations")
    assert row[0] == 0


async def test_a_cancelled_finish_happened_whole_or_not_at_all(
    responses: ResponseStore, conversations: ConversationStore
) -> None:
    conversation = await conversations.create("ann", {})
    for turns in range(30):
        response_id, item = f"resp_{turns}", message(f"msg_{turns}")
        await conversations.lock("ann", conversation.id, response_id, "here")
        await responses.create(stored_response(id=response_id, conversation_id=conversation.id))
        finish = responses.finish(
            response_id, status="completed", response=response_object(response_id), conversation_items=[item]
        )
        task = asyncio.create_task(finish)
        for _ in range(turns):
            await asyncio.sleep(0.0001 * (turns % 2))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        found = await responses.get("ann", response_id)
        assert found is not None
        # A cancelled job that the database works on just now may end after its caller.
        await conversations.update("ann", conversation.id, {"turn": str(turns)})
        found = await responses.get("ann", response_id)
        assert found is not None
        finished = found.status == "completed"
        assert (item in await conversations.history("ann", conversation.id, 100)) == finished
        assert ((await conversations.get("ann", conversation.id)).locked_by is None) == finished
        await conversations.unlock(conversation.id, response_id)


async def test_many_turns_at_once_all_end(responses: ResponseStore) -> None:
    async def turn(number: int) -> bool:
        await responses.create(stored_response(id=f"resp_{number}"))
        end = response_object(f"resp_{number}", "completed", message(f"msg_{number}"))
        return await responses.finish(f"resp_{number}", status="completed", response=end, events=LONG_EVENTS)

    assert all(await asyncio.gather(*(turn(number) for number in range(50))))
    assert len(await responses.items("ann", [f"msg_{number}" for number in range(50)])) == 50


async def test_of_two_ends_at_once_one_stands(responses: ResponseStore) -> None:
    for number in range(10):
        response_id = f"resp_{number}"
        await responses.create(stored_response(id=response_id))
        ends = await asyncio.gather(
            *(
                responses.finish(response_id, status=status, response=response_object(response_id, status))
                for status in ("completed", "cancelled")
            )
        )
        assert sorted(ends) == [False, True]
        found = await responses.get("ann", response_id)
        assert found is not None
        assert found.status == found.response["status"] == ("completed" if ends[0] else "cancelled")


# ---------------------------------------------------------------- delete, purge


async def test_a_deleted_response_is_gone_with_all_that_is_its(responses: ResponseStore, db: Database) -> None:
    kept = stored_response(id="resp_2", input=[message("msg_1")])
    await responses.create(stored_response(id="resp_1", input=[message("msg_1"), message("msg_2")]))
    await responses.create(kept)
    assert await responses.delete("ann", "resp_1")
    assert not await responses.delete("ann", "resp_1")
    assert await everything(db) == {"responses": 1, "response_items": 1, "conversations": 0, "conversation_items": 0}
    assert await responses.get("ann", "resp_2") == kept


async def test_purge_removes_exactly_what_has_expired(
    responses: ResponseStore, conversations: ConversationStore, db: Database
) -> None:
    await conversations.create("ann", {}, [message("msg_c")])
    expiries = {"resp_old": NOW_S - 1, "resp_due": NOW_S, "resp_new": NOW_S + 1, "resp_kept": None}
    for response_id, expires_at in expiries.items():
        items = [message(f"msg_{response_id}")]
        await responses.create(stored_response(id=response_id, expires_at=expires_at, input=items))
    assert await responses.purge(NOW_S + 0.5) == 2
    assert [row["id"] for row in await db.fetch("SELECT id FROM responses ORDER BY id")] == ["resp_kept", "resp_new"]
    assert await everything(db) == {"responses": 2, "response_items": 2, "conversations": 1, "conversation_items": 1}
    assert await responses.purge(NOW_S + 0.5) == 0


async def test_purge_removes_more_than_one_statement_does(
    responses: ResponseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coterie.storage.responses._PURGED_AT_ONCE", 3)
    await chain(responses, 10)
    assert await responses.purge(NOW_S + 60) == 10


# ---------------------------------------------------------------- history


async def test_history_is_the_chain_from_its_beginning(responses: ResponseStore) -> None:
    ids = await chain(responses, 4)
    await responses.create(stored_response(id="resp_aside", status="completed", previous_response_id=ids[1]))
    assert [one.id for one in await responses.history("ann", ids[3], 4)] == ids
    assert [one.id for one in await responses.history("ann", "resp_aside", 10)] == [*ids[:2], "resp_aside"]
    (first,) = await responses.history("ann", ids[0], 1)
    assert first == await responses.get("ann", ids[0], events=False)


async def test_history_of_a_hundred_links_is_two_queries(
    responses: ResponseStore, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await chain(responses, 100)
    asked = []

    async def fetch(sql: str, *args: Any) -> Any:
        asked.append(sql)
        return await type(db).fetch(db, sql, *args)

    monkeypatch.setattr(db, "fetch", fetch)
    history = await responses.history("ann", ids[-1], 100)
    assert [one.id for one in history] == ids
    assert [one.input for one in history] == [[message(f"msg_{number}")] for number in range(100)]
    assert len(asked) == 2


async def test_a_chain_beyond_the_limit_is_told(responses: ResponseStore) -> None:
    ids = await chain(responses, 4)
    with pytest.raises(ApiError, match="more than 3 responses") as failure:
        await responses.history("ann", ids[3], 3)
    assert (code_of(failure), failure.value.param) == ("invalid_value", "previous_response_id")


@pytest.mark.parametrize("missing", range(3))
async def test_a_missing_link_is_told_by_its_name(responses: ResponseStore, missing: int) -> None:
    ids = await chain(responses, 3)
    await responses.delete("ann", ids[missing])
    with pytest.raises(ApiError, match=f"'{ids[missing]}' not found") as failure:
        await responses.history("ann", ids[2], 10)
    assert (code_of(failure), failure.value.param) == ("previous_response_not_found", "previous_response_id")


async def test_a_missing_link_is_told_as_the_client_wrote_it(responses: ResponseStore) -> None:
    with pytest.raises(ApiError, match="'résumé' not found"):
        await responses.history("ann", "résumé", 10)


@pytest.mark.parametrize("status", ["queued", "in_progress"])
async def test_an_unfinished_link_is_told(responses: ResponseStore, status: str) -> None:
    ids = await chain(responses, 2)
    await responses.create(stored_response(id="resp_now", status=status, previous_response_id=ids[1]))
    with pytest.raises(ApiError, match="resp_now") as failure:
        await responses.history("ann", "resp_now", 10)
    assert (code_of(failure), failure.value.param) == ("previous_response_not_finished", "previous_response_id")


async def test_a_chain_that_bites_its_tail_ends_at_the_limit(responses: ResponseStore) -> None:
    for one, before in (("resp_a", "resp_b"), ("resp_b", "resp_a")):
        await responses.create(stored_response(id=one, status="completed", previous_response_id=before))
    with pytest.raises(ApiError, match="more than 10"):
        await responses.history("ann", "resp_a", 10)


# ---------------------------------------------------------------- items


async def test_items_are_found_in_inputs_outputs_and_conversations(
    responses: ResponseStore, conversations: ConversationStore
) -> None:
    await responses.create(stored_response(id="resp_1", input=[message("msg_in")]))
    end = response_object("resp_1", "completed", message("msg_out", role="assistant"))
    await responses.finish("resp_1", status="completed", response=end)
    await conversations.create("ann", {}, [message("msg_said")])
    found = await responses.items("ann", ["msg_in", "msg_out", "msg_said", "msg_none", "msg_in"])
    assert found == {
        "msg_in": message("msg_in"), "msg_out": message("msg_out", role="assistant"), "msg_said": message("msg_said"),
    }  # fmt: skip
    assert await responses.items("ann", []) == {}


async def test_of_equal_ids_an_output_is_meant_then_the_oldest(responses: ResponseStore) -> None:
    replay = [message("msg_1", "a replay"), message("msg_2", "the first")]
    await responses.create(stored_response(id="resp_0", created_at=NOW_S - 2, input=replay))
    await responses.create(stored_response(id="resp_1", created_at=NOW_S - 1, input=[message("msg_2", "a replay")]))
    said = message("msg_1", "as it was said")
    await responses.finish("resp_1", status="completed", response=response_object("resp_1", "completed", said))
    assert await responses.items("ann", ["msg_1", "msg_2"]) == {"msg_1": said, "msg_2": message("msg_2", "the first")}


async def test_an_id_that_a_client_made_up_is_found_again(responses: ResponseStore, db: Database) -> None:
    ids = ["with space", "nul \0", "ü" * 3000, "a" * 3000]
    await responses.create(stored_response(id="resp_1", input=[message(one) for one in [*ids, ids[0]]]))
    assert await responses.items("ann", ids) == {one: message(one) for one in ids}
    assert (await everything(db))["response_items"] == 4


async def test_more_items_than_one_query_asks_for_are_found(responses: ResponseStore) -> None:
    ids = [f"msg_{number}" for number in range(1200)]
    await responses.create(stored_response(id="resp_1", input=[message(one) for one in ids]))
    assert await responses.items("ann", ids) == {one: message(one) for one in ids}


# ---------------------------------------------------------------- unfinished


async def test_unfinished_are_those_of_the_instance_whoever_owns_them(responses: ResponseStore) -> None:
    expected = [
        stored_response(id="resp_1", created_at=NOW_S - 5, status="queued", owner="bob"),
        stored_response(id="resp_2", expires_at=NOW_S - 1),
    ]
    others = [
        stored_response(id="resp_3", instance="elsewhere"),
        *(stored_response(status=status) for status in ("completed", "incomplete", "failed", "cancelled")),
    ]
    for stored in [*reversed(expected), *others]:
        await responses.create(stored)
    assert await responses.unfinished("here") == expected
    for stored in expected:
        await responses.finish(stored.id, status="failed", response=response_object(stored.id, "failed"))
    assert await responses.unfinished("here") == []


def test_a_stored_response_is_a_value() -> None:
    with pytest.raises(AttributeError):
        stored_response().status = "completed"  # type: ignore[misc]
    assert StoredResponse.__slots__


async def test_unfinished_can_be_had_one_by_one(responses: ResponseStore) -> None:
    first, second = stored_response(created_at=NOW_S - 5, owner="bob"), stored_response(expires_at=NOW_S - 1)
    for stored in (second, first, stored_response(status="completed"), stored_response(instance="elsewhere")):
        await responses.create(stored)
    ids = await responses.unfinished_ids("here")
    assert ids == [first.id, second.id]
    assert [await responses.load(one) for one in ids] == [first, second]
    assert await responses.load("resp_none") is None


# ---------------------------------------------------------------- how much there is to read


class Reads:
    """The statements that were read with."""

    def __init__(self, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements: list[str] = []
        fetch = db.fetch

        async def told(sql: str, *args: Any) -> Any:
            self.statements.append(sql)
            return await fetch(sql, *args)

        monkeypatch.setattr(db, "fetch", told)

    @property
    def of_bodies(self) -> int:
        return sum("r.input" in statement or "SELECT item" in statement for statement in self.statements)


async def test_a_chain_of_too_many_bytes_is_refused_before_it_is_read(
    responses: ResponseStore, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await chain(responses, 3)
    said = message("msg_end", "ü" * 100, role="assistant")
    await responses.create(stored_response(id="resp_end", previous_response_id=ids[-1]))
    await responses.finish("resp_end", status="completed", response=response_object("resp_end", "completed", said))
    whole = await responses.history("ann", "resp_end", 9)
    size = sum(len(as_text(one.response).encode()) + len(as_text(one.input).encode()) for one in whole)
    assert await responses.history("ann", "resp_end", 9, most_bytes=size) == whole
    reads = Reads(db, monkeypatch)
    with pytest.raises(ApiError, match=f"it ends is longer than {size - 1} bytes") as failure:
        await responses.history("ann", "resp_end", 9, size - 1)
    assert (failure.value.code, failure.value.param) == ("invalid_value", "previous_response_id")
    assert (len(reads.statements), reads.of_bodies) == (1, 0)


# ---------------------------------------------------------------- locks of what is deleted


async def locked(conversations: ConversationStore, response_id: str) -> str:
    """A conversation that ``response_id`` holds."""
    conversation = await conversations.create("ann", {})
    await conversations.lock("ann", conversation.id, response_id, "elsewhere")
    return conversation.id


async def test_deleting_a_response_frees_its_conversation(
    responses: ResponseStore, conversations: ConversationStore
) -> None:
    name, other = await locked(conversations, "resp_1"), await locked(conversations, "resp_2")
    await responses.create(stored_response(id="resp_1", conversation_id=name))
    assert not await responses.delete("bob", "resp_1")
    assert (await conversations.get("ann", name)).locked_by == "resp_1"
    assert await responses.delete("ann", "resp_1")
    assert (await conversations.get("ann", name)).locked_by is None
    assert (await conversations.get("ann", other)).locked_by == "resp_2"


async def test_an_expired_response_frees_its_conversation(
    responses: ResponseStore, conversations: ConversationStore
) -> None:
    expired, other = await locked(conversations, "resp_1"), await locked(conversations, "resp_2")
    await responses.create(stored_response(id="resp_1", expires_at=NOW_S, conversation_id=expired))
    await responses.create(stored_response(id="resp_2", expires_at=NOW_S + 1, conversation_id=other))
    assert await responses.purge(NOW_S) == 1
    assert (await conversations.get("ann", expired)).locked_by is None
    assert (await conversations.get("ann", other)).locked_by == "resp_2"
