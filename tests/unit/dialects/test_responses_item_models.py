"""The items of requests: for each kind what it refuses, with code and path, and what it takes."""

from __future__ import annotations

from typing import Any

import pytest

from coterie.dialects.responses_item_models import ITEM_KINDS, ITEMS_ELSEWHERE, PARTS_ELSEWHERE
from coterie.dialects.responses_models import ResponsesRequest
from coterie.dialects.validation import validate
from coterie.errors import ApiError

LONG = "x" * 100_000
TYPE, VALUE, MISSING, UNKNOWN = "invalid_type", "invalid_value", "missing_required_parameter", "unknown_parameter"
LONG_TEXT, SHORT_TEXT = "string_above_max_length", "string_below_min_length"
LONG_ARRAY, EMPTY = "array_above_max_length", "empty_array"

GOOD: dict[str, dict[str, Any]] = {
    "message": {"type": "message", "role": "user", "content": "a"},
    "function_call": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"},
    "function_call_output": {"type": "function_call_output", "call_id": "c", "output": "1"},
    "reasoning": {"type": "reasoning", "summary": []},
    "item_reference": {"type": "item_reference", "id": "msg_1"},
    "compaction": {"type": "compaction", "encrypted_content": "sealed"},
}
TEXT = {"type": "input_text", "text": "a"}
IMAGE = {"type": "input_image", "image_url": "https://x/y.png"}


def said(*parts: Any) -> dict[str, Any]:
    return {"content": list(parts)}


def answered(*parts: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(parts)}


BAD: dict[str, list[tuple[dict[str, Any], str, str]]] = {
    "message": [
        ({"role": "tool"}, VALUE, ".role"), ({"role": None}, TYPE, ".role"), ({"content": None}, TYPE, ".content"),
        ({"content": 5}, TYPE, ".content"), ({"content": []}, EMPTY, ".content"), ({"x": 1}, UNKNOWN, ".x"),
        ({"status": "done"}, VALUE, ".status"), ({"id": ""}, SHORT_TEXT, ".id"), ({"id": LONG}, LONG_TEXT, ".id"),
        ({"phase": "x"}, VALUE, ".phase"), ({"name": "n"}, UNKNOWN, ".name"), (said({}), MISSING, ".content[0].type"),
        (said("a"), TYPE, ".content[0]"), (said({"type": "x"}), VALUE, ".content[0].type"),
        (said({"type": "input_text"}), MISSING, ".content[0].text"), (said({**TEXT, "x": 1}), UNKNOWN, ".content[0].x"),
        (said({**TEXT, "text": "x" * 10_485_761}), LONG_TEXT, ".content[0].text"),
        (said(*[TEXT] * 2049), LONG_ARRAY, ".content"),
        (said({**TEXT, "prompt_cache_breakpoint": 1}), TYPE, ".content[0].prompt_cache_breakpoint"),
        (said({**IMAGE, "image_url": {"url": "x"}}), TYPE, ".content[0].image_url"),
        (said({**IMAGE, "detail": "medium"}), VALUE, ".content[0].detail"),
        (said({"type": "input_file", "filename": LONG}), LONG_TEXT, ".content[0].filename"),
        (said({"type": "input_file", "file_data": 5}), TYPE, ".content[0].file_data"),
        (answered({"type": "output_text"}), MISSING, ".content[0].text"),
        (answered({"type": "refusal", "refusal": 5}), TYPE, ".content[0].refusal"),
        (answered({"type": "output_text", "text": "", "annotations": [5]}), TYPE, ".content[0].annotations[0]"),
        (answered({"type": "output_text", "text": "", "parsed": {}}), UNKNOWN, ".content[0].parsed"),
    ],
    "function_call": [
        ({"call_id": ""}, SHORT_TEXT, ".call_id"), ({"call_id": "x" * 4097}, LONG_TEXT, ".call_id"),
        ({"name": ""}, SHORT_TEXT, ".name"), ({"name": "x" * 4097}, LONG_TEXT, ".name"),
        ({"name": None}, TYPE, ".name"),
        ({"async": True}, "unsupported_value", ".async"), ({"async": 0}, TYPE, ".async"),
        ({"async_": False}, UNKNOWN, ".async_"), ({"arguments": {}}, TYPE, ".arguments"),
        ({"namespace": "x"}, TYPE, ".namespace"),
        ({"caller": {"type": "program", "caller_id": "x"}}, UNKNOWN, ".caller.caller_id"),
        ({"caller": {"type": "program"}}, VALUE, ".caller.type"),
        ({"parsed_arguments": {}}, UNKNOWN, ".parsed_arguments"),
    ],
    "function_call_output": [
        ({"call_id": None}, TYPE, ".call_id"), ({"output": 5}, TYPE, ".output"), ({"output": []}, EMPTY, ".output"),
        ({"output": [{"type": "text", "text": "a"}]}, VALUE, ".output[0].type"), ({"name": LONG}, LONG_TEXT, ".name"),
        ({"call_id": "x" * 4097}, LONG_TEXT, ".call_id"), ({"async": False}, UNKNOWN, ".async"),
    ],
    "reasoning": [
        ({"summary": None}, TYPE, ".summary"), ({"summary": [{"type": "x", "text": "a"}]}, VALUE, ".summary[0].type"),
        ({"content": [{"type": "reasoning_text"}]}, MISSING, ".content[0].text"),
        ({"encrypted_content": ""}, SHORT_TEXT, ".encrypted_content"),
    ],
    "item_reference": [({"id": None}, TYPE, ".id"), ({"x": 1}, UNKNOWN, ".x")],
    "compaction": [({"encrypted_content": None}, TYPE, ".encrypted_content")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "fields", "code", "below"),
    [(kind, *bad) for kind, bads in BAD.items() for bad in bads],
    ids=lambda value: str(value)[:30],
)
def test_what_an_item_refuses(kind: str, fields: dict[str, Any], code: str, below: str) -> None:
    with pytest.raises(ApiError) as raised:
        validate(ResponsesRequest, {"model": "m", "input": [GOOD["message"], {**GOOD[kind], **fields}]})
    assert (raised.value.code, raised.value.param) == (code, f"input[1]{below}")


