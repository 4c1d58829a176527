"""The description of this API, from the request models and the catalogue; and a page to read it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from coterie.dialects.chat_models import ChatRequest
from coterie.dialects.completions import CompletionRequest
from coterie.dialects.conversation_requests import ConversationAddition, ConversationChange, ConversationCreation
from coterie.dialects.embeddings import EmbeddingsRequest
from coterie.dialects.responses_models import Prompted, ResponsesRequest
from coterie.errors import CATALOGUE
from coterie.version import __version__

PAGE: Final = (Path(__file__).parent / "docs.html").read_text(encoding="utf-8")
"""A page without anything from elsewhere: it must work on a machine without a network."""

_REF: Final = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class _Operation:
    """One method of one path. ``query`` are its query's parameters, with their JSON types."""

    path: str
    summary: str
    method: str = "get"
    body: type[BaseModel] | None = None
    streams: bool = False
    keyed: bool = True
    query: Mapping[str, str] = field(default_factory=dict)


_PAGE_QUERY: Final = {"limit": "integer", "order": "string", "after": "string"}
_RESPONSE: Final = "/v1/responses/{response_id}"
_CONVERSATION: Final = "/v1/conversations/{conversation_id}"
_ITEM: Final = f"{_CONVERSATION}/items/{{item_id}}"

_NOT_JSON: Final = frozenset({"/metrics"})

_OPERATIONS: Final = (
    _Operation("/v1/chat/completions", "Generate an answer to a conversation", "post", ChatRequest, streams=True),
    _Operation("/v1/completions", "Continue a text", "post", CompletionRequest, streams=True),
    _Operation("/v1/embeddings", "Compute vectors of texts", "post", EmbeddingsRequest),
    _Operation("/v1/responses", "Generate a response", "post", ResponsesRequest, streams=True),
    _Operation("/v1/responses/compact", "Make a conversation short", "post", Prompted),
    _Operation("/v1/responses/input_tokens", "Count the tokens of an input", "post", Prompted),
    _Operation(
        _RESPONSE, "One stored response", streams=True, query={"stream": "boolean", "starting_after": "integer"}
    ),
    _Operation(_RESPONSE, "Delete a stored response", "delete"),
    _Operation(f"{_RESPONSE}/cancel", "Cancel a response in the background", "post"),
    _Operation(f"{_RESPONSE}/input_items", "The items of a response's input", query=_PAGE_QUERY),
    _Operation("/v1/conversations", "Make a conversation", "post", ConversationCreation),
    _Operation(_CONVERSATION, "One conversation"),
    _Operation(_CONVERSATION, "Replace a conversation's metadata", "post", ConversationChange),
    _Operation(_CONVERSATION, "Delete a conversation", "delete"),
    _Operation(f"{_CONVERSATION}/items", "The items of a conversation", query=_PAGE_QUERY),
    _Operation(f"{_CONVERSATION}/items", "Add items to a conversation", "post", ConversationAddition),
    _Operation(_ITEM, "One item of a conversation"),
    _Operation(_ITEM, "Delete an item of a conversation", "delete"),
    _Operation("/v1/models", "List the served models"),
    _Operation("/v1/models/{model}", "One served model"),
    _Operation("/metrics", "Metrics in Prometheus' text format"),
    _Operation("/status", "Engines, slots and queues"),
    _Operation("/health", "Whether the process is alive", keyed=False),
    _Operation("/ready", "Whether a request that came now could be served", keyed=False),
    _Operation("/version", "The server's version", keyed=False),
)


@functools.cache
def openapi() -> bytes:
    """The description as JSON."""
    models = {operation.body for operation in _OPERATIONS if operation.body is not None}
    _, schemas = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda model: model.__name__)], ref_template=_REF
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in _OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "Coterie", "version": __version__, "license": {"name": "Apache-2.0"}},
            "paths": paths,
            "components": {
                "schemas": {**schemas["$defs"], "Error": _error_schema()},
                "responses": {"Failure": _failure()},
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _described(operation: _Operation) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if operation.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {"200": {"description": "The answer", "content": content}, **_failures()},
    }
    if operation.path in _NOT_JSON or not operation.keyed:
        described["responses"]["200"] = {"description": "The answer"}
    if operation.keyed:
        described["security"] = [{"key": []}, {}]
    if parameters := [*_in_path(operation.path), *_in_query(operation.query)]:
        described["parameters"] = parameters
    if operation.body is not None:
        schema = {"$ref": _REF.format(model=operation.body.__name__)}
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return described


def _in_path(path: str) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _in_query(query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for name, kind in query.items():
        yield {"name": name, "in": "query", "required": False, "schema": {"type": kind}}


def _failures() -> dict[str, Any]:
    statuses = sorted({entry.status for entry in CATALOGUE.values()})
    return {str(status): {"$ref": "#/components/responses/Failure"} for status in statuses}


def _failure() -> dict[str, Any]:
    schema = {"type": "object", "required": ["error"], "properties": {"error": {"$ref": "#/components/schemas/Error"}}}
    return {
        "description": "A failure of the catalogue",
        "headers": {"x-request-id": {"schema": {"type": "string"}}},
        "content": {"application/json": {"schema": schema}},
    }


def _error_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["message", "type", "param", "code"],
        "properties": {
            "message": {"type": "string", "minLength": 1},
            "type": {"type": "string", "enum": sorted({entry.type for entry in CATALOGUE.values()})},
            "param": {"type": ["string", "null"]},
            "code": {"type": "string", "enum": sorted(CATALOGUE)},
        },
    }
