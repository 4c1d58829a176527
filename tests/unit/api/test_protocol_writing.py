"""A client that does not read its answer does not hold a slot for ever."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any

import uvicorn

from coterie.api.app import make_app, make_state
from coterie.api.protocol import bounded_protocol
from coterie.config import Settings
from coterie.providers.base import ModelCard, Offer
from coterie.wire.lingua import Chunks, Embedded, Embedding, Generation


class Endless:
    """Generates as fast as it is let, until it is closed."""

    name = "endless"
    unread = False

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def offer(self, model: str) -> Offer | None:
        return Offer()

    def models(self) -> list[ModelCard]:
        return [ModelCard("m", 1, "test")]

    async def generate(self, generation: Generation) -> Chunks:
        try:
            while True:
                yield {"choices": [{"index": 0, "delta": {"content": "x" * 65_536}, "finish_reason": None}]}
        finally:
            self.closed.set()

    async def embed(self, embedding: Embedding) -> Embedded:
        raise AssertionError("not asked for")

    def status(self) -> list[dict[str, Any]]:
        return []

    def ready(self) -> bool:
        return True

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


async def test_a_client_that_reads_nothing_is_cut_off_and_its_generation_closed() -> None:
    provider = Endless()
    settings = Settings.model_validate({"limits": {"write_timeout_s": 0.05}})
    state = make_state(settings, [provider])
    config = uvicorn.Config(make_app(state), http=bounded_protocol(settings.limits), ws="none", lifespan="off")
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        await server.startup([listener])
        reader, writer = await asyncio.open_connection(*listener.getsockname(), limit=1024)
        body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]})
        head = ("POST /v1/chat/completions HTTP/1.1", "host: x", "content-type: application/json")
        writer.write("\r\n".join((*head, f"content-length: {len(body)}", "", body)).encode())
        await reader.readline()

        await asyncio.wait_for(provider.closed.wait(), 30)

        assert len(state.active) == 0
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        await server.shutdown()
