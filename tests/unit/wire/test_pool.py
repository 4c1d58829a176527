"""Pooled exchanges with scripted servers on real sockets: what is kept, what is dropped, and what is sent again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest
import uvloop
from tests.support.raw_server import Peer, RawServer, Script, client_context, raw_server
from tests.support.waiting import until

from coterie.wire import pool as pool_module
from coterie.wire.http1 import HIGH_WATER_BYTES, MAX_HEAD_BYTES, Connection, Exchange, ExchangeError, TransportKind
from coterie.wire.pool import STALE_BREAK_S, STALE_IDLE_S, Origin, Pool

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Late: 1\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nhello"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


@contextlib.asynccontextmanager
async def pooled(
    script: Script, *, tls: bool = False, idle_s: float = 60.0, max_idle: int = 256
) -> AsyncIterator[tuple[Pool, RawServer]]:
    """A pool and the server it is for; after it has closed no connection is left."""
    async with raw_server(script, tls=tls) as server:
        context = client_context() if tls else None
        pool = Pool(server.origin, connect_timeout_s=30, idle_s=idle_s, max_idle=max_idle, ssl_context=context)
        try:
            yield pool, server
        finally:
            await pool.close()
        await until(lambda: pool.connections_open == 0)


async def get(pool: Pool, method: str = "GET") -> tuple[int, bytes]:
    """One whole exchange."""
    exchange = await pool.send(method, "/x", {}, b"")
    try:
        return (await exchange.head()).status, await exchange.read(1000)
    finally:
        exchange.close()


async def kind_of(pool: Pool) -> TransportKind:
    """How one exchange fails."""
    with pytest.raises(ExchangeError) as raised:
        await get(pool)
    return raised.value.kind


def counts(pool: Pool) -> tuple[int, int, int, int]:
    """Made, reused, open, idle."""
    return pool.connections_made, pool.connections_reused, pool.connections_open, pool.connections_idle


def always(*pieces: bytes) -> Script:
    """A server that answers every request in ``pieces``."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.answer(*pieces)

    return script


def first(*pieces: bytes, then: bytes = HELLO) -> Script:
    """A server that answers the first request of each connection in ``pieces``, every other with ``then``."""

    async def script(peer: Peer) -> None:
        await peer.answer(*pieces)
        while True:
            await peer.answer(then)

    return script


# Requests


async def test_the_request_on_the_wire() -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.answer(HELLO))

    async with pooled(script) as (pool, server):
        exchange = await pool.send("POST", "/v1/x?a=b", {"content-type": "application/json"}, b'{"a":1}')
        assert await exchange.read(5) == b"hello"
    assert seen == [
        b"POST /v1/x?a=b HTTP/1.1\r\nhost: 127.0.0.1:%d\r\naccept-encoding: identity\r\ncontent-length: 7\r\n"
        b'content-type: application/json\r\n\r\n{"a":1}' % server.origin.port
    ]


async def test_a_long_body_arrives_whole() -> None:
    body = random.Random(1).randbytes(3_000_000)
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        for _ in range(2):
            seen.append(await peer.answer(HELLO))  # noqa: PERF401 - the client may look in between

    async with pooled(script) as (pool, _):
        for _ in range(2):
            exchange = await pool.send("POST", "/x", {}, body)
            assert await exchange.read(5) == b"hello"
        assert counts(pool) == (1, 1, 1, 1)
    assert [request.partition(b"\r\n\r\n")[2] == body for request in seen] == [True, True]


async def test_what_cannot_be_written_as_a_request_is_refused_before_anything_is_sent() -> None:
    async with pooled(always(HELLO)) as (pool, server):
        with pytest.raises(ValueError, match="header"):
            await pool.send("GET", "/", {"a": "b\r\nc: d"}, b"")
        assert server.accepted == 0


# What is kept


async def test_a_connection_is_used_again() -> None:
    async with pooled(always(HELLO)) as (pool, server):
        exchange = await pool.send("GET", "/", {}, b"")
        assert not exchange.reused
        assert exchange.connect_s > 0
        assert counts(pool) == (1, 0, 1, 0)
        await exchange.read(5)
        assert counts(pool) == (1, 0, 1, 1)  # without a close
        exchange = await pool.send("GET", "/", {}, b"")
        assert exchange.reused
        assert exchange.connect_s == 0.0
        assert exchange.begun_at_s > 0
        assert await exchange.read(5) == b"hello"
        exchange.close()
        assert counts(pool) == (1, 1, 1, 1)
        assert server.accepted == 1


