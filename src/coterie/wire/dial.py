"""Making a connection: from a name to a socket that the peer has accepted.

What it promises:

* The time limit is for all of it: looking up the name, the TCP and the TLS handshake.
* Of several addresses the next is tried when one has failed, or has not answered within :data:`NEXT_ADDRESS_S`
  (RFC 8305, "Happy Eyeballs"); the first that answers is taken.
* Whatever goes wrong is an :class:`~coterie.wire.http1.ExchangeError` whose kind says what, and no socket is left: also
  not when the caller is cancelled.
* Small writes are sent at once. A peer that has vanished is noticed after about :data:`VANISHED_S`, not after hours.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any, Final

from coterie.wire.http1 import Connection, ExchangeError, TransportKind
from coterie.wire.origin import Origin

NEXT_ADDRESS_S: Final = 0.25
"""Seconds until the next address is tried beside one that is silent."""

VANISHED_S: Final = 30
"""Seconds of silence after which a peer that does not answer probes is taken for gone."""

_SOCKET_OPTIONS: Final = (
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", VANISHED_S // 2),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", VANISHED_S // 6),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
)
"""Not every platform has all of them."""

Address = tuple[socket.AddressFamily, Any]
"""A family and what its sockets connect to."""


async def dial(origin: Origin, connection: Connection, tls: ssl.SSLContext | None, limit_s: float) -> None:
    """Connect ``connection`` within ``limit_s`` seconds. Raises :class:`ExchangeError`; it is dropped then."""
    try:
        async with asyncio.timeout(limit_s):
            if origin.unix_path is not None:
                await _dial_unix(origin.unix_path, connection)
            else:
                await _dial_tcp(origin, connection, tls, limit_s)
    except TimeoutError:
        connection.drop()
        raise ExchangeError("no connection in time", "connect_timeout") from None
    except BaseException:
        connection.drop()
        raise


async def _dial_unix(path: str, connection: Connection) -> None:
    try:
        await asyncio.get_running_loop().create_unix_connection(lambda: connection, path)
    except OSError as error:
        raise _failed("cannot connect", error, "refused") from error


async def _dial_tcp(origin: Origin, connection: Connection, tls: ssl.SSLContext | None, limit_s: float) -> None:
    sock = await first_connected(await _addresses(origin.host, origin.port))
    # From here on the socket is the transport's.
    loop = asyncio.get_running_loop()
    if tls is None:
        await loop.create_connection(lambda: connection, sock=sock)
        return
    try:
        await loop.create_connection(
            lambda: connection,
            sock=sock,
            ssl=tls,
            server_hostname=origin.host,
            ssl_handshake_timeout=limit_s + 1.0,  # never the first to fire
        )
    except OSError as error:
        raise _failed("no TLS", error, "tls") from error


async def _addresses(host: str, port: int) -> Sequence[Address]:
    """The addresses of ``host`` in the order to try them: the system's, but with the families in turn."""
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [(socket.AF_INET if literal.version == 4 else socket.AF_INET6, (host, port))]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise _failed("no address", error, "dns") from error
    families = dict.fromkeys(family for family, *_ in found)
    queues = [[(family, address) for family, _, _, _, address in found if family is wanted] for wanted in families]
    return [entry for entry in chain.from_iterable(zip_longest(*queues)) if entry is not None]


async def first_connected(addresses: Sequence[Address]) -> socket.socket:
    """A socket connected to the first of ``addresses`` that accepts. Raises :class:`ExchangeError`."""
    try:
        if len(addresses) == 1:
            return await _connected(addresses[0])
        return await _race(addresses)
    except TimeoutError:
        raise
    except OSError as error:
        raise _failed("cannot connect", error, "refused") from error


async def _race(addresses: Sequence[Address]) -> socket.socket:
    waiting = list(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    failure = OSError("no address")
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(_connected(waiting.pop(0))))
            limit_s = NEXT_ADDRESS_S if waiting else None
            done, _ = await asyncio.wait(running, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                running.remove(task)
                error = task.exception()
                if error is None:
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                failure = error
        raise failure
    finally:
        _abandon(running)


def _abandon(tasks: set[asyncio.Task[socket.socket]]) -> None:
    """End attempts that nobody waits for; each closes its socket when it is cancelled."""
    for task in tasks:
        if not task.cancel() and not task.cancelled() and task.exception() is None:
            task.result().close()


async def _connected(address: Address) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        for level, name, value in _SOCKET_OPTIONS:
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(level, option, value)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


def _failed(what: str, error: Exception, kind: TransportKind) -> ExchangeError:
    reason = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or type(error).__name__
    return ExchangeError(f"{what}: {reason}", kind)
