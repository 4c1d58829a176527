"""Calls and their outputs: which belong together, and what chat calls them. Pure.

What it promises:

* An output belongs to the first call before it that has its ``call_id`` and no output yet; calls that were broken off
  come after the others. So two calls of one id, which some models' servers give, are told apart by their order.
* Ids and names that chat takes pass as they are. Others, which a model's server may well have made, become some that it
  takes: the same for the same, from one request to the next, so that a prompt begins as the one before it began.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

MAX_CHAT_ID: Final = 128
"""Characters of a call's id in chat."""

MAX_CHAT_NAME: Final = 64
"""Characters of a function's name in chat."""

_UNFIT: Final = re.compile(r"[^a-zA-Z0-9_-]")


def is_broken_off(item: Mapping[str, Any]) -> bool:
    """Whether a call ended before its arguments did."""
    return item.get("status") == "incomplete"


def pairs(items: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """For the place of each output, in their order, the place of its call. Outputs without one are not in it."""
    waiting: dict[str, tuple[deque[int], deque[int]]] = {}
    found: dict[int, int] = {}
    for i, item in enumerate(items):
        if item.get("type") == "function_call":
            whole_or_broken = waiting.setdefault(item["call_id"], (deque(), deque()))
            whole_or_broken[is_broken_off(item)].append(i)
        elif item.get("type") == "function_call_output":
            calls = next((queue for queue in waiting.get(item["call_id"], ()) if queue), None)
            if calls is not None:
                found[i] = calls.popleft()
    return found


class ChatIds:
    """The ids that the calls of one chat message have there: each is another."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._number = 1

    def take(self, call_id: str) -> str:
        """An id for the next call, which its items call ``call_id``."""
        wanted = chat_id = _short(call_id)
        while chat_id in self._taken:
            # The number never falls, so that a flood of one id costs no more than any other.
            self._number += 1
            ending = f"_{self._number}"
            chat_id = f"{wanted[: MAX_CHAT_ID - len(ending)]}{ending}"
        self._taken.add(chat_id)
        return chat_id


def chat_name(name: str) -> str:
    """A function's name as chat takes it."""
    return _UNFIT.sub("_", name)[:MAX_CHAT_NAME] or "_"


def _short(call_id: str) -> str:
    if len(call_id) <= MAX_CHAT_ID:
        return call_id
    return f"call_{hashlib.sha256(call_id.encode()).hexdigest()}"
