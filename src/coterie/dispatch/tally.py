"""What became of every attempt, counted: for ``/metrics`` and ``coterie providers``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from coterie.errors import CATALOGUE

_NO_FAILURES: Final = frozenset(
    {"ok", "client_closed", *(code for code, entry in CATALOGUE.items() if entry.fault == "caller")}
)
"""Outcomes that say nothing against a provider."""


@dataclass(slots=True)
class Tally:
    """Counts since the start."""

    attempts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By provider, model and outcome: "ok", "client_closed" or a catalogue code."""
    failovers: Counter[str] = field(default_factory=Counter)
    """Attempts that took over before anything was said, by model."""
    continuations: Counter[str] = field(default_factory=Counter)
    """Attempts that went on with an answer that broke off, by model."""

    def failures_of(self, provider: str, model: str) -> dict[str, int]:
        """Codes of a provider's failures at a model, with their counts. What was a caller's fault is none."""
        return {
            outcome: count
            for (name, served, outcome), count in self.attempts.items()
            if (name, served) == (provider, model) and outcome not in _NO_FAILURES
        }
