"""A failure of the translated chat request, told in the words of the Responses API. Pure.

What it promises: what comes out has the same status, headers and delay, and the same code but for the few that the
Responses API calls otherwise (:data:`CODES`); its ``param`` is a place in the caller's request, and where the message
names a place or a parameter, it names the caller's. A place in items that came from storage is the parameter that led
to them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from coterie.dialects.responses_models import ResponsesRequest
from coterie.errors import ApiError


@dataclass(frozen=True, slots=True)
class Source:
    """Where in the caller's request a message, or a call of one, comes from.

    ``place`` is a path (``input[3]``); ``inside`` says whether there are paths below it, which there are not in a text
    or a stored item. ``field`` is what the item calls its content. ``kinds`` are the types of the message's parts.
    ``parts`` are their sources, where they are not simply the parts of the item. ``calls`` are the sources of the
    message's tool calls.
    """

    place: str
    inside: bool = False
    field: str = "content"
    kinds: tuple[str, ...] = ()
    parts: tuple[Source, ...] = ()
    calls: tuple[Source, ...] = ()

    def below(self, rest: str) -> str:
        """The path ``rest`` below the place, or the place where nothing is below it."""
        return f"{self.place}{rest}" if self.inside else self.place


_T = TypeVar("_T")

CODES: Final[Mapping[str, str]] = {"invalid_base64": "invalid_base64_image"}
"""Chat's codes that have another name in the Responses API."""

_RENAMED: Final = (
    ("max_completion_tokens", "max_output_tokens"),
    ("max_tokens", "max_output_tokens"),
    ("reasoning_effort", "reasoning.effort"),
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("tool_choice.allowed_tools", "tool_choice"),
    ("tool_choice.function", "tool_choice"),
    ("verbosity", "text.verbosity"),
    ("logprobs", "top_logprobs"),
)
"""Chat's parameters and the caller's, the longer ones before those they begin with."""

_TOOL: Final = re.compile(r"tools\[(\d+)\](?:\.function)?(.*)", re.DOTALL)
_MESSAGE: Final = re.compile(r"messages\.?\[(\d+)\](.*)", re.DOTALL)
_CALL: Final = re.compile(r"\.tool_calls\[(\d+)\](.*)", re.DOTALL)
_PART: Final = re.compile(r"\.content\[(\d+)\](.*)", re.DOTALL)
_PART_TYPE: Final = re.compile(r"messages\.?\[(\d+)\]\.content\[(\d+)\]\.type")

_OF_CALL: Final[Mapping[str, str]] = {
    ".function.name": ".name", ".function.arguments": ".arguments", ".id": ".call_id", ".type": ".type",
}  # fmt: skip
_OF_MESSAGE: Final[Mapping[str, str]] = {".role": ".role", ".tool_call_id": ".call_id"}
_OF_PART: Final[Mapping[str, str]] = {
    ".type": ".type", ".text": ".text", ".refusal": ".refusal", ".image_url": ".image_url",
    ".image_url.url": ".image_url", ".image_url.detail": ".detail", ".file.file_data": ".file_data",
    ".file.filename": ".filename", ".file.file_id": ".file_data",
}  # fmt: skip

_NAMED: Final = re.compile(
    r"(?<![\w.\[])(?:messages\.?\[\d+\]|tools\[\d+\]\.function|tool_choice\.(?:function|allowed_tools)"
    r"|response_format|max_completion_tokens|max_tokens|reasoning_effort|(?<=')verbosity(?='))"
    r"(?:\.\w+|\[\d+\])*(?!\w)"
)
"""A place or a parameter of a chat request within a sentence."""


def relate(error: ApiError, sources: Sequence[Source], tools: Sequence[int]) -> ApiError:
    """``error`` about a chat request as one about the Responses request that it was made of.

    ``sources`` of the messages in their order; ``tools``: for each tool of the chat request, its number in the other.
    """
    part = _foreign_part(error, sources)
    if part is not None:
        return part
    code = CODES.get(error.code, error.code)
    param = None if error.param is None else place(error.param, sources, tools)
    related = error if param is None else error.at(param)
    said = _NAMED.sub(lambda match: place(match[0], sources, tools), error.message)
    if code == error.code and said in (related.message, error.message):
        return related
    return ApiError(
        code, param=param, said=said, retry=error.retry, retry_after_s=error.retry_after_s,
        detail=error.detail, headers=error.headers,
    )  # fmt: skip


def place(param: str, sources: Sequence[Source], tools: Sequence[int]) -> str:
    """The caller's path for a path of the chat request."""
    if (match := _MESSAGE.fullmatch(param)) is not None:
        source = _at(sources, match[1])
        return "input" if source is None else _in_message(source, match[2])
    if (match := _TOOL.fullmatch(param)) is not None:
        number = _at(tools, match[1])
        return "tools" if number is None else f"tools[{number}]{match[2]}"
    for chat, ours in _RENAMED:
        if param.startswith(chat) and param[len(chat) : len(chat) + 1] in ("", ".", "["):
            return ours + param[len(chat) :]
    known = re.split(r"[.\[]", param, maxsplit=1)[0] in ResponsesRequest.model_fields
    return param if known else "input"


def _in_message(source: Source, rest: str) -> str:
    if (match := _CALL.fullmatch(rest)) is not None:
        call = _at(source.calls, match[1])
        return source.place if call is None else call.below(_OF_CALL.get(match[2], ""))
    if (match := _PART.fullmatch(rest)) is not None:
        return _in_part(source, match[1], _OF_PART.get(match[2], ""))
    if rest == ".content":
        return source.below(f".{source.field}")
    return source.below(_OF_MESSAGE.get(rest, ""))


def _in_part(source: Source, number: str, rest: str) -> str:
    if not source.parts:
        return source.below(f".{source.field}[{number}]{rest}")
    part = _at(source.parts, number)
    return source.below(f".{source.field}") if part is None else part.below(rest)


def _foreign_part(error: ApiError, sources: Sequence[Source]) -> ApiError | None:
    """The refusal of a kind of part, which chat knows by another name than the caller."""
    match = _PART_TYPE.fullmatch(error.param or "")
    source = None if match is None else _at(sources, match[1])
    kind = None if match is None or source is None else _at(source.kinds, match[2])
    if kind is None or error.code not in ("invalid_value", "unsupported_value"):
        return None
    param = place(error.param or "", sources, ())
    return ApiError("unsupported_value", param=param, value=f"'{kind}'", detail=error.detail)


def _at(entries: Sequence[_T], number: str) -> _T | None:
    """An entry by its written number, of which a stranger may have written a long one."""
    return entries[int(number)] if len(number) < 10 and int(number) < len(entries) else None
