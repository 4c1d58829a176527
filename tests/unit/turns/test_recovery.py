"""How a response ends whose process did not end it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.chunks import chunk, usage
from tests.support.response_streams import new, run

from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.turns.recovery import ended, sound

ERROR = ApiError("response_interrupted")
STREAM = run(new(), [chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk({}, "stop"), usage()])
ROW = {**orjson.loads(STREAM[0].partition(b"\ndata: ")[2])["response"], "status": "in_progress"}
OTHER = b'event: x\ndata: {"type":"x","sequence_number":%d}\n\n'

DAMAGE: dict[str, bytes] = {
    "no JSON": b"event: x\ndata: {]\n\n",
    "no data": b"event: x\n\n",
    "nulls": b"\0" * 50 + b"\n\n",
    "a number is missing": STREAM[5],
    "a number twice": STREAM[3],
    "no number": b'event: x\ndata: {"type":"x"}\n\n',
    "a number that is none": b'event: x\ndata: {"type":"x","sequence_number":true}\n\n',
    "no object": b"event: x\ndata: 4\n\n",
}


def end(journal: bytes) -> tuple[dict[str, Any], bytes]:
    return ended(ROW, journal, ERROR, "req_1", error_event=True, reasoning_events="openai")


def last(events: bytes) -> dict[str, Any]:
    """The response that a whole stream ends with; its events are numbered without a gap."""
    *frames, done = [frame + b"\n\n" for frame in events.split(b"\n\n")[:-1]]
    assert done == DONE
    assert sound(events) == [*frames, done]
    response: dict[str, Any] = orjson.loads(frames[-1].partition(b"\ndata: ")[2])["response"]
    return response


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_journal_counts_up_to_its_damage(damage: bytes) -> None:
    journal = b"".join((*STREAM[:4], damage, *STREAM[4:]))
    assert sound(journal) == STREAM[:4]
    response, events = end(journal)
    assert events.startswith(b"".join(STREAM[:4]))
    assert last(events) == response
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")


@pytest.mark.parametrize("count", range(len(STREAM)))
def test_what_was_said_before_the_end_is_ended(count: int) -> None:
    response, events = end(b"".join(STREAM[:count]))
    assert response["status"] == ("completed" if count == len(STREAM) - 1 else "failed")
    if count:
        assert last(events) == response
    else:
        assert (events, response["output"]) == (b"", [])


def test_a_whole_journal_is_what_it_says_whatever_follows() -> None:
    response, events = end(b"".join((*STREAM, *STREAM)))
    assert events == b"".join(STREAM)
    assert response["status"] == "completed"


NONSENSE = {
    "none": b"",
    "torn": STREAM[0][:-1],
    "not from the beginning": b"".join(STREAM[1:]),
    "events that are none": OTHER % 0 + OTHER % 1,
    "a delta of nothing": STREAM[0] + OTHER.replace(b'"x"', b'"response.output_text.delta"') % 1,
    "another response": STREAM[0].replace(b"resp_1", b"resp_2"),
    "only its end mark": DONE,
}


@pytest.mark.parametrize("journal", NONSENSE.values(), ids=NONSENSE.keys())
def test_a_journal_that_says_nothing_is_as_none(journal: bytes) -> None:
    response, events = end(journal)
    assert events == b""
    assert response == {**ROW, "status": "failed", "error": response["error"]}
    assert response["error"]["code"] == "server_error"


@given(place=st.integers(0, len(b"".join(STREAM))), length=st.integers(0, 200), filler=st.binary(max_size=40))
def test_whatever_a_journal_holds_the_response_ends(place: int, length: int, filler: bytes) -> None:
    whole = b"".join(STREAM)
    response, events = end(whole[:place] + filler + whole[place + length :])
    assert response["id"] == ROW["id"]
    assert response["status"] in ("failed", "completed", "incomplete")
    if events:
        assert last(events)["status"] == response["status"]
