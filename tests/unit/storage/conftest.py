"""Databases for the tests of this room: each test runs on every kind of database that there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.postgres import postgres_server
from tests.support.stored import Clock

from coterie.storage import ConversationStore, Database, ResponseStore, open_database

KINDS = ("sqlite", "postgres")
_TABLES = ("responses", "conversations", "instances")  # and what belongs to them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop for all of this room's tests: the databases stay open from one to the next."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


def _new_url(kind: str, folder: Path) -> str:
    return postgres_server().new_database() if kind == "postgres" else f"sqlite:///{folder}/coterie.db"


@pytest_asyncio.fixture(params=KINDS, scope="session", loop_scope="session")
async def open_one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    database = await open_database(_new_url(request.param, tmp_path_factory.mktemp("db")))
    yield database
    await database.close()


@pytest_asyncio.fixture(loop_scope="session")
async def db(open_one: Database) -> Database:
    """An open database with nothing in it."""
    for table in _TABLES:
        await open_one.execute(f"DELETE FROM {table}")
    return open_one


@pytest.fixture(params=KINDS)
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that was never opened."""
    return _new_url(request.param, tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def responses(db: Database, clock: Clock) -> ResponseStore:
    return ResponseStore(db, clock=clock)


@pytest.fixture
def conversations(db: Database, clock: Clock) -> ConversationStore:
    return ConversationStore(db, clock=clock)
