"""What the gateway benchmark compares: the upstream itself, Coterie, and the peers, each started for one run.

A peer is a gateway that others make. It is installed from the package index into an environment of its own under
``.bench/``, for this benchmark alone, and kept there for the next run. One that cannot be installed or started is left
out, and :class:`UnavailableError` says why. The bare relay (:mod:`bench.bare_relay`) is none: it shows what a relay in
Python costs that does nothing else.

Every gateway runs as one process with one worker, on 127.0.0.1, with its logs at warnings, and with room for as many
requests at once as the benchmark makes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.load_client import KEY, AnswerError, Client, Order
from bench.processes import cpu_s, pss_kb

from coterie.version import __version__

ENVIRONMENTS: Final = Path(".bench")
_START_TIMEOUT_S: Final = 90.0
_STOP_TIMEOUT_S: Final = 5.0
_MOST_REQUESTS: Final = 4096


class UnavailableError(Exception):
    """A peer cannot take part; the text says why."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to start a gateway. ``package`` is what to install, if anything, and ``streams`` how many paced ones it is
    measured with: well below what it can hold."""

    name: str
    command: Callable[[Path, int, int], list[str]]
    """From a scratch folder, the upstream's port and the port to listen on, the arguments, the program first."""
    package: str | None = None
    streams: int = 100
    environment: dict[str, str] = field(default_factory=dict)
    version: str = ""
    """Where it is not installed."""

    @property
    def programs(self) -> Path:
        """The folder of its environment's programs."""
        if self.package is None:
            return Path(sys.executable).parent
        return ENVIRONMENTS.absolute() / re.split(r"[\[=]", self.package)[0] / "bin"


class Target:
    """Something that answers on ``client``. ``pid`` is its process, if it is not the upstream itself."""

    def __init__(self, name: str, version: str, client: Client, pid: int, streams: int) -> None:
        self.name = name
        self.version = version
        self.client = client
        self.streams = streams
        self._pid = pid

    @property
    def is_fast(self) -> bool:
        """Whether it can be expected to keep up with hundreds of streams."""
        return self.streams >= 100

    def cpu_s(self) -> float:
        return cpu_s(self._pid)

    def pss_kb(self) -> float:
        return pss_kb(self._pid)


def _coterie(folder: Path, upstream: int, port: int) -> list[str]:
    config = folder / "coterie.toml"
    config.write_text(
        f"[[providers]]\nname = 'upstream'\nbase_url = 'http://127.0.0.1:{upstream}/v1'\nmodels = ['bench']\n"
        f"concurrency = {_MOST_REQUESTS}\n[limits]\nconnections = {_MOST_REQUESTS}\n"
    )
    return ["coterie", "serve", "--config", str(config), "--port", str(port), "--state-dir", str(folder / "state"),
            "--log-level", "warning"]  # fmt: skip


def _sglang_router(folder: Path, upstream: int, port: int) -> list[str]:
    return [
        "python", "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", str(port),
        "--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin", "--log-level", "error",
        "--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()),
        "--max-concurrent-requests", str(_MOST_REQUESTS),
    ]  # fmt: skip


def _litellm(folder: Path, upstream: int, port: int) -> list[str]:
    config = folder / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: bench\n    litellm_params:\n      model: openai/bench\n"
        f"      api_base: http://127.0.0.1:{upstream}/v1\n      api_key: bench-key\n"
        "litellm_settings:\n  set_verbose: false\n  telemetry: false\n  num_retries: 0\n"
        "general_settings:\n  disable_spend_logs: true\n"
    )
    return ["litellm", "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]


def _bare_relay(folder: Path, upstream: int, port: int) -> list[str]:
    return ["python", str(Path(__file__).with_name("bare_relay.py").absolute()), str(port), str(upstream)]


COTERIE: Final = Recipe("Coterie", _coterie, version=__version__)
SGLANG_ROUTER: Final = Recipe("sglang-router", _sglang_router, "sglang-router==0.3.2")
LITELLM: Final = Recipe(
    "LiteLLM", _litellm, "litellm[proxy]==1.106.2", streams=8,
    environment={"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                 "LITELLM_MASTER_KEY": KEY},
)  # fmt: skip
PEERS: Final = (SGLANG_ROUTER, LITELLM)
BARE: Final = Recipe("bare relay", _bare_relay)


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[Target]:
    """The upstream, asked directly."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.mock_upstream", stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        client = Client(int(await process.stdout.readline()))
        yield Target("direct", "", client, process.pid, 100)
        client.close()
    finally:
        await _end(process)


@contextlib.asynccontextmanager
async def started(recipe: Recipe, upstream_port: int, folder: Path) -> AsyncIterator[Target]:
    """A gateway that answers. Raises :class:`UnavailableError`."""
    version = recipe.version if recipe.package is None else await installed(recipe)
    scratch = folder / recipe.name
    scratch.mkdir()
    port = free_port()
    program, *arguments = recipe.command(scratch, upstream_port, port)
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    if recipe.package is not None:
        kept.pop("PYTHONPATH", None)
    with (scratch / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(recipe.programs / program), *arguments, cwd=scratch, env={**kept, **recipe.environment},
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    client = Client(port)
    try:
        await _answers(process, client, scratch / "log")
        yield Target(recipe.name, version, client, process.pid, recipe.streams)
    finally:
        client.close()
        await _end(process)


async def installed(recipe: Recipe) -> str:
    """The version of a peer, which is installed where it is not yet. Raises :class:`UnavailableError`."""
    assert recipe.package is not None
    python, environment = str(recipe.programs / "python"), recipe.programs.parent
    done = environment / "installed"
    if not done.exists() or done.read_text() != recipe.package:
        print(f"installing {recipe.package} into {environment}", flush=True)
        await _run(sys.executable, "-m", "venv", "--clear", str(environment))
        await _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", recipe.package)
        done.write_text(recipe.package)
    package = environment.name
    return await _run(python, "-c", f"import importlib.metadata as m; print(m.version({package!r}))")


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    if process.returncode:
        raise UnavailableError(f"cannot be installed: {_last_line(errors)}")
    return out.decode().strip()


async def _answers(process: asyncio.subprocess.Process, client: Client, log: Path) -> None:
    """Wait until a gateway answers. Raises :class:`UnavailableError`."""
    ends_s = time.monotonic() + _START_TIMEOUT_S
    failure = "nobody listens"
    while process.returncode is None and time.monotonic() < ends_s:
        try:
            await client.one(Order(4, streamed=False))
            await client.one(Order(4))
            return
        except AnswerError as error:
            failure = str(error)
            await asyncio.sleep(0.25)
    ended = "" if process.returncode is None else f", it ended with {process.returncode}"
    raise UnavailableError(
        f"does not answer ({failure}{ended}) {_last_line(await asyncio.to_thread(log.read_bytes))}".strip()
    )


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process and what it started: it leads a session of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
