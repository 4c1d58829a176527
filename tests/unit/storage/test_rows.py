from __future__ import annotations

import threading
import zlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coterie.storage.rows import (
    PACKED_FROM_BYTES,
    READ_INLINE_BYTES,
    as_text,
    decoded,
    from_text,
    item_values,
    key,
    pack,
    size_of,
    unpack,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from("abc"), JSON))
def test_json_comes_out_as_it_went_in(value: dict[str, Any]) -> None:
    text = as_text(value)
    assert "\0" not in text  # which PostgreSQL does not take
    assert from_text(text) == value


def test_json_may_be_as_deep_as_a_body() -> None:
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"a": deep}
    assert from_text(as_text(deep)) == deep


@given(st.binary() | st.none())
def test_events_come_out_as_they_went_in(events: bytes | None) -> None:
    assert unpack(*pack(events)) == events


def test_only_long_events_are_compressed() -> None:
    short, long = b"a" * PACKED_FROM_BYTES, b"a" * (PACKED_FROM_BYTES + 1)
    assert pack(short) == (short, 0)
    stored, packed = pack(long)
    assert stored is not None
    assert (zlib.decompress(stored), packed) == (long, 1)
    assert len(stored) < 100
    assert unpack(stored, packed) == long


@given(st.text(st.characters()), st.text(st.characters()))
def test_every_id_has_a_key_of_its_own_that_any_database_takes(one: str, two: str) -> None:
    assert len(key(one)) <= 128
    assert key(one).isascii()
    assert key(one).isprintable()
    assert (key(one) == key(two)) == (one == two)


def test_an_id_of_ours_is_its_own_key() -> None:
    assert key("resp_" + "0a" * 24) == "resp_" + "0a" * 24


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_size_is_that_of_the_bytes(text: str) -> None:
    assert size_of(text) == len(text.encode())


def test_an_item_of_a_conversation_has_its_key_its_text_and_its_size() -> None:
    assert item_values({"id": "msg_1", "text": "ü"}) == ("msg_1", '{"id":"msg_1","text":"ü"}', 26)


async def test_what_is_long_is_decoded_in_another_thread() -> None:
    here = threading.current_thread()
    assert await decoded(READ_INLINE_BYTES, threading.current_thread) is here
    assert await decoded(READ_INLINE_BYTES + 1, threading.current_thread) is not here
