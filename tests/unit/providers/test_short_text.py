"""The short way of text: with it or without it, the same comes out, in the same order, wherever the reads are cut."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import ApiError
from coterie.providers import short_text
from coterie.providers.foreign_stream import ForeignStream
from coterie.providers.short_text import ShortText, TextForm
from coterie.wire.http1 import ExchangeError
from coterie.wire.lingua import Chunk, Generation, Shortcut
from coterie.wire.sse import SseError, SseParser

LIMIT_BYTES = 64 * 1024


class Read:
    """``reads`` of a stream, each while the consumer waits, read as the HTTP provider does.

    ``accepts``: whether text is taken, one piece after the other, from the beginning again at their end. ``opens``:
    after how many chunks there is a shortcut, if something was said.
    """

    def __init__(
        self,
        reads: Sequence[bytes],
        *,
        short: bool = True,
        accepts: Sequence[bool] = (True,),
        limit_bytes: int = LIMIT_BYTES,
        count: int = 1,
        opens: int = 0,
    ) -> None:
        self.out: list[Chunk] = []
        self.failure: str | None = None
        self.taken: list[str] = []
        """The texts that took the short way."""
        self.extras: list[dict[str, Any] | None] = []
        self.touches = 0
        self.rests: list[bytes] = []
        """What was left of each read."""
        self.full: list[bytes] = []
        """The pieces of it that were read in full."""
        self._accepts = list(accepts)
        self._calls = 0
        self._placed = 0  # of the texts that were taken
        self._short = short
        self._opens = opens
        self._shortcut = Shortcut()
        self._stream = ForeignStream(Generation("m", {"messages": []}, n=count))
        self._parser = SseParser(LIMIT_BYTES)
        self.way = ShortText(self._parser, self._shortcut, limit_bytes, self._touch)
        try:
            for at, read in enumerate(reads):
                if self._read(read, b"".join(reads[:at])):
                    break
            self.out.append(self._stream.end())
        except ApiError as error:
            self.failure = f"{error.code}: {error.detail}"
        except (SseError, ExchangeError) as error:
            self.failure = str(error)

    def _read(self, data: bytes, before: bytes) -> bool:
        touches = self.touches
        taken = self.way.take(data)
        assert self._past(self.taken[self._placed :], before, data) == len(before) + taken
        assert self.touches - touches == bool(taken)
        rest = data[taken:]
        self.rests.append(rest)
        is_done = bool(rest) and self._in_full(self.way.counted(rest), before + data[:taken])
        assert self.way.size_bytes == len(before) + len(data)
        return is_done

    def _in_full(self, rest: bytes, before: bytes) -> bool:
        at = len(before)
        for piece in self.way.pieces(rest):
            at = self._past(self.taken[self._placed :], before, rest, at)
            assert (before + rest).startswith(piece, at)
            at += len(piece)
            self.full.append(piece)
            if self._is_done_by(piece):
                return True
        assert self._past(self.taken[self._placed :], before, rest, at) == len(before + rest)
        return False

    def _past(self, texts: Sequence[str], before: bytes, data: bytes, at: int | None = None) -> int:
        """Where the stream goes on behind ``texts``, which were taken ``at`` there: each is a whole event."""
        stream, at = before + data, len(before) if at is None else at
        for text in texts:
            begun = SseParser(LIMIT_BYTES)
            begun.feed(stream[:at])
            assert not begun.pending, "taken out of the middle of an event"
            end = stream.index(b"\n\n", at) + 2
            (event_,) = SseParser(LIMIT_BYTES).feed(stream[at:end])
            assert orjson.loads(event_.data)["choices"][0]["delta"]["content"] == text
            at = end
        self._placed += len(texts)
        return at

    def _is_done_by(self, piece: bytes) -> bool:
        events, chunk = self._parser.feed(piece), None
        for event in events:
            chunk = self._stream.feed(event.data)
            if self._stream.done:
                return True
            if chunk is not None:
                self.out.append(chunk)
                if self._short and len(self.out) >= self._opens and any(one["delta"] for one in chunk["choices"]):
                    self._shortcut.take = self._take
        self.way.learn(events, chunk, goes_on=self._stream.goes_on)
        return False

    def _take(self, index: int, text: str, extra: dict[str, Any] | None) -> bool:
        assert text.encode()
        self._calls += 1
        if not self._accepts[(self._calls - 1) % len(self._accepts)]:
            return False
        choice = {"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": None, "first": False}
        self.out.append({"choices": [choice], **({} if extra is None else {"extra": extra})})
        self.taken.append(text)
        self.extras.append(extra)
        return True

    def _touch(self) -> None:
        self.touches += 1


HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "their/name"}
MARK = "MARK"


def dumped(
    delta: Any = None, finish: Any = None, *, spaced: bool = False, ascii_: bool = False, **fields: Any
) -> bytes:
    """An event's JSON; ``ascii_``: with everything else escaped."""
    payload = {**HEAD, "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **fields}
    separators = (", ", ": ") if spaced else (",", ":")
    return json.dumps(payload, ensure_ascii=ascii_, separators=separators).encode()


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def said(text: str, **style: Any) -> bytes:
    return event(dumped({"content": text}, **style))


def around(string: bytes, **style: Any) -> bytes:
    """An event like those of text, with ``string`` where the JSON string stands."""
    return said(MARK, **style).replace(b'"%b"' % MARK.encode(), string)


STOP = event(dumped(finish="stop"))
DONE = event(b"[DONE]")
FIRST = said("one")
"""The form is learned of it: the shortcut is there once something was said."""


# What is taken


@pytest.mark.parametrize(
    "style", [{}, {"spaced": True}, {"ascii_": True}, {"usage": None}, {"system_fingerprint": "x"}]
)
@pytest.mark.parametrize(
    "text", ["three", " ", 'a "quoted" \\ one', "\n\n", "\r\n\r\n", "ü€\U0001f600", "\x00", '"}]}']
)
def test_what_differs_in_its_text_alone_is_taken(text: str, style: dict[str, Any]) -> None:
    first, other = said("one", **style), said(text, **style)
    read = Read([first, other, STOP, DONE])
    assert (read.taken, read.failure) == ([text], None)
    assert read.rests == [first, b"", STOP, DONE]
    assert read.out == Read([first + other + STOP + DONE], short=False).out


def test_several_events_in_one_read_are_taken_up_to_the_first_that_is_not() -> None:
    three, four, half = said("three"), said("four"), said("five")[:20]
    read = Read([FIRST, three + four, three + four + half, said("five")[20:], three + STOP + four])
    assert read.taken == ["three", "four", "three", "four", "three"]
    assert read.rests[1:] == [b"", half, said("five")[20:], STOP + four]
    assert read.touches == 3


def test_a_form_is_learned_of_every_event_that_goes_on() -> None:
    odd = said("three", created=18)
    read = Read([FIRST, odd, said("four"), said("five"), STOP])
    assert read.rests == [FIRST, odd, said("four"), b"", STOP]  # the form is always that of the event before


@pytest.mark.parametrize("role", [{"role": "assistant"}, {"role": "assistant", "content": ""}, {"content": None}])
def test_it_is_learned_of_the_first_text_whatever_came_before(role: dict[str, Any]) -> None:
    read = Read([event(dumped(role)), FIRST, said("two"), STOP, DONE])
    assert (read.taken, read.failure) == (["two"], None)
    assert [choice["first"] for chunk in read.out for choice in chunk["choices"]] == [True, False, False]


def test_nothing_is_taken_before_there_is_a_shortcut() -> None:
    read = Read([FIRST, FIRST, FIRST, STOP, DONE], short=False)
    assert read.taken == []
    assert read.failure is None


def test_what_came_before_the_shortcut_was_not_learned_in_vain() -> None:
    read = Read([*[said("a")] * 20, STOP, DONE], opens=10)
    assert len(read.taken) == 10  # the shortcut is there after ten, and the form with it


BEGUN = [b"data", b"data: ", b"data: {}\n", b"data: {}\r", b"event: x\n", b": hi", b"id: 7", b"\xef\xbb\xbf", b"x: "]


@pytest.mark.parametrize("begun", BEGUN)
def test_nothing_is_taken_out_of_the_middle_of_an_event(begun: bytes) -> None:
    read = Read([FIRST, begun, said("three"), STOP, DONE])
    assert (read.taken, read.rests[2]) == ([], said("three"))
    usual = Read([FIRST + begun + said("three") + STOP + DONE], short=False)
    assert (read.out, read.failure) == (usual.out, usual.failure)
    for reads in ([FIRST + begun, said("three")], [FIRST, begun + said("three")], [FIRST + begun + said("three")]):
        other = Read([*reads, STOP, DONE])
        assert (other.taken, other.out, other.failure) == ([], usual.out, usual.failure)


def test_an_event_of_several_lines_is_no_form_of_one_with_a_line_break() -> None:
    several = dumped({"content": "a"}).replace(b',"choices"', b',\n"choices"')
    as_lines = event(several.replace(b"\n", b"\ndata: "))
    read = Read([FIRST, as_lines, event(several), STOP, DONE])
    assert read.taken == []
    usual = Read([FIRST + as_lines + event(several) + STOP + DONE], short=False)
    assert (read.out, read.failure) == (usual.out, usual.failure)
    assert read.failure is not None


def test_what_passes_through_is_handed_over_with_the_text_and_is_the_same_object() -> None:
    read = Read([*[said(text, system_fingerprint="f", x={"a": 1}) for text in "abcde"], STOP, DONE])
    assert read.taken == ["b", "c", "d", "e"]
    assert read.extras[0] == {"system_fingerprint": "f", "x": {"a": 1}}
    assert read.extras[0] is read.extras[1] is read.extras[2]
    assert Read([FIRST, said("c")]).extras == [None]


LIKE_TEXT: dict[str, bytes] = {
    "nothing": around(b'""'),
    "null": around(b"null"),
    "a number": around(b"17"),
    "a list": around(b'["a"]'),
    "white space before it": around(b' "a"'),
    "white space behind it": around(b'"a" '),
    "a line break before it": around(b'\n"a"'),
    "a line break behind it": around(b'"a"\n'),
    "a line break in it": around(b'"a\nb"'),
    "a blank line in it": around(b'"a\n\nb"'),
    "a CR in it": around(b'"a\rb"'),
    "a NUL in it": around(b'"a\x00b"'),
    "another field behind it": around(b'"a","refusal":"b"'),
    "another text behind it": around(b'"a","content":"b"'),
    "two strings": around(b'"a""b"'),
    "an open string": around(b'"a'),
    "a quote that is escaped": around(b'"a\\"'),
    "the quote of what stands before it alone": around(b'"'),
    "a lone surrogate": around(b'"\\ud800"'),
    "a surrogate in UTF-8": around(b'"\xed\xa0\x80"'),
    "no UTF-8": around(b'"\xff"'),
    "no escape": around(b'"\\x"'),
    "the end of an event and the beginning of the next": around(b'"a"}}]}\n\ndata: {"b":{"c":[{"d":"e"'),
    "one line end": said("a").removesuffix(b"\n"),
    "CRLF": said("a").replace(b"\n", b"\r\n"),
    "CR": said("a").replace(b"\n", b"\r"),
    "no space": said("a").replace(b"data: ", b"data:"),
    "two spaces": said("a").replace(b"data: ", b"data:  "),
    "another field": said("a").replace(b"data: ", b"event: "),
    "a comment": said("a").replace(b"data: ", b":data: "),
    "a comment before it": b": hi\n" + said("a"),
    "a name before it": b"event: x\n" + said("a"),
    "an id before it": b"id: 7\n" + said("a"),
    "a blank line before it": b"\n" + said("a"),
    "a byte order mark": b"\xef\xbb\xbf" + said("a"),
    "a finish reason": event(dumped({"content": "a"}, "stop")),
    "a role": event(dumped({"role": "assistant", "content": "a"})),
    "another choice": said("a").replace(b'"index":0', b'"index":1'),
    "usage": said("a", usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}),
    "an error": said("a", error={"message": "no"}),
    "what is not known": said("a", x=1),
    "its beginning": said("a")[:-9],
    "its end": said("a")[9:],
    "its last byte": b"\n",
    "an event that is empty": b"data: \n\n",
    "the end": DONE,
}  # fmt: skip


