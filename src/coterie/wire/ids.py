"""Names for the things that a server makes, as OpenAI's API forms them: a prefix, and digits that nobody can guess."""

from __future__ import annotations

import os
from typing import Final

_BYTES: Final = 24
_AT_ONCE: Final = 256
"""Ids whose digits are drawn at once: each draw gives the interpreter away to whatever thread waits for it."""

_drawn: list[str] = []


def new_id(prefix: str) -> str:
    """``prefix``, an underscore, and 48 random hex digits."""
    try:
        digits = _drawn.pop()
    except IndexError:
        _drawn.extend(_draw())
        digits = _drawn.pop()
    return f"{prefix}_{digits}"


def _draw() -> list[str]:
    digits = os.urandom(_BYTES * _AT_ONCE).hex()
    return [digits[start : start + 2 * _BYTES] for start in range(0, len(digits), 2 * _BYTES)]
