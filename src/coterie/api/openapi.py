"""The description of this API, from the request models and the catalogue; and a page to read it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic.json_schema import models_json_schema

from coterie.dialects.chat_models import ChatRequest
from coterie.dialects.completions import CompletionRequest
from coterie.dialects.embeddings import EmbeddingsRequest
from coterie.errors import CATALOGUE
from coterie.version import __version__

PAGE: Final = (Path(__file__).parent / "docs.html").read_text(encoding="utf-8")
"""A page without anything from elsewhere: it must work on a machine without a network."""

_REF: Final = "#/components/schemas/{model}"

_POSTS: Final = (
    ("/v1/chat/completions", "Generate an answer to a conversation", ChatRequest, "text/event-stream"),
    ("/v1/completions", "Continue a text", CompletionRequest, "text/event-stream"),
    ("/v1/embeddings", "Compute vectors of texts", EmbeddingsRequest, None),
)

_GETS: Final = (
    ("/v1/models", "List the served models", True),
    ("/v1/models/{model}", "One served model", True),
    ("/metrics", "Metrics in Prometheus' text format", True),
    ("/status", "Engines, slots and queues", True),
    ("/health", "Whether the process is alive", False),
    ("/ready", "Whether a request that came now could be served", False),
    ("/version", "The server's version", False),
)


@functools.cache
def openapi() -> bytes:
    """The description as JSON."""
    _, schemas = models_json_schema([(model, "validation") for _, _, model, _ in _POSTS], ref_template=_REF)
    paths: dict[str, Any] = {path: {"post": _post(text, model, stream)} for path, text, model, stream in _POSTS}
    paths |= {path: {"get": _get(path, text, keyed)} for path, text, keyed in _GETS}
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


def _post(summary: str, model: type, stream_type: str | None) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if stream_type is not None:
        content[stream_type] = {"schema": {"type": "string"}}
    return {
        "summary": summary,
        "security": [{"key": []}, {}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}},
        },
        "responses": {"200": {"description": "The answer", "content": content}, **_failures()},
    }


def _get(path: str, summary: str, keyed: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "The answer"}, **_failures()},
    }
    if keyed:
        operation["security"] = [{"key": []}, {}]
    if "{model}" in path:
        operation["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    return operation


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
