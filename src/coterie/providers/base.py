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


class Provider(Protocol):
    """The rules of its streams stand in :mod:`coterie.wire.lingua`."""

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
