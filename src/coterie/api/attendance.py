"""Whoever waits for an answer, and what becomes of the work when nobody does any more."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

from coterie.api.active import ActiveRequest
from coterie.api.edge import CLIENT_CLOSED, Exchange
from coterie.api.line import ClientPresence
from coterie.api.state import AppState


class attended:  # noqa: N801 - reads as a verb: ``async with attended(...)``
    """Work on an answer while somebody waits for it: a client that leaves, or the server's stop, cancels the work.

    Raises the failure that the server's stop is; swallows the cancellation for a client that has gone.
    """

    __slots__ = ("_client", "_exchange", "_receive", "_request", "_state", "_watcher")

    def __init__(self, state: AppState, exchange: Exchange, receive: Receive) -> None:
        self._state = state
        self._exchange = exchange
        self._receive = receive
        self._client: ClientPresence | None = exchange.scope.get("coterie.client")
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ActiveRequest:
        request = self._request = self._state.active.enter()
        if self._client is not None:
            self._client.tell(request.end_for_client)
        else:
            self._watcher = asyncio.create_task(_watch(self._receive, request))
        return request

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._leave()
        request = self._request
        if not isinstance(failure, asyncio.CancelledError) or not (request.failure or request.client_gone):
            return False
        request.task.uncancel()
        if request.failure is not None:
            raise request.failure from None
        self._exchange.outcome = CLIENT_CLOSED
        return True

    def _leave(self) -> None:
        if self._client is not None:
            self._client.tell(None)
        if self._watcher is not None:
            self._watcher.cancel()
        self._state.active.leave(self._request)


async def _watch(receive: Receive, request: ActiveRequest) -> None:
    """Wait for the client to leave, where nothing else tells. (The body was read, so nothing else can come.)"""
    while (await receive())["type"] != "http.disconnect":
        pass
    request.end_for_client()
