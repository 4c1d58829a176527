"""Items of the Responses API: how each is told, from the first event to the last."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from coterie.dialects.responses_items import PIECES, EventWriter, OutputItem, Piece, new_item_id


def types(events: Any) -> list[str]:
    return [kind for kind, _ in events]


@pytest.mark.parametrize(
    ("kind", "prefix"), [("message", "msg_"), ("reasoning", "rs_"), ("function_call", "fc_")]
)  # fmt: skip
def test_ids_say_what_they_are_of(kind: str, prefix: str) -> None:
    assert new_item_id(kind).startswith(prefix)
    assert new_item_id(kind) != new_item_id(kind)


def test_events_are_numbered_and_named() -> None:
    writer = EventWriter(7)
    assert writer.write(("x.y", {"a": "\n"})) == (
        b'event: x.y\ndata: {"type":"x.y","sequence_number":7,"a":"\\n"}\n\n'
    )  # fmt: skip
    assert writer.next_number == 8


@pytest.mark.parametrize("kind", PIECES)
def test_a_delta_is_written_as_any_other_event(kind: str) -> None:
    """The short way and the long way make the same bytes, for text with everything that could be taken for more."""
    text = '%d %b %% "\\\n\r\u2028\U0001f600'
    item = OutputItem("message", "msg_%d", 3)
    piece, twin = item.add_piece(kind), item.add_piece(kind)
    twin.place = piece.place
    short = EventWriter(5).write_delta(piece, text)
    name, fields = twin.add_with(text, [])
    if kind != "output_text":
        del fields["logprobs"]
    assert short == EventWriter(5).write((name, fields))
    assert piece.text == twin.text == text


def test_a_part_knows_its_place() -> None:
    item = OutputItem("message", "msg_1", 2)
    item.add_piece("output_text")
    assert item.add_piece("refusal").place == {"item_id": "msg_1", "output_index": 2, "content_index": 1}
    assert item.add_piece("arguments").place == {"item_id": "msg_1", "output_index": 2}


def test_summaries_are_in_a_list_of_their_own() -> None:
    item = OutputItem("reasoning", "rs_1", 2)
    pieces = [item.add_piece(kind) for kind in ("reasoning_text", "summary_text", "reasoning_text", "summary_text")]
    place = {"item_id": "rs_1", "output_index": 2}
    assert [piece.place for piece in pieces] == [
        {**place, "content_index": 0}, {**place, "summary_index": 0}, {**place, "content_index": 1},
        {**place, "summary_index": 1},
    ]  # fmt: skip
    for piece, text in zip(pieces, "abcd", strict=True):
        piece.texts.append(text)
    assert types(pieces[1].opening()) == ["response.reasoning_summary_part.added"]
    assert types(item.closing_of(pieces[1])) == [
        "response.reasoning_summary_text.done", "response.reasoning_summary_part.done",
    ]  # fmt: skip
    wire = item.wire()
    assert wire["content"] == [{"type": "reasoning_text", "text": "a"}, {"type": "reasoning_text", "text": "c"}]
    assert wire["summary"] == [{"type": "summary_text", "text": "b"}, {"type": "summary_text", "text": "d"}]


@pytest.mark.parametrize(("kinds", "sealed"), [(["summary_text", "reasoning_text"], "1"), (["summary_text"], "0")])
def test_what_is_sealed_is_the_text_or_else_the_summary(kinds: list[str], sealed: str) -> None:
    item = OutputItem("reasoning", "rs_1", 0)
    for number, kind in enumerate(kinds):
        item.add_piece(kind).texts.append(str(number))
    list(item.closing("completed", lambda text: text))
    assert item.sealed == sealed


def test_what_is_told_is_not_told_again() -> None:
    item = OutputItem("message", "msg_1", 0)
    piece = item.add_piece("output_text")
    piece.texts.append("a")
    telling = item.closing_of(piece)
    assert next(telling)[0] == "response.output_text.done"
    assert types(item.closing("incomplete", None)) == ["response.content_part.done", "response.output_item.done"]
    assert types(item.closing("completed", None)) == []
    assert item.status == "incomplete"


def test_a_call_is_no_part() -> None:
    item = OutputItem("function_call", "fc_1", 0, call_id="c", name="f")
    piece = item.add_piece("arguments")
    assert types(piece.opening()) == []
    told, done = item.closing("completed", lambda text: text)
    assert told[1] == {"item_id": "fc_1", "output_index": 0, "name": "f", "arguments": ""}
    assert done[1]["item"] == {
        "id": "fc_1", "type": "function_call", "status": "completed", "call_id": "c", "name": "f", "arguments": "",
    }  # fmt: skip


def test_events_do_not_change_with_what_comes_later() -> None:
    piece = Piece("output_text", {"item_id": "msg_1"})
    piece.add_with("a", [{"token": "a"}])
    (told, part) = list(piece.closing({}))
    before = orjson.dumps([told, part])
    piece.add_with("b", [{"token": "b"}])
    piece.annotate({"type": "url_citation"})
    assert orjson.dumps([told, part]) == before
