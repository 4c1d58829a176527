"""Score cards: ``coterie conform`` run against this server and against others that install from the package index.

* Coterie, over its embedded engine and the default model;
* LiteLLM, from an environment of its own under ``.bench/`` (:mod:`bench.targets`), in front of that same Coterie
  server: what is behind it then keeps the rules, so that what fails is its own;
* llama.cpp's own HTTP server, as it comes in ``xllamacpp``, with the same model.

Each is judged from outside by the public command, one after the other, several times: a small model does not answer
alike each time, and what fails once counts as failed. A server that does not start is left out, and the page says why.
Prints the table; writes docs/conformance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import uvloop
from bench.conformance_page import Card, page
from bench.llama_server import CONTEXT_TOKENS, KEY_VARIABLE, SLOTS, THREADS
from bench.targets import LITELLM, UnavailableError, free_port, installed

from coterie.config import DEFAULT_MODEL, load_settings
from coterie.conform.exchange import Client, Target
from coterie.models.store import ModelStore
from coterie.version import __version__

_PROGRAMS: Final = Path(sys.executable).parent
_START_TIMEOUT_S: Final = 120.0
_STOP_TIMEOUT_S: Final = 10.0
_LOOK_EVERY_S: Final = 0.25
_KEY: Final = f"sk-{secrets.token_hex(24)}"

_LITELLM_NEEDS: Final = "prisma>=0.11.0,<1.0"
"""Without it LiteLLM answers 500 wherever it has no key to look up, though its extra "proxy" leaves it out."""


@dataclass(frozen=True, slots=True)
class Judge:
    """How to judge: seconds that an exchange and the whole may take, and how often."""

    timeout_s: float
    limit_s: float
    rounds: int

    def command(self, port: int) -> list[str]:
        """The arguments, the program first."""
        return [
            "coterie", "conform", f"http://127.0.0.1:{port}/v1", "--model", DEFAULT_MODEL, "--key-env", KEY_VARIABLE,
            "--timeout", f"{self.timeout_s:g}", "--limit", f"{self.limit_s:g}", "--json",
        ]  # fmt: skip

    async def judged(self, port: int) -> Mapping[str, Any]:
        """The report. Raises :class:`UnavailableError`."""
        program, *arguments = self.command(port)
        process = await asyncio.create_subprocess_exec(
            str(_PROGRAMS / program), *arguments, env=_environment(),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, errors = await process.communicate()
        if process.returncode not in (0, 1) or not out:
            raise UnavailableError(errors.decode(errors="replace").strip()[-300:])
        report: Mapping[str, Any] = json.loads(out)
        return report


async def run(judge: Judge) -> tuple[list[Card], dict[str, str]]:
    """Every card, and the servers that have none with the reason."""
    cards: list[Card] = []
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with _coterie(folder) as port:
            cards.append(Card("Coterie", __version__, _COTERIE_HOW, await _judged(judge, "Coterie", port)))
            try:
                peer = await _litellm_version()
                async with _litellm(folder, port) as own:
                    cards.append(Card("LiteLLM", peer, _LITELLM_HOW, await _judged(judge, "LiteLLM", own)))
            except UnavailableError as error:
                absent["LiteLLM"] = str(error)
        try:
            async with _llama_server(folder) as own:
                reports = await _judged(judge, "llama.cpp", own)
                cards.append(Card("llama.cpp server", f"xllamacpp {version('xllamacpp')}", _LLAMA_HOW, reports))
        except UnavailableError as error:
            absent["llama.cpp server"] = str(error)
    return cards, absent


async def _judged(judge: Judge, name: str, port: int) -> list[Mapping[str, Any]]:
    reports = []
    for number in range(judge.rounds):
        print(time.strftime("%H:%M:%S"), f"judging {name}, {number + 1} of {judge.rounds}", flush=True)
        reports.append(await judge.judged(port))
    return reports


# The servers

_COTERIE_HOW: Final = (
    f"`coterie serve` with a key, over its embedded engine ({SLOTS} slots of {CONTEXT_TOKENS} tokens, {THREADS} thread)"
)
_LITELLM_HOW: Final = (
    "`litellm --config FILE` with a master key and one model, `openai/...`, whose `api_base` is the Coterie server "
    "above; no database, no retries, no cooldowns (one client's mistake would else close the model to all for a "
    "while); what its WebSocket says of TLS comes of an upstream without it, and where `responses.compact` fails for "
    "Coterie, it fails behind it too"
)
_LLAMA_HOW: Final = (
    "llama.cpp's HTTP server as `xllamacpp` has it, with a key and the same slots, context and threads; `model` is the "
    "only one it has"
)


@contextlib.asynccontextmanager
async def _coterie(folder: Path) -> AsyncIterator[int]:
    port = free_port()
    config = folder / "coterie.toml"
    config.write_text(
        f"[server]\napi_keys = ['{_KEY}']\n[engine]\nslots = {SLOTS}\ncontext_tokens = {CONTEXT_TOKENS}\n"
        f"threads = {THREADS}\n"
    )
    command = [str(_PROGRAMS / "coterie"), "serve", "--config", str(config), "--port", str(port),
               "--state-dir", str(folder / "state"), "--log-level", "error"]  # fmt: skip
    async with _running("Coterie", command, port, folder):
        yield port


async def _litellm_version() -> str:
    """What is installed, with all it needs. Raises :class:`UnavailableError`."""
    found = await installed(LITELLM)
    python = str(LITELLM.programs / "python")
    quiet = asyncio.subprocess.DEVNULL
    probe = await asyncio.create_subprocess_exec(python, "-c", "import prisma", stdout=quiet, stderr=quiet)
    if await probe.wait():
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", _LITELLM_NEEDS]
        if await (await asyncio.create_subprocess_exec(*pip, stdin=quiet)).wait():
            raise UnavailableError(f"{_LITELLM_NEEDS} cannot be installed")
    return found


@contextlib.asynccontextmanager
async def _litellm(folder: Path, upstream: int) -> AsyncIterator[int]:
    port = free_port()
    config = folder / "litellm.yaml"
    config.write_text(
        f"model_list:\n  - model_name: {DEFAULT_MODEL}\n    litellm_params:\n      model: openai/{DEFAULT_MODEL}\n"
        f"      api_base: http://127.0.0.1:{upstream}/v1\n      api_key: {_KEY}\n"
        "litellm_settings:\n  set_verbose: false\n  telemetry: false\n  num_retries: 0\n"
        "router_settings:\n  disable_cooldowns: true\n"
        "general_settings:\n  disable_spend_logs: true\n"
    )
    command = [str(LITELLM.programs / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port),
               "--num_workers", "1"]  # fmt: skip
    environment = {**LITELLM.environment, "LITELLM_MASTER_KEY": _KEY}
    async with _running("LiteLLM", command, port, folder, environment):
        yield port


@contextlib.asynccontextmanager
async def _llama_server(folder: Path) -> AsyncIterator[int]:
    port = free_port()
    file = ModelStore(load_settings(environ={}).models_dir).path_of(DEFAULT_MODEL)
    command = [sys.executable, "-m", "bench.llama_server", str(file.absolute()), DEFAULT_MODEL, str(port)]
    async with _running("llama.cpp", command, port, folder, {"PYTHONPATH": os.getcwd()}):
        yield port


@contextlib.asynccontextmanager
async def _running(
    name: str, command: Sequence[str], port: int, folder: Path, environment: Mapping[str, str] = {}
) -> AsyncIterator[None]:
    """A process that lists its models on ``port``. Raises :class:`UnavailableError`."""
    print(time.strftime("%H:%M:%S"), f"starting {name}", flush=True)
    with (folder / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env={**_environment(), **environment},
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        await _answers(process, port)
        yield
    finally:
        await _end(process)


def _environment() -> dict[str, str]:
    """Ours without what would change a server or a client, and with the key."""
    strange = ("coterie_", "litellm_", "pythonpath")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().startswith(strange) and not name.lower().endswith("_proxy")
    }
    return {**kept, KEY_VARIABLE: _KEY}


async def _answers(process: asyncio.subprocess.Process, port: int) -> None:
    ends_s = time.monotonic() + _START_TIMEOUT_S
    target = Target(f"http://127.0.0.1:{port}/v1", DEFAULT_MODEL, _KEY)
    async with Client(target, _START_TIMEOUT_S) as client:
        while process.returncode is None and time.monotonic() < ends_s:
            if (await client.ask("GET", "/models")).status == 200:
                return
            await asyncio.sleep(_LOOK_EVERY_S)
    ended = "" if process.returncode is None else f", it ended with {process.returncode}"
    raise UnavailableError(f"does not answer{ended}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process and what it started: it leads a session of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds that one exchange may take")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds that a server may be judged for")
    parser.add_argument("--rounds", type=int, default=3, help="how often each server is judged")
    parser.add_argument("--write", type=Path, default=Path("docs"), help="the folder for the page")
    options = parser.parse_args()
    judge = Judge(options.timeout, options.limit, options.rounds)
    cards, absent = uvloop.run(run(judge))
    command = " ".join(judge.command(0)).replace(":0/", ":PORT/")
    text = page(cards, absent, command)
    options.write.mkdir(parents=True, exist_ok=True)
    (options.write / "conformance.md").write_text(text)
    print(text.partition("\n## ")[0])


if __name__ == "__main__":
    main()
