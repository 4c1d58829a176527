"""The server's process: listen, serve, stop gracefully.

A stop (SIGTERM, SIGINT) goes in this order: no new connection is accepted and new requests on old ones are refused;
running answers have ``server.shutdown_grace_s`` to finish; those that have not are ended with their terminal error;
then the engines end. A second signal cuts the waiting short. SIGHUP reads the configuration again
(:mod:`coterie.api.reload`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
import uvloop

from coterie.api.app import make_app
from coterie.api.protocol import bounded_protocol
from coterie.api.reload import LoadSettings, reload
from coterie.api.socket_protocol import bounded_socket
from coterie.api.state import AppState
from coterie.config import ServerSettings
from coterie.observe.lag import LagWatch
from coterie.turns.opening import opened_keeping

_log = logging.getLogger(__name__)

_KEEP_ALIVE_S = 75
_BACKLOG = 2048
_OPEN_FILES = 65_536

_PING_EVERY_S = 20
_PONG_WITHIN_S = 20
"""A peer of a WebSocket that answers no ping for so long is dead."""


class PortTakenError(Exception):
    """Somebody else listens on the address."""


def listen(settings: ServerSettings) -> socket.socket:
    """Bind the address. Raises :class:`PortTakenError`, or ``OSError`` for an address that this machine has not."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is named because event loops switch Nagle's delay off for sockets that say that they speak TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno in (48, 98):  # EADDRINUSE of macOS and of Linux
            raise PortTakenError(f"{settings.host}:{settings.port}") from None
        raise
    listener.setblocking(False)
    return listener


def run(
    state: AppState, listener: socket.socket, on_ready: Callable[[], None], load: LoadSettings | None = None
) -> None:
    """Serve on ``listener`` until a signal; ``on_ready`` is called when requests are answered.

    ``load`` gives the configuration anew, at SIGHUP.
    """
    _allow_files()
    uvloop.run(_serve(state, listener, on_ready, load))


def _allow_files() -> None:
    """As many open files as the system lets this process have: connections and journals need one each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(
    state: AppState, listener: socket.socket, on_ready: Callable[[], None], load: LoadSettings | None = None
) -> None:
    server = _Server(_config(state))
    stop = asyncio.Event()
    async with opened_keeping(state.settings) as state.kept:
        with _signals(stop), _reloading(state, load):
            await _serve_until(server, stop, state, listener, on_ready)


async def _serve_until(
    server: _Server, stop: asyncio.Event, state: AppState, listener: socket.socket, on_ready: Callable[[], None]
) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    starting = asyncio.create_task(state.router.start())
    lag = LagWatch(state.metrics.loop_lag.of())
    await _started(server, serving)
    _spare_the_collector()
    on_ready()
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    await _stop(state, server, stop)
    lag.stop()
    stopping.cancel()
    starting.cancel()
    await asyncio.gather(serving, starting, return_exceptions=True)
    await state.router.stop()


async def _stop(state: AppState, server: _Server, stop: asyncio.Event) -> None:
    _log.info("stopping: %d answers are running", len(state.active))
    stop.clear()
    for listener in server.servers:
        listener.close()
    draining = asyncio.create_task(state.active.drain(state.settings.server.shutdown_grace_s))
    again = asyncio.create_task(stop.wait())
    await asyncio.wait([draining, again], return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        draining.cancel()
        await state.active.drain(0)
    again.cancel()
    server.should_exit = True


async def _started(server: _Server, serving: asyncio.Task[None]) -> None:
    ready = asyncio.create_task(server.ready.wait())
    await asyncio.wait([serving, ready], return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if serving.done():
        serving.result()


def _spare_the_collector() -> None:
    """Look for cycles seldom, and never among what the program is made of.

    A request leaves next to none; looking for them took a fifth of the time of a small one.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _config(state: AppState) -> uvicorn.Config:
    return uvicorn.Config(
        make_app(state),
        http=bounded_protocol(state.settings.limits),
        ws=bounded_socket(state.settings.limits),
        ws_max_size=state.settings.limits.body_bytes,
        ws_ping_interval=_PING_EVERY_S,
        ws_ping_timeout=_PONG_WITHIN_S,
        ws_per_message_deflate=False,  # a few bytes could unpack to as many as there are
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )


class _Server(uvicorn.Server):
    """uvicorn's server without its own signal handling, and with an event for its start."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _reloading(state: AppState, load: LoadSettings | None) -> Iterator[None]:
    """Read the configuration again at SIGHUP, one time after the other."""
    if load is None:
        yield
        return
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    async def reload_when_asked() -> None:
        while await asked.wait():
            asked.clear()
            try:
                await reload(state, load)
            except Exception:  # noqa: BLE001 - nobody waits for a signal's outcome, and the next one must find this alive
                _log.exception("the configuration was not read again")

    loop.add_signal_handler(signal.SIGHUP, asked.set)
    reloading = asyncio.create_task(reload_when_asked())
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        reloading.cancel()


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
