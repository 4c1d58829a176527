from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.models.errors import ModelError
from coterie.models.gguf import GgufInfo, kv_cache_bytes, read_gguf

Make = Callable[..., bytes]


def read(data: bytes) -> GgufInfo:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return read_gguf(Path(file.name))


def head(version: int = 3, pairs: int = 1) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, 0, pairs)


def key(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def test_what_a_model_says(gguf: Make) -> None:
    assert read(gguf()) == GgufInfo(
        architecture="llama",
        name="Little",
        context_tokens=2048,
        embedding_length=64,
        block_count=3,
        head_count=(8, 8, 8),
        head_count_kv=(2, 2, 2),
        key_length=8,
        value_length=8,
        causal=True,
        chat_template="{{ messages }}",
        pooling_type=None,
        file_type=None,
        vocab_size=3,
    )


def test_the_cache_counts_every_layer_key_and_value(gguf: Make) -> None:
    assert kv_cache_bytes(read(gguf()), 100) == 100 * 3 * 2 * (8 + 8) * 2


def test_heads_may_differ_by_layer(gguf: Make) -> None:
    info = read(gguf({"llama.attention.head_count_kv": [4, 0, 1]}))
    assert info.head_count_kv == (4, 0, 1)
    assert kv_cache_bytes(info, 10) == 10 * 5 * 16 * 2


def test_own_widths_of_keys_and_values_count(gguf: Make) -> None:
    info = read(gguf({"llama.attention.key_length": 32, "llama.attention.value_length": 16}))
    assert kv_cache_bytes(info, 1) == 3 * 2 * 48 * 2


def test_without_own_number_every_head_has_its_cache(gguf: Make) -> None:
    assert read(gguf(without="llama.attention.head_count_kv")).head_count_kv == (8, 8, 8)


def test_an_embedding_model_has_pooling_and_no_cache(gguf: Make) -> None:
    info = read(gguf({"llama.pooling_type": 1, "llama.attention.causal": False}))
    assert info.pooling_type == "mean"
    assert kv_cache_bytes(info, 2048) == 0


def test_a_long_list_of_numbers_is_stepped_over(gguf: Make) -> None:
    assert read(gguf({"another": list(range(10_000)), "general.file_type": 3})).file_type == 3


@pytest.mark.parametrize(
    "missing",
    ["general.architecture", "llama.context_length", "llama.embedding_length", "llama.block_count"],
)
def test_what_serving_needs_must_be_there(gguf: Make, missing: str) -> None:
    with pytest.raises(ModelError, match=missing.replace(".", r"\.")):
        read(gguf(without=missing))


@pytest.mark.parametrize(
    "change",
    [
        {"llama.block_count": -1},
        {"llama.block_count": 10**9},
        {"llama.context_length": "long"},
        {"llama.context_length": True},
        {"llama.attention.head_count_kv": [1, 2]},
        {"llama.attention.head_count": 2**40},
    ],
)
def test_numbers_that_cannot_be(gguf: Make, change: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        read(gguf(change))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "ends in its metadata"),
        (b"GGML" + bytes(60), "does not begin with 'GGUF'"),
        (head(version=1), "version is 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(60), "big-endian"),
        (head(pairs=2**63), "metadata entries"),
        (head() + struct.pack("<Q", 2**63), "text of"),
        (head() + key("k") + struct.pack("<I", 99), "value type 99"),
        (head() + key("k") + struct.pack("<IQ", 8, 2**62), "text of"),
        (head() + key("k") + struct.pack("<IIQ", 9, 8, 2**62), "list of"),
        (head() + key("k") + struct.pack("<IIQ", 9, 4, 2**62), "ends in its metadata"),
        (head() + key("k") + struct.pack("<IIQ", 9, 9, 1), "value type 9"),
        (head() + key("k") + struct.pack("<IIQQ", 9, 8, 1, 2**62), "ends in its metadata"),
        (head(pairs=2) + (key("k") + struct.pack("<I?", 7, True)) * 2, "twice"),
    ],
)
def test_damage_is_named(data: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        read(data)
    assert caught.value.remedy


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_gguf(tmp_path / "none.gguf")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_gguf(tmp_path)


def allowed(data: bytes) -> None:
    """Nothing but an info or a ModelError comes out."""
    try:
        info = read(data)
    except ModelError:
        return
    assert kv_cache_bytes(info, 4096) >= 0


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    allowed(data)


@given(st.binary(max_size=400), st.sampled_from([2, 3]), st.integers(0, 2**64 - 1))
def test_any_bytes_after_a_sound_head(data: bytes, version: int, pairs: int) -> None:
    allowed(head(version, pairs) + data)


@given(st.data())
def test_every_cut_is_damage(data: st.DataObject) -> None:
    whole = _whole()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ModelError):
        read(whole[:cut])


@given(st.data())
def test_any_changed_byte(data: st.DataObject) -> None:
    whole = bytearray(_whole())
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    allowed(bytes(whole))


def _whole() -> bytes:
    pairs = [
        key("general.architecture") + struct.pack("<I", 8) + key("a"),
        key("a.block_count") + struct.pack("<II", 4, 2),
        key("a.embedding_length") + struct.pack("<II", 4, 8),
        key("a.context_length") + struct.pack("<II", 4, 8),
        key("a.attention.head_count") + struct.pack("<IIQii", 9, 5, 2, 1, 1),
        key("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + key("x") + key("y"),
    ]
    return head(pairs=len(pairs)) + b"".join(pairs)
