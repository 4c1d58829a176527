"""PostgreSQL, by a bounded pool of connections.

Rules:

* Every statement has its connection to itself, from the pool; a transaction keeps one until its end. Whoever waits
  longer for a connection than a statement may take is told that storage failed.
* A task that is cancelled takes its statement along: the server is told, and rolls back.
* Nothing is retried: a connection that broke fails the statement it broke under, and the pool makes a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg  # type: ignore[import-untyped]

from coterie.storage.database import (
    STATEMENT_TIMEOUT_S,
    NotAppliedError,
    Row,
    Statements,
    Step,
    StorageError,
    storage_failed,
)

MAX_CONNECTIONS: Final = 10
CONNECT_TIMEOUT_S: Final = 10.0

_FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What can go wrong with a statement; what takes too long is an ``OSError`` as well."""
_MIGRATION_KEY: Final = 0x636F7465726965
"""Names our lock among those of other programs that use the same database."""


class PostgresDatabase:
    """A database of a PostgreSQL server, open. Made by :func:`open_postgres`."""

    time_query = "SELECT CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp())) AS BIGINT)"
    migration_lock = f"SELECT pg_advisory_xact_lock({_MIGRATION_KEY})"

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def fetch(self, sql: str, *args: Any) -> Sequence[Row]:
        """Every row of a query."""
        async with self._connection() as connection:
            return await connection.fetch(sql, *args)

    async def fetch_one(self, sql: str, *args: Any) -> Row | None:
        """The first row of a query."""
        async with self._connection() as connection:
            return await connection.fetch_one(sql, *args)

    async def execute(self, sql: str, *args: Any) -> int:
        """Execute a statement on its own; returns how many rows it changed."""
        async with self._connection() as connection:
            return await connection.execute(sql, *args)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Statements]:
        """Statements that happen together or not at all."""
        async with self._connection() as connection, connection.transaction():
            yield connection

    async def apply(self, prepare: Callable[[], Sequence[Step]]) -> None:
        """Execute a batch in one transaction."""
        steps = await asyncio.to_thread(prepare)
        async with self._connection() as connection, connection.transaction():
            for step in steps:
                await connection.step(step)

    async def forget(self) -> None:
        """Nothing: when deleted rows leave the server's disk is its own business (``VACUUM``)."""

    async def tend(self) -> None:
        """Nothing: nothing is owed."""

    async def close(self) -> None:
        """Let the statements under way finish, and close every connection."""
        try:
            await asyncio.wait_for(self._pool.close(), STATEMENT_TIMEOUT_S)
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        with _failures_told():
            connection = await self._pool.acquire(timeout=STATEMENT_TIMEOUT_S)
        try:
            yield _Connection(connection)
        finally:
            with _failures_told():
                await self._pool.release(connection)


class _Connection:
    """The statements on one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *args: Any) -> Sequence[Row]:
        with _failures_told():
            rows: Sequence[Row] = await self._connection.fetch(sql, *args)
        return rows

    async def fetch_one(self, sql: str, *args: Any) -> Row | None:
        with _failures_told():
            row: Row | None = await self._connection.fetchrow(sql, *args)
        return row

    async def execute(self, sql: str, *args: Any) -> int:
        with _failures_told():
            return _changed(await self._connection.execute(sql, *args))

    async def step(self, step: Step) -> None:
        if not step.needed and len(step.rows) > 1:  # sent at once, as nobody asks what each one changed
            with _failures_told():
                await self._connection.executemany(step.sql, step.rows)
            return
        for row, args in enumerate(step.rows):
            if not await self.execute(step.sql, *args) and step.needed:
                raise NotAppliedError(step.sql, row)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        transaction = self._connection.transaction()
        with _failures_told():
            await transaction.start()
        try:
            yield
        except BaseException:  # cancellation too
            with suppress(*_FAILURES):  # the connection is lost, and the transaction with it
                await transaction.rollback()
            raise
        with _failures_told():
            await transaction.commit()


@contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise storage_failed(_said(error)) from error


def _changed(status: str) -> int:
    """How many rows a statement changed, by what the server says of it: ``UPDATE 3``, ``INSERT 0 1``."""
    count = status.rpartition(" ")[2]
    return int(count) if count.isdigit() else 0


def _said(error: BaseException) -> str:
    """What the server said, without the values that it quotes in the lines after the first."""
    first_line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__} {getattr(error, 'sqlstate', None) or ''}: {first_line}"


# ---------------------------------------------------------------- opening


async def open_postgres(url: str) -> PostgresDatabase:
    """Connect to the database that ``url`` names. Raises :class:`StorageError`."""
    try:
        pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=MAX_CONNECTIONS,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=STATEMENT_TIMEOUT_S,
            server_settings={"application_name": "coterie"},
        )
    except (*_FAILURES, ValueError) as error:
        raise StorageError(f"The database {_shown(url)} cannot be opened: {_reason(error)}.") from None
    return PostgresDatabase(pool)


_REASONS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (asyncpg.InvalidAuthorizationSpecificationError, "the server refuses this user or password"),
    (asyncpg.InvalidCatalogNameError, "the server has no database of that name"),
    (asyncpg.TooManyConnectionsError, "the server has no connection left"),
    (asyncpg.CannotConnectNowError, "the server is starting or stopping"),
    (TimeoutError, f"the server did not answer within {CONNECT_TIMEOUT_S:.0f} seconds"),
    (ConnectionRefusedError, "nothing listens at that address"),
    (FileNotFoundError, "nothing listens at that address"),
    (OSError, "that address cannot be reached"),
    (asyncpg.InterfaceError, "its address is not one that PostgreSQL understands"),
    (ValueError, "its address is not one that PostgreSQL understands"),
)


def _reason(error: BaseException) -> str:
    said = (reason for kind, reason in _REASONS if isinstance(error, kind))
    return next(said, f"the server says {type(error).__name__}")


def _shown(url: str) -> str:
    """``url`` without the parts that may hold a password."""
    try:
        parts = urlsplit(url)
        host, port, user = parts.hostname or "", parts.port, parts.username
    except ValueError:
        return "at this address"
    return f"{parts.scheme}://{f'{user}@' if user else ''}{host}{f':{port}' if port else ''}{parts.path}"