def test_every_kind_is_tried() -> None:
    assert tuple(GOOD) == ITEM_KINDS
    assert BAD.keys() == GOOD.keys()
    assert not ITEMS_ELSEWHERE & GOOD.keys()
    assert not PARTS_ELSEWHERE & {"input_text", "input_image", "input_file", "output_text", "refusal"}


NULLS = {"id": None, "status": None}

TAKEN: list[dict[str, Any]] = [
    *GOOD.values(),
    {**GOOD["message"], **NULLS, "phase": "final_answer"},
    {**GOOD["message"], "role": "developer", "content": [TEXT]},
    {
        **GOOD["message"],
        "content": [{**TEXT, "prompt_cache_breakpoint": {"mode": "explicit"}}, {**IMAGE, "detail": "low"}],
    },
    {
        **GOOD["message"],
        "content": [{"type": "input_file", "file_data": "data:x", "filename": "a.pdf", "file_id": None}],
    },
    {**GOOD["message"], "role": "assistant", "content": []},
    {**GOOD["message"], **answered({"type": "output_text", "text": "a", "annotations": [{}], "logprobs": []})},
    {**GOOD["message"], **answered({"type": "refusal", "refusal": "no"})},
    {**GOOD["function_call"], **NULLS, "namespace": None, "caller": None},
    {**GOOD["function_call"], "id": "fc_1", "status": "completed", "caller": {"type": "direct"}},
    {**GOOD["function_call"], "call_id": "x" * 4096, "name": "ns.f:1" * 600, "async": False},
    {**GOOD["function_call"], "async": None, "async_": None, "parsed_arguments": None},
    {**GOOD["function_call_output"], "call_id": "x" * 4096, "name": "ns.f:1" * 600},
    {
        **GOOD["message"],
        **answered({"type": "output_text", "text": "a", "parsed": None}, {"type": "refusal", "refusal": "", "x": None}),
    },
    *({**item, "x": None} for item in GOOD.values()),
    {**GOOD["message"], "content": [{**TEXT, "x": None}, {**IMAGE, "x": None}, {"type": "input_file", "x": None}]},
    {
        **GOOD["reasoning"],
        "summary": [{"type": "summary_text", "text": "s", "x": None}],
        "content": [{"type": "reasoning_text", "text": "t", "x": None}],
    },
    {**GOOD["message"], **{str(number): None for number in range(1000)}},
    {**GOOD["function_call_output"], **NULLS, "output": [TEXT, IMAGE], "name": "f"},
    {
        **GOOD["reasoning"],
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "s"}],
        "content": [{"type": "reasoning_text", "text": "t"}],
        "encrypted_content": None,
    },
]


@pytest.mark.parametrize("item", TAKEN, ids=lambda item: str(item)[:40])
def test_what_an_item_may_be(item: dict[str, Any]) -> None:
    validate(ResponsesRequest, {"model": "m", "input": [item]})


@pytest.mark.parametrize("kind", ["function_call", "function_call_output", "reasoning", "item_reference", "compaction"])
def test_what_an_item_needs(kind: str) -> None:
    for name in GOOD[kind].keys() - {"type"}:
        item = {field: value for field, value in GOOD[kind].items() if field != name}
        with pytest.raises(ApiError) as raised:
            validate(ResponsesRequest, {"model": "m", "input": [item]})
        assert (raised.value.code, raised.value.param) == (MISSING, f"input[0].{name}")
