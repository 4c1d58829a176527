"""What the events of a Responses stream and the Response object have to look like, as data. Pure.

Two specifications describe them: OpenAI's (OpenAPI 2.3.0) and Open Responses (2026-04-24). Where both know a field or
an event, what one of them requires is required. A Response object is judged by both apart from each other, so that a
server of one of them is not told that it is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from coterie.dialects.chat_validator import (
    _ARRAY,
    _COUNT,
    _FILLED_TEXT,
    _OBJECT,
    _OBJECT_OR_NULL,
    _TEXT,
    _TEXT_OR_NULL,
    _constant,
    _Kind,
    _Shape,
    _show,
)
from coterie.wire.sse import FRAMING_RULES

Finding = tuple[str, str]
"""A rule and what was found."""
Json = Mapping[str, Any]

RULES: Final[Mapping[str, str]] = {
    **FRAMING_RULES,
    "framing-field": "A line is a comment, 'event:' or 'data:', not 'id:', 'retry:' or another (SDK: each breaks one).",
    "framing-event": "An event has one 'event:' line, before its data, and none stands without data (Open Responses).",
    "event-json": "The data of an event is one JSON object or exactly '[DONE]' (Open Responses).",
    "event-name": "The 'event:' line says the event's type; '[DONE]' has none (Open Responses).",
    "event-known": "A type stands in one of the specifications, or is an extension's, 'slug:name' (both).",
    "event-shape": "An event has the fields of its type, each of its kind (both; OpenAI requires logprobs, name).",
    "sequence": "Every event has a sequence_number: from 0, without a gap (OpenAI).",
    "created-first": "The first event is response.created, and it comes once (OpenAI; SDK: the snapshot begins there).",
    "progress-order": "After response.created come response.queued, if at all, and response.in_progress, once each and "
    "before any item (OpenAI).",
    "response-same": "All events with a response carry the same response.id (SDK).",
    "response-openai": "A Response object has OpenAI's required fields, each of its kind (OpenAI).",
    "response-open": "A Response object has the 31 required fields of Open Responses, each of its kind "
    "(Open Responses).",
    "status": "The response's status fits its event (both).",
    "incomplete-details": "incomplete_details has its reason where the response is incomplete, else it is null (both).",
    "error-object": "error has code and message where the response failed, else it is null (both).",
    "error-code": "The code of a failed response's error is one of ResponseErrorCode (OpenAI).",
    "item-first": "Nothing comes of an item before its response.output_item.added (OpenAI).",
    "item-index": "Items are numbered from 0 without a gap, an output_index is never shared (SDK).",
    "item-id": "An item has one id from added to done, and no two share it (SDK).",
    "item-shape": "An item has the fields of its type, each of its kind (both).",
    "item-status": "An item begins as in_progress and is done as completed or incomplete (OpenAI).",
    "item-last": "Nothing comes of an item after its response.output_item.done (OpenAI).",
    "item-closed": "Every item is done before the response ends, however it ends (contract).",
    "part-first": "Nothing comes of a part before it was added (OpenAI).",
    "part-index": "The parts of an item are numbered from 0 without a gap, an index is never shared (OpenAI).",
    "part-shape": "A part has the fields of its type, each of its kind (both).",
    "part-last": "Nothing comes of a part after it is done (OpenAI).",
    "part-closed": "Every part is done before its item is (OpenAI).",
    "text-kind": "A delta fits the type of its part or item (OpenAI).",
    "text-sum": "The deltas add up to the text of the done event (both).",
    "text-same": "The done event, its part, and its item say the same text (both).",
    "text-done": "Text and arguments have one done event before their part or item is closed, and no delta after it "
    "(both).",
    "output-final": "The final output has each item in the place of its output_index, as it was when done (both).",
    "usage-shape": "Usage has input_tokens, output_tokens, total_tokens and both details (both).",
    "usage-sum": "total_tokens is input_tokens plus output_tokens (both).",
    "error-event": "An error event has code, message and param, or an error object with type, code, message and param; "
    "where it has both, they agree (OpenAI; Open Responses).",
    "error-failed": "There is at most one error event, and response.failed follows it directly (Open Responses).",
    "terminal-last": "After response.completed, response.incomplete or response.failed comes only '[DONE]' (ending).",
    "terminal-missing": "A stream has response.completed, response.incomplete or response.failed (ending; SDK: it "
    "waits for one).",
    "done-missing": "A stream ends with 'data: [DONE]' (Open Responses).",
}
"""Every rule: its name, and what must hold. Names are stable."""

ERROR_CODES: Final = frozenset({
    "server_error", "rate_limit_exceeded", "invalid_prompt", "data_residency_mismatch", "bio_policy",
    "vector_store_timeout", "invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url",
    "image_too_large", "image_too_small", "image_parse_error", "image_content_policy_violation", "invalid_image_mode",
    "image_file_too_large", "unsupported_image_media_type", "empty_image_file", "failed_to_download_image",
    "image_file_not_found",
})  # fmt: skip
"""ResponseErrorCode of OpenAI's specification. Written out here: a judge takes no table from what it judges."""

