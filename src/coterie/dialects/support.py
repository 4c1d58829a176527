"""Parameters that OpenAI's API has and that an answer from here could not honour: which values pass, and why. Data.

A parameter is honoured, refused, or has no effect on the answer. The last kind is accepted, because clients send it as
a matter of course, and stands in :data:`WITHOUT_EFFECT` with the reason why accepting it deceives nobody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from coterie.errors import ApiError


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A parameter of which only some values (those that ask for nothing special) are accepted."""

    accepted: tuple[Any, ...] = ()
    hint: str = ""


CHAT_UNSUPPORTED: Final[Mapping[str, Unsupported]] = {
    "audio": Unsupported(),
    "function_call": Unsupported(hint=" Use 'tool_choice' instead."),
    "functions": Unsupported(hint=" Use 'tools' instead."),
    "modalities": Unsupported((["text"],), " Only text is generated."),
    "moderation": Unsupported(),
    "prediction": Unsupported(),
    "reasoning_effort": Unsupported(("none",)),
    "service_tier": Unsupported(("auto", "default"), " There is one tier."),
    "store": Unsupported((False,), " Chat completions are not stored."),
    "verbosity": Unsupported(("medium",)),
    "web_search_options": Unsupported(),
}

COMPLETIONS_UNSUPPORTED: Final[Mapping[str, Unsupported]] = {
    "best_of": Unsupported((1,), " Every generated choice is returned."),
    "echo": Unsupported((False,)),
    "suffix": Unsupported(),
}

EMBEDDINGS_UNSUPPORTED: Final[Mapping[str, Unsupported]] = {
    "dimensions": Unsupported(hint=" Vectors have the model's own length."),
}

WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "metadata": "labels of stored completions; nothing is stored",
    "prompt_cache_key": "a hint for routing; prompts are cached without it",
    "prompt_cache_options": "a hint for caching; prompts are cached without it",
    "prompt_cache_retention": "a hint for caching; prompts are cached without it",
    "safety_identifier": "an identifier for the operator; it is not evaluated",
    "user": "an identifier for the operator; it is not evaluated",
}
"""Accepted parameters that change nothing, and why. Their types are checked all the same."""


def refuse_unsupported(body: Mapping[str, Any], table: Mapping[str, Unsupported]) -> dict[str, Any]:
    """``body`` without the parameters of ``table``. Raises ``ApiError`` where one asks for something."""
    for name, rule in table.items():
        value = body.get(name)
        if value is None or _among(value, rule.accepted):
            continue
        if not rule.accepted:
            raise ApiError("unsupported_parameter", param=name, hint=rule.hint)
        shown = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        raise ApiError("unsupported_value", param=name, value=shown, hint=rule.hint)
    return {name: value for name, value in body.items() if name not in table}


def _among(value: Any, accepted: tuple[Any, ...]) -> bool:
    """Membership that tells ``1`` from ``True``, as JSON does."""
    return any(type(value) is type(other) and value == other for other in accepted)
