"""No request of any shape gives a 500, an answer outside the contract, or a hang. The real server, engine and model.

Three sources of requests: Hypothesis on the shape of bodies (valid ones with parts exchanged for anything), Hypothesis
on raw bytes, methods, paths and headers, and schemathesis on the server's own OpenAPI description, with values that the
description allows and values that it forbids. How many were tried is told at the end. ``COTERIE_FUZZ`` multiplies it.

Answers are kept short (``max_tokens``), which is the only thing that is done to a body.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.models import model_file
from tests.support.server import PATIENCE_S, Answer, Server, exchange, serving
from tests.support.tally import TRIED

from coterie.api.openapi import openapi
from coterie.dialects.chat_validator import judge
from coterie.dialects.responses_validator import judge as judge_response
from coterie.errors import CATALOGUE

MODEL = "smollm2-135m-instruct"
POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/conversations")
RESPONSES = "/v1/responses"
COMPACTION = "/v1/responses/compact"
STATUSES = {entry.status for entry in CATALOGUE.values()} - {500}

EXAMPLES = int(os.environ.get("COTERIE_FUZZ", "1"))
SLOW_OK = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture)


def often(examples: int) -> settings:
    return settings(max_examples=examples * EXAMPLES, deadline=None, suppress_health_check=list(SLOW_OK))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = f"""
