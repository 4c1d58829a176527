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
        self._accepts = list(accepts)
        self._calls = 0
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
        except SseError as error:
            self.failure = str(error)

    def _read(self, data: bytes, before: bytes) -> bool:
        touches = self.touches
        taken = self.way.take(data)
        if taken:
            begun = SseParser(LIMIT_BYTES)
            begun.feed(before)
            assert not begun.pending, "taken out of the middle of an event"
            assert data[:taken].endswith(b"\n\n")
        assert self.touches - touches == bool(taken)
        rest = data[taken:]
        self.rests.append(rest)
        return bool(rest) and self._in_full(rest)

    def _in_full(self, rest: bytes) -> bool:
        events, chunk = self._parser.feed(rest), None
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
FIRST, SECOND = said("one"), said("two")
"""Of the second event the form is learned: the shortcut is there once something was said."""


# What is taken


@pytest.mark.parametrize(
    "style", [{}, {"spaced": True}, {"ascii_": True}, {"usage": None}, {"system_fingerprint": "x"}]
)
@pytest.mark.parametrize(
    "text", ["three", " ", 'a "quoted" \\ one', "\n\n", "\r\n\r\n", "ü€\U0001f600", "\x00", '"}]}']
)
def test_what_differs_in_its_text_alone_is_taken(text: str, style: dict[str, Any]) -> None:
    read = Read([said("one", **style), said("two", **style), said(text, **style), STOP, DONE])
    assert (read.taken, read.failure) == ([text], None)
    assert read.rests == [said("one", **style), said("two", **style), b"", STOP, DONE]
    assert read.out == Read([b"".join(read.rests[:2]) + said(text, **style) + STOP + DONE], short=False).out


def test_several_events_in_one_read_are_taken_up_to_the_first_that_is_not() -> None:
    three, four, half = said("three"), said("four"), said("five")[:20]
    read = Read([FIRST, SECOND, three + four, three + four + half, said("five")[20:], three + STOP + four])
    assert read.taken == ["three", "four", "three", "four", "three"]
    assert read.rests[2:] == [b"", half, said("five")[20:], STOP + four]
    assert read.touches == 3


def test_a_form_is_learned_of_every_event_that_goes_on() -> None:
    odd = said("three", created=18)
    read = Read([FIRST, SECOND, odd, said("four"), said("five"), STOP])
    assert read.rests == [FIRST, SECOND, odd, said("four"), b"", STOP]  # the form is always that of the event before


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
    read = Read([FIRST, SECOND, begun, said("three"), STOP, DONE])
    assert (read.taken, read.rests[3]) == ([], said("three"))
    usual = Read([FIRST + SECOND + begun + said("three") + STOP + DONE], short=False)
    assert (read.out, read.failure) == (usual.out, usual.failure)


def test_an_event_of_several_lines_is_no_form_of_one_with_a_line_break() -> None:
    several = dumped({"content": "a"}).replace(b',"choices"', b',\n"choices"')
    as_lines = event(several.replace(b"\n", b"\ndata: "))
    read = Read([FIRST, SECOND, as_lines, event(several), STOP, DONE])
    assert read.taken == []
    usual = Read([FIRST + SECOND + as_lines + event(several) + STOP + DONE], short=False)
    assert (read.out, read.failure) == (usual.out, usual.failure)
    assert read.failure is not None


def test_what_passes_through_is_handed_over_with_the_text_and_is_the_same_object() -> None:
    read = Read([*[said(text, system_fingerprint="f", x={"a": 1}) for text in "abcde"], STOP, DONE])
    assert read.taken == ["c", "d", "e"]
    assert read.extras[0] == {"system_fingerprint": "f", "x": {"a": 1}}
    assert read.extras[0] is read.extras[1] is read.extras[2]
    assert Read([FIRST, SECOND, said("c")]).extras == [None]


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
    read = Read([FIRST, SECOND, data, STOP, DONE])
    assert read.taken == []
    assert read.rests[2] == data
    whole = Read([FIRST + SECOND + data + STOP + DONE], short=False)
    assert (read.out, read.failure) == (whole.out, whole.failure)


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


def test_a_name_within_a_string_is_not_taken_for_the_texts() -> None:
    odd = {"system_fingerprint": '"content":"x"', "service_tier": 'y "content": "'}
    read = Read([*[said(text, **odd) for text in "abc"], STOP, DONE])
    assert (read.taken, read.extras) == (["c"], [odd])


