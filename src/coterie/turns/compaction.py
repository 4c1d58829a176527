"""A conversation made short: what ``/v1/responses/compact`` does. Pure, but for the asking.

The model itself writes down what the conversation has come to, and the note is sealed: a later request that carries it
as a ``compaction`` item goes on from it. What users said stays beside it, word for word, for it is what nobody may get
wrong; everything else (answers, calls and their outputs, reasoning) is in the note.

A conversation that does not fit the model's context any more is what most needs a note: it is then made from what is
left of it when its oldest exchanges are left out, as with ``truncation: auto``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

from coterie.errors import ApiError
from coterie.turns.turn import Item, Plan
from coterie.wire.ids import new_id

_TASK: Final = (
    "Write a note about the conversation so far, for somebody who will go on with it and has not read it. Say what was "
    "asked for, what was decided and found out, with all names, numbers and paths that are still needed, what was "
    "done, and what is still to do, in at most 200 words. Write the note alone."
)


MOST_NOTE_TOKENS: Final = 1024
"""Tokens of a note at most. One that needs more ends there, and says so to whoever reads it."""

_CUT: Final = "\n[The note ends here, at its greatest length.]"


def asked_for_note(plan: Plan) -> Plan:
    """The plan that asks the model for the note."""
    task: Item = {
        "type": "message",
        "id": new_id("msg"),
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": _TASK}],
    }
    parsed = dataclasses.replace(plan.parsed, input=(*plan.parsed.input, task), store=False, truncate=True)
    return dataclasses.replace(plan, parsed=parsed)


def compacted(plan: Plan, note: dict[str, Any], seal: Callable[[str], str]) -> dict[str, Any]:
    """The answer, from the Response object ``note``, whose output is the note.

    Raises ``ApiError`` where there is no note: what it does not say would be lost.
    """
    text = "".join(
        part["text"]
        for item in note["output"]
        if item["type"] == "message"
        for part in item["content"]
        if part["type"] == "output_text"
    )
    text += _ending(note, text)
    users = [item for item in (*plan.context, *plan.input) if _is_a_users(item)]
    compaction = {"type": "compaction", "id": new_id("cmp"), "encrypted_content": seal(text)}
    return {
        "id": plan.id,
        "object": "response.compaction",
        "created_at": plan.created_at,
        "output": [*_once(users), compaction],
        "usage": note["usage"],
    }


def _ending(note: dict[str, Any], text: str) -> str:
    """What is to stand behind the note. Raises ``ApiError`` where it is none."""
    cut = note["status"] == "incomplete" and note["incomplete_details"] == {"reason": "max_output_tokens"}
    if note["status"] != "completed" and not cut:
        raise ApiError("upstream_stream_interrupted", detail=f"the note of a compaction is {note['status']}")
    if not text.strip():
        raise ApiError("upstream_empty_response", detail="the note of a compaction says nothing")
    return _CUT if cut else ""


def _is_a_users(item: Item) -> bool:
    return bool(item["type"] == "message" and item["role"] == "user")


def _once(items: Sequence[Item]) -> list[Item]:
    return list({item["id"]: item for item in items}.values())
