"""Which provider serves a model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from coterie.errors import ApiError
from coterie.providers.base import ModelCard, Provider


class Router:
    """Finds the provider of a model among ``providers``; the first that has it serves it."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self.providers = tuple(providers)

    def models(self) -> list[ModelCard]:
        """Every served model once, in the order of the providers."""
        cards: dict[str, ModelCard] = {}
        for provider in self.providers:
            for card in provider.models():
                cards.setdefault(card.id, card)
        return list(cards.values())

    def card(self, model: str) -> ModelCard:
        """One model. Raises ``ApiError`` ``model_not_found``."""
        for card in self.models():
            if card.id == model:
                return card
        raise ApiError("model_not_found", param="model", model=model)

    def provider_of(self, model: str) -> Provider:
        """The provider that serves ``model``. Raises ``ApiError`` ``model_not_found``."""
        for provider in self.providers:
            if any(card.id == model for card in provider.models()):
                return provider
        raise ApiError("model_not_found", param="model", model=model)

    def ready(self) -> bool:
        """Whether every provider could serve a request now."""
        return all(provider.ready() for provider in self.providers)

    def status(self) -> list[dict[str, Any]]:
        """What each provider says of its models."""
        return [row for provider in self.providers for row in provider.status()]

    async def start(self) -> None:
        """Start every provider."""
        for provider in self.providers:
            await provider.start()

    async def stop(self) -> None:
        """Stop every provider, whatever becomes of the others. Raises the first failure in the end."""
        results = await asyncio.gather(*(provider.stop() for provider in self.providers), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
