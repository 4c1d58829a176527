import json
import re
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.engines.tool_reader import LONGEST_NAME, MOST_OPEN_BRACKETS, ToolReader, new_call_id
from coterie.errors import ApiError


def ids() -> Callable[[], str]:
    numbers = count()
    return lambda: f"call_{next(numbers)}"


def read(*pieces: str, named: bool = False) -> tuple[list[dict[str, Any]], str]:
    reader = ToolReader(named=named, new_id=ids())
    deltas = [delta for piece in pieces for delta in reader.feed(piece)]
    return deltas, reader.finish("stop")


def content_of(deltas: list[dict[str, Any]]) -> str:
    return "".join(delta["content"] for delta in deltas)


def calls_of(deltas: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call, put together as a client does."""
    calls: list[tuple[str, str, str]] = []
    for delta in deltas:
        (part,) = delta["tool_calls"]
        if "id" in part:
            assert part["index"] == len(calls)
            assert part["type"] == "function"
            calls.append((part["id"], part["function"]["name"], ""))
        call_id, name, arguments = calls[part["index"]]
        calls[part["index"]] = (call_id, name, arguments + part["function"]["arguments"])
    return calls


def fault(*pieces: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(*pieces)
    assert caught.value.code == "upstream_protocol_error"
    return caught.value


def test_content_comes_as_it_is_written() -> None:
    reader = ToolReader()
    assert reader.feed('{"con') == []
    assert reader.feed('tent": "Hel') == [{"content": "Hel"}]
    assert reader.feed("lo") == [{"content": "lo"}]
    assert reader.feed("!\\") == [{"content": "!"}]
    assert reader.feed('n"') == [{"content": "\n"}]
    assert reader.feed("\n}") == []
    assert reader.finish("stop") == "stop"


def test_a_call_is_announced_by_name_and_its_arguments_come_as_they_are_written() -> None:
    reader = ToolReader(new_id=ids())
    assert reader.feed('{"tool_calls": [{"name": "f') == []
    head = {"index": 0, "id": "call_0", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert reader.feed('"') == [{"tool_calls": [head]}]
    assert reader.feed(', "arguments": {"a"') == [{"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}]
    assert reader.feed(': "}"}') == [{"tool_calls": [{"index": 0, "function": {"arguments": ': "}"}'}}]}]
    second = {"index": 1, "id": "call_1", "type": "function", "function": {"name": "g", "arguments": "{}"}}
    assert reader.feed('}, {"name":"g","arguments":{}}]}') == [{"tool_calls": [second]}]
    assert reader.finish("stop") == "tool_calls"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('{"a": [1, {"b": "]}"}]}', '{"a": [1, {"b": "]}"}]}'),
        ('"x \\" \\u00e9 y"', '"x \\" \\u00e9 y"'),
        ("-1.5e+3 ", "-1.5e+3"),
        ("true", "true"),
        ("\n null\n", "null"),
        ("[]", "[]"),
    ],
)
def test_a_json_answer_is_the_content_as_it_was_written(value: str, text: str) -> None:
    deltas, reason = read(*f'{{"json":{value}}}')
    assert (content_of(deltas), reason) == (text, "stop")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\ud83d\ude00", "😀"),
        (r"\ud83d", "�"),
        (r"\ude00x", "�x"),
        (r"\ud83dx", "�x"),
        (r"\ud83d\n", "�\n"),
        (r"\ud83d\ud83d\ude00", "�😀"),
        (r"\"\\\/\b\f\n\r\t\u0041", '"\\/\b\f\n\r\tA'),
    ],
)
def test_escapes_are_decoded_wherever_they_are_cut(written: str, meant: str) -> None:
    text = f'{{"content":"{written}"}}'
    for cut in range(len(text)):
        assert content_of(read(text[:cut], text[cut:])[0]) == meant


@pytest.mark.parametrize(
    ("text", "named", "reason", "finish"),
    [
        ('{"tool_calls":[{"name":"f","arguments":{}}]}', False, "stop", "tool_calls"),
        ('{"tool_calls":[{"name":"f","arguments":{}}]}', True, "stop", "stop"),
        ('{"content":""}', False, "stop", "stop"),
        ('{"tool_calls":[{"name":"f","argum', False, "length", "length"),
        ('{"content":"a', False, "length", "length"),
        ("", False, "content_filter", "content_filter"),
    ],
)
def test_the_finish_reason_says_what_was_written(text: str, named: bool, reason: str, finish: str) -> None:
    reader = ToolReader(named=named)
    reader.feed(text)
    assert reader.finish(reason) == finish


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello",
        "[",
        '{"content":"a"',
        '{"content":"a"} x',
        '{"content":5}',
        '{"content":"a","tool_calls":[]}',
        '{"other":"a"}',
        '{"content":"\n"}',
        r'{"content":"\x"}',
        r'{"content":"\u12g4"}',
        '{"content":"\\u1\uff1234"}',
        '{"tool_calls":[]}',
        '{"tool_calls":[{"arguments":{}}]}',
        '{"tool_calls":[{"name":"f","arguments":{]}}]}',
        '{"tool_calls":[{"name":"f","arguments":,}]}',
        '{"tool_calls":[{"name":"f","arguments":{},"x":1}]}',
        '{"tool_calls":[{"name":"f","arguments":{}} {}]}',
        '{"tool_calls":[{"name":"f","arguments":{}}],"content":""}',
        '{"json":1 2}',
        f'{{"{"n" * (LONGEST_NAME + 1)}',
        f'{{"json":{"[" * (MOST_OPEN_BRACKETS + 1)}',
    ],
)
def test_text_of_another_form_is_a_fault_of_the_provider(text: str) -> None:
    assert "tool envelope" in (fault(text).detail or "")


def test_after_a_fault_more_text_is_a_fault_too() -> None:
    reader = ToolReader()
    for _ in range(2):
        with pytest.raises(ApiError):
            reader.feed("x")


def test_ids_are_like_openais_and_differ() -> None:
    made = {new_call_id() for _ in range(20)}
    assert len(made) == 20
    assert all(re.fullmatch(r"call_[A-Za-z0-9]{24}", call_id) for call_id in made)


_SPACES = st.text(alphabet=" \n\t\r", max_size=2)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
_CALLS = st.lists(st.tuples(_NAMES, st.dictionaries(st.text(), _JSON, max_size=3)), min_size=1, max_size=4)


@st.composite
def _pieces(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _spaced(draw: Callable[[st.SearchStrategy[str]], str], parts: Iterator[str]) -> str:
    return "".join(f"{part}{draw(_SPACES)}" for part in parts)


def _call_parts(calls: list[tuple[str, dict[str, Any]]], ascii_only: bool) -> Iterator[str]:
    yield from ("{", '"tool_calls"', ":", "[")
    for index, (name, arguments) in enumerate(calls):
        yield from ([","] if index else [])
        yield from ("{", '"name"', ":", json.dumps(name), ",", '"arguments"', ":")
        yield from (json.dumps(arguments, ensure_ascii=ascii_only), "}")
    yield from ("]", "}")


@given(st.data(), _CALLS, st.booleans())
def test_calls_come_through_any_division(
    data: st.DataObject, calls: list[tuple[str, dict[str, Any]]], ascii_only: bool
) -> None:
    text = _spaced(data.draw, _call_parts(calls, ascii_only))
    deltas, reason = read(*data.draw(_pieces(text)))
    got = calls_of(deltas)
    assert [(name, json.loads(arguments)) for _, name, arguments in got] == calls
    assert [call_id for call_id, _, _ in got] == [f"call_{index}" for index in range(len(calls))]
    assert reason == "tool_calls"


@given(st.data(), st.text(), st.booleans())
def test_content_comes_through_any_division(data: st.DataObject, content: str, ascii_only: bool) -> None:
    parts = iter(("{", '"content"', ":", json.dumps(content, ensure_ascii=ascii_only), "}"))
    deltas, reason = read(*data.draw(_pieces(_spaced(data.draw, parts))))
    assert (content_of(deltas), reason) == (content, "stop")


@given(st.data(), _JSON)
def test_a_json_answer_comes_through_any_division(data: st.DataObject, value: Any) -> None:
    text = _spaced(data.draw, iter(("{", '"json"', ":", json.dumps(value), "}")))
    deltas, _ = read(*data.draw(_pieces(text)))
    assert json.loads(content_of(deltas)) == value


@given(st.text(alphabet='{}[]":,\\u0dcontejslarg_m 1\n', max_size=40))
def test_any_text_is_read_or_a_fault(text: str) -> None:
    reader = ToolReader()
    try:
        reader.feed(text)
    except ApiError as error:
        outcome = error.code
    else:
        outcome = reader.finish("length")
    assert outcome in ("upstream_protocol_error", "length")
