from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from coterie.storage import StorageError, open_database
from coterie.storage.migrate import migrations
from coterie.storage.opening import look_at


@pytest.mark.parametrize(
    "url",
    [
        "", "coterie.db", "mysql://ann:hunter2@db/x", "sqlite://", "sqlite:///", "sqlite:///:memory:",
        "sqlite://host/a.db", "sqlite:///a.db?mode=ro", "sqlite:///a%00b.db", "file:///a.db",
    ],
)  # fmt: skip
async def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(StorageError, match="address must be") as failure:
        await open_database(url)
    assert "hunter2" not in str(failure.value)


async def test_a_path_is_relative_with_three_slashes_and_absolute_with_four(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///a/one.db", f"sqlite:///{tmp_path}/two%20words.db"):
        await (await open_database(url)).close()
    assert (tmp_path / "a" / "one.db").is_file()
    assert (tmp_path / "two words.db").is_file()


async def test_what_was_stored_is_there_when_it_is_opened_again(new_url: str) -> None:
    for expected in ([], ["c1"]):
        database = await open_database(new_url)
        try:
            assert [row["id"] for row in await database.fetch("SELECT id FROM conversations")] == expected
            if not expected:
                await database.execute("INSERT INTO conversations VALUES ('c1', 'ann', 0, '{}', 0, NULL, NULL)")
        finally:
            await database.close()


async def test_programs_that_open_a_new_database_at_once_all_may(new_url: str) -> None:
    databases = await asyncio.gather(*(open_database(new_url) for _ in range(4)))
    try:
        for database in databases:
            assert await database.fetch("SELECT id FROM responses") == []
            assert len(await database.fetch("SELECT version FROM schema_version")) == 1
    finally:
        for database in databases:
            await database.close()


async def test_a_look_tells_what_is_there_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    url = f"sqlite:///{path}"
    assert await look_at(url) == "SQLite, which the first start makes"
    assert not path.exists()
    await (await open_database(url)).close()
    before = path.read_bytes()
    assert await look_at(url) == f"SQLite of version {max(migrations())}"
    assert path.read_bytes() == before


async def test_a_look_at_what_is_older_says_what_the_start_will_do(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (x)")
    assert (
        await look_at(f"sqlite:///{path}") == f"SQLite of version 0, which the next start brings to {max(migrations())}"
    )


async def test_a_look_at_what_is_newer_or_none_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE schema_version (version); INSERT INTO schema_version VALUES (99);")
    with pytest.raises(StorageError, match="newer Coterie"):
        await look_at(f"sqlite:///{path}")
    path.write_bytes(b"no database, " * 100)
    with pytest.raises(StorageError):
        await look_at(f"sqlite:///{path}")