@pytest.mark.parametrize("data", LIKE_TEXT.values(), ids=LIKE_TEXT.keys())
def test_what_is_anything_else_is_left_to_be_read_in_full(data: bytes) -> None:
    read = Read([FIRST, data, STOP, DONE])
    assert read.taken == []
    assert read.rests[1] == data
    whole = Read([FIRST + data + STOP + DONE], short=False)
    assert (read.out, read.failure) == (whole.out, whole.failure)
    at_once = Read([FIRST + data + STOP + DONE])
    assert (at_once.taken, at_once.out, at_once.failure) == ([], whole.out, whole.failure)


NO_FORM: dict[str, bytes] = {
    "the text is there twice, and the last counts": around(b'"a","content":"b"'),
    "another field has one of that name": event(dumped({"content": "a"}).replace(b"{", b'{"x":{"content":"y"},', 1)),
    "a field that is read has one": event(dumped({"content": "a"}).replace(b'"chatcmpl-1"', b'{"content":"a"}')),
    "all choices are there twice": event(
        dumped({"content": "a"}).replace(b'"choices"', b'"choices":[{"delta":{"content":"a"}}],"choices"')
    ),
    "the name is escaped": said("a").replace(b"content", b"conten\\u0074"),
    "the name ends another": said("a").replace(b'{"id"', b'{"x\\"content":"a","id"'),
    "several lines": said("a").replace(b',"choices"', b',\ndata: "choices"'),
}


