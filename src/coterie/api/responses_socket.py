"""The WebSocket mode of ``/v1/responses``: several turns over one connection.

A message is a request: the body of ``POST /v1/responses`` with ``"type": "response.create"``. What it promises:

* One turn at a time, in the order in which they came; what comes meanwhile waits. The messages of a turn are the events
  of a stream, one JSON object each, without ``[DONE]``: over a socket it would be taken for the end of the next turn.
* A turn ends in exactly one way: with its terminal event, or, where it failed before it said anything, with one
  ``error`` message that carries the status which HTTP would have. Never both; and the connection goes on after either.
* Each lane (``stream_id``, which its messages carry) remembers its last response where that is not stored, for as long
  as the connection lasts and within a bound of bytes. A turn of the same lane that goes on from it and fails, for
  whatever reason, makes it forgotten; another lane's leaves it.
* ``generate: false`` makes a response that says nothing, and from which the next turn goes on.
* A key that was withdrawn is refused with the next turn, and the connection closed.
* A connection that has been open for :data:`LIFETIME_S` is closed, between two turns, and told why.

Sources: Open Responses, "WebSocket transport"; OpenAI's guide to the WebSocket mode.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from coterie.api.attendance import attended
from coterie.api.edge import Turn as TurnExchange
from coterie.api.errand import Errand, Meter
from coterie.api.responses import DIALECT, parse
from coterie.api.socket import AGAINST_POLICY, GOING_AWAY, ClientSocket
from coterie.api.state import AppState
from coterie.dialects.responses import ParsedResponse
from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.errors.render_responses import socket_error
from coterie.observe.timing import Timing
from coterie.turns.keeping import finished
from coterie.turns.turn import Item, Plan, Turn
from coterie.wire.json_body import parse_object
from coterie.wire.lingua import Chunks

LIFETIME_S: Final = 3600.0
"""Seconds for which a connection may be used."""

_LANES: Final = 32
"""Lanes whose last responses are remembered; those of the lane that was used longest ago are forgotten."""

_SOCKET_BYTES: Final = 16 * 1024 * 1024
_ALL_BYTES: Final = 256 * 1024 * 1024
"""What one socket remembers at most, and what all do. Beyond it a turn must bring its conversation itself."""

_LANE: Final = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_OWN_FIELDS: Final = frozenset({"type", "stream", "background", "generate", "stream_id"})
_CREATE: Final = "response.create"


@dataclass(frozen=True, slots=True)
class _Said:
    """A response that a lane can go on from."""

    id: str
    items: bytes
    """As JSON: as objects they would take many times as much."""


@dataclass(eq=False)
class Conversation:
    """The turns of one socket."""

    socket: ClientSocket
    state: AppState
    lanes: dict[str, _Said] = field(default_factory=dict)

    async def hold(self) -> None:
        """Answer message after message, until the client goes. Raises ``SocketClosed``."""
        ends_at_s = time.monotonic() + LIFETIME_S
        while (message := await self._next(ends_at_s - time.monotonic())) is not None:
            with self.socket.exchange.turn() as exchange:
                await self._answer(message, exchange)
        error = ApiError("websocket_connection_limit_reached", limit_s=f"{LIFETIME_S:g}")
        await self._send(socket_error(error, self.socket.exchange.request_id), "")
        await self.socket.close(GOING_AWAY, error.code)

    async def _next(self, limit_s: float) -> str | None:
        """The next message; ``None`` where the connection's time is up, whatever waits."""
        if limit_s <= 0:
            return None
        try:
            async with asyncio.timeout(limit_s):
                return await self.socket.receive()
        except TimeoutError:
            return None

    async def _answer(self, message: str, exchange: TurnExchange) -> None:
        exchange.dialect = DIALECT
        timing = exchange.timing = Timing(exchange.started_s)
        lane, body = "", dict[str, Any]()
        try:
            if not self.state.keys.lets_in(self.socket.owner):
                raise ApiError("invalid_api_key", reason="Incorrect API key provided.")
            body = parse_object(message.encode(), max_depth=self.state.settings.limits.json_depth)
            lane = _lane_of(body)
            parsed = parse(self.state, _request_in(body))
            exchange.model = parsed.model
            async with attended(self.state, exchange, _nobody) as active:
                await self._turn(Errand(self.state, timing, active), exchange, parsed, lane, body.get("generate"))
        except ApiError as error:
            exchange.note(error)
            self._forget(lane, body.get("previous_response_id"))
            await self._send(socket_error(error, exchange.request_id), lane)
            if error.status == 401:
                await self.socket.close(AGAINST_POLICY, error.code)

    async def _turn(
        self, errand: Errand, exchange: TurnExchange, parsed: ParsedResponse, lane: str, generate: object
    ) -> None:
        silent = generate is False
        plan = Plan(self.socket.owner, exchange.request_id, parsed, told=True, error_event=False, silent=silent)
        before = self._remembered(parsed.previous_response_id)
        sink = _Sink(self, lane, Meter(self.state.metrics, parsed.model, exchange.started_s))
        plan = await self.state.keeping.plan(plan, before)
        turn = await errand.run_planned(plan, sink, answer=_silence if silent else None)
        if turn.failure is not None:
            exchange.note(turn.failure)
            self._forget(lane, parsed.previous_response_id)
        else:
            self._remember(lane, plan, turn)

    def _remembered(self, response_id: str | None) -> Sequence[Item] | None:
        items = next((said.items for said in self.lanes.values() if said.id == response_id), None)
        return None if items is None else orjson.loads(items)

    def _remember(self, lane: str, plan: Plan, turn: Turn) -> None:
        self.lanes.pop(lane, None)
        if plan.parsed.store:  # the storage remembers it
            return
        items = orjson.dumps((*plan.context, *plan.input, *finished(turn.response["output"])))
        self.lanes[lane] = _Said(plan.id, items)
        while len(self.lanes) > _LANES or self._size_bytes() > _SOCKET_BYTES:
            del self.lanes[next(iter(self.lanes))]
        while self.state.remembered.add(self, self._size_bytes()) > _ALL_BYTES and self.lanes:
            del self.lanes[next(iter(self.lanes))]

    def _size_bytes(self) -> int:
        return sum(len(said.items) for said in self.lanes.values())

    def _forget(self, lane: str, response_id: object) -> None:
        if lane in self.lanes and self.lanes[lane].id == response_id:
            del self.lanes[lane]

    async def _send(self, event: dict[str, Any], lane: str) -> None:
        await self.socket.send(orjson.dumps({**event, "stream_id": lane} if lane else event))


