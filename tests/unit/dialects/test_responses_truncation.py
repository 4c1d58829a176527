"""What is left out of a conversation that is too long."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.dialects.responses_input import Item
from coterie.dialects.responses_truncation import IMAGE_CHARS, characters, shorten

LITTLE, MUCH = 1, 10**9


def message(role: str, text: str = "a") -> Item:
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}


def item(name: str) -> Item:
    """An item by its short name: u1, a1, s, d, k, r, c1 and o1 (a call and its output)."""
    kind, number = name[0], name[1:]
    if kind in ROLES:
        return message(ROLES[kind], name)
    if kind == "c":
        return {"type": "function_call", "call_id": number, "name": "f", "arguments": "{}"}
    if kind == "o":
        return {"type": "function_call_output", "call_id": number, "output": name}
    return {"type": {"k": "compaction", "r": "reasoning"}[kind], "name": name}


ROLES = {"u": "user", "a": "assistant", "s": "system", "d": "developer"}


def left(names: str, drop_tokens: float) -> str | None:
    """What is left of ``names``."""
    items = [item(name) for name in names.split()]
    kept = shorten(items, drop_tokens, 1.0)
    if kept is None:
        return None
    numbers = {id(one): name for one, name in zip(items, names.split(), strict=True)}
    return " ".join(numbers[id(one)] for one in kept)


CASES: dict[str, tuple[str, float, str | None]] = {
    "nothing": ("", LITTLE, None),
    "one question": ("u1", MUCH, None),
    "one question under instructions": ("s d u1", MUCH, None),
    "one turn": ("u1 r1 a1", MUCH, None),
    "one step": ("u1 r1 a1 c1 c2 o1 o2", MUCH, None),
    "two turns": ("u1 a1 u2", LITTLE, "u2"),
    "the middle before the beginning": ("u1 a1 u2 a2 u3", LITTLE, "u1 a1 u3"),
    "the oldest of the middle": ("u1 a1 u2 a2 u3 a3 u4", LITTLE, "u1 a1 u3 a3 u4"),
    "the middle and the beginning": ("u1 a1 u2 a2 u3", MUCH, "u3"),
    "instructions stay": ("s u1 a1 d u2 a2 u3", MUCH, "s d u3"),
    "summaries stay": ("k1 u1 a1 k2 u2", MUCH, "k1 k2 u2"),
    "an answer of the newest turn stays": ("u1 a1 u2 a2", MUCH, "u2 a2"),
    "questions in a row are one": ("u1 u2 a2 u3 u4 a4 u5 u6", LITTLE, "u1 u2 a2 u5 u6"),
    "questions in a row around instructions": ("u1 s u2 a2 u3", MUCH, "s u3"),
    "an exchange with its calls": ("u1 a1 u2 c1 o1 r2 c2 o2 a2 u3", LITTLE, "u1 a1 u3"),
    "the oldest step of an agent": ("u1 c1 o1 c2 o2 c3 o3", LITTLE, "u1 c2 o2 c3 o3"),
    "all but the last step of an agent": ("u1 c1 o1 r2 c2 o2 a3 c3 o3", MUCH, "u1 a3 c3 o3"),
    "earlier turns before an agent's steps": ("u1 a1 u2 c1 o1 c2 o2", LITTLE, "u2 c1 o1 c2 o2"),
    "a step of several calls": ("u1 c1 c2 o2 o1 c3 o3", LITTLE, "u1 c3 o3"),
    "a step before any question": ("a1 c1 o1 u2 a2", MUCH, "u2 a2"),
    "an output in the next exchange": ("u1 a1 u2 c1 u3 o1 a3 u4", LITTLE, "u1 a1 u4"),
    "an output in the newest exchange": ("u1 a1 u2 c1 u3 o1", LITTLE, "u2 c1 u3 o1"),
    "an output in the newest exchange, and nothing else": ("u1 c1 u2 o1", MUCH, None),
    "calls of one name": ("u1 c1 o1 u2 c1 o1 u3", LITTLE, "u1 c1 o1 u3"),
    "calls of one name in one step": ("u1 c1 c1 o1 o1 u2", LITTLE, "u2"),
    "calls of one name, answered apart": ("u1 a1 u2 c1 c1 o1 u3 o1", LITTLE, "u2 c1 c1 o1 u3 o1"),
    "no more than asked for": ("u1 a1 u2 a2 u3 a3 u4 a4 u5", 2 * 2 * (16 + 16 + 2), "u1 a1 u4 a4 u5"),
    "nothing asked for": ("u1 a1 u2 a2 u3", 0, "u1 a1 u3"),
}


@pytest.mark.parametrize(("names", "drop_tokens", "kept"), CASES.values(), ids=CASES.keys())
def test_what_is_left(names: str, drop_tokens: float, kept: str | None) -> None:
    assert left(names, drop_tokens) == kept


def test_tokens_are_counted_by_characters() -> None:
    items = [item(name) for name in ["u1", "a1", "u2", "a2", "u3", "a3", "u4"]]
    exchange = characters(items[2:4])
    dense = shorten(items, exchange + 1, 1.0)
    assert dense is not None
    assert len(dense) == 3
    sparse = shorten(items, exchange, 1.0)
    assert sparse is not None
    assert len(sparse) == 5


def test_characters() -> None:
    assert characters([]) == 0
    long = characters([message("user", "x" * 1000)])
    assert long - characters([message("user", "")]) == 1000
    call: dict[str, Any] = {"type": "function_call", "name": "f", "arguments": "x" * 100}
    output = {"type": "function_call_output", "output": "x" * 100}
    thought = {"type": "reasoning", "summary": [{"text": "x" * 100}], "content": [{"text": "x" * 100}]}
    assert characters([call]) > 100
    assert characters([output]) > 100
    assert characters([thought]) > 200
    assert characters([call, output]) == characters([call]) + characters([output])


@pytest.mark.parametrize("kind", ["input_image", "input_file"])
def test_an_image_does_not_count_for_its_bytes(kind: str) -> None:
    part = {"type": kind, "image_url": "data:" + "x" * 10**6, "file_data": "x" * 10**6}
    in_message = characters([{"type": "message", "role": "user", "content": [part]}])
    in_output = characters([{"type": "function_call_output", "output": [part]}])
    assert IMAGE_CHARS <= in_message == in_output < 2 * IMAGE_CHARS


@st.composite
def conversations(draw: st.DrawFn) -> list[Item]:
    """Items in any order, whose calls all have their outputs somewhere behind them."""
    names = draw(st.lists(st.sampled_from(["u", "a", "s", "d", "k", "r"]), max_size=12))
    items = [item(name) for name in names]
    for number in range(draw(st.integers(0, 4))):
        shared = str(draw(st.sampled_from([number, 9]))) if number == 0 else str(number)
        place = draw(st.integers(0, len(items)))
        items.insert(place, item(f"c{shared}"))
        items.insert(draw(st.integers(place + 1, len(items))), item(f"o{shared}"))
    return items


@given(conversations(), st.integers(0, 500), st.floats(0.01, 2))
def test_no_orphans_no_other_order_and_always_less(items: list[Item], drop_tokens: int, density: float) -> None:
    kept = shorten(items, drop_tokens, density)
    if kept is None:
        assert shorten(items, MUCH, density) is None
        return
    assert len(kept) < len(items)
    places = [next(i for i, one in enumerate(items) if one is this) for this in kept]
    assert places == sorted(places)
    of_calls = Counter(one["call_id"] for one in kept if one["type"] == "function_call")
    of_outputs = Counter(one["call_id"] for one in kept if one["type"] == "function_call_output")
    assert of_calls == of_outputs
    always = [one for one in items if one.get("role") in ("system", "developer") or one["type"] == "compaction"]
    assert [one for one in kept if one in always] == always
    assert not any(one.get("role") == "user" for one in items) or any(one.get("role") == "user" for one in kept)


@given(conversations())
def test_it_comes_to_an_end(items: list[Item]) -> None:
    shorter: tuple[Item, ...] | None = tuple(items)
    for _ in range(len(items) + 1):
        if shorter is None:
            break
        shorter = shorten(shorter, LITTLE, 0.1)
    assert shorter is None
