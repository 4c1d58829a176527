"""What every database here can do, whichever it is.

What it promises:

* One SQL for all: placeholders are ``$1``, ``$2``, ...; truth values are 0 and 1; JSON is text. What only one database
  understands stands in that database's module.
* A statement, a batch or a transaction whose ``await`` was cancelled has happened whole or not at all, and the
  database can be used on.
* Every statement has a time limit (:data:`STATEMENT_TIMEOUT_S`), and so has the wait for a connection, for a place in
  a queue, or for a transaction of somebody else to end. What fails or takes longer is the failure ``storage_failed``;
  what the database said goes into its ``detail``, for the log.
* What keeps a database from being opened is a :class:`StorageError`: a sentence for the operator, without a password.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from coterie.errors import ApiError
from coterie.errors.cleaning import mask_secrets

STATEMENT_TIMEOUT_S: Final = 10.0
"""How long one statement, or one batch of them, may take."""

Args = tuple[Any, ...]


class StorageError(Exception):
    """The database cannot be opened or used as it is. The text is for the operator, never for a client."""


class Row(Protocol):
    """One row of a result; a column is had by its name or its place."""

    def __getitem__(self, column: str | int, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a batch, executed once for each of ``rows``.

    Where ``needed``, each execution must change a row, or nothing of the batch happens.
    """

    sql: str
    rows: Sequence[Args]
    needed: bool = False


class NotAppliedError(Exception):
    """A needed step of a batch changed nothing, so nothing of the batch happened.

    ``sql`` is the step's statement, ``row`` the place of the arguments with which it changed nothing.
    """

    def __init__(self, sql: str, row: int) -> None:
        self.sql = sql
        self.row = row
        super().__init__(f"a needed statement changed nothing with its arguments {row}")


class Statements(Protocol):
    """Where statements can be executed: a database, or a transaction of it."""

    async def fetch(self, sql: str, *args: Any) -> Sequence[Row]:
        """Every row of the result. Raises :class:`ApiError` ``storage_failed``, as everything here does."""
        ...

    async def fetch_one(self, sql: str, *args: Any) -> Row | None:
        """The first row of the result; ``None`` where it has none."""
        ...

    async def execute(self, sql: str, *args: Any) -> int:
        """Execute a statement; returns how many rows it changed."""
        ...


class Database(Statements, Protocol):
    """A database, open. Its methods may be called by any number of tasks of one event loop."""

    time_query: str
    """A query for the Unix time, in whole seconds, by the database's clock."""
    migration_lock: str
    """A query that keeps other programs from migrating the database until the transaction ends."""

    def transaction(self) -> AbstractAsyncContextManager[Statements]:
        """Statements that happen together, or, where the block is left by an exception, not at all.

        Inside of the block only the transaction's own methods may be called, not the database's.
        """
        ...

    async def apply(self, prepare: Callable[[], Sequence[Step]]) -> None:
        """Execute a batch in one transaction, and in one trip where the database allows it.

        ``prepare`` makes the batch; it is called off the event loop, so that packing large values holds up nobody.
        Raises :class:`NotAppliedError` where a needed step changed nothing.
        """
        ...

    async def forget(self) -> None:
        """Take what was deleted off the disk too, where the database keeps it in a log of its own.

        Where that cannot be done now it is owed, and :meth:`tend` tries again.
        """
        ...

    async def tend(self) -> None:
        """Do what is owed; to be called from time to time."""
        ...

    async def close(self) -> None:
        """Finish what is under way and close. Whatever is asked of the database later fails."""
        ...


def storage_failed(error: BaseException | str) -> ApiError:
    """The failure that a client is told of; what the database said is for the log."""
    said = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return ApiError("storage_failed", detail=mask_secrets(said))
