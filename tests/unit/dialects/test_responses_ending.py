"""Another end for a stream whose own end cannot be kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from coterie.dialects.responses_ending import fail_instead
from coterie.dialects.responses_stream import ResponseStream
from coterie.errors import ApiError
from coterie.errors.render import DONE

ERROR = ApiError("storage_failed")


def started() -> tuple[ResponseStream, list[bytes]]:
    machine = ResponseStream({"id": "resp_1", "created_at": 1, "model": "m"})
    return machine, machine.feed({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]})


def completed(machine: ResponseStream) -> list[bytes]:
    said = machine.feed({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    said += machine.feed({"choices": [], "usage": None})
    return [*said, *machine.end()]


def failed(machine: ResponseStream) -> list[bytes]:
    return machine.fail(ApiError("internal_error"), "req_1")


def data(event: bytes) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(event.partition(b"\ndata: ")[2])
    return said


@pytest.mark.parametrize("end", [completed, failed, ResponseStream.cancel])
@pytest.mark.parametrize("error_event", [True, False])
def test_the_items_are_closed_and_the_stream_fails(
    end: Callable[[ResponseStream], list[bytes]], error_event: bool
) -> None:
    machine, said = started()
    tail = fail_instead(end(machine), ERROR, "req_9", error_event=error_event)
    assert tail[-1] == DONE
    events = [data(event) for event in (*said, *tail[:-1])]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[-1] == "response.failed"
    assert kinds.count("error") == error_event
    assert kinds.count("response.output_item.done") == 1
    response = events[-1]["response"]
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert "req_9" in response["error"]["message"]
    assert response["incomplete_details"] is None
    assert response["output"][0]["content"][0]["text"] == "Hi"
    assert len({kind for kind in kinds if kind in ("response.completed", "response.incomplete")}) == 0
