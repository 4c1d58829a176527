"""The embeddings dialect: its request and its answer. Pure."""

from __future__ import annotations

import array
import base64
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import StringConstraints, Tag

from coterie.dialects.chat import check_model
from coterie.dialects.chat_models import Identifier
from coterie.dialects.completions import parse_prompts
from coterie.dialects.support import EMBEDDINGS_UNSUPPORTED, refuse_unsupported
from coterie.dialects.validation import Strict, by_type, tag, validate, validate_openly
from coterie.errors import ApiError
from coterie.wire.lingua import Embedded, Embedding

MAX_INPUTS = 2048
"""Inputs of one request at most: the specification's limit."""

Input = Annotated[
    Annotated[str, Tag(tag("string"))] | Annotated[list[Any], Tag(tag("array"))], by_type(string=str, array=list)
]


class EmbeddingsRequest(Strict):
    """The body of ``POST /v1/embeddings``."""

    model: Annotated[str, StringConstraints(max_length=256)]
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    user: Identifier | None = None


@dataclass(frozen=True, slots=True)
class ParsedEmbeddings:
    """What the edge needs."""

    embedding: Embedding
    base64: bool


def parse_embeddings(body: Mapping[str, Any]) -> ParsedEmbeddings:
    """Check an embeddings request. Raises ``ApiError``."""
    check_model(body)
    fields = refuse_unsupported(body, EMBEDDINGS_UNSUPPORTED)
    request = validate(EmbeddingsRequest, fields)
    inputs = parse_prompts(fields["input"], "input")
    if len(inputs) > MAX_INPUTS:
        raise ApiError("array_above_max_length", param="input", limit=MAX_INPUTS, actual=len(inputs))
    return ParsedEmbeddings(Embedding(request.model, inputs), request.encoding_format == "base64")


def parse_embeddings_openly(body: Mapping[str, Any]) -> ParsedEmbeddings:
    """Check what is known of an embeddings request, and pass everything. Raises ``ApiError``.

    What a provider cannot honour that knows OpenAI's parameters alone is told in ``Embedding.refusal``.
    """
    check_model(body)
    validate_openly(EmbeddingsRequest, body)
    inputs = parse_prompts(body["input"], "input")
    if len(inputs) > MAX_INPUTS:
        raise ApiError("array_above_max_length", param="input", limit=MAX_INPUTS, actual=len(inputs))
    extra = {name: value for name, value in body.items() if name not in ("model", "input", "encoding_format")}
    embedding = Embedding(body["model"], inputs, extra, _refusal(body))
    return ParsedEmbeddings(embedding, body.get("encoding_format") == "base64")


def _refusal(body: Mapping[str, Any]) -> ApiError | None:
    try:
        parse_embeddings(body)
    except ApiError as error:
        return error
    return None


def render_embeddings(parsed: ParsedEmbeddings, embedded: Embedded) -> dict[str, Any]:
    """The answer's body."""
    encode = _base64 if parsed.base64 else list
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(embedded.vectors)
        ],
        "model": parsed.embedding.model,
        "usage": {"prompt_tokens": embedded.prompt_tokens, "total_tokens": embedded.prompt_tokens},
    }


def _base64(vector: list[float]) -> str:
    """Little-endian 32-bit floats, which is what the SDKs decode."""
    numbers = array.array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")