def test_no_event_can_be_written_so_that_another_string_passes_for_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[str]()

    def dumps(text: str) -> bytes:
        tried.append(text)
        return orjson.dumps(text)

    json_of = SimpleNamespace(loads=orjson.loads, dumps=dumps, JSONDecodeError=orjson.JSONDecodeError)
    monkeypatch.setattr(short_text, "orjson", json_of)
    first, second = (around(b'"%b","content":"known"' % text) for text in (b"a", b"b"))
    for _ in range(2):
        read = Read([FIRST, SECOND, first, second, STOP, DONE])
        assert read.out == Read([FIRST + SECOND + first + second + STOP + DONE], short=False).out
    assert len({*tried}) == len(tried) > 1  # what is tried for the text is another every time


def test_several_choices_have_no_short_way() -> None:
    read = Read([FIRST, SECOND, said("three"), said("four")], count=2)
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
    read = Read([FIRST, SECOND, said("three"), data, said("four")])
    assert read.taken == ["three"]
    assert read.rests[-1] == said("four")
    whole = Read([FIRST + SECOND + said("three") + data + said("four")], short=False)
    assert (read.out, read.failure) == (whole.out, whole.failure)


@pytest.mark.parametrize("data", [b": hi\n", b": hi\n\n", b"\n", b"id: 7\n\n", b"event: x\n\n", b"retry: 7\n\n"])
def test_but_not_after_what_is_no_event(data: bytes) -> None:
    assert Read([FIRST, SECOND, said("three"), data, said("four")]).taken == ["three", "four"]


def alternating(served: int) -> Iterator[bytes]:
    """Events of forms that each read ``served`` texts."""
    created = 0
    while True:
        created += 1
        for _ in range(1 + served):
            yield said("a", created=created)


@pytest.mark.parametrize(("served", "gives_up"), [(0, True), (1, True), (3, True), (4, False), (5, False)])
def test_learning_is_given_up_where_forms_do_not_serve(served: int, *, gives_up: bool) -> None:
    read = Read([*itertools.islice(alternating(served), 200), STOP, DONE])
    assert read.failure is None
    assert all(read.rests[100:]) is gives_up
    if gives_up:
        assert len(read.taken) == max(0, 4 * served - 1)  # (the first event is there before the shortcut)


def test_several_texts_in_one_read_serve_as_well_as_several_reads() -> None:
    forms = [(said("a", created=n), said("a", created=n) * 4) for n in range(20)]
    read = Read([said("a"), *itertools.chain(*forms), STOP, DONE])
    assert len(read.taken) == 20 * 4


def test_several_texts_in_one_read_that_is_read_in_full_are_no_forms_in_vain() -> None:
    read = Read([FIRST, said("a") * 10, *[said("b")] * 10, STOP, DONE])
    assert read.taken == ["b"] * 10


def test_a_shortcut_that_refuses_is_asked_again() -> None:
    read = Read([said("a")] * 50, accepts=[False])
    assert read._calls == 48  # the first two are there before a form


# Bounds


def test_the_bound_of_bytes_is_kept_and_what_would_break_it_is_left() -> None:
    three = said("three")
    exact = Read([FIRST, SECOND, *[three] * 5], limit_bytes=3 * len(three))
    assert exact.taken == ["three"] * 3
    assert exact.way.size_bytes == 3 * len(three)
    assert exact.rests[2:] == [b"", b"", b"", three, three]
    less = Read([FIRST, SECOND, three * 2, three * 2], limit_bytes=4 * len(three) - 1)
    assert less.way.size_bytes == 2 * len(three)


def test_each_read_that_is_taken_of_is_a_sign_of_life_and_no_other() -> None:
    read = Read([FIRST, SECOND, said("c"), said("d") * 3, said("e") + STOP, said("f"), DONE])
    assert read.touches == 3


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
    data = b"".join([*pieces, ending])
    ends = [sum(map(len, pieces[:at])) for at in range(1, len(pieces) + 1)]
    kept = [end for end in ends if draw(st.booleans()) or draw(st.booleans())]
    cuts = sorted({0, len(data), *kept, *draw(st.lists(st.integers(0, len(data)), max_size=2))})
    return [data[one:other] for one, other in itertools.pairwise(cuts)]


@given(
    reads=streams(), accepts=st.lists(st.booleans(), min_size=1, max_size=5), n=st.sampled_from([1, 1, 1, 2]),
    limit_bytes=st.sampled_from([LIMIT_BYTES, LIMIT_BYTES, 400]),
)  # fmt: skip
def test_with_the_short_way_the_same_comes_out(
    reads: list[bytes], accepts: list[bool], n: int, limit_bytes: int
) -> None:
    read = Read(reads, accepts=[True, *accepts], limit_bytes=limit_bytes, count=n)
    usual = Read(reads, short=False, count=n)
    assert (read.out, read.failure) == (usual.out, usual.failure)
    assert read.way.size_bytes == sum(map(len, reads[: len(read.rests)])) - sum(map(len, read.rests))


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
