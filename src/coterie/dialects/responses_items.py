"""Output items of the Responses API, and the events by which each is told. Pure.

An item consists of *pieces* of text: a message of parts with text or refusal, a reasoning item of parts with text, and
of parts with summaries in a list of their own, a function call of its arguments, which are told in the same way but are
no part. :data:`PIECES` says how each kind is named.

The order in which an item is told::

    output_item.added
        content_part.added  ── for each part; of a summary: reasoning_summary_part; arguments have none
            *.delta …
            *.done
        content_part.done
    output_item.done

Where an item stands in the output, and a part in its item, is settled when it begins, and nobody else stands there.
What is closed says its whole text once more. Closing goes on from wherever the telling stopped, so that the end of a
stream which broke off between any two events can be written by whoever finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import orjson

from coterie.wire.ids import new_id

Item: TypeAlias = dict[str, Any]
"""An item in the API's shape."""

Event: TypeAlias = tuple[str, dict[str, Any]]
"""Type and fields of an event, but for its sequence number."""

Seal: TypeAlias = Callable[[str], str]
"""Makes ``encrypted_content`` of a reasoning text."""

ReasoningEvents: TypeAlias = Literal["openai", "open_responses"]
"""Whose names the events of reasoning text have."""

REASONING_STEMS: Final[Mapping[ReasoningEvents, str]] = {
    "openai": "response.reasoning_text",
    "open_responses": "response.reasoning",
}
"""What the names of reasoning events begin with."""


@dataclass(frozen=True, slots=True)
class PieceKind:
    """How a kind of piece is told: the beginning of its events' names, and the field that has its whole text.

    ``parts`` is the list of its item that it is a part of; ``None``: it is no part.
    """

    stem: str
    field: str
    parts: str | None = "content"


PIECES: Final[Mapping[str, PieceKind]] = {
    "output_text": PieceKind("response.output_text", "text"),
    "refusal": PieceKind("response.refusal", "refusal"),
    "reasoning_text": PieceKind(REASONING_STEMS["openai"], "text"),
    "summary_text": PieceKind("response.reasoning_summary_text", "text", "summary"),
    "arguments": PieceKind("response.function_call_arguments", "arguments", None),
}
"""The kinds of pieces, by the type of the part."""

PART_STEMS: Final[Mapping[str, str]] = {
    "content": "response.content_part",
    "summary": "response.reasoning_summary_part",
}
"""What the names of the events of a part begin with, by the list that it is in."""

INDEX_OF: Final[Mapping[str, str]] = {"content": "content_index", "summary": "summary_index"}
"""What the place in such a list is called."""

_ID_PREFIXES: Final[Mapping[str, str]] = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


def new_item_id(kind: str) -> str:
    """An id for an item of type ``kind``."""
    return new_id(_ID_PREFIXES[kind])


class EventWriter:
    """Numbers events and writes them. ``next_number`` is the sequence number of the next."""

    def __init__(self, next_number: int = 0) -> None:
        self.next_number = next_number

    def write(self, event: Event) -> bytes:
        """The bytes of ``event``."""
        kind, fields = event
        number, name = self.next_number, kind.encode()
        self.next_number = number + 1
        head = b'event: %b\ndata: {"type":"%b","sequence_number":%d,' % (name, name, number)
        return head + orjson.dumps(fields)[1:] + b"\n\n"

    def write_delta(self, piece: Piece, text: str) -> bytes:
        """The bytes of the event that adds ``text`` to ``piece``, with nothing beside it; adds it."""
        number = self.next_number
        self.next_number = number + 1
        piece.texts.append(text)
        return piece.template % (number, orjson.dumps(text))


