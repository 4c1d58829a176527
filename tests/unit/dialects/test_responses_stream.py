"""Responses streams: for any chunks, what comes out keeps the rules, and the response is what its events add up to."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from tests.support.chunks import USAGE, chunk, fragment, logprob, text, usage
from tests.support.response_streams import (
    HEAD,
    answers,
    any_answers,
    endings,
    extras,
    kinds,
    new,
    options,
    plain_text,
    read,
    run,
    said,
)

from coterie.dialects.responses_stream import ResponseStream
from coterie.dialects.responses_validator import judge
from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.errors.render_responses import RESPONSE_ERROR_CODES
from coterie.wire.lingua import Chunk

BEGIN = ["created", "in_progress"]
COUNTED = {
    "input_tokens": 5,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 7,
}


def stop(reason: str = "stop") -> list[Chunk]:
    return [chunk(finish=reason), usage()]


def go(machine: ResponseStream, chunks: list[Chunk]) -> None:
    for each in chunks:
        machine.feed(each)
    machine.end()


def final(events: list[bytes]) -> dict[str, Any]:
    response: dict[str, Any] = read(events)[-1]["response"]
    return response


def shapes(response: dict[str, Any]) -> list[Any]:
    """The output in short: type, status and texts of each item."""
    return [
        (item["type"], item["status"], *_texts(item)) for item in response["output"]
    ]  # fmt: skip


def _texts(item: dict[str, Any]) -> list[str]:
    if item["type"] == "function_call":
        return [item["arguments"]]
    return [part.get("text", part.get("refusal")) for part in item["content"]]


def of_kind(events: list[bytes], kind: str) -> list[dict[str, Any]]:
    return [event for event in read(events) if event["type"] == f"response.{kind}"]


# The way of an answer


def test_a_text() -> None:
    events = run(new(), [chunk({"role": "assistant", "content": ""}), text("Hel"), text("lo"), *stop()])
    assert kinds(events) == [
        *BEGIN, "output_item.added", "content_part.added", "output_text.delta", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    found = read(events)
    assert [event["sequence_number"] for event in found] == list(range(10))
    item_id = found[2]["item"]["id"]
    place = {"item_id": item_id, "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
    item = {"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    assert found[2:9] == [
        {"type": "response.output_item.added", "sequence_number": 2, "output_index": 0,
         "item": {**item, "status": "in_progress", "content": []}},
        {"type": "response.content_part.added", "sequence_number": 3, **place, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", "sequence_number": 4, **place, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.delta", "sequence_number": 5, **place, "delta": "lo", "logprobs": []},
        {"type": "response.output_text.done", "sequence_number": 6, **place, "text": "Hello", "logprobs": []},
        {"type": "response.content_part.done", "sequence_number": 7, **place, "part": part},
        {"type": "response.output_item.done", "sequence_number": 8, "output_index": 0, "item": item},
    ]  # fmt: skip
    head = {**HEAD, "object": "response", "error": None, "incomplete_details": None}
    assert found[0]["response"] == {
        **head, "status": "in_progress", "completed_at": None, "output": [], "usage": None,
    }  # fmt: skip
    assert found[-1]["response"] == {
        **head, "status": "completed", "completed_at": 107, "output": [item], "usage": COUNTED,
    }  # fmt: skip
    assert item_id.startswith("msg_")


def test_nothing_comes_before_something_is_said() -> None:
    machine = new()
    assert machine.feed(chunk({"role": "assistant", "content": ""})) == []
    assert machine.feed(chunk({"reasoning": 7})) == []
    assert kinds(machine.feed(text("a")))[:2] == BEGIN


def test_a_lone_finish_reason_begins_nothing() -> None:
    machine = new()
    assert machine.feed(chunk(finish="stop")) == []
    assert machine.feed(usage()) == []
    assert kinds(machine.end())[:2] == BEGIN


def test_a_response_that_waits_is_queued_until_it_starts() -> None:
    machine = new(queued=True)
    assert machine.status == "queued"
    begun = machine.begin()
    assert kinds(begun) == ["created", "queued"]
    assert [said(event)["response"]["status"] for event in begun] == ["queued", "queued"]
    (started,) = machine.start()
    assert said(started)["response"]["status"] == machine.status == "in_progress"
    assert machine.begin() == machine.start() == []
    assert kinds(machine.feed(text("a")))[0] == "output_item.added"


@pytest.mark.parametrize("queued", [False, True])
def test_start_begins_too(queued: bool) -> None:
    assert kinds(new(queued=queued).start()) == ["created", *["queued"] * queued, "in_progress"]


@pytest.mark.parametrize("queued", [False, True])
def test_feeding_starts(queued: bool) -> None:
    events = new(queued=queued).feed(text("a"))
    assert kinds(events)[: 2 + queued] == ["created", *["queued"] * queued, "in_progress"]


def test_what_is_queued_can_fail_without_having_started() -> None:
    machine = new(queued=True)
    assert kinds(machine.fail(ApiError("engine_failed"), "r")) == ["created", "queued", "error", "failed"]
    machine = new(queued=True)
    assert kinds(machine.cancel()) == ["created", "queued", "incomplete"]
    assert machine.response["status"] == "cancelled"


# Items


@pytest.mark.parametrize(
    ("deltas", "output"),
    [
        ([{"content": "a"}, {"content": "b"}], [("message", "completed", "ab")]),
        ([{"refusal": "N"}, {"refusal": "o"}], [("message", "completed", "No")]),
        ([{"content": "a"}, {"refusal": "No"}], [("message", "completed", "a", "No")]),
        ([{"content": "a", "refusal": "No"}], [("message", "completed", "a", "No")]),
        ([{"refusal": "No"}, {"content": "a"}, {"content": "b"}], [("message", "completed", "No", "ab")]),
        (
            [{"reasoning_content": "h"}, {"reasoning_content": "m"}, {"content": "a"}],
            [("reasoning", "completed", "hm"), ("message", "completed", "a")],
        ),
        (
            [{"reasoning": "h", "content": "a"}, {"reasoning": "m"}],
            [("reasoning", "completed", "h"), ("message", "completed", "a"), ("reasoning", "completed", "m")],
        ),
        ([{"reasoning": "h", "reasoning_content": "m"}], [("reasoning", "completed", "m")]),
        ([{"reasoning": "hm"}, {"refusal": "No"}], [("reasoning", "completed", "hm"), ("message", "completed", "No")]),
        (
            [{"content": "a"}, fragment(0, "c", "f", "{"), fragment(0, arguments="}")],
            [("message", "completed", "a"), ("function_call", "completed", "{}")],
        ),
        (
            [fragment(0, "c", "f", ""), fragment(1, "d", "g", "no JSON"), {"content": "a"}],
            [("function_call", "completed", ""), ("function_call", "completed", "no JSON"),
             ("message", "completed", "a")],
        ),
        (
            [fragment(0, "c", "f", "{"), {"content": "a"}, fragment(0, arguments="}"), {"content": "b"}],
            [("function_call", "completed", "{}"), ("message", "completed", "ab")],
        ),
        (
            [{"content": "a"}, fragment(0, "c", "f", "{}"), {"content": "b"}],
            [("message", "completed", "a"), ("function_call", "completed", "{}"), ("message", "completed", "b")],
        ),
        ([], [("message", "completed", "")]),
    ],
)  # fmt: skip
def test_what_is_said_becomes_items(deltas: list[Any], output: list[Any]) -> None:
    events = run(new(), [*map(chunk, deltas), *stop()])
    assert shapes(final(events)) == output
    assert judge(b"".join(events)) == []


def test_a_part_ends_where_one_of_another_kind_begins() -> None:
    events = run(new(), [text("a"), chunk({"refusal": "No"}), text("b"), *stop()])
    assert kinds(events)[2:-1] == [
        "output_item.added",
        "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
        "content_part.added", "refusal.delta", "refusal.done", "content_part.done",
        "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
        "output_item.done",
    ]  # fmt: skip
    assert [event["content_index"] for event in read(events) if "content_index" in event] == [0] * 4 + [1] * 4 + [2] * 4
    (told,) = of_kind(events, "refusal.done")
    assert (told["refusal"], told["content_index"]) == ("No", 1)


def test_a_call() -> None:
    events = run(new(), [chunk(fragment(0, "call_9", "look", "{")), chunk(fragment(0, arguments="}")), *stop()])
    found = read(events)[2:-1]
    item_id = found[0]["item"]["id"]
    assert item_id.startswith("fc_")
    item = {"id": item_id, "type": "function_call", "status": "completed", "call_id": "call_9", "name": "look"}
    place = {"item_id": item_id, "output_index": 0}
    stem = "response.function_call_arguments"
    assert [{name: value for name, value in event.items() if name != "sequence_number"} for event in found] == [
        {"type": "response.output_item.added", "output_index": 0,
         "item": {**item, "status": "in_progress", "arguments": ""}},
        {"type": f"{stem}.delta", **place, "delta": "{"},
        {"type": f"{stem}.delta", **place, "delta": "}"},
        {"type": f"{stem}.done", **place, "name": "look", "arguments": "{}"},
        {"type": "response.output_item.done", "output_index": 0, "item": {**item, "arguments": "{}"}},
    ]  # fmt: skip


def test_calls_stay_open_until_the_end() -> None:
    machine = new()
    machine.feed(chunk(fragment(0, "c", "f", "{}")))
    assert kinds(machine.feed(chunk(fragment(1, "d", "g", "")))) == ["output_item.added"]
    for each in stop():
        assert machine.feed(each) == []
    assert kinds(machine.end()) == [*["function_call_arguments.done", "output_item.done"] * 2, "completed"]


def test_what_comes_after_a_call_waits_for_it() -> None:
    machine = new()
    for delta in (fragment(0, "c", "f", "{"), {"content": "a"}, {"reasoning": "hm"}, fragment(1, "d", "g", "{")):
        assert "output_item.done" not in kinds(machine.feed(chunk(delta)))
    events = run(machine, stop())
    assert [said(event)["output_index"] for event in events if b"output_item" in event] == [0, 1, 2, 3]


def test_what_comes_before_a_call_is_closed_when_it_begins() -> None:
    machine = new()
    machine.feed(text("a"))
    assert "output_item.done" in kinds(machine.feed(chunk(fragment(0, "c", "f", "{"))))


def test_items_are_closed_in_the_order_of_the_output() -> None:
    machine = new()
    deltas = [fragment(0, "c", "f", "{"), {"content": "a"}, {"reasoning": "hm"}, fragment(0, arguments="}")]
    events = run(machine, [*map(chunk, deltas), *stop("length")])
    assert [event["output_index"] for event in of_kind(events, "output_item.done")] == [0, 1, 2]
    # Nobody can tell whether the call was whole; the text was, because something else came after it.
    assert shapes(machine.response) == [
        ("function_call", "incomplete", "{}"), ("message", "completed", "a"), ("reasoning", "incomplete", "hm"),
    ]  # fmt: skip


MIXED = [fragment(0, "c", "f", "{"), fragment(1, "d", "g", "["), fragment(0, arguments="}"), fragment(1, arguments="]")]


def test_calls_may_mix() -> None:
    events = run(new(), [*map(chunk, MIXED), *stop("tool_calls")])
    deltas = of_kind(events, "function_call_arguments.delta")
    assert [(event["output_index"], event["delta"]) for event in deltas] == [(0, "{"), (1, "["), (0, "}"), (1, "]")]
    output = final(events)["output"]
    assert [event["item_id"] for event in deltas] == [output[0]["id"], output[1]["id"]] * 2
    assert shapes(final(events)) == [("function_call", "completed", "{}"), ("function_call", "completed", "[]")]
    assert judge(b"".join(events)) == []


@pytest.mark.parametrize(
    ("end", "ending"), [([], ApiError("engine_failed")), ([], "cancel"), (stop("length"), None)]
)  # fmt: skip
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_call_that_may_have_gone_on_is_not_completed(count: int, end: list[Chunk], ending: Any) -> None:
    events = run(new(), [*map(chunk, MIXED[:count]), *end], ending)
    assert [item["status"] for item in final(events)["output"]] == ["incomplete"] * 2
    assert judge(b"".join(events)) == []


@pytest.mark.parametrize(
    ("names", "stem"), [("openai", "response.reasoning_text"), ("open_responses", "response.reasoning")]
)
def test_reasoning(names: Any, stem: str) -> None:
    events = run(new(reasoning_events=names), [chunk({"reasoning": "h"}), chunk({"reasoning": "m"}), *stop()])
    found = read(events)[2:-1]
    item_id = found[0]["item"]["id"]
    assert item_id.startswith("rs_")
    assert [event["type"] for event in found] == [
        "response.output_item.added", "response.content_part.added", f"{stem}.delta", f"{stem}.delta", f"{stem}.done",
        "response.content_part.done", "response.output_item.done",
    ]  # fmt: skip
    item = {"id": item_id, "type": "reasoning", "status": "completed", "summary": []}
    assert found[0]["item"] == {**item, "status": "in_progress", "content": []}
    assert found[-1]["item"] == {**item, "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert "logprobs" not in found[2]


def thoughts(*entries: Any, **fields: Any) -> dict[str, Any]:
    return {"reasoning_details": list(entries), **fields}


SUMMARY = {"type": "reasoning.summary", "summary": "S", "index": 0, "format": "x"}
THOUGHT = {"type": "reasoning.text", "text": "T", "signature": None}


def test_a_summary_of_reasoning() -> None:
    events = run(new(), [chunk(thoughts(SUMMARY)), chunk(thoughts(SUMMARY)), text("a"), *stop()])
    found = [{name: value for name, value in event.items() if name != "sequence_number"} for event in read(events)]
    item_id = found[2]["item"]["id"]
    place = {"item_id": item_id, "output_index": 0, "summary_index": 0}
    part, stem = {"type": "summary_text", "text": "SS"}, "response.reasoning_summary_text"
    item = {"id": item_id, "type": "reasoning", "status": "completed", "summary": [part], "content": []}
    assert found[2:9] == [
        {"type": "response.output_item.added", "output_index": 0,
         "item": {**item, "status": "in_progress", "summary": []}},
        {"type": "response.reasoning_summary_part.added", **place, "part": {**part, "text": ""}},
        {"type": f"{stem}.delta", **place, "delta": "S"},
        {"type": f"{stem}.delta", **place, "delta": "S"},
        {"type": f"{stem}.done", **place, "text": "SS"},
        {"type": "response.reasoning_summary_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
    ]  # fmt: skip
    assert judge(b"".join(events)) == []


@pytest.mark.parametrize(
    ("deltas", "content", "summary"),
    [
        ([thoughts(THOUGHT), thoughts(THOUGHT)], ["TT"], []),
        ([thoughts(SUMMARY, THOUGHT)], ["T"], ["S"]),
        ([thoughts(THOUGHT, SUMMARY, THOUGHT, SUMMARY)], ["T", "T"], ["S", "S"]),
        ([thoughts(SUMMARY, THOUGHT, reasoning="R")], ["R"], []),
        ([thoughts(THOUGHT, reasoning_content="R"), thoughts(SUMMARY, THOUGHT)], ["R"], []),
        ([thoughts(THOUGHT, reasoning=None), thoughts(THOUGHT, reasoning="")], ["TT"], []),
    ],
)
def test_details_of_reasoning(deltas: list[Any], content: list[str], summary: list[str]) -> None:
    events = run(new(), [*map(chunk, deltas), *stop()])
    (item,) = final(events)["output"]
    assert [part["text"] for part in item["content"]] == content
    assert [part["text"] for part in item["summary"]] == summary
    assert judge(b"".join(events)) == []


def test_details_without_a_text_say_nothing() -> None:
    sealed = {"type": "reasoning.encrypted", "data": "x"}
    signature = {"type": "reasoning.text", "text": None, "signature": "x"}
    machine = new()
    assert machine.feed(chunk(thoughts(sealed, signature))) == []
    assert machine.feed(chunk({"reasoning_details": "x"})) == []
    assert machine.response["output"] == []


def test_reasoning_is_sealed_when_it_is_done() -> None:
    events = run(new(seal=lambda plain: f"<{plain}>"), [chunk({"reasoning": "hm"}), text("a"), *stop()])
    (added, _), (done, message) = of_kind(events, "output_item.added"), of_kind(events, "output_item.done")
    assert "encrypted_content" not in added["item"]
    assert done["item"]["encrypted_content"] == final(events)["output"][0]["encrypted_content"] == "<hm>"
    assert "encrypted_content" not in message["item"]


# What stands beside text

A, B = logprob("a", top_logprobs=[logprob("ü")]), logprob("b", bytes=[98])
A_SENT = {
    "token": "a", "logprob": -0.5, "bytes": [97],
    "top_logprobs": [{"token": "ü", "logprob": -0.5, "bytes": [195, 188]}],
}  # fmt: skip
B_SENT = {"token": "b", "logprob": -0.5, "bytes": [98], "top_logprobs": []}


def with_logprobs(delta: dict[str, Any], *entries: Any) -> Chunk:
    return chunk(delta, logprobs={"content": list(entries), "refusal": None})


def test_log_probabilities_are_in_deltas_done_and_part() -> None:
    chunks = [with_logprobs({"content": "a"}, A), text("-"), with_logprobs({"content": "b"}, B), *stop()]
    events = run(new(logprobs=True), chunks)
    assert [event["logprobs"] for event in of_kind(events, "output_text.delta")] == [[A_SENT], [], [B_SENT]]
    (told,), (part,) = of_kind(events, "output_text.done"), of_kind(events, "content_part.done")
    assert told["logprobs"] == part["part"]["logprobs"] == [A_SENT, B_SENT]


def test_log_probabilities_that_nobody_asked_for_are_not_told() -> None:
    events = run(new(), [with_logprobs({"content": "a"}, A), *stop()])
    assert of_kind(events, "output_text.done")[0]["logprobs"] == []


def test_log_probabilities_beside_nothing_wait_for_text() -> None:
    silent = with_logprobs({}, A)
    machine = new(logprobs=True)
    assert machine.feed(silent) == []
    events = run(machine, [text("b"), silent, with_logprobs({"reasoning": "hm"}, B), text("c"), *stop()])
    deltas = [(said(event)["delta"], said(event)["logprobs"]) for event in events if b"output_text.delta" in event]
    assert deltas == [("b", [A_SENT]), ("", [A_SENT]), ("c", [])]


CITATION = {"type": "url_citation", "url": "https://a.b", "start_index": 1, "end_index": 2, "title": "T"}
NESTED = {"type": "url_citation", "url_citation": {key: CITATION[key] for key in CITATION if key != "type"}}


def test_annotations_are_told_and_stand_in_the_part() -> None:
    chunks = [chunk({"annotations": [NESTED]}), text("a"), chunk({"annotations": [CITATION, {"type": "x"}]}), *stop()]
    events = run(new(), chunks)
    added = of_kind(events, "output_text.annotation.added")
    assert [(event["annotation_index"], event["annotation"]) for event in added] == [(0, CITATION), (1, CITATION)]
    assert final(events)["output"][0]["content"][0]["annotations"] == [CITATION, CITATION]
    assert judge(b"".join(events)) == []


def test_what_waits_for_text_is_bounded() -> None:
    machine = new(logprobs=True)
    for _ in range(3):
        machine.feed(chunk({"annotations": [NESTED] * 50}))
        machine.feed(with_logprobs({}, *[A] * 50))
    events = run(machine, [text("a"), *stop()])
    (part,) = machine.response["output"][0]["content"]
    assert (len(part["annotations"]), len(part["logprobs"])) == (64, 64)
    assert events[-1] == DONE


# The rest of the response


@pytest.mark.parametrize(
    ("chunks", "tier"),
    [
        ([{**text("a"), "service_tier": "flex"}], "flex"),
        ([{**text("a"), "extra": {"service_tier": "flex", "system_fingerprint": "f"}}], "flex"),
        ([{**text("a"), "service_tier": 1, "extra": []}], "default"),
        ([{**text("a"), "service_tier": None}], "default"),
    ],
)
def test_the_service_tier_is_what_the_provider_says(chunks: list[Chunk], tier: str) -> None:
    response = final(run(new(), [*chunks, *stop()]))
    assert response["service_tier"] == tier
    assert response.keys() == {
        *HEAD, "object", "status", "completed_at", "error", "incomplete_details", "output", "usage",
    }  # fmt: skip


def test_usage() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 1}}
    machine = new()
    assert machine.usage is None
    assert machine.chat_usage == {}
    response = final(run(machine, [text("a"), chunk(finish="stop"), usage(**details)]))
    assert response["usage"] == machine.usage
    assert response["usage"] == {
        **COUNTED,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 1},
    }
    assert machine.chat_usage == {**USAGE, **details}


def test_a_provider_that_does_not_count_leaves_no_usage() -> None:
    assert final(run(new(), [text("a"), chunk(finish="stop"), {"choices": [], "usage": None}]))["usage"] is None


def so_far(tokens: int, each: Chunk) -> Chunk:
    return {**each, "usage_so_far": {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}}


@pytest.mark.parametrize("ending", [ApiError("engine_failed"), ApiError("content_policy_violation"), "cancel"])
def test_the_usage_of_what_broke_off_is_known_as_far_as_it_was_counted(ending: Any) -> None:
    machine = new()
    chunks = [so_far(0, {"choices": []}), so_far(1, text("a")), text("b"), so_far(2, {"choices": []}), text("c")]
    events = run(machine, chunks, ending)
    assert final(events)["usage"] == machine.usage == COUNTED
    assert [event["response"]["usage"] for event in read(events) if "response" in event] == [None, None, COUNTED]


def test_the_usage_of_a_whole_answer_is_its_last() -> None:
    assert final(run(new(), [so_far(1, text("a")), *stop()]))["usage"] == COUNTED
    uncounted = [so_far(1, text("a")), chunk(finish="stop"), {"choices": [], "usage": None}]
    assert final(run(new(), uncounted))["usage"] is None


def test_the_response_is_fresh() -> None:
    machine = new()
    machine.feed(text("a"))
    machine.response["output"][0]["content"].clear()
    machine.response.clear()
    assert shapes(machine.response) == [("message", "in_progress", "a")]


# Endings


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)  # fmt: skip
def test_an_answer_that_was_cut_short_is_incomplete(finish: str, reason: str) -> None:
    events = run(new(), [chunk({"reasoning": "hm"}), text("a"), *stop(finish)])
    response = final(events)
    assert kinds(events)[-1] == "incomplete"
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert (response["completed_at"], response["error"]) == (None, None)
    assert shapes(response) == [("reasoning", "completed", "hm"), ("message", "incomplete", "a")]


def test_a_finish_reason_beside_text_counts() -> None:
    response = final(run(new(), [text("a"), chunk({"content": "b"}, "length"), usage()]))
    assert response["status"] == "incomplete"
    assert shapes(response) == [("message", "incomplete", "ab")]


@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_an_answer_that_finishes_is_completed(finish: str) -> None:
    assert final(run(new(), [chunk(fragment(0, "c", "f", "{}")), *stop(finish)]))["status"] == "completed"


@pytest.mark.parametrize("error_event", [True, False])
def test_a_failure(error_event: bool) -> None:
    failure = ApiError("engine_failed")
    events = run(new(error_event=error_event), [text("a"), usage()], failure)
    assert kinds(events)[5:] == [
        "output_text.done", "content_part.done", "output_item.done", *["error"] * error_event, "failed",
    ]  # fmt: skip
    response = final(events)
    assert response["error"]["code"] in RESPONSE_ERROR_CODES
    assert shapes(response) == [("message", "incomplete", "a")]
    assert (response["status"], response["completed_at"], response["usage"]) == ("failed", None, COUNTED)
    if error_event:
        told = read(events)[-2]
        assert {name: told[name] for name in ("code", "message")} == response["error"]
        assert told["error"]["message"] == told["message"]
        assert told["param"] is None


def test_a_failure_before_anything() -> None:
    events = new().fail(ApiError("engine_failed"), "r")
    assert kinds(events) == [*BEGIN, "error", "failed"]
    assert final(events)["usage"] is None


def test_a_cancellation() -> None:
    machine = new()
    events = run(machine, [text("a")], "cancel")
    response = final(events)
    assert kinds(events)[-1] == "incomplete"
    assert (response["status"], response["incomplete_details"], response["error"]) == ("cancelled", None, None)
    assert shapes(response) == [("message", "incomplete", "a")]


@pytest.mark.parametrize(
    ("chunks", "code"),
    [
        ([], "upstream_stream_interrupted"),
        ([text("a")], "upstream_stream_interrupted"),
        ([text("a"), chunk(finish="stop")], "upstream_stream_interrupted"),
        ([text("a"), usage()], "upstream_stream_interrupted"),
        ([*stop(), text("a")], "upstream_protocol_error"),
        ([text("a", 1)], "upstream_protocol_error"),
    ],
)
def test_what_is_not_whole_is_not_completed(chunks: list[Chunk], code: str) -> None:
    machine = new()
    with pytest.raises(ApiError) as caught:
        go(machine, chunks)
    assert caught.value.code == code
    events = machine.fail(caught.value, "r")
    assert machine.status == "failed"
    assert kinds(events)[-2:] == ["error", "failed"]


# For any chunks


def faults(events: list[bytes]) -> list[str]:
    """What a stream has that no client expects, by a second reading of the rules."""
    found = read(events)
    wrong = [f"number {i}" for i, event in enumerate(found) if event["sequence_number"] != i]
    texts: dict[tuple[Any, ...], str] = {}
    items: dict[int, str] = {}
    done: dict[int, dict[str, Any]] = {}
    for event in found:
        kind, index = event["type"], event.get("output_index", -1)
        place = (event.get("item_id"), index, event.get("content_index"), event.get("summary_index"))
        if kind == "response.output_item.added":
            wrong += [f"index {index}"] if index != len(items) else []
            items[index] = event["item"]["id"]
        elif kind == "response.output_item.done":
            wrong += [f"closed {index}"] if index != len(done) else []
            done[index] = event["item"]
        elif kind.endswith(".delta"):
            texts[place] = texts.get(place, "") + event["delta"]
        elif kind.endswith(("text.done", "reasoning.done", "refusal.done", "arguments.done")):
            whole = event.get("text", event.get("refusal", event.get("arguments")))
            wrong += [f"text {place}"] if whole != texts.get(place, "") else []
        if "item_id" in event:
            wrong += [f"id {kind}"] if items.get(index) != event["item_id"] or index in done else []
    if [done.get(index) for index in items] != found[-1]["response"]["output"]:
        wrong.append("output")
    return wrong


@given(any_answers, endings, options)
def test_any_chunks_make_a_stream_that_keeps_the_rules(
    chunks: list[Chunk], ending: ApiError | str | None, options: dict[str, Any]
) -> None:
    machine = new(**options)
    events = run(machine, chunks, ending)
    assert faults(events) == []
    assert judge(b"".join(events)) == []
    assert final(events) == machine.response
    assert (machine.status, machine.usage) == (machine.response["status"], machine.response["usage"])
    assert machine.feed(text("late")) == machine.begin() == machine.start() == machine.end() == machine.cancel() == []
    assert machine.fail(ApiError("internal_error"), "r") == []
    assert final(events) == machine.response


@given(answers(), options)
def test_a_good_answer_does_not_fail(chunks: list[Chunk], options: dict[str, Any]) -> None:
    events = run(new(**options), chunks)
    assert final(events)["status"] in ("completed", "incomplete")
    assert "error" not in kinds(events)


@given(answers())
def test_a_good_answer_says_everything_in_order(chunks: list[Chunk]) -> None:
    """What is said of each kind, joined, is what the provider sent of it."""
    response = final(run(new(), chunks))
    deltas = [choice["delta"] for each in chunks for choice in each["choices"]]
    parts = [part for item in response["output"] for part in item.get("content", ())]
    assert joined(part["text"] for part in parts if part["type"] == "output_text") == joined(
        delta.get("content") for delta in deltas
    )
    assert joined(part["refusal"] for part in parts if part["type"] == "refusal") == joined(
        delta.get("refusal") for delta in deltas
    )
    plain = [delta.get("reasoning_content") or delta.get("reasoning") for delta in deltas]
    first = next((place for place, thought in enumerate(plain) if thought), len(plain))
    details = [entry for delta in deltas[:first] for entry in delta.get("reasoning_details", ())]
    assert joined(part["text"] for part in parts if part["type"] == "reasoning_text") == joined(
        [*(entry.get("text") for entry in details), *plain]
    )
    assert joined(part["text"] for item in response["output"] for part in item.get("summary", ())) == joined(
        entry.get("summary") for entry in details
    )
    arguments: dict[int, str] = {}
    for call in (call for delta in deltas for call in delta.get("tool_calls", ())):
        said_of_it = call["function"].get("arguments", "")
        arguments[call["index"]] = arguments.get(call["index"], "") + said_of_it
    calls = [item["arguments"] for item in response["output"] if item["type"] == "function_call"]
    assert calls == [arguments[index] for index in range(len(calls))]
    assert len(calls) == len(arguments)


def joined(texts: Any) -> str:
    return "".join(each or "" for each in texts)


@given(answers(), options)
def test_an_answer_that_is_cut_anywhere_is_a_failure(chunks: list[Chunk], options: dict[str, Any]) -> None:
    for length in range(len(chunks)):
        events = run(ResponseStream(HEAD, **options), chunks[:length])
        assert final(events)["status"] == "failed"
        assert faults(events) == []


@given(any_answers, endings, options, extras)
def test_text_on_the_short_way_makes_the_same_events(
    chunks: list[Chunk], ending: ApiError | str | None, options: dict[str, Any], extra: dict[str, Any] | None
) -> None:
    chunks = [each if plain_text(each) is None or extra is None else {**each, "extra": extra} for each in chunks]
    usual, short = (run(new(**options), chunks, ending, short=short) for short in (False, True))
    assert _numbered_ids(usual) == _numbered_ids(short)


def test_only_text_of_a_message_that_goes_on_takes_the_short_way() -> None:
    machine = new()
    assert machine.text(0, "a", None) is None
    machine.feed(chunk({"reasoning_content": "a"}))
    assert machine.text(0, "a", None) is None
    machine.feed(text("a"))
    tier = {"service_tier": "flex"}
    event = machine.text(0, "b", tier)
    assert event is not None
    assert said(event)["delta"] == "b"
    assert machine.response["service_tier"] == "flex"
    machine.feed(chunk(fragment(0, "call_0", "look", "")))
    assert machine.text(0, "a", None) is None
    machine.feed(text("c"))
    assert machine.text(0, "d", None) is not None
    machine.feed(chunk(finish="stop"))
    assert machine.text(0, "a", None) is None
    machine.cancel()
    assert machine.text(0, "a", None) is None
    assert shapes(machine.response)[1][2:] == ("ab",)


def _numbered_ids(events: list[bytes]) -> bytes:
    """The bytes of a stream, with the ids that it made up numbered."""
    ids: dict[bytes, bytes] = {}
    return re.sub(
        rb"(rs|msg|fc)_[0-9a-f]{48}", lambda match: ids.setdefault(match[0], b"%d" % len(ids)), b"".join(events)
    )


def test_a_content_policy_in_mid_answer_makes_it_incomplete() -> None:
    machine = ResponseStream(HEAD)
    machine.feed({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]})
    events = machine.fail(ApiError("content_policy_violation"), "req_1")
    assert [event.split(b"\n")[0] for event in events[-2:]] == [b"event: response.incomplete", b"data: [DONE]"]
    assert not any(event.startswith(b"event: error") for event in events)
    response = machine.response
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    assert response["output"][0]["status"] == "incomplete"
    assert response["error"] is None


@pytest.mark.parametrize("queued", [False, True])
def test_a_content_policy_before_anything_was_said_is_a_failure(queued: bool) -> None:
    machine = new(queued=queued)
    machine.begin()
    machine.start()
    machine.feed(chunk({"role": "assistant", "content": ""}))
    events = machine.fail(ApiError("content_policy_violation"), "req_1")
    assert kinds(events) == ["error", "failed"]
    assert (machine.response["status"], machine.response["incomplete_details"]) == ("failed", None)
    assert machine.response["error"]["code"] in RESPONSE_ERROR_CODES


def test_a_silent_response_has_no_items() -> None:
    machine = ResponseStream(HEAD, silent=True)
    assert machine.feed({"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": "stop"}]}) == []
    machine.feed({"choices": [], "usage": None})
    kinds = [event.split(b"\n")[0] for event in machine.end()]
    assert kinds == [
        b"event: response.created", b"event: response.in_progress", b"event: response.completed", b"data: [DONE]"
    ]  # fmt: skip
    assert machine.response["output"] == []
