"""The outermost layer: every request gets an id, and every failure its exact answer.

What it promises, for whatever happens inside:

* the answer carries ``x-request-id`` (``req_`` and 32 hex digits), and the log line of the request has the same id;
* an ``ApiError`` becomes its HTTP answer; anything else that escapes is a bug: it is logged with its traceback and
  answered as ``internal_error``, and none of its text leaves;
* it writes an answer only where none has begun. A stream that fails after its first byte ends itself
  (:mod:`coterie.api.answer`);
* one line is logged and one count is made for each request, with its outcome and error code.

Cross-origin headers are added here, so that a browser can read errors too; and its question before a request that is
not a simple one (the preflight), which comes without a key, is answered here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coterie.errors import ApiError
from coterie.errors.render import http_body, http_headers
from coterie.observe import log
from coterie.observe.metrics import Metrics
from coterie.observe.timing import Timing

_log = logging.getLogger("coterie.access")

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
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, send, self._cors(scope))
        token = log.request_id.set(exchange.request_id)
        self._metrics.active.inc()
        try:
            await self._serve(exchange, receive)
        finally:
            self._metrics.active.dec()
            self._finish(exchange)
            log.request_id.reset(token)

    async def _serve(self, exchange: Exchange, receive: Receive) -> None:
        try:
            if self._is_preflight(exchange.scope):
                await _allow(exchange)
            else:
                await self._app(exchange.scope, receive, exchange.send)
        except ApiError as error:
            await exchange.fail(error)
        except HTTPException as error:
            await exchange.fail(_from_starlette(error, exchange.scope))
        except ClientDisconnect:
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

    def _finish(self, exchange: Exchange) -> None:
        self._metrics.count_request(exchange.route, exchange.dialect, exchange.model, exchange.outcome, exchange.code)
        _log.info(
            "%s %s %s %d %s %.1f ms%s",
            exchange.scope["method"],
            exchange.scope["path"][:200].encode("unicode_escape").decode(),
            exchange.outcome,
            exchange.status,
            exchange.code or "-",
            (time.perf_counter() - exchange.started_s) * 1000,
            _last_words(exchange.timing),
        )

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
        asked = scope["method"] == "OPTIONS" and _header(scope, b"access-control-request-method") is not None
        return asked and self._allowed_origin(scope) is not None


class Exchange:
    """One request on its way through the edge; routes find it in the scope, under "coterie.exchange"."""

    def __init__(self, scope: Scope, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self.request_id = f"req_{os.urandom(16).hex()}"
        self.started_s = time.perf_counter()
        self.scope: Scope = {**scope, "coterie.exchange": self, "app": None}
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
    def route(self) -> str:
        """The route's template, which bounds the label."""
        return str(self.scope.get("coterie.route", "other"))

    async def send(self, message: Message) -> None:
        """Pass a message on; the head gets the headers of every answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            known = {name for name, _ in message.get("headers", ())}
            extra = [header for header in (*self._headers, *self._timing_headers()) if header[0] not in known]
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await self._send(message)

    def _timing_headers(self) -> list[tuple[bytes, bytes]]:
        if self.timing is None:
            return []
        headers = [(b"x-timing", self.timing.header())]
        if self.timing.attempts:
            headers.append((b"x-coterie-provider", self.timing.provider.encode()))
        return headers

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


def _last_words(timing: Timing | None) -> str:
    """What the log tells of a request's way through the providers; a stream's head went out before it was known."""
    if timing is None or not timing.attempts:
        return ""
    continued = f" continued {timing.continuations} times" if timing.continuations else ""
    return f" by {timing.provider} {timing.header().decode()}{continued}"


async def _allow(exchange: Exchange) -> None:
    """Answer a preflight. Which methods a path has, and who may use it, the request itself will be told."""
    headers = [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", _header(exchange.scope, b"access-control-request-headers") or b"*"),
        (b"access-control-max-age", b"600"),
    ]
    await exchange.send({"type": "http.response.start", "status": 204, "headers": headers})
    await exchange.send({"type": "http.response.body", "body": b""})


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _from_starlette(error: HTTPException, scope: Scope) -> ApiError:
    """Starlette raises for a method that a route does not have, and for nothing else that is used here."""
    if error.status_code == 405:
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        return ApiError("method_not_allowed", method=scope["method"], path=scope["path"], headers=headers)
    return ApiError("not_found", method=scope["method"], path=scope["path"])
