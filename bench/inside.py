"""What a request costs inside: Coterie's own server, dispatch and client in one process, with no kernel in between.

Everything that the served program runs for a request runs here too: uvicorn's protocol as Coterie bounds it, the
application, dispatch, the HTTP provider and the pooled HTTP client, configured as for :mod:`bench.gateway`. Only the
two sockets are played: :class:`Line` is a transport that hands what is written to a function, and :class:`Upstream`
says at its end what :mod:`bench.mock_upstream` said when it was first asked. Figures so taken are steady enough to see
a change of a few microseconds; what the system takes for a socket is not in them. What is measured:

* processor time of a plain request of 1 and of 16 tokens, of a stream, and of each chunk of a stream: a long stream
  less a short one, each chunk a read of its own, as a paced upstream sends it. The kinds are asked in turn, in each of
  several tries, and the best try of each counts;
* how many calls that is, and where calls and time go, as Python's profiler sees it.

Every answer is checked once the clock stands: its status, that it is complete, that it says the tokens that were asked
for, and that a stream's tokens were written one by one. Anything else raises.

Prints the page; writes docs/benchmarks/inside.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import functools
import gc
import math
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

import uvloop
from bench import load_client, mock_upstream
from bench.inside_page import Findings, Spent, page
from bench.load_client import AnswerError, Order
from bench.targets import COTERIE
from uvicorn.server import ServerState

from coterie.api.app import make_providers, make_state
from coterie.api.server import _config, _spare_the_collector
from coterie.config import load_settings
from coterie.observe import log
from coterie.wire.http1 import Connection
from coterie.wire.origin import Origin

PLAIN_ONE: Final = Order(1, streamed=False)
PLAIN: Final = Order(16, streamed=False)
SHORT: Final = Order(16)
LONG: Final = Order(144)
TIMES: Final = {PLAIN_ONE: 500, PLAIN: 300, SHORT: 300, LONG: 100}
"""How often each is asked in a try; and twice before the first, so that every cache is warm."""
TRIES: Final = 12
PROFILED: Final = 0.2
"""How many of them the profiler watches in a try of its own."""

_CONNECTED: Final = {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}
_ENDS: Final = {True: b"0\r\n\r\n", False: b"}"}
"""How an answer ends, streamed or plain."""
_ANSWERS_TIMEOUT_S: Final = 60.0

Reads = list[bytes]
"""What came over a connection, in the pieces in which it came."""


class Line(asyncio.Transport):
    """One end of a connection: what is written to it is heard at once at the other, which always reads."""

    def __init__(self, heard: Callable[[bytes], None]) -> None:
        super().__init__(_CONNECTED)
        self._heard = heard
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._heard(bytes(data))

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    def abort(self) -> None:
        self._closing = True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass


class Upstream:
    """Answers every connection with what the mock upstream says to ``order``: asked the first time, then from memory,
    so that it costs next to nothing."""

    def __init__(self) -> None:
        self.order = PLAIN_ONE
        self._said: dict[Order, Reads] = {}
        self._loop = asyncio.get_running_loop()
        self._ticker = mock_upstream.Ticker()

    async def dial(self, _origin: Origin, connection: Connection, _tls: Any, _limit_s: float) -> None:
        """Stands for :func:`coterie.wire.dial.dial`."""
        connection.connection_made(Line(functools.partial(self._asked, connection)))

    def _asked(self, connection: Connection, request: bytes) -> None:
        said = self._said.get(self.order)
        if said is None:
            self._ask(connection, request)
        else:
            self._loop.call_soon(self._play, connection, iter(said))

    def _play(self, connection: Connection, reads: Iterator[bytes]) -> None:
        """One read in each turn of the event loop: whoever waits for it has it before the next comes."""
        data = next(reads, None)
        if data is not None:
            connection.data_received(data)
            self._loop.call_soon(self._play, connection, reads)

    def _ask(self, connection: Connection, request: bytes) -> None:
        """Let the mock upstream answer. What it writes in one turn of the event loop is one read."""
        reads = self._said[self.order] = []
        turn = bytearray()

        def written(data: bytes) -> None:
            if not turn:
                self._loop.call_soon(read)
            turn.extend(data)

        def read() -> None:
            reads.append(bytes(turn))
            turn.clear()
            connection.data_received(reads[-1])

        answering = mock_upstream.Connection(self._ticker)
        answering.connection_made(Line(written))
        answering.data_received(request)


class Asker:
    """A client with one connection to the server, which asks again when the server is through with the last request."""

    def __init__(self, upstream: Upstream, protocol: asyncio.Protocol, servers: ServerState) -> None:
        self._upstream = upstream
        self._protocol = protocol
        self._servers = servers
        self._reads: Reads = []
        self._end = b""
        self._done: asyncio.Future[None] | None = None
        protocol.connection_made(Line(self._heard))

    async def answers(self, order: Order, times: int) -> list[Reads]:
        """So many answers, not checked yet. Raises :class:`AnswerError` where one does not come."""
        self._upstream.order, self._end = order, _ENDS[order.streamed]
        request = order.request(0)
        try:
            async with asyncio.timeout(_ANSWERS_TIMEOUT_S):
                return [await self._ask(request) for _ in range(times)]
        except TimeoutError:
            raise AnswerError(f"no whole answer, but {b''.join(self._reads)[:500]!r}") from None

    async def _ask(self, request: bytes) -> Reads:
        self._reads = []
        self._done = asyncio.get_running_loop().create_future()
        self._protocol.data_received(request)
        await self._done
        while self._servers.tasks:  # noqa: ASYNC110 - whoever told of it would be measured too
            await asyncio.sleep(0)
        return self._reads

    def _heard(self, data: bytes) -> None:
        self._reads.append(data)
        if data.endswith(self._end) and self._done is not None and not self._done.done():
            self._done.set_result(None)


async def check(order: Order, reads: Reads) -> None:
    """Raises :class:`AnswerError` for anything but the whole answer that was asked for."""
    client = load_client.Connection()

    def say(_: bytes) -> None:
        for data in reads:
            client.data_received(data)
        client.connection_lost(None)

    client.connection_made(Line(say))
    result = await client.ask(b"")
    if len(result.arrivals_s) != order.marks:
        raise AnswerError(f"{len(result.arrivals_s)} tokens of {order.marks}")
    writes = len(set(result.arrivals_s))
    if order.streamed and writes != order.tokens:
        raise AnswerError(f"{order.tokens} tokens in {writes} writes")


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Asker]:
    """Coterie, as it would be served, with one client."""
    log.configure("warning")
    with tempfile.TemporaryDirectory() as folder:
        COTERIE.command(Path(folder), 9, 0)  # no port is ever opened
        settings = load_settings(Path(folder) / "coterie.toml")
    state = make_state(settings, make_providers(settings))
    config = _config(state)
    config.load()
    upstream, servers = Upstream(), ServerState()
    # The one thing that is patched: where the pool asks for a connection, below everything that is measured.
    with mock.patch("coterie.wire.pool.dial", upstream.dial):
        make: Any = config.http_protocol_class
        protocol: asyncio.Protocol = make(config=config, server_state=servers, app_state={})
        try:
            yield Asker(upstream, protocol, servers)
        finally:
            protocol.connection_lost(None)
            await state.router.stop()


async def run() -> Findings:
    """What was measured. Raises :class:`AnswerError`."""
    async with served() as asker:
        for order, times in TIMES.items():
            await _checked(order, await asker.answers(order, 2 * times))
        _spare_the_collector()
        best_us = dict.fromkeys(TIMES, math.inf)
        for _ in range(TRIES):
            for order in TIMES:
                best_us[order] = min(best_us[order], await _timed(asker, order))
        seen = {order: [await _profiled(asker, order) for _ in range(TRIES)] for order in TIMES}
    spent = {order: functools.reduce(Spent.least, tries) for order, tries in seen.items()}
    return Findings(best_us, spent, PLAIN_ONE, PLAIN, SHORT, LONG, TRIES)


async def _timed(asker: Asker, order: Order) -> float:
    """Microseconds of processor time for one answer."""
    gc.collect()
    begun_s = time.process_time()
    answers = await asker.answers(order, TIMES[order])
    took_s = time.process_time() - begun_s
    await _checked(order, answers)
    return took_s / len(answers) * 1e6


async def _profiled(asker: Asker, order: Order) -> Spent:
    profile = cProfile.Profile()
    gc.collect()
    profile.enable()
    answers = await asker.answers(order, round(TIMES[order] * PROFILED))
    profile.disable()
    await _checked(order, answers)
    return Spent.of(profile, len(answers))


async def _checked(order: Order, answers: Sequence[Reads]) -> None:
    for reads in answers:
        await check(order, reads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, default=Path("docs/benchmarks"), help="the folder for the page")
    options = parser.parse_args()
    text = page(uvloop.run(run()))
    options.write.mkdir(parents=True, exist_ok=True)
    (options.write / "inside.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
