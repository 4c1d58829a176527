"""Strange, slow and greedy peers of a WebSocket, against the real server."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest
from tests.support.sockets import close_frame, closing, echo, frame, handshake, send_all, sockets
from tests.support.waiting import until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from coterie.api.socket import ClientSocket, SocketClosed
from coterie.api.state import AppState


async def test_binary_messages_are_refused() -> None:
    async with sockets() as served, connect(served.url) as client:
        await client.send(b"\x00\x01")
        assert await closing(client) == (1003, "Messages must be text")


@pytest.mark.parametrize("pieces", [["x" * 5000], ["x" * 1000] * 5])
async def test_a_message_that_is_too_big(pieces: list[str]) -> None:
    async with sockets(limits={"body_bytes": 4096}) as served, connect(served.url) as client:
        with contextlib.suppress(ConnectionClosed):
            await client.send(pieces)
        assert (await closing(client))[0] == 1009


async def test_a_client_that_is_still_sending_reads_why_it_is_closed() -> None:
    size = 8_000_000
    async with sockets(limits={"body_bytes": 4096}) as served, served.wire() as wire:
        await wire.send(handshake())
        await wire.head()
        wire.writer.write(b"\x81\xff" + size.to_bytes(8) + bytes(4) + bytes(size))
        assert await close_frame(wire) == 1009
        await wire.writer.drain()
        assert await wire.at_end()


async def test_fragments_without_end() -> None:
    async with sockets() as served, served.wire() as wire:
        await wire.send(handshake() + frame(b"", first=0x01))
        await wire.send(frame(b"", first=0x00) * 5000)
        await wire.head()
        assert await close_frame(wire) == 1008


@pytest.mark.parametrize("part", [frame(b"abc", first=0x01), frame(b"abcdef")[:8]], ids=["a fragment", "a part of one"])
async def test_a_message_that_never_ends(part: bytes) -> None:
    async with sockets(limits={"body_timeout_s": 0.05}) as served, served.wire() as wire:
        await wire.send(handshake() + frame(b"whole") + part)
        await wire.head()
        assert await wire.reader.readexactly(7) == b"\x81\x05whole"
        assert await close_frame(wire) == 1008


async def test_text_that_is_none() -> None:
    async with sockets() as served, served.wire() as wire:
        await wire.send(handshake() + frame(b"\xff\xfe"))
        await wire.head()
        assert await close_frame(wire) == 1007


async def test_what_is_no_frame() -> None:
    async with sockets() as served, served.wire() as wire:
        await wire.send(handshake())
        await wire.head()
        await wire.send(b"GET / HTTP/1.1\r\n\r\n")
        assert await close_frame(wire) == 1002
        assert await wire.at_end()


async def test_a_handler_that_does_not_read_stops_the_client() -> None:
    gate = asyncio.Event()

    async def wait(socket: ClientSocket, state: AppState) -> None:
        await gate.wait()
        await echo(socket, state)

    async with sockets(wait) as served, connect(served.url) as client:
        sending = asyncio.create_task(send_all(client, 500))
        await until(lambda: bool(served.protocols) and served.protocols[0].read_paused)
        [protocol] = served.protocols
        assert 32 <= protocol.queue.qsize() <= 32 + 16 * 1024 // 7
        gate.set()
        assert [await client.recv() for _ in range(500)] == [str(number) for number in range(500)]
        await sending
        assert not protocol.read_paused


async def test_a_client_that_reads_nothing_is_cut_off() -> None:
    ended = asyncio.Event()

    async def flood(socket: ClientSocket, state: AppState) -> None:
        try:
            while True:
                await socket.send("x" * 65_536)
        finally:
            ended.set()

    async with sockets(flood, limits={"write_timeout_s": 0.05}) as served, served.wire() as wire:
        await wire.send(handshake())
        await ended.wait()
        await until(lambda: not served.protocols)


async def test_pings_to_a_client_that_reads_nothing_pile_nothing_up() -> None:
    """Each would be answered, and the answers would wait for ever."""
    async with sockets(limits={"write_timeout_s": 60}) as served, served.wire() as wire:
        await wire.send(handshake())
        await wire.head()
        [protocol] = served.protocols
        protocol.pause_writing()
        await wire.send(frame(b"", first=0x89) * 10)
        await until(lambda: protocol.read_paused)
        protocol.resume_writing()
        assert await wire.reader.readexactly(20) == b"\x8a\x00" * 10
        assert not protocol.read_paused


async def test_a_connection_that_says_nothing_for_long_is_closed() -> None:
    async with sockets(idle_s=0.05) as served, connect(served.url) as client:
        assert await closing(client) == (1001, "The connection was idle")


async def test_the_answer_to_a_close_is_read_though_messages_are_not() -> None:
    work = Work()
    async with sockets(work, idle_s=0.2) as served, served.wire() as wire:
        await wire.send(handshake())
        await wire.head()
        [protocol] = served.protocols
        await wire.send(frame(b"x") * 100)
        await until(lambda: protocol.read_paused)
        assert await close_frame(wire) == 1001
        await work.unheard.wait()
        assert not protocol.read_paused
        await wire.send(frame((1001).to_bytes(2), first=0x88))
        assert await wire.at_end()


async def test_a_connection_that_talks_stays() -> None:
    async with sockets(idle_s=0.2) as served, connect(served.url) as client:
        [protocol] = served.protocols
        protocol._active_s += 3600
        protocol._look_idle()
        await client.send("here")
        assert await client.recv() == "here"


@dataclass
class Work:
    """A handler that works until it is told that the client has gone, and then sends all the same."""

    unheard: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, socket: ClientSocket, state: AppState) -> None:
        gone = asyncio.Event()
        socket.scope["coterie.client"].tell(gone.set)
        await gone.wait()
        try:
            await socket.send("x")
        except SocketClosed:
            self.unheard.set()


async def test_a_peer_that_answers_no_ping_is_gone() -> None:
    work = Work()
    async with sockets(work) as served, served.wire() as wire:
        await wire.send(handshake())
        await wire.head()
        [protocol] = served.protocols
        protocol.send_keepalive_ping()
        assert (await wire.reader.readexactly(6))[:2] == b"\x89\x04"
        protocol.keepalive_timeout()
        await work.unheard.wait()
        assert await close_frame(wire) == 1011


async def test_a_peer_whose_answers_are_not_read_is_not_gone() -> None:
    async with sockets() as served, connect(served.url) as client:
        [protocol] = served.protocols
        protocol.send_keepalive_ping()
        protocol.read_paused = True
        protocol.keepalive_timeout()
        protocol.send_keepalive_ping()
        assert protocol.ping_timer is not None
        protocol._steer_reading()
        await client.send("here")
        assert await client.recv() == "here"
