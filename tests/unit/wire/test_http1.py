"""The client's side of one HTTP exchange, against peers of every kind on a real Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from coterie.wire.http1 import (
    HIGH_WATER_BYTES,
    MAX_HEAD_BYTES,
    Connection,
    Exchange,
    ExchangeError,
    open_unix,
    request_bytes,
)

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

REQUEST = request_bytes("POST", "/v1/x", {"content-type": "application/json"}, b'{"a":1}')
WITH_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-One: 1\r\n\r\nhello world"
CHUNKED = (
    b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Late: 1\r\n\r\n"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, because those of Unix sockets are limited."""
    with tempfile.TemporaryDirectory(prefix="http1-") as path:
        yield Path(path)


@contextlib.asynccontextmanager
async def talking_to(folder: Path, peer: Peer) -> AsyncIterator[Exchange]:
    """An exchange with ``peer``, which runs once the whole request has come; both have ended afterwards."""
    ended = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(len(REQUEST))
            await peer(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()
            ended.set_result(None)

    server = await asyncio.start_unix_server(serve, folder / "s")
    exchange = await open_unix(str(folder / "s"), REQUEST)
    try:
        yield exchange
    finally:
        exchange.close()
        await ended
        server.close()


def says(*pieces: bytes) -> Peer:
    """A peer that sends ``pieces`` one by one and then closes."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return peer


async def until_closed(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""


def test_a_request_as_bytes() -> None:
    assert REQUEST == (
        b"POST /v1/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 7\r\n"
        b'content-type: application/json\r\n\r\n{"a":1}'
    )
    assert request_bytes("GET", "/", {}, b"").endswith(b"content-length: 0\r\n\r\n")


@pytest.mark.parametrize("answer", [WITH_LENGTH, CHUNKED], ids=["length", "chunked"])
async def test_an_answer_cut_at_every_byte(folder: Path, answer: bytes) -> None:
    for at in range(1, len(answer)):
        async with talking_to(folder, says(answer[:at], answer[at:])) as exchange:
            head = await exchange.head()
            assert head.status == (200 if answer is WITH_LENGTH else 404)
            assert await exchange.read(11) == b"hello world"


async def test_an_answer_byte_by_byte(folder: Path) -> None:
    async with talking_to(folder, says(*(CHUNKED[i : i + 1] for i in range(len(CHUNKED))))) as exchange:
        assert b"".join([chunk async for chunk in exchange.chunks()]) == b"hello world"


async def test_names_of_headers_are_in_lower_case_and_trailers_are_none(folder: Path) -> None:
    async with talking_to(folder, says(WITH_LENGTH)) as exchange:
        assert (await exchange.head()).headers == {"content-length": "11", "x-one": "1"}
    async with talking_to(folder, says(CHUNKED)) as exchange:
        head = await exchange.head()
        await exchange.read(100)
        assert head.headers == {"transfer-encoding": "chunked"}


async def test_head_and_chunks_come_while_the_rest_is_not_there(folder: Path) -> None:
    more = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WITH_LENGTH[:-6])
        await more.wait()
        writer.write(WITH_LENGTH[-6:])

    async with talking_to(folder, peer) as exchange:
        assert (await exchange.head()).status == 200
        chunks = exchange.chunks()
        assert await anext(chunks) == b"hello"
        more.set()
        assert [chunk async for chunk in chunks] == [b" world"]


async def test_an_empty_answer(folder: Path) -> None:
    async with talking_to(folder, says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as exchange:
        assert await exchange.read(0) == b""


@pytest.mark.parametrize("answer", [WITH_LENGTH, CHUNKED], ids=["length", "chunked"])
async def test_every_early_close_is_an_error(folder: Path, answer: bytes) -> None:
    for at in range(len(answer)):
        async with talking_to(folder, says(answer[:at])) as exchange:
            with pytest.raises(ExchangeError) as raised:
                await exchange.read(100)
            assert raised.value.kind == ("broken" if b"\r\n\r\n" in answer[:at] else "reset_before_head")


async def test_what_came_before_an_early_close_is_given_out_first(folder: Path) -> None:
    async with talking_to(folder, says(WITH_LENGTH[:-6])) as exchange:
        await exchange.head()
        chunks = exchange.chunks()
        assert await anext(chunks) == b"hello"
        with pytest.raises(ExchangeError, match="closed before"):
            await anext(chunks)


NO_HTTP: dict[str, bytes] = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" * 3,
    "a bad length": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
}


@pytest.mark.parametrize("answer", NO_HTTP.values(), ids=NO_HTTP.keys())
async def test_what_is_no_answer_is_an_error(folder: Path, answer: bytes) -> None:
    async with talking_to(folder, says(answer)) as exchange:
        with pytest.raises(ExchangeError) as raised:
            await exchange.read(100)
        assert raised.value.kind == "not_http"


@pytest.mark.parametrize("upgrade", [b"", b"Connection: upgrade\r\nUpgrade: websocket\r\n"], ids=["bare", "named"])
async def test_another_protocol_is_refused(folder: Path, upgrade: bytes) -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\nabc"
    for at in range(1, len(answer)):
        async with talking_to(folder, says(answer[:at], answer[at:])) as exchange:
            with pytest.raises(ExchangeError) as raised:
                await exchange.head()
            assert raised.value.kind == "upgrade"


async def test_without_length_and_chunks_an_answer_ends_with_its_connection(folder: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nhello"
    for at in range(1, len(answer)):
        async with talking_to(folder, says(answer[:at], answer[at:])) as exchange:
            assert await exchange.read(5) == b"hello"
            assert exchange.until_close
    async with talking_to(folder, says(WITH_LENGTH)) as exchange:
        await exchange.read(100)
        assert not exchange.until_close


async def test_interim_answers_are_skipped(folder: Path) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"
    async with talking_to(folder, says(interim, WITH_LENGTH)) as exchange:
        assert (await exchange.head()).headers == {"content-length": "11", "x-one": "1"}
        assert await exchange.read(11) == b"hello world"


async def test_what_came_since_the_last_time_comes_in_one_piece(folder: Path) -> None:
    async with talking_to(folder, says(CHUNKED)) as exchange:
        await exchange.head()
        assert [chunk async for chunk in exchange.chunks()] == [b"hello world"]


async def test_a_head_without_end_is_refused_while_it_still_comes(folder: Path) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * (2 * MAX_HEAD_BYTES))
        await until_closed(reader)

    async with talking_to(folder, peer) as exchange:
        with pytest.raises(ExchangeError, match="a head of more than") as raised:
            await exchange.head()
        assert raised.value.kind == "head_too_large"


async def test_what_follows_a_complete_answer_is_no_part_of_it(folder: Path) -> None:
    second = b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nxyz"
    async with talking_to(folder, says(WITH_LENGTH + second)) as exchange:
        assert await exchange.read(100) == b"hello world"
        assert (await exchange.head()).status == 200


async def test_garbage_after_a_complete_answer_harms_nothing(folder: Path) -> None:
    async with talking_to(folder, says(WITH_LENGTH + b"\x00garbage")) as exchange:
        assert await exchange.read(100) == b"hello world"


async def test_a_whole_body_has_a_limit(folder: Path) -> None:
    async with talking_to(folder, says(WITH_LENGTH)) as exchange:
        with pytest.raises(ExchangeError, match="more than 10 bytes") as raised:
            await exchange.read(10)
        assert raised.value.kind == "body_too_large"


async def test_a_slow_reader_holds_the_sender_back(folder: Path) -> None:
    total = 64 * HIGH_WATER_BYTES
    held = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        drained = asyncio.ensure_future(_write_all(writer, total))
        while not drained.done():
            # The sender is held back when the reader has paused and the socket takes no more.
            if exchange._paused and writer.transport.get_write_buffer_size() > 0:
                held.set()
            await asyncio.sleep(0)

    async with talking_to(folder, peer) as exchange:
        await exchange.head()
        await held.wait()
        assert exchange._unread_bytes <= 2 * HIGH_WATER_BYTES
        size = 0
        async for chunk in exchange.chunks():
            assert exchange._unread_bytes <= 2 * HIGH_WATER_BYTES
            size += len(chunk)
        assert size == total
        assert exchange._unread_bytes == 0


async def _write_all(writer: asyncio.StreamWriter, total: int) -> None:
    for _ in range(total // HIGH_WATER_BYTES):
        writer.write(b"x" * HIGH_WATER_BYTES)
        await writer.drain()


async def _read_into(sizes: list[int], exchange: Exchange) -> None:
    async for chunk in exchange.chunks():
        sizes.append(len(chunk))  # noqa: PERF401 - what was read stays, also when it fails


class TooSlowError(Exception):
    pass


async def test_a_failure_from_outside_wakes_the_consumer_and_closes_the_connection(folder: Path) -> None:
    closed = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until_closed(reader)
        closed.set()

    async with talking_to(folder, peer) as exchange:
        waiting = asyncio.ensure_future(exchange.head())
        await asyncio.sleep(0)
        exchange.fail(TooSlowError())
        with pytest.raises(TooSlowError):
            await waiting
        await closed.wait()
        with pytest.raises(TooSlowError):
            await exchange.head()


async def test_the_first_failure_counts(folder: Path) -> None:
    async with talking_to(folder, says()) as exchange:
        exchange.fail(TooSlowError())
        exchange.fail(ValueError())
        with pytest.raises(TooSlowError):
            await exchange.read(100)


async def test_a_failure_while_paused_is_told_after_what_came(folder: Path) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * (4 * HIGH_WATER_BYTES))
        await until_closed(reader)

    async with talking_to(folder, peer) as exchange:
        await exchange.head()
        while not exchange._paused:  # noqa: ASYNC110 - the exchange tells nobody that it pauses
            await asyncio.sleep(0)
        exchange.fail(TooSlowError())
        sizes: list[int] = []
        with pytest.raises(TooSlowError):
            await _read_into(sizes, exchange)
        assert sum(sizes) > HIGH_WATER_BYTES


async def test_a_failure_after_the_end_changes_nothing(folder: Path) -> None:
    async with talking_to(folder, says(WITH_LENGTH)) as exchange:
        assert await exchange.read(100) == b"hello world"
        exchange.fail(TooSlowError())
        assert await exchange.read(100) == b""


async def test_the_peer_sees_a_close(folder: Path) -> None:
    closed = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WITH_LENGTH[:-6])
        await until_closed(reader)
        closed.set()

    async with talking_to(folder, peer) as exchange:
        await exchange.head()
        exchange.close()
        await closed.wait()


async def test_a_close_ends_a_waiting_consumer(folder: Path) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until_closed(reader)

    async with talking_to(folder, peer) as exchange:
        waiting = asyncio.ensure_future(exchange.head())
        await asyncio.sleep(0)
        exchange.close()
        with pytest.raises(ExchangeError) as raised:
            await waiting
        assert raised.value.kind == "closed"


async def test_nobody_listens(folder: Path) -> None:
    with pytest.raises(ExchangeError, match="cannot connect") as raised:
        await open_unix(str(folder / "nothing"), REQUEST)
    assert raised.value.kind == "refused"


# The tap


class Socket:
    """A transport that does nothing but to note what is asked of it."""

    def __init__(self) -> None:
        self.reading = True
        self.closing = False

    def write(self, data: bytes) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 0


class Tapped:
    """An exchange on a :class:`Socket`, of which ``tap`` is asked, and a consumer of its chunks."""

    def __init__(self, *takes: int) -> None:
        self.takes = list(takes)
        """How much of each piece is taken; all of it afterwards."""
        self.shown: list[bytes] = []
        self.got: list[bytes] = []
        self.socket = Socket()
        self.exchange = Exchange(REQUEST)
        self.connection = Connection(self.exchange)
        self.connection.connection_made(cast("asyncio.Transport", self.socket))
        self.exchange.tap = self.tap
        self.task: asyncio.Task[None] | None = None

    def tap(self, data: bytes) -> int:
        self.shown.append(data)
        return self.takes.pop(0) if self.takes else len(data)

    async def consume(self) -> None:
        """Begin to consume, up to where it waits."""
        self.task = asyncio.create_task(self._consume())
        await asyncio.sleep(0)

    async def _consume(self) -> None:
        await self.exchange.head()
        async for chunk in self.exchange.chunks():
            self.got.append(chunk)

    async def comes(self, *pieces: bytes) -> None:
        """``pieces`` of the body come, in one read each; the consumer is given time after all of them."""
        for piece in pieces:
            self.connection.data_received(b"%x\r\n%b\r\n" % (len(piece), piece))
        for _ in range(3):
            await asyncio.sleep(0)

    async def end(self) -> None:
        """The answer ends well, and so does the consumer."""
        self.connection.data_received(b"0\r\n\r\n")
        assert self.task is not None
        await self.task


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def waiting(*takes: int) -> Tapped:
    """Such an exchange whose consumer waits for the body."""
    tapped = Tapped(*takes)
    await tapped.consume()
    tapped.connection.data_received(CHUNKED_HEAD)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert tapped.shown == []  # a head is no body
    return tapped


async def test_what_a_tap_raises_is_the_consumers(caplog: pytest.LogCaptureFixture) -> None:
    tapped, bug = await waiting(), KeyError("a bug")

    def broken(data: bytes) -> int:
        raise bug

    tapped.exchange.tap = broken
    await tapped.comes(b"one")
    assert tapped.task is not None
    with pytest.raises(KeyError) as caught:
        await tapped.task
    assert caught.value is bug
    assert tapped.got == []  # nobody knows how much of it was dealt with
    assert tapped.socket.closing
    assert caplog.records == []


async def test_what_is_tapped_in_full_wakes_nobody() -> None:
    tapped = await waiting()
    await tapped.comes(b"one", b"two")
    assert (tapped.shown, tapped.got) == ([b"one", b"two"], [])
    waiter = tapped.exchange._waiter
    await tapped.comes(b"three")
    assert tapped.exchange._waiter is waiter
    await tapped.end()
    assert tapped.got == []


async def test_the_rest_goes_to_the_consumer_in_order() -> None:
    tapped = await waiting(3, 0, 1)
    await tapped.comes(b"one", b"two")
    await tapped.comes(b"three")
    await tapped.comes(b"four")
    assert (tapped.shown, tapped.got) == ([b"one", b"two", b"three", b"four"], [b"two", b"hree"])
    await tapped.end()
    assert tapped.got == [b"two", b"hree"]


async def test_nobody_is_asked_while_something_waits_for_the_consumer() -> None:
    tapped = await waiting(0)
    await tapped.comes(b"one", b"two", b"three")  # before the consumer runs
    assert (tapped.shown, tapped.got) == ([b"one"], [b"onetwothree"])
    await tapped.comes(b"four")
    assert (tapped.shown, tapped.got) == ([b"one", b"four"], [b"onetwothree"])


async def test_nobody_is_asked_while_the_consumer_does_something_else() -> None:
    tapped = Tapped()
    tapped.connection.data_received(CHUNKED_HEAD)
    await tapped.comes(b"one")
    assert tapped.shown == []
    await tapped.consume()
    assert (tapped.shown, tapped.got) == ([], [b"one"])
    await tapped.comes(b"two")
    assert tapped.shown == [b"two"]


async def test_each_piece_that_one_read_brought_is_shown() -> None:
    tapped = await waiting()
    tapped.connection.data_received(b"3\r\none\r\n3\r\ntwo\r\n5\r\nth")
    assert tapped.shown == [b"one", b"two", b"th"]
    tapped.connection.data_received(b"r")
    tapped.connection.data_received(b"ee\r\n4")
    tapped.connection.data_received(b"\r\n")  # none of it is body
    assert tapped.shown == [b"one", b"two", b"th", b"r", b"ee"]
    await tapped.comes()
    assert tapped.got == []


async def test_behind_a_piece_that_is_left_the_rest_of_a_read_is_left() -> None:
    tapped = await waiting(3, 1)
    tapped.connection.data_received(b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n")
    await tapped.comes()
    assert (tapped.shown, tapped.got) == ([b"one", b"two"], [b"wothree"])


async def test_what_comes_with_the_end_may_be_taken_too() -> None:
    tapped = await waiting()
    tapped.connection.data_received(b"3\r\none\r\n0\r\n\r\n")
    assert tapped.task is not None
    await tapped.task
    assert (tapped.shown, tapped.got) == ([b"one"], [])


async def test_nobody_is_asked_for_a_consumer_that_was_cancelled() -> None:
    tapped = await waiting()
    assert tapped.task is not None
    tapped.task.cancel()
    tapped.connection.data_received(b"3\r\none\r\n")  # before the consumer knows
    assert tapped.shown == []
    with pytest.raises(asyncio.CancelledError):
        await tapped.task
    await tapped.comes(b"two")
    assert tapped.shown == []


@pytest.mark.parametrize("end", ["fail", "close", "lost", "eof"])
async def test_nobody_is_asked_after_the_end(end: str) -> None:
    tapped = await waiting()
    match end:
        case "fail":
            tapped.exchange.fail(TooSlowError())
        case "close":
            tapped.exchange.close()
        case "lost":
            tapped.connection.connection_lost(None)
        case "eof":
            tapped.connection.eof_received()
    await tapped.comes(b"one")
    assert (tapped.shown, tapped.got) == ([], [])
    assert tapped.task is not None
    with pytest.raises(TooSlowError if end == "fail" else ExchangeError):
        await tapped.task


@pytest.mark.parametrize("taken", [0, 1, 3])
async def test_what_came_before_the_answer_breaks_is_not_lost(taken: int) -> None:
    tapped = await waiting(taken)
    tapped.connection.data_received(b"3\r\none\r\nnot a size\r\n")
    assert tapped.shown == [b"one"]
    assert tapped.task is not None
    with pytest.raises(ExchangeError, match="not HTTP"):
        await tapped.task
    assert b"".join(tapped.got) == b"one"[taken:]


@pytest.mark.parametrize("left", [0, 5])
async def test_a_socket_that_was_paused_is_read_on(left: int) -> None:
    size = HIGH_WATER_BYTES + 10
    tapped = await waiting(size - left)
    tapped.connection.data_received(b"%x\r\n%b" % (size + 99, b"x" * size))
    assert tapped.exchange._unread_bytes == left
    await tapped.comes()
    assert tapped.socket.reading
    assert [len(chunk) for chunk in tapped.got] == ([left] if left else [])
    assert tapped.exchange._unread_bytes == 0
