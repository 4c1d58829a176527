"""The page of the API: its words from a file beside this one, its tables from the modules that decide. Pure.

A table stands in the words as a line ``{{name}}``; :data:`TABLES` has its maker.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import orjson
from pydantic import BaseModel

from coterie.cli.docs_schema import in_words, table_row
from coterie.dialects.chat_models import ChatRequest
from coterie.dialects.completions import CompletionRequest
from coterie.dialects.embeddings import EmbeddingsRequest
from coterie.dialects.json_schema import ANNOTATIONS, DEFAULT, ENFORCED_KEYWORDS
from coterie.dialects.responses_models import (
    RESPONSES_UNSUPPORTED,
    RESPONSES_WITHOUT_EFFECT,
    ResponsesRequest,
)
from coterie.dialects.support import (
    CHAT_UNSUPPORTED,
    COMPLETIONS_UNSUPPORTED,
    EMBEDDINGS_UNSUPPORTED,
    WITHOUT_EFFECT,
    Unsupported,
)

_WORDS: Final = Path(__file__).parent / "docs_api.md"
_PLACE: Final = re.compile(r"^\{\{(\w+)\}\}$", re.MULTILINE)

_SCHEMA_LIMITS: Final[Mapping[str, str]] = {
    "nodes": "subschemas",
    "depth": "levels of nesting",
    "enum_values": "values of all `enum` together",
    "string_chars": "characters of all names and values together",
    "properties": "properties of one object",
    "name_chars": "characters of one property's name",
    "path_chars": "characters of the names that lead to each subschema, added up",
    "alternatives": "schemas in one `anyOf`, `oneOf` or `prefixItems`",
    "definitions": "definitions",
    "repetitions": "`minItems`, `maxItems`, `minLength`, `maxLength`",
}


def api_page() -> str:
    """The page of the endpoints and their parameters."""
    return _PLACE.sub(lambda place: "\n".join(TABLES[place[1]]()), _WORDS.read_text(encoding="utf-8"))


def _honoured(model: type[BaseModel], without_effect: Mapping[str, str] = WITHOUT_EFFECT) -> Iterator[str]:
    properties = model.model_json_schema()["properties"]
    rows = [(f"`{name}`", in_words(schema)) for name, schema in properties.items() if name not in without_effect]
    return _table(("parameter", "value"), rows)


def _refused(table: Mapping[str, Unsupported]) -> Iterator[str]:
    rows = [(f"`{name}`", _values(rule.accepted), rule.hint.strip()) for name, rule in table.items()]
    return _table(("parameter", "accepted values", "note"), rows)


def _values(accepted: Iterable[object]) -> str:
    return ", ".join(f"`{orjson.dumps(value).decode()}`" for value in accepted) or "none"


def _without_effect(table: Mapping[str, str]) -> Iterator[str]:
    return _table(("parameter", "why"), [(f"`{name}`", why) for name, why in table.items()])


def _keywords() -> Iterator[str]:
    return _table(("keyword", "how far"), [(f"`{name}`", how) for name, how in ENFORCED_KEYWORDS.items()])


def _annotations() -> Iterator[str]:
    yield ", ".join(f"`{name}`" for name in sorted(ANNOTATIONS)) + "."


def _schema_limits() -> Iterator[str]:
    limits = dataclasses.asdict(DEFAULT)
    return _table(("at most", "of"), [(f"{limits[name]:,}", text) for name, text in _SCHEMA_LIMITS.items()])


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield table_row(titles)
    yield "|" + "---|" * len(titles)
    yield from map(table_row, rows)


TABLES: Final[Mapping[str, Callable[[], Iterator[str]]]] = {
    "chat_honoured": lambda: _honoured(ChatRequest),
    "chat_refused": lambda: _refused(CHAT_UNSUPPORTED),
    "completions_honoured": lambda: _honoured(CompletionRequest),
    "completions_refused": lambda: _refused(COMPLETIONS_UNSUPPORTED),
    "embeddings_honoured": lambda: _honoured(EmbeddingsRequest),
    "embeddings_refused": lambda: _refused(EMBEDDINGS_UNSUPPORTED),
    "responses_honoured": lambda: _honoured(ResponsesRequest, RESPONSES_WITHOUT_EFFECT),
    "responses_refused": lambda: _refused(RESPONSES_UNSUPPORTED),
    "responses_without_effect": lambda: _without_effect(RESPONSES_WITHOUT_EFFECT),
    "without_effect": lambda: _without_effect(WITHOUT_EFFECT),
    "schema_keywords": _keywords,
    "schema_annotations": _annotations,
    "schema_limits": _schema_limits,
}
"""Every generated part of the page."""
