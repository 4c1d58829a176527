"""SQLite, without ever holding up the event loop.

Rules:

* Two connections, each with a thread of its own that works off a queue: one writes, one reads. A read sees what was
  committed before it was asked for, and waits for no writer (write-ahead log).
* Whoever writes takes the turn (an :class:`asyncio.Lock`) to queue its job. A batch or a single statement gives it back
  at once, for the queue keeps the order; a transaction keeps it until its end is queued. So nobody's statement ever
  gets in between another's, and a task that is cancelled need not wait: its ``ROLLBACK`` is in the queue before anybody
  else's job.
* A job whose caller is gone before it began is not done, nor one that has waited as long as a statement may take: its
  caller is told that storage failed. One that began is done whole.
* What is stored is made ready (packed) before the turn is taken: the thread that writes does nothing but write.
* Other processes may use the file too: a writer begins with ``BEGIN IMMEDIATE`` and waits for its turn as long as a
  statement may take.
* What is deleted is overwritten (``secure_delete``), in the log as soon as :meth:`SqliteDatabase.forget` was called.
  Where somebody reads meanwhile the log cannot be emptied: it is owed then, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from coterie.errors import ApiError
from coterie.storage.database import (
    STATEMENT_TIMEOUT_S,
    Args,
    NotAppliedError,
    Row,
    Statements,
    Step,
    StorageError,
    storage_failed,
)

_log = logging.getLogger(__name__)

_EMPTYING_TIMEOUT_S: Final = 0.2
"""How long emptying the log waits for who reads; all that write wait with it."""
_LONGEST_LOG_BYTES: Final = 64 * 1024 * 1024
_INSTRUCTIONS_BETWEEN_CHECKS: Final = 20_000
"""Of SQLite's machine: some tenths of a millisecond."""
_SETTINGS: Final = (
    f"PRAGMA busy_timeout = {int(STATEMENT_TIMEOUT_S * 1000)}",
    "PRAGMA synchronous = NORMAL",
    # Folding the log into the file waits for the disk, and with it who writes next: seldom, then.
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA trusted_schema = OFF",
    f"PRAGMA journal_size_limit = {_LONGEST_LOG_BYTES}",
)
_PLACEHOLDER: Final = re.compile(r"\$(\d+)")

T = TypeVar("T")
_Job = Callable[[sqlite3.Connection], T]


class SqliteDatabase:
    """A database file, open. Made by :func:`open_sqlite`."""

    time_query = "SELECT CAST(strftime('%s', 'now') AS INTEGER)"
    migration_lock = "SELECT 1"  # the transaction's own BEGIN IMMEDIATE is the lock

    def __init__(self, writer: _Worker, reader: _Worker) -> None:
        self._writer = writer
        self._reader = reader
        self._turn = asyncio.Lock()
        self._emptying = asyncio.Lock()
        self._next_emptying: asyncio.Task[None] | None = None
        """Not begun: whoever wants the log emptied now is served by it."""
        self._emptyings: set[asyncio.Task[None]] = set()
        self._owes_emptying = False

    async def fetch(self, sql: str, *args: Any) -> Sequence[Row]:
        """Every row of a query that changes nothing."""
        return await self._reader.submit(partial(_fetch, sql, args))

    async def fetch_one(self, sql: str, *args: Any) -> Row | None:
        """The first row of a query that changes nothing."""
        return await self._reader.submit(partial(_fetch_one, sql, args))

    async def execute(self, sql: str, *args: Any) -> int:
        """Execute a statement on its own; returns how many rows it changed."""
        return await self._write(partial(_execute, sql, args))

    async def apply(self, prepare: Callable[[], Sequence[Step]]) -> None:
        """Execute a batch in one transaction; one trip to the writing thread."""
        steps = await asyncio.to_thread(prepare)
        await self._write(partial(_apply, steps))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Statements]:
        """Statements that happen together or not at all."""
        async with self._turn_to_write():
            try:
                await self._writer.submit(_begin)
                yield _Transaction(self._writer)
                await self._writer.submit(_commit)
            except BaseException:  # cancellation too
                self._writer.submit_last(_roll_back)
                raise

    async def forget(self) -> None:
        """Fold the log into the file, so that no deleted text is left in it; several calls at once are one.

        Does not fail where that cannot be done now: it is owed, to the next call or :meth:`tend`.
        """
        self._writer.check_open()
        if self._next_emptying is None:
            self._next_emptying = asyncio.create_task(self._empty_log())
            self._emptyings.add(self._next_emptying)
            self._next_emptying.add_done_callback(self._emptyings.discard)
        await asyncio.shield(self._next_emptying)

    async def tend(self) -> None:
        """Empty the log, where that is owed."""
        if self._owes_emptying:
            await self.forget()

    async def close(self) -> None:
        """Finish what is queued and close the file, which empties the log."""
        await self._reader.close()
        await self._writer.close()
        if self._emptyings:
            await asyncio.wait(self._emptyings)

    async def _empty_log(self) -> None:
        async with self._emptying:
            self._next_emptying = None
            self._owes_emptying = True
            try:
                self._owes_emptying = not await self._write(_empty_log)
            except ApiError as error:
                _log.warning("the log of the database was not emptied, which is tried again: %s", error.detail)

    async def _write(self, job: _Job[T]) -> T:
        async with self._turn_to_write():
            future = self._writer.submit(job)
        return await future

    @asynccontextmanager
    async def _turn_to_write(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT_S):
                await self._turn.acquire()
        except TimeoutError:
            raise storage_failed("the turn to write did not come in time") from None
        try:
            yield
        finally:
            self._turn.release()


