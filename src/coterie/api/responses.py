"""The Responses API: its routes, as far as they are about responses.

What is known to be wrong before a response says something is an HTTP error with its own status, streaming or not, and
leaves nothing behind; what goes wrong later is told in the stream (:mod:`coterie.turns.turn`). A response in the
background is answered as soon as it is accepted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from coterie.api.active import ActiveRequest
from coterie.api.attendance import attended
from coterie.api.body import read_object
from coterie.api.edge import Exchange
from coterie.api.errand import Errand, MeteredSink
from coterie.api.paging import flag, number, page_of
from coterie.api.reading import check_named, owner_of, parsed_now, start_of
from coterie.api.state import AppState
from coterie.api.writer import StreamWriter, send_json, whole
from coterie.dialects.responses import ParsedResponse, parse_response
from coterie.dialects.support import Unsupported, refuse_unsupported
from coterie.dialects.validation import path
from coterie.errors import ApiError
from coterie.observe.timing import Timing
from coterie.storage.responses import StoredResponse
from coterie.turns.compaction import MOST_NOTE_TOKENS, asked_for_note, compacted
from coterie.turns.keeping import RUNNING
from coterie.turns.live import replay
from coterie.turns.turn import Plan, Turn

DIALECT: Final = "responses"

Work = Callable[[Exchange, ActiveRequest], Awaitable[None]]


async def create_response(request: Request, state: AppState) -> ASGIApp:
    """``POST /v1/responses``."""
    timing, body = start_of(request), await read_object(request, state.settings.limits)
    parsed = parse(state, body)
    parsed_now(timing)
    owner = owner_of(request)

    async def work(exchange: Exchange, active: ActiveRequest) -> None:
        plan = Plan(owner, exchange.request_id, parsed, told=parsed.stream or parsed.background)
        await (_in_background if parsed.background else _answer)(Errand(state, timing, active), exchange, plan)

    return _Answer(state, parsed.model, timing, work)


async def count_input_tokens(request: Request, state: AppState) -> ASGIApp:
    """``POST /v1/responses/input_tokens``: as many as the model itself counts, by generating one more."""
    timing, body = start_of(request), await read_object(request, state.settings.limits)
    parsed = parse(state, {**_only(body, _COUNTED), **_UNTOLD})
    parsed_now(timing)
    owner = owner_of(request)

    async def work(exchange: Exchange, active: ActiveRequest) -> None:
        plan = Plan(owner, exchange.request_id, parsed, told=False, aside=True)
        try:
            turn = await Errand(state, timing, active).run(plan, most_tokens=1)
        except ApiError as error:
            actual = error.fields.get("actual") if error.code == "context_length_exceeded" else None
            if not isinstance(actual, int):
                raise
            tokens = actual
        else:
            usage = turn.response["usage"]
            if usage is None:
                raise ApiError("unsupported_parameter", param="model", hint=" Its provider does not count tokens.")
            tokens = usage["input_tokens"]
        await send_json(exchange, orjson.dumps({"object": "response.input_tokens", "input_tokens": tokens}))

    return _Answer(state, parsed.model, timing, work)


async def compact_response(request: Request, state: AppState) -> ASGIApp:
    """``POST /v1/responses/compact``."""
    timing, body = start_of(request), await read_object(request, state.settings.limits)
    parsed = parse(state, {**_only(body, _COMPACTED), **_UNTOLD})
    parsed_now(timing)
    owner = owner_of(request)

    async def work(exchange: Exchange, active: ActiveRequest) -> None:
        plan = await state.keeping.plan(Plan(owner, exchange.request_id, parsed, told=False, aside=True))
        turn = await Errand(state, timing, active).run_planned(asked_for_note(plan), most_tokens=MOST_NOTE_TOKENS)
        answer = compacted(plan, turn.response, state.keeping.sealer.of(owner).seal)
        await send_json(exchange, orjson.dumps(answer))

    return _Answer(state, parsed.model, timing, work)


def _only(body: dict[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    """``body``, which may have ``fields``. Raises ``ApiError``."""
    known = refuse_unsupported(body, _COUNT_UNSUPPORTED) if fields is _COUNTED else body
    for name in known:
        if name not in fields:
            raise ApiError("unknown_parameter", param=path([name]))
    return known


_COMPACTED: Final = frozenset(
    {
        "model", "input", "instructions", "previous_response_id", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "service_tier",
    }
)  # fmt: skip
"""Parameters of a compaction (``CompactResponseMethodPublicBody``)."""

_COUNTED: Final = frozenset(
    {
        "model", "input", "instructions", "previous_response_id", "conversation", "tools", "tool_choice",
        "parallel_tool_calls", "text", "reasoning", "truncation",
    }
)  # fmt: skip
"""Parameters of a count (``TokenCountsBody``)."""

_COUNT_UNSUPPORTED: Final = {"personality": Unsupported(hint=" Send 'instructions' instead.")}
"""Parameters of a count, and of nothing else, that cannot be honoured."""

_UNTOLD: Final = {"store": False, "stream": False, "background": False}


async def get_response(request: Request, state: AppState) -> ASGIApp:
    """``GET /v1/responses/{id}``, also as a stream."""
    streamed = flag(request.query_params, "stream")
    row = await _stored(request, state, events=streamed)
    running = state.keeping.running.get(row.id)
    if not streamed:
        return whole(row.response if running is None else await _as_stored(running))
    after = number(request.query_params, "starting_after", -1)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["coterie.exchange"]
        exchange.dialect, exchange.model = DIALECT, row.model
        if running is None:
            await _replay(exchange, row, after)
            return
        async with attended(state, exchange, receive) as active:
            await _follow(exchange, running, after, active)

    return answer


async def delete_response(request: Request, state: AppState) -> ASGIApp:
    """``DELETE /v1/responses/{id}``; one that runs is stopped first."""
    row = await _stored(request, state)
    if (turn := state.keeping.running.get(row.id)) is not None:
        turn.cancel()
        await turn.settled.wait()
    if not await state.keeping.responses.delete(row.owner, row.id):
        raise ApiError("response_not_found", id=row.id)
    return whole({"id": row.id, "object": "response", "deleted": True})


async def cancel_response(request: Request, state: AppState) -> ASGIApp:
    """``POST /v1/responses/{id}/cancel``; one that has ended stays as it is."""
    row = await _stored(request, state)
    if not row.background:
        raise ApiError("response_not_cancellable", id=row.id, reason="it was not created with 'background: true'")
    turn = state.keeping.running.get(row.id)
    if turn is None:
        if row.status in RUNNING:
            raise ApiError("response_not_cancellable", id=row.id, reason="another server generates it")
        return whole(row.response)
    turn.cancel()
    await turn.settled.wait()
    return whole(turn.response)


async def list_input_items(request: Request, state: AppState) -> ASGIApp:
    """``GET /v1/responses/{id}/input_items``."""
    row = await _stored(request, state)
    return whole(page_of(row.input, request.query_params))


def parse(state: AppState, body: dict[str, Any]) -> ParsedResponse:
    """The request in ``body``, for a model that is served. Raises ``ApiError``."""
    check_named(state.router, body.get("model"))
    parsed = parse_response(body, state.dialect_limits)
    state.router.check(parsed.model)
    return parsed


class _Answer:
    """An ASGI application that does ``work`` for as long as somebody waits for it."""

    def __init__(self, state: AppState, model: str, timing: Timing, work: Work) -> None:
        self._state, self._model, self._timing, self._work = state, model, timing, work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["coterie.exchange"]
        exchange.timing, exchange.dialect, exchange.model = self._timing, DIALECT, self._model
        metrics = self._state.metrics
        try:
            async with attended(self._state, exchange, receive) as active:
                await self._work(exchange, active)
                metrics.latency.of(self._model).add(time.perf_counter() - exchange.started_s)
        finally:
            metrics.queue_wait.of(self._model).add(self._timing.queue_s)


async def _answer(errand: Errand, exchange: Exchange, plan: Plan) -> None:
    if not plan.told:
        turn = await errand.run(plan)
        await send_json(exchange, orjson.dumps(turn.response))
        return
    sink = MeteredSink(errand.state, exchange, plan.parsed.model)
    turn = await errand.run(plan, sink)
    if turn.failure is not None:
        exchange.note(turn.failure)
    await sink.writer.finish([])


async def _in_background(errand: Errand, exchange: Exchange, plan: Plan) -> None:
    turn = await errand.accept(plan)
    if plan.parsed.stream:
        await _follow(exchange, turn, -1, errand.active)
    else:
        await send_json(exchange, orjson.dumps(turn.response))


async def _follow(exchange: Exchange, turn: Turn, after: int, active: ActiveRequest) -> None:
    """Send what a running response says. The server's stop ends that response, and with it this."""
    assert turn.live is not None
    writer = StreamWriter(exchange)
    with turn.live.listening():
        sending = asyncio.ensure_future(_send_all(writer, turn.live.follow(after)))
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            if active.failure is None:
                sending.cancel()
                raise
            active.task.uncancel()
            await sending


