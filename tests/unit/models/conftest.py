"""Small GGUF files."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import pytest

LLAMA: Mapping[str, object] = {
    "general.architecture": "llama",
    "general.name": "Little",
    "llama.context_length": 2048,
    "llama.embedding_length": 64,
    "llama.block_count": 3,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
    "tokenizer.chat_template": "{{ messages }}",
}


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: object) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<Iq", 11, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    assert isinstance(value, list)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)


def gguf(changes: Mapping[str, object] | None = None, *, without: str | None = None) -> bytes:
    """A GGUF file that is all metadata."""
    pairs = {**LLAMA, **(changes or {})}
    pairs.pop(without or "", None)
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs))
    return head + b"".join(_text(key) + _value(value) for key, value in pairs.items())


@pytest.fixture(name="gguf")
def gguf_factory() -> Callable[..., bytes]:
    return gguf
