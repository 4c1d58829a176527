"""Whoever waits for an answer, and what becomes of the work when nobody does any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.types import Receive

from coterie.api.active import ActiveRequest
from coterie.api.edge import CLIENT_CLOSED, Exchange
from coterie.api.protocol import ClientPresence
from coterie.api.state import AppState


@contextlib.asynccontextmanager
async def attended(state: AppState, exchange: Exchange, receive: Receive) -> AsyncIterator[ActiveRequest]:
    """Work on an answer while somebody waits for it: a client that leaves, or the server's stop, cancels the work.

    Raises the failure that the server's stop is; swallows the cancellation for a client that has gone.
    """
    request = state.active.enter()
    client: ClientPresence | None = exchange.scope.get("coterie.client")
    watcher = None
    if client is not None:
        client.tell(request.end_for_client)
    else:
        watcher = asyncio.create_task(_watch(receive, request))
    try:
        yield request
    except asyncio.CancelledError:
        if request.failure is not None:
            request.task.uncancel()
            raise request.failure from None
        if not request.client_gone:
            raise
        request.task.uncancel()
        exchange.outcome = CLIENT_CLOSED
    finally:
        if client is not None:
            client.tell(None)
        if watcher is not None:
            watcher.cancel()
        state.active.leave(request)


async def _watch(receive: Receive, request: ActiveRequest) -> None:
    """Wait for the client to leave, where nothing else tells. (The body was read, so nothing else can come.)"""
    while (await receive())["type"] != "http.disconnect":
        pass
    request.end_for_client()
