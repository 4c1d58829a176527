"""The lean upstream of the gateway benchmark: an OpenAI-compatible server that says what it is told to, when told.

The prompt is the order: ``tokens=64 pace_us=50000`` asks for 64 tokens, one each 50 ms; without a pace each token goes
out as soon as the one before it, but in a write of its own. The request's body is not parsed, only searched, so that
what this process costs is little beside what is measured.

The text of each token is the moment at which it was due, in seconds of the machine's monotonic clock, between ``@`` and
``~``. Whoever reads it on the same machine knows how late it came, whatever stands in between; and neither mark occurs
anywhere else in an answer, so tokens can be counted without parsing.

Run it as a program: it prints its port.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from typing import Any, Final, cast

import httptools
import uvloop

TICK_S: Final = 0.001
"""Paced tokens are due at whole ticks."""

_TOKENS: Final = re.compile(rb"tokens=(\d+)")
_PACE: Final = re.compile(rb"pace_us=(\d+)")
_STREAMED: Final = re.compile(rb'"stream" ?: ?true')
_COUNTED: Final = re.compile(rb'"include_usage" ?: ?true')

_DUE: Final = b"%016.6f"
"""A moment, in a width that never changes, so that every chunk of HTTP has the same length."""

_CHUNK: Final = b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
_ROLE: Final = (
    _CHUNK
    + b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
)
_TOKEN: Final = (
    _CHUNK + b'"choices":[{"index":0,"delta":{"content":" @' + _DUE + b'~"},"logprobs":null,"finish_reason":null}]}\n\n'
)
_STOP: Final = _CHUNK + b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
_USAGE: Final = (
    _CHUNK + b'"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}\n\n'
)  # fmt: skip
_DONE: Final = b"data: [DONE]\n\n"
_PLAIN: Final = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"%b"},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}'
)

_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_JSON_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"

_PAGES: Final = {
    b"/v1/models": b'{"object":"list","data":[{"id":"bench","object":"model","created":0,"owned_by":"bench"}]}',
    b"/get_model_info": b'{"model_path":"bench","is_generation":true}',
    b"/model_info": b'{"model_path":"bench","is_generation":true}',
    b"/get_server_info": b'{"model_path":"bench","served_model_name":"bench","version":"0"}',
    b"/server_info": b'{"model_path":"bench","served_model_name":"bench","version":"0"}',
}
"""What routers ask a worker about itself; any other page is an empty object."""


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_TOKEN_CHUNK: Final = b"%x\r\n%b\r\n" % (len(_TOKEN % 0.0), _TOKEN)


class Ticker:
    """Calls each stream when its next token is due: one timer for all of them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: defaultdict[int, list[Answer]] = defaultdict(list)
        self._next = 0
        self._running = False

    def add(self, answer: Answer, tick: int) -> None:
        self._due[tick].append(answer)
        if not self._running:
            self._running = True
            self._next = min(tick, int(time.monotonic() / TICK_S))
            self._tick()

    def _tick(self) -> None:
        now = int(time.monotonic() / TICK_S)
        while self._next <= now:
            for answer in self._due.pop(self._next, ()):
                answer.token(self._next)
            self._next += 1
        self._running = bool(self._due)
        if self._running:
            self._loop.call_later(TICK_S, self._tick)


class Answer:
    """One stream."""

    def __init__(self, connection: Connection, ticker: Ticker, body: bytes, tokens: int, pace_us: int) -> None:
        self._connection = connection
        self._ticker = ticker
        self._tokens = self._left = tokens
        self._pace = round(pace_us / 1e6 / TICK_S)
        self._counted = _COUNTED.search(body) is not None

    def begin(self) -> None:
        self._connection.write(_STREAM_HEAD + http_chunk(_ROLE))
        if self._pace:
            self._ticker.add(self, int(time.monotonic() / TICK_S) + 1)
        else:
            asyncio.get_running_loop().call_soon(self._next)

    def token(self, tick: int) -> None:
        """Say what is due at a tick."""
        if self._say(tick * TICK_S):
            self._ticker.add(self, tick + self._pace)

    def _next(self) -> None:
        if self._say(time.monotonic()):
            asyncio.get_running_loop().call_soon(self._next)

    def _say(self, due_s: float) -> bool:
        """Whether there is more to say."""
        if self._connection.lost:
            return False
        self._left -= 1
        self._connection.write(_TOKEN_CHUNK % due_s)
        if not self._left:
            tail = http_chunk(_STOP)
            if self._counted:
                tail += http_chunk(_USAGE % (self._tokens, self._tokens + 10))
            self._connection.write(tail + http_chunk(_DONE) + b"0\r\n\r\n")
        return self._left > 0


class Connection(asyncio.Protocol):
    """Answers one request after the other."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []
        self.lost = False
        self.write: Any = None
        self.close: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast("asyncio.Transport", transport).write
        self.close = transport.close

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:  # a question whether this is HTTP/2
            self.close()

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        body, self._body = b"".join(self._body), []
        if not body:
            page = _PAGES.get(self._url.partition(b"?")[0], b"{}")
            self.write(_JSON_HEAD % len(page) + page)
            return
        tokens, pace_us = _order(_TOKENS, body, 16), _order(_PACE, body, 0)
        if _STREAMED.search(body):
            Answer(self, self._ticker, body, tokens, pace_us).begin()
        else:
            text = (b" @" + _DUE % time.monotonic() + b"~") * tokens
            answer = _PLAIN % (text, tokens, tokens + 10)
            self.write(_JSON_HEAD % len(answer) + answer)


def _order(pattern: re.Pattern[bytes], body: bytes, default: int) -> int:
    found = pattern.search(body)
    return int(found[1]) if found else default


async def main() -> None:
    ticker = Ticker()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(ticker), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
