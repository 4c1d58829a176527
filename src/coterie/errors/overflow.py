"""How many tokens fit and how many were sent, in any provider's words. Pure.

Every wording holds the same one, two or three numbers. What fits is told by the words beside it; else it is the
smaller of two, since what was sent is more than what fits. Numbers of characters and bytes are not tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_READ: Final = 2000
_N: Final = r"(\d{1,3}(?:[,_]\d{3}){1,2}|\d{1,9})(?![\w.,]?\d)"
_NUMBER: Final = re.compile(rf"(?<![\w.,/-]){_N}(?!\d*[.-]?\w)")
_OTHER_UNIT: Final = re.compile(rf"(?i){_N}\s{{0,2}}(?:characters|chars|bytes|[km]i?b\b|images?|messages)")

_LIMITS: Final = tuple(
    re.compile(f"(?i){pattern}")
    for pattern in (
        # "A + B > N", "must be <= N"
        rf"(?:<=?|>=?) {{0,2}}{_N}",
        # "This model's maximum context length is N", "context window of N", "maximum prompt length is N"
        rf"(?:maximum|max|total|configured|available)[ _]?(?:model[ _]?)?(?:context|prompt|input|sequence|model)?[ _]?"
        rf"(?:length|window|size|len|limit)[ \w(:='`]{{0,20}}?\b{_N}",
        rf"context (?:length|window|size|limit)[ (:=']{{0,3}}(?:is |of |only ){{0,3}}\(?{_N}",
        rf"(?:token|configured|context) limit(?: of| is|:|\s=)?\s?\(?{_N}",
        rf"(?:allowed|limit)[ \w]{{0,12}}\(?:?\s?{_N}",
        rf"\[\d+, ?{_N}\]",
        rf"{_N}(?: tokens?)? (?:maximum|max\b)",
    )
)
_COMPLETION: Final = re.compile(
    rf"(?i){_N}(?: tokens)? (?:in the (?:completion|output)|`max_new_tokens`|for the completion|(?:output|completion) "
    rf"tokens)|\+ ?{_N}|['`]?max_(?:new_|completion_)?tokens['`]? is too large: {_N}"
)


@dataclass(frozen=True, slots=True)
class Overflow:
    """Tokens that fit, tokens that were sent, and those of them that the answer was given; ``None`` where untold."""

    limit: int | None
    actual: int | None
    completion: int | None = None


def read_overflow(text: str, limit: int | None = None, actual: int | None = None) -> Overflow:
    """Read the numbers of ``text``; ``limit`` and ``actual`` are what fields have said already."""
    text = text[:_READ]
    other_units = {_count(match[1]) for match in _OTHER_UNIT.finditer(text)}
    counts = [
        count for match in _NUMBER.finditer(text) if (count := _count(match[1])) >= 8 and count not in other_units
    ]
    limit = limit or _limit(text, counts)
    if limit is None and len(set(counts)) >= 2:
        limit = sorted(set(counts))[-2]
    if actual is not None:
        return Overflow(limit, actual)
    completion = _first(_COMPLETION, text)
    others = [count for count in counts if count not in (limit, completion)]
    if completion is None or completion == limit or not others:
        return Overflow(limit, max((count for count in others if limit is None or count > limit), default=None))
    prompt = next((count for count in others if count + completion in counts), max(others))
    total = prompt + completion
    return Overflow(limit, total, completion) if limit is None or total > limit else Overflow(limit, None)


def sentence(overflow: Overflow) -> str | None:
    """OpenAI's own sentence, as far as the numbers go; ``None`` where the catalogue's, with both, is it."""
    limit, actual, completion = overflow.limit, overflow.actual, overflow.completion
    if limit is None:
        return (
            "The request exceeds this model's maximum context length. Please reduce the length of the messages."
            if actual is None
            else f"Your messages resulted in {actual} tokens, which exceeds this model's maximum context length. "
            "Please reduce the length of the messages."
        )
    if actual is None:
        return (
            f"This model's maximum context length is {limit} tokens. However, your messages resulted in more tokens. "
            "Please reduce the length of the messages."
        )
    if completion is not None:
        return (
            f"This model's maximum context length is {limit} tokens. However, you requested {actual} tokens "
            f"({actual - completion} in the messages, {completion} in the completion). Please reduce the length of the "
            "messages or completion."
        )
    return None


def _limit(text: str, counts: list[int]) -> int | None:
    for pattern in _LIMITS:
        for match in pattern.finditer(text):
            if (value := _count(match[1])) in counts:
                return value
    return None


def _first(pattern: re.Pattern[str], text: str) -> int | None:
    match = pattern.search(text)
    return None if match is None else _count(next(group for group in match.groups() if group))


def _count(digits: str) -> int:
    return int(digits.replace(",", "").replace("_", ""))
