"""Opening a database by its URL: ``sqlite:///relative/path``, ``sqlite:////absolute/path`` or ``postgresql://...``."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from coterie.storage.database import Database, StorageError
from coterie.storage.migrate import migrate, migrations, version_of
from coterie.storage.postgres import open_postgres
from coterie.storage.sqlite import open_sqlite

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")


async def open_database(url: str) -> Database:
    """Open the database that ``url`` names and bring it up to this program's version.

    Raises :class:`StorageError` with a sentence for the operator where that cannot be done.
    """
    database = await _open(url)
    try:
        await migrate(database)
    except BaseException:
        await database.close()
        raise
    return database


async def look_at(url: str) -> str:
    """What is at ``url``, in words for the operator; nothing is changed. Raises :class:`StorageError`."""
    if not url.startswith(_POSTGRES) and not _file_of(url).exists():
        return "SQLite, which the first start makes"
    database = await _open(url)
    try:
        version, newest = await version_of(database), max(migrations())
    finally:
        await database.close()
    kind = "PostgreSQL" if url.startswith(_POSTGRES) else "SQLite"
    return f"{kind} of version {version}" + (f", which the next start brings to {newest}" if version < newest else "")


async def _open(url: str) -> Database:
    if url.startswith(_POSTGRES):
        return await open_postgres(url)
    return await open_sqlite(_file_of(url))


def _file_of(url: str) -> Path:
    path = unquote(url.removeprefix(_SQLITE))
    if not url.startswith(_SQLITE) or not path or path.startswith(":") or "\0" in path or "?" in path:
        raise StorageError(
            "The database's address must be 'sqlite:///' and the path of a file, or begin with 'postgresql://'."
        )
    return Path(path)
