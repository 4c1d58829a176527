"""A WebSocket of the application, without a network."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.types import Message
from tests.support.responding import App

CREATE = {"type": "response.create", "model": "m", "input": "Hi"}

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})


class Line:
    """What the protocol tells of the client."""

    def __init__(self) -> None:
        self._told: Callable[[], None] | None = None

    def tell(self, told: Callable[[], None] | None) -> None:
        self._told = told

    def write(self, event: bytes) -> bool:
        return False

    def leave(self) -> None:
        """The client goes."""
        if self._told is not None:
            self._told()


class Talk:
    """One socket."""

    def __init__(self, app: App, **headers: str) -> None:
        self.line = Line()
        self.sent: list[Message] = []
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._inbox.put_nowait({"type": "websocket.connect"})
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        scope = {
            "type": "websocket", "path": "/v1/responses", "raw_path": b"/v1/responses", "query_string": b"",
            "root_path": "", "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "scheme": "ws", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "coterie.client": self.line,
        }  # fmt: skip
        self._app, self._scope = app.app, scope
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self._app(self._scope, self._inbox.get, self._send)

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "websocket.send":
            self._outbox.put_nowait(message)

    def say(self, **fields: Any) -> None:
        """Send a request for a response; ``fields`` change it."""
        self.say_text(json.dumps({name: value for name, value in {**CREATE, **fields}.items() if value is not ...}))

    def say_text(self, text: str) -> None:
        """Send a message."""
        self._inbox.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        """The client goes."""
        self.line.leave()
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": 1005})

    async def hear(self) -> dict[str, Any]:
        """The next message."""
        said: dict[str, Any] = json.loads((await self._outbox.get())["text"])
        return said

    async def hear_turn(self) -> list[dict[str, Any]]:
        """The messages of a turn, whose numbers have no gap."""
        said = [await self.hear()]
        while said[-1]["type"] not in _ENDS:
            said.append(await self.hear())
        assert said[-1]["type"] == "error" or [one["sequence_number"] for one in said] == list(range(len(said)))
        return said

    async def ask(self, **fields: Any) -> dict[str, Any]:
        """The response of a turn."""
        self.say(**fields)
        last = (await self.hear_turn())[-1]
        assert last["type"] != "error", last
        response: dict[str, Any] = last["response"]
        return response

    async def refused(self, **fields: Any) -> dict[str, Any]:
        """The one message of a turn that failed before it said anything."""
        self.say(**fields)
        (said,) = await self.hear_turn()
        return said

    @property
    def unheard(self) -> int:
        """Messages that were not looked at."""
        return self._outbox.qsize()

    @property
    def closed(self) -> tuple[int, str] | None:
        """The code and the reason of the close."""
        closes = [message for message in self.sent if message["type"] == "websocket.close"]
        return (closes[0]["code"], closes[0]["reason"]) if closes else None


@contextlib.asynccontextmanager
async def talking(app: App, **headers: str) -> AsyncIterator[Talk]:
    """A socket, which the client closes in the end."""
    talk = Talk(app, **headers)
    try:
        yield talk
    finally:
        talk.leave()
        await talk.task
