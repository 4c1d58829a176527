"""A reset comes after what was written, and is one."""

from __future__ import annotations

import asyncio

import pytest

from coterie.testbed.sockets import is_this_machine, reset_when_sent


class Reader(asyncio.Protocol):
    def __init__(self) -> None:
        self.size = 0
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.size += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
async def test_what_was_written_comes_before_the_reset(size: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(size))
        await reset_when_sent(writer.transport)  # type: ignore[arg-type]

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        _, client = await asyncio.get_running_loop().create_connection(Reader, *address)
        assert isinstance(await client.ended, ConnectionResetError)
    assert client.size == size


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("0.0.0.0", False),
        ("10.0.0.1", False), ("example.com", False), ("127.0.0.1.example.com", False), ("", False),
    ],
)  # fmt: skip
def test_this_machine(host: str, expected: bool) -> None:
    assert is_this_machine(host) is expected
