"""The rules of a Responses stream's items, parts and texts: what comes of each, in which order, and adds up to what.

Part of :mod:`coterie.dialects.responses_validator`, which says what is promised. Here is its memory too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import orjson

from coterie.dialects.chat_validator import _is_count, _show
from coterie.dialects.responses_rules import Finding, Json, item_findings, part_findings

MAX_ITEMS: Final = 1024
"""Items of one response that are looked at."""

MAX_PARTS: Final = 1024
"""Parts of one item that are looked at."""

_MAX_ID_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Said:
    """Where the text of an event belongs: into a part of the item's ``list``, else into the item's own ``field``."""

    field: str
    kind: str
    list: str | None = None


TEXTS: Final[Mapping[str, Said]] = {
    "response.output_text": Said("text", "output_text", "content"),
    "response.refusal": Said("refusal", "refusal", "content"),
    "response.reasoning_text": Said("text", "reasoning_text", "content"),
    "response.reasoning": Said("text", "reasoning_text", "content"),
    "response.reasoning_summary_text": Said("text", "summary_text", "summary"),
    "response.function_call_arguments": Said("arguments", "function_call"),
    "response.mcp_call_arguments": Said("arguments", "mcp_call"),
    "response.custom_tool_call_input": Said("input", "custom_tool_call"),
    "response.code_interpreter_call_code": Said("code", "code_interpreter_call"),
}
"""The events of a text by what stands before ``.delta`` and ``.done``."""
PARTS: Final = {"response.content_part": "content", "response.reasoning_summary_part": "summary"}
_FIELD_OF_PART: Final = {said.kind: said.field for said in TEXTS.values() if said.list is not None}
_FIELD_OF_ITEM: Final = {said.kind: said.field for said in TEXTS.values() if said.list is None}
_INDEX_OF: Final = {"content": "content_index", "summary": "summary_index"}


_Thing = TypeVar("_Thing")
_Found = Generator[Finding, None, _Thing | None]
"""Findings, and in the end the thing that was looked for, if it is there."""


# State: what must be remembered of the events so far.


class _Text:
    """A text that comes in pieces, by its length and digest."""

    __slots__ = ("_hash", "deltas", "done", "length")

    def __init__(self, begin: object) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.length = 0
        self.deltas = 0
        self.done: bytes | None = None
        """The digest of what the done event said."""
        if isinstance(begin, str):
            self._hash.update(begin.encode())
            self.length = len(begin)

    def add(self, delta: str) -> None:
        self._hash.update(delta.encode())
        self.length += len(delta)
        self.deltas += 1

    @property
    def digest(self) -> bytes:
        return self._hash.digest()


@dataclass(slots=True)
class _Part:
    kind: str
    text: _Text
    closed: bool = False


@dataclass(slots=True)
class _Item:
    id: str
    kind: str
    text: _Text
    parts: dict[tuple[str, int], _Part] = field(default_factory=dict)
    done: bytes | None = None
    """The digest of the item as it was when done; empty where none can be made."""


@dataclass(slots=True)
class Stream:
    """What is remembered of a stream."""

    sequence: int = 0
    id: str | None = None
    seen: set[str] = field(default_factory=set)
    """The lifecycle events so far."""
    items: dict[int, _Item] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    events: int = 0
    error_events: int = 0
    after_error: bool = False
    terminal: str | None = None


# Items


def judge_item(stream: Stream, step: str, event: Json) -> Iterator[Finding]:
    """An item is added or done, by ``step``."""
    item, index = event.get("item"), event.get("output_index")
    if not isinstance(item, dict) or not isinstance(index, int) or not _is_count(index):
        return
    yield from item_findings(item, "item")
    yield from (_item_added if step == "added" else _item_done)(stream, item, index)


def _item_added(stream: Stream, item: Json, index: int) -> Iterator[Finding]:
    if "response.in_progress" not in stream.seen:
        yield "progress-order", "an item comes before response.in_progress"
        stream.seen.add("response.in_progress")  # told once
    if item.get("status", "in_progress") != "in_progress":
        yield "item-status", f"the item is added with the status {_show(item['status'])}"
    if index != len(stream.items) or index >= MAX_ITEMS:
        yield "item-index", f"output_index is {index} after {len(stream.items)} items"
    if index in stream.items or index >= MAX_ITEMS:
        return
    given = short_id(item.get("id"))
    if given in stream.ids:
        yield "item-id", f"the id {_show(given)} is an earlier item's"
    stream.ids.add(given)
    kind = str(item.get("type"))
    stream.items[index] = _Item(given, kind, _Text(item.get(_FIELD_OF_ITEM.get(kind, ""))))


def _item_done(stream: Stream, item: Json, index: int) -> Iterator[Finding]:
    known = yield from _find(stream, index, item.get("id"))
    if known is None:
        return
    status = item.get("status", "completed")
    if status not in ("completed", "incomplete"):
        yield "item-status", f"the item is done with the status {_show(status)}"
    yield from _parts_closed(known, item)
    own = _FIELD_OF_ITEM.get(known.kind)
    if own is not None:
        yield from _text_kept(known.text, item.get(own), f"item.{own}")
        yield from _text_done(known.text, f"item.{own}", whole=status != "incomplete")
    known.done = digest_of(item)


def _parts_closed(known: _Item, item: Json) -> Iterator[Finding]:
    for (name, index), part in known.parts.items():
        if not part.closed:
            yield "part-closed", f"{name}[{index}] is open when its item is done"
        parts = item.get(name)
        given = parts[index] if isinstance(parts, list) and index < len(parts) else None
        if not isinstance(given, dict):
            yield "text-same", f"item.{name}[{index}] is missing"
        else:
            yield from _text_kept(part.text, given.get(_FIELD_OF_PART.get(part.kind, "")), f"item.{name}[{index}]")
    for name in _INDEX_OF:
        parts = item.get(name)
        count = sum(key[0] == name for key in known.parts)
        if isinstance(parts, list) and len(parts) > count:
            yield "part-first", f"item.{name}[{count}] never came as an event"


def judge_of_item(stream: Stream, event: Json) -> Iterator[Finding]:
    """An event of which only its item is known."""
    if _is_count(event.get("output_index")) and isinstance(event.get("item_id"), str):
        yield from _find(stream, event["output_index"], event["item_id"])


def _find(stream: Stream, index: object, given: object) -> _Found[_Item]:
    """The open item that an event is about, if it is there."""
    item = stream.items.get(index) if isinstance(index, int) else None
    if item is None:
        yield "item-first", f"no item was added at output_index {_show(index)}"
        return None
    if item.done is not None:
        yield "item-last", f"the item at output_index {index} is done"
        return None
    if not isinstance(given, str) or short_id(given) != item.id:
        yield "item-id", f"the id is {_show(given)}, but was {_show(item.id)}"
    return item


# Parts and texts


def judge_part(stream: Stream, name: str, step: str, event: Json) -> Iterator[Finding]:
    """A part of the item's list ``name`` is added or done, by ``step``."""
    part, index = event.get("part"), event.get(_INDEX_OF[name])
    if not isinstance(part, dict) or not isinstance(index, int) or not _is_count(index):
        return
    item = yield from _find(stream, event.get("output_index"), event.get("item_id"))
    yield from part_findings(part, "part")
    if item is None:
        return
    if step == "added":
        yield from _part_added(item, name, index, part)
    else:
        yield from _part_done(item, name, index, part)


