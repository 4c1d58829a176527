from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coterie.errors import ApiError
from coterie.storage import Journal, StorageError

EVENT = b"event: x\ndata: {}\n\n"

WRITER = """
import sys
from pathlib import Path
from coterie.storage import Journal

file = Journal(Path(sys.argv[1])).open("resp_1")
file.write(b"event: one\\ndata: {}\\n\\n")
file.write(b"event: two\\ndata: {}\\n\\n")
print("written", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def test_what_was_written_is_there_at_once(journal: Journal) -> None:
    file = journal.open("resp_1")
    assert journal.left() == {"resp_1": b""}
    file.write(EVENT)
    assert journal.left() == {"resp_1": EVENT}
    file.write(EVENT * 2)
    assert journal.left() == {"resp_1": EVENT * 3}
    file.close()
    file.close()
    assert journal.left() == {"resp_1": EVENT * 3}


def test_what_was_written_survives_a_killed_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert Journal(tmp_path).left() == {"resp_1": b"event: one\ndata: {}\n\nevent: two\ndata: {}\n\n"}


def test_a_journal_goes_on_where_it_was(journal: Journal) -> None:
    for _ in range(2):
        file = journal.open("resp_1")
        file.write(EVENT)
        file.close()
    assert journal.left() == {"resp_1": EVENT * 2}


@pytest.mark.parametrize(
    ("written", "left"), [(EVENT + b"event: y\ndata: {", EVENT), (b"event: x\n", b""), (EVENT + b"\n", EVENT + b"\n")]
)
def test_of_an_event_that_was_cut_nothing_is_left(journal: Journal, written: bytes, left: bytes) -> None:
    file = journal.open("resp_1")
    file.write(written)
    file.close()
    assert journal.left() == {"resp_1": left}


def test_a_journal_that_is_not_needed_any_more_is_gone(journal: Journal) -> None:
    first, second = journal.open("resp_1"), journal.open("resp_2")
    first.remove()
    first.remove()
    second.close()
    journal.remove("resp_2")
    journal.remove("resp_2")
    assert journal.left() == {}


def test_files_are_for_their_owners_eyes_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "journal"
    Journal(folder).open("resp_1").close()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "resp_1.events")] == [0o700, 0o600]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for name in (
        "notes.txt",
        ".events",
        "copy of resp_1.events",
        "resp_1.events.old",
        "ü.events",
        "a" * 129 + ".events",
    ):
        (tmp_path / name).write_bytes(EVENT)
    (tmp_path / "resp_2.events").mkdir()
    file = journal.open("resp_1")
    file.write(EVENT)
    file.close()
    assert journal.left() == {"resp_1": EVENT}
    assert journal.ids() == ["resp_1"]


def test_journals_are_read_one_by_one(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    for response_id in ("resp_2", "resp_1"):
        file = journal.open(response_id)
        file.write(EVENT + response_id.encode() + b"\n\nevent: cut")
        file.close()
    assert journal.ids() == ["resp_1", "resp_2"]
    assert journal.read("resp_2") == EVENT + b"resp_2\n\n"
    assert journal.read("resp_3") == b""
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert journal.read("resp_2") == b""


def refuse(path: Path) -> bytes:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("response_id", ["", "..", "../resp_1", "a/b", "a\0", "ü", "a" * 129, "resp_1\n"])
def test_an_id_that_is_no_file_name_is_refused(journal: Journal, response_id: str) -> None:
    for call in (journal.open, journal.remove):
        with pytest.raises(ValueError, match="not the id"):
            call(response_id)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be used"):
        Journal(tmp_path / "file")


def test_a_journal_that_cannot_be_opened_or_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    (tmp_path / "resp_1.events").mkdir()
    with pytest.raises(ApiError) as failure:
        journal.open("resp_1")
    assert failure.value.code == "storage_failed"
    journal.open("resp_2").close()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(StorageError, match="cannot be read"):
        journal.left()
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(StorageError, match="cannot be read: Permission denied"):
        journal.ids()


def fails_at(call: int) -> Callable[[int, bytes], int]:
    """An ``os.write`` that takes three bytes at a time, and none from the given call on."""
    calls = iter(range(call))
    write = os.write

    def limited(descriptor: int, data: bytes) -> int:
        if next(calls, None) is None:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:3])

    return limited


@pytest.mark.parametrize(("call", "whole"), [(0, False), (1, False), (3, False), (100, True)])
def test_a_write_is_whole_or_told(journal: Journal, monkeypatch: pytest.MonkeyPatch, call: int, whole: bool) -> None:
    file = journal.open("resp_1")
    file.write(EVENT)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fails_at(call))
        if whole:
            file.write(EVENT)
        else:
            with pytest.raises(ApiError) as failure:
                file.write(EVENT)
            assert failure.value.code == "storage_failed"
    file.close()
    assert journal.left() == {"resp_1": EVENT * 2 if whole else EVENT}