@dataclass(slots=True)
class Piece:
    """A piece of text that grows. ``place`` is what its events say of where it stands."""

    kind: str
    place: dict[str, Any]
    stem: str = ""
    texts: list[str] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    is_told: bool = False
    """Whether the event with its whole text is out."""
    is_closed: bool = False
    template: bytes = b""
    """An event that adds text: a format with a place for its number and one for the text."""

    def __post_init__(self) -> None:
        self.stem = self.stem or PIECES[self.kind].stem
        name = f"{self.stem}.delta".encode()
        place = orjson.dumps(self.place)[1:-1].replace(b"%", b"%%")
        behind = b',"logprobs":[]}' if self.kind == "output_text" else b"}"
        head = b'event: %b\ndata: {"type":"%b","sequence_number":' % (name, name)
        self.template = head + b"%d," + place + b',"delta":%b' + behind + b"\n\n"

    @property
    def text(self) -> str:
        """The whole text so far."""
        return "".join(self.texts)

    def wire(self) -> dict[str, Any]:
        """The part, as the API has it."""
        part: dict[str, Any] = {"type": self.kind, PIECES[self.kind].field: self.text}
        if self.kind == "output_text":
            part |= {"annotations": list(self.annotations), "logprobs": list(self.logprobs)}
        return part

    def opening(self) -> Iterator[Event]:
        """The events that begin it."""
        parts = PIECES[self.kind].parts
        if parts is not None:
            yield f"{PART_STEMS[parts]}.added", {**self.place, "part": self.wire()}

    def add_with(self, text: str, logprobs: list[dict[str, Any]]) -> Event:
        """Add ``text`` with its log probabilities; the event that says so."""
        self.texts.append(text)
        self.logprobs += logprobs
        return f"{self.stem}.delta", {**self.place, "delta": text, "logprobs": logprobs}

    def annotate(self, annotation: dict[str, Any]) -> Event:
        """Add ``annotation``; the event that says so."""
        fields = {**self.place, "annotation_index": len(self.annotations), "annotation": annotation}
        self.annotations.append(annotation)
        return "response.output_text.annotation.added", fields

    def closing(self, beside: Mapping[str, Any]) -> Iterator[Event]:
        """The events that end it, less those that are out. ``beside``: what the first says beside the text."""
        if not self.is_told:
            self.is_told = True
            told: dict[str, Any] = {**self.place, **beside, PIECES[self.kind].field: self.text}
            if self.kind == "output_text":
                told["logprobs"] = list(self.logprobs)
            yield f"{self.stem}.done", told
        parts = PIECES[self.kind].parts
        if parts is not None and not self.is_closed:
            yield f"{PART_STEMS[parts]}.done", {**self.place, "part": self.wire()}
        self.is_closed = True


@dataclass(slots=True)
class OutputItem:
    """An item that grows. ``kind`` is its type, ``index`` its position in the output."""

    kind: str
    id: str
    index: int
    call_id: str = ""
    name: str = ""
    status: str = "in_progress"
    pieces: list[Piece] = field(default_factory=list)
    """All of them, in the order in which they began."""
    parts: dict[str, list[Piece]] = field(default_factory=lambda: {"content": [], "summary": []})
    """Those that are parts, by the list that they are in."""
    sealed: str | None = None
    is_finished: bool = False
    """Whether nothing more comes to it, though it may be waiting to be closed."""
    is_closed: bool = False

    def wire(self) -> Item:
        """The item as the API has it."""
        return {"id": self.id, "type": self.kind, "status": self.status, **_CONTENT[self.kind](self)}

    def add_piece(self, kind: str, stem: str = "") -> Piece:
        """Begin the next piece."""
        place: dict[str, Any] = {"item_id": self.id, "output_index": self.index}
        name = PIECES[kind].parts
        if name is not None:
            place[INDEX_OF[name]] = len(self.parts[name])
        piece = Piece(kind, place, stem)
        self.pieces.append(piece)
        if name is not None:
            self.parts[name].append(piece)
        return piece

    def opening(self) -> Event:
        """The event that begins it."""
        return "response.output_item.added", {"output_index": self.index, "item": self.wire()}

    def closing(self, status: str, seal: Seal | None) -> Iterator[Event]:
        """The events that end it, less those that are out."""
        if self.is_closed:
            return
        for piece in self.pieces:
            yield from self.closing_of(piece)
        self.status, self.is_closed = status, True
        if seal is not None and self.kind == "reasoning":
            # (The text itself, where there is any: it is what a model can go on from.)
            self.sealed = seal("".join(piece.text for piece in self.parts["content"] or self.parts["summary"]))
        yield "response.output_item.done", {"output_index": self.index, "item": self.wire()}

    def closing_of(self, piece: Piece) -> Iterator[Event]:
        """The events that end one of its pieces, less those that are out."""
        return piece.closing({"name": self.name} if self.kind == "function_call" else {})


def _message_content(item: OutputItem) -> Item:
    return {"role": "assistant", "content": _parts(item, "content")}


def _reasoning_content(item: OutputItem) -> Item:
    sealed = {} if item.sealed is None else {"encrypted_content": item.sealed}
    return {"summary": _parts(item, "summary"), "content": _parts(item, "content"), **sealed}


def _parts(item: OutputItem, name: str) -> list[dict[str, Any]]:
    return [piece.wire() for piece in item.parts[name]]


def _call_content(item: OutputItem) -> Item:
    arguments = "".join(piece.text for piece in item.pieces)
    return {"call_id": item.call_id, "name": item.name, "arguments": arguments}


_CONTENT: Final[Mapping[str, Callable[[OutputItem], Item]]] = {
    "message": _message_content,
    "reasoning": _reasoning_content,
    "function_call": _call_content,
}
