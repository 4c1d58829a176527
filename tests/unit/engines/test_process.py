"""Starting and ending the worker's process: with the real worker, and with scripts in its place."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.engine import SPEC, gone, is_running, spec

from coterie.engines.process import Worker, WorkerError, prompts_at_once, start_worker

Script = Callable[[str], None]


@pytest.fixture(name="folders")
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the workers' folders are made."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(name="script")
def _script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: Path) -> Script:
    """Puts Python code in the place of the worker."""

    def write(code: str) -> None:
        path = tmp_path / "worker.py"
        path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{code}", encoding="utf-8")
        path.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(path))

    return write


def entries(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def process_bytes(worker: Worker, name: str) -> bytes:
    """A file about the worker's process."""
    return Path(f"/proc/{worker.pid}/{name}").read_bytes()


READY = """
request = json.loads(sys.stdin.readline())
print('{"ready": true}', flush=True)
"""
STAY = "sys.stdin.read()\n"


async def test_it_is_given_its_parameters(script: Script, tmp_path: Path, folders: Path) -> None:
    told = tmp_path / "told"
    note = f"line = sys.stdin.readline()\nopen({str(told)!r}, 'w').write(line)\n"
    script(note + "print('{\"ready\": true}', flush=True)\n" + STAY)
    worker = await start_worker(SPEC)
    text = told.read_text(encoding="utf-8")
    assert f'"{worker.key}"' in text
    assert f'"{worker.socket}"' in text
    assert Path(worker.socket).parent.parent == folders
    assert len(worker.key) >= 32
    await worker.stop()


async def test_stopping_ends_it_and_removes_its_folder(script: Script, folders: Path) -> None:
    script(READY + STAY)
    worker = await start_worker(SPEC)
    assert worker.alive
    [folder] = entries(folders)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await worker.stop()
    assert not worker.alive
    assert not is_running(worker.pid)
    assert entries(folders) == []
    await worker.stop()


async def test_each_has_its_own_key_and_folder(script: Script) -> None:
    script(READY + STAY)
    first, second = await asyncio.gather(start_worker(SPEC), start_worker(SPEC))
    assert first.key != second.key
    assert first.socket != second.socket
    await asyncio.gather(first.stop(), second.stop())


NEVER_READY = {
    "it says no": """print('{"ready": false}', flush=True)\nsys.stderr.write("why not")\nos._exit(1)\n""",
    "it dies": 'sys.stderr.write("why not")\nos._exit(3)\n',
    "it is killed": 'sys.stderr.write("why not")\nsys.stderr.flush()\nos.kill(os.getpid(), 9)\n',
    "it says something else": 'sys.stderr.write("why not")\nprint("hello", flush=True)\n',
}


@pytest.mark.parametrize("code", NEVER_READY.values(), ids=NEVER_READY.keys())
async def test_one_that_is_never_ready_is_not_handed_out(code: str, script: Script, folders: Path) -> None:
    script(code)
    with pytest.raises(WorkerError, match=r"exit status -?\d+: why not"):
        await start_worker(SPEC)
    assert entries(folders) == []


async def test_one_that_takes_too_long_is_ended(script: Script, tmp_path: Path, folders: Path) -> None:
    pid_file = tmp_path / "pid"
    script(f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\n{STAY}")
    with pytest.raises(TimeoutError):
        await start_worker(spec(load_timeout_s=0.2, path=""))
    assert not pid_file.exists() or not is_running(int(pid_file.read_text()))
    assert entries(folders) == []


async def test_a_start_that_is_cancelled_leaves_nothing(script: Script, tmp_path: Path, folders: Path) -> None:
    pipe = tmp_path / "begun"
    os.mkfifo(pipe)
    script(f"with open({str(pipe)!r}, 'w') as file:\n    file.write(str(os.getpid()))\n{STAY}")
    starting = asyncio.create_task(start_worker(SPEC))
    pid = int(await asyncio.to_thread(pipe.read_text))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not is_running(pid)
    assert entries(folders) == []


async def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(folders / "nothing"))
    with pytest.raises(WorkerError, match="no process can be started"):
        await start_worker(SPEC)
    assert entries(folders) == []


