"""What ``coterie doctor`` asks of this machine: thin reads of the system, so that the checks themselves need none."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coterie.config import ProviderSettings
from coterie.providers.http import HttpProvider, provider_from
from coterie.storage.opening import look_at

_ENGINE_TIMEOUT_S: Final = 120.0

_ASK_ENGINE: Final = """
import json, os, sys
reply = os.dup(1)
os.dup2(2, 1)
import xllamacpp
devices = [
    {
        "name": device["name"],
        "description": device["description"],
        "gpu": "GPU" in device["type"].name,
        "free_bytes": int(device["memory_free"]),
    }
    for device in xllamacpp.get_device_info()
]
facts = {"version": xllamacpp.__version__, "devices": devices, "features": xllamacpp.get_system_info()}
os.write(reply, json.dumps(facts).encode())
"""
"""A program of its own, because an engine built for another processor ends the process that imports it."""


@dataclass(frozen=True, slots=True)
class Device:
    """Something that the engine can compute on."""

    name: str
    description: str
    gpu: bool
    free_bytes: int


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the engine says of itself; ``problem`` is why it said nothing."""

    version: str = ""
    devices: tuple[Device, ...] = ()
    features: str = ""
    problem: str | None = None


class Machine:
    """This machine."""

    def python_version(self) -> tuple[int, int, int]:
        """Of the interpreter that runs this."""
        return sys.version_info[:3]

    def engine(self) -> EngineFacts:
        """Import the engine in another process and ask it."""
        try:
            ended = subprocess.run(  # noqa: S603 - our own interpreter and our own words
                [sys.executable, "-c", _ASK_ENGINE], capture_output=True, timeout=_ENGINE_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return EngineFacts(problem=f"it did not answer within {_ENGINE_TIMEOUT_S:g} seconds")
        if ended.returncode:
            return EngineFacts(problem=last_words(ended.returncode, ended.stderr.decode("utf-8", "replace")))
        said = json.loads(ended.stdout)
        devices = tuple(Device(**device) for device in said["devices"])
        return EngineFacts(said["version"], devices, said["features"])

    def available_memory_bytes(self) -> int | None:
        """Memory that a new process can have, within the limit of this container; ``None`` where nobody says."""
        if sys.platform == "darwin":
            return _total_memory_of_macos()
        available = available_of_meminfo(_text(Path("/proc/meminfo")))
        limit = left_of_cgroup(*(_text(Path("/sys/fs/cgroup") / name) for name in _CGROUP_FILES))
        known = [value for value in (available, limit) if value is not None]
        return min(known, default=None)

    def models_listed_by(self, provider: ProviderSettings) -> set[str]:
        """Ask a provider for its models. Raises ``ApiError``, or ``ConfigError`` for a key that is not set."""
        return asyncio.run(_listed(provider_from(provider)))

    def storage_at(self, url: str) -> str:
        """What the database is. Raises ``StorageError``."""
        return asyncio.run(look_at(url))

    def free_disk_bytes(self, folder: Path) -> int:
        """Free space where ``folder`` is or would be made. Raises ``OSError``."""
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def try_to_write(self, folder: Path) -> None:
        """Make ``folder`` and a file in it, and take the file away. Raises ``OSError``."""
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(b"x")
            file.flush()


async def _listed(provider: HttpProvider) -> set[str]:
    try:
        return set(await provider.listed())
    finally:
        await provider.stop()


_CGROUP_FILES: Final = ("memory.max", "memory.current", "memory.stat")


def last_words(status: int, stderr: str) -> str:
    """How a program that failed ended: its signal, or the last line that it said."""
    if status < 0:
        return f"it crashed ({signal.Signals(-status).name})"
    lines = [line for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {status}"


def available_of_meminfo(text: str) -> int | None:
    """``MemAvailable`` of ``/proc/meminfo`` in bytes."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def left_of_cgroup(limit: str, current: str, stat: str) -> int | None:
    """What a control group (version 2) may still take, counting the file cache that it can give back."""
    if not limit.strip().isdigit() or not current.strip().isdigit():
        return None
    cache = next((line.split()[1] for line in stat.splitlines() if line.startswith("inactive_file ")), "0")
    return max(0, int(limit) - int(current) + int(cache))


def _total_memory_of_macos() -> int | None:
    """All memory: how much of it could be freed is not told in one number."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
