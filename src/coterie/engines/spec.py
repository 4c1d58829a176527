"""What an engine is told when it starts, and what it tells back. Data alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Task = Literal["generate", "embed"]

PromptCache = Literal["auto", "always", "never"]
"""When the computed beginning of an earlier prompt is used again; "auto": unless the answer must be reproducible."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How one model is run. Times are seconds; see ``coterie.config.EngineSettings`` for the meaning of each."""

    model: str
    """The name that clients use."""
    path: str
    slots: int
    context_tokens: int
    queue: int
    queue_timeout_s: float
    threads: int
    gpu_layers: int
    load_timeout_s: float
    first_token_timeout_s: float
    idle_timeout_s: float
    unload_after_s: float
    chat_template: str | None = None
    prompt_cache: PromptCache = "auto"
    task: Task = "generate"
    pooling: Literal["model", "mean"] = "model"
    """For embeddings: the pooling that the model's file names, or the mean where it names none."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a loaded model says of itself."""

    context_tokens: int
    """Context of one slot."""
    vocabulary: int
    """Number of token ids."""
    vision: bool


class EngineState(Enum):
    """Where an engine is in its life."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