async def _send_all(writer: StreamWriter, events: AsyncIterator[bytes]) -> None:
    await writer.write(b"")  # the head: whoever resumes knows at once that there is something to wait for
    async for event in events:
        await writer.write(event)
    await writer.finish([])


async def _replay(exchange: Exchange, row: StoredResponse, after: int) -> None:
    if not row.events:
        reason = "another server generates it" if row.status in RUNNING else "it has no events"
        raise ApiError("response_not_streamable", id=row.id, reason=reason)
    writer = StreamWriter(exchange)
    for event in replay(row.events, after):
        await writer.write(event)
    await writer.finish([])


async def _as_stored(turn: Turn) -> dict[str, Any]:
    """What a running response has come to. Its end is told once it is stored."""
    if turn.response["status"] not in RUNNING:
        await turn.settled.wait()
    return turn.response


async def _stored(request: Request, state: AppState, *, events: bool = False) -> StoredResponse:
    """The response that the path names. Raises ``ApiError`` ``response_not_found``."""
    response_id, owner = request.path_params["response_id"], owner_of(request)
    row = await state.keeping.responses.get(owner, response_id, events=events)
    if row is not None and row.status in RUNNING and row.id not in state.keeping.running:
        row = await state.keeping.responses.get(owner, response_id, events=events)  # it may have ended meanwhile
    if row is None:
        raise ApiError("response_not_found", id=response_id)
    return row
