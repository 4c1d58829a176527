"""Listening, serving and stopping."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from tests.support.provider import ScriptedProvider, delta, finish, usage
from tests.support.waiting import until
from tests.support.web import STREAM, Wire, get, post, serving, settings

from coterie.api.app import make_state
from coterie.api.server import PortTakenError, _serve, listen, run
from coterie.api.state import AppState
from coterie.config import ServerSettings
from coterie.dialects.chat_validator import judge

CHAT_PATH = "/v1/chat/completions"


def test_a_port_that_is_taken() -> None:
    with contextlib.closing(listen(ServerSettings(port=0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"^127\.0\.0\.1:{port}$"):
            listen(ServerSettings(port=port))


def test_an_address_of_another_machine() -> None:
    with pytest.raises(OSError, match="assign requested address"):
        listen(ServerSettings(host="192.0.2.1", port=0))


def test_an_address_of_the_newer_kind() -> None:
    with contextlib.closing(listen(ServerSettings(host="::1", port=0))) as listener:
        assert listener.getsockname()[0] == "::1"


async def test_small_writes_are_sent_at_once() -> None:
    async with serving(ScriptedProvider()) as served, served.connect() as wire:
        await wire.ask(get("/health"))
        [protocol] = served.protocols
        connection = protocol.transport.get_extra_info("socket")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@dataclass
class Running:
    """A server that obeys signals."""

    state: AppState
    port: int
    task: asyncio.Task[None]

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Wire]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def draining(self) -> None:
        await until(lambda: self.state.active.draining)


@contextlib.asynccontextmanager
async def running(provider: ScriptedProvider, grace_s: float = 60) -> AsyncIterator[Running]:
    config = settings(server={"shutdown_grace_s": grace_s})
    state = make_state(config, [provider])
    listener = listen(config.server)
    port = listener.getsockname()[1]
    ready = asyncio.Event()
    task = asyncio.create_task(_serve(state, listener, ready.set))
    await ready.wait()
    try:
        yield Running(state, port, task)
    finally:
        if not task.done():
            signal.raise_signal(signal.SIGTERM)
        await task


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_server_and_its_providers(number: signal.Signals) -> None:
    provider = ScriptedProvider()
    async with running(provider) as server:
        async with server.connect() as wire:
            assert judge((await wire.ask(post(CHAT_PATH, STREAM))).body) == []
        signal.raise_signal(number)
        await server.task
    assert provider.calls == ["start", "stop"]


async def test_running_answers_finish() -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider((delta("a"), gate, finish(), usage()))
    async with running(provider) as server, server.connect() as wire, server.connect() as kept:
        await wire.send(post(CHAT_PATH, STREAM))
        await wire.head()
        assert (await kept.ask(get("/health"))).status == 200
        signal.raise_signal(signal.SIGTERM)
        await server.draining()
        with pytest.raises(ConnectionRefusedError):
            async with server.connect():
                pass
        assert (await kept.ask(post(CHAT_PATH, STREAM))).error["code"] == "server_shutting_down"
        gate.set()
        body = b"".join([part async for part in wire.parts()])
        await server.task
    assert judge(body) == []
    assert b'"error"' not in body


async def test_answers_that_take_too_long_are_ended() -> None:
    provider = ScriptedProvider((delta("a"), asyncio.Event()))
    async with running(provider, grace_s=0) as server, server.connect() as wire:
        await wire.send(post(CHAT_PATH, STREAM))
        await wire.head()
        signal.raise_signal(signal.SIGTERM)
        body = b"".join([part async for part in wire.parts()])
        await server.task
    assert judge(body) == []
    assert b"server_shutting_down" in body


async def test_a_second_signal_cuts_the_waiting_short() -> None:
    provider = ScriptedProvider((delta("a"), asyncio.Event()))
    async with running(provider, grace_s=3600) as server, server.connect() as wire:
        await wire.send(post(CHAT_PATH, STREAM))
        await wire.head()
        signal.raise_signal(signal.SIGTERM)
        await server.draining()
        signal.raise_signal(signal.SIGTERM)
        body = b"".join([part async for part in wire.parts()])
        await server.task
    assert b"server_shutting_down" in body
    assert body.endswith(b"data: [DONE]\n\n")


async def test_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with running(ScriptedProvider()):
        pass
    assert signal.getsignal(signal.SIGTERM) == before


def test_it_runs_to_its_end() -> None:
    listener = listen(ServerSettings(port=0))
    port = listener.getsockname()[1]
    seen: list[int] = []

    def visit() -> None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/health")
            seen.append(connection.getresponse().status)
            connection.close()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    visitor = threading.Thread(target=visit)
    provider = ScriptedProvider()
    run(make_state(settings(), [provider]), listener, visitor.start)
    visitor.join()
    assert seen == [200]
    assert provider.calls == ["start", "stop"]
