from __future__ import annotations

from importlib import resources

import pytest

from coterie.errors import ApiError
from coterie.storage import ConversationStore, ResponseStore, StorageError, open_database
from coterie.storage.migrate import migrate, migrations, split

FIRST = {1: "CREATE TABLE one (a TEXT);\n-- a word; and another\nINSERT INTO one VALUES ('x;\ny');\n"}
SECOND = {**FIRST, 2: "ALTER TABLE one ADD COLUMN b BIGINT NOT NULL DEFAULT 7;\n"}


def test_versions_have_no_gap_and_every_file_counts() -> None:
    folder = resources.files("coterie.storage") / "sql" / "migrations"
    assert list(migrations()) == list(range(1, len(list(folder.iterdir())) + 1))


def test_a_script_is_split_where_its_statements_end() -> None:
    assert list(split(FIRST[1])) == [
        "CREATE TABLE one (a TEXT);", "-- a word; and another\nINSERT INTO one VALUES ('x;\ny');",
    ]  # fmt: skip


def test_a_statement_without_an_end_is_told() -> None:
    with pytest.raises(ValueError, match="no end"):
        list(split("CREATE TABLE one (a TEXT)"))


async def test_each_version_is_applied_once_and_keeps_what_is_there(new_url: str) -> None:
    database = await open_database(new_url)
    try:
        await database.execute("DROP TABLE schema_version")
        assert await migrate(database, FIRST) == 1
        assert await migrate(database, SECOND) == 2
        assert await migrate(database, SECOND) == 2
        (row,) = await database.fetch("SELECT a, b FROM one")
        assert (row["a"], row["b"]) == ("x;\ny", 7)
        (version,) = await database.fetch("SELECT version FROM schema_version")
        assert version[0] == 2
    finally:
        await database.close()


async def test_a_script_that_fails_leaves_the_database_as_it_was(new_url: str) -> None:
    database = await open_database(new_url)
    try:
        await database.execute("DROP TABLE schema_version")
        await migrate(database, FIRST)
        broken = {**SECOND, 3: "CREATE TABLE three (a TEXT);\nCREATE TABLE three (a TEXT);\n"}
        with pytest.raises(StorageError, match="version 3"):
            await migrate(database, broken)
        with pytest.raises(ApiError):
            await database.fetch("SELECT b FROM one")
        assert await migrate(database, SECOND) == 2
    finally:
        await database.close()


async def test_a_newer_database_is_refused_and_left_alone(new_url: str) -> None:
    database = await open_database(new_url)
    try:
        await database.execute("UPDATE schema_version SET version = 99")
    finally:
        await database.close()
    with pytest.raises(StorageError, match=r"version 99.*newer Coterie"):
        await open_database(new_url)


async def test_what_was_stored_before_there_were_sizes_is_measured(new_url: str) -> None:
    database = await open_database(new_url)
    try:
        for table in ("response_sizes", "instances", "response_items", "responses", "conversation_items"):
            await database.execute(f"DROP TABLE {table}")
        await database.execute("DROP TABLE conversations")
        await database.execute("DROP TABLE schema_version")
        await migrate(database, {1: migrations()[1]})
        await database.execute("INSERT INTO conversations VALUES ('c1', 'ann', 0, '{}', 1, NULL, NULL)")
        await database.execute("INSERT INTO conversation_items VALUES ('c1', 0, 'msg_1', '{\"id\":\"msg_1\"}')")
        await database.execute(
            "INSERT INTO responses VALUES "
            "('r1', 'ann', 'completed', 0, NULL, 0, 'm', NULL, NULL, 'here', '{\"output\":[]}', '[]', NULL, 0)"
        )
        assert await migrate(database) == max(migrations())
        responses, conversations = ResponseStore(database), ConversationStore(database)
        assert len(await responses.history("ann", "r1", 1, most_bytes=15)) == 1
        with pytest.raises(ApiError, match="longer than 14 bytes"):
            await responses.history("ann", "r1", 1, most_bytes=14)
        assert len(await conversations.history("ann", "c1", 1, most_bytes=14)) == 1
        with pytest.raises(ApiError, match="longer than 13 bytes"):
            await conversations.history("ann", "c1", 1, most_bytes=13)
    finally:
        await database.close()