@pytest.mark.parametrize("data", NO_FORM.values(), ids=NO_FORM.keys())
def test_an_event_whose_text_is_not_the_first_string_of_that_name_is_no_form(data: bytes) -> None:
    others = [data.replace(b'"a"', text) for text in (b'"c"', b'"d"')]
    read = Read([FIRST, data, *others, data, STOP, DONE])
    assert read.taken == []
    whole = Read([b"".join(read.rests)], short=False)
    assert (read.out, read.failure) == (whole.out, whole.failure)
    assert whole.failure is None
    at_once = Read([b"".join(read.rests)])
    assert (at_once.taken, at_once.out, at_once.failure) == ([], whole.out, None)


def test_a_name_within_a_string_is_not_taken_for_the_texts() -> None:
    odd = {"system_fingerprint": '"content":"x"', "service_tier": 'y "content": "'}
    read = Read([*[said(text, **odd) for text in "abc"], STOP, DONE])
    assert (read.taken, read.extras) == (["b", "c"], [odd, odd])


def test_no_event_can_be_written_so_that_another_string_passes_for_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[str]()

    def dumps(text: str) -> bytes:
        tried.append(text)
        return orjson.dumps(text)

    json_of = SimpleNamespace(loads=orjson.loads, dumps=dumps, JSONDecodeError=orjson.JSONDecodeError)
    monkeypatch.setattr(short_text, "orjson", json_of)
    first, second = (around(b'"%b","content":"known"' % text) for text in (b"a", b"b"))
    for _ in range(2):
        read = Read([FIRST, first, second, STOP, DONE])
        assert read.out == Read([FIRST + first + second + STOP + DONE], short=False).out
    assert len({*tried}) == len(tried) > 1  # what is tried for the text is another every time


