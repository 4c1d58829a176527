"""The client of the benchmarks of a gateway: requests over kept connections, and when each token came. Lean on purpose.

It counts and times tokens by the marks that the upstream puts into their text (:mod:`bench.mock_upstream`), and checks
of every answer that its status is 200 and that it says as many tokens as were asked for, as often as it is to say them;
anything else raises.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from array import array
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import httptools

KEY: Final = f"sk-{secrets.token_hex(32)}"
"""What requests are authorized with, where a target asks for it."""

T = TypeVar("T")

_MARK: Final = re.compile(rb"@(\d+\.\d+)~")
_MARK_BYTES: Final = 32
_ANSWER_TIMEOUT_S: Final = 60.0


class AnswerError(Exception):
    """A target did not give the answer that was asked for."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to ask for: a chat completion, or what a subclass asks for instead. ``pace_s``: between two tokens; 0: as
    fast as they come."""

    tokens: int
    streamed: bool = True
    pace_s: float = 0.0

    @property
    def prompt(self) -> str:
        """The order in the upstream's words."""
        return f"tokens={self.tokens} pace_us={round(self.pace_s * 1e6)}"

    @property
    def marks(self) -> int:
        """How many tokens the whole answer says, those that it says again with the rest."""
        return self.tokens

    @property
    def is_kept(self) -> bool:
        """Whether the body of the answer is wanted."""
        return False

    def request(self, port: int) -> bytes:
        """The request, for a server on ``port``."""
        message = {"role": "user", "content": self.prompt}
        return post(port, "/v1/chat/completions", {"model": "bench", "messages": [message], "stream": self.streamed})


def post(port: int, path: str, content: dict[str, Any]) -> bytes:
    """A request that sends ``content`` as JSON."""
    body = json.dumps(content).encode()
    return _head(port, f"POST {path}", f"content-type: application/json\r\ncontent-length: {len(body)}\r\n") + body


def get(port: int, path: str) -> bytes:
    """A request that sends nothing."""
    return _head(port, f"GET {path}", "")


def _head(port: int, line: str, more: str) -> bytes:
    return f"{line} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {KEY}\r\n{more}\r\n".encode()


@dataclass(slots=True)
class Result:
    """One answer: seconds from the request to the first token and to the end, and for each token, where it is said
    first, when it came (on the monotonic clock) and how long after it was due. ``body`` is filled where it is kept."""

    first_s: float = 0.0
    total_s: float = 0.0
    arrivals_s: array[float] = field(default_factory=lambda: array("d"))
    lateness_s: array[float] = field(default_factory=lambda: array("d"))
    body: bytearray | None = None


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.result = Result()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._tail = b""
        self._now_s = self._sent_s = 0.0

    async def ask(self, request: bytes, *, keep: bool = False) -> Result:
        """The answer, with its body where that is to be kept. Raises :class:`AnswerError`."""
        assert self._transport is not None
        self.result, self._tail = Result(body=bytearray() if keep else None), b""
        self._done = asyncio.get_running_loop().create_future()
        self._sent_s = time.monotonic()
        self._transport.write(request)
        await self._done
        self.result.total_s = self._now_s - self._sent_s
        return self.result

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the connection closed in an answer")

    def data_received(self, data: bytes) -> None:
        self._now_s = time.monotonic()
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 200:
            self._fail(f"status {status}")

    def on_body(self, data: bytes) -> None:
        now_s, result = self._now_s, self.result
        if result.body is not None:
            result.body += data
        if self._tail:
            data = self._tail + data
        for due in _MARK.findall(data):
            result.arrivals_s.append(now_s)
            result.lateness_s.append(now_s - float(due))
        at = data.rfind(b"@", -_MARK_BYTES)
        self._tail = data[at:] if at >= 0 and data.find(b"~", at) < 0 else b""

    def on_message_complete(self) -> None:
        result = self.result
        if result.arrivals_s:
            result.first_s = result.arrivals_s[0] - self._sent_s
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, why: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(AnswerError(why))


class Client:
    """Asks the server on ``port``; connections are kept from one call to the next."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: list[Connection] = []

    async def one(self, order: Order) -> Result:
        """One answer. This and the others raise :class:`AnswerError`."""
        return await self._ask(order, order.request(self.port))

    async def closed_loop(self, order: Order, *, streams: int, duration_s: float) -> list[Result]:
        """Answers from ``streams`` askers, each of which asks again as soon as it is answered."""
        request, results = order.request(self.port), list[Result]()
        ends_s = time.monotonic() + duration_s

        async def asker() -> None:
            while time.monotonic() < ends_s:
                results.append(await self._ask(order, request))

        await all_of(asker() for _ in range(streams))
        return results

    async def at_once(self, order: Order, *, streams: int, ramp_s: float) -> list[Result]:
        """One answer for each stream, whose beginnings are spread over ``ramp_s``."""
        request = order.request(self.port)

        async def asker(number: int) -> Result:
            await asyncio.sleep(ramp_s * number / streams)
            return await self._ask(order, request)

        return await all_of(asker(number) for number in range(streams))

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _ask(self, order: Order, request: bytes) -> Result:
        connection = await self._connection()
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S + order.tokens * order.pace_s):
                result = await connection.ask(request, keep=order.is_kept)
        except TimeoutError:
            connection.close()
            raise AnswerError("no answer in time") from None
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        if len(result.arrivals_s) != order.marks:
            raise AnswerError(f"{len(result.arrivals_s)} tokens of {order.marks}")
        # What is said again is said after all of it was.
        del result.arrivals_s[order.tokens :], result.lateness_s[order.tokens :]
        return result

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        made = Connection()
        try:
            await asyncio.get_running_loop().create_connection(lambda: made, "127.0.0.1", self.port)
        except OSError as error:
            raise AnswerError(f"cannot connect: {error.strerror}") from None
        return made


async def all_of(askers: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What all of them return. Where one fails, the others are ended."""
    tasks = [asyncio.create_task(asker) for asker in askers]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
