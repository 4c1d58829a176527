"""Writing answers: a whole one, or a stream of events."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from coterie.api.edge import Exchange
from coterie.api.line import ClientLine

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
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if exchange.answer_at_once(200, headers, body):
        return
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
        if not self.begun:
            await self._begin(event)
        elif self._client is None or not self._client.write(event):
            await self._send(event)

    @property
    def ready(self) -> bool:
        """Whether :meth:`put` would do what :meth:`write` does."""
        return self.begun and isinstance(self._client, ClientLine) and self._client.ready

    def put(self, event: bytes) -> bool:
        """Send one event where that need not wait; else it is not sent."""
        return self.begun and self._client is not None and self._client.write(event)

    async def finish(self, events: list[bytes]) -> None:
        """Send the last events, and end the answer."""
        *before, last = events or [b""]
        for event in before:
            await self.write(event)
        if not self.begun:
            await self._send_head()
        elif self.exchange.end_at_once(last):
            return
        await self._send(last, more=False)

    async def _begin(self, event: bytes) -> None:
        self.begun = True
        if not self.exchange.begin_at_once(200, _STREAM_HEADERS, event):
            await self._send_head()
            await self._send(event)

    async def _send_head(self) -> None:
        self.begun = True
        await self.exchange.send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})

    async def _send(self, event: bytes, *, more: bool = True) -> None:
        await self.exchange.send({"type": "http.response.body", "body": event, "more_body": more})