class Gates:
    """Answers the first request of connection ``n`` when ``gates[n]`` is set, and the later ones at once."""

    def __init__(self, count: int) -> None:
        self.gates = [asyncio.Event() for _ in range(count)]

    async def script(self, peer: Peer) -> None:
        await peer.request()
        await self.gates[peer.number - 1].wait()
        await peer.say(HELLO)
        await always(HELLO)(peer)

    async def exchanges(self, pool: Pool, order: Sequence[int]) -> list[Connection]:
        """Exchanges that end in ``order``. Returns their connections in the order in which they were made."""
        exchanges = [await pool.send("GET", "/", {}, b"") for _ in self.gates]
        connections = [exchange._connection for exchange in exchanges]
        for at in order:
            self.gates[at].set()
            await exchanges[at].read(5)
        return cast("list[Connection]", connections)


async def test_the_connection_that_was_used_last_is_taken() -> None:
    gates = Gates(3)
    async with pooled(gates.script) as (pool, _):
        connections = await gates.exchanges(pool, (0, 2, 1))
        assert counts(pool) == (3, 0, 3, 3)
        exchange = await pool.send("GET", "/", {}, b"")
        assert exchange._connection is connections[1]


ANSWERS = {
    # name: method, answer, body, whether the connection is kept
    "a length": ("GET", HELLO, b"hello", True),
    "chunks and trailers": ("GET", CHUNKED, b"hello", True),
    "interim answers": ("GET", INTERIM + HELLO, b"hello", True),
    "nothing": ("GET", b"HTTP/1.1 204 No\r\n\r\n", b"", True),
    "not modified": ("GET", b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", b"", True),
    "HEAD": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"", True),
    "HEAD of chunks": ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"", True),
    "HEAD of nothing": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
    "HEAD after interim answers": ("HEAD", INTERIM + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"", True),
    "1.0, kept": (
        "GET",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
        True,
    ),
    "1.0": ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    "to be closed": ("GET", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
    "HEAD with a body": ("HEAD", HELLO, b"", False),
    "another answer follows": ("GET", HELLO + HELLO, b"hello", False),
    "garbage follows": ("GET", HELLO + b"\x00garbage", b"hello", False),
    "a byte follows the chunks": ("GET", CHUNKED + b"H", b"hello", False),
}


