"""Calls and outputs in pairs, and their ids and names in chat."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.dialects.responses_calls import ChatIds, chat_name, pairs


def item(name: str) -> dict[str, Any]:
    """An item by its short name: c1, o1 and x1 (a call, its output, a call that was broken off); anything else."""
    kind, number = name[0], name[1:]
    if kind == "o":
        return {"type": "function_call_output", "call_id": number}
    if kind in "cx":
        return {"type": "function_call", "call_id": number, "status": "completed" if kind == "c" else "incomplete"}
    return {"role": "user"}


PAIRS: dict[str, dict[int, int]] = {
    "": {},
    "u c1 o1": {2: 1},
    "c1 c2 o2 o1": {2: 1, 3: 0},
    "c1 c1 o1 o1": {2: 0, 3: 1},
    "c1 o1 c1 o1": {1: 0, 3: 2},
    "c1 c1 o1": {2: 0},
    "o1 c1": {},
    "c1 o2 o1 o1": {2: 0},
    "x1 o1": {1: 0},
    "x1 u c1 o1": {3: 2},
    "x1 c1 o1 o1": {2: 1, 3: 0},
}


@pytest.mark.parametrize(("names", "wanted"), PAIRS.items())
def test_pairs(names: str, wanted: dict[int, int]) -> None:
    found = pairs([item(name) for name in names.split()])
    assert found == wanted
    assert list(found) == sorted(found)


def test_ids_that_chat_takes_stay() -> None:
    ids = ChatIds()
    assert [ids.take(name) for name in ("c", "d", "x" * 128)] == ["c", "d", "x" * 128]


def test_ids_that_are_too_long_are_the_same_for_the_same() -> None:
    one, other, longest = "x" * 128 + "a", "x" * 128 + "b", "y" * 4096
    made = [ChatIds().take(name) for name in (one, other, longest, one)]
    assert made[0] == made[3]
    assert len(set(made)) == 3
    assert all(re.fullmatch(r"call_[0-9a-f]{64}", name) for name in made)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["c", "c", "c"], ["c", "c_2", "c_3"]),
        (["c_2", "c", "c"], ["c_2", "c", "c_3"]),
        (["c", "c", "c_2"], ["c", "c_2", "c_2_3"]),
        (["x" * 128, "x" * 128], ["x" * 128, "x" * 126 + "_2"]),
    ],
)
def test_ids_given_twice_are_numbered(names: list[str], wanted: list[str]) -> None:
    ids = ChatIds()
    assert [ids.take(name) for name in names] == wanted


@given(st.lists(st.sampled_from(["c", "c_2", "c_3", "x" * 128, "x" * 129, "x" * 126 + "_2"]), max_size=12))
def test_each_id_is_another_and_chat_takes_it(names: list[str]) -> None:
    ids = ChatIds()
    made = [ids.take(name) for name in names]
    assert len(set(made)) == len(names)
    assert all(1 <= len(name) <= 128 for name in made)


def test_names() -> None:
    assert chat_name("get_weather-2") == "get_weather-2"
    assert chat_name("ns.f:1") == "ns_f_1"
    assert chat_name("f" * 70) == "f" * 64
    assert chat_name("") == "_"


@given(st.text(max_size=100))
def test_any_name_becomes_one_that_chat_takes(name: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", chat_name(name))
    assert chat_name(chat_name(name)) == chat_name(name)