STATUSES: Final = ("completed", "failed", "in_progress", "cancelled", "queued", "incomplete")
_INCOMPLETE_REASONS: Final = ("max_output_tokens", "content_filter", "max_messages", "steered")
"""The first two are OpenAI's specification's, the others its SDK's."""


def one_of(*texts: str) -> _Kind:
    """One of these strings."""
    return _Kind(" or ".join(f"'{text}'" for text in texts), lambda value: isinstance(value, str) and value in texts)


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


_NUMBER: Final = _Kind("a number", _is_number)
_NUMBER_OR_NULL: Final = _Kind("a number or null", lambda value: value is None or _is_number(value))
_WHOLE: Final = _Kind("a whole number", lambda value: type(value) is int)
_WHOLE_OR_NULL: Final = _Kind("a whole number or null", lambda value: value is None or type(value) is int)
_FLAG: Final = _Kind("true or false", lambda value: isinstance(value, bool))
_FLAG_OR_NULL: Final = _Kind("true, false or null", lambda value: value is None or isinstance(value, bool))
_TEXT_OBJECT: Final = _Kind("a string or an object", lambda value: isinstance(value, str | dict))
_INSTRUCTIONS: Final = _Kind("a string, an array or null", lambda value: value is None or isinstance(value, str | list))
_ANYTHING: Final = _Kind("anything", lambda value: True)
_TRUNCATION: Final = one_of("auto", "disabled")
_ITEM_STATUS: Final = one_of("in_progress", "completed", "incomplete")


# Events

_FIELDS: Final[Mapping[str, _Kind]] = {
    "annotation": _OBJECT, "annotation_index": _COUNT, "arguments": _TEXT, "code": _TEXT, "command_index": _COUNT,
    "content_index": _COUNT, "delta": _TEXT, "input": _TEXT, "item": _OBJECT, "item_id": _FILLED_TEXT,
    "logprobs": _ARRAY, "name": _FILLED_TEXT, "output_index": _COUNT, "part": _OBJECT, "refusal": _TEXT,
    "response": _OBJECT, "summary_index": _COUNT, "text": _TEXT,
}  # fmt: skip
"""Fields of events by their kind; one that does not stand here may be anything."""

_RESPONSE: Final = ("response",)
_ITEM: Final = ("output_index", "item")
_OF_ITEM: Final = ("item_id", "output_index")
_OF_PART: Final = (*_OF_ITEM, "content_index")
_OF_SUMMARY: Final = (*_OF_ITEM, "summary_index")
_OF_COMMAND: Final = ("output_index", "command_index")
_PROGRESS: Final[Mapping[str, tuple[str, ...]]] = {
    "code_interpreter_call": ("in_progress", "interpreting", "completed"),
    "file_search_call": ("in_progress", "searching", "completed"),
    "web_search_call": ("in_progress", "searching", "completed"),
    "image_generation_call": ("in_progress", "generating", "completed"),
    "mcp_call": ("in_progress", "completed", "failed"),
    "mcp_list_tools": ("in_progress", "completed", "failed"),
}

