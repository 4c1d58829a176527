"""Connecting: every way in which it fails, on sockets of this machine, and that no socket is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.raw_server import Peer, client_context, raw_server
from tests.support.waiting import until

from coterie.wire import dial as dial_module
from coterie.wire.dial import Address, dial, first_connected
from coterie.wire.http1 import Connection, Exchange, ExchangeError, TransportKind
from coterie.wire.origin import Origin

REQUEST = b"GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


async def answer(peer: Peer) -> None:
    await peer.answer(ANSWER)
    await peer.closed()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port at which nobody answers: its listener takes no more connections."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(8):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        yield port


@pytest.fixture
def refusing() -> int:
    """A port at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def open_sockets() -> int:
    found = [one for one in gc.get_objects() if isinstance(one, socket.socket)]
    return sum(1 for one in found if one.fileno() != -1)


async def failure(origin: Origin, limit_s: float = 30, *, tls: bool = False) -> TransportKind:
    before = open_sockets()
    with pytest.raises(ExchangeError) as raised:
        await dial(origin, Connection(Exchange(REQUEST)), client_context() if tls else None, limit_s)
    await until(lambda: open_sockets() <= before)
    return raised.value.kind


def names(monkeypatch: pytest.MonkeyPatch, *addresses: Address | Exception) -> None:
    """Every name has these ``addresses``."""

    def look_up(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        if isinstance(addresses[0], Exception):
            raise addresses[0]
        return [(family, socket.SOCK_STREAM, 6, "", where) for family, where in addresses]  # type: ignore[misc]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


async def test_nobody_listens(refusing: int) -> None:
    assert await failure(Origin("127.0.0.1", refusing, tls=False)) == "refused"


async def test_nobody_answers(silent: int) -> None:
    assert await failure(Origin("127.0.0.1", silent, tls=False), 0.05) == "connect_timeout"


async def test_nobody_shakes_hands() -> None:
    async with raw_server(Peer.closed) as server:
        assert await failure(Origin("127.0.0.1", server.origin.port, tls=True), 0.05, tls=True) == "connect_timeout"
        await until(lambda: server.open == 0)


async def test_no_tls_there() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw_server(script) as server:
        assert await failure(Origin("127.0.0.1", server.origin.port, tls=True), tls=True) == "tls"


async def test_a_peer_that_leaves_in_the_handshake() -> None:
    async def script(_: Peer) -> None:
        pass

    async with raw_server(script) as server:
        assert await failure(Origin("127.0.0.1", server.origin.port, tls=True), tls=True) == "tls"


@pytest.mark.parametrize("name", ["localhost", "other.example"])
async def test_a_certificate_is_for_a_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(answer, tls=True) as server:
        port = server.origin.port
        names(monkeypatch, (socket.AF_INET, ("127.0.0.1", port)))
        if name == "localhost":
            exchange = Exchange(REQUEST)
            await dial(Origin(name, port, tls=True), Connection(exchange), client_context(), 30)
            assert await exchange.read(5) == b"hello"
        else:
            assert await failure(Origin(name, port, tls=True), tls=True) == "tls"


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "unknown"), UnicodeError("label too long")])
async def test_no_address(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, error)
    assert await failure(Origin("nowhere.example", 80, tls=False)) == "dns"


async def test_addresses_are_tried_in_turn_with_the_families_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    names(monkeypatch, (six, 1), (six, 2), (six, 3), (four, 4))
    assert await dial_module._addresses("h.example", 80) == [(six, 1), (four, 4), (six, 2), (six, 3)]


async def test_the_next_address_is_tried_where_one_refuses(refusing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(answer) as server:
        names(
            monkeypatch,
            (socket.AF_INET, ("127.0.0.1", refusing)),
            (socket.AF_INET, ("127.0.0.1", server.origin.port)),
        )
        exchange = Exchange(REQUEST)
        await dial(Origin("h.example", 1, tls=False), Connection(exchange), None, 30)
        assert await exchange.read(5) == b"hello"


async def test_the_next_address_is_tried_where_one_is_silent(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_module, "NEXT_ADDRESS_S", 0.01)
    async with raw_server(answer) as server:
        before = open_sockets()
        sock = await first_connected([(socket.AF_INET, ("127.0.0.1", port)) for port in (silent, server.origin.port)])
        assert sock.getpeername()[1] == server.origin.port
        sock.close()
        await until(lambda: open_sockets() <= before)


async def test_no_address_answers(refusing: int, silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_module, "NEXT_ADDRESS_S", 0.01)
    names(monkeypatch, *((socket.AF_INET, ("127.0.0.1", refusing)),) * 3)
    assert await failure(Origin("h.example", 1, tls=False)) == "refused"
    names(monkeypatch, *((socket.AF_INET, ("127.0.0.1", silent)),) * 3)
    assert await failure(Origin("h.example", 1, tls=False), 0.1) == "connect_timeout"


async def test_attempts_that_are_cancelled_leave_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(Peer.closed) as server:
        where = (socket.AF_INET, ("127.0.0.1", server.origin.port))
        monkeypatch.setattr(dial_module, "NEXT_ADDRESS_S", 0)
        before = open_sockets()
        for steps in range(12):
            racing = asyncio.ensure_future(first_connected([where] * 3))
            for _ in range(steps):
                await asyncio.sleep(0)
            if not racing.cancel():
                racing.result().close()
            await asyncio.wait([racing])
        await until(lambda: server.open == 0 and open_sockets() <= before)


async def test_options_of_a_connection() -> None:
    async with raw_server(answer) as server:
        exchange = Exchange(REQUEST)
        await dial(server.origin, Connection(exchange), None, 30)
        assert exchange._transport is not None
        sock = exchange._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, value in {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}.items():
            if hasattr(socket, name):
                assert sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value
        exchange.close()


async def test_a_unix_socket() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(Peer(1, reader, writer))
        writer.close()
        await writer.wait_closed()
        ended.set()

    with tempfile.TemporaryDirectory(prefix="dial-") as folder:
        path = str(Path(folder) / "s")
        origin = Origin("localhost", 80, tls=False, unix_path=path)
        assert await failure(origin) == "refused"
        async with await asyncio.start_unix_server(serve, path):
            exchange = Exchange(REQUEST)
            await dial(origin, Connection(exchange), None, 30)
            assert await exchange.read(5) == b"hello"
            await ended.wait()