def test_several_choices_have_no_short_way() -> None:
    read = Read([FIRST, said("three"), said("four")], count=2)
    assert read.taken == []


# What is learned


OTHERS: dict[str, bytes] = {
    "a finish reason": STOP,
    "a role": event(dumped({"role": "assistant"})),
    "nothing": event(dumped()),
    "an empty text": said(""),
    "usage": event(dumped(usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2})),
    "what is not known": event(dumped(x=1)),
    "what is not known of a choice": event(dumped().replace(b'"index":0', b'"index":0,"x":1')),
    "a refusal": event(dumped({"refusal": "no"})),
    "a call": event(dumped({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]})),
    "white space": b"data:  \n\n",
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS.keys())
def test_a_form_is_dropped_after_an_event_that_does_more_than_go_on(data: bytes) -> None:
    read = Read([FIRST, said("three"), data, said("four")])
    assert read.taken == ["three"]
    assert read.rests[-1] == said("four")
    whole = Read([FIRST + said("three") + data + said("four")], short=False)
    assert (read.out, read.failure) == (whole.out, whole.failure)
    at_once = Read([FIRST + said("three") + data + said("four")])
    assert (at_once.taken, at_once.out, at_once.failure) == (["three"], whole.out, whole.failure)


@pytest.mark.parametrize("data", [b": hi\n", b": hi\n\n", b"\n", b"id: 7\n\n", b"event: x\n\n", b"retry: 7\n\n"])
def test_but_not_after_what_is_no_event(data: bytes) -> None:
    assert Read([FIRST, said("three"), data, said("four")]).taken == ["three", "four"]


