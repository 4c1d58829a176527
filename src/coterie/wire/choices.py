"""What everybody on a stream's way knows about the choices of an answer. Pure.

A choice goes through ``NEW → OPEN → FINISHED``:

=========  ======================  ==================  ==========
state      delta                   finish reason       end
=========  ======================  ==================  ==========
NEW        OPEN                    FINISHED            broken off
OPEN       OPEN                    FINISHED            broken off
FINISHED   against the protocol    against the same    good
=========  ======================  ==================  ==========

Its tool calls are numbered from 0 and begin in that order. The first fragment of each has its id and name, and a later
one may only repeat them. Calls that have begun go on in any order: a fragment says which one it is of.

An answer is whole when every choice that was asked for is FINISHED and the usage has come, which may be null: there are
providers that do not count.

What is not known here passes: fields of a delta with any JSON value, and those under ``extra``
(:mod:`coterie.wire.lingua`), which go out with the next that the choice says where it says nothing itself.

Whatever else a provider does is its failure: ``upstream_protocol_error`` for what may not be sent,
``upstream_stream_interrupted`` for an end that nobody announced. So no answer that is not whole can look like a
success, and what :meth:`Choices.admit` returns can be written as it is: every field has its type.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NoReturn

from coterie.errors import ApiError
from coterie.wire.lingua import Chunk

FINISH_REASONS: Final = frozenset({"stop", "length", "tool_calls", "content_filter"})
"""``finish_reason`` of OpenAI's specification, less ``function_call``: requests with ``functions`` are refused."""

_CALL_FIELDS: Final = frozenset({"index", "id", "type", "function"})
_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_MOST_TOKENS: Final = 2**53
"""More than this is no count, and cannot be written as JSON that everybody reads."""
_MOST_KEPT: Final = 64
"""Fields that a choice keeps for the next time that it says something."""


class ChoiceState(Enum):
    """See the module's table."""

    NEW = 0
    OPEN = 1
    FINISHED = 2


_NEW: Final = ChoiceState.NEW
_OPEN: Final = ChoiceState.OPEN
_FINISHED: Final = ChoiceState.FINISHED


@dataclass(slots=True)
class _Choice:
    state: ChoiceState = ChoiceState.NEW
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Id and name of each tool call."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What came beside nothing, for the next that is said."""


class Choices:
    """The states of ``count`` choices, and the usage of the answer. ``calls``: whether there may be tool calls."""

    def __init__(self, count: int, *, calls: bool = True) -> None:
        self._choices = [_Choice() for _ in range(count)]
        self._calls = calls
        self.usage: dict[str, Any] | None = None
        self._counted = False

    @property
    def finished(self) -> bool:
        """Whether every choice has its finish reason."""
        return all(choice.state is ChoiceState.FINISHED for choice in self._choices)

    def admit(self, chunk: Chunk) -> list[dict[str, Any]]:
        """The choices of ``chunk`` that say something, after checking them. Raises ``ApiError``.

        Each has ``index``, ``delta`` (without its role, and without what is empty), ``logprobs``, ``finish_reason`` and
        ``first``: whether nothing was said for this choice before; and ``extra`` where there is any.
        """
        if chunk.get("usage"):
            self.usage, self._counted = _checked_usage(chunk["usage"]), True
        elif not chunk.get("choices") and chunk.get("usage", 0) is None:
            self._counted = True
        entries = chunk.get("choices")
        if type(entries) is list and len(entries) == 1:
            plain = self.plainly(entries[0])
            if plain is not None:
                return plain
        said = (self._admit(entry) for entry in _objects(entries, "choices"))
        return [choice for choice in said if choice is not None]

    def plainly(self, entry: Any) -> list[dict[str, Any]] | None:
        """What :meth:`admit` returns for a choice that has nothing but text and a finish reason.

        Nearly every chunk of a stream has one such choice, and this takes a fraction of the time. For any other, which
        may be good too, it does nothing and returns ``None``. Raises ``ApiError`` where the text cannot be written.
        """
        if type(entry) is not dict or entry.get("logprobs") or entry.get("extra"):
            return None
        index, delta, finish = entry.get("index"), entry.get("delta"), entry.get("finish_reason")
        if type(index) is not int or not 0 <= index < len(self._choices) or type(delta) is not dict:
            return None
        choice, content = self._choices[index], delta.get("content")
        if choice.extra or choice.state is _FINISHED or len(delta) > ("content" in delta) + ("role" in delta):
            return None
        if (content is not None and type(content) is not str) or not (finish is None or _is_plain(finish)):
            return None
        if not content and finish is None:
            return []
        if content and not content.isascii():
            _checked_text(content)
        first, choice.state = choice.state is _NEW, _OPEN if finish is None else _FINISHED
        said = {"content": content} if content else {}
        return [{"index": index, "delta": said, "logprobs": None, "finish_reason": finish, "first": first}]

    def goes_on(self, index: int) -> bool:
        """Whether a choice that was given a piece of text now would say it, and nothing else."""
        choice = self._choices[index]
        return choice.state is _OPEN and not choice.extra

    def check_whole(self) -> None:
        """Raise ``ApiError`` where the answer is not whole."""
        if not self.finished:
            raise ApiError("upstream_stream_interrupted", detail="a choice has no finish reason")
        if not self._counted:
            raise ApiError("upstream_stream_interrupted", detail="no usage")

    def _admit(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        index = entry.get("index")
        if type(index) is not int or not 0 <= index < len(self._choices):
            _refuse(f"choice index {index!r}")
        choice, finish = self._choices[index], entry.get("finish_reason")
        delta = dict(self._delta(choice, entry.get("delta") or {}))
        logprobs = _checked_logprobs(entry.get("logprobs"))
        extra = choice.extra
        if entry.get("extra"):
            extra = {**extra, **_checked_extra(entry["extra"])}
        if not delta and not logprobs and finish is None:
            if len(extra) <= _MOST_KEPT:
                choice.extra = extra
            return None
        first = _move(choice, finish, index)
        said = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish, "first": first}
        if extra:
            said["extra"], choice.extra = extra, {}
        return said

    def _delta(self, choice: _Choice, delta: Any) -> Iterator[tuple[str, Any]]:
        if not isinstance(delta, dict):
            _refuse("a delta that is no object")
        for name, value in delta.items():
            if not value or name == "role":
                continue
            if name == "tool_calls" and self._calls:
                yield name, [_fragment(choice, fragment) for fragment in _objects(value, name)]
            elif isinstance(value, str):
                yield name, _checked_text(value)
            elif name in ("content", "refusal", "tool_calls", "function_call"):
                _refuse(f"'{name}' in a delta is {type(value).__name__}")
            else:
                yield name, value


