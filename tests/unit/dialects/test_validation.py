"""From pydantic's errors to the catalogue's: code, path and words, whatever the caller calls things."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, Tag

from coterie.dialects.validation import Off, Strict, at_most, by_field, by_type, path, tag, validate
from coterie.errors import ApiError


class Inner(Strict):
    kind: Literal["a"]
    number: Annotated[int, Field(ge=1, le=5)] = 1
    mode: Literal["x"] | None = None


class Other(Strict):
    kind: Literal["b"]


class Outer(Strict):
    one: (
        Annotated[Annotated[Inner, Tag(tag("a"))] | Annotated[Other, Tag(tag("b"))], by_field("kind", ("a", "b"))]
        | None
    ) = None
    some: (
        Annotated[
            Annotated[str, Tag(tag("string"))] | Annotated[list[Inner], Field(fail_fast=True), Tag(tag("array"))],
            by_type(string=str, array=list),
        ]
        | None
    ) = None
    free: Annotated[dict[Annotated[str, Field(max_length=3)], int], at_most(2)] | None = None
    exact: Annotated[float, Field(ge=-0.5, le=2.1)] | None = None
    text: Annotated[str, Field(min_length=1, max_length=3, pattern="^[a-z]+$")] | None = None
    flag: bool | None = None
    off: Off | None = None
    nothing: None = None
    hidden: int | None = Field(None, alias="shown")


BAD: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "an unknown member": ({"x": 1}, "unknown_parameter", "x", "Unknown parameter: 'x'."),
    "an empty name": ({"": 1}, "unknown_parameter", "['']", "Unknown parameter: '['']'."),
    "a name like a tag": ({"\ue000a": 1}, "unknown_parameter", "\ue000a", ""),
    "a name like pydantic's": ({"[key]": 1}, "unknown_parameter", "[key]", ""),
    "a field by its name here": ({"hidden": 1}, "unknown_parameter", "hidden", ""),
    "a field by its alias": ({"shown": "x"}, "invalid_type", "shown", "expected an integer, but got a string"),
    "no member": ({"one": {"kind": "x"}}, "invalid_value", "one.kind", "'x'. Supported values are: 'a', 'b'"),
    "a member without its field": ({"one": {}}, "missing_required_parameter", "one.kind", ""),
    "a member's field of another type": ({"one": {"kind": 1}}, "invalid_type", "one.kind", "expected a string"),
    "a member that is no object": ({"one": [1]}, "invalid_type", "one", "expected an object, but got an array"),
    "an error within a member": ({"one": {"kind": "a", "number": 6}}, "integer_above_max_value", "one.number", "<= 5"),
    "unknown within a member": ({"one": {"kind": "a", "x": 1}}, "unknown_parameter", "one.x", ""),
    "of neither type": ({"some": 5}, "invalid_type", "some", "expected a string or an array, but got an integer"),
    "within an array": ({"some": [{"kind": "a"}, {"kind": "b"}]}, "invalid_value", "some[1].kind", "are: 'a'"),
    "a wrong element": ({"some": ["x"]}, "invalid_type", "some[0]", "expected an object, but got a string"),
    "too many members": ({"free": {"a": 1, "b": 2, "c": "x"}}, "object_above_max_properties", "free", "at most 2"),
    "a wrong member": ({"free": {"a": "x"}}, "invalid_type", "free.a", ""),
    "a wrong name": ({"free": {"abcd": 1}}, "string_above_max_length", "free.abcd", "length 3, but got"),
    "a number in words": ({"one": {"kind": "a", "number": "1"}}, "invalid_type", "one.number", "got a string"),
    "a number with a fraction": ({"one": {"kind": "a", "number": 1.5}}, "invalid_type", "one.number", "got a decimal"),
    "true for a number": ({"one": {"kind": "a", "number": True}}, "invalid_type", "one.number", "got a boolean"),
    "below": ({"one": {"kind": "a", "number": 0}}, "integer_below_min_value", "one.number", ">= 1, but got 0"),
    "above, with a fraction": ({"exact": 2.2}, "decimal_above_max_value", "exact", "<= 2.1, but got 2.2"),
    "below, whole": ({"exact": -1}, "decimal_below_min_value", "exact", ">= -0.5, but got -1 "),
    "above, huge": ({"exact": 2**63}, "decimal_above_max_value", "exact", f"but got {2**63}"),
    "too long": ({"text": "abcd"}, "string_above_max_length", "text", "maximum length 3, but got"),
    "too short": ({"text": ""}, "string_below_min_length", "text", "minimum length 1, but got"),
    "of another pattern": ({"text": "A"}, "invalid_value", "text", "matches the pattern '^[a-z]+$'"),
    "no text": ({"text": None, "flag": "x"}, "invalid_type", "flag", "expected a boolean, but got a string"),
    "a flag that cannot be set": ({"off": True}, "unsupported_value", "off", "'off' does not support true with this"),
    "no flag": ({"off": "false"}, "invalid_type", "off", "expected a boolean, but got a string"),
    "nothing for a flag": ({"off": 0}, "invalid_type", "off", "expected a boolean, but got an integer"),
    "a flag for a text": (
        {"one": {"kind": "a", "mode": True}},
        "invalid_type",
        "one.mode",
        "a string, but got a boolean",
    ),
    "more than nothing": ({"nothing": 1}, "invalid_type", "nothing", "expected null, but got an integer"),
}


@pytest.mark.parametrize(("body", "code", "param", "words"), BAD.values(), ids=BAD.keys())
def test_errors(body: dict[str, Any], code: str, param: str, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        validate(Outer, body)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert words in caught.value.message


def test_what_is_good_is_given_back() -> None:
    outer = validate(Outer, {"off": False, "one": {"kind": "b"}, "some": [{"kind": "a"}], "exact": 1, "shown": 3})
    assert (outer.one, outer.some, outer.exact, outer.hidden) == (Other(kind="b"), [Inner(kind="a")], 1.0, 3)


FLOODS: dict[str, dict[str, Any]] = {
    "members": {str(i): i for i in range(50_000)},
    "members of a part": {"one": {"kind": "a", **{str(i): i for i in range(50_000)}}},
    "members of a free object": {"free": {str(i): "x" for i in range(50_000)}},
    "elements": {"some": [5] * 50_000},
}


@pytest.mark.parametrize("body", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_of_mistakes_is_not_gathered(body: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        validate(Outer, body)
    error = caught.value.__context__
    assert error is not None
    assert error.error_count() == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (["a"], "a"),
        (["messages", 0, "content", 1, "image_url", "url"], "messages[0].content[1].image_url.url"),
        ([0, "a"], "[0].a"),
        (["a", ""], "a['']"),
        (["", "a"], "[''].a"),
    ],
)
def test_paths(parts: list[str | int], text: str) -> None:
    assert path(parts) == text