def alternating(served: int) -> Iterator[bytes]:
    """Events of forms that each read ``served`` texts."""
    created = 0
    while True:
        created += 1
        for _ in range(1 + served):
            yield said("a", created=created)


@pytest.mark.parametrize(("served", "gives_up"), [(0, True), (1, True), (3, True), (4, False), (5, False)])
def test_learning_is_given_up_where_forms_do_not_serve(served: int, *, gives_up: bool) -> None:
    events = [*itertools.islice(alternating(served), 200), STOP, DONE]
    read = Read(events)
    assert read.failure is None
    assert all(read.rests[100:]) is gives_up
    if gives_up:
        assert len(read.taken) == 4 * served
    at_once = Read([b"".join(events)])
    assert (at_once.taken, at_once.out, at_once.failure) == (read.taken, read.out, None)


def test_several_texts_in_one_read_serve_as_well_as_several_reads() -> None:
    forms = [(said("a", created=n), said("a", created=n) * 4) for n in range(20)]
    read = Read([*itertools.chain(*forms), STOP, DONE])
    assert len(read.taken) == 20 * 4


@pytest.mark.parametrize("less", [{"opens": 10}, {"accepts": [False] * 9 + [True] * 10}], ids=["late", "refused"])
def test_several_texts_in_one_read_that_is_read_in_full_are_no_forms_in_vain(less: dict[str, Any]) -> None:
    read = Read([said("a") * 10, *[said("b")] * 10, STOP, DONE], **less)
    assert read.full[:10] == [said("a")] * 10
    assert read.taken == ["b"] * 10


def test_a_shortcut_that_refuses_is_asked_again() -> None:
    read = Read([said("a")] * 50, accepts=[False])
    assert read._calls == 2 * 49  # of all but the first, where they come and once more where they are to be read


# What is read in full


def test_of_a_read_of_many_texts_the_first_opens_the_short_way_for_the_rest() -> None:
    texts = ["two", " ", 'a "quoted" \\ one', "\n\n", "\r\n\r\n", "ü€\U0001f600", '"}]}', "data: x"]
    role = event(dumped({"role": "assistant", "content": ""}))
    data = role + FIRST + b"".join(map(said, texts)) + STOP + DONE
    read = Read([data])
    assert (read.taken, read.failure) == (texts, None)
    assert read.full == [role, FIRST, STOP, DONE]
    assert read.out == Read([data], short=False).out
    assert read.touches == 1  # they came together


def test_what_is_refused_in_the_middle_of_a_read_is_read_in_full_and_the_rest_may_be_taken() -> None:
    data = b"".join(map(said, "abcdefghi")) + STOP + DONE
    read = Read([data], accepts=[True, True, False, True])
    assert read.taken == [*"bcefgi"]
    assert read.full == [said("a"), said("d"), said("h"), STOP, DONE]
    assert (read.out, read.failure) == (Read([data], short=False).out, None)
    assert read.touches == 3  # of what was taken between two that were not


def test_where_all_is_refused_all_is_read_in_full_event_by_event() -> None:
    events = [*map(said, "abcdef"), STOP, DONE]
    read = Read([b"".join(events)], accepts=[False])
    assert (read.taken, read.full, read.touches) == ([], events, 0)
    assert (read.out, read.failure) == (Read(events, short=False).out, None)


def test_where_there_is_no_short_way_all_is_read_in_full() -> None:
    events = [*map(said, "abcdef"), STOP, DONE]
    read = Read([b"".join(events)], short=False)
    assert (read.taken, read.full, read.failure) == ([], events, None)


def test_nothing_is_taken_behind_the_end_of_the_stream() -> None:
    read = Read([FIRST + said("two") + STOP + DONE + said("three") + said("four"), said("five")])
    assert (read.taken, read.failure) == (["two"], None)
    assert read.full == [FIRST, STOP, DONE]
    assert len(read.rests) == 1


