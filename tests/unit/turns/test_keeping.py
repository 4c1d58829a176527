"""What is kept of turns: whose it is, what comes before them, and what an earlier process left."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.provider import WHOLE, delta
from tests.support.responding import FAILURE, Gate, failing, last, plan, read, text_of
from tests.support.stored import message
from tests.support.turning import Running, conversation, finished, is_free, rows, stored, texts
from tests.support.web import settings

from coterie.errors import ApiError
from coterie.storage import ResponseStore
from coterie.turns import keeping as keeping_module
from coterie.turns.keeping import Keeping
from coterie.turns.keeping import finished as usable
from coterie.turns.opening import opened_keeping


@asynccontextmanager
async def reopened(folder: Path) -> AsyncIterator[Keeping]:
    """The storage as the next process of this server finds it."""
    async with opened_keeping(settings(state_dir=folder)) as keeping:
        yield keeping


@asynccontextmanager
async def reopened_as(folder: Path, name: str) -> AsyncIterator[Keeping]:
    """The database of this server as another one finds it, with its own name and journals."""
    (folder / name).mkdir()
    shared = {"url": f"sqlite:///{folder / 'coterie.db'}"}
    async with opened_keeping(settings(state_dir=folder / name, storage=shared)) as keeping:
        yield keeping


async def code_of(awaitable: Any) -> str:
    with pytest.raises(ApiError) as caught:
        await awaitable
    return caught.value.code


def words(context: Any) -> list[str]:
    return [item["content"][0]["text"] for item in context]


# What comes before a turn


async def test_a_turn_stands_on_all_responses_before_it(keeping: Keeping) -> None:
    first, _ = await finished(keeping, plan(input="one"))
    asked = await keeping.plan(plan(input="two", previous_response_id=first.plan.id))
    assert words(asked.context) == ["one", "Hello"]
    second, _ = await finished(keeping, asked)
    asked = await keeping.plan(plan(previous_response_id=second.plan.id))
    assert words(asked.context) == ["one", "Hello", "two", "Hello"]


async def test_a_given_context_is_not_looked_up(keeping: Keeping) -> None:
    asked = await keeping.plan(plan(previous_response_id="resp_nobody_knows"), [message("msg_1", "said")])
    assert words(asked.context) == ["said"]


async def test_a_conversation_comes_before_its_turn_and_is_locked(keeping: Keeping) -> None:
    name = await conversation(keeping, message("msg_1", "one"), message("msg_2", "two"))
    asked = await keeping.plan(plan(conversation=name))
    assert words(asked.context) == ["one", "two"]
    assert await code_of(keeping.plan(plan(conversation=name))) == "conversation_locked"
    await keeping.withdraw(asked)
    assert await is_free(keeping, name)


async def test_a_turn_aside_reads_its_conversation_and_leaves_it_as_it_is(keeping: Keeping) -> None:
    name = await conversation(keeping, message("msg_1", "one"))
    holder = await keeping.plan(plan(conversation=name))
    aside = dataclasses.replace(plan(conversation=name, told=False, store=False), aside=True)
    asked = await keeping.plan(aside)
    assert words(asked.context) == ["one"]
    await finished(keeping, asked)
    assert await texts(keeping, name) == ["one"]
    assert not await is_free(keeping, name)
    await keeping.withdraw(holder)


async def test_what_broke_off_is_not_built_on(keeping: Keeping) -> None:
    call = {"type": "function_call", "id": "fc_1", "status": "incomplete", "call_id": "c", "name": "f", "arguments": ""}
    whole = {**call, "id": "fc_2", "status": "completed"}
    half = {**message("msg_1", "ha", "assistant"), "status": "incomplete"}
    thought = {"type": "reasoning", "id": "rs_1", "status": "incomplete", "summary": []}
    assert list(usable([call, whole, half, thought])) == [whole, half]


async def test_references_are_found_in_the_context_and_in_what_is_stored(keeping: Keeping) -> None:
    earlier, _ = await finished(keeping, plan(input="stored"))
    kept, answer = earlier.plan.parsed.input[0]["id"], earlier.response["output"][0]["id"]
    refer = [{"type": "item_reference", "id": name} for name in (kept, answer, "msg_near", "msg_nowhere")]
    asked = await keeping.plan(plan(input=refer), [message("msg_near", "near")])
    assert {name: words([item])[0] for name, item in asked.found.items()} == {
        kept: "stored", answer: "Hello", "msg_near": "near",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["lock", "history"])
@pytest.mark.parametrize("done_first", [True, False], ids=["done", "not done"])
async def test_a_client_that_leaves_while_its_conversation_is_locked_frees_it(
    keeping: Keeping, method: str, done_first: bool
) -> None:
    name = await conversation(keeping, message("msg_1", "one"))
    gate = Gate(keeping.conversations, method, done_first=done_first)
    planning = asyncio.create_task(keeping.plan(plan(conversation=name)))
    await gate.reached.wait()
    planning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await planning
    await keeping.stop()
    assert await is_free(keeping, name)


@pytest.mark.parametrize("holder", ["conversations.history", "responses.items"])
async def test_a_plan_that_fails_frees_its_conversation(keeping: Keeping, holder: str) -> None:
    name = await conversation(keeping, message("msg_1", "one"))
    store, _, method = holder.partition(".")
    refer = [{"type": "item_reference", "id": "msg_x"}]
    with failing(getattr(keeping, store), method) as called:
        assert await code_of(keeping.plan(plan(conversation=name, input=refer))) == "storage_failed"
    assert called == [method]
    assert await is_free(keeping, name)


@pytest.mark.parametrize("bound", ["_CONVERSATION_ITEMS", "_HISTORY_BYTES"])
async def test_a_conversation_that_is_too_long_is_told_and_free(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    name = await conversation(keeping, *(message(f"msg_{i}", "x") for i in range(5)))
    monkeypatch.setattr(keeping_module, bound, 4)
    assert await code_of(keeping.plan(plan(conversation=name))) == "invalid_value"
    assert await is_free(keeping, name)


async def test_a_conversation_may_have_more_items_than_a_response_may_stand_on(keeping: Keeping) -> None:
    name = await conversation(keeping, *(message(f"msg_{i}", "x") for i in range(5)))
    keeping.settings = keeping.settings.model_copy(update={"history": 4})
    assert len((await keeping.plan(plan(conversation=name))).context) == 5


async def test_a_chain_that_is_too_long_is_told(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    turn, _ = await finished(keeping, plan())
    monkeypatch.setattr(keeping_module, "_HISTORY_BYTES", 4)
    assert await code_of(keeping.plan(plan(previous_response_id=turn.plan.id))) == "invalid_value"


@pytest.mark.parametrize("aside", [True, False])
async def test_a_conversation_that_is_not_there_is_named_by_its_parameter(keeping: Keeping, aside: bool) -> None:
    with pytest.raises(ApiError) as caught:
        await keeping.plan(dataclasses.replace(plan(conversation="conv_0"), aside=aside))
    assert (caught.value.code, caught.value.param) == ("conversation_not_found", "conversation")
    assert "conv_0" in str(caught.value)


# Whose it is


async def test_a_thing_of_another_owner_is_refused_like_one_that_never_was(keeping: Keeping) -> None:
    turn, _ = await finished(keeping, plan(owner="ann"))
    name = (await keeping.conversations.create("ann", {}, [])).id
    for field, mine, never in (("previous_response_id", turn.plan.id, "resp_0"), ("conversation", name, "conv_0")):
        asked: dict[str, Any] = {field: mine}
        absent: dict[str, Any] = {field: never}
        with pytest.raises(ApiError) as foreign:
            await keeping.plan(plan(owner="bob", **asked))
        with pytest.raises(ApiError) as missing:
            await keeping.plan(plan(owner="bob", **absent))
        assert foreign.value.code == missing.value.code
        assert str(foreign.value).replace(mine, "ID") == str(missing.value).replace(never, "ID")
        await keeping.plan(plan(owner="ann", **asked))


async def test_references_do_not_lead_to_another_owners_items(keeping: Keeping) -> None:
    turn, _ = await finished(keeping, plan(owner="ann"))
    refer = [{"type": "item_reference", "id": turn.response["output"][0]["id"]}]
    assert (await keeping.plan(plan(owner="bob", input=refer))).found == {}
    assert (await keeping.plan(plan(owner="ann", input=refer))).found != {}


async def test_a_response_expires_as_configured(keeping: Keeping) -> None:
    keeping.settings = keeping.settings.model_copy(update={"retention_days": 0.5})
    turn, _ = await finished(keeping, plan())
    row = await stored(keeping, turn)
    assert row.expires_at - row.created_at == 43_200


async def test_what_is_stored_tells_of_the_request(keeping: Keeping) -> None:
    first, _ = await finished(keeping, plan())
    turn, _ = await finished(keeping, await keeping.plan(plan(previous_response_id=first.plan.id)))
    row = await stored(keeping, turn)
    assert (row.model, row.previous_response_id, row.background) == ("m", first.plan.id, False)
    assert row.input == list(turn.plan.parsed.input)


# Deleted while it runs


async def test_a_response_that_is_deleted_while_it_runs_leaves_nothing(
    keeping: Keeping, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    name = await conversation(keeping)
    asked = await keeping.plan(plan(conversation=name))
    running = Running(keeping, asked, (delta("a"), asyncio.Event()))
    await running.sink.told.wait()
    await keeping.responses.delete("", asked.id)  # by another server
    running.turn.cancel()
    await running.task
    assert last(running.sink.stream)["status"] == "cancelled"
    assert await rows(keeping) == []
    assert await is_free(keeping, name)
    assert list((folder / "responses").iterdir()) == []
    assert "was deleted while it ran" in caplog.text


# What is owed


async def test_what_is_owed_stays_owed_until_it_is_taken(keeping: Keeping) -> None:
    name = await conversation(keeping)
    asked = await keeping.plan(plan(conversation=name))
    with failing(keeping.conversations, "unlock") as called:
        await keeping.withdraw(asked)
        await keeping.mend()
        await keeping.mend()
        assert len(called) == 3
    await keeping.mend()
    assert await is_free(keeping, name)
    with failing(keeping.conversations, "unlock") as called:
        await keeping.mend()
    assert called == []


async def test_what_fails_in_an_unexpected_way_is_owed_as_well_and_holds_nothing_up(
    keeping: Keeping, caplog: pytest.LogCaptureFixture
) -> None:
    names = [await conversation(keeping) for _ in range(2)]
    asked = [await keeping.plan(plan(conversation=name)) for name in names]
    with failing(keeping.conversations, "unlock", error=RuntimeError("a bug")) as called:
        for each in asked:
            await keeping.withdraw(each)
        await keeping.mend()
        assert len(called) == 4
    assert "a bug" in caplog.text
    await keeping.mend()
    assert [await is_free(keeping, name) for name in names] == [True, True]
    assert keeping._owed == {}


def unclear(holder: Any, method: str, error: Exception = FAILURE) -> list[Any]:
    """From now on ``method`` fails after it has done what it is for; gives what it would have given."""
    done, results = getattr(holder, method), []

    async def fail(*args: Any, **options: Any) -> Any:
        results.append(await done(*args, **options))
        raise error

    setattr(holder, method, fail)
    return results


@pytest.mark.parametrize("error", [FAILURE, RuntimeError("a bug")], ids=["failure", "bug"])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("in_conversation", [True, False])
async def test_an_end_that_is_stored_is_told_although_storing_it_failed(
    keeping: Keeping, folder: Path, told: bool, in_conversation: bool, error: Exception
) -> None:
    name = await conversation(keeping)
    asked = await keeping.plan(plan(told=told, **({"conversation": name} if in_conversation else {})))
    results = unclear(keeping.responses, "finish" if told or in_conversation else "create", error)
    turn, sink = await finished(keeping, asked)
    assert len(results) == 1
    assert turn.failure is None
    row = await stored(keeping, turn)
    assert row.response == turn.response
    assert row.status == "completed"
    if told:
        assert row.events == sink.stream
        assert last(sink.stream) == row.response
    await keeping.stop()
    assert await is_free(keeping, name)
    assert await texts(keeping, name) == (["Hi", "Hello"] if in_conversation else [])
    assert await rows(keeping) != []
    assert (keeping.running, keeping._owed) == ({}, {})
    assert list((folder / "responses").iterdir()) == []


async def test_a_plain_answer_whose_storing_cannot_be_seen_is_taken_back_whole(keeping: Keeping) -> None:
    name = await conversation(keeping, message("msg_1", "before"))
    asked = await keeping.plan(plan(told=False, conversation=name))
    unclear(keeping.responses, "finish")
    with failing(keeping.responses, "load"), failing(keeping.conversations, "delete_item"):
        assert await code_of(finished(keeping, asked)) == "storage_failed"
        await keeping.stop()
    await keeping.mend()
    assert await rows(keeping) == []
    assert await texts(keeping, name) == ["before"]
    assert await is_free(keeping, name)
    assert keeping._owed == {}


async def test_what_was_in_the_conversation_is_not_taken_back(keeping: Keeping) -> None:
    name = await conversation(keeping, message("msg_1", "before"))
    refer = [{"type": "item_reference", "id": "msg_1"}]
    asked = await keeping.plan(plan(told=False, conversation=name, input=refer))
    unclear(keeping.responses, "finish")
    with failing(keeping.responses, "load"):
        assert await code_of(finished(keeping, asked)) == "storage_failed"
    await keeping.stop()
    assert await texts(keeping, name) == ["before"]


async def test_an_end_that_cannot_be_seen_is_told_as_a_failure(keeping: Keeping, folder: Path) -> None:
    unclear(keeping.responses, "finish")
    with failing(keeping.responses, "load"):
        turn, sink = await finished(keeping, plan())
    assert turn.failure is FAILURE
    assert last(sink.stream) == turn.response
    assert keeping._owed != {}


async def test_an_end_that_another_server_has_stored_is_told_as_a_failure(keeping: Keeping, folder: Path) -> None:
    asked = plan()
    running = Running(keeping, asked, (delta("a"), gate := asyncio.Event(), *WHOLE))
    await running.sink.told.wait()
    async with reopened_as(folder, "another") as other:
        assert await other.recover(keeping._instance) == 1
    gate.set()
    await running.task
    assert running.turn.failure is not None
    assert running.turn.failure.code == "response_interrupted"
    assert last(running.sink.stream)["status"] == (await stored(keeping, running.turn)).status == "failed"
    assert (keeping.running, keeping._owed) == ({}, {})


async def test_the_end_of_the_server_tries_once_more(keeping: Keeping) -> None:
    with failing(keeping.responses, "finish"):
        turn, _ = await finished(keeping, plan())
    await keeping.stop()
    assert (await stored(keeping, turn)).status == "failed"


async def test_the_end_of_the_server_waits_for_what_is_being_stored(keeping: Keeping) -> None:
    gate = Gate(keeping.responses, "finish")
    running = Running(keeping, plan())
    await gate.reached.wait()
    running.task.cancel()
    stopping = asyncio.create_task(keeping.stop())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not stopping.done()
    gate.opened.set()
    await stopping
    assert (await stored(keeping, running.turn)).status == "completed"


async def test_work_whose_failure_nobody_waits_for_is_done_with(keeping: Keeping) -> None:
    async def fail() -> None:
        raise FAILURE

    keeping.spawn(fail())
    await keeping.stop()


# After the process that ran it


async def broken_off(folder: Path, *, background: bool = False, torn: bytes = b"") -> tuple[str, bytes, str]:
    """A response of a process that was killed: its id, what was said of it, its conversation."""
    async with opened_keeping(settings(state_dir=folder)) as keeping:
        name = await conversation(keeping, message("msg_1", "before"))
        asked = await keeping.plan(plan(conversation=name, background=background))
        running = Running(keeping, asked, (delta("Hel"), delta("lo"), asyncio.Event()))
        if background:
            await running.accepted.wait()
        else:
            await running.sink.told.wait()
            for _ in range(5):
                await asyncio.sleep(0)
        files = {path: path.read_bytes() for path in (folder / "responses").iterdir()}
        with failing(keeping.responses, "finish"), failing(keeping.conversations, "unlock"):
            # What the end of the process does not do here, nobody can: nothing of it is stored.
            running.turn.cancel()
            running.go.set()
            await running.task
            await keeping.stop()
            keeping._owed.clear()
    for path, data in files.items():
        path.write_bytes(data + torn)
    return asked.id, b"".join(files.values()), name


@pytest.mark.parametrize("torn", [b"", b"event: response.outp", b"event: x\ndata: {"], ids=["whole", "torn", "data"])
async def test_what_an_earlier_process_left_is_failed_with_all_that_was_said(folder: Path, torn: bytes) -> None:
    response_id, said, name = await broken_off(folder, torn=torn)
    assert b"Hel" in said
    async with reopened(folder) as keeping:
        row = await keeping.responses.get("", response_id)
        assert row is not None
        assert row.status == row.response["status"] == "failed"
        assert row.response["error"]["code"] == "server_error"
        assert row.events is not None
        assert row.events.startswith(said)
        assert last(row.events) == row.response
        assert text_of(row.response) in ("Hel", "Hello")
        kinds = [one["type"] for one in read(row.events)]
        assert kinds[-2:] == ["error", "response.failed"]
        assert await is_free(keeping, name)
        assert await texts(keeping, name) == ["before"]
        assert list((folder / "responses").iterdir()) == []
        assert await keeping.recover() == 0


async def test_a_response_that_was_queued_is_failed_too(folder: Path) -> None:
    response_id, _, name = await broken_off(folder, background=True)
    async with reopened(folder) as keeping:
        row = await keeping.responses.get("", response_id)
        assert row is not None
        assert row.status == "failed"
        assert row.events is not None
        assert last(row.events) == row.response
        assert await is_free(keeping, name)


async def test_one_whose_journal_is_gone_is_failed_as_well(folder: Path) -> None:
    response_id, _, name = await broken_off(folder)
    for path in (folder / "responses").iterdir():
        path.unlink()
    async with reopened(folder) as keeping:
        row = await keeping.responses.get("", response_id)
        assert row is not None
        assert row.status == row.response["status"] == "failed"
        assert row.response["error"]["code"] == "server_error"
        assert await is_free(keeping, name)


async def test_a_journal_of_a_response_that_was_never_stored_is_removed(folder: Path) -> None:
    (folder / "responses").mkdir()
    (folder / "responses" / "resp_1.events").write_bytes(b"event: x\ndata: {}\n\n")
    async with reopened(folder) as keeping:
        assert list((folder / "responses").iterdir()) == []
        assert await rows(keeping) == []


async def test_what_another_server_runs_is_left_alone(folder: Path) -> None:
    response_id, _, name = await broken_off(folder)
    (folder / "instance").write_text("another\n")
    async with reopened(folder) as keeping:
        row = await keeping.responses.get("", response_id)
        assert row is not None
        assert row.status == "in_progress"
        assert not await is_free(keeping, name)


@pytest.mark.parametrize(
    "damage", [b"event: x\ndata: {]\n\n", b'event: x\ndata: {"type":"x","sequence_number":99}\n\n']
)
async def test_a_damaged_journal_is_ended_from_where_it_is_damaged(folder: Path, damage: bytes) -> None:
    response_id, said, _ = await broken_off(folder, torn=damage)
    async with reopened(folder) as keeping:
        row = await keeping.responses.get("", response_id)
        assert row is not None
        assert row.events is not None
        assert row.events.startswith(said)
        assert last(row.events) == row.response
        assert row.status == "failed"
        assert list((folder / "responses").iterdir()) == []


@pytest.mark.parametrize("method", ["load", "finish"])
async def test_a_response_that_cannot_be_ended_keeps_no_other_from_its_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    ids = [(await broken_off(folder))[0]]
    (folder / "elsewhere").mkdir()
    first = folder / "responses" / f"{ids[0]}.events"
    first.rename(folder / "elsewhere" / first.name)  # or the next process ends it
    (folder / "instance").rename(folder / "elsewhere" / "instance")
    ids.append((await broken_off(folder))[0])
    (folder / "elsewhere" / first.name).rename(first)
    done = getattr(ResponseStore, method)

    async def fail(self: ResponseStore, response_id: str, **options: Any) -> Any:
        if response_id == ids[0]:
            raise RuntimeError("a bug")
        return await done(self, response_id, **options)

    async with reopened_as(folder, "another") as keeping:
        name = (folder / "instance").read_text().strip()
        await keeping.responses._db.execute("UPDATE responses SET instance = $1 WHERE id = $2", name, ids[0])
    monkeypatch.setattr(ResponseStore, method, fail)
    async with reopened(folder) as keeping:
        assert "a bug" in caplog.text
        other = await keeping.responses.get("", ids[1])
        assert other is not None
        assert other.status == "failed"
        assert keeping._journal.ids() == ids[:1]
        monkeypatch.undo()
        assert await keeping.recover() == 1
        assert keeping._journal.ids() == []
        row = await keeping.responses.get("", ids[0])
        assert row is not None
        assert row.status == "failed"
        assert row.events is not None
        assert last(row.events) == row.response


async def test_the_responses_of_a_server_that_does_not_come_back_are_ended(folder: Path) -> None:
    response_id, _, name = await broken_off(folder)
    left = (folder / "instance").read_text().strip()
    async with reopened_as(folder, "another") as keeping:
        journal = keeping._journal.open("resp_mine")
        holder = await keeping.plan(plan(conversation=(mine := await conversation(keeping))))
        assert await keeping.recover(left) == 1
        row = await keeping.responses.get("", response_id)
        assert row is not None
        assert (row.status, row.events) == ("failed", b"")
        assert row.response["status"] == "failed"
        assert row.response["error"]["code"] == "server_error"
        assert await is_free(keeping, name)
        assert not await is_free(keeping, mine)
        assert keeping._journal.ids() == ["resp_mine"]
        assert await keeping.recover(left) == 0
        journal.remove()
        await keeping.withdraw(holder)


async def test_a_server_does_not_end_what_it_runs_itself(keeping: Keeping) -> None:
    name = await conversation(keeping)
    asked = await keeping.plan(plan(conversation=name))
    running = Running(keeping, asked, (delta("a"), gate := asyncio.Event(), *WHOLE))
    await running.sink.told.wait()
    assert await keeping.recover(keeping._instance) == 0
    assert not await is_free(keeping, name)
    gate.set()
    await running.task
    assert running.turn.response["status"] == "completed"
