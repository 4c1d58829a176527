"""``truncation: auto``: what of a conversation is left out where it is too long for its model. Pure.

An *exchange* is what begins with the user's messages and ends before the next ones: answers, calls, outputs, reasoning.
A *step* is what the model said at once, with the outputs of its calls.

What it promises:

* Whole exchanges are left out of the middle, the oldest first; then the first one, which says what it is all about.
  Where that is not enough (an agent at work makes one exchange of hundreds of steps), whole steps of the newest
  exchange go, the oldest first.
* Always kept: the newest exchange's user messages and its last step, what is no exchange's (system and developer
  messages, compactions), and the order.
* A call and its output are left out together or kept together, wherever they stand.
* The result is shorter, or there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from coterie.dialects.responses_calls import pairs
from coterie.dialects.responses_input import Item

IMAGE_CHARS: Final = 4_000
"""What an image or a file counts for: what its data is long says nothing about its tokens."""

_ITEM_CHARS: Final = 16
"""What an item counts for beside its text: role, names of fields, marks of a template."""

_TEXT_FIELDS: Final = ("text", "refusal", "arguments", "output", "name", "encrypted_content")
_MEDIA: Final = frozenset({"input_image", "input_file"})


def characters(items: Sequence[Mapping[str, Any]]) -> int:
    """How long ``items`` are to a model, in characters: their text, and an estimate for what is no text."""
    return sum(_characters(item) for item in items)


def shorten(items: Sequence[Item], drop_tokens: float, tokens_per_char: float) -> tuple[Item, ...] | None:
    """``items`` (references resolved) less about ``drop_tokens`` tokens, which are reckoned from their characters.

    ``None`` where nothing can be left out. At least one item goes where one can, and more than asked may have to.
    """
    bundles = _bundles(items)
    dropped: set[int] = set()
    chars = 0
    for place in sorted(place for place in bundles if place != _KEPT):
        dropped |= set(bundles[place])
        chars += characters([items[i] for i in bundles[place]])
        if chars * tokens_per_char >= drop_tokens:
            break
    return tuple(item for i, item in enumerate(items) if i not in dropped) if dropped else None


_Place = tuple[int, int]
"""What an item goes with; smaller ones go first."""

_MIDDLE, _FIRST, _STEPS = 0, 1, 2
_KEPT: Final[_Place] = (3, 0)
"""After all others."""


def _bundles(items: Sequence[Item]) -> dict[_Place, list[int]]:
    """The numbers of the items that go together."""
    places = _places(items)
    joined = _joined(items, places)
    bundles: dict[_Place, list[int]] = {}
    for i, place in enumerate(places):
        bundles.setdefault(_end(joined, place), []).append(i)
    return bundles


def _places(items: Sequence[Item]) -> list[_Place]:
    exchanges = _exchanges(items)
    newest = max((number for number in exchanges if number is not None), default=0)
    places = [_place(number, newest) for number in exchanges]
    members = [i for i, number in enumerate(exchanges) if number == newest and not _is_users(items[i])]
    steps = _steps([items[i] for i in members])
    for i, step in zip(members, steps, strict=True):
        places[i] = _KEPT if step == steps[-1] else (_STEPS, step)
    return places


def _place(exchange: int | None, newest: int) -> _Place:
    if exchange is None or exchange == newest:
        return _KEPT
    return (_FIRST, 0) if exchange == 0 else (_MIDDLE, exchange)


def _exchanges(items: Sequence[Item]) -> list[int | None]:
    """The number of each item's exchange, ``None`` for what belongs to none."""
    numbers: list[int | None] = []
    number = -1
    asking = False
    for item in items:
        if item.get("role") in ("system", "developer") or item.get("type") == "compaction":
            numbers.append(None)
            continue
        users = _is_users(item)
        if number < 0 or (users and not asking):
            number += 1
        asking = users
        numbers.append(number)
    return numbers


def _steps(items: Sequence[Item]) -> list[int]:
    """The number of each item's step: another begins where the model speaks after outputs."""
    steps: list[int] = []
    step = 0
    answered = False
    for item in items:
        is_output = item.get("type") == "function_call_output"
        step += answered and not is_output
        answered = is_output
        steps.append(step)
    return steps


def _is_users(item: Item) -> bool:
    return item.get("role") == "user"


def _joined(items: Sequence[Item], places: Sequence[_Place]) -> dict[_Place, _Place]:
    """Places that go with later ones, because a call stands in the one and its output in the other."""
    joined: dict[_Place, _Place] = {}
    for output, call in pairs(items).items():
        one, other = sorted(_end(joined, places[i]) for i in (call, output))
        if one != other:
            joined[one] = other
    return joined


def _end(joined: Mapping[_Place, _Place], place: _Place) -> _Place:
    while place in joined:
        place = joined[place]
    return place


def _characters(item: Mapping[str, Any]) -> int:
    parts = [part for name in ("content", "output", "summary") if isinstance(part := item.get(name), list)]
    inner = sum(_characters(part) for part_list in parts for part in part_list)
    if item.get("type") in _MEDIA:
        return IMAGE_CHARS
    return _ITEM_CHARS + inner + sum(len(text) for name in _TEXT_FIELDS if isinstance(text := item.get(name), str))
