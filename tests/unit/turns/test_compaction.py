"""A conversation made short."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.support.responding import plan
from tests.support.stored import message

from coterie.errors import ApiError
from coterie.turns.compaction import asked_for_note, compacted

TALK = (message("msg_1", "one"), message("msg_2", "answer", "assistant"))
USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


def note(
    *output: dict[str, Any], status: str = "completed", incomplete_details: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"output": list(output), "usage": USAGE, "status": status, "incomplete_details": incomplete_details}


def sealed(text: str) -> str:
    return f"<{text}>"


def test_the_model_is_asked_for_a_note_after_all_that_was_said() -> None:
    asked = dataclasses.replace(plan(told=False, input="two"), context=TALK)
    to_ask = asked_for_note(asked)
    *before, task = to_ask.parsed.input
    assert tuple(before) == asked.parsed.input
    assert task["role"] == "user"
    assert task["content"][0]["text"].startswith("Write a note about the conversation so far")
    assert to_ask.context == TALK
    assert not to_ask.parsed.store
    assert to_ask.parsed.truncate, "a conversation that is too long is what most needs a note"
    assert asked.parsed.store, "the plan itself is not changed"


def test_what_users_said_stays_word_for_word_beside_the_note() -> None:
    asked = dataclasses.replace(plan(told=False, input="two"), context=TALK)
    answer = compacted(asked, note(message("msg_3", "It is about one and two.", "assistant")), sealed)
    assert answer["object"] == "response.compaction"
    assert (answer["id"], answer["created_at"], answer["usage"]) == (asked.id, asked.created_at, USAGE)
    *users, compaction = answer["output"]
    assert [item["content"][0]["text"] for item in users] == ["one", "two"]
    assert compaction["type"] == "compaction"
    assert compaction["id"].startswith("cmp_")
    assert compaction["encrypted_content"] == "<It is about one and two.>"


def test_neither_the_task_nor_what_models_and_developers_said_stays() -> None:
    developer = message("msg_0", "rules", "developer")
    call = {"type": "function_call", "id": "fc_1", "status": "completed", "call_id": "c", "name": "f", "arguments": ""}
    output = {"type": "function_call_output", "id": "fco_1", "status": "completed", "call_id": "c", "output": "x"}
    asked = dataclasses.replace(plan(told=False, input="two"), context=(developer, *TALK, call, output))
    answer = compacted(asked, note(message("msg_3", "n", "assistant")), sealed)
    assert [item["type"] for item in answer["output"]] == ["message", "message", "compaction"]
    assert all(item.get("role", "user") == "user" for item in answer["output"])


def test_a_message_that_is_referred_to_stays_once_and_as_itself() -> None:
    refer = [{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "two"}]
    asked = dataclasses.replace(plan(told=False, input=refer), context=TALK, found={"msg_1": TALK[0]})
    answer = compacted(asked, note(message("msg_3", "n", "assistant")), sealed)
    assert [item["content"][0]["text"] for item in answer["output"][:-1]] == ["one", "two"]


def test_the_note_is_all_of_its_text_and_nothing_else() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "content": [{"type": "reasoning_text", "text": "hm"}]}
    refusal = {"type": "refusal", "refusal": "no"}
    first, second = message("msg_3", "one ", "assistant"), message("msg_4", "two", "assistant")
    first["content"].append(refusal)
    answer = compacted(plan(told=False), note(thought, first, second), sealed)
    assert answer["output"][-1]["encrypted_content"] == "<one two>"


def test_a_note_that_reaches_its_bound_says_so() -> None:
    cut = note(
        message("msg_3", "It is ab", "assistant"),
        status="incomplete", incomplete_details={"reason": "max_output_tokens"},
    )  # fmt: skip
    text = compacted(plan(told=False), cut, sealed)["output"][-1]["encrypted_content"]
    assert text.startswith("<It is ab\n[The note ends here")


NO_NOTES = {
    "filtered": (
        note(message("msg_3", "It", "assistant"), status="incomplete", incomplete_details={"reason": "content_filter"}),
        "upstream_stream_interrupted",
    ),
    "empty": (note(message("msg_3", " ", "assistant")), "upstream_empty_response"),
    "nothing": (note(), "upstream_empty_response"),
    "a refusal": (
        note({"type": "message", "id": "m", "content": [{"type": "refusal", "refusal": "no"}]}),
        "upstream_empty_response",
    ),
}


@pytest.mark.parametrize(("given", "code"), NO_NOTES.values(), ids=NO_NOTES.keys())
def test_a_note_that_is_not_whole_replaces_nothing(given: dict[str, Any], code: str) -> None:
    with pytest.raises(ApiError) as caught:
        compacted(plan(told=False), given, sealed)
    assert caught.value.code == code
