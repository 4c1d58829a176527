"""Reading named events strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.dialects.responses_reader import NamedSseReader
from coterie.wire.sse import FramingFault, SseEvent


def read(*reads: bytes, limit: int = 1024) -> list[SseEvent | FramingFault]:
    reader = NamedSseReader(limit)
    return [item for part in reads for item in reader.feed(part)] + reader.end()


def named(body: bytes) -> list[tuple[str | None, bytes]]:
    found = read(body)
    assert not any(isinstance(item, FramingFault) for item in found)
    return [(item.event, item.data) for item in found if isinstance(item, SseEvent)]


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"event: a\ndata: 1\n\n", [("a", b"1")]),
        (b"event:a\ndata:1\n\n", [("a", b"1")]),
        (b"data: 1\n\n", [(None, b"1")]),
        (b"event: a\n: hi\ndata: 1\n\ndata: 2\n\n", [("a", b"1"), (None, b"2")]),
        (b"event: \ndata: 1\n\n", [("", b"1")]),
        (b"event: a\ndata: 1\n\ndata: [DONE]\n\n", [("a", b"1"), (None, b"[DONE]")]),
    ],
)
def test_events_have_their_names(body: bytes, events: list[tuple[str | None, bytes]]) -> None:
    assert named(body) == events


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        (b"event: a\n\n", ["framing-event"]),
        (b"event: a\nevent: b\ndata: 1\n\n", ["framing-event"]),
        (b"data: 1\nevent: a\n\n", ["framing-event"]),
        (b"event: a\n", ["framing-complete"]),
        (b"event: a\ndata: 1\n", ["framing-complete"]),
        (b"id: 1\ndata: 1\n\n", ["framing-field"]),
        (b"data: [DONE]\n\nevent: a\n\n", ["done-last", "done-last"]),
        (b"event: " + b"a" * 2000 + b"\ndata: 1\n\n", ["framing-size"]),
        (b"event: " + b"a" * 600 + b"\n" + b"data: " + b"1" * 600 + b"\n\n", ["framing-size"]),
    ],
)
def test_faults(body: bytes, rules: list[str]) -> None:
    assert [item.rule for item in read(body) if isinstance(item, FramingFault)] == rules


def test_what_is_too_long_does_not_spoil_what_follows() -> None:
    *_, last = read(b"event: " + b"a" * 2000 + b"\ndata: 1\n\nevent: b\ndata: 2\n\n")
    assert last == SseEvent("b", b"2")


bits = st.sampled_from(
    [b"event: a\n", b"event:", b"data: 1\n", b"\n", b"\r", b": c\n", b"data: [DONE]\n\n", b"x" * 600]
)


@given(st.lists(bits, max_size=12).map(b"".join), st.data())
def test_how_it_is_cut_changes_nothing(body: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    assert read(*(body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True))) == read(body)
