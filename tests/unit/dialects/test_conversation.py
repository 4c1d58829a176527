"""Conversations: calls and their results, what each message must hold, pictures."""

from __future__ import annotations

from typing import Any

import pytest

from coterie.dialects.chat import DialectLimits, parse_chat
from coterie.dialects.conversation import check_image_url
from coterie.errors import ApiError

LIMITS = DialectLimits(messages=2048, choices=8)
USER = {"role": "user", "content": "hi"}


def calls(*ids: str) -> dict[str, Any]:
    function = {"name": "f", "arguments": "{}"}
    return {"role": "assistant", "tool_calls": [{"id": i, "type": "function", "function": function} for i in ids]}


def result(call: str, content: Any = "1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": content}


def check(*messages: Any) -> None:
    parse_chat({"model": "m", "messages": list(messages)}, LIMITS)


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [{"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, USER],
        [{"role": "assistant", "content": "a"}],
        [{"role": "assistant", "refusal": "no"}],
        [{"role": "assistant", "content": ""}],
        [USER, calls("a"), result("a")],
        [USER, calls("a", "b"), result("b"), result("a"), USER],
        [calls("a"), result("a"), calls("a"), result("a")],
        [{**calls("a"), "content": "let me see"}, result("a", [{"type": "text", "text": "1"}])],
    ],
)
def test_good_conversations(messages: list[Any]) -> None:
    check(*messages)


@pytest.mark.parametrize(
    ("messages", "code", "param"),
    [
        ([result("a")], "invalid_value", "messages[0].role"),
        ([USER, result("a")], "invalid_value", "messages[1].role"),
        ([calls("a"), result("a"), USER, result("a")], "invalid_value", "messages[3].role"),
        ([calls("a"), result("b")], "invalid_value", "messages[1].tool_call_id"),
        ([calls("a"), result("a"), result("a")], "invalid_value", "messages[2].tool_call_id"),
        ([USER, calls("a")], "invalid_value", "messages[1].tool_calls"),
        ([USER, calls("a", "b"), result("a"), USER], "invalid_value", "messages[1].tool_calls"),
        ([calls("a"), calls("b"), result("b")], "invalid_value", "messages[0].tool_calls"),
        ([calls("a", "b", "a")], "invalid_value", "messages[0].tool_calls[2].id"),
        ([{"role": "assistant"}], "missing_required_parameter", "messages[0].content"),
        ([USER, {"role": "assistant", "content": None}], "missing_required_parameter", "messages[1].content"),
    ],
)
def test_bad_conversations(messages: list[Any], code: str, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        check(*messages)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_calls_without_results_are_named_in_openais_words() -> None:
    with pytest.raises(ApiError) as caught:
        check(calls("b", "a", "c"), result("b"))
    assert "must be followed by tool messages responding to each 'tool_call_id'" in caught.value.message
    assert caught.value.message.endswith("no result for: a, c.")


@pytest.mark.parametrize("kind", ["input_audio", "file"])
def test_parts_that_nothing_here_can_take(kind: str) -> None:
    with pytest.raises(ApiError) as caught:
        check(USER, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": kind, kind: {}}]})
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "messages[1].content[1].type")
    assert "Supported values are: 'text' and 'image_url'." in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a.png",
        "HTTP://example.org",
        "data:image/png;base64,aGVsbG8=",
        "DATA:IMAGE/JPEG;BASE64,aGVsbG8=",
        "data:image/webp;charset=x;base64,aGVsbG8=",
        "data:image/gif;base64,AAAA",
        "data:image/jpg;base64,AAAA",
    ],
)
def test_good_pictures(url: str) -> None:
    check_image_url(url, "p")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "invalid_image_url"),
        ("ftp://example.org/a.png", "invalid_image_url"),
        ("file:///etc/passwd", "invalid_image_url"),
        ("/etc/passwd", "invalid_image_url"),
        ("aGVsbG8=", "invalid_image_url"),
        ("data:", "invalid_image_url"),
        ("data:image/png", "invalid_image_url"),
        ("data:image/png;base64", "invalid_image_url"),
        ("data:image/png,abc", "invalid_image_url"),
        ("data:image/png;base64;x,AAAA", "invalid_image_url"),
        ("data:,abc", "invalid_image_format"),
        ("data:text/plain;base64,AAAA", "invalid_image_format"),
        ("data:image/svg+xml;base64,AAAA", "invalid_image_format"),
        ("data:image/bmp;base64,AAAA", "invalid_image_format"),
        ("data:image/png;base64,", "invalid_base64"),
        ("data:image/png;base64,A", "invalid_base64"),
        ("data:image/png;base64,AAA", "invalid_base64"),
        ("data:image/png;base64,AA AA", "invalid_base64"),
        ("data:image/png;base64,AAAA\n", "invalid_base64"),
        ("data:image/png;base64,AA-_", "invalid_base64"),
        ("data:image/png;base64,äöüß", "invalid_base64"),
        ("data:image/png;base64,!!!!", "invalid_base64"),
    ],
)
def test_bad_pictures(url: str, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        check({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})
    assert (caught.value.code, caught.value.param) == (code, "messages[0].content[0].image_url.url")
