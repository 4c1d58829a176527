"""A provider's spelling of a place becomes the caller's, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors.params import from_message, from_steps, from_text


@pytest.mark.parametrize(
    ("written", "prompt_param", "expected"),
    [
        ("messages[0].content", "messages", "messages[0].content"),
        ("messages.[11].role", "messages", "messages[11].role"),
        ("messages.0.content", "messages", "messages[0].content"),
        ("/messages/0/content", "messages", "messages[0].content"),
        ("$.messages[0]", "messages", "messages[0]"),
        ("body.temperature", "messages", "temperature"),
        ("body.prompt", "messages", "messages"),
        ("input_tokens", "messages", "messages"),
        ("input_text", "input", "input"),
        ("messages[0].content", "input", "input"),
        ("messages.0.content.1.image.source", "messages", "messages[0].content[1]"),
        ("response_format.json_schema", "messages", "response_format.json_schema"),
        ("tools[0].function.parameters", "messages", "tools[0].function.parameters"),
        ("deployment", "messages", None),
        ("model name with spaces", "messages", None),
        ("/etc/passwd", "messages", None),
        ("", "messages", None),
        (None, "messages", None),
        ("body", "messages", None),
        ("0", "messages", None),
    ],
)
def test_from_text(written: str | None, prompt_param: str, expected: str | None) -> None:
    assert from_text(written, prompt_param) == expected


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (["body", "messages", 0, "ChatCompletionUserMessageParam", "content", "str"], "messages[0].content"),
        (["body", "top_p"], "top_p"),
        (["query", "x"], None),
        ([0], None),
        ([], None),
    ],
)
def test_from_steps(steps: list[str | int], expected: str | None) -> None:
    assert from_steps(steps, "messages") == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("messages.1: Expected a string", "messages[1]"),
        ("Unknown parameter: 'tools[0].kind'.", "tools[0].kind"),
        ("The value 'red' of 'temperature' is no number", "temperature"),
        ("note: something", None),
    ],
)
def test_from_message(message: str, expected: str | None) -> None:
    assert from_message(message, "messages") == expected


@given(st.text(max_size=300), st.sampled_from(["messages", "input", "prompt"]))
def test_any_text_is_a_path_of_the_request_or_nothing(text: str, prompt_param: str) -> None:
    for found in (from_text(text, prompt_param), from_message(text, prompt_param)):
        assert found is None or (found.isascii() and " " not in found)
