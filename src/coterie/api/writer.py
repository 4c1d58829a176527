"""Writing answers: a whole one, or a stream of events."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from coterie.api.edge import Exchange
from coterie.api.protocol import ClientLine

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def whole(value: Any) -> Response:
    """A JSON answer that is known."""
    return Response(orjson.dumps(value), media_type="application/json")


async def send_json(exchange: Exchange, body: bytes) -> None:
    """A whole JSON answer with status 200."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await exchange.send({"type": "http.response.start", "status": 200, "headers": headers})
    await exchange.send({"type": "http.response.body", "body": body})


class StreamWriter:
    """The body of a stream; the head goes out with the first event, and one event is one write."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.begun = False
        self._client: ClientLine | None = exchange.scope.get("coterie.client")

    async def write(self, event: bytes) -> None:
        """Send one event; waits for a client that reads slowly."""
        if self.begun and self._client is not None and self._client.write(event):
            return
        await self._begin()
        await self.exchange.send({"type": "http.response.body", "body": event, "more_body": True})

    async def finish(self, events: list[bytes]) -> None:
        """Send the last events, and end the answer."""
        *before, last = events or [b""]
        for event in before:
            await self.write(event)
        await self._begin()
        await self.exchange.send({"type": "http.response.body", "body": last, "more_body": False})

    async def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            await self.exchange.send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
