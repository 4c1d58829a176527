"""What an answer to a client must never hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

MARKER = "zq7secret"
"""Stands in every path and key that a test gives a server, and nowhere else."""

_OF_THE_CATALOGUE = ("application/json", "http(s)", "HTTP/1.1", "/v1/")
"""Words of the catalogue's own messages that have a slash."""

_TELLTALES = (
    MARKER, "Traceback", "Error(", "Exception", ".py", ".gguf", ".sock", ".toml", "127.0.0.1", "localhost",
    "llama", "uvicorn", "pydantic", "orjson", "pid",
)  # fmt: skip

_OBJECT_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")


def assert_clean(text: str, own_words: Iterable[str] = ()) -> None:
    """No secret, no path, no trace of the inside stands in ``text``; ``own_words`` are the caller's, repeated."""
    for word in (*own_words, *_OF_THE_CATALOGUE):
        text = text.replace(word, "")
    found = [telltale for telltale in _TELLTALES if telltale in text]
    assert not found, f"{found} in {text!r}"
    assert "/" not in text, text
    assert not _OBJECT_ADDRESS.search(text), text
