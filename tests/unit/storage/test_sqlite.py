from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from tests.support.waiting import until

from coterie.errors import ApiError
from coterie.storage import StorageError, open_database, sqlite
from coterie.storage.database import Step
from coterie.storage.sqlite import SqliteDatabase, open_sqlite

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "a.db"


async def test_the_file_is_for_its_owners_eyes_alone(path: Path) -> None:
    database = await open_database(f"sqlite:///{path}")
    try:
        modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        await database.close()
    assert modes == {0o600}


async def test_settings_hold_on_both_connections(path: Path) -> None:
    database = await open_sqlite(path)
    expected = {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "secure_delete": 1}
    try:
        for name, value in expected.items():
            read = await database.fetch_one(f"PRAGMA {name}")
            async with database.transaction() as transaction:
                written = await transaction.fetch_one(f"PRAGMA {name}")
            assert read is not None
            assert written is not None
            assert (name, read[0], written[0]) == (name, value, value)
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("content", "said"), [(b"not a database, but long enough to be read as one" * 40, "not a database")]
)
async def test_a_file_that_is_no_database_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.db").write_bytes(content)
    with pytest.raises(StorageError, match=said):
        await open_sqlite(tmp_path / "a.db")


async def test_a_path_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "a.db"):
        with pytest.raises(StorageError, match="cannot be used"):
            await open_sqlite(path)


async def test_an_unknown_home_is_told() -> None:
    with pytest.raises(StorageError, match="home folder"):
        await open_sqlite(Path("~nobody-of-that-name/a.db"))


async def test_a_statement_that_takes_too_long_is_stopped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await open_sqlite(path)
    monkeypatch.setattr(sqlite, "STATEMENT_TIMEOUT_S", 0.01)
    try:
        with pytest.raises(ApiError) as failure:
            await database.fetch(ENDLESS)
        assert failure.value.code == "storage_failed"
        assert await database.fetch_one("SELECT 1") is not None
    finally:
        await database.close()


async def test_a_long_read_holds_up_neither_writers_nor_the_loop(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await open_sqlite(path)
    began, go_on = threading.Event(), threading.Event()

    def wait(_connection: sqlite3.Connection) -> None:
        began.set()
        go_on.wait(60)

    reading = database._reader.submit(wait)
    try:
        await asyncio.to_thread(began.wait, 60)
        await database.execute("CREATE TABLE t (a INTEGER)")
        assert not reading.done()
    finally:
        go_on.set()
        await reading
        await database.close()


async def test_a_job_whose_caller_left_before_it_began_is_not_done(path: Path) -> None:
    database = await open_sqlite(path)
    go_on = threading.Event()
    await database.execute("CREATE TABLE t (a INTEGER)")
    held = database._writer.submit(lambda _: go_on.wait(60))
    try:
        late = asyncio.create_task(database.execute("INSERT INTO t VALUES (1)"))
        await asyncio.sleep(0)  # it is queued
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
        go_on.set()
        await held
        assert await database.fetch("SELECT a FROM t") == []
    finally:
        go_on.set()
        await database.close()


async def test_two_programs_write_to_one_file(path: Path) -> None:
    one, two = await open_sqlite(path), await open_sqlite(path)
    try:
        await one.execute("CREATE TABLE t (a INTEGER)")

        async def add(database: SqliteDatabase) -> None:
            for _ in range(20):
                await database.execute("INSERT INTO t VALUES (1)")

        await asyncio.gather(add(one), add(two))
        assert len(await one.fetch("SELECT a FROM t")) == 40
    finally:
        await one.close()
        await two.close()


async def test_who_waits_too_long_for_another_program_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_SETTINGS", ("PRAGMA busy_timeout = 10",))
    database = await open_sqlite(path)
    await database.execute("CREATE TABLE t (a INTEGER)")
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        for writing in (database.execute("INSERT INTO t VALUES (1)"), database.apply(list)):
            with pytest.raises(ApiError) as failure:
                await writing
            assert "locked" in (failure.value.detail or "")
        assert await database.fetch("SELECT a FROM t") == []
        other.execute("ROLLBACK")
        assert await database.execute("INSERT INTO t VALUES (1)") == 1
    finally:
        other.close()
        await database.close()


async def test_who_waits_too_long_for_a_transaction_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await open_sqlite(path)
    await database.execute("CREATE TABLE t (a INTEGER)")
    try:
        async with database.transaction() as transaction:
            monkeypatch.setattr(sqlite, "STATEMENT_TIMEOUT_S", 0.01)
            with pytest.raises(ApiError) as failure:
                await database.execute("INSERT INTO t VALUES (1)")
            monkeypatch.undo()
            await transaction.execute("INSERT INTO t VALUES (2)")
        assert failure.value.code == "storage_failed"
        assert [row["a"] for row in await database.fetch("SELECT a FROM t")] == [2]
    finally:
        await database.close()


async def test_what_is_asked_of_a_closed_database_fails(path: Path) -> None:
    database = await open_sqlite(path)
    await database.close()
    await database.close()
    for call in (database.fetch("SELECT 1"), database.execute("SELECT 1"), database.forget()):
        with pytest.raises(ApiError) as failure:
            await call
        assert failure.value.detail == "the database is closed"
    with pytest.raises(ApiError):
        async with database.transaction():
            pass


async def test_close_finishes_what_is_queued(path: Path) -> None:
    database = await open_sqlite(path)
    await database.execute("CREATE TABLE t (a INTEGER)")
    writes = [asyncio.create_task(database.execute("INSERT INTO t VALUES (1)")) for _ in range(10)]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*writes) == [1] * 10