class _Sink:
    """Sends the events of a stream as messages."""

    def __init__(self, conversation: Conversation, lane: str, meter: Meter) -> None:
        self._socket = conversation.socket
        self._beside = b',"stream_id":' + orjson.dumps(lane) + b"}" if lane else b""
        self._meter = meter

    @property
    def ready(self) -> bool:
        """A message always takes the usual way."""
        return False

    def put(self, event: bytes) -> bool:
        """So it is never sent here."""
        return False

    async def write(self, event: bytes) -> None:
        """Send one event."""
        if event == DONE:
            return
        self._meter.look(event)
        data = event[event.index(b"\ndata: ") + 7 : -2]
        await self._socket.send(data[:-1] + self._beside if self._beside else data)


async def hold_conversation(socket: ClientSocket, state: AppState) -> None:
    """Serve one socket."""
    conversation = Conversation(socket, state)
    try:
        await conversation.hold()
    finally:
        state.remembered.drop(conversation)


def _lane_of(body: dict[str, Any]) -> str:
    lane = body.get("stream_id")
    if lane is None:
        return ""
    if not isinstance(lane, str) or not _LANE.fullmatch(lane):
        raise ApiError("invalid_stream_id", param="stream_id")
    return lane


def _request_in(body: dict[str, Any]) -> dict[str, Any]:
    """The request that a message carries. Raises ``ApiError``."""
    if body.get("type") != _CREATE:
        raise ApiError("websocket_message_invalid", reason=f"its 'type' must be '{_CREATE}'")
    if body.get("stream") not in (None, True):  # some clients say that they stream, which goes without saying
        raise ApiError("unsupported_value", param="stream", value="false", hint=" A socket always streams.")
    if body.get("background") not in (None, False):
        hint = " Use 'POST /v1/responses'."
        raise ApiError("unsupported_value", param="background", value="true", hint=hint)
    if not isinstance(body.get("generate", True), bool):
        raise ApiError("invalid_type", param="generate", expected="a boolean", actual="something else")
    return {**{name: value for name, value in body.items() if name not in _OWN_FIELDS}, "stream": True}


async def _silence() -> Chunks:
    """The answer of a model that was not asked."""
    yield {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": "stop"}]}
    yield {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}


async def _nobody() -> dict[str, Any]:
    """What else may come is for the next turn."""
    raise AssertionError("a socket tells that its client has gone by itself")
