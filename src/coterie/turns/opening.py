"""The storage of a server, opened: database, journal, seal; and what an earlier process left, brought to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from coterie.config import Settings
from coterie.errors import ApiError
from coterie.storage.conversations import ConversationStore
from coterie.storage.database import StorageError
from coterie.storage.files import write_whole
from coterie.storage.instances import Instances
from coterie.storage.journal import Journal
from coterie.storage.opening import open_database
from coterie.storage.responses import ResponseStore
from coterie.turns.keeping import Keeping
from coterie.turns.sealing import Sealer, key_of

_log = logging.getLogger(__name__)

_PURGE_EVERY_S: Final = 600.0
_MEND_EVERY_S: Final = 5.0
_BEAT_EVERY_S: Final = 10.0
"""How often this server says that it runs."""
_LOOK_AROUND_EVERY_S: Final = 30.0
_GONE_AFTER_S: Final = 120.0
"""A server that was not heard of for so long does not come back to what it left."""
_INSTANCE: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


@contextlib.asynccontextmanager
async def opened_keeping(settings: Settings) -> AsyncIterator[Keeping]:
    """What is kept of responses, while the server runs. Raises ``StorageError`` where it cannot be opened."""
    folder = settings.state_dir
    with _failures_told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        database = await open_database(settings.storage_url)
    try:
        with _failures_told(folder):
            keeping = Keeping(
                ResponseStore(database),
                ConversationStore(database),
                Journal(folder / "responses"),
                Sealer(key_of(folder)),
                settings.responses,
                instance_of(folder),
            )
            others = _Others(keeping, Instances(database), instance_of(folder))
            await others.beat()
            left = await keeping.recover()
        if left > 0:
            _log.warning("%d responses were interrupted by the end of the server before this one", left)
        tending = [
            asyncio.create_task(_again(_PURGE_EVERY_S, partial(_purge, keeping), "expired responses were not deleted")),
            asyncio.create_task(_again(_MEND_EVERY_S, keeping.mend, "what is owed to the database was not stored")),
            asyncio.create_task(_again(_MEND_EVERY_S, database.tend, "the database was not tended")),
            asyncio.create_task(_again(_BEAT_EVERY_S, others.beat, "other servers were not told that this one runs")),
            asyncio.create_task(_again(_LOOK_AROUND_EVERY_S, others.look_around, "no other server was looked for")),
        ]
        try:
            yield keeping
        finally:
            for task in tending:
                task.cancel()
            await asyncio.wait(tending)
            await keeping.stop()
    finally:
        await database.close()


@contextlib.contextmanager
def _failures_told(folder: Path) -> Iterator[None]:
    """What keeps the storage from being opened, in a sentence for the operator."""
    try:
        yield
    except ApiError as error:
        raise StorageError(f"What is stored cannot be used: {error.detail or error}.") from error
    except OSError as error:
        where = error.filename or folder
        raise StorageError(f"{where} cannot be used: {error.strerror or type(error).__name__}.") from error


class _Others:
    """The servers that share ``keeping``'s database with this one, which is ``name``."""

    def __init__(self, keeping: Keeping, instances: Instances, name: str) -> None:
        self._keeping = keeping
        self._instances = instances
        self._name = name

    async def beat(self) -> None:
        """This server runs."""
        await self._instances.beat(self._name, await self._instances.now_s())

    async def look_around(self) -> None:
        """Bring to its end what servers left that do not come back."""
        for name in await self._instances.gone(await self._instances.now_s(), _GONE_AFTER_S):
            if name != self._name:
                left = await self._keeping.recover(instance=name)
                _log.warning("server %s is gone: %d responses were interrupted", name, left)


async def _again(every_s: float, work: Callable[[], Awaitable[None]], otherwise: str) -> None:
    """Do ``work`` now and every so often; ``otherwise`` is what the log says where it fails."""
    while True:
        try:
            await work()
        except ApiError as error:  # the database may be back the next time; requests tell of it meanwhile
            _log.error("%s: %s", otherwise, error.detail)
        except Exception:  # noqa: BLE001  a mistake of ours: it is logged, and the work goes on to be done
            _log.exception("%s", otherwise)
        await asyncio.sleep(every_s)


async def _purge(keeping: Keeping) -> None:
    if (count := await keeping.responses.purge(int(time.time()))) > 0:
        _log.info("%d expired responses were deleted", count)


def instance_of(folder: Path) -> str:
    """The name of the server with this state folder, among those that share a database; made with the first start.

    Raises ``StorageError`` where the file holds no such name, and ``OSError``.
    """
    path = folder / "instance"
    if not path.exists():
        write_whole(path, f"{uuid.uuid4().hex}\n".encode())
    name = path.read_text(encoding="ascii", errors="replace").strip()
    if not _INSTANCE.fullmatch(name):
        raise StorageError(
            f"The file {path} does not hold the name of a server, which is letters and digits. Put back what was "
            "there, or delete it: this server has another name then."
        )
    return name
