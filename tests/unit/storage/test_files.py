"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from coterie.storage.files import write_whole


def test_a_file_is_replaced_whole_and_for_its_owners_eyes_alone(tmp_path: Path) -> None:
    path = tmp_path / "name"
    for content in (b"first", b"", b"second" * 1000):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "name"
    write_whole(path, b"before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    for name in ("fsync", "replace"):
        done = getattr(os, name)

        def told(*args: object, name: str = name, done: object = done) -> None:
            steps.append(name)
            done(*args)  # type: ignore[operator]

        monkeypatch.setattr(os, name, told)
    write_whole(tmp_path / "name", b"content")
    assert steps == ["fsync", "replace", "fsync"]  # the last is the folder
