"""What a client keeps for us."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.storage import StorageError
from coterie.turns.sealing import Sealer, key_of

KEY, OTHER = bytes(range(32)), bytes(32)


@given(text=st.text())
def test_what_was_sealed_opens_with_the_same_key_alone(text: str) -> None:
    sealed = Sealer(KEY).of("a").seal(text)
    assert Sealer(KEY).of("a").unseal(sealed) == text
    assert Sealer(OTHER).of("a").unseal(sealed) is None


@pytest.mark.parametrize("other", ["", "b", "aa", "a\0"])
def test_another_owner_opens_nothing(other: str) -> None:
    sealer = Sealer(KEY)
    assert sealer.of(other).unseal(sealer.of("a").seal("a thought")) is None


def test_it_does_not_show_its_text_and_is_never_the_same() -> None:
    sealer = Sealer(KEY).of("a")
    first, second = sealer.seal("a secret thought"), sealer.seal("a secret thought")
    assert first != second
    assert "secret" not in first


def test_a_changed_seal_opens_nowhere() -> None:
    sealer = Sealer(KEY).of("a")
    sealed = sealer.seal("a thought")
    for place in range(len(sealed)):
        changed = sealed[:place] + ("A" if sealed[place] != "A" else "B") + sealed[place + 1 :]
        assert sealer.unseal(changed) in (None, "a thought"), place  # the last digit can hold bits of nothing
    assert sealer.unseal(sealed[:-4]) is None


@pytest.mark.parametrize("text", ["", "coterie1.", "coterie1.%%%", "gAAAAABo", "coterie1.AAAA", "coterie1.é"])
def test_what_is_no_seal_is_nobodys(text: str) -> None:
    assert Sealer(KEY).of("a").unseal(text) is None


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    key = key_of(folder)
    assert len(key) == 32
    assert key_of(folder) == key
    assert stat.S_IMODE((folder / "sealing.key").stat().st_mode) == 0o600
    assert key_of(tmp_path / "other") != key


@pytest.mark.parametrize("content", [b"", b"k" * 31, b"k" * 33])
def test_a_file_that_holds_no_key_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sealing.key").write_bytes(content)
    with pytest.raises(StorageError, match=f"{len(content)} bytes instead of 32"):
        key_of(tmp_path)
    assert (tmp_path / "sealing.key").read_bytes() == content


def test_a_key_that_cannot_be_written_whole_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        key_of(tmp_path)
    assert list(tmp_path.iterdir()) == []
