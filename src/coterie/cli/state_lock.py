"""One server for one state folder: a lock that the running server holds, with its address in it.

The lock is the system's (``flock``): it ends with the process, however that ends, so a stale file locks nobody out.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_TRIES = 5
_BETWEEN_TRIES_S = 0.05


@dataclass(frozen=True, slots=True)
class RunningServer:
    """What a running server says of itself in its lock."""

    pid: int
    url: str


class StateTakenError(Exception):
    """Another server runs on this state folder."""

    def __init__(self, folder: Path, running: RunningServer | None) -> None:
        self.folder = folder
        self.running = running
        super().__init__(str(folder))


class StateLock:
    """The lock of ``folder``; use as a context manager. Raises :class:`StateTakenError` where it is taken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: int | None = None

    def __enter__(self) -> StateLock:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = os.open(_path(self._folder), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _take(file):
            os.close(file)
            raise StateTakenError(self._folder, _read(_path(self._folder)))
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)

    def tell(self, url: str) -> None:
        """Write where the server answers."""
        assert self._file is not None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps({"pid": os.getpid(), "url": url}).encode(), 0)


def _take(file: int) -> bool:
    """Lock for this process. Somebody who only looks holds it for a moment, so more than one try is made."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_BETWEEN_TRIES_S)
        else:
            return True
    return False


def running_server(folder: Path) -> RunningServer | None:
    """The server that runs on ``folder``, if one does."""
    try:
        file = os.open(_path(folder), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(_path(folder))
    finally:
        os.close(file)
    return None


def _path(folder: Path) -> Path:
    return folder / "serve.lock"


def _read(path: Path) -> RunningServer | None:
    try:
        value = json.loads(path.read_bytes())
        return RunningServer(int(value["pid"]), str(value["url"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
