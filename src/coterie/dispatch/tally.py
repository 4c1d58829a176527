"""What became of every attempt, counted: for ``/metrics`` and ``coterie providers``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts since the start."""

    attempts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By provider, model and outcome: "ok", "client_closed" or a catalogue code."""
    failovers: Counter[str] = field(default_factory=Counter)
    """Attempts that took over before anything was said, by model."""
    continuations: Counter[str] = field(default_factory=Counter)
    """Attempts that went on with an answer that broke off, by model."""

    def failures_of(self, provider: str) -> dict[str, int]:
        """Codes of a provider's failures, with their counts."""
        codes: Counter[str] = Counter()
        for (name, _, outcome), count in self.attempts.items():
            if name == provider and outcome not in ("ok", "client_closed"):
                codes[outcome] += count
        return dict(codes.most_common())
