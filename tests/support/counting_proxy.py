"""A reverse proxy that passes bytes on and counts the requests in them: what a client really sent.

It can spoil what passes (``rewrite``), for faults that a correct client cannot be made to commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType

import httptools

_READ_BYTES = 256 * 1024

Rewrite = Callable[[bytes], bytes]


class _Counter:
    """Reads the client's side of one connection, as far as it is HTTP."""

    def __init__(self, requests: list[str]) -> None:
        self._requests = requests
        self._parser = httptools.HttpRequestParser(self)
        self._broken = False

    def feed(self, data: bytes) -> None:
        if not self._broken:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError:
                self._broken = True

    def on_url(self, url: bytes) -> None:
        self._requests.append(f"{self._parser.get_method().decode()} {url.decode('latin-1')}")


class CountingProxy:
    """Listens on a free port while used as a context manager, in a thread of its own."""

    def __init__(self, port: int, rewrite: Rewrite | None = None) -> None:
        self.requests: list[str] = []
        """Method and path of each request, in order."""
        self.url = ""
        self._port = port
        self._rewrite = rewrite
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def base_url(self) -> str:
        """What an SDK takes."""
        return f"{self.url}/v1"

    def __enter__(self) -> CountingProxy:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(asyncio.CancelledError):
            try:
                server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                writer.transport.abort()
                return
            self._writers.append(server_writer)
            await self._relay(reader, writer, server_reader, server_writer)

    async def _relay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        """Pass on both ways until one side closes, and tell the other."""
        ways = [
            asyncio.create_task(self._pass_on(reader, server_writer, _Counter(self.requests), self._rewrite)),
            asyncio.create_task(self._pass_on(server_reader, writer, None, None)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            writer.close()
            server_writer.close()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        counter: _Counter | None,
        rewrite: Rewrite | None,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                if counter is not None:
                    counter.feed(data)
                writer.write(data if rewrite is None else rewrite(data))
                await writer.drain()