_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    **{
        f"response.{name}": _RESPONSE
        for name in ("created", "queued", "in_progress", "completed", "incomplete", "failed")
    },
    "response.output_item.added": _ITEM,
    "response.output_item.done": _ITEM,
    "response.content_part.added": (*_OF_PART, "part"),
    "response.content_part.done": (*_OF_PART, "part"),
    "response.output_text.delta": (*_OF_PART, "delta", "logprobs"),
    "response.output_text.done": (*_OF_PART, "text", "logprobs"),
    "response.output_text.annotation.added": (*_OF_PART, "annotation_index", "annotation"),
    "response.refusal.delta": (*_OF_PART, "delta"),
    "response.refusal.done": (*_OF_PART, "refusal"),
    "response.reasoning_text.delta": (*_OF_PART, "delta"),
    "response.reasoning_text.done": (*_OF_PART, "text"),
    "response.reasoning.delta": (*_OF_PART, "delta"),
    "response.reasoning.done": (*_OF_PART, "text"),
    "response.reasoning_summary_part.added": (*_OF_SUMMARY, "part"),
    "response.reasoning_summary_part.done": (*_OF_SUMMARY, "part"),
    "response.reasoning_summary_text.delta": (*_OF_SUMMARY, "delta"),
    "response.reasoning_summary_text.done": (*_OF_SUMMARY, "text"),
    "response.function_call_arguments.delta": (*_OF_ITEM, "delta"),
    "response.function_call_arguments.done": (*_OF_ITEM, "name", "arguments"),
    "response.mcp_call_arguments.delta": (*_OF_ITEM, "delta"),
    "response.mcp_call_arguments.done": (*_OF_ITEM, "arguments"),
    "response.custom_tool_call_input.delta": (*_OF_ITEM, "delta"),
    "response.custom_tool_call_input.done": (*_OF_ITEM, "input"),
    "response.code_interpreter_call_code.delta": (*_OF_ITEM, "delta"),
    "response.code_interpreter_call_code.done": (*_OF_ITEM, "code"),
    "response.image_generation_call.partial_image": (*_OF_ITEM, "partial_image_index", "partial_image_b64"),
    **{f"response.{tool}.{step}": _OF_ITEM for tool, steps in _PROGRESS.items() for step in steps},
    "response.shell_call_command.added": (*_OF_COMMAND, "command"),
    "response.shell_call_command.delta": (*_OF_COMMAND, "delta"),
    "response.shell_call_command.done": (*_OF_COMMAND, "command"),
    "response.shell_call_output_content.delta": (*_OF_COMMAND, "item_id"),  # its delta is an object
    "response.shell_call_output_content.done": (*_OF_COMMAND, "item_id", "output"),
    "response.audio.delta": ("delta",),
    "response.audio.done": ("response_id",),
    "response.audio.transcript.delta": ("response_id", "delta"),
    "response.audio.transcript.done": ("response_id",),
    "error": (),
}
"""The fields that an event of each type has beside ``type`` and ``sequence_number``. An error event's are apart."""

_EVENTS: Final = {
    name: _Shape("event-shape", {field: _FIELDS.get(field, _ANYTHING) for field in fields})
    for name, fields in _REQUIRED.items()
}
_EXTENSION: Final = re.compile(r"[A-Za-z0-9][\w.-]*:\S+")


def event_findings(kind: str, event: Json) -> Iterator[Finding]:
    """What is wrong with the fields of an event of type ``kind``, and whether anybody knows that type."""
    shape = _EVENTS.get(kind)
    if shape is not None:
        yield from shape.misfits(event, "")
    elif not _EXTENSION.fullmatch(kind):
        yield "event-known", f"the type {_show(kind)} stands in no specification"


# Items and parts

