"""Another end for a Responses stream whose own end must not be told. Pure.

A stream may have come to its end, and what it made cannot be kept: the database is gone, say. Its last events were not
sent yet, so they are replaced: the items are closed as they were, and then the stream fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from coterie.dialects.responses_items import EventWriter
from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.errors.render_responses import error_event as error_fields
from coterie.errors.render_responses import response_error


def fail_instead(tail: Sequence[bytes], error: ApiError, request_id: str, *, error_event: bool) -> list[bytes]:
    """The last events ``tail`` of a stream, all that close it and ``[DONE]``, with ``error`` at the end."""
    events = [(event, _data(event)) for event in tail if event != DONE]
    last = events[-1][1]
    closing = [(event, said) for event, said in events[:-1] if said["type"] != "error"]
    writer = EventWriter(closing[-1][1]["sequence_number"] + 1 if closing else events[0][1]["sequence_number"])
    out = [event for event, _ in closing]
    if error_event:
        out.append(writer.write(("error", error_fields(error, request_id))))
    response = {
        **last["response"],
        "status": "failed",
        "error": response_error(error, request_id),
        "incomplete_details": None,
        "completed_at": None,
    }
    out.append(writer.write(("response.failed", {"response": response})))
    return [*out, DONE]


def _data(event: bytes) -> dict[str, Any]:
    said: dict[str, Any] = orjson.loads(event.partition(b"\ndata: ")[2])
    return said
