"""The Responses dialect: what a good body becomes, and what a bad one is told first."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.dialects.chat import DialectLimits
from coterie.dialects.responses import ParsedResponse, parse_response
from coterie.dialects.responses_models import RESPONSES_UNSUPPORTED, TOOLS_ELSEWHERE, ResponsesRequest
from coterie.errors import ApiError

LIMITS = DialectLimits(messages=4, choices=1)
USER = {"role": "user", "content": "a"}
FUNCTION = {"type": "function", "name": "f"}


def parse(**fields: Any) -> ParsedResponse:
    body = {"model": "m", "input": "a", **fields}
    return parse_response({name: value for name, value in body.items() if value is not ...}, LIMITS)


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        parse(**fields)
    return raised.value


# Good bodies.


def test_a_text_by_itself() -> None:
    parsed = parse()
    (item,) = parsed.input
    assert (item["role"], item["content"]) == ("user", [{"type": "input_text", "text": "a"}])
    assert (parsed.model, parsed.stream, parsed.background, parsed.store, parsed.truncate) == (
        "m", False, False, True, False,
    )  # fmt: skip
    assert (parsed.previous_response_id, parsed.conversation_id, parsed.include, parsed.references) == (
        None, None, frozenset(), (),
    )  # fmt: skip
    assert parsed.echo["tool_choice"] == "auto"
    assert isinstance(parsed.request, ResponsesRequest)


def test_what_the_edge_is_to_know() -> None:
    parsed = parse(
        stream=True, background=True, store=True, previous_response_id="resp_1", truncation="auto",
        include=["reasoning.encrypted_content", "reasoning.encrypted_content"],
        input=[USER, {"id": "msg_1"}, {"type": "item_reference", "id": "rs_2"}],
    )  # fmt: skip
    assert (parsed.stream, parsed.background, parsed.store, parsed.truncate) == (True, True, True, True)
    assert (parsed.previous_response_id, parsed.include) == (
        "resp_1", frozenset({"reasoning.encrypted_content"}),
    )  # fmt: skip
    assert parsed.references == ("msg_1", "rs_2")
    assert parsed.input[1:] == (
        {"type": "item_reference", "id": "msg_1"},
        {"type": "item_reference", "id": "rs_2"},
    )


@pytest.mark.parametrize("named", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_by_either_name(named: Any) -> None:
    parsed = parse(conversation=named)
    assert (parsed.conversation_id, parsed.echo["conversation"]) == ("conv_1", {"id": "conv_1"})


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, False),
        ({"top_logprobs": 0}, False),
        ({"top_logprobs": 1}, True),
        ({"include": ["message.output_text.logprobs"]}, True),
        ({"include": ["reasoning.encrypted_content"]}, False),
    ],
)
def test_when_log_probabilities_are_wanted(fields: dict[str, Any], wanted: bool) -> None:
    assert parse(**fields).logprobs is wanted


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"instructions": "Say something."},
    ],
)
@pytest.mark.parametrize("nothing", [..., None])
def test_no_input_where_something_else_says_what_to_answer(fields: dict[str, Any], nothing: Any) -> None:
    assert parse(input=nothing, **fields).input == ()


PASSING: list[dict[str, Any]] = [
    {"service_tier": "auto"},
    {"service_tier": "default"},
    {"service_tier": None, "prompt": None, "moderation": None, "context_management": None},
    {"reasoning": {"summary": "auto", "generate_summary": "auto", "mode": "standard"}},
    {"stream": True, "stream_options": {"include_obfuscation": False}},
    {"stream": True, "stream_options": {"include_obfuscation": None}},
    {"client_metadata": {"x-codex-installation-id": "1"}},
    {"tool_choice": "none"},
    {"tools": [], "tool_choice": "auto"},
    {"tools": [FUNCTION], "tool_choice": "required"},
    {"tools": [FUNCTION, {**FUNCTION, "name": "g"}], "tool_choice": {**FUNCTION, "name": "g"}},
    {"stream_options": None},
    {"background": True},
    {"background": False, "store": False},
    {"max_tool_calls": 3, "tool_choice": "auto", "parallel_tool_calls": True},
    {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "mode": "none", "tools": [FUNCTION]}},
    {"include": ["file_search_call.results", "computer_call_output.output.image_url"]},
    {"input": [USER] * 4},
]


@pytest.mark.parametrize("fields", PASSING)
def test_what_passes(fields: dict[str, Any]) -> None:
    parse(**fields)


# Bad ones.

BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no model": ({"model": ...}, "missing_required_parameter", "model"),
    "an empty model": ({"model": "", "messages": []}, "missing_required_parameter", "model"),
    "a strange model": ({"model": ["m"]}, "invalid_type", "model"),
    "no input": ({"input": ...}, "missing_required_parameter", "input"),
    "null for input": ({"input": None, "instructions": ""}, "missing_required_parameter", "input"),
    "no items": ({"input": []}, "invalid_value", "input"),
    "no items after others": ({"input": [], "previous_response_id": "resp_1"}, "invalid_value", "input"),
    "no text": ({"input": ""}, "invalid_value", "input"),
    "too many items": ({"input": [USER] * 5}, "array_above_max_length", "input"),
    "chat's messages": ({"messages": [USER]}, "unknown_parameter", "messages"),
    "chat's format": ({"response_format": {"type": "json_object"}}, "unknown_parameter", "response_format"),
    "chat's limit": ({"max_tokens": 16}, "unknown_parameter", "max_tokens"),
    "a limit that is too low": ({"max_output_tokens": 15}, "integer_below_min_value", "max_output_tokens"),
    "two pasts": (
        {"previous_response_id": "resp_1", "conversation": "conv_1"}, "invalid_value", "previous_response_id",
    ),
    "in the background, unstored": ({"background": True, "store": False}, "invalid_value", "background"),
    "options without a stream": ({"stream_options": {}}, "invalid_value", "stream_options"),
    "a summary": ({"reasoning": {"summary": "detailed"}}, "unsupported_value", "reasoning.summary"),
    "a summary by its old name": (
        {"reasoning": {"generate_summary": "concise"}}, "unsupported_value", "reasoning.generate_summary",
    ),
    "another mode": ({"reasoning": {"mode": "pro"}}, "unsupported_value", "reasoning.mode"),
    "another tier": ({"service_tier": "flex"}, "unsupported_value", "service_tier"),
    "an allowed tool that is none": (
        {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "tools": [FUNCTION, {**FUNCTION, "name": "g"}]}},
        "invalid_value", "tool_choice.tools[1].name",
    ),
    "allowed tools without tools": (
        {"tool_choice": {"type": "allowed_tools", "tools": [FUNCTION]}}, "invalid_value", "tool_choice.tools[0].name",
    ),
    "one name twice": ({"tools": [FUNCTION, FUNCTION]}, "invalid_value", "tools[1].name"),
    "a chosen tool that is none": (
        {"tools": [FUNCTION], "tool_choice": {**FUNCTION, "name": "g"}}, "invalid_value", "tool_choice.name",
    ),
    "a chosen tool without tools": ({"tool_choice": FUNCTION}, "invalid_value", "tool_choice"),
    "a call of no tools": ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
    "a call of an empty list": ({"tools": [], "tool_choice": "required"}, "invalid_value", "tool_choice"),
    "padding": (
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "unsupported_value", "stream_options.include_obfuscation",
    ),
    "a tool that is loaded later": (
        {"tools": [{**FUNCTION, "defer_loading": True}]}, "unsupported_value", "tools[0].defer_loading",
    ),
    "a call that goes on": (
        {"input": [USER, {"type": "function_call", "call_id": "c", "name": "f", "arguments": "", "async": True}]},
        "unsupported_value", "input[1].async",
    ),
    "an item of a tool that is not here": (
        {"input": [USER, {"type": "web_search_call"}]}, "unsupported_value", "input[1].type",
    ),
    "what only a user says": (
        {"input": [USER, {"role": "assistant", "content": [{"type": "input_text", "text": ""}]}]},
        "invalid_value", "input[1].content[0]",
    ),
    "a stored image": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}]},
        "unsupported_parameter", "input[0].content[0].file_id",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "param"), BAD.values(), ids=BAD.keys())
def test_what_is_told_first(fields: dict[str, Any], code: str, param: str) -> None:
    error = refused(**fields)
    assert (error.code, error.param, error.status) == (code, param, 400)
    assert param in error.message or error.message.startswith("Invalid value: '")


def test_what_is_said_of_padding() -> None:
    error = refused(stream=True, stream_options={"include_obfuscation": True})
    assert "does not support true" in error.message
    assert error.message.endswith(" Nothing is padded.")


def test_what_a_client_says_of_itself_is_not_told() -> None:
    parsed = parse(client_metadata={"a": "b"})
    assert parsed.echo == parse().echo


@pytest.mark.parametrize("name", sorted(RESPONSES_UNSUPPORTED.keys() - {"service_tier"}))
def test_parameters_that_nothing_could_honour_are_refused_by_name(name: str) -> None:
    error = refused(**{name: {"id": "x"}})
    assert (error.code, error.param) == ("unsupported_parameter", name)


@pytest.mark.parametrize("kind", sorted(TOOLS_ELSEWHERE))
def test_tools_that_do_not_exist_here_are_refused_by_name(kind: str) -> None:
    for fields, param in (
        ({"tools": [FUNCTION, {"type": kind, "more": 1}]}, "tools[1].type"),
        ({"tool_choice": {"type": kind, "more": 1}}, "tool_choice.type"),
        ({"tool_choice": {"type": "allowed_tools", "tools": [FUNCTION, {"type": kind}]}}, "tool_choice.tools[1].type"),
    ):
        error = refused(**fields)
        assert (error.code, error.param) == ("unsupported_value", param)
        assert "Only 'function' is supported." in error.message
        assert f"'{kind}'" in error.message


# Anything.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = sorted(ResponsesRequest.model_fields.keys() | RESPONSES_UNSUPPORTED.keys() | {"messages"})


@given(st.dictionaries(st.sampled_from(names), json_values, max_size=4), st.booleans())
def test_whatever_comes_is_parsed_or_refused_and_not_changed(fields: dict[str, Any], good: bool) -> None:
    body = {"model": "m", "input": "a", **fields} if good else fields
    before = copy.deepcopy(body)
    try:
        parsed = parse_response(body, LIMITS)
    except ApiError as error:
        told = error.param
    else:
        told = parsed.model
        assert len(parsed.input) <= LIMITS.messages
    assert told
    assert body == before