_PARTS: Final[Mapping[str, _Shape]] = {
    "output_text": _Shape("part-shape", {"text": _TEXT, "annotations": _ARRAY}, {"logprobs": _ARRAY}),
    "refusal": _Shape("part-shape", {"refusal": _TEXT}),
    "reasoning_text": _Shape("part-shape", {"text": _TEXT}),
    "summary_text": _Shape("part-shape", {"text": _TEXT}),
}
_ITEMS: Final[Mapping[str, _Shape]] = {
    "message": _Shape("item-shape", {"role": _constant("assistant"), "content": _ARRAY, "status": _ITEM_STATUS}),
    "function_call": _Shape(
        "item-shape",
        {"call_id": _FILLED_TEXT, "name": _FILLED_TEXT, "arguments": _TEXT, "status": _ITEM_STATUS},
    ),
    "reasoning": _Shape("item-shape", {"summary": _ARRAY}, {"content": _ARRAY, "encrypted_content": _TEXT_OR_NULL}),
}
"""Items of other types are known by their ``id`` and ``type`` alone."""
_ANY_ITEM: Final = _Shape("item-shape", {"id": _FILLED_TEXT, "type": _FILLED_TEXT}, {"status": _FILLED_TEXT})
_ANY_PART: Final = _Shape("part-shape", {"type": _FILLED_TEXT})


def item_findings(item: object, path: str) -> Iterator[Finding]:
    """What is wrong with an item and its parts."""
    yield from _ANY_ITEM.misfits(item, path)
    if not isinstance(item, dict):
        return
    shape = _by_type(_ITEMS, item)
    if shape is not None:
        yield from shape.misfits(item, path)
    for name in ("content", "summary"):
        parts = item.get(name)
        for position, part in enumerate(parts if isinstance(parts, list) else ()):
            yield from part_findings(part, f"{path}.{name}[{position}]")


def part_findings(part: object, path: str) -> Iterator[Finding]:
    """What is wrong with a part."""
    yield from _ANY_PART.misfits(part, path)
    shape = _by_type(_PARTS, part) if isinstance(part, dict) else None
    if shape is not None:
        yield from shape.misfits(part, path)


def _by_type(shapes: Mapping[str, _Shape], value: Json) -> _Shape | None:
    kind = value.get("type")
    return shapes.get(kind) if isinstance(kind, str) else None


# The Response object

_OPENAI: Final = _Shape(
    "response-openai",
    {
        "id": _FILLED_TEXT, "object": _constant("response"), "created_at": _NUMBER, "error": _OBJECT_OR_NULL,
        "incomplete_details": _OBJECT_OR_NULL, "instructions": _INSTRUCTIONS, "model": _TEXT, "tools": _ARRAY,
        "output": _ARRAY, "parallel_tool_calls": _FLAG, "metadata": _OBJECT_OR_NULL, "tool_choice": _TEXT_OBJECT,
        "temperature": _NUMBER_OR_NULL, "top_p": _NUMBER_OR_NULL,
    },
    {
        "status": one_of(*STATUSES), "completed_at": _NUMBER_OR_NULL, "previous_response_id": _TEXT_OR_NULL,
        "text": _OBJECT, "reasoning": _OBJECT_OR_NULL, "usage": _OBJECT_OR_NULL, "background": _FLAG_OR_NULL,
        "max_output_tokens": _WHOLE_OR_NULL, "max_tool_calls": _WHOLE_OR_NULL, "top_logprobs": _WHOLE_OR_NULL,
        "service_tier": _TEXT_OR_NULL, "safety_identifier": _TEXT_OR_NULL, "prompt_cache_key": _TEXT_OR_NULL,
        "conversation": _OBJECT_OR_NULL,
    },
)  # fmt: skip
_OPEN: Final = _Shape(
    "response-open",
    {
        "id": _TEXT, "object": _constant("response"), "created_at": _WHOLE, "completed_at": _WHOLE_OR_NULL,
        "status": _TEXT, "incomplete_details": _OBJECT_OR_NULL, "model": _TEXT, "previous_response_id": _TEXT_OR_NULL,
        "instructions": _TEXT_OR_NULL, "output": _ARRAY, "error": _OBJECT_OR_NULL, "tools": _ARRAY,
        "tool_choice": _TEXT_OBJECT, "truncation": _TRUNCATION, "parallel_tool_calls": _FLAG, "text": _OBJECT,
        "top_p": _NUMBER, "presence_penalty": _NUMBER, "frequency_penalty": _NUMBER, "top_logprobs": _WHOLE,
        "temperature": _NUMBER, "reasoning": _OBJECT_OR_NULL, "usage": _OBJECT_OR_NULL,
        "max_output_tokens": _WHOLE_OR_NULL, "max_tool_calls": _WHOLE_OR_NULL, "store": _FLAG, "background": _FLAG,
        "service_tier": _TEXT, "metadata": _ANYTHING, "safety_identifier": _TEXT_OR_NULL,
        "prompt_cache_key": _TEXT_OR_NULL,
    },
)  # fmt: skip
_USAGE: Final = _Shape(
    "usage-shape",
    {
        "input_tokens": _COUNT, "output_tokens": _COUNT, "total_tokens": _COUNT, "input_tokens_details": _OBJECT,
        "output_tokens_details": _OBJECT,
    },
)  # fmt: skip
_INPUT_DETAILS: Final = _Shape("usage-shape", {"cached_tokens": _COUNT}, {"cache_write_tokens": _COUNT})
_OUTPUT_DETAILS: Final = _Shape("usage-shape", {"reasoning_tokens": _COUNT})
_FAILURE: Final = _Shape("error-object", {"code": _FILLED_TEXT, "message": _FILLED_TEXT})


