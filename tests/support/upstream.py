"""Clients of the upstream that misbehaves, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from tests.support.web import Wire

from coterie.testbed.log import Entry
from coterie.testbed.upstream import FaultyUpstream

CHAT = "/v1/chat/completions"


def chat(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}


def has_ended(entry: Entry) -> bool:
    return entry.ended is not None


@contextlib.asynccontextmanager
async def connected(upstream: FaultyUpstream) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def exchange(upstream: FaultyUpstream, request: bytes) -> tuple[bytes, bool]:
    """All that is answered until the connection ends, and whether it was reset."""
    received = b""
    with socket.create_connection(("127.0.0.1", upstream.port), timeout=30) as client:
        client.sendall(request)
        try:
            while data := client.recv(65536):
                received += data
        except ConnectionResetError:
            return received, True
    return received, False
