"""Bringing a database up to this program's version.

Rules:

* The files ``sql/migrations/NNNN_what.sql`` are the versions, from 1 without a gap. One that was released is never
  changed: a change is a new file.
* All that a database lacks is applied in one transaction, under a lock that other programs wait for: afterwards the
  database has this version, or is as it was.
* A database of a later version than the program's is refused: its tables may mean something that we do not know.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Final

from coterie.errors import ApiError
from coterie.storage.database import Database, Statements, StorageError

_NAME: Final = re.compile(r"(\d{4})_\w+\.sql")
_TABLE: Final = "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)"


@cache
def migrations() -> Mapping[int, str]:
    """Every version there is, in order, and the script that leads to it from the one before."""
    folder = resources.files("coterie.storage") / "sql" / "migrations"
    found = {int(name[1]): file for file in folder.iterdir() if (name := _NAME.fullmatch(file.name))}
    return {version: found[version].read_text(encoding="utf-8") for version in sorted(found)}


async def migrate(database: Database, versions: Mapping[int, str] | None = None) -> int:
    """Apply what ``database`` lacks; returns its version, the last of ``versions`` (ours, where none are given).

    Raises :class:`StorageError` where the database is of a later version, or a script fails.
    """
    versions = migrations() if versions is None else versions
    newest = max(versions)
    try:
        async with database.transaction() as transaction:
            await transaction.fetch(database.migration_lock)
            await transaction.execute(_TABLE)
            version = await _version(transaction)
            if version > newest:
                raise _too_new(version, newest)
            await _apply(transaction, {number: versions[number] for number in versions if number > version})
    except ApiError as error:
        raise StorageError(f"The database cannot be brought up to version {newest}: {error.detail}.") from error
    return newest


async def version_of(database: Database) -> int:
    """The version that ``database`` is of; 0 where it holds nothing of ours. Raises :class:`StorageError`."""
    try:
        version = await _version(database)
    except ApiError:  # there is no such table
        return 0
    if version > max(migrations()):
        raise _too_new(version, max(migrations()))
    return version


def _too_new(version: int, newest: int) -> StorageError:
    return StorageError(
        f"The database is of version {version}, and this program knows versions up to {newest}: "
        "it was used by a newer Coterie. Use that one, or another database."
    )


async def _version(transaction: Statements) -> int:
    row = await transaction.fetch_one("SELECT MAX(version) FROM schema_version")
    return 0 if row is None or row[0] is None else int(row[0])


async def _apply(transaction: Statements, lacking: Mapping[int, str]) -> None:
    for version in sorted(lacking):
        for statement in split(lacking[version]):
            await transaction.execute(statement)
    if lacking:
        await transaction.execute("DELETE FROM schema_version")
        await transaction.execute("INSERT INTO schema_version (version) VALUES ($1)", max(lacking))


def split(script: str) -> Iterator[str]:
    """The statements of a script, each of which ends at the end of a line."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
    if statement.strip():
        raise ValueError(f"a statement has no end: {statement.strip()[:80]!r}")
