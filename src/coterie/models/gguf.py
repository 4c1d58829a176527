"""What a GGUF file says about itself, read without loading it.

The format (versions 2 and 3, little-endian), as ggml's own description has it: the magic ``GGUF``, a ``uint32``
version, ``uint64`` counts of tensors and of key-value pairs, then the pairs: a string (``uint64`` length, UTF-8 bytes),
a ``uint32`` type, the value. An array is the ``uint32`` type of its elements, a ``uint64`` count, the elements.

The rules:

* Whatever the bytes are, the answer is a :class:`GgufInfo` or a :class:`ModelError`: every length and count is checked
  against the end of the file and a bound before it is used, so no file costs much memory or time.
* Arrays are stepped over, except short ones of numbers (heads per layer). Tensors are not looked at.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from coterie.models.errors import ModelError

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final[dict[int, struct.Struct]] = {
    code: struct.Struct(f"<{letter}")
    for code, letter in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "?",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}
_POOLING: Final = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}

_MOST_PAIRS: Final = 65_536
_MOST_STRINGS: Final = 4_000_000
"""Strings in all arrays together; the largest vocabularies have some 260 000 tokens and twice as many merges."""
_LONGEST_KEY: Final = 65_535
_LONGEST_TEXT: Final = 4 * 1024 * 1024
_LONGEST_LIST: Final = 4096
"""Elements of an array of numbers that is kept."""

_F16_BYTES: Final = 2

_Value = int | float | bool | str | tuple[int | float | bool, ...] | None
"""``None``: an array that was stepped over."""


@dataclass(frozen=True, slots=True)
class GgufInfo:
    """The metadata that serving a model needs.

    ``head_count`` and ``head_count_kv`` have one number for each of the ``block_count`` layers; ``key_length`` and
    ``value_length`` are numbers per head. ``context_tokens`` is what the model was trained for. ``file_type`` is
    llama.cpp's number of the quantisation.
    """

    architecture: str
    name: str | None
    context_tokens: int
    embedding_length: int
    block_count: int
    head_count: tuple[int, ...]
    head_count_kv: tuple[int, ...]
    key_length: int
    value_length: int
    causal: bool
    chat_template: str | None
    pooling_type: str | None
    file_type: int | None
    vocab_size: int | None


class _DamagedError(Exception):
    """The bytes break the format; the text says how."""


def read_gguf(path: Path) -> GgufInfo:
    """Read the metadata of the file ``path``. Raises :class:`ModelError`."""
    try:
        with path.open("rb") as file:
            return _parse(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions.") from None
    except _DamagedError as damage:
        raise ModelError(
            f"{path} is not a GGUF model that can be served: {damage}.",
            "Use a complete GGUF file of a language or embedding model; if it was copied, copy it again.",
        ) from None


def kv_cache_bytes(info: GgufInfo, tokens: int) -> int:
    """Bytes of the 16-bit key-value cache for ``tokens`` of context: an upper bound, sliding windows use less."""
    if not info.causal:
        return 0
    return tokens * sum(info.head_count_kv) * (info.key_length + info.value_length) * _F16_BYTES


def _parse(file: BinaryIO, size_bytes: int) -> GgufInfo:
    reader = _Reader(file, size_bytes)
    if reader.take(4) != _MAGIC:
        raise _DamagedError("it does not begin with 'GGUF'")
    version = reader.number(4)
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
        raise _DamagedError("it is big-endian" if swapped else f"its version is {version}, not 2 or 3")
    reader.number(8)
    pairs = reader.number(8)
    if pairs > _MOST_PAIRS:
        raise _DamagedError(f"it claims {pairs} metadata entries")
    values: dict[str, _Value] = {}
    counts: dict[str, int] = {}
    for _ in range(pairs):
        reader.pair(values, counts)
    return _info(_Fields(values), counts)


class _Reader:
    """A cursor that never reads past the end of the file."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self._left = size_bytes
        self._strings = _MOST_STRINGS

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        self._use(length)
        data = self._file.read(length)
        if len(data) != length:
            raise _DamagedError("it ends in its metadata")
        return data

    def number(self, width: int) -> int:
        """An unsigned number of ``width`` bytes."""
        return int.from_bytes(self.take(width), "little")

    def text(self, longest: int) -> str:
        """A string of at most ``longest`` bytes."""
        length = self.number(8)
        if length > longest:
            raise _DamagedError(f"it holds a text of {length} bytes")
        return self.take(length).decode("utf-8", "replace")

    def pair(self, values: dict[str, _Value], counts: dict[str, int]) -> None:
        """Read one key and its value; the length of an array goes into ``counts``."""
        key = self.text(_LONGEST_KEY)
        if key in values:
            raise _DamagedError(f"it says {key!r} twice")
        kind = self.number(4)
        if kind == _STRING:
            values[key] = self.text(_LONGEST_TEXT)
        elif kind == _ARRAY:
            values[key], counts[key] = self._array()
        else:
            values[key] = self._scalar(kind)

    def _scalar(self, kind: int) -> int | float | bool:
        layout = _layout(kind)
        value: int | float | bool = layout.unpack(self.take(layout.size))[0]
        return value

    def _array(self) -> tuple[tuple[int | float | bool, ...] | None, int]:
        kind, count = self.number(4), self.number(8)
        if kind == _STRING:
            self._skip_strings(count)
            return None, count
        layout = _layout(kind)
        if count > _LONGEST_LIST:
            self._skip(count * layout.size)
            return None, count
        return tuple(value for (value,) in layout.iter_unpack(self.take(count * layout.size))), count

    def _skip_strings(self, count: int) -> None:
        self._strings -= count
        if self._strings < 0:
            raise _DamagedError(f"it holds a list of {count} texts")
        for _ in range(count):
            self._skip(self.number(8))

    def _skip(self, length: int) -> None:
        self._use(length)
        self._file.seek(length, 1)

    def _use(self, length: int) -> None:
        self._left -= length
        if self._left < 0:
            raise _DamagedError("it ends in its metadata")


