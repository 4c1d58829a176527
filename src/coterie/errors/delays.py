"""How long a provider asks to wait, wherever it says so. Pure.

Looked for in this order: ``retry-after-ms``, ``retry-after`` (seconds or an HTTP date), a field of the body
(``retryDelay``, ``retry_after``), the sentence ("Please try again in 1m2.5s"), and last the time at which an exhausted
``x-ratelimit-*`` budget is filled again. Nothing that is not a
positive number of seconds, a day at most, counts as said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_S: Final = 86400.0
"""Longer delays are not believed: they are a broken clock, or the end of a month's budget."""

_UNITS_S: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_UNIT: Final = r"(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)"
_PART: Final = re.compile(rf"(?i)(\d{{1,12}}(?:\.\d{{1,12}})?)\s?({_UNIT})(?![a-z])")
_DURATION: Final = re.compile(rf"(?i)\s*(?:\d{{1,12}}(?:\.\d{{1,12}})?\s?{_UNIT}(?:,?\s?(?:and\s)?|$)){{1,5}}\.?\s*")
_SENTENCE: Final = re.compile(
    r"(?i)\b(?:try(?:ing)? again|retry(?:ing)?|retried|retry[-_ ]after|wait|resets?|available)\b[^\d.!?]{0,40}"
    rf"((?:\d{{1,12}}(?:\.\d{{1,12}})?\s?{_UNIT}(?![a-z])[ ,]{{0,2}}(?:and )?){{1,5}}|"
    rf"(?:\d{{1,12}}(?:\.\d{{1,12}})?{_UNIT}){{2,5}})"
)
_RUN_TOGETHER: Final = re.compile(rf"(?i)(\d{{1,12}}(?:\.\d{{1,12}})?)({_UNIT}?)(?=\d|\s|[.,]|$)")
_NUMBER: Final = re.compile(r"\s*\d{1,15}(?:\.\d{1,15})?\s*")
_RESET: Final = re.compile(r"(?:x-|anthropic-)?ratelimit-(?:(.{1,40})-)?reset(?:-(.{1,40}))?")
_EPOCH_S: Final = 1e9
_EPOCH_MS: Final = 1e12


def stated_delay_s(headers: Mapping[str, str], field: float | str | None, text: str, now: float) -> float | None:
    """The delay that is stated, in seconds, or ``None``. ``headers`` have lower-case names; ``now`` is Unix time."""
    for delay_s in _candidates(headers, field, text, now):
        if delay_s is not None and math.isfinite(delay_s) and 0 < delay_s <= LONGEST_S:
            return delay_s
    return None


def _candidates(headers: Mapping[str, str], field: float | str | None, text: str, now: float) -> Iterator[float | None]:
    milliseconds = _number(headers.get("retry-after-ms", "")) or _number(headers.get("x-ms-retry-after-ms", ""))
    yield None if milliseconds is None else milliseconds / 1000
    yield _moment(headers.get("retry-after", ""), now)
    yield field if isinstance(field, float) else None if field is None else _moment(field, now)
    said = _SENTENCE.search(text)
    yield None if said is None else _duration(said[1])
    yield _reset(headers, now)


def _moment(value: str, now: float) -> float | None:
    """Seconds from now that ``value`` means: a number of seconds, a Unix time, a duration, a date."""
    value = value[:64]
    number = _number(value)
    if number is not None:
        if number >= _EPOCH_MS:
            return number / 1000 - now
        return number - now if number >= _EPOCH_S else number
    if _DURATION.fullmatch(value) is not None or _PART.match(value) is not None:
        return _duration(value)
    return _date(value, now)


def _date(value: str, now: float) -> float | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            when = parse(value)
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None


def _number(value: str) -> float | None:
    return float(value.strip()) if _NUMBER.fullmatch(value[:40]) and value.isascii() else None


def _duration(value: str) -> float | None:
    parts = _RUN_TOGETHER.findall(re.sub(r"(?<=\d)\s(?=[A-Za-z])", "", value.lower()))
    seconds = [float(number) * _UNITS_S[_unit(unit)] for number, unit in parts if unit]
    return sum(seconds) if seconds else None


def _unit(word: str) -> str:
    return "ms" if word == "ms" or word.startswith("milli") else word[0]


def _reset(headers: Mapping[str, str], now: float) -> float | None:
    """When the exhausted budget is full again; the soonest of all where none is told to be exhausted."""
    exhausted: list[float] = []
    others: list[float] = []
    for name, value in headers.items():
        if _RESET.fullmatch(name) is None:
            continue
        delay_s = _moment(value, now)
        if delay_s is None or delay_s <= 0:
            continue
        left = headers.get(name.replace("reset", "remaining"), "").strip()
        (exhausted if left.startswith("-") or left == "0" else others).append(delay_s)
    return max(exhausted) if exhausted else min(others, default=None)
