from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from coterie.config import DEFAULT_MODEL, ModelSettings
from coterie.models.errors import ModelError
from coterie.models.resolve import resolve
from coterie.models.store import InstalledModel, ModelStore


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def install(store: ModelStore, name: str, content: bytes) -> None:
    with store.lock(name):
        made = store.workspace(name) / "it.gguf"
        made.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        store.install(InstalledModel(name, "it.gguf", digest, len(content), "", ""), made)


def test_a_local_file(store: ModelStore, tmp_path: Path, gguf: Callable[..., bytes]) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(gguf())
    assert resolve(ModelSettings(name="mine", path=path), store) == path


def test_a_local_file_that_is_not_there(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no model file") as caught:
        resolve(ModelSettings(name="mine", path=tmp_path / "own.gguf"), store)
    assert "'path'" in caught.value.remedy


def test_a_local_file_that_is_no_model(store: ModelStore, tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(b"PK")
    with pytest.raises(ModelError, match="not a GGUF model"):
        resolve(ModelSettings(name="mine", path=path), store)


@pytest.mark.parametrize("settings", [{"name": DEFAULT_MODEL}, {"name": "mine", "catalog": DEFAULT_MODEL}])
def test_an_installed_model(store: ModelStore, gguf: Callable[..., bytes], settings: dict[str, str]) -> None:
    install(store, DEFAULT_MODEL, gguf())
    assert resolve(ModelSettings.model_validate(settings), store) == store.path_of(DEFAULT_MODEL)


def test_a_model_that_was_not_pulled(store: ModelStore) -> None:
    with pytest.raises(ModelError, match="not installed") as caught:
        resolve(ModelSettings(name=DEFAULT_MODEL), store)
    assert caught.value.remedy == f"Run 'coterie models pull {DEFAULT_MODEL}'."


@pytest.mark.parametrize("name", ["unheard-of", "a/b"])
def test_a_name_that_is_in_no_catalogue(store: ModelStore, name: str) -> None:
    with pytest.raises(ModelError, match="not in the catalogue"):
        resolve(ModelSettings(name=name), store)
