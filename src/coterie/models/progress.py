"""How long work on a model file tells its progress, and the hashing that nearly all of it ends with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

Phase = Literal["wait", "download", "unpack", "verify"]
"""``wait``: another process works on the same model."""

Progress = Callable[[int, int, Phase], None]
"""Called with bytes done, bytes in all (0: unknown) and the phase; from the thread that does the work."""

CHUNK_BYTES: Final = 1024 * 1024


def silent(done_bytes: int, total_bytes: int, phase: Phase) -> None:
    """A :data:`Progress` that tells nobody."""


def file_sha256(path: Path, progress: Progress = silent) -> str:
    """Return the SHA-256 of a file in hexadecimal; raises ``OSError``."""
    digest = hashlib.sha256()
    total = path.stat().st_size
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress(done, total, "verify")
    return digest.hexdigest()