def test_a_loop_that_ended_meanwhile_stops_no_thread(path: Path) -> None:
    go_on = threading.Event()

    async def leave() -> SqliteDatabase:
        database = await open_sqlite(path)
        database._writer.submit(lambda _: go_on.wait(60))
        return database

    database = asyncio.run(leave())
    go_on.set()
    asyncio.run(database.close())
    assert not database._writer._thread.is_alive()


async def test_nothing_is_left_of_what_was_deleted(path: Path) -> None:
    database = await open_sqlite(path)
    try:
        await database.execute("CREATE TABLE t (a TEXT)")
        await database.execute("INSERT INTO t VALUES ($1)", "a secret that nobody may find " * 500)
        assert any(b"secret" in file.read_bytes() for file in path.parent.iterdir())
        await database.execute("DELETE FROM t")
        await database.forget()
        assert not any(b"secret" in file.read_bytes() for file in path.parent.iterdir())
    finally:
        await database.close()


class Traced:
    """The statements that the writing connection of a database executes."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.statements: list[str] = []
        database._writer._connection.set_trace_callback(self.statements.append)

    @property
    def emptied(self) -> int:
        return sum("wal_checkpoint" in statement for statement in self.statements)


async def test_a_log_that_somebody_reads_is_owed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_EMPTYING_TIMEOUT_S", 0.012)
    database = await open_sqlite(path)
    log = path.with_name("a.db-wal")
    await database.execute("CREATE TABLE t (a INTEGER)")
    reader = sqlite3.connect(path, isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchall()
        traced = Traced(database)
        await database.execute("INSERT INTO t VALUES (1)")
        await database.forget()
        assert log.stat().st_size > 0
        assert "PRAGMA busy_timeout = 12" in traced.statements
        assert traced.statements[-1] == "PRAGMA busy_timeout = 10000"
        await database.tend()
        assert (traced.emptied, log.stat().st_size > 0) == (2, True)
        reader.execute("ROLLBACK")
        await database.tend()
        assert (traced.emptied, log.stat().st_size) == (3, 0)
        await database.tend()
        assert traced.emptied == 3
    finally:
        reader.close()
        await database.close()


async def test_a_log_that_could_not_be_emptied_is_owed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await open_sqlite(path)
    try:
        await database.execute("CREATE TABLE t (a INTEGER)")
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "_empty_log", lambda connection: connection.execute("no statement"))
            await database.forget()
        await database.tend()
        assert path.with_name("a.db-wal").stat().st_size == 0
    finally:
        await database.close()


async def test_forgetting_several_times_at_once_is_done_once(path: Path) -> None:
    database = await open_sqlite(path)
    go_on = threading.Event()
    traced = Traced(database)
    try:
        await asyncio.gather(*(database.forget() for _ in range(20)))
        assert traced.emptied == 1
        held = database._writer.submit(lambda _: go_on.wait(60))
        first = asyncio.create_task(database.forget())
        await until(lambda: database._next_emptying is None and bool(database._emptyings))
        later = [
            asyncio.create_task(database.forget()) for _ in range(20)
        ]  # what they deleted may come after the first
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(held, first, *later)
        assert traced.emptied == 3
    finally:
        go_on.set()
        await database.close()


async def test_who_forgets_and_leaves_is_forgotten_for_all_the_same(path: Path) -> None:
    database = await open_sqlite(path)
    traced = Traced(database)
    task = asyncio.create_task(database.forget())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await database.execute("CREATE TABLE t (a INTEGER)")
    await database.close()
    assert traced.emptied == 1


@pytest.mark.parametrize("kind", ["writer", "reader"])
async def test_who_waits_too_long_in_the_queue_is_told_and_nothing_is_done(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    database = await open_sqlite(path)
    go_on = threading.Event()
    await database.execute("CREATE TABLE t (a INTEGER)")
    worker = database._writer if kind == "writer" else database._reader
    held = worker.submit(lambda _: go_on.wait(60))
    done: list[sqlite3.Connection] = []
    try:
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "STATEMENT_TIMEOUT_S", 0.01)
            with pytest.raises(ApiError) as failure:
                await worker.submit(done.append)
        assert failure.value.code == "storage_failed"
        go_on.set()
        await held
        await worker.submit(lambda _: None)
        assert done == []
    finally:
        go_on.set()
        await database.close()


async def test_a_transaction_whose_statement_waits_too_long_is_rolled_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await open_sqlite(path)
    go_on = threading.Event()
    await database.execute("CREATE TABLE t (a INTEGER)")

    async def insert_twice() -> None:
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO t VALUES (1)")
            database._writer.submit(lambda _: go_on.wait(60))
            monkeypatch.setattr(sqlite, "STATEMENT_TIMEOUT_S", 0.01)
            await transaction.execute("INSERT INTO t VALUES (2)")

    try:
        with pytest.raises(ApiError):
            await insert_twice()
        with pytest.raises(ApiError):  # by now the rollback has waited too long as well, and is done all the same
            await database._writer.submit(lambda _: None)
        monkeypatch.undo()
        go_on.set()
        assert await database.execute("INSERT INTO t VALUES (3)") == 1
        assert [row["a"] for row in await database.fetch("SELECT a FROM t")] == [3]
    finally:
        go_on.set()
        await database.close()


async def test_a_batch_is_made_ready_while_others_write(path: Path) -> None:
    database = await open_sqlite(path)
    await database.execute("CREATE TABLE t (a INTEGER)")
    began, go_on = threading.Event(), threading.Event()

    def prepare() -> list[Step]:
        began.set()
        go_on.wait(60)
        return [Step("INSERT INTO t VALUES (2)", [()])]

    batch = asyncio.create_task(database.apply(prepare))
    try:
        await asyncio.to_thread(began.wait, 60)
        async with asyncio.timeout(30):
            await database.execute("INSERT INTO t VALUES (1)")
        go_on.set()
        await batch
        assert [row["a"] for row in await database.fetch("SELECT a FROM t ORDER BY rowid")] == [1, 2]
    finally:
        go_on.set()
        await database.close()
