"""The outermost layer: every request gets an id, and every failure its exact answer.

What it promises, for whatever happens inside:

* the answer carries ``x-request-id`` (``req_`` and 32 hex digits), and the log line of the request has the same id;
* an ``ApiError`` becomes its HTTP answer; anything else that escapes is a bug: it is logged with its traceback and
  answered as ``internal_error``, and none of its text leaves;
* it writes an answer only where none has begun. A stream that fails after its first byte ends itself
  (:mod:`coterie.api.answer`);
* one line is logged and one count is made for each request, with its outcome and error code.

A WebSocket is one exchange from its handshake to its end: a failure before it is accepted is an HTTP answer as any
other, one after it closes it with code 1011. Each request that comes over it is a turn, with an id, a line and a count
of its own. A page of another origin may open one only where that origin is allowed: browsers ask nobody before.

Cross-origin headers are added here, so that a browser can read errors too; and its question before a request that is
not a simple one (the preflight), which comes without a key, is answered here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coterie.api.line import ClientLine
from coterie.api.socket import INTERNAL_ERROR, SocketClosed
from coterie.errors import ApiError
from coterie.errors.render import http_body, http_headers
from coterie.observe import log
from coterie.observe.metrics import Metrics
from coterie.observe.timing import Timing
from coterie.wire.ids import new_id

_log = logging.getLogger("coterie.access")

_ID_CHARACTERS: Final = len("req_") + 32
"""Of the digits that are drawn; 128 bits are what OpenAI's ids of requests have."""

CLIENT_CLOSED = "client_closed"
"""Outcome of a request whose client left."""

CANCELLED = "cancelled"
"""Outcome of a request that the server's stop did not let end."""


