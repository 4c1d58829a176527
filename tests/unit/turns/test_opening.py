"""The storage of a server, opened."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from pathlib import Path

import pytest
from tests.support.responding import failing, plan
from tests.support.stored import stored_response
from tests.support.turning import conversation, finished, is_free
from tests.support.waiting import until
from tests.support.web import settings

from coterie.errors import ApiError
from coterie.storage import ConversationStore, ResponseStore, StorageError, open_database, sqlite
from coterie.storage.instances import Instances
from coterie.turns import opening
from coterie.turns.opening import instance_of, opened_keeping


async def test_what_is_stored_is_there_at_the_next_start(folder: Path) -> None:
    async with opened_keeping(settings(state_dir=folder / "new" / "state")) as keeping:
        turn, _ = await finished(keeping, plan())
        seal = keeping.sealer.of("").seal("secret")
    async with opened_keeping(settings(state_dir=folder / "new" / "state")) as keeping:
        row = await keeping.responses.get("", turn.plan.id)
        assert row is not None
        assert row.response == turn.response
        assert keeping.sealer.of("").unseal(seal) == "secret"


async def test_the_database_may_be_elsewhere(folder: Path) -> None:
    url = f"sqlite:///{folder / 'else.db'}"
    async with opened_keeping(settings(state_dir=folder / "state", storage={"url": url})) as keeping:
        await finished(keeping, plan())
    assert (folder / "else.db").exists()
    assert not (folder / "state" / "coterie.db").exists()


async def test_a_database_that_cannot_be_used_is_told(folder: Path) -> None:
    (folder / "coterie.db").write_bytes(b"no database " * 1000)
    with pytest.raises(StorageError):
        async with opened_keeping(settings(state_dir=folder)):
            pass


async def refusal(folder: Path) -> str:
    """What the operator is told of a storage that cannot be opened; nothing of it goes on."""
    before = asyncio.all_tasks()
    with pytest.raises(StorageError) as refused:
        async with opened_keeping(settings(state_dir=folder)):
            pass
    assert asyncio.all_tasks() == before
    return str(refused.value)


async def test_what_fails_after_the_database_was_opened_closes_it(folder: Path) -> None:
    (folder / "sealing.key").mkdir()
    assert await refusal(folder) == f"{folder / 'sealing.key'} cannot be used: Is a directory."


async def test_a_state_folder_that_cannot_be_made_is_told(folder: Path) -> None:
    (folder / "file").touch()
    assert await refusal(folder / "file" / "state") == f"{folder / 'file' / 'state'} cannot be used: Not a directory."


@pytest.mark.parametrize("holder", [Instances, ResponseStore, ConversationStore])
async def test_a_database_that_fails_at_the_start_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, holder: type
) -> None:
    async def fail(*_: object) -> None:
        raise ApiError("storage_failed", detail="the disk is gone")

    name = {Instances: "beat", ResponseStore: "unfinished_ids", ConversationStore: "unlock_all"}[holder]
    monkeypatch.setattr(holder, name, fail)
    assert await refusal(folder) == "What is stored cannot be used: the disk is gone."


@pytest.mark.parametrize("key", [b"", b"short", b"x" * 33])
async def test_a_key_that_is_none_is_told(folder: Path, key: bytes) -> None:
    (folder / "sealing.key").write_bytes(key)
    assert f"has {len(key)} bytes instead of 32" in await refusal(folder)
    assert (folder / "sealing.key").read_bytes() == key


@pytest.mark.parametrize("name", [b"", b"\n", b"\0\0\0", b"\xff\xfe", b"two names", b"a" * 129])
async def test_a_name_that_is_none_is_told(folder: Path, name: bytes) -> None:
    (folder / "instance").write_bytes(name)
    assert "does not hold the name of a server" in await refusal(folder)
    assert (folder / "instance").read_bytes() == name


async def test_files_that_are_not_ours_do_not_keep_it_from_opening(folder: Path) -> None:
    (folder / "responses" / "resp_2.events").mkdir(parents=True)
    (folder / "responses" / "copy of resp_1.events").write_bytes(b"event: x\n\n")
    async with opened_keeping(settings(state_dir=folder)):
        pass
    assert len(list((folder / "responses").iterdir())) == 2


async def test_nothing_goes_on_after_the_end(folder: Path) -> None:
    before = asyncio.all_tasks()
    async with opened_keeping(settings(state_dir=folder)) as keeping:
        pass
    assert asyncio.all_tasks() == before
    with pytest.raises(ApiError, match="storage"):
        await keeping.responses.get("", "resp_1")


async def test_what_has_expired_is_deleted_at_the_start_and_from_time_to_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    purged = asyncio.Event()
    calls = 0

    async def count(self: object, now_s: float) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ApiError("storage_failed", detail="the disk is gone")
        if calls == 4:
            purged.set()
        return calls

    monkeypatch.setattr(opening, "_PURGE_EVERY_S", 0)
    monkeypatch.setattr(ResponseStore, "purge", count)
    async with opened_keeping(settings(state_dir=folder)):
        await purged.wait()
    assert "1 expired responses were deleted" in caplog.text
    assert "expired responses were not deleted: the disk is gone" in caplog.text


async def test_what_is_owed_to_the_database_is_tried_from_time_to_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_MEND_EVERY_S", 0)
    async with opened_keeping(settings(state_dir=folder)) as keeping:
        name = await conversation(keeping)
        asked = await keeping.plan(plan(conversation=name))
        with failing(keeping.conversations, "unlock"):
            await keeping.withdraw(asked)
        await until(lambda: not keeping._owed)
        assert await is_free(keeping, name)


def test_a_server_keeps_its_name(folder: Path) -> None:
    name = instance_of(folder)
    assert len(name) == 32
    assert instance_of(folder) == name
    (folder / "other").mkdir()
    assert instance_of(folder / "other") != name


async def test_what_a_server_left_that_does_not_come_back_is_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_LOOK_AROUND_EVERY_S", 0)
    async with opened_keeping(settings(state_dir=folder)) as keeping:
        held = await conversation(keeping)
        row = stored_response(id="resp_1", owner="", instance="gone", conversation_id=held, expires_at=None)
        await keeping.conversations.lock("", held, row.id, "gone")
        await keeping.responses.create(row)
        mine = dataclasses.replace(row, id="resp_2", conversation_id=None, instance=instance_of(folder))
        await keeping.responses.create(mine)
        database = await open_database(f"sqlite:///{folder / 'coterie.db'}")
        try:
            instances = Instances(database)
            await instances.beat("gone", await instances.now_s() - 121)
            async with asyncio.timeout(60):
                while not await is_free(keeping, held):  # noqa: ASYNC110 - a task of the server does it
                    await asyncio.sleep(0.002)
        finally:
            await database.close()
        ended, running = await keeping.responses.get("", "resp_1"), await keeping.responses.get("", "resp_2")
        assert ended is not None
        assert ended.status == "failed"
        assert running is not None
        assert running.status == "in_progress"


async def test_a_server_says_again_and_again_that_it_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[str] = []
    enough = asyncio.Event()

    async def count(self: object, instance: str, now_s: float) -> None:
        beats.append(instance)
        if len(beats) == 3:
            raise ValueError("a mistake")
        if len(beats) == 5:
            enough.set()

    monkeypatch.setattr(opening, "_BEAT_EVERY_S", 0)
    monkeypatch.setattr(Instances, "beat", count)
    async with opened_keeping(settings(state_dir=folder)):
        await enough.wait()
    assert set(beats) == {instance_of(folder)}


async def test_the_database_is_tended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tended = asyncio.Event()

    async def tend(self: object) -> None:
        tended.set()

    monkeypatch.setattr(sqlite.SqliteDatabase, "tend", tend)
    async with opened_keeping(settings(state_dir=folder)):
        await tended.wait()
