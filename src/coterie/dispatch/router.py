"""The providers of a running server, and what is known of each: where a request finds those that can serve it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, Literal

from coterie.config import DispatchSettings
from coterie.dispatch import failover
from coterie.dispatch.choice import Candidate
from coterie.dispatch.health import Health, HealthRules
from coterie.dispatch.seats import Seats, now_s
from coterie.dispatch.tally import Failures, Tally
from coterie.errors import ApiError
from coterie.observe.timing import Timing
from coterie.providers.base import ModelCard, Provider
from coterie.wire.lingua import Attempt, Chunks, Embedded, Embedding, Generation

_RECORDS: Final = 1024
"""From so many on, records and counts of what nobody serves any more are dropped, whether or not anybody looks."""

_UNREAD_DELAY_S: Final = 2.0
"""By then a provider whose models could not be read yet has been asked again."""

Task = Literal["generate", "embed"]
_TASKS: Final[tuple[Task, Task]] = ("generate", "embed")


class Reading(Enum):
    """How a request for a model is to be read: by those who serve it."""

    KNOWN = "known"
    """All take only the parameters that are known here (or nobody serves it)."""
    OPEN = "open"
    """All take others too."""
    BOTH = "both"


class Router:
    """Asks ``providers`` by ``settings``. Their set can change while requests run (:meth:`replace`)."""

    def __init__(self, providers: Sequence[Provider], settings: DispatchSettings | None = None) -> None:
        self.providers = tuple(providers)
        self.settings = settings or DispatchSettings()
        self.seats = Seats(self.settings.queue, self.settings.queue_timeout_s)
        self.tally = Tally()
        self._rules = HealthRules(self.settings.open_after, self.settings.open_s, self.settings.open_max_s)
        self._health: dict[tuple[str, str, Task], Health] = {}
        self._records = _RECORDS

    def models(self) -> list[ModelCard]:
        """Every served model once, in the order of the providers."""
        cards: dict[str, ModelCard] = {}
        for provider in self.providers:
            for card in provider.models():
                cards.setdefault(card.id, card)
        return list(cards.values())

    def card(self, model: str) -> ModelCard:
        """One model. Raises ``ApiError`` as :meth:`check` does."""
        for card in self.models():
            if card.id == model:
                return card
        raise self._unserved(model)

    def reading(self, model: object) -> Reading:
        """How to read a request for ``model``."""
        if not isinstance(model, str):
            return Reading.KNOWN
        opened = closed = False
        for provider in self.providers:
            offer = provider.offer(model)
            if offer is not None:
                opened, closed = opened or offer.open, closed or not offer.open
        return Reading.KNOWN if not opened else Reading.BOTH if closed else Reading.OPEN

    def check(self, model: str) -> None:
        """Raise ``ApiError`` where nobody serves ``model``: ``model_not_found``, or ``server_is_overloaded`` while a
        provider could not say yet which models it serves.
        """
        if not self.serves(model):
            raise self._unserved(model)

    def serves(self, model: str) -> bool:
        """Whether anybody serves ``model`` now."""
        return any(provider.offer(model) is not None for provider in self.providers)

    def candidates(self, request: Generation | Embedding) -> list[Candidate]:
        """Who can serve it. Raises as :meth:`check` does, or the failure with which all of them would refuse it."""
        task: Task = "embed" if isinstance(request, Embedding) else "generate"
        found = self._candidates(request.model, task)
        refusal = request.refusal if isinstance(request, Embedding) else request.known
        if isinstance(refusal, ApiError):
            found = [candidate for candidate in found if candidate.offer.open]
            if not found:
                raise refusal
        return found

    def generate(self, generation: Generation, timing: Timing) -> Chunks:
        """The chunks of an answer, whoever gives it. The iterator raises ``ApiError``."""
        return failover.answer(self, self.settings, generation, timing)

    async def embed(self, embedding: Embedding, timing: Timing) -> Embedded:
        """Vectors, from whoever computes them. Raises ``ApiError``."""
        return await failover.embed(self, self.settings, embedding, timing)

    def health(self, provider: str, model: str, task: Task = "generate") -> Health:
        """The record of a model at a provider. (A server without embeddings may still generate.)"""
        record = self._health.get((provider, model, task))
        if record is None:
            if len(self._health) >= self._records:
                self._forget_unserved()
            record = self._health[provider, model, task] = Health(self._rules)
        return record

    def ready(self) -> bool:
        """Whether every provider could serve a request now, and there is a model to ask for."""
        return all(provider.ready() for provider in self.providers) and bool(self.models())

    def status(self) -> list[dict[str, Any]]:
        """What each provider says of its engines."""
        return [row for provider in self.providers for row in provider.status()]

    def report(self) -> list[dict[str, Any]]:
        """One row for each provider and model: state, load, speed, failures by code since the start."""
        failures = self.tally.failures()
        return [self._row(provider, card.id, failures) for provider in self.providers for card in provider.models()]

    def asked(self) -> list[dict[str, Any]]:
        """The rows of :meth:`report` for what was asked for: all others are closed, and have counted nothing.

        However many models a provider lists, there are no more rows than requests have made.
        """
        pairs = dict.fromkeys((provider, model) for provider, model, _ in (*self._health, *self.tally.attempts))
        failures, providers = self.tally.failures(), {provider.name: provider for provider in self.providers}
        return [self._row(providers[name], model, failures) for name, model in pairs if self._is_served(name, model)]

    def counts(self) -> dict[str, Any]:
        """What became of attempts since the start, what each provider has now, and who waits."""
        self.tally.keep(self._is_served)
        return {
            "running": {provider.name: self.seats.running.get(provider.name, 0) for provider in self.providers},
            "attempts": self.tally.attempts,
            "failovers": self.tally.failovers,
            "continuations": self.tally.continuations,
            "waiting": self.seats.waiting,
        }

    async def start(self) -> None:
        """Start every provider."""
        await asyncio.gather(*(provider.start() for provider in self.providers))

    async def stop(self) -> None:
        """Stop every provider, whatever becomes of the others. Raises the first failure in the end."""
        await _stop(self.providers)

    def configure(self, settings: DispatchSettings) -> None:
        """Go by ``settings`` from now on; what is known of the providers stays."""
        self.settings = settings
        self.seats.limit, self.seats.timeout_s = settings.queue, settings.queue_timeout_s
        for record in self._health.values():
            record.rules = HealthRules(settings.open_after, settings.open_s, settings.open_max_s)
        self._forget_unserved()

    async def replace(self, providers: Sequence[Provider]) -> None:
        """Serve with ``providers`` from now on. Those that are new are started first, so that no request finds a gap;
        those that are gone are stopped, which leaves their running answers alone.

        Raises what a start raises; then nothing is changed.
        """
        new = [provider for provider in providers if provider not in self.providers]
        started = await asyncio.gather(*(provider.start() for provider in new), return_exceptions=True)
        for failure in filter(None, started):
            await asyncio.gather(*(provider.stop() for provider in new), return_exceptions=True)
            raise failure
        gone = [provider for provider in self.providers if provider not in providers]
        self.providers = tuple(providers)
        names = {provider.name for provider in gone}
        self._health = {key: record for key, record in self._health.items() if key[0] not in names}
        self._forget_unserved()
        self.seats.recall()
        await _stop(gone)

    def _candidates(self, model: str, task: Task) -> list[Candidate]:
        found = []
        for provider in self.providers:
            offer = provider.offer(model)
            if offer is not None:
                found.append(Candidate(provider, offer, self.health(provider.name, model, task)))
        if not found:
            raise self._unserved(model)
        return found

    def _unserved(self, model: str) -> ApiError:
        """The failure of a request for a model that nobody is known to serve."""
        if any(provider.unread for provider in self.providers):
            return ApiError(
                "server_is_overloaded", retry_after_s=_UNREAD_DELAY_S,
                detail="nobody is known to serve the model, and a provider's models could not be read yet",
            )  # fmt: skip
        return ApiError("model_not_found", param="model", model=model)

    def _forget_unserved(self) -> None:
        """Models that a provider lists may come and go without end."""
        for name, model, task in tuple(self._health):
            if not self._is_served(name, model):
                del self._health[name, model, task]
        self._records = max(_RECORDS, 2 * len(self._health))
        self.tally.keep(self._is_served)

    def _is_served(self, provider: str | None, model: str) -> bool:
        """Whether a provider (``None``: any) serves ``model`` now."""
        return any(provider in (None, each.name) and each.offer(model) is not None for each in self.providers)

    def _row(self, provider: Provider, model: str, failures: Failures) -> dict[str, Any]:
        generating, embedding = (self._health.get((provider.name, model, task)) for task in _TASKS)
        health, time_s = generating or embedding or Health(self._rules), now_s()
        offer = provider.offer(model)
        return {
            "provider": provider.name,
            "model": model,
            "state": health.state(time_s).value,
            "available_in_s": round(health.available_in_s(time_s), 1),
            "running": self.seats.running[provider.name],
            "seats": offer.seats if offer else 0,
            "first_token_ms": None if health.first_token_s is None else round(health.first_token_s * 1000, 1),
            "answered": self.tally.attempts[provider.name, model, "ok"],
            "failures": failures.get((provider.name, model), {}),
        }


async def _stop(providers: Sequence[Provider]) -> None:
    results = await asyncio.gather(*(provider.stop() for provider in providers), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


__all__ = ["Attempt", "Reading", "Router"]
