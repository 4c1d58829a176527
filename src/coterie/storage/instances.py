"""The servers that share a database, and which of them are no more.

Rules:

* A server that runs says so again and again. One that has something under way and was not heard of for long is gone:
  nobody but the others can bring to an end what it left.
* Time is the database's own (:meth:`Instances.now_s`), so that the clocks of the servers need not agree.
* Who was never heard of is counted from when that was noticed.
"""

from __future__ import annotations

from typing import Final

from coterie.storage.database import Database
from coterie.storage.queries import queries

_FORGOTTEN_AFTER_S: Final = 7 * 86_400
"""A server with nothing under way is no longer listed then."""
_SQL: Final = queries("instances")


class Instances:
    """The servers that ``db`` knows. Every method may raise :class:`ApiError` ``storage_failed``."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def now_s(self) -> int:
        """The Unix time by the database's clock."""
        row = await self._db.fetch_one(self._db.time_query)
        return 0 if row is None else int(row[0])

    async def beat(self, instance: str, now_s: float) -> None:
        """``instance`` is alive."""
        await self._db.execute(_SQL["beat"], instance, int(now_s))

    async def gone(self, now_s: float, older_than_s: float) -> list[str]:
        """The servers with unfinished responses or locks that were last seen ``older_than_s`` ago or before."""
        await self._db.execute(_SQL["notice"], int(now_s))
        await self._db.execute(_SQL["drop"], int(now_s) - _FORGOTTEN_AFTER_S)
        rows = await self._db.fetch(_SQL["gone"], int(now_s - older_than_s))
        return [row["name"] for row in rows]