def test_a_read_that_goes_on_otherwise_is_taken_by_the_form_of_each() -> None:
    before, after = "abc", "def"
    data = b"".join([*map(said, before), *(said(text, x=1) for text in after), STOP, DONE])
    read = Read([data])
    assert read.taken == [*"bcef"]
    assert read.extras == [None, None, {"x": 1}, {"x": 1}]
    assert (read.out, read.failure) == (Read([data], short=False).out, None)


def test_wherever_it_is_cut_only_the_events_at_the_cut_are_read_in_full() -> None:
    texts = ["one", "two", "\n\n ü", '"', "five"]
    events = [*map(said, texts), STOP, DONE]
    data = b"".join(events)
    usual = Read([data], short=False)
    ends = [*itertools.accumulate(map(len, events))]
    for cut in range(1, len(data)):
        halved = {number for number, end in enumerate(ends) if end - len(events[number]) < cut < end}
        if cut + 1 in ends:  # within the blank line, of which the rest is the beginning of the next piece
            halved.add(ends.index(cut + 1) + 1)
        read = Read([data[:cut], data[cut:]])
        assert read.taken == [text for number, text in enumerate(texts) if number not in {0, *halved}]
        assert (read.out, read.failure) == (usual.out, None)


def test_with_other_line_ends_nothing_is_taken_and_nothing_is_cut_out_of_the_middle() -> None:
    for line_end in (b"\r\n", b"\r"):
        data = (b"".join(map(said, ["a", "b", "\n\n", "c"])) + STOP + DONE).replace(b"\n", line_end)
        usual = Read([data.replace(line_end, b"\n")], short=False)
        assert usual.failure is None
        whole = Read([data])
        assert (whole.taken, whole.full, whole.out, whole.failure) == ([], [data], usual.out, None)
        for cut in range(1, len(data)):
            read = Read([data[:cut], data[cut:]])
            assert (read.taken, read.out, read.failure) == ([], usual.out, None)


def test_behind_other_line_ends_the_rest_of_a_read_may_be_taken() -> None:
    other = said("two").replace(b"\n", b"\r\n")
    read = Read([FIRST + other + said("three") + said("four") + STOP + DONE])
    assert read.full == [FIRST, other + said("three"), STOP, DONE]
    assert (read.taken, read.failure) == (["four"], None)


# Bounds


def test_the_bound_of_bytes_is_kept_and_what_would_break_it_is_left() -> None:
    three = said("three")
    limit_bytes = len(FIRST) + 3 * len(three)
    too_long = f"a stream of more than {limit_bytes} bytes"
    exact = Read([FIRST, *[three] * 5], limit_bytes=limit_bytes)
    assert (exact.taken, exact.failure) == (["three"] * 3, too_long)
    assert exact.rests[1:] == [b"", b"", b"", three]
    less = Read([FIRST, three, three * 2 + b":"], limit_bytes=limit_bytes)
    assert (less.taken, less.failure) == (["three"], too_long)


def test_each_byte_is_counted_once_whichever_way_it_takes() -> None:
    data = FIRST + said("three") * 3 + STOP + DONE
    for cut in range(1, len(data)):
        reads = [data[:cut], data[cut:]]
        usual = Read(reads, short=False, limit_bytes=len(data) - 1)
        assert usual.failure == f"a stream of more than {len(data) - 1} bytes"
        for accepts in ([True], [False], [False, True]):
            assert Read(reads, limit_bytes=len(data), accepts=accepts).failure is None
            read = Read(reads, limit_bytes=len(data) - 1, accepts=accepts)
            assert (read.out, read.failure) == (usual.out, usual.failure)


def test_each_read_that_is_taken_of_is_a_sign_of_life_and_no_other() -> None:
    read = Read([FIRST, said("c"), said("d") * 3, said("e") + STOP, said("f"), DONE])
    assert read.touches == 3
    assert Read([FIRST + said("c") * 3, STOP, DONE]).touches == 1
    assert Read([FIRST + STOP, DONE]).touches == 0


# Anything at all

