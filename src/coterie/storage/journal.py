"""What running streams have sent, so that it outlasts a killed process.

What it promises:

* What :meth:`JournalFile.write` was given is with the operating system when it returns: it survives the process, not a
  loss of power.
* One file for each response that runs, readable by its owner alone, gone when the stream's end is stored.
* :meth:`Journal.left` and :meth:`Journal.read` give whole events only: the last write may have been cut.
* What else lies in the folder is left alone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from coterie.errors import ApiError
from coterie.storage.database import StorageError

_SUFFIX: Final = ".events"
_RESPONSE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_EVENT_END: Final = b"\n\n"


class Journal:
    """The journals in ``folder``, made where there is none; raises :class:`StorageError` where that cannot be done."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"The folder {folder} cannot be used: {error.strerror}.") from None

    def open(self, response_id: str) -> JournalFile:
        """Begin the journal of a response, or go on with it; raises :class:`ApiError` ``storage_failed``."""
        return JournalFile(self._path(response_id))

    def left(self) -> dict[str, bytes]:
        """What journals hold, by response. At start-up: of responses that were running when the process ended.

        Raises :class:`StorageError` where one cannot be read.
        """
        try:
            return {response_id: _whole_events(self._path(response_id).read_bytes()) for response_id in self.ids()}
        except OSError as error:
            raise StorageError(f"A file in {self._folder} cannot be read: {error.strerror}.") from None

    def ids(self) -> list[str]:
        """The responses that have a journal. Raises :class:`StorageError` where the folder cannot be read."""
        try:
            paths = [path for path in self._folder.iterdir() if path.name.endswith(_SUFFIX) and path.is_file()]
        except OSError as error:
            raise StorageError(f"The folder {self._folder} cannot be read: {error.strerror}.") from None
        names = (path.name.removesuffix(_SUFFIX) for path in paths)
        return sorted(name for name in names if _RESPONSE_ID.fullmatch(name))

    def read(self, response_id: str) -> bytes:
        """The whole events in the journal of a response; none where there is no journal, or it cannot be read."""
        try:
            return _whole_events(self._path(response_id).read_bytes())
        except OSError:
            return b""

    def remove(self, response_id: str) -> None:
        """Delete the journal of a response, where there is one."""
        self._path(response_id).unlink(missing_ok=True)

    def _path(self, response_id: str) -> Path:
        if not _RESPONSE_ID.fullmatch(response_id):
            raise ValueError(f"not the id of a response: {response_id[:100]!r}")
        return self._folder / f"{response_id}{_SUFFIX}"


class JournalFile:
    """The journal of one response."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(error) from None

    def write(self, data: bytes) -> None:
        """Append ``data``; raises :class:`ApiError` ``storage_failed`` where not all of it can be written."""
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):  # the disk is full, and the next write says so
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            raise _failed(error) from None

    def read(self, offset: int, most: int | None = None) -> bytes:
        """What was written, from byte ``offset`` on, ``most`` bytes of it; also where the file was forgotten.

        Raises as :meth:`write`.
        """
        try:
            left = max(0, os.fstat(self._descriptor).st_size - offset)
            return os.pread(self._descriptor, left if most is None else min(most, left), offset)
        except OSError as error:
            raise _failed(error) from None

    def forget(self) -> None:
        """Delete the file; what it holds can be read until it is closed."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, which stays. Doing so again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Close the file and delete it: what it holds is stored elsewhere."""
        self.close()
        self._path.unlink(missing_ok=True)


def _whole_events(data: bytes) -> bytes:
    return data[: data.rfind(_EVENT_END) + len(_EVENT_END)] if _EVENT_END in data else b""


def _failed(error: OSError) -> ApiError:
    return ApiError("storage_failed", detail=f"a journal cannot be used: {error.strerror}")
