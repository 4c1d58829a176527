"""What a server's ``/v1/models`` says: names, and how long a context each model has there. Pure.

Also when it is asked again: soon while it has never answered, then at the interval of the settings.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from coterie.errors import ApiError

MAX_MODELS: Final = 2000
"""More models of one server are not looked at."""

FIRST_PAUSE_S: Final = 1.0
"""Seconds after which a list that could not be read is asked for again, the first time."""

_NAME: Final = re.compile(r"[^\s\x00-\x1f]{1,200}")

_CONTEXT_KEYS: Final = (
    "max_model_len",  # vLLM, SGLang
    "context_length",  # OpenRouter, Together
    "context_window",  # Groq
    "max_context_length",  # Mistral, LM Studio
    "max_context_tokens",
)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of a provider: the names here and there, its context in tokens (0: unknown), since when, and whose."""

    name: str
    upstream_name: str
    context_tokens: int
    created: int
    owned_by: str

    def with_context(self, listed: ListedModel | None) -> ListedModel:
        """The same model, with the context that the server tells."""
        return self if listed is None else dataclasses.replace(self, context_tokens=listed.context_tokens)


def read_listing(answer: Any) -> Mapping[str, ListedModel]:
    """The models of a list, by name. Raises ``ApiError`` for what is none."""
    rows = answer.get("data", answer.get("models")) if isinstance(answer, dict) else answer
    if not isinstance(rows, list):
        raise ApiError("upstream_protocol_error", detail="a list of models that is no list")
    return {model.name: model for model in _read(rows[:MAX_MODELS])}


def pauses_s(most_s: float) -> Iterator[float]:
    """Seconds to wait before each try to read a list for the first time: ever longer, and ``most_s`` in the end."""
    pause_s = min(FIRST_PAUSE_S, most_s)
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, most_s)


def _read(rows: list[Any]) -> Iterator[ListedModel]:
    for row in rows:
        name = row.get("id", row.get("name")) if isinstance(row, dict) else None
        if isinstance(name, str) and _NAME.fullmatch(name):
            created, owner = row.get("created"), row.get("owned_by")
            yield ListedModel(
                name=name,
                upstream_name=name,
                context_tokens=_context_tokens(row),
                created=created if type(created) is int and created >= 0 else int(time.time()),
                owned_by=owner if isinstance(owner, str) and _NAME.fullmatch(owner) else "provider",
            )


def _context_tokens(row: Mapping[str, Any]) -> int:
    found = (row.get(key) for key in _CONTEXT_KEYS)
    return next((value for value in found if type(value) is int and value > 0), 0)
