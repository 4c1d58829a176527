"""What a provider is: anything that can serve a request in the lingua franca."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from coterie.wire.lingua import Chunks, Embedded, Embedding, Generation


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One served model, as ``/v1/models`` tells it. ``created`` is Unix time in seconds."""

    id: str
    created: int
    owned_by: str


@dataclass(frozen=True, slots=True)
class Offer:
    """How a provider would serve a model.

    Those with a lower ``priority`` are asked first; equals share the load by ``weight``. ``seats`` are requests at
    once (0: the provider has a queue of its own). ``context_tokens`` is 0 where nobody knows. ``open``: it takes
    parameters that are not known here. ``continues``: it can go on with a partial assistant message.
    """

    priority: int = 0
    weight: float = 1.0
    seats: int = 0
    context_tokens: int = 0
    open: bool = False
    continues: bool = False


class Provider(Protocol):
    """The rules of its streams stand in :mod:`coterie.wire.lingua`."""

    name: str
    """What logs, metrics and clients call it."""

    @property
    def unread(self) -> bool:
        """Whether nobody knows yet which models it serves."""
        ...

    def offer(self, model: str) -> Offer | None:
        """How it would serve ``model``; ``None``: not at all."""
        ...

    def models(self) -> list[ModelCard]:
        """The models that it serves."""
        ...

    def generate(self, generation: Generation) -> Chunks:
        """Generate; raises ``ApiError`` from the iterator. Closing the iterator cancels."""
        ...

    async def embed(self, embedding: Embedding) -> Embedded:
        """Compute vectors. Raises ``ApiError``."""
        ...

    def status(self) -> list[dict[str, Any]]:
        """One JSON object for each model: state, slots, queue."""
        ...

    def ready(self) -> bool:
        """Whether a request that came now could be served."""
        ...

    async def start(self) -> None:
        """Do what must be done before the first request. Raises ``ApiError``."""
        ...

    async def stop(self) -> None:
        """End everything that runs, and wait for it."""
        ...
