"""What became of every attempt, counted: for ``/metrics`` and ``coterie providers``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from coterie.errors import CATALOGUE

_NO_FAILURES: Final = frozenset(
    {"ok", "client_closed", *(code for code, entry in CATALOGUE.items() if entry.fault == "caller")}
)
"""Outcomes that say nothing against a provider."""

Failures = Mapping[tuple[str, str], Mapping[str, int]]
"""Codes of failures with their counts, by provider and model."""


@dataclass(slots=True)
class Tally:
    """Counts since the start, or since :meth:`keep` last dropped them."""

    attempts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By provider, model and outcome: "ok", "client_closed" or a catalogue code."""
    failovers: Counter[str] = field(default_factory=Counter)
    """Attempts that took over before anything was said, by model."""
    continuations: Counter[str] = field(default_factory=Counter)
    """Attempts that went on with an answer that broke off, by model."""

    def failures(self) -> Failures:
        """What failed. What was a caller's fault is none."""
        found: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        for (provider, model, outcome), count in self.attempts.items():
            if outcome not in _NO_FAILURES:
                found[provider, model][outcome] = count
        return dict(found)

    def keep(self, is_served: Callable[[str | None, str], bool]) -> None:
        """Drop what was counted of models that are gone. ``is_served`` is asked for provider (``None``: any), model."""
        for provider, model, outcome in tuple(self.attempts):
            if not is_served(provider, model):
                del self.attempts[provider, model, outcome]
        for counts in (self.failovers, self.continuations):
            for model in tuple(counts):
                if not is_served(None, model):
                    del counts[model]
