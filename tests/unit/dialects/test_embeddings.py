"""The embeddings dialect: requests and answers."""

from __future__ import annotations

import base64
import struct
import sys
from typing import Any

import pytest

from coterie.dialects.embeddings import MAX_INPUTS, ParsedEmbeddings, parse_embeddings, render_embeddings
from coterie.errors import ApiError
from coterie.wire.lingua import Embedded, Embedding


def parse(**fields: Any) -> ParsedEmbeddings:
    return parse_embeddings({"model": "m", "input": "a", **fields})


@pytest.mark.parametrize(
    ("value", "inputs"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ([1, 2],)), ([[1], [2]], ([1], [2])),
     (["a"] * MAX_INPUTS, ("a",) * MAX_INPUTS)],
)  # fmt: skip
def test_inputs(value: Any, inputs: tuple[Any, ...]) -> None:
    assert parse(input=value, user="u", dimensions=None).embedding == Embedding("m", inputs)


@pytest.mark.parametrize(("given", "base64_"), [(None, False), ("float", False), ("base64", True)])
def test_encodings(given: str | None, base64_: bool) -> None:
    assert parse(encoding_format=given).base64 is base64_


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no model": ({"model": ""}, "missing_required_parameter", "model"),
    "a long model": ({"model": "x" * 257}, "string_above_max_length", "model"),
    "null": ({"input": None}, "invalid_type", "input"),
    "an object": ({"input": {}}, "invalid_type", "input"),
    "an empty text": ({"input": ""}, "string_below_min_length", "input"),
    "an empty text among others": ({"input": ["a", ""]}, "string_below_min_length", "input[1]"),
    "nothing": ({"input": []}, "empty_array", "input"),
    "no tokens": ({"input": [[]]}, "empty_array", "input[0]"),
    "mixed": ({"input": ["a", 1]}, "invalid_type", "input[1]"),
    "a negative token": ({"input": [-1]}, "integer_below_min_value", "input[0]"),
    "too many": ({"input": ["a"] * (MAX_INPUTS + 1)}, "array_above_max_length", "input"),
    "another encoding": ({"encoding_format": "hex"}, "invalid_value", "encoding_format"),
    "an encoding that is none": ({"encoding_format": 5}, "invalid_type", "encoding_format"),
    "dimensions": ({"dimensions": 5}, "unsupported_parameter", "dimensions"),
    "a user that is none": ({"user": 5}, "invalid_type", "user"),
    "an unknown field": ({"inputs": "a"}, "unknown_parameter", "inputs"),
}


@pytest.mark.parametrize(("fields", "code", "param"), BAD.values(), ids=BAD.keys())
def test_bad_requests(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_the_input_is_required() -> None:
    with pytest.raises(ApiError) as caught:
        parse_embeddings({"model": "m"})
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", "input")


def test_an_answer_in_numbers() -> None:
    answer = render_embeddings(parse(input=["a", "b"]), Embedded([[0.5, -1.0], [0.0, 2.0]], 7))
    assert answer == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -1.0]},
            {"object": "embedding", "index": 1, "embedding": [0.0, 2.0]},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_an_answer_in_base64_is_little_endian_on_every_machine(byteorder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    swapped = byteorder != sys.byteorder
    monkeypatch.setattr("coterie.dialects.embeddings.sys.byteorder", byteorder)
    answer = render_embeddings(parse(encoding_format="base64"), Embedded([[0.5, -1.0]], 1))
    data = base64.b64decode(answer["data"][0]["embedding"])
    # On a machine of the other order the array would hold the bytes the other way round.
    assert struct.unpack(">2f" if swapped else "<2f", data) == (0.5, -1.0)