class Edge:
    """See the module. ``origins`` may call from browsers; '*' lets all."""

    def __init__(self, app: ASGIApp, metrics: Metrics, origins: Iterable[str] = ()) -> None:
        self._app = app
        self._metrics = metrics
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await self._serve_socket(SocketExchange(scope, send, self._cors(scope), self._metrics), receive)
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            exchange = Exchange(scope, send, self._cors(scope))
            with Watched(self._metrics, exchange):
                await self._serve(exchange, receive)

    async def _serve_socket(self, exchange: SocketExchange, receive: Receive) -> None:
        with Told(self._metrics, exchange):
            try:
                self._check_origin(exchange.scope)
            except ApiError as error:
                await exchange.fail(error)
            else:
                await self._talk(exchange, receive)

    async def _talk(self, exchange: SocketExchange, receive: Receive) -> None:
        try:
            await self._serve(exchange, receive)
        except asyncio.CancelledError:  # the server's stop waits no longer, and has closed the socket
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
        else:
            await exchange.end()

    def _check_origin(self, scope: Scope) -> None:
        """Raise ``ApiError`` for the page of another origin, which would use the server as its visitor."""
        origin = _header(scope, b"origin")
        if origin is None or self._allowed_origin(scope) is not None or _is_same_origin(scope, origin):
            return
        raise ApiError("invalid_value", param="origin", reason="pages of this origin may not call this server")

    async def _serve(self, exchange: Exchange, receive: Receive) -> None:
        try:
            if self._is_preflight(exchange.scope):
                await _allow(exchange)
            else:
                await self._app(exchange.scope_of_application(), receive, exchange.send)
        except ApiError as error:
            await exchange.fail(error)
        except HTTPException as error:
            await exchange.fail(_from_starlette(error, exchange.scope))
        except (ClientDisconnect, SocketClosed):
            exchange.outcome = CLIENT_CLOSED
        except asyncio.CancelledError:
            exchange.outcome = CANCELLED
            if exchange.status or (task := asyncio.current_task()) is None:
                raise
            # The server's stop waits no longer for this one, whose body may still be on its way.
            task.uncancel()
            await exchange.fail(ApiError("server_shutting_down", headers={"connection": "close"}))
        except Exception:  # noqa: BLE001 - the last line of defence: the client gets our words, the log the rest
            _log.exception("unexpected exception")
            await exchange.fail(ApiError("internal_error"))

    def _cors(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        if not self._origins:
            return []
        headers = [(b"vary", b"Origin")]
        if (origin := self._allowed_origin(scope)) is not None:
            headers += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", b"*")]
        return headers

    def _allowed_origin(self, scope: Scope) -> bytes | None:
        origin = _header(scope, b"origin")
        allowed = origin and ("*" in self._origins or origin.decode("latin-1") in self._origins)
        return origin if allowed else None

    def _is_preflight(self, scope: Scope) -> bool:
        asked = scope.get("method") == "OPTIONS" and _header(scope, b"access-control-request-method") is not None
        return asked and self._allowed_origin(scope) is not None


class Told:
    """While inside, log lines have the id of ``exchange``; at its end it has its own line, and is counted."""

    __slots__ = ("_exchange", "_metrics", "_outer_id")

    def __init__(self, metrics: Metrics, exchange: Exchange) -> None:
        self._metrics = metrics
        self._exchange = exchange

    def __enter__(self) -> None:
        self._outer_id = log.request_id.set(self._exchange.request_id)

    def __exit__(self, *failure: object) -> None:
        exchange = self._exchange
        self._metrics.count_request(exchange.route, exchange.dialect, exchange.model, exchange.outcome, exchange.code)
        if _log.isEnabledFor(logging.INFO):
            exchange.log()
        log.request_id.reset(self._outer_id)


class Watched(Told):
    """The same for a request that is being answered, and is counted as such."""

    __slots__ = ()

    def __enter__(self) -> None:
        self._metrics.active.inc()
        super().__enter__()

    def __exit__(self, *failure: object) -> None:
        try:
            super().__exit__()
        finally:
            self._metrics.active.dec()


class Exchange:
    """One request on its way through the edge; routes find it in the scope, under "coterie.exchange"."""

    def __init__(self, scope: Scope, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self.request_id = new_id("req")[:_ID_CHARACTERS]
        self.started_s = time.perf_counter()
        self.scope = scope
        self.status = 0
        self.outcome = "ok"
        self.code = ""
        self.dialect = ""
        self.model = ""
        """The served model that was asked for."""
        self.timing: Timing | None = None
        """Where the time went, once the request was given to providers."""
        self._send = send
        self._headers = [*headers, (b"x-request-id", self.request_id.encode())]

    @property
    def method(self) -> str:
        """For the log line."""
        return str(self.scope["method"])

    @property
    def route(self) -> str:
        """The route's template, which bounds the label."""
        return str(self.scope.get("coterie.route", "other"))

    def scope_of_application(self) -> Scope:
        """Its own, so that request and exchange do not hold each other: nobody would look for them for a while."""
        return {**self.scope, "coterie.exchange": self, "app": None}

    async def send(self, message: Message) -> None:
        """Pass a message on; the head gets the headers of every answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            known = {name for name, _ in message.get("headers", ())}
            extra = [header for header in self._every_answers_headers() if header[0] not in known]
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await self._send(message)

    def answer_at_once(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """Send a whole answer the short way, where there is one (:mod:`coterie.api.line`)."""
        line = self._line
        if line is None or not line.answer(status, (*headers, *self._every_answers_headers()), body):
            return False
        self.status = status
        return True

    def begin_at_once(self, status: int, headers: Sequence[tuple[bytes, bytes]], event: bytes) -> bool:
        """Send the head of a stream and its first event the short way, where there is one."""
        line = self._line
        if line is None or not line.begin(status, (*headers, *self._every_answers_headers()), event):
            return False
        self.status = status
        return True

    def end_at_once(self, event: bytes) -> bool:
        """Send the last event of a stream that has begun the short way, where there is one."""
        line = self._line
        return line is not None and line.end(event)

    @property
    def _line(self) -> ClientLine | None:
        client = self.scope.get("coterie.client")
        return client if isinstance(client, ClientLine) else None

    def _every_answers_headers(self) -> list[tuple[bytes, bytes]]:
        if self.timing is None:
            return self._headers
        headers = [*self._headers, (b"x-timing", self.timing.header())]
        if self.timing.attempts:
            headers.append((b"x-coterie-provider", self.timing.provider.encode()))
        return headers

    def log(self) -> None:
        """Write the line of the request."""
        _log.info(
            "%s %s %s %d %s %.1f ms%s",
            self.method,
            self.scope["path"][:200].encode("unicode_escape").decode(),
            self.outcome,
            self.status,
            self.code or "-",
            (time.perf_counter() - self.started_s) * 1000,
            _last_words(self.timing),
        )

    def note(self, error: ApiError) -> None:
        """Remember how the request ended, and log what the client is not told."""
        self.outcome, self.code = error.entry.fault, error.code
        if error.detail:
            _log.warning("%s: %s", error.code, error.detail[:2000])

    async def fail(self, error: ApiError) -> None:
        """Answer with ``error`` where no answer has begun."""
        self.note(error)
        if self.status:
            _log.error("%s after the answer had begun", error.code)
            return
        headers = [
            (name.encode(), value.encode("latin-1")) for name, value in http_headers(error, self.request_id).items()
        ]
        body = http_body(error, self.request_id)
        headers.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class SocketExchange(Exchange):
    """A WebSocket on its way through the edge, from its handshake to its end."""

    def __init__(self, scope: Scope, send: Send, headers: list[tuple[bytes, bytes]], metrics: Metrics) -> None:
        super().__init__(scope, _as_handshake(send), headers)
        self._metrics = metrics
        self._closed = False

    @property
    def method(self) -> str:
        """For the log line."""
        return "WEBSOCKET"

    async def send(self, message: Message) -> None:
        """Pass a message on; an HTTP answer is one to the handshake, and an acceptance gets the headers of answers."""
        if message["type"] == "websocket.accept":
            self.status = 101
            message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
        elif message["type"].startswith("http."):
            self._closed = True
            await super().send(message)
            return
        elif message["type"] == "websocket.close":
            self._closed = True
        await self._send(message)

    async def fail(self, error: ApiError) -> None:
        """Answer the handshake with ``error``, or close what is open already."""
        if self.status != 101:
            await super().fail(error)
            return
        self.note(error)
        await self.close(INTERNAL_ERROR, error.code)

    async def end(self) -> None:
        """The application is through: close, where it has not."""
        await self.close(1000, "")

    async def close(self, code: int, reason: str) -> None:
        """Close an open socket."""
        if self.status == 101 and not self._closed:
            with contextlib.suppress(OSError):  # the client has gone
                await self.send({"type": "websocket.close", "code": code, "reason": reason})

    @contextlib.contextmanager
    def turn(self) -> Iterator[Turn]:
        """One request that came over the socket."""
        turn = Turn(self.scope, self._send, [])
        with Watched(self._metrics, turn):
            yield turn


class Turn(Exchange):
    """One request over a WebSocket: what a request is to who answers it, but that nothing is sent through it."""

    def __init__(self, scope: Scope, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        super().__init__(scope, send, headers)
        self.status = 200

    @property
    def method(self) -> str:
        """For the log line."""
        return "TURN"

    def note(self, error: ApiError) -> None:
        """Remember how the turn ended, and log what the client is not told."""
        super().note(error)
        self.status = error.status


def _as_handshake(send: Send) -> Send:
    """Send HTTP messages as the answer to a handshake (ASGI's extension for it), and others as they are."""

    async def send_as_handshake(message: Message) -> None:
        if message["type"].startswith("http."):
            message = {**message, "type": f"websocket.{message['type']}"}
        await send(message)

    return send_as_handshake


def _last_words(timing: Timing | None) -> str:
    """What the log tells of a request's way through the providers; a stream's head went out before it was known."""
    if timing is None or not timing.attempts:
        return ""
    continued = f" continued {timing.continuations} times" if timing.continuations else ""
    return f" by {timing.provider} {timing.header().decode()}{continued}"


async def _allow(exchange: Exchange) -> None:
    """Answer a preflight. Which methods a path has, and who may use it, the request itself will be told."""
    headers = [
        (b"access-control-allow-methods", b"GET, POST, DELETE"),
        (b"access-control-allow-headers", _header(exchange.scope, b"access-control-request-headers") or b"*"),
        (b"access-control-max-age", b"600"),
    ]
    await exchange.send({"type": "http.response.start", "status": 204, "headers": headers})
    await exchange.send({"type": "http.response.body", "body": b""})


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _is_same_origin(scope: Scope, origin: bytes) -> bool:
    """Whether a page is this server's own."""
    return origin.partition(b"://")[2] == _header(scope, b"host")


def _from_starlette(error: HTTPException, scope: Scope) -> ApiError:
    """Starlette raises for a method that a route does not have, and for nothing else that is used here."""
    if error.status_code == 405:
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        return ApiError("method_not_allowed", method=scope["method"], path=scope["path"], headers=headers)
    return ApiError("not_found", method=scope["method"], path=scope["path"])