@pytest.mark.parametrize(("method", "answer", "body", "kept"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_every_answer_cut_at_every_byte(method: str, answer: bytes, body: bytes, kept: bool) -> None:
    whole = asyncio.Event()
    cut = 0

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer[:cut])
        await peer.say(answer[cut:])
        whole.set()
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")
        await peer.closed()

    for cut in range(1, len(answer) + 1):  # noqa: B007 - the script reads it
        whole.clear()
        async with pooled(script) as (pool, _):
            assert (await get(pool, method))[1] == body
            if kept:
                assert counts(pool) == (1, 0, 1, 1)
                assert (await get(pool))[1] == b"second"
                assert counts(pool) == (1, 1, 1, 1)
            else:
                await whole.wait()
                await until(lambda pool=pool: counts(pool) == (1, 0, 0, 0))  # type: ignore[misc]


async def test_an_answer_may_end_with_its_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(UNTIL_CLOSE)

    async with pooled(script) as (pool, _):
        exchange = await pool.send("GET", "/", {}, b"")
        await exchange.head()
        assert exchange.until_close
        assert await exchange.read(100) == b"hello"
        await until(lambda: counts(pool) == (1, 0, 0, 0))


async def test_a_reset_does_not_end_an_answer() -> None:
    may_reset = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(UNTIL_CLOSE)
        await may_reset.wait()
        peer.reset()

    async with pooled(script) as (pool, _):
        exchange = await pool.send("GET", "/", {}, b"")
        chunks = exchange.chunks()
        assert await anext(chunks) == b"hello"
        may_reset.set()
        with pytest.raises(ExchangeError) as raised:
            await anext(chunks)
        assert raised.value.kind == "broken"


@pytest.mark.parametrize("answer", [HELLO, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
async def test_every_early_end_is_a_failure_of_its_kind(answer: bytes, reset: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(answer[:cut])
        if reset:
            peer.reset()

    for cut in range(len(answer)):
        async with pooled(script) as (pool, _):
            kind = await kind_of(pool)
            # A reset may overtake what was sent before it.
            assert kind == ("broken" if b"\r\n\r\n" in answer[:cut] else "reset_before_head") or reset
            await until(lambda pool=pool: counts(pool) == (1, 0, 0, 0))  # type: ignore[misc]


async def test_a_connection_whose_answer_was_not_read_sees_its_end() -> None:
    """The last read of the answer pauses the socket; nobody takes it, and the connection is idle all the same."""
    size = HIGH_WATER_BYTES + 1
    may_close = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * (size - 1))
        await until(lambda: exchange._unread_bytes == size - 1)
        await peer.say(b"x")
        await may_close.wait()

    async with pooled(script) as (pool, _):
        exchange = await pool.send("GET", "/", {}, b"")
        await until(lambda: pool.connections_idle == 1)
        may_close.set()
        await until(lambda: pool.connections_open == 0)
        assert len(await exchange.read(size)) == size


# Idle connections


@pytest.mark.parametrize("ending", ["close", "reset", "bytes"])
async def test_an_idle_connection_that_the_server_ends_is_forgotten(ending: str) -> None:
    may_end = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(HELLO)
        await may_end.wait()
        if ending == "bytes":
            await peer.say(HELLO)
            await peer.closed()
        elif ending == "reset":
            peer.reset()

    async with pooled(script) as (pool, _):
        await get(pool)
        assert counts(pool) == (1, 0, 1, 1)
        may_end.set()
        await until(lambda: counts(pool) == (1, 0, 0, 0))
        assert await get(pool) == (200, b"hello")
        assert (pool.connections_made, pool.connections_reused) == (2, 0)


async def test_a_connection_is_idle_for_a_limited_time() -> None:
    async with pooled(always(HELLO), idle_s=0.02) as (pool, server):
        for _ in range(2):
            await get(pool)
            await until(lambda: pool.connections_open == 0 and server.open == 0)
            assert pool._timer is None


async def test_one_timer_is_for_all_and_stays_for_those_that_are_younger() -> None:
    gates = Gates(3)
    async with pooled(gates.script, idle_s=30) as (pool, _):
        connections = await gates.exchanges(pool, (1, 2, 0))
        pool._idle[connections[1]] -= 31
        pool._expire()
        assert list(pool._idle) == [connections[2], connections[0]]
        assert pool._timer is not None
        pool._timer.cancel()


@pytest.mark.parametrize("max_idle", [0, 1, 2])
async def test_idle_connections_are_bounded_and_the_oldest_go(max_idle: int) -> None:
    gates = Gates(3)
    async with pooled(gates.script, max_idle=max_idle) as (pool, server):
        one, two, three = await gates.exchanges(pool, (1, 2, 0))
        assert list(pool._idle) == [two, three, one][3 - max_idle :]
        await until(lambda: server.open == max_idle == pool.connections_open)


async def test_a_closed_pool() -> None:
    may_go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.request()
            await peer.say(HELLO[:-2])
            await may_go_on.wait()
            await peer.say(HELLO[-2:])
            await peer.closed()
        await peer.answer(HELLO)
        await peer.closed()

    async with pooled(script) as (pool, server):
        exchange = await pool.send("GET", "/", {}, b"")
        await exchange.head()
        await get(pool)
        assert counts(pool) == (2, 0, 2, 1)
        await pool.close()
        assert pool.connections_idle == 0
        await until(lambda: (pool.connections_open, server.open) == (1, 1))
        assert await kind_of(pool) == "closed"
        may_go_on.set()
        assert await exchange.read(5) == b"hello"
        await until(lambda: (pool.connections_open, server.open) == (0, 0))
        assert pool._timer is None


# A connection that ends while it is used again


def age(pool: Pool, idle_s: float = STALE_IDLE_S) -> None:
    """Make it so that every idle connection was idle for ``idle_s`` seconds longer."""
    for connection in pool._idle:
        pool._idle[connection] -= idle_s


def stale(*, reset: bool, before: bytes = b"", later: bytes | None = HELLO) -> Script:
    """Connection 1 ends when it gets its second request, after it said ``before``; the others answer ``later``."""

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.answer(HELLO)
        await peer.request()
        if peer.number == 1:
            await peer.say(before)
        elif later is not None:
            await peer.say(later)
            await peer.closed()
        if reset:
            peer.reset()

    return script


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
async def test_a_request_that_nobody_answered_is_sent_again(reset: bool) -> None:
    async with pooled(stale(reset=reset)) as (pool, server):
        await get(pool)
        age(pool)
        exchange = await pool.send("POST", "/again", {}, b"body")
        assert exchange.reused
        assert await exchange.read(5) == b"hello"
        assert not exchange.reused
        assert exchange.connect_s > 0
        assert server.accepted == 2
        assert counts(pool) == (2, 1, 1, 1)


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
async def test_it_is_sent_again_once(reset: bool) -> None:
    async with pooled(stale(reset=reset, later=None)) as (pool, server):
        await get(pool)
        age(pool)
        assert await kind_of(pool) == "reset_before_head"
        assert server.accepted == 2


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
async def test_a_connection_that_was_just_used_is_not_stale(reset: bool) -> None:
    async with pooled(stale(reset=reset)) as (pool, server):
        await get(pool)
        age(pool, -60)  # however slow this machine is
        exchange = await pool.send("POST", "/once", {}, b"body")
        assert exchange.reused
        with pytest.raises(ExchangeError) as raised:
            await exchange.head()
        assert raised.value.kind == "reset_before_head"
        assert server.accepted == 1


async def test_nor_is_one_that_ends_long_after_the_request() -> None:
    may_end = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(HELLO)
        await peer.request()
        await may_end.wait()

    async with pooled(script) as (pool, server):
        await get(pool)
        age(pool)
        exchange = await pool.send("POST", "/once", {}, b"body")
        exchange.begun_at_s -= STALE_BREAK_S + 0.1
        may_end.set()
        with pytest.raises(ExchangeError) as raised:
            await exchange.head()
        assert raised.value.kind == "reset_before_head"
        assert server.accepted == 1


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
async def test_a_fresh_connection_is_not_tried_again(reset: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if reset:
            peer.reset()

    async with pooled(script) as (pool, server):
        assert await kind_of(pool) == "reset_before_head"
        assert server.accepted == 1


@pytest.mark.parametrize("before", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", HELLO[:-1]])
async def test_nothing_is_sent_again_once_a_byte_came(before: bytes) -> None:
    async with pooled(stale(reset=False, before=before)) as (pool, server):
        await get(pool)
        age(pool)
        assert await kind_of(pool) == ("broken" if before == HELLO[:-1] else "reset_before_head")
        assert server.accepted == 1


async def test_sending_again_fails_where_the_server_has_gone() -> None:
    async with pooled(stale(reset=False)) as (pool, _):
        await get(pool)
        age(pool)
        pool.origin = Origin("127.0.0.1", _free_port(), tls=False)
        assert await kind_of(pool) == "refused"


@pytest.mark.parametrize("how", ["close", "fail"])
async def test_an_exchange_can_be_ended_while_it_is_sent_again(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dialling = asyncio.Event()
    cancelled = asyncio.Event()

    async def never(*_: object) -> None:
        dialling.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with pooled(stale(reset=False)) as (pool, _):
        await get(pool)
        age(pool)
        monkeypatch.setattr(pool_module, "dial", never)
        exchange = await pool.send("GET", "/", {}, b"")
        waiting = asyncio.ensure_future(exchange.head())
        await dialling.wait()
        if how == "close":
            exchange.close()
        else:
            exchange.fail(TooSlowError())
        with pytest.raises(ExchangeError if how == "close" else TooSlowError):
            await waiting
        await cancelled.wait()


class TooSlowError(Exception):
    pass


async def test_a_connection_that_ended_unseen_is_not_used() -> None:
    async with pooled(always(HELLO)) as (pool, _):
        await get(pool)
        next(iter(pool._idle)).eof_received()
        assert pool.connections_idle == 1  # the event loop has not said yet that it is closed
        assert await get(pool) == (200, b"hello")
        assert (pool.connections_made, pool.connections_reused) == (2, 0)


# Ended early


async def test_a_close_before_the_end_is_seen_by_the_server() -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(HELLO[:-1])
        await peer.closed()
        left.set()

    async with pooled(script) as (pool, _):
        exchange = await pool.send("GET", "/", {}, b"")
        await exchange.head()
        exchange.close()
        await left.wait()
        await until(lambda: counts(pool) == (1, 0, 0, 0))


@pytest.mark.parametrize("paused", [False, True])
async def test_a_close_ends_the_connection_also_where_it_is_paused(paused: bool) -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * (8 * HIGH_WATER_BYTES))
        with contextlib.suppress(ConnectionError):
            await peer.closed()
        left.set()

    async with pooled(script) as (pool, _):
        exchange = await pool.send("GET", "/", {}, b"")
        await exchange.head()
        await until(lambda: exchange._paused or not paused)
        exchange.close()
        await left.wait()
        assert exchange._unread_bytes <= 2 * HIGH_WATER_BYTES


@pytest.mark.parametrize("ending", [b"", b"Connection: close\r\n"], ids=["kept", "to be closed"])
@pytest.mark.parametrize("reset", [False, True], ids=["stays", "reset"])
async def test_an_answer_before_the_request_is_sent_is_read_and_ends_the_connection(ending: bytes, reset: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer._reader.readuntil(b"\r\n\r\n")
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await peer.say(b"HTTP/1.1 413 Too Large\r\n" + ending + b"Content-Length: 5\r\n\r\nlarge")
        if not reset:
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            with contextlib.suppress(ConnectionError):
                await peer.closed()

    async with pooled(script) as (pool, _):
        exchange = await pool.send("POST", "/", {}, b"x" * 30_000_000)
        assert (await exchange.head()).status == 413
        assert await exchange.read(5) == b"large"
        assert pool.connections_idle == 0
        await until(lambda: pool.connections_open == 0)


# What is no answer

NO_ANSWERS: dict[str, tuple[bytes, TransportKind]] = {
    "another protocol": (b"SSH-2.0-OpenSSH_9.9\r\n", "not_http"),
    "a status below 100": (b"HTTP/1.1 099 No\r\nContent-Length: 5\r\n\r\nhello", "not_http"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "not_http"),
    "a length and chunks": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "not_http"),
    "an upgrade": (b"HTTP/1.1 101 No\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc", "upgrade"),
    "an upgrade to nothing": (b"HTTP/1.1 101 No\r\n\r\n", "upgrade"),
    "a long head": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (2 * MAX_HEAD_BYTES), "head_too_large"),
    "long interim answers": (INTERIM * (2 * MAX_HEAD_BYTES // len(INTERIM)), "head_too_large"),
    "a long trailer": (CHUNKED[:-2] + b"Y: " + b"x" * (8 * MAX_HEAD_BYTES), "head_too_large"),
    "a long extension": (CHUNKED.partition(b"2\r")[0] + b"2;" + b"x" * (2 * MAX_HEAD_BYTES), "head_too_large"),
    "an unknown coding": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello", "broken"),
}


@pytest.mark.parametrize(("answer", "kind"), NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
async def test_what_is_no_answer(answer: bytes, kind: TransportKind) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(answer)
        if kind != "broken":
            await peer.closed()

    async with pooled(script) as (pool, _):
        assert await kind_of(pool) == kind
        await until(lambda: pool.connections_open == 0)


# Sockets, TLS, event loops


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_nobody_listens() -> None:
    pool = Pool(Origin("127.0.0.1", _free_port(), tls=False), connect_timeout_s=30)
    assert await kind_of(pool) == "refused"
    assert counts(pool) == (0, 0, 0, 0)


def test_the_time_of_a_connect_is_finer_than_the_clock_of_the_event_loop() -> None:
    async def connected() -> list[float]:
        async def script(peer: Peer) -> None:
            await peer.answer(UNTIL_CLOSE)

        async with pooled(script) as (pool, _):
            times = []
            for _ in range(5):
                exchange = await pool.send("GET", "/", {}, b"")
                times.append(exchange.connect_s)
                await exchange.read(5)
            return times

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        times = runner.run(connected())
    assert all(time_s > 0 for time_s in times)
    assert any(round(time_s * 1000, 6) % 1 for time_s in times)


async def test_exchanges_over_tls() -> None:
    async def script(peer: Peer) -> None:
        assert peer.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        await always(HELLO)(peer)

    async with pooled(script, tls=True) as (pool, _):
        for _ in range(3):
            assert await get(pool) == (200, b"hello")
        assert counts(pool) == (1, 2, 1, 1)


async def test_a_default_context_trusts_no_stranger() -> None:
    async with raw_server(always(HELLO), tls=True) as server:
        pool = Pool(server.origin, connect_timeout_s=30)
        assert await kind_of(pool) == "tls"
        assert counts(pool) == (0, 0, 0, 0)


async def _mixed_exchanges(seed: int, count: int) -> None:
    """Exchanges that end in every way: the pool knows how many connections are open, and so does the server."""
    numbers = random.Random(seed)
    answers = [answer for _, answer, _, _ in ANSWERS.values()] + [HELLO[:-1], b"SSH", b""]

    async def script(peer: Peer) -> None:
        while await peer.answer(numbers.choice(answers)) and numbers.random() > 0.2:
            pass
        if numbers.random() > 0.5:
            peer.reset()

    async def one(pool: Pool) -> None:
        exchange: Exchange | None = None
        try:
            async with asyncio.timeout(numbers.choice([0, 0.001, 0.01])):
                exchange = await pool.send("GET", "/", {}, b"")
                await exchange.read(1000)
        except (ExchangeError, TimeoutError):
            pass
        finally:
            if exchange is not None:
                exchange.close()

    async with pooled(script) as (pool, server):
        before = _open_sockets()
        for _ in range(count):
            await asyncio.gather(*(one(pool) for _ in range(8)))
        await until(lambda: pool.connections_open == pool.connections_idle == server.open)
        assert pool.connections_made > 1
        assert pool.connections_reused > 1
        assert _open_sockets() == before + 2 * pool.connections_open  # both sides are here
        await pool.close()
        await until(lambda: server.open == 0)


def _open_sockets() -> int:
    """How many TCP sockets this process has open."""
    found = [one for one in gc.get_objects() if isinstance(one, socket.socket)]
    return sum(1 for one in found if one.fileno() != -1 and one.family == socket.AF_INET)


@pytest.mark.parametrize("seed", range(3))
async def test_no_connection_is_lost_sight_of(seed: int) -> None:
    await _mixed_exchanges(seed, 40)


async def _every_way(*, tls: bool) -> None:
    for reset in (False, True):
        async with pooled(stale(reset=reset), tls=tls) as (pool, server):
            assert await get(pool) == (200, b"hello")
            age(pool)
            assert await get(pool) == (200, b"hello")
            assert server.accepted == 2
            assert counts(pool) == (2, 1, 1, 1)
    async with pooled(first(UNTIL_CLOSE[:-5], b"hello"), tls=tls) as (pool, server):
        exchange = await pool.send("POST", "/", {}, b"x" * 1_000_000)
        assert await anext(exchange.chunks()) == b"hello"
        exchange.close()
        await until(lambda: server.open == 0)


def test_another_event_loop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_every_way(tls=False))
        runner.run(_every_way(tls=True))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_a_cancelled_send_leaves_nothing(tls: bool) -> None:
    """Cancelled after each number of steps of the event loop, also in the middle of the handshakes."""
    async with pooled(Peer.closed, tls=tls) as (pool, server):
        before = _open_sockets()
        for steps in range(16):
            sending = asyncio.ensure_future(pool.send("GET", "/", {}, b""))
            for _ in range(steps):
                await asyncio.sleep(0)
            if not sending.cancel():
                sending.result().close()
            await asyncio.wait([sending])
        await until(lambda: pool.connections_open == server.open == 0)
        await until(lambda: _open_sockets() == before)
        assert server.accepted > 1
