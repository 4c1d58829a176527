"""Values of a chat answer in the Responses API's shape. Pure.

Nothing here fails. :mod:`coterie.wire.choices` has checked usage and log probabilities as far as everybody needs them;
whatever else a provider got wrong is left out, because it stands beside an answer that is good without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from coterie.wire.lingua import Chunk

_MOST_COUNTED: Final = 2**53
"""More than this cannot be written as JSON that everybody reads."""
_LONGEST_TIER: Final = 64
"""Characters of a service tier, of which there are few."""
_THOUGHTS: Final[Mapping[str, tuple[str, str]]] = {
    "reasoning.summary": ("summary_text", "summary"),
    "reasoning.text": ("reasoning_text", "text"),
}
"""Kinds of ``reasoning_details`` that can be read: the kind of part they are here, and the field with their text."""


def response_usage(usage: dict[str, Any] | None) -> dict[str, Any] | None:
    """``usage`` of a chat answer; ``None`` where there is none. What is not counted there is 0."""
    if usage is None:
        return None
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": _detail(usage, "prompt_tokens_details", "cached_tokens"),
            "cache_write_tokens": 0,
        },
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {
            "reasoning_tokens": _detail(usage, "completion_tokens_details", "reasoning_tokens"),
        },
        "total_tokens": usage["total_tokens"],
    }


def response_logprobs(logprobs: dict[str, Any]) -> list[dict[str, Any]]:
    """``logprobs.content`` of a chat choice. ``bytes`` is always there: those of the token, where none were sent."""
    return [
        {**_logprob(entry), "top_logprobs": [_logprob(top) for top in entry["top_logprobs"]]}
        for entry in logprobs.get("content") or ()
    ]


def response_annotations(annotations: Any) -> list[dict[str, Any]]:
    """``annotations`` of a chat delta: its citations, flat. One without a title or a position has "" and 0 there."""
    entries = annotations if isinstance(annotations, list) else []
    found = (_citation(entry) for entry in entries)
    return [citation for citation in found if citation is not None]


def response_thoughts(details: Any) -> list[tuple[str, str]]:
    """``reasoning_details`` of a chat delta: the kind of part and the text of each thought that can be read."""
    entries = details if isinstance(details, list) else []
    found = (_thought(entry) for entry in entries)
    return [thought for thought in found if thought is not None]


def tier_of(chunk: Chunk) -> dict[str, str]:
    """``service_tier`` of a chunk, where it has one."""
    extra = chunk.get("extra")
    for place in (chunk, extra if isinstance(extra, dict) else {}):
        tier = place.get("service_tier")
        if _is_text(tier) and 0 < len(tier) <= _LONGEST_TIER:
            return {"service_tier": tier}
    return {}


def _detail(usage: dict[str, Any], place: str, name: str) -> int:
    details = usage.get(place)
    count = details.get(name) if isinstance(details, dict) else None
    return count if _is_count(count) else 0


def _logprob(entry: dict[str, Any]) -> dict[str, Any]:
    token, sent = entry["token"], entry.get("bytes")
    is_good = isinstance(sent, list) and all(type(byte) is int and 0 <= byte <= 255 for byte in sent)
    return {"token": token, "logprob": entry["logprob"], "bytes": sent if is_good else list(token.encode())}


def _thought(entry: Any) -> tuple[str, str] | None:
    kind = entry.get("type") if isinstance(entry, dict) else None
    known = _THOUGHTS.get(kind) if isinstance(kind, str) else None
    if known is None:
        return None
    part, name = known
    text = entry.get(name)
    return (part, text) if text and _is_text(text) else None


def _citation(entry: Any) -> dict[str, Any] | None:
    if not isinstance(entry, dict) or entry.get("type") != "url_citation":
        return None
    said = entry.get("url_citation", entry)
    if not isinstance(said, dict) or not _is_text(said.get("url")):
        return None
    start, end, title = said.get("start_index"), said.get("end_index"), said.get("title")
    return {
        "type": "url_citation",
        "url": said["url"],
        "start_index": start if _is_count(start) else 0,
        "end_index": end if _is_count(end) else 0,
        "title": title if _is_text(title) else "",
    }


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MOST_COUNTED


def _is_text(value: Any) -> TypeGuard[str]:
    """Whether ``value`` is a text that UTF-8 can write."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
