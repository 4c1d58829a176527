"""Every test here has a state folder and a working folder of its own; none sees this machine's."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from coterie.cli.main import main


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int | str | None
    out: str
    err: str


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("COTERIE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COTERIE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def coterie(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the program in this process."""

    def run(*arguments: str) -> Ran:
        try:
            status: int | str | None = main(arguments)
        except SystemExit as end:
            status = end.code
        text = capsys.readouterr()
        return Ran(status or 0, text.out, text.err)

    return run
