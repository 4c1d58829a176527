"""How a response ends whose process did not end it. Pure.

Its journal says what anybody was told. A journal is a file that a full disk or a loss of power may have damaged: it
counts as far as it is sound, and where nothing comes of it the response is failed without it.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from coterie.dialects.responses_fold import close, fold, whole_events
from coterie.dialects.responses_items import ReasoningEvents
from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.errors.render_responses import response_error

_ENDED: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})
"""``status`` of a response that has ended."""


def ended(
    response: dict[str, Any],
    journal: bytes,
    error: ApiError,
    request_id: str,
    *,
    error_event: bool,
    reasoning_events: ReasoningEvents,
) -> tuple[dict[str, Any], bytes]:
    """``response``, which was stored as running, at its end; and all events that tell of it, none without a journal."""
    try:
        said = sound(journal)
        events = [*said, *close(said, error, request_id, error_event=error_event, reasoning_events=reasoning_events)]
        folded = fold(events)
    except Exception:  # noqa: BLE001 - well-numbered events may hold anything, and the response is to end all the same
        folded = {}
    if folded.get("id") == response["id"] and folded.get("status") in _ENDED:
        return folded, b"".join(events)
    return {**response, "status": "failed", "error": response_error(error, request_id)}, b""


def sound(journal: bytes) -> list[bytes]:
    """The events of ``journal`` up to the first that cannot be read or does not follow the one before it."""
    events: list[bytes] = []
    for event in whole_events(journal):
        if event != DONE and _number(event) != len(events):
            break
        events.append(event)
        if event == DONE:
            break
    return events


def _number(event: bytes) -> int | None:
    """The sequence number of an event, where it has one."""
    try:
        said = orjson.loads(event.partition(b"\ndata: ")[2])
    except orjson.JSONDecodeError:
        return None
    number = said.get("sequence_number") if isinstance(said, dict) else None
    return number if type(number) is int else None
