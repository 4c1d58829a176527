from __future__ import annotations

import asyncio

import pytest

from coterie.errors import ApiError
from coterie.storage import Database
from coterie.storage.database import NotAppliedError, Step, storage_failed

INSERT = "INSERT INTO conversations (id, owner, created_at, metadata, next_position) VALUES ($1, $2, 0, '{}', 0)"
COUNT = "SELECT COUNT(*) AS number FROM conversations WHERE owner = $1"


async def count(db: Database, owner: str) -> int:
    row = await db.fetch_one(COUNT, owner)
    assert row is not None
    return int(row["number"])


async def test_fetch_gives_rows_by_name_and_place(db: Database) -> None:
    await db.execute(INSERT, "c1", "ann")
    (row,) = await db.fetch("SELECT owner, id FROM conversations WHERE id = $1", "c1")
    assert (row["id"], row[0]) == ("c1", "ann")


async def test_fetch_one_of_nothing_is_none(db: Database) -> None:
    assert await db.fetch_one("SELECT id FROM conversations") is None


async def test_a_placeholder_may_stand_twice_and_in_any_order(db: Database) -> None:
    row = await db.fetch_one("SELECT CAST($2 AS TEXT), CAST($1 AS TEXT), CAST($2 AS TEXT)", "a", "b")
    assert row is not None
    assert [row[0], row[1], row[2]] == ["b", "a", "b"]


async def test_execute_tells_how_many_rows_changed(db: Database) -> None:
    for number in range(3):
        await db.execute(INSERT, f"c{number}", "ann")
    assert await db.execute("UPDATE conversations SET owner = $1 WHERE owner = $2", "bob", "ann") == 3
    assert await db.execute("DELETE FROM conversations WHERE owner = $1", "ann") == 0


@pytest.mark.parametrize("sql", ["SELECT nothing FROM nowhere", "SELEC", INSERT])
async def test_a_statement_that_fails_is_storage_failed(db: Database, sql: str) -> None:
    await db.execute(INSERT, "c1", "ann")
    with pytest.raises(ApiError) as failure:
        await db.execute(sql, *(("c1", "ann") if sql == INSERT else ()))
    assert failure.value.code == "storage_failed"
    assert failure.value.detail
    assert "storage" in failure.value.message
    assert await count(db, "ann") == 1


async def test_a_transaction_happens_whole(db: Database) -> None:
    async with db.transaction() as transaction:
        await transaction.execute(INSERT, "c1", "ann")
        await transaction.execute(INSERT, "c2", "ann")
        assert len(await transaction.fetch("SELECT id FROM conversations")) == 2
        assert await count(db, "ann") == 0  # nobody else sees it yet
    assert await count(db, "ann") == 2


async def test_a_transaction_that_is_left_by_an_exception_happens_not_at_all(db: Database) -> None:
    async def leave() -> None:
        async with db.transaction() as transaction:
            await transaction.execute(INSERT, "c1", "ann")
            raise TimeoutError  # the caller's own, which is not storage's

    with pytest.raises(TimeoutError):
        await leave()
    assert await count(db, "ann") == 0


async def test_a_transaction_whose_statement_fails_happens_not_at_all(db: Database) -> None:
    async def repeat() -> None:
        async with db.transaction() as transaction:
            await transaction.execute(INSERT, "c1", "ann")
            await transaction.execute(INSERT, "c1", "ann")

    with pytest.raises(ApiError):
        await repeat()
    assert await count(db, "ann") == 0
    await db.execute(INSERT, "c1", "ann")


async def test_a_cancelled_transaction_happens_not_at_all_and_the_database_goes_on(db: Database) -> None:
    inside = asyncio.Event()

    async def stuck() -> None:
        async with db.transaction() as transaction:
            await transaction.execute(INSERT, "c1", "ann")
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(stuck())
    await inside.wait()
    waiting = asyncio.create_task(db.execute(INSERT, "c2", "ann"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await waiting == 1
    assert [row["id"] for row in await db.fetch("SELECT id FROM conversations")] == ["c2"]


@pytest.mark.parametrize("statements", [1, 3])
async def test_cancellation_at_any_moment_leaves_all_or_nothing(db: Database, statements: int) -> None:
    ids = [f"c{number}" for number in range(statements)]

    async def insert() -> None:
        async with db.transaction() as transaction:
            for one in ids:
                await transaction.execute(INSERT, one, "ann")

    for turns in range(40):
        task = asyncio.create_task(insert())
        for _ in range(turns):  # of the event loop, wherever that leads
            await asyncio.sleep(0.0001 * (turns % 2))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await db.execute(INSERT, "last", "bob") == 1
        assert await count(db, "ann") in (0, statements)
        await db.execute("DELETE FROM conversations")


async def test_cancelled_statements_leave_the_database_usable(db: Database) -> None:
    tasks = [asyncio.create_task(db.execute(INSERT, f"c{number}", "ann")) for number in range(30)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await db.execute(INSERT, "last", "ann")
    kept = {row["id"] for row in await db.fetch("SELECT id FROM conversations")}
    assert kept >= {"last", *(f"c{number}" for number in range(1, 30, 2))}


async def test_transactions_do_not_see_or_lose_each_others_writes(db: Database) -> None:
    await db.execute(INSERT, "c1", "ann")

    async def add_one() -> None:
        async with db.transaction() as transaction:
            await transaction.execute("UPDATE conversations SET next_position = next_position + 1 WHERE id = $1", "c1")

    await asyncio.gather(*(add_one() for _ in range(20)))
    row = await db.fetch_one("SELECT next_position FROM conversations")
    assert row is not None
    assert row[0] == 20


async def test_a_batch_happens_whole(db: Database) -> None:
    await db.apply(lambda: [Step(INSERT, [("c1", "ann"), ("c2", "ann")]), Step(INSERT, [("c3", "ann")], needed=True)])
    assert await count(db, "ann") == 3


async def test_a_batch_whose_needed_step_changes_nothing_happens_not_at_all(db: Database) -> None:
    update = "UPDATE conversations SET owner = 'bob' WHERE id = $1"
    steps = [Step(INSERT, [("c1", "ann")]), Step(update, [("c1",), ("c9",)], needed=True)]
    with pytest.raises(NotAppliedError) as failure:
        await db.apply(lambda: steps)
    assert (failure.value.sql, failure.value.row) == (update, 1)
    assert await count(db, "ann") == await count(db, "bob") == 0


async def test_a_step_that_may_change_nothing_does_not_stop_a_batch(db: Database) -> None:
    idle = Step("DELETE FROM conversations WHERE id = $1", [("c9",)])
    await db.apply(lambda: [idle, Step(INSERT, [("c1", "ann")])])
    assert await count(db, "ann") == 1


async def test_a_batch_that_cannot_be_prepared_raises_what_it_raised(db: Database) -> None:
    def prepare() -> list[Step]:
        raise KeyError("id")

    with pytest.raises(KeyError):
        await db.apply(prepare)
    await db.execute(INSERT, "c1", "ann")


async def test_a_batch_whose_statement_fails_happens_not_at_all(db: Database) -> None:
    with pytest.raises(ApiError):
        await db.apply(lambda: [Step(INSERT, [("c1", "ann"), ("c1", "ann")])])
    assert await count(db, "ann") == 0


def test_a_failures_detail_has_no_password() -> None:
    failure = storage_failed("cannot connect with password=hunter2")
    assert failure.detail is not None
    assert "hunter2" not in failure.detail
    assert "connect" not in failure.message
