"""The event stream parsers: the standard's rules by table, and reads cut anywhere by Hypothesis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.wire.sse import FRAMING_RULES, FramingFault, SseError, SseEvent, SseParser, StrictSseReader

BOM = b"\xef\xbb\xbf"

STANDARD = {
    "one event": (b"data: a\n\n", [(None, b"a")]),
    "several in one read": (b"data: a\n\ndata: b\n\n", [(None, b"a"), (None, b"b")]),
    "CR": (b"data: a\r\rdata: b\r\r", [(None, b"a"), (None, b"b")]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [(None, b"a"), (None, b"b")]),
    "CRLF in an event of LF": (b"data: a\r\n\ndata: b\n\r\n", [(None, b"a"), (None, b"b")]),
    "other line separators are text": (b"data: a\x0b\x0c\x1c\xc2\x85\n\n", [(None, b"a\x0b\x0c\x1c\xc2\x85")]),
    "byte order mark": (BOM + b"data: a\n\n", [(None, b"a")]),
    "only the first byte order mark is one": (BOM * 2 + b"data: a\n\n", []),
    "a later byte order mark is text": (b"data: a\n\n" + BOM + b"data: b\n\n", [(None, b"a")]),
    "comments": (b": hi\n\ndata: a\n:\ndata: b\n\n: bye\n\n", [(None, b"a\nb")]),
    "event name": (b"event: ping\ndata: a\n\ndata: b\n\n", [("ping", b"a"), (None, b"b")]),
    "the last event name counts": (b"event: x\nevent: y\ndata: a\n\n", [("y", b"a")]),
    "an empty event name is none": (b"event: x\nevent:\ndata: a\n\n", [(None, b"a")]),
    "an event name without data is nothing": (b"event: x\n\ndata: a\n\n", [(None, b"a")]),
    "data lines are joined": (b"data: a\ndata:\ndata: b\n\n", [(None, b"a\n\nb")]),
    "one space is skipped": (b"data:a\n\ndata:  b\n\n", [(None, b"a"), (None, b" b")]),
    "empty data is data": (b"data\n\ndata:\n\ndata: \n\n", [(None, b""), (None, b""), (None, b"")]),
    "unknown fields are ignored": (b"date: x\nDATA: x\n data: x\nfoo\ndata: a\n\n", [(None, b"a")]),
    "more blank lines": (b"\n\ndata: a\n\n\n\ndata: b\n\n", [(None, b"a"), (None, b"b")]),
    "an unfinished event is none": (b"data: a\n\ndata: b\n", [(None, b"a")]),
    "nothing": (b"", []),
}


def events_of(*reads: bytes) -> list[tuple[str | None, bytes]]:
    parser = SseParser()
    return [(event.event, event.data) for read in reads for event in parser.feed(read)]


@pytest.mark.parametrize(("stream", "expected"), STANDARD.values(), ids=STANDARD.keys())
def test_the_standard_in_one_read_and_byte_by_byte(stream: bytes, expected: list[tuple[str | None, bytes]]) -> None:
    assert events_of(stream) == expected
    assert events_of(*(stream[i : i + 1] for i in range(len(stream)))) == expected


def test_the_last_id_is_kept_when_its_event_ends() -> None:
    parser = SseParser()
    parser.feed(b"id: 7\ndata: a\n")
    assert parser.last_event_id == ""
    parser.feed(b"\ndata: b\n\n")
    assert parser.last_event_id == "7"
    parser.feed(b"id: 8\0\ndata: c\n\n")
    assert parser.last_event_id == "7"
    parser.feed(b"id\ndata: d\n\n")
    assert parser.last_event_id == ""


@pytest.mark.parametrize(
    ("value", "retry_ms"),
    [(b"3000", 3000), (b"3s", None), (b"", None), (b"-1", None), (b"9" * 9999, None)],
)
def test_retry_is_a_whole_number(value: bytes, retry_ms: int | None) -> None:
    parser = SseParser()
    parser.feed(b"retry: " + value + b"\n")
    assert parser.retry_ms == retry_ms


@pytest.mark.parametrize(
    ("stream", "pending"),
    [
        (b"", False),
        (b"data: a\n\n", False),
        (b"data: a\r\r", False),
        (b": comment\n", False),
        (b"id: 7\n", False),
        (b"data: a\n", True),
        (b"data:\n", True),
        (b"data: a", True),
        (b"data: a\n\nd", True),
        (b"event: x\n", True),
    ],
)
def test_pending_reports_an_unfinished_event(stream: bytes, pending: bool) -> None:
    parser = SseParser()
    parser.feed(stream)
    assert parser.pending is pending


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"a" * 15 + b"\n\n",
        b"data: " + b"a" * 15,
        b"data: aaaa\ndata: aaaaa\n\n",
        b"event: aaaaaaaaa\ndata: a\n\n",
        b": aaaaaaaaaaaaaaaaaaa\n",
        b"data: a\n: aaaaaaaaaaaaaaa",
    ],
)
def test_too_long_an_event_is_an_error_and_stays_one(stream: bytes) -> None:
    parser = SseParser(max_event_bytes=20)
    with pytest.raises(SseError, match="longer than 20 bytes") as caught:
        parser.feed(b"data: ok\n\n" + stream)
    assert caught.value.events == [SseEvent(None, b"ok")]
    with pytest.raises(SseError):
        parser.feed(b"data: ok\n\n")


def test_an_event_of_just_the_limit_passes_again_and_again() -> None:
    parser = SseParser(max_event_bytes=20)
    lines = b"data: " + b"a" * 14 + b"\n\n" + b"data: aaaa\ndata: aaaa\n\n" + b": comment comment\n" * 3
    for _ in range(3):
        assert [event.data for event in parser.feed(lines)] == [b"a" * 14, b"aaaa\naaaa"]


pieces = st.sampled_from(
    [b"data: ", b"data:", b"event: e", b"id: 1", b"retry: 5", b": c", b"x", b"\n", b"\n\n", b"\r", b"\r\n", BOM, b"\0"]
)
streams = st.one_of(st.binary(max_size=60), st.lists(pieces, max_size=30).map(b"".join))


@st.composite
def reads_of_a_stream(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    stream = draw(streams)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return stream, [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def outcome_of(reads: list[bytes], limit: int) -> tuple[object, ...]:
    parser = SseParser(max_event_bytes=limit)
    events: list[SseEvent] = []
    try:
        for read in reads:
            events += parser.feed(read)
    except SseError as error:
        return (*events, *error.events, "too long")
    return (*events, parser.pending, parser.last_event_id, parser.retry_ms)


@given(reads_of_a_stream(), st.sampled_from([12, 1000]))
def test_a_cut_changes_nothing(case: tuple[bytes, list[bytes]], limit: int) -> None:
    stream, reads = case
    assert outcome_of(reads, limit) == outcome_of([stream], limit)


def strict(*reads: bytes, limit: int = 1000) -> list[SseEvent | FramingFault]:
    reader = StrictSseReader(max_event_bytes=limit)
    return [item for read in reads for item in reader.feed(read)] + reader.end()


FAULTS = {
    "framing-bom": BOM + b"data: a\n\n",
    "framing-lf": b"data: a\r\n\n",
    "framing-field": b"id: 1\ndata: a\n\n",
    "framing-one-line": b"data: a\ndata: b\n\n",
    "framing-empty-data": b"data:\n\n",
    "framing-complete": b"data: a\n\ndata: b\n",
    "framing-size": b"data: " + b"a" * 1000 + b"\n\n",
    "done-last": b"data: [DONE]\n\n\n",
}


@pytest.mark.parametrize("length", [985, 986, 987, 988, 989, 990, 991, 995, 5000])
def test_too_long_an_event_is_skipped_as_a_whole(length: int) -> None:
    stream = b"data: " + b"a" * length + b"\ndata: bbbb\nid: 1\ndata: c\n\ndata: ok\n\n"
    for reads in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
        fault, event = strict(*reads)
        assert isinstance(fault, FramingFault)
        assert fault.rule == "framing-size"
        assert event == SseEvent(None, b"ok")


@pytest.mark.parametrize(("rule", "stream"), FAULTS.items(), ids=FAULTS.keys())
def test_each_framing_rule_is_found(rule: str, stream: bytes) -> None:
    assert [item.rule for item in strict(stream) if isinstance(item, FramingFault)] == [rule]


def test_there_is_a_broken_stream_for_each_framing_rule() -> None:
    assert FAULTS.keys() == FRAMING_RULES.keys()


def test_a_well_framed_stream_is_only_events() -> None:
    assert strict(b": hi\n\ndata: a\n\ndata:b\n\ndata: [DONE]\n\n") == [
        SseEvent(None, data) for data in (b"a", b"b", b"[DONE]")
    ]


@given(reads_of_a_stream(), st.sampled_from([12, 1000]))
def test_a_cut_changes_no_fault(case: tuple[bytes, list[bytes]], limit: int) -> None:
    stream, reads = case
    assert strict(*reads, limit=limit) == strict(stream, limit=limit)


@given(st.lists(st.binary(min_size=1, max_size=20).filter(lambda data: not {10, 13} & {*data}), max_size=6))
def test_both_readers_agree_on_a_well_framed_stream(texts: list[bytes]) -> None:
    stream = b"".join(b"data: " + text + b"\n\n" for text in texts if text != b"[DONE]")
    assert strict(stream) == list(SseParser().feed(stream))


# Between two events


@pytest.mark.parametrize(
    ("reads", "at_rest"),
    [
        ((), False),  # a byte order mark may come
        ((b"data: a\n\n",), True),
        ((b"data: a\n\ndata: b\n\n",), True),
        ((b"data: a\r\n\r\n",), True),
        ((b"data: a\r\r",), False),  # a LF may come
        ((b"data: a\r\r", b"\n"), True),
        ((b"data: a\r\r", b""), False),
        ((b"data: a\n",), False),
        ((b"data: a\n\nd",), False),
        ((b"data: a\n\ndata: b\n",), False),
        ((b"data: a\n\n", b"event: x\n"), False),
        ((b"data: a\n\n", b"event: x\n", b"\n"), True),
        ((b"data: a\n\n", b": hi\n"), True),
        ((b"data: a\n\n", b": hi"), False),
        ((b"data: a\n\n", b"id: 7\n"), True),
        ((BOM[:2],), False),
        ((BOM,), False),
        ((BOM + b"data: a\n\n",), True),
        ((b"data: a", b"\n\n"), True),
        ((b"data: a\n", b"\n"), True),
    ],
)
def test_at_rest_is_between_two_events(reads: tuple[bytes, ...], *, at_rest: bool) -> None:
    parser = SseParser()
    for read in reads:
        parser.feed(read)
    assert parser.at_rest is at_rest


_pieces = [b"data: a\n\n", b"data", b": x", b"\n", b"\r", b"\r\n", b"id: 7\n", b"event: x\n", BOM, b""]


@given(st.lists(st.sampled_from(_pieces), max_size=9))
def test_at_rest_whole_events_may_be_left_out(reads: list[bytes]) -> None:
    reads_all, short_of_them = SseParser(), SseParser()
    for read in reads:
        assert reads_all.feed(read) == short_of_them.feed(read)
        if short_of_them.at_rest:
            assert reads_all.feed(b"data: b\n\n") == [SseEvent(None, b"b")]
        assert reads_all.at_rest == short_of_them.at_rest


def test_a_parser_that_was_given_too_much_is_not_at_rest() -> None:
    parser = SseParser(8)
    parser.feed(b"data: a\n\n")
    with pytest.raises(SseError):
        parser.feed(b"data: " + b"b" * 9 + b"\n\n")
    assert not parser.at_rest
