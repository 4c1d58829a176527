"""The fold of a Responses stream's events, and the end of one that broke off."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.chunks import chunk, fragment, text, usage
from tests.support.response_streams import any_answers, endings, kinds, new, options, read, run, said

from coterie.dialects.responses_fold import close, fold, whole_events
from coterie.dialects.responses_validator import judge
from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.wire.lingua import Chunk

LOST = ApiError("engine_failed")


def whole() -> list[bytes]:
    deltas = [{"reasoning": "hm"}, {"content": "a"}, {"content": "b"}, fragment(0, "c", "f", "{}")]
    return run(new(), [*map(chunk, deltas), chunk(finish="stop"), usage()])


def ended(events: list[bytes], **options: Any) -> list[bytes]:
    return [*events, *close(events, LOST, "req_1", **options)]


@given(any_answers, endings, options)
def test_a_response_is_the_fold_of_its_events(
    chunks: list[Chunk], ending: ApiError | str | None, options: dict[str, Any]
) -> None:
    machine = new(**options)
    events = run(machine, chunks, ending)
    assert fold(events) == fold(read(events)) == machine.response


@given(any_answers)
def test_the_output_so_far_is_the_fold_of_the_events_so_far(chunks: list[Chunk]) -> None:
    machine = new()
    events: list[bytes] = []
    for each in chunks:
        try:
            events += machine.feed(each)
        except ApiError:
            break
        assert fold(events).get("output", []) == machine.response["output"]


def test_the_fold_goes_by_the_deltas_not_by_what_is_said_at_the_end() -> None:
    events = [event for event in read(whole()) if event.get("delta") != "b"]
    assert fold(events)["output"][1]["content"][0]["text"] == "a"
    assert fold(events)["status"] == "completed"


def test_calls_that_mix_and_summaries() -> None:
    machine = new()
    details = [{"type": "reasoning.summary", "summary": "S"}, {"type": "reasoning.text", "text": "T"}]
    deltas = [
        {"reasoning_details": details}, fragment(0, "c", "f", "{"), fragment(1, "d", "g", "["),
        fragment(0, arguments="}"),
    ]  # fmt: skip
    events = [event for delta in deltas for event in machine.feed(chunk(delta))]
    reasoning, *calls = fold(ended(events))["output"]
    assert (reasoning["status"], reasoning["summary"][0]["text"], reasoning["content"][0]["text"]) == (
        "completed", "S", "T",
    )  # fmt: skip
    assert [(call["status"], call["arguments"]) for call in calls] == [("incomplete", "{}"), ("incomplete", "[")]
    assert judge(b"".join(ended(events))) == []


def test_nothing_folds_to_nothing() -> None:
    assert fold([]) == {}
    assert close([], LOST, "r") == []


# The end of what broke off


@given(any_answers, endings, options, st.data())
def test_a_stream_that_broke_off_anywhere_gets_a_whole_end(
    chunks: list[Chunk], ending: ApiError | str | None, options: dict[str, Any], data: st.DataObject
) -> None:
    events = run(new(**options), chunks, ending)
    names: Any = options.get("reasoning_events", "openai")
    for count in range(1, len(events) + 1):
        sent = events[:count]
        stream = ended(sent, error_event=data.draw(st.booleans()), reasoning_events=names)
        assert judge(b"".join(stream)) == []
        found = read(stream)
        assert fold(stream) == found[-1]["response"]
        assert fold(stream)["output"] == found[-1]["response"]["output"]
        assert close(stream, LOST, "r") == []


def test_an_open_stream_is_closed_as_a_failure() -> None:
    events = whole()
    sent = events[: 1 + next(i for i, event in enumerate(events) if b'"delta":"b"' in event)]
    tail = close(sent, LOST, "req_1")
    assert kinds(tail) == ["output_text.done", "content_part.done", "output_item.done", "error", "failed"]
    response = said(tail[-2])["response"]
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert response["output"][1]["content"][0]["text"] == "ab"
    assert said(tail[0])["sequence_number"] == len(sent)


def test_what_was_waiting_to_be_closed_is_completed() -> None:
    machine = new()
    deltas = [fragment(0, "c", "f", "{"), {"content": "a"}, {"reasoning": "hm"}]
    events = [event for delta in deltas for event in machine.feed(chunk(delta))]
    output = fold(ended(events))["output"]
    assert [item["status"] for item in output] == ["incomplete", "completed", "incomplete"]
    machine.fail(LOST, "r")
    assert output == machine.response["output"]


@pytest.mark.parametrize("count", [4, 5])
@pytest.mark.parametrize("names", ["openai", "open_responses"])
def test_reasoning_goes_on_under_its_names(names: Any, count: int) -> None:
    """They are those of its deltas, even where others are given now, and those that are given where there are none."""
    events = new(reasoning_events=names).feed(chunk({"reasoning": "hm"}))[:count]
    expected = {"openai": "reasoning_text.done", "open_responses": "reasoning.done"}[names]
    others: Any = {"openai": "open_responses", "open_responses": "openai"}[names]
    now = names if count == 4 else others
    assert kinds(close(events, LOST, "r", reasoning_events=now))[0] == expected


def test_the_error_event_can_be_left_out() -> None:
    assert kinds(close(whole()[:4], LOST, "r", error_event=False))[-2:] == ["output_item.done", "failed"]


def test_a_failure_that_was_told_is_the_one_that_it_ends_with() -> None:
    events = run(new(), [text("a")], ApiError("engine_failed"))
    first = fold(events)["error"]
    assert kinds(events[:-2])[-1] == "error"
    tail = close(events[:-2], ApiError("server_shutting_down", retry_after_s=1), "req_2")
    assert kinds(tail) == ["failed"]
    assert said(tail[0])["response"]["error"] == first


@pytest.mark.parametrize(("queued", "begin"), [(False, ["in_progress"]), (True, [])])
def test_what_had_only_begun(queued: bool, begin: list[str]) -> None:
    (created, *_) = new(queued=queued).begin()
    assert kinds(close([created], LOST, "r")) == [*begin, "error", "failed"]


def test_an_end_that_is_out_is_not_written_again() -> None:
    events = whole()
    assert close(events, LOST, "r") == []
    assert close(events[:-1], LOST, "r") == [DONE]


def test_reasoning_is_sealed() -> None:
    events = whole()[:5]
    assert fold(events)["output"][0]["content"][0]["text"] == "hm"
    tail = close(events, LOST, "r", seal=lambda plain: f"<{plain}>")
    assert said(tail[-2])["response"]["output"][0]["encrypted_content"] == "<hm>"


@given(any_answers, st.data())
def test_events_are_cut_from_the_bytes_of_a_stream(chunks: list[Chunk], data: st.DataObject) -> None:
    events = run(new(), chunks)
    stream = b"".join(events)
    cut = data.draw(st.integers(0, len(stream)))
    found = whole_events(stream[:cut])
    assert found == events[: len(found)]
    assert len(b"".join(found)) <= cut
    if len(found) < len(events):
        assert cut < len(b"".join(events[: len(found) + 1]))
