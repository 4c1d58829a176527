"""A server on 127.0.0.1 whose every byte is scripted: the other side of an HTTP client's tests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from coterie.wire.origin import Origin

AUTHORITY = Path(__file__).with_name("tls") / "authority.pem"
"""The authority that signed the server's certificate, which is for ``localhost`` and ``127.0.0.1``."""

_CERTIFICATE = Path(__file__).with_name("tls") / "server.pem"


class Peer:
    """One accepted connection, the ``number``-th (from 1)."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self._reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """The next request, whole. Raises ``EOFError`` where the client has left instead."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head + await self._reader.readexactly(size)

    async def say(self, *pieces: bytes) -> None:
        """Send ``pieces``, each in its own packet as far as that can be had."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            for _ in range(3):
                await asyncio.sleep(0)

    async def answer(self, *pieces: bytes) -> bytes:
        """Await a request, then send ``pieces``. Returns the request."""
        request = await self.request()
        await self.say(*pieces)
        return request

    async def closed(self) -> None:
        """Wait until the client has closed; what it sends until then is dropped."""
        while await self._reader.read(65536):
            pass

    def reset(self) -> None:
        """Close with a reset."""
        sock = self.writer.get_extra_info("socket")
        if sock is not None:  # else the client has closed
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]
"""What the server does with a connection; it is closed when the script returns."""


class RawServer:
    """What a test sees of the server."""

    def __init__(self, port: int, *, tls: bool) -> None:
        self.origin = Origin("127.0.0.1", port, tls)
        self.accepted = 0
        self.open = 0
        self.failures: list[BaseException] = []


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_CERTIFICATE)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=AUTHORITY)
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextlib.asynccontextmanager
async def raw_server(script: Script, *, tls: bool = False) -> AsyncIterator[RawServer]:
    """A server that runs ``script`` for each connection; all have ended afterwards, and none may have failed.

    A client that leaves in the middle of the script is no failure.
    """
    running: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(peer: Peer) -> None:
        try:
            await script(peer)
        except (EOFError, ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the test fails with it
            seen.failures.append(error)
        finally:
            seen.open -= 1
            peer.writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.accepted += 1
        seen.open += 1
        running[asyncio.create_task(serve(Peer(seen.accepted, reader, writer)))] = writer

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=server_context() if tls else None)
    seen = RawServer(server.sockets[0].getsockname()[1], tls=tls)
    try:
        yield seen
    finally:
        server.close()
        for _ in range(20):  # what was accepted is served
            await asyncio.sleep(0)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for writer in running.values():
            writer.transport.abort()
        await asyncio.sleep(0)
    assert not seen.failures, seen.failures
