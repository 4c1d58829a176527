"""Who is let in."""

from __future__ import annotations

import hashlib

import pytest

from coterie.api.auth import KeyRing
from coterie.errors import ApiError

KEYS = ("sk-first-key", "sk-second-key", "schlüssel-groß")

GOOD = {
    "the first": "Bearer sk-first-key",
    "the second": "Bearer sk-second-key",
    "another case of the scheme": "bEARER sk-first-key",
    "white space": "Bearer   sk-first-key ",
    "UTF-8, as the header's bytes are read": "Bearer " + "schlüssel-groß".encode().decode("latin-1"),
}

ABSENT = {"no header": None, "nothing": "", "no key": "Bearer", "blanks": "Bearer   ", "another scheme": "Basic c2s6"}

WRONG = {
    "another key": "Bearer sk-third-key-",
    "a beginning": "Bearer sk-first-ke",
    "more": "Bearer sk-first-keys",
    "another case": "Bearer SK-FIRST-KEY",
    "two keys": "Bearer sk-first-key sk-second-key",
    "two keys with a comma": "Bearer sk-first-key,sk-second-key",
    "odd characters": "Bearer \x00\xff\u2028\ud800",
}


@pytest.mark.parametrize("header", GOOD.values(), ids=GOOD.keys())
def test_a_key_of_the_server(header: str) -> None:
    KeyRing(KEYS).check(header)


@pytest.mark.parametrize("header", ABSENT.values(), ids=ABSENT.keys())
def test_no_key(header: str | None) -> None:
    with pytest.raises(ApiError, match="You didn't provide an API key") as caught:
        KeyRing(KEYS).check(header)
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize("header", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_key(header: str) -> None:
    with pytest.raises(ApiError, match=r"Incorrect API key provided\.") as caught:
        KeyRing(KEYS).check(header)
    assert caught.value.code == "invalid_api_key"
    assert header.removeprefix("Bearer ") not in caught.value.message


@pytest.mark.parametrize("header", [*GOOD.values(), *ABSENT.values(), *WRONG.values()])
def test_without_keys_everybody_is_let_in(header: str | None) -> None:
    KeyRing(()).check(header)


def test_no_key_is_kept() -> None:
    kept = repr(vars(KeyRing(KEYS)))
    assert not any(key in kept for key in KEYS)


def test_an_owner_is_told_apart_by_key_and_says_nothing_of_it() -> None:
    ring = KeyRing(KEYS)
    owners = {ring.check(f"Bearer {key}") for key in KEYS[:2]}
    assert len(owners) == 2
    assert all(ring.lets_in(owner) for owner in owners)
    assert not ring.lets_in("")
    assert not any(hashlib.sha256(key.encode()).hexdigest().startswith(owner) for key in KEYS for owner in owners)
    assert KeyRing(()).check(None) == ""
    assert KeyRing(()).lets_in("")


def test_an_owner_whose_key_was_withdrawn_is_let_in_no_more() -> None:
    owner = KeyRing(KEYS).check(f"Bearer {KEYS[0]}")
    assert not KeyRing(KEYS[1:]).lets_in(owner)
