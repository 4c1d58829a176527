"""Whether messages make a conversation: what each must hold, and calls paired with results. Pure.

OpenAI's rule: an assistant message with ``tool_calls`` is followed by one ``tool`` message for each of them, and a
``tool`` message follows such an assistant message.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, Final

from coterie.dialects.chat_models import AssistantMessage, ImagePart, OtherPart, ToolMessage
from coterie.errors import ApiError

_DATA_URL: Final = re.compile(r"data:([^;,]*)((?:;[^;,]+)*),", re.IGNORECASE)
_IMAGE_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp"})


def check_conversation(messages: Sequence[Any]) -> None:
    """Raise ``ApiError`` for the first message that does not fit."""
    open_calls: set[str] = set()
    answerable = False
    caller = 0
    for i, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            _check_result(i, message, open_calls, answerable=answerable)
            continue
        _check_answered(caller, open_calls)
        _check_content(i, message)
        open_calls, caller = _calls_of(i, message), i
        answerable = bool(open_calls)
    _check_answered(caller, open_calls)


def check_image_url(url: str, param: str) -> None:
    """Raise ``ApiError`` for a URL that cannot be an image's."""
    if url.lower().startswith(("https://", "http://")):
        return
    match = _DATA_URL.match(url)
    if match is None:
        raise ApiError("invalid_image_url", param=param, reason="expected a data URL or an http(s) URL")
    if match[1].lower() not in _IMAGE_TYPES:
        raise ApiError("invalid_image_format", param=param)
    if not match[2].lower().endswith(";base64"):
        raise ApiError("invalid_image_url", param=param, reason="expected a data URL with ';base64'")
    try:
        data = base64.b64decode(url[match.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise ApiError("invalid_base64", param=param) from None
    if not data:
        raise ApiError("invalid_base64", param=param)


def _check_result(i: int, message: ToolMessage, open_calls: set[str], *, answerable: bool) -> None:
    if not answerable:
        reason = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
        raise ApiError("invalid_value", param=f"messages[{i}].role", reason=reason)
    if message.tool_call_id not in open_calls:
        reason = f"'{message.tool_call_id}' is not the id of a preceding tool call that still has no result"
        raise ApiError("invalid_value", param=f"messages[{i}].tool_call_id", reason=reason)
    open_calls.remove(message.tool_call_id)


def _check_answered(caller: int, open_calls: set[str]) -> None:
    if open_calls:
        reason = (
            "an assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'; no result for: {', '.join(sorted(open_calls))}"
        )
        raise ApiError("invalid_value", param=f"messages[{caller}].tool_calls", reason=reason)


def _calls_of(i: int, message: Any) -> set[str]:
    ids: set[str] = set()
    if isinstance(message, AssistantMessage):
        for j, call in enumerate(message.tool_calls or ()):
            if call.id in ids:
                reason = f"the id '{call.id}' is given twice"
                raise ApiError("invalid_value", param=f"messages[{i}].tool_calls[{j}].id", reason=reason)
            ids.add(call.id)
    return ids


def _check_content(i: int, message: Any) -> None:
    if isinstance(message, AssistantMessage):
        if message.content is None and not message.tool_calls and message.refusal is None:
            raise ApiError("missing_required_parameter", param=f"messages[{i}].content")
        return
    for j, part in enumerate(message.content if isinstance(message.content, list) else ()):
        if isinstance(part, OtherPart):
            raise ApiError(
                "unsupported_value", param=f"messages[{i}].content[{j}].type", value=f"'{part.type}'",
                hint=" Supported values are: 'text' and 'image_url'.",
            )  # fmt: skip
        if isinstance(part, ImagePart):
            check_image_url(part.image_url.url, f"messages[{i}].content[{j}].image_url.url")
