"""An OpenAI-compatible upstream that misbehaves on demand, to test what stands in front of it.

Which fault a request gets is the name of its model: see :mod:`coterie.testbed.faults`. In a test::

    async with FaultyUpstream() as upstream:                # on the running event loop
        ...                                                 # ask upstream.base_url for the model "cut@40"
        entry, = await upstream.saw(lambda entry: entry.ended == "fault")

or, where there is no event loop, ``with FaultyUpstream() as upstream:``, which serves in a thread, and ``wait_for``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, TextIO

from coterie.testbed.connection import Connection
from coterie.testbed.log import Entry, RequestLog
from coterie.testbed.site import Settings, Site
from coterie.testbed.ticker import Ticker

_BACKLOG: Final = 2048
DEFAULT_TIMEOUT_S: Final = 30.0
"""How long a test waits for what it wants to see."""


class FaultyUpstream:
    """See the module. Binds its port when it is made; raises ``OSError`` where that is not to be had."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        models: Mapping[str, str] | None = None,
        tokens: int = 0,
        rate: float = 0,
        seed: int = 0,
        marker: str = "",
        api_key: str = "",
        log_file: Path | None = None,
    ) -> None:
        """``port`` 0 takes a free one; :class:`~coterie.testbed.site.Settings` says the rest.

        ``log_file`` gets each entry of the log as a line of JSON, after what it holds.
        """
        self._file: TextIO | None = log_file.open("a", encoding="utf-8") if log_file is not None else None
        self._log = RequestLog(self._file)
        self.settings = Settings(dict(models or {}), tokens, rate, seed, marker, api_key)
        """May be changed while the upstream runs."""
        self._site = Site(self.settings, self._log)
        self._connections: set[Connection] = set()
        self._ticker: Ticker | None = None
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        try:
            self._listener = _listen(host, port)
        except OSError:
            self._close_file()
            raise
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What an SDK takes."""
        return f"{self.url}/v1"

    @property
    def log(self) -> list[Entry]:
        """What was seen, oldest first."""
        return self._log.entries

    @property
    def models(self) -> list[str]:
        """The names that are listed; there are as many more as a fault's number and options allow."""
        return self._site.models()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def forget(self) -> None:
        """Clear the log, and count anew for each name. Only from the thread that serves, or where nothing comes."""
        self._site.forget()

    async def saw(
        self, holds: Callable[[Entry], bool], *, count: int = 1, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[Entry]:
        """Wait until ``holds`` for ``count`` entries of the log, and return all of them.

        It is looked at when a request comes, after each write of an answer and at its end. Raises ``TimeoutError``.
        """
        if self._thread is None:
            async with asyncio.timeout(timeout_s):
                return await self._log.saw(holds, count)
        assert self._loop is not None
        waiting = asyncio.run_coroutine_threadsafe(self._log.saw(holds, count), self._loop)
        async with asyncio.timeout(timeout_s):
            return await asyncio.wrap_future(waiting)

    def wait_for(
        self, holds: Callable[[Entry], bool], *, count: int = 1, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[Entry]:
        """:meth:`saw` where there is no event loop: the upstream must serve in its thread."""
        assert self._loop is not None
        waiting = asyncio.run_coroutine_threadsafe(self._log.saw(holds, count), self._loop)
        try:
            return waiting.result(timeout_s)
        finally:
            waiting.cancel()

    async def start(self) -> None:
        """Serve on the running event loop."""
        loop = asyncio.get_running_loop()
        ticker = self._ticker = Ticker(loop)
        self._server = await loop.create_server(
            lambda: Connection(self._site, ticker, self._connections), sock=self._listener, backlog=_BACKLOG
        )

    async def stop(self) -> None:
        """Drop every connection and free the port."""
        if self._server is not None:
            self._server.close()
        gone = [connection.gone for connection in self._connections]
        for connection in list(self._connections):
            connection.abort()
        await asyncio.gather(*gone)
        if self._ticker is not None:
            self._ticker.stop()
        self._listener.close()
        self._close_file()

    async def __aenter__(self) -> FaultyUpstream:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> FaultyUpstream:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-upstream")
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.start(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._thread is not None
        asyncio.run_coroutine_threadsafe(self.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _close_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because event loops switch Nagle's delay off for sockets that say that they speak TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