def _layout(kind: int) -> struct.Struct:
    layout = _SCALARS.get(kind)
    if layout is None:
        raise _DamagedError(f"it uses the value type {kind}")
    return layout


class _Fields:
    """Metadata with the types that are expected of it."""

    def __init__(self, values: dict[str, _Value]) -> None:
        self._values = values

    def text(self, key: str) -> str | None:
        """A string, where there is one."""
        value = self._values.get(key)
        return value if isinstance(value, str) else None

    def count(self, key: str, default: int | None = None) -> int:
        """A number of things; ``default`` where it is absent, else it must be there."""
        value = self._values.get(key, default)
        if value is None:
            raise _DamagedError(f"it does not say {key!r}")
        return _whole(key, value)

    def optional_count(self, key: str) -> int | None:
        """A number of things, or ``None``."""
        return self.count(key) if key in self._values else None

    def per_layer(self, key: str, layers: int, default: tuple[int, ...]) -> tuple[int, ...]:
        """One number for each layer, from a list or from one number for all."""
        value = self._values.get(key, default)
        if not isinstance(value, tuple):
            return (_whole(key, value),) * layers
        if len(value) != layers:
            raise _DamagedError(f"{key!r} has {len(value)} numbers for {layers} layers")
        return tuple(_whole(key, each) for each in value)

    def flag(self, key: str, default: bool) -> bool:
        """Yes or no."""
        value = self._values.get(key)
        return value if isinstance(value, bool) else default


def _whole(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise _DamagedError(f"{key!r} is not a count")
    return value


def _info(fields: _Fields, counts: dict[str, int]) -> GgufInfo:
    architecture = fields.text("general.architecture")
    if not architecture:
        raise _DamagedError("it does not say 'general.architecture'")
    layers = fields.count(f"{architecture}.block_count")
    if layers > _LONGEST_LIST:
        raise _DamagedError(f"it claims {layers} layers")
    width = fields.count(f"{architecture}.embedding_length")
    heads = fields.per_layer(f"{architecture}.attention.head_count", layers, (0,) * layers)
    head_width = width // max((1, *heads))
    pooling = fields.optional_count(f"{architecture}.pooling_type")
    return GgufInfo(
        architecture=architecture,
        name=fields.text("general.name"),
        context_tokens=fields.count(f"{architecture}.context_length"),
        embedding_length=width,
        block_count=layers,
        head_count=heads,
        head_count_kv=fields.per_layer(f"{architecture}.attention.head_count_kv", layers, heads),
        key_length=fields.count(f"{architecture}.attention.key_length", head_width),
        value_length=fields.count(f"{architecture}.attention.value_length", head_width),
        causal=fields.flag(f"{architecture}.attention.causal", True),
        chat_template=fields.text("tokenizer.chat_template"),
        pooling_type=None if pooling is None else _POOLING.get(pooling),
        file_type=fields.optional_count("general.file_type"),
        vocab_size=counts.get("tokenizer.ggml.tokens", fields.optional_count(f"{architecture}.vocab_size")),
    )