def _is_plain(finish: Any) -> bool:
    """Whether a finish reason is one that does not depend on what was said."""
    return type(finish) is str and finish != "tool_calls" and finish in FINISH_REASONS


def _refuse(detail: str) -> NoReturn:
    raise ApiError("upstream_protocol_error", detail=detail)


def _move(choice: _Choice, finish: Any, index: int) -> bool:
    """Take one step of the module's table. Returns whether it was the first."""
    before = choice.state
    if before is ChoiceState.FINISHED:
        _refuse(f"choice {index} goes on after its finish reason")
    if finish is not None and (not isinstance(finish, str) or finish not in FINISH_REASONS):
        _refuse(f"finish reason {finish!r}")
    if finish == "tool_calls" and not choice.calls:
        _refuse(f"choice {index} finishes with a tool call that it does not have")
    choice.state = ChoiceState.OPEN if finish is None else ChoiceState.FINISHED
    return before is ChoiceState.NEW


def _fragment(choice: _Choice, fragment: dict[str, Any]) -> dict[str, Any]:
    """A fragment of a tool call with the fields that its place in the call asks for, and those that nobody knows."""
    index, function = fragment.get("index"), fragment.get("function") or {}
    if not isinstance(function, dict) or fragment.get("type") not in (None, "function"):
        _refuse("a tool call that is no call of a function")
    identity, name, arguments = map(
        _optional_text, (fragment.get("id"), function.get("name"), function.get("arguments"))
    )
    extra = {name: fragment[name] for name in fragment.keys() - _CALL_FIELDS}
    if type(index) is int and index == len(choice.calls) and identity and name:
        choice.calls.append((identity, name))
        function = {"name": name, "arguments": arguments}
        return {"index": index, "id": identity, "type": "function", "function": function, **extra}
    if type(index) is not int or not 0 <= index < len(choice.calls):
        _refuse(f"tool call {index!r} after {len(choice.calls)} calls, with id {identity!r} and name {name!r}")
    head = choice.calls[index]
    if identity not in ("", head[0]) or name not in ("", head[1]):
        _refuse(f"tool call {index} changes its id or name")
    return {"index": index, "function": {"arguments": arguments}, **extra}


def _optional_text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        _refuse(f"a tool call's text is {type(value).__name__}")
    return _checked_text(value)


def _checked_text(text: str) -> str:
    """``text``, which may be anything that UTF-8 can write."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            _refuse("a text with a lone surrogate")
    return text


def _objects(value: Any, name: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        _refuse(f"'{name}' is no list of objects")
    return value


def _checked_usage(usage: Any) -> dict[str, Any]:
    counts: list[Any] = [usage.get(name) for name in _COUNTS] if isinstance(usage, dict) else [None]
    if not all(map(_is_count, counts)) or counts[0] + counts[1] != counts[2]:
        _refuse(f"usage {usage!r:.200}")
    return dict(usage)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_TOKENS


def _checked_extra(extra: Any) -> dict[str, Any]:
    if not isinstance(extra, dict):
        _refuse("'extra' is no object")
    return extra


def _checked_logprobs(logprobs: Any) -> dict[str, Any] | None:
    """``logprobs`` where there are any."""
    if not logprobs:
        return None
    if not isinstance(logprobs, dict):
        _refuse("'logprobs' is no object")
    entries = [entry for name in ("content", "refusal") for entry in _objects(logprobs.get(name), name)]
    for entry in entries:
        tops = entry.get("top_logprobs")
        if tops is None:
            _refuse("an entry of 'logprobs' without 'top_logprobs'")
        if not all(_is_logprob(one) for one in (entry, *_objects(tops, "top_logprobs"))):
            _refuse("an entry of 'logprobs' has no token or no number")
    return {"content": logprobs.get("content"), "refusal": logprobs.get("refusal")} if entries else None


def _is_logprob(entry: dict[str, Any]) -> bool:
    token, logprob = entry.get("token"), entry.get("logprob")
    is_number = isinstance(logprob, int | float) and not isinstance(logprob, bool)
    return isinstance(token, str) and _checked_text(token) is token and is_number
