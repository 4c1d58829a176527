"""The storage of a server, opened."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from tests.support.responding import failing, plan
from tests.support.turning import conversation, finished, is_free
from tests.support.waiting import until
from tests.support.web import settings

from coterie.errors import ApiError
from coterie.storage import ResponseStore, StorageError
from coterie.turns import opening
from coterie.turns.opening import instance_of, opened_keeping


async def test_what_is_stored_is_there_at_the_next_start(folder: Path) -> None:
    async with opened_keeping(settings(state_dir=folder / "new" / "state")) as keeping:
        turn, _ = await finished(keeping, plan())
        seal = keeping.sealer.seal("secret")
    async with opened_keeping(settings(state_dir=folder / "new" / "state")) as keeping:
        row = await keeping.responses.get("", turn.plan.id)
        assert row is not None
        assert row.response == turn.response
        assert keeping.sealer.unseal(seal) == "secret"


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


async def test_what_fails_after_the_database_was_opened_closes_it(folder: Path) -> None:
    before = asyncio.all_tasks()
    (folder / "sealing.key").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        async with opened_keeping(settings(state_dir=folder)):
            pass
    assert asyncio.all_tasks() == before


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
