"""Every route: who may use it, with which method, and what it says."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send
from tests.support.provider import SECRET, WHOLE, ScriptedProvider, delta, finish, usage
from tests.support.web import CHAT, COMPLETION, EMBEDDINGS, JSON, AsgiClient, client, serving, settings
from tests.support.web import get as get_bytes

from coterie.api.app import make_app, make_state
from coterie.api.routes import make_router
from coterie.errors import ApiError
from coterie.version import __version__
from coterie.wire.lingua import Generation

KEY = "sk-secret-key"

PROTECTED = {
    ("POST", "/v1/chat/completions"): CHAT,
    ("POST", "/v1/completions"): COMPLETION,
    ("POST", "/v1/embeddings"): EMBEDDINGS,
    ("GET", "/v1/models"): None,
    ("GET", "/v1/models/m"): None,
    ("GET", "/metrics"): None,
    ("GET", "/status"): None,
}

STORED = (
    ("POST", "/v1/responses"),
    ("POST", "/v1/responses/compact"),
    ("POST", "/v1/responses/input_tokens"),
    ("GET", "/v1/responses/{response_id}"),
    ("DELETE", "/v1/responses/{response_id}"),
    ("POST", "/v1/responses/{response_id}/cancel"),
    ("GET", "/v1/responses/{response_id}/input_items"),
    ("POST", "/v1/conversations"),
    ("GET", "/v1/conversations/{conversation_id}"),
    ("POST", "/v1/conversations/{conversation_id}"),
    ("DELETE", "/v1/conversations/{conversation_id}"),
    ("GET", "/v1/conversations/{conversation_id}/items"),
    ("POST", "/v1/conversations/{conversation_id}/items"),
    ("GET", "/v1/conversations/{conversation_id}/items/{item_id}"),
    ("DELETE", "/v1/conversations/{conversation_id}/items/{item_id}"),
)
"""Routes that need the storage; what they answer is in their own tests."""

PUBLIC = ("/health", "/ready", "/version", "/openapi.json", "/docs")

ALL = [*PROTECTED, *STORED, *(("GET", path) for path in PUBLIC)]


def body_of(value: Any) -> bytes:
    return b"" if value is None else orjson.dumps(value)


def test_no_route_is_forgotten_here() -> None:
    router = make_router(make_state(settings(), [ScriptedProvider()]))
    paths = {getattr(route, "path", "").replace("{model:path}", "m") for route in router.routes}
    assert paths == {path for _, path in ALL}


def test_what_is_looked_up_is_what_would_be_found() -> None:
    router = make_router(make_state(settings(), [ScriptedProvider()]))
    known: Mapping[tuple[str, str], Any] = vars(router)["_known"]
    fixed = {(method, path) for method, path in ALL if "{" not in path} - {("GET", "/v1/models/m")}
    assert {(method, path) for method, path in known if method != "HEAD"} == fixed
    for (method, path), app in known.items():
        scope = {"type": "http", "method": method, "path": path}
        found = next(route for route in router.routes if route.matches(scope)[0] is Match.FULL)
        assert isinstance(found, Route)
        assert found.app is app


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/health", 200), ("POST", "/health", 405), ("HEAD", "/v1/completions", 405),
        ("GET", "/health/", 404), ("GET", "/HEALTH", 404), ("GET", "//health", 404),
    ],
)  # fmt: skip
async def test_what_is_almost_a_known_route(method: str, path: str, status: int) -> None:
    assert (await client(ScriptedProvider()).get(path, method)).status == status


@pytest.mark.parametrize(
    ("root", "path", "status"), [("/r", "/r/health", 200), ("", "/r/health", 404), ("/v1", "/v1/models", 404)]
)
async def test_a_path_below_a_root(root: str, path: str, status: int) -> None:
    app = make_app(make_state(settings(), [ScriptedProvider()]))

    async def below(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": root}, receive, send)

    assert (await AsgiClient(below).get(path)).status == status


@pytest.mark.parametrize(("route", "body"), PROTECTED.items(), ids=str)
async def test_a_protected_route_needs_a_key(route: tuple[str, str], body: Any) -> None:
    asking = client(ScriptedProvider(), server={"api_keys": [KEY]})
    method, path = route
    for headers in ({}, {"authorization": "Bearer sk-wrong-key"}, {"authorization": KEY}):
        refused = await asking.ask(method, path, body_of(body), {**JSON, **headers})
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert KEY not in refused.body.decode()
    let_in = await asking.ask(method, path, body_of(body), {**JSON, "authorization": f"Bearer {KEY}"})
    assert let_in.status == 200


@pytest.mark.parametrize(("method", "path"), STORED, ids=str)
async def test_what_is_stored_needs_a_key(method: str, path: str) -> None:
    asking = client(ScriptedProvider(), server={"api_keys": [KEY]})
    refused = await asking.ask(method, path, b"{", JSON)
    assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(("route", "body"), PROTECTED.items(), ids=str)
async def test_without_keys_every_route_is_open(route: tuple[str, str], body: Any) -> None:
    answer = await client(ScriptedProvider()).ask(*route, body_of(body), {**JSON, "authorization": "Bearer anything"})
    assert answer.status == 200


async def test_a_missing_key_is_told_before_a_wrong_body() -> None:
    asking = client(ScriptedProvider(), server={"api_keys": [KEY]})
    assert (await asking.ask("POST", "/v1/chat/completions", b"{", {})).status == 401


@pytest.mark.parametrize("path", PUBLIC)
async def test_a_public_route_needs_none(path: str) -> None:
    answer = await client(ScriptedProvider(), server={"api_keys": [KEY]}).get(path)
    assert answer.status == 200
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(("method", "path"), ALL, ids=str)
@pytest.mark.parametrize("other", ["DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get"])
async def test_another_method(method: str, path: str, other: str) -> None:
    if (other, path) in ALL or (other == "DELETE" and path.startswith("/v1/responses/")):
        pytest.skip("this path has it, or could be that of a response")
    answer = await client(ScriptedProvider()).get(path, other)
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert method in answer.headers["allow"]
    assert f"Not allowed to {other} on {path}." in answer.error["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/models2",
        "/v1/chat/completions/",
        "//v1/models",
        "/V1/models",
        "/x/y",
        "/é",
        "/..",
        "/%00",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_an_unknown_path(method: str, path: str) -> None:
    answer = await client(ScriptedProvider(), server={"api_keys": [KEY]}).get(path, method)
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert answer.error["message"] == f"Invalid URL ({method} {path})"


async def test_a_long_path_is_clipped() -> None:
    answer = await client(ScriptedProvider()).get("/" + "x" * 10_000)
    assert len(answer.error["message"]) < 300


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nothing", "/v1/chat/completions"])
async def test_head_is_get_without_a_body(path: str) -> None:
    async with serving(ScriptedProvider()) as served, served.connect() as wire:
        with_body = await wire.ask(get_bytes(path))
        without = await wire.ask(get_bytes(path, "HEAD"), method="HEAD")
        assert without.status == with_body.status
        assert without.headers["x-request-id"].startswith("req_")
        assert (await wire.ask(get_bytes("/health"))).status == 200  # nothing is left on the wire


# What they say.


async def test_models() -> None:
    answer = await client(ScriptedProvider(model="org/a:b")).get("/v1/models")
    card = {"id": "org/a:b", "object": "model", "created": 1_700_000_000, "owned_by": "tests"}
    assert answer.json == {"object": "list", "data": [card]}
    assert (await client(ScriptedProvider(model="org/a:b")).get("/v1/models/org/a:b")).json == card


@pytest.mark.parametrize("name", ["other", "", "m/", "M"])
async def test_an_unknown_model(name: str) -> None:
    answer = await client(ScriptedProvider()).get(f"/v1/models/{name}")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", CHAT), ("/v1/completions", COMPLETION), ("/v1/embeddings", EMBEDDINGS)],
)
async def test_a_request_to_an_unknown_model(path: str, body: Mapping[str, Any]) -> None:
    answer = await client(ScriptedProvider()).post(path, {**body, "model": "other"})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")
    assert "`other`" in answer.error["message"]


async def test_what_the_provider_is_asked_for() -> None:
    provider = ScriptedProvider((delta("a"), finish(), delta("b", 1), finish(index=1), usage()))
    body = {**CHAT, "n": 2, "temperature": 0.5, "user": "somebody"}
    assert (await client(provider).post("/v1/chat/completions", body)).status == 200
    assert provider.generations == [
        Generation("m", {"messages": CHAT["messages"], "temperature": 0.5}, 2, streamed=False)
    ]


async def test_a_text_completion() -> None:
    provider = ScriptedProvider()
    answer = await client(provider).post("/v1/completions", COMPLETION)
    assert answer.json["object"] == "text_completion"
    assert answer.json["choices"] == [{"text": "Hello", "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert provider.generations[0].prompts == ("Hi",)


async def test_a_streamed_text_completion() -> None:
    answer = await client(ScriptedProvider()).post("/v1/completions", {**COMPLETION, "stream": True})
    chunks = [orjson.loads(event) for event in answer.events[:-1]]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Hello"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert answer.events[-1] == b"[DONE]"


async def test_embeddings() -> None:
    answer = await client(ScriptedProvider()).post("/v1/embeddings", EMBEDDINGS)
    assert answer.json == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}],
        "model": "m",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


async def test_embeddings_in_base64() -> None:
    answer = await client(ScriptedProvider()).post("/v1/embeddings", {**EMBEDDINGS, "encoding_format": "base64"})
    assert struct.unpack("<2f", base64.b64decode(answer.json["data"][0]["embedding"])) == (0.5, -1.0)


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (ApiError("context_length_exceeded", param="input", limit=8, actual=9), 400, "context_length_exceeded"),
        (RuntimeError(SECRET), 500, "internal_error"),
    ],
)
async def test_embeddings_that_fail(failure: Exception, status: int, code: str) -> None:
    provider = ScriptedProvider()
    provider.embed_failure = failure
    answer = await client(provider).post("/v1/embeddings", EMBEDDINGS)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert SECRET not in answer.body.decode()


async def test_status() -> None:
    provider = ScriptedProvider()
    state = make_state(settings(), [provider])
    answer = await AsgiClient(make_app(state)).get("/status")
    assert answer.json == {
        "version": __version__,
        "started_at": state.started_at,
        "ready": True,
        "active_requests": 0,
        "engines": provider.status(),
        "providers": state.router.report(),
        "waiting": 0,
    }


async def test_metrics() -> None:
    answer = await client(ScriptedProvider()).get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'coterie_engine_slots{model="m",task="generate"} 4.0' in answer.body.decode()


async def test_health_and_version() -> None:
    asking = client(ScriptedProvider())
    assert (await asking.get("/health")).json == {"status": "ok"}
    assert (await asking.get("/version")).json == {"version": __version__}


async def test_ready() -> None:
    provider = ScriptedProvider()
    state = make_state(settings(), [provider])
    asking = AsgiClient(make_app(state))
    assert (await asking.get("/ready")).json == {"status": "ready"}
    provider.is_ready = False
    loading = await asking.get("/ready")
    assert (loading.status, loading.error["code"], loading.headers["retry-after"]) == (503, "not_ready", "1")
    provider.is_ready = True
    await state.active.drain(0)
    stopping = await asking.get("/ready")
    assert (stopping.status, stopping.error["code"]) == (503, "server_shutting_down")
    assert (await asking.get("/health")).status == 200
    assert (await asking.get("/status")).json["ready"] is False


async def test_docs_load_nothing_from_elsewhere() -> None:
    page = (await client(ScriptedProvider()).get("/docs")).body.decode()
    assert "/openapi.json" in page
    assert not any(text in page for text in ("http://", "https://", 'src="//', 'href="//'))


async def test_many_at_once() -> None:
    asking = client(ScriptedProvider(WHOLE))
    answers = await asyncio.gather(*(asking.post("/v1/chat/completions", CHAT) for _ in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.json["id"] for answer in answers}) == 50
