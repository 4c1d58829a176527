"""Starting, watching and ending the engine's child process.

What it promises: a worker is either ready (its model is loaded, its socket answers) or was never handed out; its last
words are kept for the log (bounded); :meth:`Worker.stop` ends it and waits; and when it dies by itself, everybody who
asks :attr:`Worker.alive` knows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import shutil
import sys
import tempfile
from collections import deque
from pathlib import Path

from coterie.engines.spec import EngineSpec

_log = logging.getLogger(__name__)

_LAST_WORDS = 40
"""Lines of the worker's standard error that are kept."""

_LINE_BYTES = 64 * 1024

_BATCH_TOKENS_CPU = 128
"""Tokens of a prompt that are computed in one step. A step cannot be interrupted and holds up every other answer, so it
is short; on a CPU a long prompt takes hardly longer in many short steps than in a few long ones."""

_BATCH_TOKENS_GPU = 1024


class WorkerError(Exception):
    """The worker did not become ready. The text is for the log."""


class Worker:
    """A running engine process. Made by :func:`start_worker`."""

    def __init__(self, process: asyncio.subprocess.Process, folder: str, key: str) -> None:
        self._process = process
        self._folder = folder
        self.key = key
        self.last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._reader = asyncio.create_task(self._read_stderr())

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def socket(self) -> str:
        """The Unix socket on which the engine answers."""
        return socket_path(self._folder)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.returncode is None

    def epitaph(self) -> str:
        """How it ended and what it said last, for the log."""
        words = " | ".join(self.last_words)
        return f"engine process {self.pid}, exit status {self._process.returncode}: {words}"

    async def ready(self, request: dict[str, object]) -> None:
        """Send it its parameters and wait for the model to be loaded. Raises :class:`WorkerError`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        line = await self._process.stdout.readline()
        if line.strip() != b'{"ready": true}':
            await self._process.wait()
            await self._reader
            raise WorkerError(self.epitaph())

    def kill(self) -> None:
        """End the process without waiting for it."""
        if self.alive:
            self._process.kill()

    async def stop(self) -> None:
        """Kill it, and wait until it is gone and its folder removed."""
        self.kill()
        await self._process.wait()
        await self._reader
        shutil.rmtree(self._folder, ignore_errors=True)

    async def wait(self) -> None:
        """Wait until the process has ended, for whatever reason."""
        await self._process.wait()

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while line := await _line(self._process.stderr):
            text = line.decode("utf-8", "replace").rstrip()
            self.last_words.append(text[:500])
            _log.debug("engine %d: %s", self.pid, text)


async def start_worker(spec: EngineSpec) -> Worker:
    """Start a process for ``spec`` and wait until it is ready.

    Raises :class:`WorkerError` where the model cannot be loaded and ``TimeoutError`` after ``load_timeout_s``.
    """
    try:
        folder = tempfile.mkdtemp(prefix="coterie-")
    except OSError as error:
        raise WorkerError(f"no folder for its socket: {error}") from error
    key = secrets.token_urlsafe(32)
    try:
        worker = Worker(await _start_process(), folder, key)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise WorkerError(f"no process can be started: {error}") from error
        raise
    try:
        async with asyncio.timeout(spec.load_timeout_s):
            await worker.ready(worker_request(spec, folder, key))
    except BaseException:
        await asyncio.shield(worker.stop())
        raise
    return worker


async def _start_process() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "coterie.engines.llama_worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
        # A Ctrl-C in the terminal is for the server, which ends its engines when their answers are finished.
        start_new_session=True,
    )


def socket_path(folder: str) -> str:
    """The socket in a worker's folder. llama.cpp takes a host that ends in '.sock' for a Unix socket."""
    return str(Path(folder) / "e.sock")


def worker_request(spec: EngineSpec, folder: str, key: str) -> dict[str, object]:
    """What the worker is told on its standard input."""
    batch_tokens = _BATCH_TOKENS_GPU if _uses_gpu(spec) else _BATCH_TOKENS_CPU
    return {
        "path": spec.path,
        "model": spec.model,
        "socket": socket_path(folder),
        "key": key,
        "slots": spec.slots,
        "context_tokens": spec.context_tokens,
        # An input of an embedding must be computed in one step.
        "batch_tokens": spec.context_tokens if spec.task == "embed" else batch_tokens,
        "gpu_layers": spec.gpu_layers,
        "threads": spec.threads,
        "chat_template": spec.chat_template,
        "task": spec.task,
        "pooling": spec.pooling,
    }


def prompts_at_once(spec: EngineSpec) -> int:
    """How many prompts are worth computing side by side: where that takes longer than one of them, one."""
    return spec.slots if _uses_gpu(spec) else 1


def _uses_gpu(spec: EngineSpec) -> bool:
    return spec.gpu_layers != 0 and _has_gpu()


def _has_gpu() -> bool:
    """Whether this machine has a GPU that a prebuilt llama.cpp uses by itself: Apple's."""
    return sys.platform == "darwin"


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # longer than the limit: its beginning is gone, the rest follows as the next line
        return b"(a line that is too long)\n"
