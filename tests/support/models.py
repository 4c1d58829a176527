"""The default model's file, a damaged copy of it, and requests that suit it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coterie.config import DEFAULT_MODEL, load_settings
from coterie.models.store import ModelStore

END_OF_TURN, END_OF_TEXT = "2", "0"
"""Token ids that end an answer of the default model."""

QUESTION = "What is the capital of Cuba?"
"""The model is sure of every token of its answer, so the answer is the same in whatever company it is computed."""

LONG_TOKENS = 1500
"""Far more than is generated while a test looks; so the answer is still running whenever it does."""


def model_file() -> Path:
    """Where ``coterie models pull`` put the default model."""
    path = ModelStore(load_settings(environ={}).models_dir).path_of(DEFAULT_MODEL)
    assert path.exists(), "run 'coterie models pull' first"
    return path


def damaged_copy(folder: Path) -> Path:
    """A file whose header is right and whose data ends too early."""
    copy = folder / "damaged.gguf"
    with model_file().open("rb") as whole:
        copy.write_bytes(whole.read(8 * 1024 * 1024))
    return copy


def chat(model: str = DEFAULT_MODEL, /, **changes: Any) -> dict[str, Any]:
    """A short chat request that works; ``changes`` are put over it."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 8,
        "temperature": 0,
        **changes,
    }


def long_chat(model: str = DEFAULT_MODEL, /, **changes: Any) -> dict[str, Any]:
    """A chat request whose answer never ends by itself before :data:`LONG_TOKENS`."""
    endless = {END_OF_TURN: -100, END_OF_TEXT: -100}
    return chat(model, **{"max_tokens": LONG_TOKENS, "logit_bias": endless, **changes})