class _Transaction:
    """The statements inside of a transaction: all of them, queries too, on the connection that writes."""

    def __init__(self, writer: _Worker) -> None:
        self._writer = writer

    async def fetch(self, sql: str, *args: Any) -> Sequence[Row]:
        return await self._writer.submit(partial(_fetch, sql, args))

    async def fetch_one(self, sql: str, *args: Any) -> Row | None:
        return await self._writer.submit(partial(_fetch_one, sql, args))

    async def execute(self, sql: str, *args: Any) -> int:
        return await self._writer.submit(partial(_execute, sql, args))


class _Worker:
    """A connection and the thread that alone uses it, one job after another."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._queue: SimpleQueue[_Queued | None] = SimpleQueue()
        self._deadline = 0.0
        self._closed = False
        connection.set_progress_handler(self._late, _INSTRUCTIONS_BETWEEN_CHECKS)
        # A daemon, so that a database that nobody closed does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def check_open(self) -> None:
        """Raises ``storage_failed`` where it is closed."""
        if self._closed:
            raise storage_failed("the database is closed")

    def submit(self, job: _Job[T]) -> asyncio.Future[T]:
        """Queue ``job``. Its result, or the failure ``storage_failed``, comes by the future."""
        queued = self._put(job)
        patience = queued.future.get_loop().call_later(STATEMENT_TIMEOUT_S, queued.give_up)
        queued.future.add_done_callback(lambda _: patience.cancel())
        return queued.future

    def submit_last(self, job: _Job[None]) -> None:
        """Queue ``job``, whose outcome nobody waits for, and which is done however long it waits."""
        if not self._closed:
            self._put(job).future.add_done_callback(_look_at_outcome)

    def _put(self, job: _Job[Any]) -> _Queued:
        self.check_open()
        queued = _Queued(job, asyncio.get_running_loop().create_future())
        self._queue.put(queued)
        return queued

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while (queued := self._queue.get()) is not None:
            if queued.begin():
                self._do(queued.job, queued.future)
        self._connection.close()

    def _do(self, job: _Job[Any], future: asyncio.Future[Any]) -> None:
        self._deadline = time.monotonic() + STATEMENT_TIMEOUT_S
        result: Any = None
        failure: BaseException | None = None
        try:
            result = job(self._connection)
        except sqlite3.Error as error:
            failure = storage_failed(error)
        except BaseException as error:  # noqa: BLE001  it is raised again, where the job was asked for
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            future.get_loop().call_soon_threadsafe(_settle, future, result, failure)

    def _late(self) -> bool:
        return time.monotonic() > self._deadline


class _Queued:
    """A job that waits for its thread. Either it begins, or it is given up."""

    def __init__(self, job: _Job[Any], future: asyncio.Future[Any]) -> None:
        self.job = job
        self.future = future
        self._decided = threading.Lock()
        """Taken by who is first, and never given back."""

    def begin(self) -> bool:
        """Whether the job is to be done; called by the thread."""
        return not self.future.cancelled() and self._decided.acquire(blocking=False)

    def give_up(self) -> None:
        """It has waited long enough; called by the loop."""
        if not self.future.done() and self._decided.acquire(blocking=False):
            self.future.set_exception(storage_failed("the database did not get to it in time"))


def _settle(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():  # cancelled meanwhile
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)


def _look_at_outcome(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()  # so that it does not count as never retrieved


# ---------------------------------------------------------------- jobs: they run in a worker's thread


def _fetch(sql: str, args: Args, connection: sqlite3.Connection) -> list[sqlite3.Row]:
    return connection.execute(_numbered(sql), args).fetchall()


def _fetch_one(sql: str, args: Args, connection: sqlite3.Connection) -> sqlite3.Row | None:
    cursor = connection.execute(_numbered(sql), args)
    row: sqlite3.Row | None = cursor.fetchone()
    cursor.close()  # what is left unread would hold the snapshot
    return row


def _execute(sql: str, args: Args, connection: sqlite3.Connection) -> int:
    return max(0, connection.execute(_numbered(sql), args).rowcount)


def _apply(steps: Sequence[Step], connection: sqlite3.Connection) -> None:
    _begin(connection)
    try:
        for step in steps:
            for row, args in enumerate(step.rows):
                if not _execute(step.sql, args, connection) and step.needed:
                    raise NotAppliedError(step.sql, row)
        _commit(connection)
    except BaseException:  # whatever it was, the next job finds no transaction open
        _roll_back(connection)
        raise


def _begin(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")


def _commit(connection: sqlite3.Connection) -> None:
    connection.execute("COMMIT")


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _empty_log(connection: sqlite3.Connection) -> bool:
    """Whether the log is empty now: it is not where somebody reads what stands in it."""
    patience_ms: int = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute(f"PRAGMA busy_timeout = {int(_EMPTYING_TIMEOUT_S * 1000)}").fetchall()
    try:
        busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        return busy == 0
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience_ms}").fetchall()


@lru_cache(maxsize=512)
def _numbered(sql: str) -> str:
    """``sql`` with its placeholders as SQLite writes them: it takes ``$1`` for a name."""
    return _PLACEHOLDER.sub(r"?\1", sql)


# ---------------------------------------------------------------- opening


async def open_sqlite(path: Path) -> SqliteDatabase:
    """Open the file ``path``, made where there is none, for its owner's eyes alone. Raises :class:`StorageError`."""
    writer, reader = await asyncio.to_thread(_connect_both, path)
    return SqliteDatabase(_Worker(writer, "coterie-sqlite-writer"), _Worker(reader, "coterie-sqlite-reader"))


def _connect_both(path: Path) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    try:
        path = path.expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StorageError(f"The database file {path} cannot be used: {error.strerror}.") from None
    except RuntimeError:
        raise StorageError(f"The database file {path} cannot be found: nobody here has that home folder.") from None
    try:
        writer = _connect(path)
        try:
            _write_ahead(writer, path)
            reader = _connect(path)
            reader.execute("PRAGMA query_only = ON")
        except BaseException:
            writer.close()
            raise
    except sqlite3.Error as error:
        raise StorageError(f"The database file {path} cannot be used: {error}.") from None
    return writer, reader


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for setting in _SETTINGS:
            connection.execute(setting).fetchall()
    except BaseException:
        connection.close()
        raise
    connection.row_factory = sqlite3.Row
    return connection


def _write_ahead(connection: sqlite3.Connection, path: Path) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StorageError(f"The database file {path} lies on a file system that SQLite cannot share a log on.")