def _part_added(item: _Item, name: str, index: int, part: Json) -> Iterator[Finding]:
    expected = sum(key[0] == name for key in item.parts)
    if index != expected or index >= MAX_PARTS:
        yield "part-index", f"{_INDEX_OF[name]} is {index} after {expected} parts"
    if (name, index) not in item.parts and index < MAX_PARTS:
        kind = str(part.get("type"))
        item.parts[name, index] = _Part(kind, _Text(part.get(_FIELD_OF_PART.get(kind, ""))))


def _part_done(item: _Item, name: str, index: int, part: Json) -> Iterator[Finding]:
    known = yield from _find_part(item, name, index)
    if known is None:
        return
    known.closed = True
    if part.get("type") != known.kind:
        yield "text-kind", f"the part is {_show(part.get('type'))}, but was {_show(known.kind)}"
        return
    own = _FIELD_OF_PART.get(known.kind)
    if own is not None:
        yield from _text_kept(known.text, part.get(own), f"part.{own}")
        yield from _text_done(known.text, f"part.{own}", whole=True)


def _find_part(item: _Item, name: str, index: object) -> _Found[_Part]:
    part = item.parts.get((name, index)) if isinstance(index, int) else None
    if part is None:
        yield "part-first", f"no part was added at {_INDEX_OF[name]} {_show(index)}"
    elif part.closed:
        yield "part-last", f"the part at {_INDEX_OF[name]} {index} is done"
        return None
    return part


def judge_text(stream: Stream, said: Said, step: str, event: Json) -> Iterator[Finding]:
    """A delta of a text, or all of it, by ``step``."""
    item = yield from _find(stream, event.get("output_index"), event.get("item_id"))
    if item is None:
        return
    holder: _Item | _Part | None = item
    if said.list is not None:
        holder = yield from _find_part(item, said.list, event.get(_INDEX_OF[said.list]))
    if holder is None:
        return
    if holder.kind != said.kind:
        yield "text-kind", f"a text for {said.kind} comes to {_show(holder.kind)}"
        return
    yield from _say(holder.text, event.get("delta" if step == "delta" else said.field), step)


def _say(text: _Text, value: object, step: str) -> Iterator[Finding]:
    if text.done is not None:
        yield "text-done", f"a {step} event follows the done event of its text"
    if not isinstance(value, str):
        return
    if step == "delta":
        text.add(value)
        return
    text.done = _text_digest(value)
    if text.done != text.digest:
        yield "text-sum", f"the deltas make {text.length} characters, the done event says {len(value)}, or others"


def _text_kept(text: _Text, value: object, path: str) -> Iterator[Finding]:
    """A part or item says the text of its done event, or that of its deltas where there was none."""
    known = text.digest if text.done is None else text.done
    if isinstance(value, str) and _text_digest(value) != known:
        yield "text-same", f"{path} has {len(value)} characters and differs from what the events said"


def _text_done(text: _Text, path: str, *, whole: bool) -> Iterator[Finding]:
    if whole and text.done is None and text.deltas:
        yield "text-done", f"{path} is closed without a done event of its text"


def judge_annotation(stream: Stream, event: Json) -> Iterator[Finding]:
    """An annotation of a part."""
    item = yield from _find(stream, event.get("output_index"), event.get("item_id"))
    if item is not None:
        yield from _find_part(item, "content", event.get("content_index"))


def _text_digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def digest_of(value: object) -> bytes:
    """A digest of a JSON value; empty for one that is nested too deeply."""
    try:
        return hashlib.blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
    except orjson.JSONEncodeError:
        return b""


def short_id(value: object) -> str:
    """An id, or what stands for a very long one."""
    text = str(value)
    return text if len(text) <= _MAX_ID_CHARS else f"{text[:40]}...{_text_digest(text).hex()}"
