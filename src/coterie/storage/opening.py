"""Opening a database by its URL: ``sqlite:///relative/path``, ``sqlite:////absolute/path`` or ``postgresql://...``."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from coterie.storage.database import Database, StorageError
from coterie.storage.migrate import migrate
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


async def _open(url: str) -> Database:
    if url.startswith(_POSTGRES):
        return await open_postgres(url)
    path = unquote(url.removeprefix(_SQLITE))
    if not url.startswith(_SQLITE) or not path or path.startswith(":") or "\0" in path or "?" in path:
        raise StorageError(
            "The database's address must be 'sqlite:///' and the path of a file, or begin with 'postgresql://'."
        )
    return await open_sqlite(Path(path))
