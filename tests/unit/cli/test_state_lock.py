from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coterie.cli.state_lock import RunningServer, StateLock, StateTakenError, running_server

HOLD = """
import sys
from pathlib import Path
from coterie.cli.state_lock import StateLock
lock = StateLock(Path(sys.argv[1])).__enter__()
lock.tell("http://127.0.0.1:1")
print("held", flush=True)
sys.stdin.read()
"""


def test_the_holder_is_known(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "state"
    with StateLock(folder) as lock:
        assert running_server(folder) is None
        lock.tell("http://127.0.0.1:8000/with-a-longer-path")
        lock.tell("http://127.0.0.1:8000")
        running = running_server(folder)
        assert running is not None
        assert running.url == "http://127.0.0.1:8000"
    assert running_server(folder) is None


def test_a_second_server_is_refused_with_the_first_ones_address(tmp_path: Path) -> None:
    with StateLock(tmp_path) as lock:
        lock.tell("http://127.0.0.1:8000")
        with pytest.raises(StateTakenError) as taken, StateLock(tmp_path):
            pass
        assert taken.value.folder == tmp_path
        assert taken.value.running == running_server(tmp_path)
    with StateLock(tmp_path):
        pass


def test_a_second_server_is_refused_before_the_first_has_an_address(tmp_path: Path) -> None:
    with StateLock(tmp_path), pytest.raises(StateTakenError) as taken, StateLock(tmp_path):
        pass
    assert taken.value.running is None


def test_looking_does_not_take_the_lock(tmp_path: Path) -> None:
    with StateLock(tmp_path):
        pass
    assert running_server(tmp_path) is None
    with StateLock(tmp_path):
        pass


def test_nothing_runs_where_there_is_no_folder(tmp_path: Path) -> None:
    assert running_server(tmp_path / "none") is None


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"pid": "x", "url": "u"}', '{"pid": 1}'])
def test_an_address_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    with StateLock(tmp_path):
        (tmp_path / "serve.lock").write_text(text)
        assert running_server(tmp_path) is None


def test_only_the_owner_can_read_the_lock(tmp_path: Path) -> None:
    with StateLock(tmp_path):
        assert (tmp_path / "serve.lock").stat().st_mode & 0o077 == 0


def test_a_server_that_was_killed_locks_nobody_out(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert running_server(tmp_path) == RunningServer(holder.pid, "http://127.0.0.1:1")
        holder.kill()
        holder.wait()
    assert running_server(tmp_path) is None
    with StateLock(tmp_path):
        pass
