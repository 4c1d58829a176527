"""How many requests the fuzzers tried, told at the end of a run."""

from __future__ import annotations

from collections import Counter

TRIED: Counter[str] = Counter()
"""Requests by their source."""