async def test_its_last_words_are_kept_within_bounds(script: Script) -> None:
    script(READY + "for n in range(1000): sys.stderr.write(f'line {n} ' + 'x' * 2000 + '\\n')\nos._exit(7)\n")
    worker = await start_worker(SPEC)
    await worker.wait()
    await worker.stop()
    assert len(worker.last_words) == 40
    assert worker.last_words[-1].startswith("line 999 ")
    assert all(len(line) <= 500 for line in worker.last_words)
    assert f"engine process {worker.pid}, exit status 7: line 960" in worker.epitaph()


async def test_a_line_without_end_does_not_stop_it(script: Script) -> None:
    script(READY + "sys.stderr.write('x' * 1_000_000 + '\\n\\xff last\\n')\nsys.stderr.flush()\nos._exit(7)\n")
    worker = await start_worker(SPEC)
    await worker.wait()
    await worker.stop()
    assert "last" in worker.last_words[-1]


async def test_one_that_dies_is_seen_as_dead(script: Script) -> None:
    script(READY + STAY)
    worker = await start_worker(SPEC)
    os.kill(worker.pid, signal.SIGKILL)
    await worker.wait()
    assert not worker.alive
    await worker.stop()


async def test_an_interrupt_in_the_terminal_is_not_for_it(script: Script) -> None:
    script(READY + STAY)
    worker = await start_worker(SPEC)
    assert os.getpgid(worker.pid) == worker.pid != os.getpgid(0)
    await worker.stop()


# The real worker.


@pytest_asyncio.fixture(name="worker", scope="module", loop_scope="module")
async def _worker() -> AsyncIterator[Worker]:
    worker = await start_worker(spec())
    yield worker
    await worker.stop()


@pytest.mark.asyncio(loop_scope="module")
async def test_its_key_stands_where_others_cannot_read_it(worker: Worker) -> None:
    for name in ("cmdline", "environ"):
        assert worker.key.encode() not in process_bytes(worker, name)


@pytest.mark.asyncio(loop_scope="module")
async def test_its_socket_is_for_its_owner_alone(worker: Worker) -> None:
    folder = Path(worker.socket).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.getuid()
    assert stat.S_ISSOCK(os.stat(worker.socket).st_mode)


@pytest.mark.asyncio(loop_scope="module")
async def test_it_listens_on_no_port(worker: Worker) -> None:
    links = [entry.readlink() for entry in entries(Path(f"/proc/{worker.pid}/fd"))]
    sockets = {str(link).removeprefix("socket:[").rstrip("]") for link in links if str(link).startswith("socket:")}
    assert sockets
    for table in ("tcp", "tcp6", "udp", "udp6"):
        lines = process_bytes(worker, f"net/{table}").decode().splitlines()[1:]
        assert sockets.isdisjoint(line.split()[9] for line in lines)


@pytest.mark.asyncio(loop_scope="module")
async def test_strangers_on_its_socket_are_refused(worker: Worker) -> None:
    reader, writer = await asyncio.open_unix_connection(worker.socket)
    writer.write(b"GET /slots HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert b" 401 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


PARENT = """
import asyncio, sys
sys.path.insert(0, {root!r})
from coterie.engines.process import start_worker
from tests.support.engine import spec

async def main():
    worker = await start_worker(spec())
    print(worker.pid, worker.socket, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_it_ends_with_its_parent_however_that_dies() -> None:
    root = str(Path(__file__).parents[3])
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT.format(root=root), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid_text, path = (await parent.stdout.readline()).split()
    pid = int(pid_text)
    assert is_running(pid)
    parent.kill()
    await parent.wait()
    await gone(pid)
    assert not Path(path.decode()).parent.exists()


@pytest.mark.parametrize(("platform", "gpu_layers", "at_once"), [("linux", -1, 1), ("darwin", 0, 1), ("darwin", -1, 4)])
def test_prompts_are_computed_side_by_side_on_a_gpu_alone(
    platform: str, gpu_layers: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert prompts_at_once(spec(gpu_layers=gpu_layers, slots=4)) == at_once
