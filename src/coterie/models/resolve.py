"""From a model's settings to the file that is to be loaded."""

from __future__ import annotations

from pathlib import Path

from coterie.config import ModelSettings
from coterie.models.catalogue import CATALOG
from coterie.models.errors import ModelError
from coterie.models.gguf import read_gguf
from coterie.models.store import ModelStore


def resolve(model: ModelSettings, store: ModelStore) -> Path:
    """Return the GGUF file of ``model``: its own ``path``, or the installed model that it names.

    Raises :class:`ModelError`, whose remedy says what to do, where there is none that can be read.
    """
    path = _local(model.path) if model.path is not None else _installed(model.catalog or model.name, store)
    read_gguf(path)
    return path


def _local(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_file():
        raise ModelError(f"There is no model file {path}.", "Correct 'path' in the configuration.")
    return path


def _installed(name: str, store: ModelStore) -> Path:
    if store.installed(name):
        return store.path_of(name)
    if name in CATALOG:
        raise ModelError(f"The model '{name}' is not installed.", f"Run 'coterie models pull {name}'.")
    raise ModelError(
        f"The model '{name}' is not in the catalogue.",
        "'coterie models catalog' shows those that are; give 'path' for a file of your own.",
    )
