from __future__ import annotations

import asyncio

import asyncpg  # type: ignore[import-untyped]
import pytest
from tests.support.postgres import postgres_server

from coterie.errors import ApiError
from coterie.storage import StorageError, open_database, postgres
from coterie.storage.postgres import PostgresDatabase, open_postgres


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://ann:hunter2@127.0.0.1:1/coterie", "postgresql://ann@127.0.0.1:1/coterie.*nothing listens"),
        ("postgres://ann:hunter2@127.0.0.1:1/coterie?password=hunter2", "nothing listens"),
        ("postgresql://ann:hunter2@127.0.0.1:no/coterie", "address"),
        ("postgresql://ann:hunter2@[::1/coterie", "address"),
        ("postgresql://ann:hunter2@127.0.0.1:1/coterie?sslmode=hunter2", "address"),
    ],
)
async def test_an_address_that_cannot_be_opened_is_told_without_its_password(url: str, said: str) -> None:
    with pytest.raises(StorageError, match=said) as failure:
        await open_database(url)
    assert "hunter2" not in str(failure.value)


async def test_a_database_that_does_not_exist_is_told() -> None:
    with pytest.raises(StorageError, match="no database of that name"):
        await open_postgres(postgres_server().url("never_made"))


async def test_a_user_that_is_refused_is_told() -> None:
    url = postgres_server().url("postgres").replace("postgres@", "mallory:hunter2@")
    with pytest.raises(StorageError, match="refuses this user") as failure:
        await open_postgres(url)
    assert "hunter2" not in str(failure.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "did not answer within"),
        (OSError("db.internal"), "cannot be reached"),
        (asyncpg.CannotConnectNowError("x"), "starting or stopping"),
        (asyncpg.DiskFullError("x"), "DiskFullError"),
    ],
)
def test_each_reason_has_its_sentence(error: BaseException, said: str) -> None:
    assert said in postgres._reason(error)
    assert "internal" not in postgres._reason(error)


async def test_a_connection_that_broke_fails_its_statement_and_is_replaced() -> None:
    database = await open_postgres(postgres_server().new_database())
    try:
        with pytest.raises(ApiError) as failure:
            await database.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        assert failure.value.code == "storage_failed"
        with pytest.raises(ApiError):
            async with database.transaction() as transaction:
                await transaction.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        row = await database.fetch_one("SELECT 1")
        assert row is not None
    finally:
        await database.close()


async def test_a_statement_that_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "STATEMENT_TIMEOUT_S", 0.05)
    database = await open_postgres(postgres_server().new_database())
    try:
        with pytest.raises(ApiError) as failure:
            await database.fetch("SELECT pg_sleep(60)")
        assert failure.value.code == "storage_failed"
        assert await database.fetch_one("SELECT 1") is not None
    finally:
        await database.close()


async def test_who_finds_no_connection_free_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "MAX_CONNECTIONS", 1)
    database = await open_postgres(postgres_server().new_database())
    monkeypatch.setattr(postgres, "STATEMENT_TIMEOUT_S", 0.05)
    try:
        async with database.transaction():
            with pytest.raises(ApiError) as failure:
                await database.fetch("SELECT 1")
        assert failure.value.code == "storage_failed"
        assert await database.fetch_one("SELECT 1") is not None
    finally:
        await database.close()


async def test_what_is_asked_of_a_closed_database_fails() -> None:
    database = await open_postgres(postgres_server().new_database())
    await database.close()
    with pytest.raises(ApiError) as failure:
        await database.fetch("SELECT 1")
    assert failure.value.code == "storage_failed"


async def test_close_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    database: PostgresDatabase = await open_postgres(postgres_server().new_database())
    monkeypatch.setattr(postgres, "STATEMENT_TIMEOUT_S", 0.05)
    inside = asyncio.Event()

    async def stuck() -> None:
        async with database.transaction():
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(stuck())
    await inside.wait()
    await database.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("status", "changed"), [("UPDATE 3", 3), ("INSERT 0 1", 1), ("CREATE TABLE", 0), ("SELECT 12", 12)]
)
def test_changed_rows_are_read_from_the_status(status: str, changed: int) -> None:
    assert postgres._changed(status) == changed


async def test_values_of_a_refused_row_do_not_reach_the_log() -> None:
    database = await open_database(postgres_server().new_database())
    try:
        for expected in (True, False):
            sql = "INSERT INTO conversations VALUES ($1, 'ann', 0, '', 0, NULL, NULL)"
            if expected:
                await database.execute(sql, "a-secret-id")
                continue
            with pytest.raises(ApiError) as failure:
                await database.execute(sql, "a-secret-id")
            assert "UniqueViolation" in (failure.value.detail or "")
            assert "a-secret-id" not in (failure.value.detail or "")
    finally:
        await database.close()