_texts = st.sampled_from(["a", " b", "ü", "\U0001f600", '"', "\\", "\n\n", 'x","content":"y', "[DONE]", "\x7f"]) | (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
)
_styles = st.fixed_dictionaries(
    {"spaced": st.booleans(), "ascii_": st.booleans()},
    optional={
        "usage": st.none(),
        "system_fingerprint": st.sampled_from(["f", '"content":"x"']),
        "x": st.sampled_from([{"content": "y"}, [1], None]),
    },
)
_deltas: st.SearchStrategy[Any] = st.sampled_from(
    [
        {}, {"role": "assistant"}, {"role": "assistant", "content": "r"}, {"content": ""}, {"content": None},
        {"content": [{"type": "text", "text": "part"}]}, {"refusal": "no"}, {"reasoning_content": "hm"},
        {"content": "\ud800"}, {"content": 1},
        {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]},
    ]
)  # fmt: skip
_usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
_odd = st.one_of(
    st.builds(lambda delta: event(json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()), _deltas),
    st.builds(lambda finish: event(dumped(finish=finish)), st.sampled_from(["stop", "length", "eos", "error"])),
    st.sampled_from([*LIKE_TEXT.values(), *NO_FORM.values(), *OTHERS.values()]),
    st.builds(lambda fields: said("u", **fields), st.sampled_from([{"usage": _usage}, {"error": {"message": "no"}}])),
    st.sampled_from(
        [b": hi\n\n", b":\n", b"\n", b"id: 7\n", b"retry: 7\n\n", b"event: x\n", b"data: {oops\n\n", b"\r"]
    ),
    st.binary(max_size=6),
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """The reads of a stream: mostly text of one style."""
    style = draw(_styles)
    plain = st.builds(lambda text: said(text, **style), _texts)
    pieces = draw(st.lists(st.integers(0, 9).flatmap(lambda one: _odd if one == 0 else plain), max_size=14))
    ending = draw(st.sampled_from([b"", STOP, STOP + DONE, event(dumped(usage=_usage)) + DONE]))
    line_end = draw(st.sampled_from([b"\n", b"\n", b"\n", b"\n", b"\r\n"]))
    pieces, ending = [piece.replace(b"\n", line_end) for piece in pieces], ending.replace(b"\n", line_end)
    data = b"".join([*pieces, ending])
    ends = [sum(map(len, pieces[:at])) for at in range(1, len(pieces) + 1)]
    kept = [end for end in ends if draw(st.booleans()) or draw(st.booleans())]
    cuts = sorted({0, len(data), *kept, *draw(st.lists(st.integers(0, len(data)), max_size=2))})
    return [data[one:other] for one, other in itertools.pairwise(cuts)]


@given(
    reads=streams(), accepts=st.lists(st.booleans(), min_size=1, max_size=5), n=st.sampled_from([1, 1, 1, 2]),
    limit_bytes=st.sampled_from([LIMIT_BYTES, LIMIT_BYTES, 400]), opens=st.integers(0, 3),
)  # fmt: skip
def test_with_the_short_way_the_same_comes_out(
    reads: list[bytes], accepts: list[bool], n: int, limit_bytes: int, opens: int
) -> None:
    read = Read(reads, accepts=[True, *accepts], limit_bytes=limit_bytes, count=n, opens=opens)
    usual = Read(reads, short=False, limit_bytes=limit_bytes, count=n)
    assert (read.out, read.failure) == (usual.out, usual.failure)
    assert read.way.size_bytes == usual.way.size_bytes == sum(map(len, reads[: len(read.rests)]))


@given(_texts, _texts, _styles)
def test_the_form_of_an_event_reads_every_other_text(one: str, other: str, style: dict[str, Any]) -> None:
    payload = dumped({"content": one}, **style)
    form = TextForm.of(payload, None)
    if form is None:
        assert b'{"content": "y"}' in payload or b'{"content":"y"}' in payload
    else:
        assert form.text(said(other, **style)) == other
        assert form.index == 0


@given(st.binary(max_size=30))
def test_what_a_form_reads_is_what_json_says(string: bytes) -> None:
    form = TextForm.of(dumped({"content": "a"}), None)
    assert form is not None
    text = form.text(around(b'"%b"' % string))
    try:
        expected = orjson.loads(b'"%b"' % string) or None
    except orjson.JSONDecodeError:
        expected = None
    assert text == expected
