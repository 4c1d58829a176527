"""Items as callers write them, and as they are kept."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.dialects.responses_input import message_of, parse_items
from coterie.dialects.responses_item_models import ITEMS_ELSEWHERE, PARTS_ELSEWHERE
from coterie.errors import ApiError

TEXT = {"type": "input_text", "text": "a"}


def one(**item: Any) -> dict[str, Any]:
    (kept,) = parse_items([item], 1)
    return kept


def refused(items: Any, limit: int = 8) -> ApiError:
    with pytest.raises(ApiError) as raised:
        parse_items(items, limit)
    return raised.value


KEPT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an easy message": (
        {"role": "user", "content": "a"},
        {"type": "message", "role": "user", "content": [TEXT]},
    ),
    "a message whose type is null": (
        {"type": None, "role": "system", "content": [TEXT], "phase": None},
        {"type": "message", "role": "system", "content": [TEXT]},
    ),
    "an answer": (
        {"role": "assistant", "content": "a", "phase": "commentary"},
        {
            "type": "message",
            "role": "assistant",
            "phase": "commentary",
            "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}],
        },
    ),
    "an answer in parts": (
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "a", "annotations": [{"type": "url_citation"}]},
                {"type": "refusal", "refusal": "no"},
            ],
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "a", "annotations": [{"type": "url_citation"}], "logprobs": []},
                {"type": "refusal", "refusal": "no"},
            ],
        },
    ),
    "an image and a file": (
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "https://x/y", "file_id": None, "detail": None},
                {"type": "input_file", "file_data": "data:x", "filename": "a.pdf", "file_url": None, "detail": "auto"},
            ],
        },
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "https://x/y", "detail": "auto"},
                {"type": "input_file", "file_data": "data:x", "filename": "a.pdf", "detail": "auto"},
            ],
        },
    ),
    "a call": (
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{", "namespace": None},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"},
    ),
    "a call as an SDK dumps it": (
        {
            "type": "function_call",
            "call_id": "c",
            "name": "f",
            "arguments": "{",
            "async": None,
            "async_": None,
            "parsed_arguments": None,
            "namespace": None,
            "caller": None,
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"},
    ),
    "an answer as an SDK dumps it": (
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a", "parsed": None}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}],
        },
    ),
    "a call that somebody's server named": (
        {"type": "function_call", "call_id": "c" * 300, "name": "ns.f:1", "arguments": "{"},
        {"type": "function_call", "call_id": "c" * 300, "name": "ns.f:1", "arguments": "{"},
    ),
    "an output": (
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
    ),
    "an output in parts": (
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": "https://x"}]},
        {
            "type": "function_call_output",
            "call_id": "c",
            "output": [{"type": "input_image", "image_url": "https://x", "detail": "auto"}],
        },
    ),
    "reasoning": (
        {"type": "reasoning", "summary": [], "encrypted_content": None},
        {"type": "reasoning", "summary": []},
    ),
}


@pytest.mark.parametrize(("given_item", "kept"), KEPT.values(), ids=KEPT.keys())
def test_what_is_kept(given_item: dict[str, Any], kept: dict[str, Any]) -> None:
    before = copy.deepcopy(given_item)
    item = one(**given_item)
    prefix, _, digits = item.pop("id").partition("_")
    assert (prefix, len(digits)) == (PREFIXES[kept["type"]], 48)
    assert item == {**kept, "status": "completed"}
    assert given_item == before


PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def test_what_the_caller_called_it_stays() -> None:
    item = one(role="user", content="a", id="msg_mine", status="incomplete")
    assert (item["id"], item["status"]) == ("msg_mine", "incomplete")


def test_a_compaction_has_no_status() -> None:
    item = one(type="compaction", encrypted_content="sealed", id="cmp_1", status="completed", created_by=None)
    assert item == {"id": "cmp_1", "type": "compaction", "encrypted_content": "sealed"}
    assert one(type="compaction", encrypted_content="s")["id"].startswith("cmp_")


@pytest.mark.parametrize(
    "item", [{"id": "msg_1"}, {"type": None, "id": "msg_1"}, {"type": "item_reference", "id": "msg_1"}]
)
def test_a_reference_stays_one(item: dict[str, Any]) -> None:
    assert one(**item) == {"type": "item_reference", "id": "msg_1"}


def test_a_text_is_what_a_user_says() -> None:
    item = message_of("a")
    assert item.pop("id").startswith("msg_")
    assert item == {"type": "message", "status": "completed", "role": "user", "content": [TEXT]}


@pytest.mark.parametrize("kind", sorted(ITEMS_ELSEWHERE))
def test_kinds_of_items_that_do_not_exist_here_are_refused_by_name(kind: str) -> None:
    error = refused([{"role": "user", "content": "a"}, {"type": kind, "whatever": 1}])
    assert (error.code, error.param) == ("unsupported_value", "items[1].type")
    assert f"'{kind}'" in error.message


@pytest.mark.parametrize("kind", sorted(PARTS_ELSEWHERE))
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_kinds_of_parts_that_do_not_exist_here_are_refused_by_name(kind: str, role: str) -> None:
    error = refused([{"role": role, "content": [{"type": kind}]}])
    assert (error.code, error.param) == ("unsupported_value", "items[0].content[0].type")


WRONG: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "what only a user says": (
        {"role": "assistant", "content": [{"type": "output_text", "text": ""}, TEXT]},
        "invalid_value",
        "items[0].content[1]",
        "Invalid value: 'input_text'. Supported values are: 'output_text' and 'refusal'.",
    ),
    "what only a model says": (
        {"role": "user", "content": [{"type": "output_text", "text": ""}]},
        "invalid_value",
        "items[0].content[0]",
        "Invalid value: 'output_text'. Supported values are: 'input_text', 'input_image', and 'input_file'.",
    ),
    "chat's name of a part": (
        {"role": "user", "content": [{"type": "text", "text": ""}]},
        "invalid_value",
        "items[0].content[0]",
        "Invalid value: 'text'. Supported values are: 'input_text', 'input_image', and 'input_file'.",
    ),
    "an output of a strange kind": (
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "text", "text": ""}]},
        "invalid_value",
        "items[0].output[0]",
        "Invalid value: 'text'. Supported values are: 'input_text', 'input_image', and 'input_file'.",
    ),
    "a long kind": (
        {"role": "assistant", "content": [{"type": "x" * 9999}]},
        "invalid_value",
        "items[0].content[0]",
        f"Invalid value: '{'x' * 64}'. Supported values are: 'output_text' and 'refusal'.",
    ),
    "a stored image": (
        {"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]},
        "unsupported_parameter",
        "items[0].content[0].file_id",
        "Unsupported parameter: 'items[0].content[0].file_id' is not supported with this model. Send 'image_url'.",
    ),
    "no image": (
        {"role": "user", "content": [{"type": "input_image", "image_url": None}]},
        "missing_required_parameter",
        "items[0].content[0].image_url",
        "Missing required parameter: 'items[0].content[0].image_url'.",
    ),
    "a stored file": (
        {"role": "user", "content": [{"type": "input_file", "file_id": "file_1", "file_data": "x"}]},
        "unsupported_parameter",
        "items[0].content[0].file_id",
        "Unsupported parameter: 'items[0].content[0].file_id' is not supported with this model. Send 'file_data'.",
    ),
    "a file elsewhere": (
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file", "file_url": "https://x"}]},
        "unsupported_parameter",
        "items[0].output[0].file_url",
        "Unsupported parameter: 'items[0].output[0].file_url' is not supported with this model. Send 'file_data'.",
    ),
    "no file": (
        {"role": "user", "content": [{"type": "input_file", "filename": "a.pdf"}]},
        "missing_required_parameter",
        "items[0].content[0].file_data",
        "Missing required parameter: 'items[0].content[0].file_data'.",
    ),
    "a file in detail": (
        {"role": "user", "content": [{"type": "input_file", "file_data": "x", "detail": "high"}]},
        "unsupported_value",
        "items[0].content[0].detail",
        "Unsupported value: 'items[0].content[0].detail' does not support 'high' with this model.",
    ),
    "an image in all detail": (
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://x", "detail": "original"}]},
        "unsupported_value",
        "items[0].content[0].detail",
        "Unsupported value: 'items[0].content[0].detail' does not support 'original' with this model.",
    ),
    "nothing that says what it is": ({}, "missing_required_parameter", "items[0].type",
                                     "Missing required parameter: 'items[0].type'."),
    "an unknown kind": (
        {"type": "thought"},
        "invalid_value",
        "items[0].type",
        "Invalid value for 'items[0].type': 'thought'. Supported values are: 'message', 'function_call', "
        "'function_call_output', 'reasoning', 'item_reference', 'compaction'.",
    ),
    "an unknown role": (
        {"role": "tool", "content": [{"type": "text", "text": ""}]},
        "invalid_value",
        "items[0].role",
        "Invalid value for 'items[0].role': 'tool'. Supported values are: 'user', 'system', 'developer', 'assistant'.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("item", "code", "param", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_an_item(item: dict[str, Any], code: str, param: str, message: str) -> None:
    error = refused([item])
    assert (error.code, error.param, error.message) == (code, param, message)


def test_more_items_than_allowed_are_not_looked_at() -> None:
    error = refused([{"type": "web_search_call"}] * 3, limit=2)
    assert (error.code, error.param) == ("array_above_max_length", "items")


@pytest.mark.parametrize("items", ["a", None, 5, {}])
def test_what_is_no_list(items: Any) -> None:
    assert (refused(items).code, refused(items).param) == ("invalid_type", "items")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
kinds = st.sampled_from(
    ["message", "function_call", "function_call_output", "reasoning", "compaction", "mcp_call", "x"]
)
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "input_image", "input_file", "output_text", "refusal", "x"])},
    optional={"text": st.text(max_size=3) | json_values, "image_url": json_values, "file_data": json_values},
)
items = st.fixed_dictionaries(
    {},
    optional={
        "type": kinds | json_values,
        "role": st.sampled_from(["user", "assistant", "tool"]) | json_values,
        "content": st.lists(parts, max_size=3) | st.text(max_size=3) | json_values,
        "output": st.lists(parts, max_size=2) | st.text(max_size=3) | json_values,
        "call_id": st.text(max_size=3) | json_values,
        "name": st.just("f") | json_values,
        "arguments": st.text(max_size=3),
        "summary": st.just([]) | json_values,
        "id": st.text(max_size=3) | json_values,
        "encrypted_content": st.text(max_size=3) | json_values,
    },
)


@given(st.lists(items | json_values, max_size=3) | json_values)
def test_whatever_comes_is_kept_whole_or_refused(value: Any) -> None:
    before = copy.deepcopy(value)
    wrong: ApiError | None = None
    try:
        kept = parse_items(value, 3)
    except ApiError as error:
        wrong = error
    assert value == before
    if wrong is not None:
        assert (wrong.param or "").startswith("items")
        return
    assert len(kept) == len(value)
    for item in kept:
        assert item["id"]
        assert None not in item.values()
        assert item["type"] in ("item_reference", "compaction") or item["status"]
    assert parse_items(list(kept), 3) == kept, "what is kept can be sent again"
