"""Which providers to ask for a model, and in which order. Pure.

The order: lower priority numbers first; among equals the lower cost. The cost of a provider is what it has to do
already, over its weight, times how slow and how unreliable it has shown itself. What it has to do has a part that is
drawn by chance, less than one request: so idle providers share the load by weight too, and one that was slow or failed
once is measured again some time.
A provider whose health refuses it comes only after all that are admitted, the one that may be asked soonest first: if
nobody else is left, it is asked all the same, because the alternative is a certain failure.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from coterie.dispatch.health import Health
from coterie.providers.base import Offer, Provider

_BLAME_WEIGHT: Final = 10.0
_SLOWEST: Final = 4.0
"""More than this factor of slowness counts no more."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that serves the model, how, and what its past says."""

    provider: Provider
    offer: Offer
    health: Health


def ranked(candidates: Sequence[Candidate], running: Mapping[str, int], now_s: float) -> list[Candidate]:
    """``candidates`` in the order in which to ask them."""
    if len(candidates) < 2:
        return list(candidates)
    fastest_s = _fastest_s(candidates)

    def place(candidate: Candidate) -> tuple[bool, float, int, float]:
        admitted = candidate.health.admits(now_s)
        wait_s = 0.0 if admitted else candidate.health.available_in_s(now_s)
        cost = _cost(candidate, running.get(candidate.provider.name, 0), fastest_s, now_s)
        return not admitted, wait_s, candidate.offer.priority, cost

    return sorted(candidates, key=place)


def _fastest_s(candidates: Sequence[Candidate]) -> float | None:
    measured = [candidate.health.first_token_s for candidate in candidates if candidate.health.first_token_s]
    return min(measured, default=None)


def _cost(candidate: Candidate, running: int, fastest_s: float | None, now_s: float) -> float:
    measured_s = candidate.health.first_token_s
    slowness = min(_SLOWEST, measured_s / fastest_s) if measured_s and fastest_s else 1.0
    work = running + random.random()  # noqa: S311 - no secret
    return work / candidate.offer.weight * slowness * (1 + _BLAME_WEIGHT * candidate.health.blame(now_s))
