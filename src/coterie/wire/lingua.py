"""The lingua franca between dialects and providers: OpenAI's chat request and ``chat.completion.chunk``.

A :class:`Generation` is what every dialect translates its request into; a provider answers it with an async iterator of
:data:`Chunk`. The rules of such a stream, which every provider keeps and every dialect may rely on:

* A chunk is a dict with ``choices`` (each with ``index``, ``delta`` and ``finish_reason``), or with ``usage`` and no
  choices. ``id``, ``object``, ``created``, ``model`` are the dialect's to write; a provider may leave them out.
* Each choice ends with exactly one finish reason. The stream ends with one chunk that carries ``usage``, which is null
  where the provider does not count.
* Fields that nobody here knows pass to the client: those of a delta as they are, those of a choice under its ``extra``,
  those of the chunk under the chunk's ``extra`` (objects both).
* ``usage_so_far`` beside choices, or alone, is what was counted until then: for whoever tells of an answer that broke
  off. A whole answer's usage is in its last chunk alone.
* A failure is an ``ApiError`` raised by the iterator. Closing the iterator cancels the generation.
* Text with which a choice goes on may take a short way past the iterator: :class:`Shortcut`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from coterie.errors import ApiError

Chunk: TypeAlias = dict[str, Any]
"""One ``chat.completion.chunk``, as parsed JSON."""

RESTART: Final[Chunk] = {"choices": [], "restart": True}
"""Everything before it is void, the answer begins anew. Only dispatch sends it, and only where nothing is streamed."""

Chunks: TypeAlias = AsyncGenerator[Chunk, None]
"""Always an async generator, so that closing it (``aclosing``) is part of the bargain."""

Prompt: TypeAlias = str | list[int]
"""Text or token ids that a model continues as they are, without a chat template."""


@dataclass(slots=True)
class Attempt:
    """What one try of one request on one provider measured: seconds, ``None`` for what it did not come to.

    ``queue_s``: waiting for a slot there; ``connect_s``: 0 on a connection that stood already; ``first_token_s``: from
    the try's beginning to the first semantic chunk.
    """

    provider: str = ""
    started_s: float = 0.0
    queue_s: float | None = None
    connect_s: float | None = None
    first_token_s: float | None = None


Take: TypeAlias = Callable[[int, str, dict[str, Any] | None], bool]
"""See :class:`Shortcut`."""


class Shortcut:
    """A short way for text, past everybody who would only pass it along.

    Nearly every chunk of an answer says nothing but one more piece of text. Whoever reads one off a socket may give it
    to ``take`` there and then, where the usual way would wake a task to hand it from iterator to iterator. The rules:

    * only while the consumer waits for the iterator's next chunk, so that nothing overtakes anything;
    * only a piece of text (not empty, and such that UTF-8 can write it) of a choice that has begun and not finished;
    * ``take`` either does all that would be done with the chunk and returns true, or does nothing and returns false:
      then the chunk goes the usual way. It raises nothing that is a provider's failure; whatever it raises ends the
      answer. It is given the choice's index, the text, and the chunk's ``extra``: the same object as the time before
      where that is the same, so that its writing can be kept.

    ``take`` is ``None`` while there is no short way. A provider need not use it.
    """

    __slots__ = ("take",)

    def __init__(self, take: Take | None = None) -> None:
        self.take = take


@dataclass(frozen=True, slots=True)
class Generation:
    """One validated request to generate.

    ``body`` holds the parameters of a chat request (without ``stream``, ``stream_options`` and, where ``prompts`` is
    given, without ``messages``). ``prompts`` are raw prompts; choice ``c`` of prompt ``p`` has index ``p * n + c``.
    ``prompt_param`` is what the caller's dialect calls the prompt, for errors about it. ``streamed`` says that chunks
    reach the client as they come, so that none can be taken back. ``attempt`` is for the provider to fill,
    ``shortcut`` for it to use.

    ``partial`` says that the last message is the beginning of the answer, which the provider is to go on with.

    ``known`` matters where the request was read openly, with whatever else than OpenAI's parameters it may hold: it is
    what a provider is given that honours only what it knows, or the failure with which it refuses.
    """

    model: str
    body: dict[str, Any]
    n: int = 1
    prompts: tuple[Prompt, ...] | None = None
    prompt_param: str = "messages"
    streamed: bool = True
    partial: bool = False
    known: Generation | ApiError | None = None
    attempt: Attempt = field(default_factory=Attempt, compare=False)
    shortcut: Shortcut = field(default_factory=Shortcut, compare=False)

    def tried(self, attempt: Attempt, shortcut: Shortcut) -> Generation:
        """The same, for one attempt."""
        return Generation(
            self.model, self.body, self.n, self.prompts, self.prompt_param, self.streamed, self.partial, self.known,
            attempt, shortcut,
        )  # fmt: skip

    @property
    def choices(self) -> int:
        """How many choices the answer has."""
        return len(self.prompts or (None,)) * self.n


@dataclass(frozen=True, slots=True)
class Embedding:
    """One validated request for embeddings; ``inputs`` are texts or token ids.

    ``extra`` are parameters for providers that take more than OpenAI's; ``refusal`` is how the others refuse them.
    ``attempt`` is for the provider to fill.
    """

    model: str
    inputs: tuple[Prompt, ...]
    extra: dict[str, Any] = field(default_factory=dict)
    refusal: ApiError | None = None
    attempt: Attempt = field(default_factory=Attempt, compare=False)


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of an :class:`Embedding`, in the order of its inputs, and the tokens they took."""

    vectors: list[list[float]]
    prompt_tokens: int
