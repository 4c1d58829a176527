"""Names for the things that a server makes, as OpenAI's API forms them: a prefix, and digits that nobody can guess."""

from __future__ import annotations

import os


def new_id(prefix: str) -> str:
    """``prefix``, an underscore, and 48 random hex digits."""
    return f"{prefix}_{os.urandom(24).hex()}"
