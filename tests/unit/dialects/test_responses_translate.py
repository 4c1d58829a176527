"""Items and parameters of the Responses API as a chat request."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.dialects.chat import DialectLimits, parse_chat, parse_chat_openly
from coterie.dialects.responses import parse_response
from coterie.dialects.responses_input import Item, parse_items
from coterie.dialects.responses_models import ResponsesRequest
from coterie.dialects.responses_translate import Translation, conversation, translate
from coterie.errors import ApiError

LIMITS = DialectLimits(messages=256, choices=1)
USER = {"role": "user", "content": "Q"}
ASKED = {"role": "user", "content": "Q"}
FUNCTION = {"type": "function", "name": "f"}
OBJECT = {"type": "object", "properties": {}}
NOTE = "Summary of the conversation so far, whose messages are no longer shown:\n\nnote"


def unseal(sealed: str) -> str | None:
    return sealed.removeprefix("sealed:") if sealed.startswith("sealed:") else None


def translated(
    *given_items: Any, history: Sequence[Any] = (), found: dict[str, Item] | None = None, **fields: Any
) -> Translation:
    body = {"model": "m", **({"input": list(given_items)} if given_items else {}), **fields}
    return translate(parse_response(body, LIMITS), parse_items(list(history), 256), found or {}, unseal)


def messages(*given_items: Any, **fields: Any) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = translated(*given_items, **fields).body["messages"]
    return made


def refused(*given_items: Any, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        translated(*given_items, **fields)
    return raised.value


def call(name: str, /, **fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": name, "name": "f", "arguments": "{}", **fields}


def output(name: str, result: Any = "1", /, **fields: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": name, "output": result, **fields}


def thought(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}], **fields}


def said(text: str, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **fields}


def called(*names: str, **fields: Any) -> dict[str, Any]:
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": name, "type": "function", "function": function} for name in names]
    return {"role": "assistant", "content": None, "tool_calls": calls, **fields}


def result(name: str, content: Any = "1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": content}


# Messages.


def part(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "input_text", "text": "a"}, fields]}


def made(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "a"}, fields]}


BOTH = [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"}]

IMAGE = {"type": "input_image", "image_url": "https://x"}
SEEN = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}
FILE = {"type": "input_file", "file_data": "data:x"}
SEEN_FILE = {"type": "file", "file": {"file_data": "data:x"}}
NEXT = "(see the next message of the user)"
SHORT = f"call_{hashlib.sha256(b'c' * 200).hexdigest()}"
BROKEN = call("d", arguments='{"a', status="incomplete")

CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "roles": (
        [{"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, USER, said("a"), USER],
        [{"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, ASKED, said("a"), ASKED],
    ),
    "two texts": ([part(type="input_text", text="b")], [made(type="text", text="b")]),
    "an image": (
        [part(type="input_image", image_url="https://x/y.png", detail="low")],
        [made(type="image_url", image_url={"url": "https://x/y.png", "detail": "low"})],
    ),
    "an image without detail": (
        [part(type="input_image", image_url="https://x/y.png")],
        [made(type="image_url", image_url={"url": "https://x/y.png"})],
    ),
    "a file": (
        [part(type="input_file", file_data="data:x", filename="a.pdf")],
        [made(type="file", file={"file_data": "data:x", "filename": "a.pdf"})],
    ),
    "an answer and a refusal": (
        [USER, {"role": "assistant", "content": BOTH}, USER],
        [
            ASKED,
            {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}]},
            ASKED,
        ],
    ),
    "an answer without parts": ([{"role": "assistant", "content": []}, USER], [said(""), ASKED]),
    "a call": ([USER, call("c"), output("c")], [ASKED, called("c"), result("c")]),
    "a call after words": ([said("a"), call("c"), output("c")], [called("c", content="a"), result("c")]),
    "calls at once": (
        [USER, call("c"), call("d"), output("d"), output("c")],
        [ASKED, called("c", "d"), result("d"), result("c")],
    ),
    "calls one after the other": (
        [call("c"), output("c"), call("d"), output("d")],
        [called("c"), result("c"), called("d"), result("d")],
    ),
    "words after a call": ([call("c"), said("a"), output("c")], [called("c"), result("c"), said("a")]),
    "a call between words": (
        [call("c"), said("a"), call("d"), output("c"), output("d")],
        [called("c"), result("c"), called("d", content="a"), result("d")],
    ),
    "words one after the other": ([said("a"), said("b"), USER], [said("a"), said("b"), ASKED]),
    "an output that comes late": ([call("c"), USER, output("c")], [called("c"), result("c"), ASKED]),
    "an id used again": (
        [call("c"), output("c"), call("c"), output("c", "2")],
        [called("c"), result("c"), called("c"), result("c", "2")],
    ),
    "an output of one text": (
        [call("c"), output("c", [{"type": "input_text", "text": "a"}])],
        [called("c"), result("c", "a")],
    ),
    "an output in parts": (
        [call("c"), output("c", [{"type": "input_text", "text": "a"}, IMAGE])],
        [called("c"), result("c", "a"), SEEN],
    ),
    "an output without a text": (
        [USER, call("c"), output("c", [IMAGE, FILE]), said("a")],
        [ASKED, called("c"), result("c", NEXT), {"role": "user", "content": [*SEEN["content"], SEEN_FILE]}, said("a")],
    ),
    "an output of two texts and an image": (
        [call("c"), output("c", [{"type": "input_text", "text": "a"}, IMAGE, {"type": "input_text", "text": "b"}])],
        [called("c"), result("c", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), SEEN],
    ),
    "images of calls at once": (
        [call("c"), call("d"), call("e"), output("d", [FILE]), USER, output("c", "1"), output("e", [IMAGE])],
        [
            called("c", "d", "e"), result("d", NEXT), result("c"), result("e", NEXT),
            {"role": "user", "content": [SEEN_FILE, *SEEN["content"]]}, ASKED,
        ],
    ),
    "images of calls one after the other": (
        [call("c"), output("c", [IMAGE]), call("d"), output("d", [IMAGE])],
        [called("c"), result("c", NEXT), SEEN, called("d"), result("d", NEXT), SEEN],
    ),
    "calls of one id at once": (
        [USER, call("c"), call("c"), call("c_2"), output("c", "1"), output("c_2", "2"), output("c", "3")],
        [ASKED, called("c", "c_2", "c_2_3"), result("c", "1"), result("c_2_3", "2"), result("c_2", "3")],
    ),
    "calls of one id around words": (
        [call("c"), said("a"), call("c"), output("c", "1"), output("c", "2")],
        [called("c"), result("c", "1"), called("c", content="a"), result("c", "2")],
    ),
    "calls of one long id": (
        [call("c" * 200), call("c" * 200), output("c" * 200, "1"), output("c" * 200, "2")],
        [called(SHORT, f"{SHORT}_2"), result(SHORT, "1"), result(f"{SHORT}_2", "2")],
    ),
    "a broken call": ([USER, BROKEN, USER], [ASKED, ASKED]),
    "a broken call after words": ([said("a"), BROKEN, USER], [said("a"), ASKED]),
    "a broken call among others": (
        [USER, call("c"), BROKEN, call("e"), output("c"), output("e", "2")],
        [ASKED, called("c", "e"), result("c"), result("e", "2")],
    ),
    "a broken call of the id of another": (
        [USER, call("d", status="incomplete"), USER, call("d"), output("d")],
        [ASKED, ASKED, called("d"), result("d")],
    ),
    "a broken call with its output": ([call("d", status="incomplete"), output("d")], [called("d"), result("d")]),
    "reasoning before a broken call": (
        [USER, thought("t"), BROKEN, call("c"), output("c")],
        [ASKED, called("c", reasoning_content="t"), result("c")],
    ),
    "reasoning before a call": (
        [USER, thought("t"), call("c"), output("c")],
        [ASKED, called("c", reasoning_content="t"), result("c")],
    ),
    "reasoning before words and a call": (
        [USER, thought("t"), said("a"), call("c"), output("c")],
        [ASKED, called("c", content="a", reasoning_content="t"), result("c")],
    ),
    "reasoning between words and a call": (
        [USER, thought("t"), said("a"), thought("u"), call("c"), output("c")],
        [ASKED, called("c", content="a", reasoning_content="t\n\nu"), result("c")],
    ),
    "reasoning between calls": (
        [USER, thought("t"), call("c"), thought("u"), call("d"), output("c"), output("d")],
        [ASKED, called("c", "d", reasoning_content="t\n\nu"), result("c"), result("d")],
    ),
    "reasoning between steps": (
        [USER, thought("t"), call("c"), output("c"), thought("u"), call("d"), output("d")],
        [ASKED, called("c", reasoning_content="t"), result("c"), called("d", reasoning_content="u"), result("d")],
    ),
    "reasoning between words": (
        [USER, said("a"), thought("t"), said("b")],
        [ASKED, said("a"), said("b", reasoning_content="t")],
    ),
    "reasoning of an earlier turn": ([USER, thought("t"), said("a"), USER], [ASKED, said("a"), ASKED]),
    "reasoning that leads to nothing": ([USER, thought("t")], [ASKED]),
    "reasoning before something else": (
        [USER, thought("t"), {"role": "developer", "content": "d"}, call("c"), output("c"), thought("u")],
        [ASKED, {"role": "developer", "content": "d"}, called("c"), result("c")],
    ),
    "sealed reasoning": (
        [USER, thought("visible", encrypted_content="sealed:t"), call("c"), output("c")],
        [ASKED, called("c", reasoning_content="t"), result("c")],
    ),
    "a summary of reasoning": (
        [USER, {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]}, call("c"), output("c")],
        [ASKED, called("c", reasoning_content="s"), result("c")],
    ),
    "a compaction": (
        [{"type": "compaction", "encrypted_content": "sealed:note"}, USER],
        [
            {"role": "developer", "content": NOTE},
            ASKED,
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("items", "wanted"), CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_items_become_messages(items: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert messages(*items) == wanted


@pytest.mark.parametrize(("items", "wanted"), CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_it_makes_no_difference_whether_they_are_stored(
    items: list[dict[str, Any]], wanted: list[dict[str, Any]]
) -> None:
    sealed = [item for item in items if "encrypted_content" in item and item["type"] == "reasoning"]
    if not sealed:
        assert messages(USER, history=items)[:-1] == [
            {name: value for name, value in message.items() if name != "reasoning_content"} for message in wanted
        ]
    assert messages(history=items, previous_response_id="resp_1")[-1]["role"] == wanted[-1]["role"]


def test_a_text_and_instructions() -> None:
    assert messages(input="Q", instructions="I") == [{"role": "system", "content": "I"}, ASKED]
    assert messages(instructions="I") == [{"role": "system", "content": "I"}]
    assert messages(input="Q", instructions="") == [ASKED]


def test_the_past_comes_before_the_present_and_after_the_instructions() -> None:
    made = messages(input="R", history=[USER, said("a")], previous_response_id="resp_1", instructions="I")
    assert [message["content"] for message in made] == ["I", "Q", "a", "R"]


def test_calls_of_the_past_are_answered_now() -> None:
    made = messages(output("c"), output("d", "2"), history=[USER, thought("t"), call("c"), call("d")])
    assert made == [ASKED, called("c", "d", reasoning_content="t"), result("c"), result("d", "2")]


def test_reasoning_of_all_turns_where_that_is_asked_for() -> None:
    items = [USER, thought("t"), said("a"), USER]
    assert messages(*items, reasoning={"context": "all_turns"}) == [ASKED, said("a", reasoning_content="t"), ASKED]
    assert messages(*items, reasoning={"context": "current_turn"}) == [ASKED, said("a"), ASKED]


def test_stored_reasoning_whose_key_is_gone_is_done_without() -> None:
    lost = {"type": "reasoning", "summary": [], "encrypted_content": "other"}
    assert messages(output("c"), history=[USER, lost, call("c")]) == [ASKED, called("c"), result("c")]
    kept = {"type": "reasoning", "summary": [], "encrypted_content": "sealed:t"}
    made = messages(output("c"), history=[USER, kept, call("c")])
    assert made == [ASKED, called("c", reasoning_content="t"), result("c")]


def test_a_call_that_was_broken_off_was_never_made() -> None:
    broken = call("d", arguments='{"a', status="incomplete")
    assert messages(USER, history=[USER, broken]) == [ASKED, ASKED]
    assert messages(USER, history=[USER, said("a"), broken]) == [ASKED, said("a"), ASKED]
    assert messages(USER, history=[USER, call("c"), broken, output("c")]) == [ASKED, called("c"), result("c"), ASKED]
    with_words = {"role": "assistant", "content": "a"}
    assert messages(USER, with_words, broken, history=[USER]) == [ASKED, ASKED, said("a")]
    answered = [{"id": "d", "type": "function", "function": {"name": "f", "arguments": '{"a'}}]
    assert messages(output("d"), history=[USER, broken])[1]["tool_calls"] == answered


def test_names_that_chat_does_not_take_are_made_fit() -> None:
    names = ["f", "ns.f:1", "f" * 70, "ns.f:1"]
    calls = [call(str(number), name=name) for number, name in enumerate(names)]
    made = messages(USER, *calls, *(output(item["call_id"]) for item in calls))
    told = [one["function"]["name"] for one in made[1]["tool_calls"]]
    assert told == ["f", "ns_f_1", "f" * 64, "ns_f_1"]
    assert calls[1]["name"] == "ns.f:1"


def test_what_was_sent_out_passes_as_chat() -> None:
    odd = [call("c" * 4096, name="ns.f:1"), call("c" * 4096, name="f" * 70), call("d", status="incomplete")]
    outputs = [output("c" * 4096, name="ns.f:1"), output("c" * 4096, [FILE, IMAGE])]
    for translation in (
        translated(*outputs[:1], output("c" * 4096), history=[USER, *odd]),
        translated(USER, *odd, *outputs[:1], output("c" * 4096, [IMAGE])),
    ):
        parse_chat(translation.body, LIMITS)
    parse_chat_openly(translated(*outputs, history=[USER, *odd]).body, LIMITS)


def test_references() -> None:
    found = {item["id"]: item for item in parse_items([{**said("a"), "id": "msg_1"}, call("c", id="fc_1")], 2)}
    made = messages(USER, {"id": "msg_1"}, {"type": "item_reference", "id": "fc_1"}, output("c"), found=found)
    assert made == [ASKED, called("c", content="a"), result("c")]


def test_there_is_no_path_into_what_the_caller_did_not_write() -> None:
    found = {item["id"]: item for item in parse_items([{**said("a"), "id": "msg_1"}], 1)}
    sealed = {"type": "compaction", "encrypted_content": "sealed:note"}
    sources = translated(sealed, {"id": "msg_1"}, USER, found=found, instructions="I").sources
    assert [source.below(".content") for source in sources] == [
        "instructions",
        "input[0]",
        "input[1]",
        "input[2].content",
    ]


# What cannot be a conversation.

BAD: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str, str, str]] = {
    "an output without its call": (
        [USER, output("c")], {}, "invalid_value", "input[1].call_id",
        "No tool call found for function call output with call_id c",
    ),
    "an output before its call": (
        [output("c"), call("c")], {}, "invalid_value", "input[0].call_id", "No tool call found",
    ),
    "two outputs of a call": (
        [call("c"), output("c"), output("c")], {}, "invalid_value", "input[2].call_id", "No tool call found",
    ),
    "a call without its output": (
        [USER, call("c"), USER], {}, "invalid_value", "input", "No tool output found for function call c",
    ),
    "a call of the past without its output": (
        [USER], {"history": [call("c")]}, "invalid_value", "input", "No tool output found for function call c",
    ),
    "two calls of one id, one output": (
        [call("c"), call("c"), output("c")], {}, "invalid_value", "input", "No tool output found for function call c",
    ),
    "nothing but a broken call": (
        [call("c", status="incomplete")], {}, "missing_required_parameter", "input", "",
    ),
    "an output of the past without its call": (
        [USER], {"history": [output("c")], "previous_response_id": "resp_1"}, "invalid_value", "previous_response_id",
        "No tool call found",
    ),
    "one item twice": (
        [{**USER, "id": "msg_1"}, {**USER, "id": "msg_1"}], {}, "invalid_value", "input[1].id",
        "Duplicate item found with id msg_1",
    ),
    "an item of the past once more": (
        [{**USER, "id": "msg_1"}], {"history": [{**USER, "id": "msg_1"}]}, "invalid_value", "input[0].id",
        "Duplicate item found with id msg_1",
    ),
    "a reference to nothing": (
        [USER, {"id": "msg_1"}], {}, "item_reference_not_found", "input[1].id", "Item with id 'msg_1' not found.",
    ),
    "reasoning sealed by another": (
        [USER, {"type": "reasoning", "summary": [], "encrypted_content": "other"}], {},
        "invalid_value", "input[1].encrypted_content", "could not be verified",
    ),
    "reasoning of an earlier turn sealed by another": (
        [{"type": "reasoning", "summary": [], "encrypted_content": "other"}, USER], {},
        "invalid_value", "input[0].encrypted_content", "could not be verified",
    ),
    "a compaction sealed by another": (
        [{"type": "compaction", "encrypted_content": "other"}], {},
        "invalid_value", "input[0].encrypted_content", "could not be verified",
    ),
    "a stored compaction whose key is gone": (
        [USER], {"history": [{"type": "compaction", "encrypted_content": "other"}], "conversation": "conv_1"},
        "invalid_value", "conversation", "could not be verified",
    ),
    "a conversation without anything": (
        [], {"conversation": "conv_1"}, "missing_required_parameter", "input", "Missing required parameter: 'input'.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("items", "fields", "code", "param", "words"), BAD.values(), ids=BAD.keys())
def test_what_is_refused(
    items: list[dict[str, Any]], fields: dict[str, Any], code: str, param: str, words: str
) -> None:
    error = refused(*items, **fields)
    assert (error.code, error.param) == (code, param)
    assert words in error.message


def test_a_kind_that_is_stored_and_unknown() -> None:
    parsed = parse_response({"model": "m", "input": "a"}, LIMITS)
    with pytest.raises(ApiError) as raised:
        translate(parsed, [{"type": "vision", "id": "v_1"}], {}, unseal)
    assert (raised.value.code, raised.value.param) == ("unsupported_value", "previous_response_id")


# Parameters.

SCHEMA_FORMAT = {"type": "json_schema", "name": "n", "schema": OBJECT, "strict": True, "description": "d"}

PARAMETERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
    ({"presence_penalty": 1.0, "frequency_penalty": -1.0}, {"presence_penalty": 1.0, "frequency_penalty": -1.0}),
    ({"max_output_tokens": 16}, {"max_completion_tokens": 16}),
    ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    ({"top_logprobs": 0}, {}),
    ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
    ({"include": ["message.output_text.logprobs"], "top_logprobs": 0}, {"logprobs": True}),
    ({"user": "u", "safety_identifier": "s"}, {"user": "u", "safety_identifier": "s"}),
    (
        {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "implicit"}},
        {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "implicit"}},
    ),
    ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
    ({"reasoning": {}}, {}),
    ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
    ({"text": {"format": {"type": "text"}}}, {"response_format": {"type": "text"}}),
    ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
    (
        {"text": {"format": SCHEMA_FORMAT}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": OBJECT, "strict": True, "description": "d"},
            }
        },
    ),
    (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": OBJECT, "strict": False}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": OBJECT, "strict": False}}},
    ),
    (
        {"tools": [{**FUNCTION, "parameters": OBJECT, "description": "d", "strict": False}]},
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "f", "parameters": OBJECT, "description": "d", "strict": False},
                }
            ]
        },
    ),
    ({"tools": []}, {}),
    ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
    ({"tool_choice": "none"}, {}),
    ({"store": False, "metadata": {"a": "b"}, "truncation": "auto", "service_tier": "auto", "max_tool_calls": 1}, {}),
    ({"stream": True, "stream_options": {"include_obfuscation": False}}, {}),
    ({"background": True}, {}),
    ({"client_metadata": {"a": "b"}}, {}),
]


@pytest.mark.parametrize(("fields", "wanted"), PARAMETERS, ids=lambda value: str(value)[:50])
def test_parameters(fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert translated(input="Q", **fields).body == {"model": "m", "messages": [ASKED], **wanted}


def tools(*names: str) -> list[dict[str, Any]]:
    return [{**FUNCTION, "name": name} for name in names]


CHOICES: list[tuple[dict[str, Any], Any, list[str]]] = [
    ({}, ..., ["f", "g", "h"]),
    ({"tool_choice": "auto"}, "auto", ["f", "g", "h"]),
    ({"tool_choice": "none"}, "none", ["f", "g", "h"]),
    ({"tool_choice": "required"}, "required", ["f", "g", "h"]),
    ({"tool_choice": tools("g")[0]}, {"type": "function", "function": {"name": "g"}}, ["f", "g", "h"]),
    ({"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": tools("h", "f")}}, "required", ["f", "h"]),
    ({"tool_choice": {"type": "allowed_tools", "tools": tools("g")}}, "auto", ["g"]),
    ({"tool_choice": {"type": "allowed_tools", "mode": "none", "tools": tools("g")}}, "none", ["g"]),
]


@pytest.mark.parametrize(("fields", "choice", "left"), CHOICES, ids=lambda value: str(value)[:50])
def test_the_choice_of_tools(fields: dict[str, Any], choice: Any, left: list[str]) -> None:
    body = translated(input="Q", tools=tools("f", "g", "h"), parallel_tool_calls=False, **fields).body
    assert body.get("tool_choice", ...) == choice
    assert [tool["function"]["name"] for tool in body["tools"]] == left
    assert body["parallel_tool_calls"] is False


TRANSLATED = {
    "model", "input", "instructions", "previous_response_id", "conversation", "include", "tools", "tool_choice",
    "parallel_tool_calls", "text", "reasoning", "temperature", "top_p", "presence_penalty", "frequency_penalty",
    "top_logprobs", "max_output_tokens", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options",
}  # fmt: skip
OF_THE_EDGE = {"stream", "stream_options", "background", "store", "truncation"}
ONLY_TOLD = {"metadata", "max_tool_calls"}
NOWHERE = {"client_metadata"}


def test_no_parameter_is_forgotten() -> None:
    assert ResponsesRequest.model_fields.keys() == TRANSLATED | OF_THE_EDGE | ONLY_TOLD | NOWHERE
    assert parse_response({"model": "m", "input": "a"}, LIMITS).echo.keys() >= ONLY_TOLD


# Failures of the result.

STRICT: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str, str]] = {
    "an image's URL": (
        [USER, part(type="input_image", image_url="x")], {}, "invalid_image_url", "input[1].content[1].image_url",
    ),
    "an image's URL in an output": (
        [call("c"), output("c", part(type="input_image", image_url="x")["content"])], {},
        "invalid_image_url", "input[1].output[1].image_url",
    ),
    "an image's data in the last of two outputs": (
        [
            call("c"), call("d"), output("d", [IMAGE, IMAGE]),
            output("c", [{**IMAGE, "image_url": "data:image/png;base64,"}]),
        ],
        {}, "invalid_base64_image", "input[3].output[0].image_url",
    ),
    "a file in an output": (
        [call("c"), output("c", [IMAGE, FILE])], {}, "unsupported_value", "input[1].output[1].type",
    ),
    "a stored file in an output": (
        [output("d")], {"history": [call("c"), output("c", [FILE]), call("d")], "previous_response_id": "resp_1"},
        "unsupported_value", "previous_response_id",
    ),
    "a file": ([part(type="input_file", file_data="x")], {}, "unsupported_value", "input[0].content[1].type"),
    "a stored file": (
        [USER], {"history": [part(type="input_file", file_data="x")], "previous_response_id": "resp_1"},
        "unsupported_value", "previous_response_id",
    ),
    "an image for the system": (
        [{**part(type="input_image", image_url="https://x"), "role": "system"}, USER], {},
        "unsupported_value", "input[0].content[1].type",
    ),
    "an effort": ([USER], {"reasoning": {"effort": "high"}}, "unsupported_value", "reasoning.effort"),
    "a verbosity": ([USER], {"text": {"verbosity": "low"}}, "unsupported_value", "text.verbosity"),
    "a schema": (
        [USER], {"text": {"format": {**SCHEMA_FORMAT, "schema": {"not": {}}}}},
        "invalid_json_schema", "text.format.schema.not",
    ),
    "a tool's schema": (
        [USER], {"tools": [FUNCTION, {**FUNCTION, "name": "g", "strict": True, "parameters": {"type": "string"}}]},
        "invalid_function_parameters", "tools[1].parameters",
    ),
    "an allowed tool's schema": (
        [USER],
        {
            "tools": [FUNCTION, {**FUNCTION, "name": "g", "strict": True, "parameters": {"type": "string"}}],
            "tool_choice": {"type": "allowed_tools", "tools": tools("g")},
        },
        "invalid_function_parameters", "tools[1].parameters",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("items", "fields", "code", "param"), STRICT.values(), ids=STRICT.keys())
def test_failures_of_the_chat_request_in_the_caller_s_words(
    items: list[dict[str, Any]], fields: dict[str, Any], code: str, param: str
) -> None:
    translation = translated(*items, **fields)
    with pytest.raises(ApiError) as raised:
        parse_chat(translation.body, LIMITS)
    error = translation.relate(raised.value)
    assert (error.code, error.param) == (code, param)
    assert param in error.message
    assert "messages[" not in error.message


def test_too_many_messages_are_too_much_input() -> None:
    translation = translated(USER, history=[USER] * 255, instructions="I")
    with pytest.raises(ApiError) as raised:
        parse_chat(translation.body, LIMITS)
    assert translation.relate(raised.value).param == "input"


# What is left out.


def test_what_is_kept_alone_is_translated_and_keeps_its_place() -> None:
    parsed = parse_response(
        {"model": "m", "input": [USER, {"id": "msg_1"}, part(type="input_file", file_data="x")]}, LIMITS
    )
    history = parse_items([said("a"), said("b")], 2)
    (found,) = parse_items([{**said("c"), "id": "msg_1"}], 1)
    whole = conversation(parsed, history, {"msg_1": found})
    assert whole == (*history, parsed.input[0], found, parsed.input[2])
    translation = translate(parsed, history, {"msg_1": found}, unseal, kept=[whole[1], whole[4]])
    assert [message["role"] for message in translation.body["messages"]] == ["assistant", "user"]
    with pytest.raises(ApiError) as raised:
        parse_chat(translation.body, LIMITS)
    assert translation.relate(raised.value).param == "input[2].content[1].type"


# Anything.

texts = st.text(max_size=3)
ids = st.sampled_from(["c", "d", "d_2", "e" * 200])
parts = st.lists(
    st.fixed_dictionaries({"type": st.just("input_text"), "text": texts})
    | st.fixed_dictionaries({"type": st.just("input_image"), "image_url": texts})
    | st.fixed_dictionaries({"type": st.just("input_file"), "file_data": texts}),
    min_size=1,
    max_size=3,
)
items: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "developer"]), "content": texts | parts})
    | st.fixed_dictionaries({"role": st.just("assistant"), "content": texts | st.just([])})
    | st.builds(call, ids, status=st.sampled_from(["completed", "incomplete"]))
    | st.builds(output, ids, texts | parts)
    | texts.map(thought)
    | st.sampled_from(["sealed:a", "b"]).map(lambda sealed: {"type": "compaction", "encrypted_content": sealed})
    | st.sampled_from([{"id": "msg_1"}, {"id": "msg_2"}]),
    max_size=8,
)


@given(items, items, st.booleans())
def test_any_items_become_a_chat_request_or_are_refused(
    history: list[dict[str, Any]], own: list[dict[str, Any]], openly: bool
) -> None:
    parsed = parse_response({"model": "m", "input": own or "a"}, LIMITS)
    past = parse_items([item for item in history if "id" not in item], 8)
    found = {item["id"]: item for item in parse_items([{**said("a"), "id": "msg_1"}], 1)}
    before = copy.deepcopy((past, found, parsed.input))
    try:
        translation = translate(parsed, past, found, unseal)
    except ApiError:
        return
    finally:
        assert (past, found, parsed.input) == before
    assert len(translation.sources) == len(translation.body["messages"])
    users = [item for item in conversation(parsed, past, found) if item.get("role") == "user"]
    made = translation.body["messages"]
    shown = sum(one["role"] == "tool" and two["role"] == "user" for one, two in pairwise(made))
    own_words = sum(message["role"] == "user" for message in made)
    assert len(users) <= own_words <= len(users) + shown
    results = [message["content"] for message in made if message["role"] == "tool"]
    assert all(part["type"] == "text" for content in results if isinstance(content, list) for part in content)
    try:
        (parse_chat_openly if openly else parse_chat)(translation.body, LIMITS)
    except ApiError as error:
        told = translation.relate(error).param
    else:
        told = "input"
    assert (told or "").split("[")[0].split(".")[0] in ("input", "previous_response_id")
