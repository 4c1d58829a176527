"""The models on this machine's disk.

What it promises:

* ``<folder>/<name>/`` holds a model's file and its record ``model.json``. It appears by one ``rename`` of a folder that
  was written, hashed and flushed elsewhere, and disappears by one: a kill at any moment leaves the complete model or
  nothing that counts as installed.
* What is unfinished lies in ``<folder>/.partial/<name>/``; only the holder of the model's lock touches it.
* One process at a time changes a model (``flock`` on ``<folder>/.locks/<name>``, which the kernel releases when its
  holder dies). Readers take no lock: they see the model before or after a change.
* A name is one path part: letters, digits, ``.``, ``_`` and ``-``, the first a letter or digit.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from coterie.models.errors import ModelError
from coterie.models.progress import Progress, file_sha256, silent

_RECORD: Final = "model.json"
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """The record beside a model's file. ``pulled_at`` is UTC in ISO 8601."""

    name: str
    file: str
    sha256: str
    size_bytes: int
    source: str
    pulled_at: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What re-reading a model found; ``problem`` is ``None`` where every byte is as it should be."""

    name: str
    problem: str | None

    @property
    def ok(self) -> bool:
        """Whether the file is exactly the one that was pulled."""
        return self.problem is None


class ModelStore:
    """The models under ``folder``, which need not exist yet. Every method raises :class:`ModelError` only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self) -> tuple[InstalledModel, ...]:
        """Every installed model, by name."""
        try:
            names = sorted(entry.name for entry in self.folder.iterdir())
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise _unusable(self.folder, error) from None
        return tuple(record for name in names if (record := self.find(name)) is not None)

    def find(self, name: str) -> InstalledModel | None:
        """The record of ``name`` where it is installed: its record can be read and its file has the size it says."""
        if not _SAFE_NAME.fullmatch(name):
            return None
        record = _read_record(self.folder / name / _RECORD)
        if record is None or record.name != name:
            return None
        try:
            present = (self.folder / name / record.file).stat()
        except OSError:
            return None
        return record if present.st_size == record.size_bytes else None

    def installed(self, name: str) -> bool:
        """Whether ``name`` is here, complete."""
        return self.find(name) is not None

    def path_of(self, name: str) -> Path:
        """The file of an installed model."""
        return self.folder / name / self._get(name).file

    def verify(self, name: str, progress: Progress = silent) -> Verification:
        """Read the file of an installed model again and compare its hash."""
        record = self._get(name)
        try:
            found = file_sha256(self.folder / name / record.file, progress)
        except OSError as error:
            return Verification(name, f"its file cannot be read: {error.strerror}")
        if found != record.sha256:
            return Verification(name, f"its file has changed: SHA-256 is {found}, should be {record.sha256}")
        return Verification(name, None)

    def remove(self, name: str, on_wait: Callable[[], None] | None = None) -> None:
        """Delete a model, complete or damaged, and whatever an unfinished pull of it left."""
        if not self._partial(name).exists() and not (self.folder / name).exists():
            raise _not_installed(name)
        with self.lock(name, on_wait):
            try:
                if (self.folder / name).exists():
                    self._set_aside(name)
                shutil.rmtree(self.workspace(name))
            except OSError as error:
                raise _unusable(self.folder, error) from None

    @contextmanager
    def lock(self, name: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold ``name`` against every other process; ``on_wait`` is called once where somebody else holds it."""
        path = self.folder / ".locks" / check_name(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("ab")
        except OSError as error:
            raise _unusable(self.folder, error) from None
        with handle:
            try:
                _lock_file(handle.fileno(), on_wait)
            except OSError as error:
                raise _unusable(self.folder, error) from None
            yield

    def workspace(self, name: str) -> Path:
        """The folder for what is unfinished of ``name``; only under its lock. May raise ``OSError``."""
        folder = self._partial(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard(self, name: str) -> None:
        """Throw away what is unfinished of ``name``; only under its lock."""
        shutil.rmtree(self._partial(name), ignore_errors=True)

    def install(self, record: InstalledModel, verified: Path) -> None:
        """Make ``verified``, a complete file in the workspace, an installed model; only under its lock.

        Replaces an older one of the same name. May raise ``OSError``.
        """
        ready = self.workspace(record.name) / "ready"
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir()
        _flush(verified)
        os.replace(verified, ready / record.file)
        (ready / _RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
        _flush(ready / _RECORD)
        _flush(ready)
        if (self.folder / record.name).exists():
            self._set_aside(record.name)
        os.replace(ready, self.folder / record.name)
        _flush(self.folder)
        self.discard(record.name)

    def _get(self, name: str) -> InstalledModel:
        record = self.find(name)
        if record is None:
            raise _not_installed(name)
        return record

    def _partial(self, name: str) -> Path:
        return self.folder / ".partial" / check_name(name)

    def _set_aside(self, name: str) -> None:
        """Uninstall in one step; the files themselves go with the workspace."""
        aside = self.workspace(name) / "old"
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(self.folder / name, aside)


def check_name(name: str) -> str:
    """Return ``name`` where it can be a folder's name; else raises :class:`ModelError`."""
    if not _SAFE_NAME.fullmatch(name):
        raise ModelError(
            f"{name!r} cannot be the name of a model in the store.",
            "Use letters, digits, '.', '_' and '-', beginning with a letter or digit.",
        )
    return name


def _not_installed(name: str) -> ModelError:
    return ModelError(f"The model '{name}' is not installed.", "'coterie models list' shows those that are.")


def _lock_file(descriptor: int, on_wait: Callable[[], None] | None) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if on_wait is not None:
            on_wait()
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _read_record(path: Path) -> InstalledModel | None:
    """The record in ``path``, or ``None`` where there is none that this version can use."""
    try:
        record = InstalledModel(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = (record.name, record.file, record.sha256, record.source, record.pulled_at)
    if not all(isinstance(text, str) for text in texts) or not isinstance(record.size_bytes, int):
        return None
    return record if _SAFE_NAME.fullmatch(record.file) else None


def _flush(path: Path) -> None:
    """Have the system write a file or a folder to its disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(folder: Path, error: OSError) -> ModelError:
    return ModelError(
        f"The model folder {folder} cannot be used: {error.strerror}.",
        "Check its owner and permissions, or set another 'state_dir'.",
    )
