"""The lingua franca between dialects and providers: OpenAI's chat request and ``chat.completion.chunk``.

A :class:`Generation` is what every dialect translates its request into; a provider answers it with an async iterator of
:data:`Chunk`. The rules of such a stream, which every provider keeps and every dialect may rely on:

* A chunk is a dict with ``choices`` (each with ``index``, ``delta`` and ``finish_reason``), or with ``usage`` and no
  choices. ``id``, ``object``, ``created``, ``model`` are the dialect's to write; a provider may leave them out.
* Each choice ends with exactly one finish reason. The stream ends with one chunk that carries ``usage``.
* A failure is an ``ApiError`` raised by the iterator. Closing the iterator cancels the generation.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, TypeAlias

Chunk: TypeAlias = dict[str, Any]
"""One ``chat.completion.chunk``, as parsed JSON."""

Chunks: TypeAlias = AsyncGenerator[Chunk, None]
"""Always an async generator, so that closing it (``aclosing``) is part of the bargain."""

Prompt: TypeAlias = str | list[int]
"""Text or token ids that a model continues as they are, without a chat template."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One validated request to generate.

    ``body`` holds the parameters of a chat request (without ``stream``, ``stream_options`` and, where ``prompts`` is
    given, without ``messages``). ``prompts`` are raw prompts; choice ``c`` of prompt ``p`` has index ``p * n + c``.
    ``prompt_param`` is what the caller's dialect calls the prompt, for errors about it.
    """

    model: str
    body: dict[str, Any]
    n: int = 1
    prompts: tuple[Prompt, ...] | None = None
    prompt_param: str = "messages"


@dataclass(frozen=True, slots=True)
class Embedding:
    """One validated request for embeddings; ``inputs`` are texts or token ids."""

    model: str
    inputs: tuple[Prompt, ...]


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of an :class:`Embedding`, in the order of its inputs, and the tokens they took."""

    vectors: list[list[float]]
    prompt_tokens: int
