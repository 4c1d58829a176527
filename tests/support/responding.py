"""The Responses API without a socket: its application with a real database, and ways to hold storage up or break it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from starlette.types import Scope
from tests.support.web import JSON, Answer, AsgiCall, AsgiClient, settings

from coterie.api.app import make_app, make_state
from coterie.api.state import AppState
from coterie.dialects.chat import DialectLimits
from coterie.dialects.responses import ParsedResponse, parse_response
from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.providers.base import Provider
from coterie.storage.journal import JournalFile
from coterie.turns.keeping import Keeping
from coterie.turns.live import replay
from coterie.turns.opening import opened_keeping
from coterie.turns.turn import Plan

ASK: Mapping[str, Any] = {"model": "m", "input": "Hi"}
STREAM: Mapping[str, Any] = {**ASK, "stream": True}
BACKGROUND: Mapping[str, Any] = {**ASK, "background": True}

PATH = "/v1/responses"


# Turns


def parsed(**fields: Any) -> ParsedResponse:
    """A request, read."""
    return parse_response({**ASK, **fields}, DialectLimits(messages=1000, choices=4))


def plan(*, told: bool = True, owner: str = "", **fields: Any) -> Plan:
    """What a turn is to do."""
    return Plan(owner, "req_1", parsed(**fields), told)


# What was said


def read(stream: bytes) -> list[dict[str, Any]]:
    """What the events of a whole stream say; their numbers have no gap."""
    *events, done = [frame + b"\n\n" for frame in stream.split(b"\n\n")[:-1]]
    assert done == DONE
    said = [orjson.loads(event.partition(b"\ndata: ")[2]) for event in events]
    assert [one["sequence_number"] for one in said] == list(range(len(said)))
    return said


def last(stream: bytes) -> dict[str, Any]:
    """The response of the terminal event, which is the last of a whole stream."""
    response: dict[str, Any] = read(stream)[-1]["response"]
    return response


def text_of(response: Mapping[str, Any]) -> str:
    """All text of a response."""
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in messages for part in item["content"])


# The application


class Call(AsgiCall):
    """A call whose path may have a query."""

    @property
    def scope(self) -> Scope:
        path, _, query = self.path.partition("?")
        return {**super().scope, "path": path, "raw_path": path.encode(), "query_string": query.encode()}

    @property
    def body_so_far(self) -> bytes:
        """What was sent of the body."""
        return b"".join(message["body"] for message in self.sent[1:])


class App(AsgiClient):
    """An application, its state and what it keeps."""

    def __init__(self, state: AppState, keeping: Keeping, folder: Path) -> None:
        super().__init__(make_app(state))
        self.state = state
        self.keeping = keeping
        self.folder = folder

    def call(self, path: str, body: Any = None, method: str = "", **headers: str) -> Call:
        """Begin a call; without a body it is a ``GET``."""
        data = b"" if body is None else json.dumps(body).encode()
        return Call(self.app, method or ("GET" if body is None else "POST"), path, data, {**JSON, **headers})

    async def answered(self, path: str, body: Any = None, method: str = "", **headers: str) -> Answer:
        """A whole call."""
        call = self.call(path, body, method, **headers)
        await call.task
        return call.answer

    async def created(self, **fields: Any) -> dict[str, Any]:
        """A response, which succeeds."""
        answer = await self.answered(PATH, {**ASK, **fields})
        assert answer.status == 200, answer.body
        response: dict[str, Any] = answer.json
        return response

    async def conversation(self, **fields: Any) -> str:
        """A new conversation."""
        answer = await self.answered("/v1/conversations", fields)
        assert answer.status == 200, answer.body
        name: str = answer.json["id"]
        return name

    async def items(self, conversation_id: str) -> list[str]:
        """The texts of a conversation's items."""
        items = await self.keeping.conversations.history("", conversation_id, 1000)
        return [item["content"][0]["text"] for item in items]

    async def is_free(self, conversation_id: str) -> bool:
        """Whether nobody has locked a conversation."""
        return (await self.keeping.conversations.get("", conversation_id)).locked_by is None

    async def stored(self, count: int | None = None) -> list[Any]:
        """All that is stored of responses."""
        rows = await self.keeping.responses._db.fetch("SELECT id, status, response, events FROM responses")
        assert count is None or len(rows) == count
        return list(rows)

    async def row(self, response_id: str) -> Any:
        """A stored response."""
        row = await self.keeping.responses.get("", response_id)
        assert row is not None
        return row

    def journals(self) -> list[Path]:
        """Journals of responses that run."""
        return list((self.folder / "responses").iterdir())


@contextlib.asynccontextmanager
async def responding(provider: Provider, folder: Path, **tables: Any) -> AsyncIterator[App]:
    """An application with ``provider`` and its storage in ``folder``."""
    config = settings(state_dir=folder, **tables)
    async with opened_keeping(config) as keeping:
        state = make_state(config, [provider])
        state.kept = keeping
        yield App(state, keeping, folder)
        await state.active.drain(0)


async def said_by(app: App, response_id: str, after: int = -1) -> bytes:
    """The stored events of a response."""
    return b"".join(replay((await app.row(response_id)).events, after))


# Storage that waits or fails

FAILURE = ApiError("storage_failed", detail="the disk is gone")


class Gate:
    """Holds a method up: ``reached`` is set when it is called, and it goes on when ``opened`` is."""

    def __init__(self, holder: Any, name: str, *, done_first: bool = False) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self._method: Callable[..., Awaitable[Any]] = getattr(holder, name)
        self._done_first = done_first
        self._holder, self._name = holder, name
        setattr(holder, name, self._call)

    def remove(self) -> None:
        """Hold it up no longer."""
        setattr(self._holder, self._name, self._method)

    async def _call(self, *args: Any, **options: Any) -> Any:
        result = await self._method(*args, **options) if self._done_first else None
        self.reached.set()
        await self.opened.wait()
        return result if self._done_first else await self._method(*args, **options)


@contextlib.contextmanager
def failing(holder: Any, *names: str, error: Exception = FAILURE) -> Iterator[list[str]]:
    """While inside, methods of ``holder`` fail; gives the names of those that were called."""
    before = {name: getattr(holder, name) for name in names}
    called: list[str] = []
    fails = True

    def broken(name: str) -> Callable[..., Awaitable[Any]]:
        async def fail(*args: Any, **options: Any) -> Any:
            if not fails:  # somebody has kept the method, to try again
                return await before[name](*args, **options)
            called.append(name)
            raise error

        return fail

    for name in names:
        setattr(holder, name, broken(name))
    try:
        yield called
    finally:
        fails = False
        for name, method in before.items():
            setattr(holder, name, method)


@contextlib.contextmanager
def full_disk(bytes_left: int = 0) -> Iterator[None]:
    """While inside, journals take ``bytes_left`` more bytes, of whatever event, and then no more."""
    write = JournalFile.write
    left = bytes_left

    def write_some(journal: JournalFile, data: bytes) -> None:
        nonlocal left
        taken, left = min(left, len(data)), max(0, left - len(data))
        write(journal, data[:taken])
        if taken < len(data):
            raise ApiError("storage_failed", detail="No space left on device")

    JournalFile.write = write_some  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        JournalFile.write = write  # type: ignore[method-assign]
