"""What a relay in Python costs if it does nothing but relay: a bound for the gateway benchmark, and no gateway.

It speaks HTTP as the gateways do, keeps connections, reads the JSON of each request and event and writes it anew, and
asks for streams as Coterie does. It checks nothing, knows one upstream, has no deadlines, and no failure is told: what
is broken ends the connection. There is no task and no generator in it, only callbacks from one socket to the other.

Run it as a program, with the port to listen on and the upstream's.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final, cast

import httptools
import orjson
import uvloop

_STREAM_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_JSON_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_REQUEST: Final = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: upstream\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n"
)
_LAST_CHUNK: Final = b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """A kept connection to the upstream, which serves one client at a time."""

    def __init__(self, relay: Relay, client: Client, request: bytes) -> None:
        self._relay = relay
        self._client = client
        self._request = request
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.ask(self._client, self._request)

    def ask(self, client: Client, request: bytes) -> None:
        assert self._transport is not None
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for event in events:
            self._client.event(event)

    def on_message_complete(self) -> None:
        self._relay.idle.append(self)
        self._client.end()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._relay.idle:
            self._relay.idle.remove(self)
        else:
            self._client.close()


class Client(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._head = b""
        self._model = ""
        self._streams = False
        self._texts: list[str] = []
        self._usage: Any = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        body = orjson.loads(b"".join(self._body))
        self._body, self._texts, self._head = [], [], _STREAM_HEAD
        self._streams, self._model = bool(body.get("stream")), body["model"]
        asked = orjson.dumps({**body, "stream": True, "stream_options": {"include_usage": True}})
        self._relay.ask(self, _REQUEST % len(asked) + asked)

    def event(self, event: bytes) -> None:
        data = event.removeprefix(b"data: ")
        if data == b"[DONE]":
            if self._streams:
                self._write(event + b"\n\n")
            return
        chunk = orjson.loads(data)
        self._usage = chunk.pop("usage", None)
        if not self._streams:
            self._texts += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
        elif chunk["choices"]:
            chunk["model"] = self._model
            self._write(b"data: " + orjson.dumps(chunk) + b"\n\n")

    def end(self) -> None:
        if self._transport is None:
            return
        if self._streams:
            self._transport.write(_LAST_CHUNK)
            return
        message = {"role": "assistant", "content": "".join(self._texts)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = orjson.dumps({"object": "chat.completion", "model": self._model, "choices": [choice]})
        self._transport.write(_JSON_HEAD % len(answer) + answer)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def _write(self, event: bytes) -> None:
        if self._transport is not None:
            head, self._head = self._head, b""
            self._transport.write(head + b"%x\r\n%b\r\n" % (len(event), event))


class Relay:
    """All of it. ``idle`` are the upstream's connections that nobody uses now."""

    def __init__(self, port: int) -> None:
        self.idle: list[Upstream] = []
        self._port = port
        self._connecting: set[asyncio.Task[Any]] = set()

    def ask(self, client: Client, request: bytes) -> None:
        if self.idle:
            self.idle.pop().ask(client, request)
            return
        loop = asyncio.get_running_loop()
        task = loop.create_task(
            loop.create_connection(lambda: Upstream(self, client, request), "127.0.0.1", self._port)
        )
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)


async def serve(port: int, upstream: int) -> None:
    relay = Relay(upstream)
    server = await asyncio.get_running_loop().create_server(lambda: Client(relay), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
