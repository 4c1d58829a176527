"""A request's JSON: what is ambiguous is refused, everything else is read as the standard library reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import ApiError
from coterie.wire.json_body import _LISTED_BYTES, MAX_MARKS, json_type, parse_object

BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "line 1, column 1"),
    "half": (b'{"a": [1,', "line 1"),
    "two documents": (b"{} {}", "line 1, column 4"),
    "a later line": (b'{\n"a": x}', "line 2, column 6"),
    "a comma too many": (b'{"a": 1,}', ""),
    "single quotes": (b"{'a': 1}", ""),
    "a comment": (b'{"a": 1} // x', ""),
    "NaN": (b'{"a": NaN}', ""),
    "an infinite number": (b'{"a": Infinity}', ""),
    "a number that becomes infinite": (b'{"a": 1e400}', ""),
    "a lone surrogate": (b'{"a": "\\ud800"}', ""),
    "a lone surrogate as a key": (b'{"\\udc00": 1}', ""),
    "not UTF-8": (b'{"a": "\xff"}', ""),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), ""),
    "a byte order mark": (b"\xef\xbb\xbf{}", ""),
    "a control character": (b'{"a": "\x00"}', ""),
    "an array": (b"[]", "expected an object, but got an array"),
    "a string": (b'"x"', "expected an object, but got a string"),
    "a number": (b"1.5", "expected an object, but got a decimal"),
    "null": (b"null", "expected an object, but got null"),
    "a key twice": (b'{"a": 1, "b": 2, "a": 1}', "the key 'a' is given twice"),
    "a key twice, deep": (b'{"a": [{"b": {"c": 1, "c": 2}}]}', "the key 'c' is given twice"),
    "a key twice, once escaped": (b'{"a": 1, "\\u0061": 2}', "the key 'a' is given twice"),
    "a key twice, with white space": (b'{"a" \t\r\n: 1, "a":2}', "the key 'a' is given twice"),
    "a key twice beside a text like a key": (b'{"x": "\\"y\\": 1", "a": 1, "a": 2}', "the key 'a' is given twice"),
    "an empty key twice": (b'{"": 1, "": 2}', "the key '' is given twice"),
}


@pytest.mark.parametrize(("body", "words"), BAD.values(), ids=BAD.keys())
def test_what_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_object(body, max_depth=10)
    assert caught.value.code == "invalid_json"
    assert words in caught.value.message
    assert "\n" not in caught.value.message


GOOD: dict[str, tuple[bytes, dict[str, Any]]] = {
    "empty": (b"{}", {}),
    "white space around": (b" \r\n\t{ } \n", {}),
    "the same key in different objects": (b'{"a": {"a": [{"a": 1}, {"a": 2}]}}', {"a": {"a": [{"a": 1}, {"a": 2}]}}),
    "text like a key": (b'{"a": "\\"b\\": \\"b\\": "}', {"a": '"b": "b": '}),
    "a surrogate pair": (b'{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    "colons": (b'{":": "::"}', {":": "::"}),
}


@pytest.mark.parametrize(("body", "value"), GOOD.values(), ids=GOOD.keys())
def test_what_is_read(body: bytes, value: dict[str, Any]) -> None:
    assert parse_object(body, max_depth=10) == value


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_depth_is_bounded(opening: bytes) -> None:
    def nested(levels: int) -> bytes:
        closing = b"]" if opening == b"[" else b"}"
        return b'{"a":' + opening * (levels - 1) + b"1" + closing * (levels - 1) + b"}"

    assert parse_object(nested(20), max_depth=20)
    for levels in (21, 10_000):
        with pytest.raises(ApiError) as caught:
            parse_object(nested(levels), max_depth=20)
        assert caught.value.code == "invalid_json"


def test_a_long_key_is_not_repeated_in_full() -> None:
    key = b"k" * 10_000
    with pytest.raises(ApiError) as caught:
        parse_object(b'{"' + key + b'": 1, "' + key + b'": 2}', max_depth=10)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("value", "name"),
    [(True, "a boolean"), ("", "a string"), (0, "an integer"), (0.5, "a decimal"), ([], "an array"), ((), "an array"),
     ({}, "an object"), (None, "null"), (object(), "a value of another kind")],
)  # fmt: skip
def test_names_of_types(value: object, name: str) -> None:
    assert json_type(value) == name


def reference(body: bytes) -> dict[str, Any] | None:
    """The standard library's reading; ``None`` where it reads no object or a key is given twice."""

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("twice")
        return dict(pairs)

    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=distinct)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def check(body: bytes) -> None:
    try:
        value = parse_object(body, max_depth=50)
    except ApiError as error:
        assert error.code == "invalid_json"  # noqa: PT017 - what else is raised fails the test
    else:
        assert value == reference(body)


fragments = st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b'"', b":", b",", b"a", b"\\", b'"a"', b'"a":', b" ", b"1", b"-1e5", b"null", b"\n",
         b'\\"', b"\\u0061", b"\\ud800", b"NaN", b"\xff", b'{"a":1}', b'"b":"\\":"']
    ),
    max_size=30,
).map(b"".join)  # fmt: skip


@given(st.binary() | fragments)
def test_any_bytes_are_refused_or_read_like_the_standard_library(body: bytes) -> None:
    check(body)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | st.sampled_from(['"a":', '\\"', '": "']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a":', max_size=2), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@given(st.dictionaries(st.text('a":\\', max_size=3), values, max_size=5), st.booleans())
def test_every_object_is_read(value: dict[str, Any], ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8")
    assert parse_object(body, max_depth=50) == json.loads(body)


@given(st.dictionaries(st.text('a"', max_size=2), values, max_size=4), st.data())
def test_a_key_given_twice_is_always_found(value: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([*value, "new"]))
    pairs = [*value.items(), (key, 1), (key, 2)]
    body = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(item)}" for name, item in pairs) + "}"
    with pytest.raises(ApiError) as caught:
        parse_object(body.encode(), max_depth=50)
    assert "is given twice" in caught.value.message


@pytest.mark.parametrize("size", [0, _LISTED_BYTES, 3 * _LISTED_BYTES])
@pytest.mark.parametrize("space", [b"", b" ", b"\r\n\t"])
def test_keys_are_counted_alike_in_small_and_large_bodies(size: int, space: bytes) -> None:
    text = b'": ' * (size // 3)
    plain = text.replace(b'"', b'\\"')
    body = b'{"a"' + space + b':"' + plain + b'","b"' + space + b":{}}"
    assert parse_object(body, max_depth=10) == {"a": text.decode(), "b": {}}
    with pytest.raises(ApiError) as caught:
        parse_object(body.replace(b'"b"', b'"a"'), max_depth=10)
    assert "the key 'a' is given twice" in caught.value.message


def test_a_body_of_millions_of_values_is_refused_before_it_is_read() -> None:
    body = b'{"x":[' + b"[]," * MAX_MARKS + b"[]]}"
    with pytest.raises(ApiError) as caught:
        parse_object(body, max_depth=100)
    assert (caught.value.code, str(MAX_MARKS) in caught.value.message) == ("invalid_json", True)


def test_text_may_be_as_long_as_the_body() -> None:
    text = "word " * 1_000_000
    assert parse_object(json.dumps({"x": text}).encode(), max_depth=100) == {"x": text}
