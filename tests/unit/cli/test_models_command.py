from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coterie.cli import models as command
from coterie.config import DEFAULT_MODEL
from coterie.models.catalogue import CATALOG, CatalogModel, HuggingFace
from coterie.models.errors import ModelError
from coterie.models.progress import Progress
from coterie.models.store import InstalledModel, ModelStore

Coterie = Callable[..., Any]

CONTENT = b"weights"
LITTLE = CatalogModel(
    name=DEFAULT_MODEL,
    summary="For [tests]",
    licence="MIT",
    size_bytes=len(CONTENT),
    context_tokens=512,
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    file="little.gguf",
    source=HuggingFace("owner/repo", "abc", "little.gguf"),
)


def fake_pull(model: CatalogModel, store: ModelStore, progress: Progress) -> InstalledModel:
    progress(0, model.size_bytes, "wait")
    for done in range(model.size_bytes + 1):
        progress(done, model.size_bytes, "download")
    progress(model.size_bytes, model.size_bytes, "verify")
    record = InstalledModel(model.name, model.file, model.sha256, model.size_bytes, "a test", "2026-01-01T00:00:00")
    with store.lock(model.name):
        made = store.workspace(model.name) / model.file
        made.write_bytes(CONTENT)
        store.install(record, made)
    return record


@pytest.fixture(autouse=True)
def _little_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "CATALOG", {LITTLE.name: LITTLE})
    monkeypatch.setattr(command, "pull", fake_pull)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "state" / "models")


def test_an_empty_list_says_what_to_do(coterie: Coterie) -> None:
    assert "coterie models pull" in coterie("models", "list").out
    assert json.loads(coterie("models", "list", "--json").out) == []


def test_pull_takes_the_default_model(coterie: Coterie, store: ModelStore) -> None:
    ran = coterie("models", "pull")
    assert ran.status == 0
    assert ran.out == f"Installed {DEFAULT_MODEL}: {store.path_of(DEFAULT_MODEL)}\n"


def test_progress_off_a_terminal_is_lines_on_stderr(coterie: Coterie) -> None:
    lines = coterie("models", "pull").err.splitlines()
    assert lines[0] == f"{DEFAULT_MODEL}: another process is at this model, waiting"
    assert lines[1] == f"{DEFAULT_MODEL}: downloading 0% of 0 MB"
    assert lines[-2] == f"{DEFAULT_MODEL}: downloading 100% of 0 MB"
    assert lines[-1] == f"{DEFAULT_MODEL}: checking"
    assert len(lines) == len(set(lines))


def test_progress_on_a_terminal_is_a_bar(coterie: Coterie, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(stderr=True, force_terminal=True, width=200)
    monkeypatch.setattr(command, "stderr", lambda: terminal)
    assert "━" in coterie("models", "pull").err


def test_pull_again_says_so(coterie: Coterie, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    coterie("models", "pull", DEFAULT_MODEL)
    monkeypatch.setattr(command, "pull", lambda *_: pytest.fail("pulled again"))
    ran = coterie("models", "pull", DEFAULT_MODEL)
    assert ran.status == 0
    assert "already installed" in ran.out


def test_an_older_file_of_the_name_is_pulled_again(coterie: Coterie, monkeypatch: pytest.MonkeyPatch) -> None:
    coterie("models", "pull")
    changed = CatalogModel(**{name: getattr(LITTLE, name) for name in LITTLE.__slots__} | {"sha256": "0" * 64})
    monkeypatch.setattr(command, "CATALOG", {LITTLE.name: changed})
    assert coterie("models", "pull").out.startswith("Installed")


def test_quiet_is_quiet(coterie: Coterie) -> None:
    for _ in range(2):
        ran = coterie("models", "pull", "--quiet")
        assert (ran.status, ran.out, ran.err) == (0, "", "")


def test_an_unknown_name_has_a_neighbour(coterie: Coterie, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "CATALOG", CATALOG)
    ran = coterie("models", "pull", "qwen3-5b")
    assert ran.status == 1
    assert "not in the catalogue. Did you mean 'qwen3-" in ran.err
    assert "coterie models catalog" in ran.err


def test_a_pull_that_fails_is_lines(coterie: Coterie, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ModelError("No.", "Do this.")

    monkeypatch.setattr(command, "pull", refuse)
    ran = coterie("models", "pull")
    assert (ran.status, ran.out, ran.err) == (1, "", "error: No.\n  Do this.\n")


def test_the_list(coterie: Coterie, store: ModelStore) -> None:
    coterie("models", "pull")
    assert DEFAULT_MODEL in coterie("models", "list").out
    (model,) = json.loads(coterie("models", "list", "--json").out)
    assert model["name"] == DEFAULT_MODEL
    assert model["sha256"] == LITTLE.sha256
    assert Path(model["path"]).read_bytes() == CONTENT


def test_the_catalogue_says_what_is_here(coterie: Coterie) -> None:
    (before,) = json.loads(coterie("models", "catalog", "--json").out)
    assert before["installed"] is False
    assert before["source"] == "Hugging Face owner/repo"
    coterie("models", "pull")
    (after,) = json.loads(coterie("models", "catalog", "--json").out)
    assert after == {**before, "installed": True}
    row = coterie("models", "catalog").out.splitlines()[1]
    assert row.split() == [DEFAULT_MODEL, "0", "MB", "512", "MIT", "yes", "For", "[tests]"]


def test_verify_finds_the_changed_one(coterie: Coterie, store: ModelStore) -> None:
    coterie("models", "pull")
    assert coterie("models", "verify").out == f"{DEFAULT_MODEL}: ok\n"
    store.path_of(DEFAULT_MODEL).write_bytes(b"WEIGHTS")
    ran = coterie("models", "verify", DEFAULT_MODEL)
    assert ran.status == 1
    assert f"{DEFAULT_MODEL}: its file has changed" in ran.out
    ran = coterie("models", "verify", "--json")
    assert ran.status == 1
    (result,) = json.loads(ran.out)
    assert result["ok"] is False


def test_verify_of_what_is_not_there(coterie: Coterie) -> None:
    ran = coterie("models", "verify", "little")
    assert ran.status == 1
    assert "not installed" in ran.err


def test_remove(coterie: Coterie, store: ModelStore) -> None:
    coterie("models", "pull")
    assert coterie("models", "remove", DEFAULT_MODEL).out == f"Removed {DEFAULT_MODEL}.\n"
    assert store.list() == ()
    ran = coterie("models", "remove", DEFAULT_MODEL)
    assert ran.status == 1
    assert "not installed" in ran.err


def test_a_name_that_would_leave_the_store(coterie: Coterie, store: ModelStore) -> None:
    coterie("models", "pull")
    ran = coterie("models", "remove", f"../models/{DEFAULT_MODEL}")
    assert ran.status == 1
    assert store.installed(DEFAULT_MODEL)


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_store_is_where_the_configuration_says(
    coterie: Coterie, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.delenv("COTERIE_STATE_DIR")
    file = tmp_path / "own.toml"
    file.write_text(f'state_dir = "{tmp_path / "elsewhere"}"\n')
    if by == "environment":
        monkeypatch.setenv("COTERIE_CONFIG", str(file))
        coterie("models", "pull")
    else:
        coterie("models", "pull", "--config", str(file))
    assert ModelStore(tmp_path / "elsewhere" / "models").installed(DEFAULT_MODEL)


def test_a_configuration_that_is_not_there(coterie: Coterie) -> None:
    ran = coterie("models", "list", "--config", "none.toml")
    assert ran.status == 1
    assert "none.toml: cannot be read" in ran.err
