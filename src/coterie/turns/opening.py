"""The storage of a server, opened: database, journal, seal; and what an earlier process left, brought to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from coterie.config import Settings
from coterie.errors import ApiError
from coterie.storage.conversations import ConversationStore
from coterie.storage.journal import Journal
from coterie.storage.opening import open_database
from coterie.storage.responses import ResponseStore
from coterie.turns.keeping import Keeping
from coterie.turns.sealing import Sealer, key_of

_log = logging.getLogger(__name__)

_PURGE_EVERY_S: Final = 600.0
_MEND_EVERY_S: Final = 5.0


@contextlib.asynccontextmanager
async def opened_keeping(settings: Settings) -> AsyncIterator[Keeping]:
    """What is kept of responses, while the server runs. Raises ``StorageError``, ``OSError``."""
    folder = settings.state_dir
    folder.mkdir(parents=True, exist_ok=True)
    database = await open_database(settings.storage_url)
    try:
        keeping = Keeping(
            ResponseStore(database),
            ConversationStore(database),
            Journal(folder / "responses"),
            Sealer(key_of(folder)),
            settings.responses,
            instance_of(folder),
        )
        if (left := await keeping.recover()) > 0:
            _log.warning("%d responses were interrupted by the end of the server before this one", left)
        tending = [asyncio.create_task(_purge(keeping)), asyncio.create_task(_mend(keeping))]
        try:
            yield keeping
        finally:
            for task in tending:
                task.cancel()
            await asyncio.wait(tending)
            await keeping.stop()
    finally:
        await database.close()


async def _purge(keeping: Keeping) -> None:
    """Delete what has expired, again and again."""
    while True:
        try:
            if (count := await keeping.responses.purge(int(time.time()))) > 0:
                _log.info("%d expired responses were deleted", count)
        except ApiError as error:  # the database may be back the next time; requests tell of it meanwhile
            _log.error("expired responses were not deleted: %s", error.detail)
        await asyncio.sleep(_PURGE_EVERY_S)


async def _mend(keeping: Keeping) -> None:
    while True:
        await asyncio.sleep(_MEND_EVERY_S)
        await keeping.mend()


def instance_of(folder: Path) -> str:
    """The name of the server with this state folder, among those that share a database; made with the first start."""
    path = folder / "instance"
    if not path.exists():
        path.write_text(f"{uuid.uuid4().hex}\n", encoding="ascii")
    return path.read_text(encoding="ascii").strip()
