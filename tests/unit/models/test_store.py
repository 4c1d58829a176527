from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from coterie.models.errors import ModelError
from coterie.models.store import InstalledModel, ModelStore

CONTENT = b"weights" * 1000


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def record(name: str = "little", content: bytes = CONTENT) -> InstalledModel:
    digest = hashlib.sha256(content).hexdigest()
    return InstalledModel(name, f"{name}.gguf", digest, len(content), "a test", "2026-01-01T00:00:00+00:00")


def install(store: ModelStore, name: str = "little", content: bytes = CONTENT) -> InstalledModel:
    with store.lock(name):
        made = store.workspace(name) / f"{name}.gguf"
        made.write_bytes(content)
        store.install(record(name, content), made)
    return record(name, content)


def test_an_empty_store(store: ModelStore) -> None:
    assert store.list() == ()
    assert not store.installed("little")
    with pytest.raises(ModelError, match="not installed"):
        store.path_of("little")


def test_installed_models_are_listed_by_name(store: ModelStore) -> None:
    second, first = install(store, "b"), install(store, "a")
    assert store.list() == (first, second)
    assert store.path_of("a").read_bytes() == CONTENT
    assert not (store.folder / ".partial" / "a").exists()


def test_installing_again_replaces(store: ModelStore) -> None:
    install(store)
    newer = install(store, content=b"better")
    assert store.list() == (newer,)
    assert store.path_of("little").read_bytes() == b"better"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../a", "/a", ".partial", ".locks", "a\n", "a\0", "ä", "x" * 129]
)
def test_a_name_that_is_no_safe_folder(store: ModelStore, name: str) -> None:
    install(store)
    assert not store.installed(name)
    for act in (store.path_of, store.verify, store.remove):
        with pytest.raises(ModelError):
            act(name)
    with pytest.raises(ModelError, match="name of a model"), store.lock(name):
        pass
    assert store.installed("little")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "{",
        '{"name": "little"}',
        "[" * 100_000,
        json.dumps({"name": "little", "file": "../x", "sha256": "", "size_bytes": 7000, "source": "", "pulled_at": ""}),
        json.dumps({"name": "little", "file": 7, "sha256": "", "size_bytes": 7000, "source": "", "pulled_at": ""}),
        json.dumps(
            {"name": "other", "file": "little.gguf", "sha256": "", "size_bytes": 7000, "source": "", "pulled_at": ""}
        ),
    ],
)
def test_a_broken_record_is_no_model_but_can_be_removed(store: ModelStore, text: str) -> None:
    install(store)
    (store.folder / "little" / "model.json").write_text(text)
    assert store.list() == ()
    store.remove("little")
    assert not (store.folder / "little").exists()


def test_a_file_of_another_size_is_no_model(store: ModelStore) -> None:
    install(store)
    store.path_of("little").write_bytes(b"short")
    assert not store.installed("little")


def test_verify_sees_one_changed_byte(store: ModelStore) -> None:
    install(store)
    assert store.verify("little").ok
    store.path_of("little").write_bytes(CONTENT[:-1] + b"?")
    result = store.verify("little")
    assert not result.ok
    assert "has changed" in str(result.problem)


def test_verify_tells_its_progress(store: ModelStore) -> None:
    install(store)
    told: list[tuple[int, int, str]] = []
    store.verify("little", lambda *step: told.append(step))
    assert told[-1] == (len(CONTENT), len(CONTENT), "verify")


def test_remove_takes_the_unfinished_along(store: ModelStore) -> None:
    install(store)
    (store.workspace("little") / "rest").write_bytes(b"x")
    store.remove("little")
    assert store.list() == ()
    assert not (store.folder / ".partial" / "little").exists()
    with pytest.raises(ModelError, match="not installed"):
        store.remove("little")


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    broken = ModelStore(tmp_path / "file")
    with pytest.raises(ModelError, match="cannot be used"):
        broken.list()
    with pytest.raises(ModelError, match="cannot be used"), broken.lock("little"):
        pass


def test_the_second_waits_for_the_first(store: ModelStore) -> None:
    waiting, entered = threading.Event(), threading.Event()

    def second() -> None:
        with store.lock("little", waiting.set):
            entered.set()

    other = threading.Thread(target=second)
    with store.lock("little"):
        other.start()
        assert waiting.wait(30)
        assert not entered.is_set()
    other.join(30)
    assert entered.is_set()


def test_another_model_does_not_wait(store: ModelStore) -> None:
    with store.lock("little"), store.lock("other", lambda: pytest.fail("waited")):
        pass


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize("step", range(8))
def test_killed_at_any_step_of_an_install(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, step: int, replacing: bool
) -> None:
    if replacing:
        install(store, content=b"old")
    steps = 0

    def counted(real: Any) -> Any:
        def act(*arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > step:
                raise Killed
            return real(*arguments)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(os, "fsync", counted(os.fsync))
        with contextlib.suppress(Killed):
            install(store)
    if store.installed("little"):
        assert store.path_of("little").read_bytes() in ([CONTENT, b"old"] if replacing else [CONTENT])
        assert store.verify("little").ok
    install(store)
    assert store.path_of("little").read_bytes() == CONTENT
