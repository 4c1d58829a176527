"""Every route, one table."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from coterie.api import conversations, responses
from coterie.api.answer import DialectMachines, GenerationAnswer
from coterie.api.attendance import attended
from coterie.api.auth import authorization
from coterie.api.body import read_object
from coterie.api.openapi import PAGE, openapi
from coterie.api.reading import Parse, parsed_now, read_served, start_of
from coterie.api.responses_socket import hold_conversation
from coterie.api.socket import socket_route
from coterie.api.state import AppState
from coterie.api.writer import send_json, whole
from coterie.dialects.chat import parse_chat, parse_chat_openly
from coterie.dialects.chat_fold import ChatFold
from coterie.dialects.chat_stream import ChatStream
from coterie.dialects.completions import CompletionFold, CompletionStream, parse_completion, parse_completion_openly
from coterie.dialects.embeddings import parse_embeddings, parse_embeddings_openly, render_embeddings
from coterie.dispatch.router import Reading
from coterie.errors import ApiError
from coterie.observe.metrics import CONTENT_TYPE
from coterie.providers.base import ModelCard
from coterie.version import __version__

CHAT = DialectMachines("chat", "chatcmpl-", ChatStream, ChatFold)
COMPLETIONS = DialectMachines("completions", "cmpl-", CompletionStream, CompletionFold)

Handler = Callable[[Request, AppState], Awaitable[ASGIApp]]


def make_router(state: AppState) -> Router:
    """The application without its edge."""
    routes = [
        _route(state, "/v1/chat/completions", chat_completions, "POST"),
        _route(state, "/v1/completions", completions, "POST"),
        _route(state, "/v1/embeddings", embeddings, "POST"),
        _route(state, "/v1/responses", responses.create_response, "POST"),
        socket_route(state, "/v1/responses", hold_conversation),
        _route(state, "/v1/responses/compact", responses.compact_response, "POST"),
        _route(state, "/v1/responses/input_tokens", responses.count_input_tokens, "POST"),
        _routes(state, "/v1/responses/{response_id}", GET=responses.get_response, DELETE=responses.delete_response),
        _route(state, "/v1/responses/{response_id}/cancel", responses.cancel_response, "POST"),
        _route(state, "/v1/responses/{response_id}/input_items", responses.list_input_items),
        _route(state, "/v1/conversations", conversations.create_conversation, "POST"),
        _routes(
            state,
            "/v1/conversations/{conversation_id}",
            GET=conversations.get_conversation,
            POST=conversations.update_conversation,
            DELETE=conversations.delete_conversation,
        ),
        _routes(
            state,
            "/v1/conversations/{conversation_id}/items",
            GET=conversations.list_items,
            POST=conversations.add_items,
        ),
        _routes(
            state,
            "/v1/conversations/{conversation_id}/items/{item_id}",
            GET=conversations.get_item,
            DELETE=conversations.delete_item,
        ),
        _route(state, "/v1/models", list_models),
        _route(state, "/v1/models/{model:path}", retrieve_model),
        _route(state, "/metrics", metrics),
        _route(state, "/status", status),
        _route(state, "/health", health, public=True),
        _route(state, "/ready", ready, public=True),
        _route(state, "/version", version, public=True),
        _route(state, "/openapi.json", openapi_json, public=True),
        _route(state, "/docs", docs, public=True),
    ]
    return _Routes(routes, default=_not_found)


class _Routes(Router):
    """Looks up the paths that have no parameters, and asks each of the routes only for others.

    (And for other methods: where a path is wrong, and where only its method is, Starlette tells.)
    """

    def __init__(self, routes: Sequence[BaseRoute], default: ASGIApp) -> None:
        super().__init__(routes, redirect_slashes=False, default=default)
        self._known = {
            (method, route.path): route.app
            for route in routes
            if isinstance(route, Route) and not route.param_convertors
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = None
        if scope["type"] == "http" and not scope.get("root_path"):
            app = self._known.get((scope["method"], scope["path"]))
        await (app or super().__call__)(scope, receive, send)


async def chat_completions(request: Request, state: AppState) -> ASGIApp:
    """``POST /v1/chat/completions``."""
    return await _generation(request, state, CHAT, parse_chat, parse_chat_openly)


async def completions(request: Request, state: AppState) -> ASGIApp:
    """``POST /v1/completions``."""
    return await _generation(request, state, COMPLETIONS, parse_completion, parse_completion_openly)


async def embeddings(request: Request, state: AppState) -> ASGIApp:
    """``POST /v1/embeddings``."""
    timing = start_of(request)
    body = await read_object(request, state.settings.limits)
    closed = state.router.reading(body.get("model")) is Reading.KNOWN
    parsed = parse_embeddings(body) if closed else parse_embeddings_openly(body)
    parsed_now(timing)
    state.router.check(parsed.embedding.model)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["coterie.exchange"]
        exchange.timing, exchange.dialect, exchange.model = timing, "embeddings", parsed.embedding.model
        async with attended(state, exchange, receive):
            embedded = await state.router.embed(parsed.embedding, timing)
            await send_json(exchange, orjson.dumps(render_embeddings(parsed, embedded)))

    return answer


async def list_models(request: Request, state: AppState) -> ASGIApp:
    """``GET /v1/models``."""
    return whole({"object": "list", "data": [_card(card) for card in state.router.models()]})


async def retrieve_model(request: Request, state: AppState) -> ASGIApp:
    """``GET /v1/models/{model}``."""
    return whole(_card(state.router.card(request.path_params["model"])))


async def metrics(request: Request, state: AppState) -> ASGIApp:
    """``GET /metrics``."""
    return Response(state.metrics.render(), headers={"content-type": CONTENT_TYPE})


async def status(request: Request, state: AppState) -> ASGIApp:
    """``GET /status``: what ``coterie status`` shows."""
    return whole(
        {
            "version": __version__,
            "started_at": state.started_at,
            "ready": _is_ready(state),
            "active_requests": len(state.active),
            "engines": state.router.status(),
            "providers": state.router.report(),
            "waiting": state.router.seats.waiting,
        }
    )


async def health(request: Request, state: AppState) -> ASGIApp:
    """``GET /health``: the process is alive."""
    return whole({"status": "ok"})


async def ready(request: Request, state: AppState) -> ASGIApp:
    """``GET /ready``: a request that came now could be served."""
    if state.active.draining:
        raise state.active.shutting_down()
    if not _is_ready(state):
        # Nobody knows how long a load takes: as long again as it has taken so far is a fair guess.
        raise ApiError("not_ready", retry_after_s=min(10.0, max(1.0, time.time() - state.started_at)))
    return whole({"status": "ready"})


async def version(request: Request, state: AppState) -> ASGIApp:
    """``GET /version``."""
    return whole({"version": __version__})


async def openapi_json(request: Request, state: AppState) -> ASGIApp:
    """``GET /openapi.json``."""
    return Response(openapi(), media_type="application/json")


async def docs(request: Request, state: AppState) -> ASGIApp:
    """``GET /docs``: a page to read ``/openapi.json``."""
    return Response(PAGE, media_type="text/html")


def _is_ready(state: AppState) -> bool:
    return state.router.ready() and not state.active.draining


async def _generation(
    request: Request, state: AppState, machines: DialectMachines, parse: Parse, parse_openly: Parse
) -> ASGIApp:
    """Read a request in the way of those who serve its model."""
    timing = start_of(request)
    body = await read_object(request, state.settings.limits)
    parsed = read_served(state.router, body, state.dialect_limits, parse, parse_openly)
    parsed_now(timing)
    return GenerationAnswer(state, parsed, machines, timing)


def _card(card: ModelCard) -> dict[str, Any]:
    return {"id": card.id, "object": "model", "created": card.created, "owned_by": card.owned_by}


def _route(state: AppState, path: str, handler: Handler, method: str = "GET", *, public: bool = False) -> Route:
    """A route; all but public ones need a key, where the server has keys."""
    return _routes(state, path, public=public, **{method: handler})


def _routes(state: AppState, path: str, *, public: bool = False, **handlers: Handler) -> Route:
    """A route with a handler for each method."""

    return Route(path, _Endpoint(state, path, handlers, public=public), methods=list(handlers))


class _Endpoint:
    """Answers on one path. (Starlette takes an object for an ASGI application, and a function for something else.)"""

    __slots__ = ("_handlers", "_path", "_public", "_state")

    def __init__(self, state: AppState, path: str, handlers: Mapping[str, Handler], *, public: bool) -> None:
        self._state = state
        self._path = path
        self._public = public
        self._handlers = {**handlers, "HEAD": handlers["GET"]} if "GET" in handlers else handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["coterie.route"] = scope["coterie.exchange"].scope["coterie.route"] = self._path
        if not self._public:
            scope["coterie.owner"] = self._state.keys.check(authorization(scope))
        answer = await self._handlers[scope["method"]](Request(scope, receive), self._state)
        await answer(scope, receive, send)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise ApiError("not_found", method=scope.get("method", "GET"), path=scope["path"])
