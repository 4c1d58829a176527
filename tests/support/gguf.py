"""A GGUF file that is all metadata: enough to be configured and looked at, not to be loaded."""

from __future__ import annotations

import struct
from pathlib import Path

_NUMBERS = {
    "context_length": 2048,
    "embedding_length": 64,
    "block_count": 3,
    "attention.head_count": 8,
    "attention.head_count_kv": 2,
}

KV_BYTES_PER_TOKEN = 3 * 2 * (8 + 8) * 2
"""Layers, KV heads, key and value length, bytes of a number."""

TRAINED_TOKENS = 2048


def write_gguf(path: Path) -> Path:
    """Write the file; returns ``path``."""
    pairs = [_text("general.architecture") + struct.pack("<I", 8) + _text("llama")]
    pairs += [_text(f"llama.{name}") + struct.pack("<II", 4, number) for name, number in _NUMBERS.items()]
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs))
    return path


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