def response_findings(response: Json, path: str = "response") -> Iterator[Finding]:
    """What is wrong with a Response object, whatever its status and whether it came in a stream or alone."""
    yield from _OPENAI.misfits(response, path)
    yield from _OPEN.misfits(response, path)
    yield from _usage(response.get("usage"), f"{path}.usage")
    yield from _ending(response, path)
    output = response.get("output")
    for position, item in enumerate(output if isinstance(output, list) else ()):
        yield from item_findings(item, f"{path}.output[{position}]")


def _usage(usage: object, path: str) -> Iterator[Finding]:
    if not isinstance(usage, dict):
        return
    yield from _USAGE.misfits(usage, path)
    for name, shape in (("input_tokens_details", _INPUT_DETAILS), ("output_tokens_details", _OUTPUT_DETAILS)):
        if isinstance(usage.get(name), dict):
            yield from shape.misfits(usage[name], f"{path}.{name}")
    counts: list[Any] = [usage.get(name) for name in ("input_tokens", "output_tokens", "total_tokens")]
    if all(type(count) is int for count in counts) and counts[0] + counts[1] != counts[2]:
        yield "usage-sum", f"{path} says {counts[0]} + {counts[1]} = {counts[2]}"


def _ending(response: Json, path: str) -> Iterator[Finding]:
    status, details, error = (response.get(name) for name in ("status", "incomplete_details", "error"))
    reason = details.get("reason") if isinstance(details, dict) else None
    if status == "incomplete" and (not isinstance(reason, str) or reason not in _INCOMPLETE_REASONS):
        yield "incomplete-details", f"{path} is incomplete, its reason is {_show(reason)}"
    elif status not in ("incomplete", "cancelled") and details is not None:
        yield "incomplete-details", f"{path} is {_show(status)} and has incomplete_details"
    if status != "failed":
        if error is not None:
            yield "error-object", f"{path} is {_show(status)} and has an error"
        return
    yield from _FAILURE.misfits(error, f"{path}.error")
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and code and code not in ERROR_CODES:
        yield "error-code", f"{path}.error.code is {_show(code)}"


# The error event

_FLAT_ERROR: Final = _Shape("error-event", {"message": _FILLED_TEXT, "code": _TEXT_OR_NULL, "param": _TEXT_OR_NULL})
_NESTED_ERROR: Final = _Shape(
    "error-event", {"type": _TEXT, "message": _FILLED_TEXT, "code": _TEXT_OR_NULL, "param": _TEXT_OR_NULL}
)
_SAID_TWICE: Final = ("message", "code", "param")


def error_event_findings(event: Json) -> Iterator[Finding]:
    """What is wrong with an error event: flat as OpenAI documents it, nested as it sends it, or both in one."""
    nested = event.get("error")
    flat = any(name in event for name in _SAID_TWICE)
    if flat or "error" not in event:
        yield from _FLAT_ERROR.misfits(event, "")
    if "error" in event:
        yield from _NESTED_ERROR.misfits(nested, "error")
    if flat and isinstance(nested, dict):
        for name in (name for name in _SAID_TWICE if event.get(name) != nested.get(name)):
            yield "error-event", f"{name} is {_show(event.get(name))}, but error.{name} is {_show(nested.get(name))}"
