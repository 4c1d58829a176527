"""Failures of a chat request in the words of the Responses API."""

from __future__ import annotations

import pytest

from coterie.dialects.responses_relate import Source, place, relate
from coterie.errors import ApiError
from coterie.errors.entry import Retry

PART = Source("input[4].output[2]", inside=True)
SOURCES = (
    Source("instructions"),
    Source("previous_response_id"),
    Source("input[0]", inside=True, kinds=("input_text", "input_image", "input_file")),
    Source("input[1]", inside=True, calls=(Source("input[2]", inside=True), Source("previous_response_id"))),
    Source("input[4]", inside=True, field="output", kinds=("input_image",)),
    Source("input[4]", inside=True, field="output", kinds=("input_text",), parts=(PART,)),
    Source("input[4].output[2]", kinds=("input_file", "input_image"), parts=(PART, Source("conversation"))),
)
TOOLS = (0, 3)

PLACES = {
    "messages": "input",
    "messages[0]": "instructions",
    "messages[0].content": "instructions",
    "messages[1].content[2].text": "previous_response_id",
    "messages[2]": "input[0]",
    "messages[2].role": "input[0].role",
    "messages[2].content": "input[0].content",
    "messages[2].content[1]": "input[0].content[1]",
    "messages[2].content[0].text": "input[0].content[0].text",
    "messages[2].content[1].image_url": "input[0].content[1].image_url",
    "messages[2].content[1].image_url.url": "input[0].content[1].image_url",
    "messages[2].content[1].image_url.detail": "input[0].content[1].detail",
    "messages[2].content[2].file.file_data": "input[0].content[2].file_data",
    "messages[2].content[2].file.filename": "input[0].content[2].filename",
    "messages[2].content[2].file": "input[0].content[2]",
    "messages[2].name": "input[0]",
    "messages.[2].role": "input[0].role",
    "messages[3].tool_calls": "input[1]",
    "messages[3].tool_calls[0]": "input[2]",
    "messages[3].tool_calls[0].id": "input[2].call_id",
    "messages[3].tool_calls[0].function.name": "input[2].name",
    "messages[3].tool_calls[0].function.arguments": "input[2].arguments",
    "messages[3].tool_calls[1].function.name": "previous_response_id",
    "messages[3].tool_calls[2].id": "input[1]",
    "messages[4].tool_call_id": "input[4].call_id",
    "messages[4].content": "input[4].output",
    "messages[4].content[0].image_url.url": "input[4].output[0].image_url",
    "messages[5].content": "input[4].output",
    "messages[5].content[0].text": "input[4].output[2].text",
    "messages[5].content[1].text": "input[4].output",
    "messages[6].content": "input[4].output[2]",
    "messages[6].content[0].image_url.url": "input[4].output[2].image_url",
    "messages[6].content[1].image_url.url": "conversation",
    "messages[6].content[2].image_url.url": "input[4].output[2]",
    "messages[7].content": "input",
    "messages[99999999999999999999]": "input",
    "tools": "tools",
    "tools[0].function.name": "tools[0].name",
    "tools[1].function.parameters.properties.a-b": "tools[3].parameters.properties.a-b",
    "tools[1].type": "tools[3].type",
    "tools[1].function": "tools[3]",
    "tools[2].function": "tools",
    "tool_choice": "tool_choice",
    "tool_choice.function.name": "tool_choice.name",
    "tool_choice.allowed_tools.mode": "tool_choice.mode",
    "response_format": "text.format",
    "response_format.type": "text.format.type",
    "response_format.json_schema": "text.format",
    "response_format.json_schema.name": "text.format.name",
    "response_format.json_schema.schema.properties.a.items": "text.format.schema.properties.a.items",
    "response_formats": "input",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "logprobs": "top_logprobs",
    "top_logprobs": "top_logprobs",
    "temperature": "temperature",
    "prompt": "input",
    "n": "input",
    "input[3]": "input[3]",
    "": "input",
}


@pytest.mark.parametrize(("chat", "ours"), PLACES.items())
def test_places(chat: str, ours: str) -> None:
    assert place(chat, SOURCES, TOOLS) == ours


def test_the_message_names_the_new_place() -> None:
    error = relate(ApiError("missing_required_parameter", param="messages[2].content[1].image_url"), SOURCES, TOOLS)
    assert error.param == "input[0].content[1].image_url"
    assert error.message == "Missing required parameter: 'input[0].content[1].image_url'."


SENTENCES = {
    "max_completion_tokens is too large: 9.": "max_output_tokens is too large: 9.",
    "Bad 'messages[2].content[1].image_url.url'.": "Bad 'input[0].content[1].image_url'.",
    "At messages[4].content[0].image_url.url.": "At input[4].output[0].image_url.",
    "'response_format.json_schema.schema' and 'reasoning_effort'": "'text.format.schema' and 'reasoning.effort'",
    "The 'verbosity' of its verbosity": "The 'text.verbosity' of its verbosity",
    "Please reduce the length of the messages.": "Please reduce the length of the messages.",
    "my_max_tokens, max_tokens_x and body.max_tokens": "my_max_tokens, max_tokens_x and body.max_tokens",
}


@pytest.mark.parametrize(("chat", "ours"), SENTENCES.items())
def test_a_provider_s_own_words(chat: str, ours: str) -> None:
    headers = {"x-a": "b"}
    error = ApiError(
        "invalid_value", param="messages", said=chat, retry_after_s=3, detail="d", headers=headers, retry=Retry.BACKOFF
    )
    told = relate(error, SOURCES, TOOLS)
    assert (told.code, told.param, told.message) == ("invalid_value", "input", ours)
    assert (told.retry_after_s, told.detail, told.headers, told.retry) == (3, "d", headers, Retry.BACKOFF)


def test_what_names_no_parameter_stays() -> None:
    error = ApiError("upstream_error", detail="d")
    assert relate(error, SOURCES, TOOLS) is error


def test_words_without_a_parameter() -> None:
    told = relate(ApiError("invalid_value", said="max_tokens is too large"), SOURCES, TOOLS)
    assert (told.param, told.message) == (None, "max_output_tokens is too large")


@pytest.mark.parametrize(
    ("code", "param", "told", "kind"),
    [
        ("unsupported_value", "messages[6].content[0].type", "input[4].output[2].type", "input_file"),
        ("unsupported_value", "messages[2].content[2].type", "input[0].content[2].type", "input_file"),
        ("invalid_value", "messages[4].content[0].type", "input[4].output[0].type", "input_image"),
    ],
)
def test_a_part_is_named_as_the_caller_named_it(code: str, param: str, told: str, kind: str) -> None:
    error = relate(ApiError(code, param=param, value="'file'", reason="'file'"), SOURCES, TOOLS)
    assert (error.code, error.param) == ("unsupported_value", told)
    assert error.message == f"Unsupported value: '{told}' does not support '{kind}' with this model."


def test_a_part_that_nobody_knows_is_told_as_it_is() -> None:
    error = relate(ApiError("invalid_value", param="messages[2].content[7].type", reason="x"), SOURCES, TOOLS)
    assert (error.code, error.param) == ("invalid_value", "input[0].content[7].type")


def test_a_code_that_has_another_name_in_the_responses_api() -> None:
    error = ApiError("invalid_base64", param="messages[0].content[0].image_url.url", retry=None)
    told = relate(error, [Source("input[0]", inside=True, kinds=("input_image",))], [])
    assert (told.code, told.param) == ("invalid_base64_image", "input[0].content[0].image_url")
    assert told.message == (
        "Invalid base64 data in 'input[0].content[0].image_url'. Expected a base64-encoded image in a data URL."
    )