[limits]
body_bytes = 65536
body_timeout_s = 2
[engine]
slots = 4
context_tokens = 256
[[models]]
name = "{MODEL}"
path = "{model_file()}"
"""
    with serving(tmp_path_factory.mktemp("fuzz"), config) as server:
        yield server


def check(answer: Answer, source: str) -> None:
    """The contract, for any answer to any request."""
    TRIED[source] += 1
    assert answer.headers["x-request-id"].startswith("req_")
    if answer.status in (200, 204):
        return
    assert answer.status in STATUSES, (answer.status, answer.body[:300])
    body = answer.json
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    entry = CATALOGUE[error["code"]]
    assert (entry.status, entry.type) == (answer.status, error["type"])
    assert error["message"]
    assert bool(error["param"]) or not entry.takes_param
    assert len(answer.body) < 4096


def post(target: Server, path: str, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    return target.ask("POST", path, body, headers or {})


def shortened_response(body: Any) -> Any:
    """The same for a response, whose least bound is 16."""
    if isinstance(body, dict):
        value = body.get("max_output_tokens")
        if value is None or (type(value) is int and value > 16):
            body["max_output_tokens"] = 16
    return body


def shortened(body: Any) -> Any:
    """A body whose answer, if it gets one, is short."""
    if isinstance(body, dict):
        for name in ("max_tokens", "max_completion_tokens"):
            value = body.get(name)
            if type(value) is int and 2 < value <= 256:
                body[name] = 2
        if body.get("max_tokens") is None and body.get("max_completion_tokens") is None:
            body["max_tokens"] = 2
    return body


# Bodies

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
schemas = st.recursive(
    st.fixed_dictionaries({}, optional={"type": st.sampled_from(["string", "integer", "boolean", "null", "number"])})
    | anything,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string"]) | anything,
            "properties": st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
            "required": st.lists(st.sampled_from(["a", "b", "z"]), max_size=2),
            "items": inner,
            "anyOf": st.lists(inner, max_size=3),
            "enum": st.lists(anything, max_size=3),
            "pattern": st.text(max_size=8),
            "$ref": st.sampled_from(["#", "#/$defs/x", "http://example.com", "#/properties/a"]),
            "$defs": st.dictionaries(st.just("x"), inner, max_size=1),
            "minItems": st.integers(-1, 10_000_000),
            "maxLength": st.integers(-1, 10_000_000),
            "additionalProperties": st.booleans() | inner,
        },
    ),
    max_leaves=6,
)
texts = st.text(max_size=40)
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "input_audio", "file", "refusal"]) | texts},
    optional={
        "text": texts | anything,
        "image_url": st.fixed_dictionaries({"url": texts | st.just("data:image/png;base64,AA==")}),
    },
)
calls = st.fixed_dictionaries(
    {"id": st.sampled_from(["a", "b"]), "type": st.just("function")},
    optional={"function": st.fixed_dictionaries({"name": st.just("f"), "arguments": texts})},
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]) | texts},
    optional={
        "content": texts | st.lists(parts, max_size=3) | anything,
        "tool_calls": st.lists(calls, max_size=2),
        "tool_call_id": st.sampled_from(["a", "b", ""]),
        "name": texts,
    },
)
tools = st.fixed_dictionaries(
    {"type": st.sampled_from(["function", "custom", "x"])},
    optional={
        "function": st.fixed_dictionaries(
            {"name": st.sampled_from(["f", "g", "bad name"])},
            optional={"description": texts, "parameters": schemas, "strict": st.booleans()},
        )
    },
)
formats = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "json_object", "json_schema", "x"])},
    optional={"json_schema": st.fixed_dictionaries({"name": st.just("s")}, optional={"schema": schemas})},
)
models = st.just(MODEL) | st.just(MODEL) | st.just(MODEL) | texts | anything
fields = {
    "temperature": st.floats(-1, 3) | anything,
    "top_p": st.floats(-1, 2) | anything,
    "top_k": st.integers(-2, 100),
    "min_p": st.floats(-1, 2),
    "seed": st.integers() | anything,
    "stop": texts | st.lists(texts, max_size=6) | anything,
    "max_tokens": st.integers(-2, 300) | anything,
    "n": st.integers(-1, 10) | anything,
    "frequency_penalty": st.floats(-3, 3),
    "presence_penalty": st.floats(-3, 3),
    "logit_bias": st.dictionaries(st.integers(-5, 60_000).map(str), st.floats(-120, 120), max_size=3) | anything,
    "stream": st.booleans() | anything,
    "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans()}) | anything,
    "user": texts,
}
chat_bodies = st.fixed_dictionaries(
    {"model": models, "messages": st.lists(messages, max_size=4) | st.just([{"role": "user", "content": "Hi"}])},
    optional={
        **fields,
        "tools": st.lists(tools, max_size=2) | anything,
        "tool_choice": st.sampled_from(["auto", "none", "required"]) | anything,
        "parallel_tool_calls": st.booleans(),
        "response_format": formats | anything,
        "logprobs": st.booleans() | anything,
        "top_logprobs": st.integers(-1, 22),
        "max_completion_tokens": st.integers(-2, 300),
        "reasoning_effort": texts,
        "metadata": st.dictionaries(texts, texts, max_size=2),
        "store": st.booleans(),
        "audio": anything,
    },
)
prompts = texts | st.lists(texts, max_size=3) | st.lists(st.integers(-1, 60_000), max_size=4) | anything
completion_bodies = st.fixed_dictionaries(
    {"model": models, "prompt": prompts},
    optional={**fields, "logprobs": st.integers(-1, 7), "echo": st.booleans(), "suffix": texts},
)
embedding_bodies = st.fixed_dictionaries(
    {"model": models, "input": prompts},
    optional={"encoding_format": st.sampled_from(["float", "base64", "x"]), "dimensions": st.integers(-1, 600)},
)
response_parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text", "refusal", "input_image", "input_file", "x"])},
    optional={
        "text": texts | anything,
        "image_url": texts,
        "file_id": texts,
        "refusal": texts,
        "annotations": anything,
    },
)
sealed = texts | st.just("coterie1.AAAA")
items = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["message", "message", "function_call", "function_call_output", "reasoning", "item_reference", "compaction",
             "web_search_call", "x"]
        )
    },
    optional={
        "id": texts | anything,
        "role": st.sampled_from(["user", "assistant", "system", "developer", "tool"]) | anything,
        "content": texts | st.lists(response_parts, max_size=3) | anything,
        "call_id": st.sampled_from(["a", "b", ""]) | anything,
        "name": st.sampled_from(["f", "bad name"]),
        "arguments": texts,
        "output": texts | st.lists(response_parts, max_size=2) | anything,
        "summary": st.lists(response_parts, max_size=1),
        "encrypted_content": sealed,
        "status": st.sampled_from(["completed", "in_progress", "incomplete", "x"]),
    },
)  # fmt: skip
easy_items = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "developer"]), "content": texts})
response_tools = st.fixed_dictionaries(
    {"type": st.sampled_from(["function", "web_search", "mcp", "x"])},
    optional={"name": st.sampled_from(["f", "g", "bad name"]), "parameters": schemas, "strict": st.booleans()},
)
response_bodies = st.fixed_dictionaries(
    {"model": models, "input": texts | st.lists(items | easy_items, max_size=4) | anything},
    optional={
        "instructions": texts | anything,
        "stream": st.booleans() | anything,
        "store": st.booleans() | anything,
        "background": st.booleans() | anything,
        "previous_response_id": texts | anything,
        "conversation": texts | st.fixed_dictionaries({"id": texts}) | anything,
        "tools": st.lists(response_tools, max_size=2) | anything,
        "tool_choice": st.sampled_from(["auto", "none", "required"]) | anything,
        "parallel_tool_calls": st.booleans(),
        "max_output_tokens": st.integers(-2, 300) | anything,
        "max_tool_calls": st.integers(-1, 4),
        "text": st.fixed_dictionaries({}, optional={"format": formats | anything, "verbosity": texts}) | anything,
        "reasoning": anything,
        "temperature": st.floats(-1, 3),
        "top_p": st.floats(-1, 2),
        "top_logprobs": st.integers(-1, 22),
        "truncation": st.sampled_from(["auto", "disabled", "x"]),
        "include": st.lists(st.sampled_from(["message.output_text.logprobs", "reasoning.encrypted_content", "x"])),
        "metadata": st.dictionaries(texts, texts, max_size=2),
        "stream_options": anything,
    },
)
unknown = st.dictionaries(st.text(string.ascii_lowercase, max_size=6), anything, max_size=1)


def send(target: Server, path: str, body: dict[str, Any], extra: dict[str, Any], source: str) -> None:
    body = shortened({**body, **extra}) if path != POSTS[2] else {**body, **extra}
    answer = post(target, path, json.dumps(body).encode())
    check(answer, source)
    if answer.status == 200 and path == POSTS[0] and answer.headers["content-type"].startswith("text/event-stream"):
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        assert judge(answer.body, include_usage=usage, choices=body.get("n") or 1) == []


@often(300)
@given(body=chat_bodies, extra=unknown)
def test_chat_bodies(target: Server, body: dict[str, Any], extra: dict[str, Any]) -> None:
    send(target, POSTS[0], body, extra, "chat bodies")


@often(120)
@given(body=completion_bodies, extra=unknown)
def test_completion_bodies(target: Server, body: dict[str, Any], extra: dict[str, Any]) -> None:
    send(target, POSTS[1], body, extra, "completion bodies")


@often(150)
@given(body=response_bodies, extra=unknown)
def test_response_bodies(target: Server, body: dict[str, Any], extra: dict[str, Any]) -> None:
    body = shortened_response({**body, **extra})
    answer = post(target, RESPONSES, json.dumps(body).encode())
    check(answer, "response bodies")
    if answer.status != 200:
        return
    if answer.headers["content-type"].startswith("text/event-stream"):
        assert judge_response(answer.body) == []
    else:
        assert answer.json["object"] == "response"
        assert answer.json["status"] in ("queued" if body.get("background") else "completed", "incomplete")


@often(80)
@given(body=embedding_bodies, extra=unknown)
def test_embedding_bodies(target: Server, body: dict[str, Any], extra: dict[str, Any]) -> None:
    send(target, POSTS[2], body, extra, "embedding bodies")


@often(200)
@given(
    body=st.binary(max_size=400) | anything.map(lambda value: json.dumps(value).encode()),
    path=st.sampled_from(POSTS),
    media_type=st.sampled_from(
        ["application/json", "application/json; charset=utf-8", "text/plain", "", "multipart/x"]
    ),
)
def test_raw_bodies(target: Server, body: bytes, path: str, media_type: str) -> None:
    check(post(target, path, body, {"content-type": media_type}), "raw bodies")


# Anything else that HTTP lets through

tokens = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=12)
paths = st.lists(st.text(string.ascii_letters + string.digits + "%._~:-", max_size=8), max_size=4).map(
    lambda segments: "/" + "/".join(segments)
)
known_paths = st.sampled_from(["/v1/models", "/v1/models/x", "/health", "/ready", "/version", "/docs", *POSTS])
header_values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40).map(str.strip)


@often(200)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE"]),
    path=paths | known_paths,
    headers=st.dictionaries(tokens.filter(lambda name: not forbidden(name)), header_values, max_size=4),
)
def test_methods_paths_and_headers(target: Server, method: str, path: str, headers: dict[str, str]) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", target.port, timeout=PATIENCE_S)) as connection:
        answer = exchange(connection, method, path, None, headers)
        if method != "HEAD":
            check(answer, "methods, paths, headers")
        # The connection is good for the next request, or says that it is not.
        if answer.headers.get("connection") != "close":
            assert exchange(connection, "GET", "/health").status == 200


def forbidden(name: str) -> bool:
    """Headers that change the framing: a client that lies about it waits for ever, and rightly so."""
    return name.lower() in ("content-length", "transfer-encoding", "connection", "expect", "upgrade", "host", "te")


# The description

api = schemathesis.openapi.from_dict(json.loads(openapi()))


@api.parametrize()
@often(60)
def test_the_description(case: schemathesis.Case[Any], target: Server) -> None:
    shorten = {RESPONSES: shortened_response, POSTS[0]: shortened, POSTS[1]: shortened}.get(
        case.path, lambda body: body
    )
    body = shorten(case.body)
    # A note of a compaction is as long as the model likes, and hundreds of them would take minutes.
    if isinstance(body, dict) and isinstance(body.get("model"), str) and case.path != COMPACTION:
        body["model"] = MODEL
    headers = {str(name): str(value) for name, value in (case.headers or {}).items() if not forbidden(str(name))}
    data = json.dumps(body).encode() if isinstance(body, (dict, list, str, int, float, bool)) else None
    query = f"?{urlencode(case.query)}" if case.query else ""
    answer = target.ask(case.method, case.formatted_path + query, data, headers)
    if case.method != "HEAD":
        check(answer, "schemathesis")


def test_the_server_is_as_good_as_new(target: Server) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    assert post(target, POSTS[0], json.dumps(body).encode()).status == 200
    assert "Traceback" not in target.log
    assert Path(f"/proc/{target.process.pid}").exists() or target.process.poll() is None
