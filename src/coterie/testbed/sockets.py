"""What the tools need of sockets: a reset on purpose, and whether a host is this machine."""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import socket
import struct
import sys
import termios
from typing import Final

_NO_LINGER: Final = struct.pack("ii", 1, 0)
_PATIENCE_S: Final = 5.0
_PERIOD_S: Final = 0.001


def is_this_machine(host: str) -> bool:
    """Whether ``host`` is a loopback address or the name ``localhost``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def reset_when_sent(transport: asyncio.Transport) -> None:
    """Reset the connection (RST) when what was written has reached the other side, or after a while.

    A reset throws away what is still under way, so without the wait it would be chance what the other side reads.
    """
    deadline_s = asyncio.get_running_loop().time() + _PATIENCE_S
    while _unsent_bytes(transport) and asyncio.get_running_loop().time() < deadline_s:  # noqa: ASYNC110 - no event
        await asyncio.sleep(_PERIOD_S)
    reset(transport)


def reset(transport: asyncio.Transport) -> None:
    """Reset the connection at once."""
    peer = transport.get_extra_info("socket")
    if peer is not None and not transport.is_closing():
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


def _unsent_bytes(transport: asyncio.Transport) -> int:
    if transport.is_closing():
        return 0
    held = transport.get_write_buffer_size()
    peer = transport.get_extra_info("socket")
    if held or peer is None or sys.platform != "linux":
        return held
    try:
        return int.from_bytes(fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0
