"""Whoever waits for an answer: while they do, and when they do not any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message
from tests.support.provider import ScriptedProvider
from tests.support.talking import Line
from tests.support.waiting import until
from tests.support.web import settings

from coterie.api.app import make_state
from coterie.api.attendance import attended
from coterie.api.edge import CLIENT_CLOSED, Exchange
from coterie.api.state import AppState
from coterie.errors import ApiError


class Client:
    """Waits for an answer; tells that it leaves by its connection, or, with a ``line``, by that."""

    def __init__(self, *, line: bool) -> None:
        self.line = Line() if line else None
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/"}
        self.exchange = Exchange(scope | ({"coterie.client": self.line} if line else {}), _nowhere, [])

    async def receive(self) -> Message:
        return await self._inbox.get()

    def leave(self) -> None:
        if self.line is not None:
            self.line.leave()
        else:
            self._inbox.put_nowait({"type": "http.request", "body": b"", "more_body": False})
            self._inbox.put_nowait({"type": "http.disconnect"})


async def _nowhere(message: Message) -> None:
    raise AssertionError("nothing is sent here")


with_and_without_a_line = pytest.mark.parametrize("line", [True, False], ids=["line", "no line"])


@pytest.fixture
def state() -> AppState:
    return make_state(settings(), [ScriptedProvider()])


def attending(state: AppState, client: Client, work: Callable[[], Awaitable[None]]) -> asyncio.Task[str]:
    async def answer() -> str:
        async with attended(state, client.exchange, client.receive):
            await work()
            return "answered"
        return "nobody is there"

    return asyncio.create_task(answer())


async def steps() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@with_and_without_a_line
async def test_work_that_is_done_is_answered_and_leaves_nothing(state: AppState, line: bool) -> None:
    before = asyncio.all_tasks()
    client, gate = Client(line=line), asyncio.Event()
    task = attending(state, client, gate.wait)  # type: ignore[arg-type]
    await steps()
    assert len(state.active) == 1
    gate.set()
    assert await task == "answered"
    await steps()
    assert len(state.active) == 0
    assert client.exchange.outcome == "ok"
    assert asyncio.all_tasks() == before
    assert client.line is None or client.line._told is None
    client.leave()
    await steps()


@with_and_without_a_line
async def test_a_client_that_leaves_cancels_the_work_and_nobody_else(state: AppState, line: bool) -> None:
    client, stays, gate = Client(line=line), Client(line=line), asyncio.Event()
    task = attending(state, client, asyncio.Event().wait)  # type: ignore[arg-type]
    other = attending(state, stays, gate.wait)  # type: ignore[arg-type]
    await steps()
    client.leave()
    assert await task == "nobody is there"
    assert client.exchange.outcome == CLIENT_CLOSED
    assert task.cancelling() == 0
    assert len(state.active) == 1
    gate.set()
    assert await other == "answered"


@with_and_without_a_line
async def test_the_servers_stop_is_raised_as_the_failure_that_it_is(state: AppState, line: bool) -> None:
    task = attending(state, Client(line=line), asyncio.Event().wait)  # type: ignore[arg-type]
    await steps()
    await state.active.drain(0)
    with pytest.raises(ApiError) as caught:
        await task
    assert caught.value.code == "server_shutting_down"
    assert task.cancelling() == 0
    assert len(state.active) == 0


@with_and_without_a_line
async def test_a_client_that_leaves_after_the_stop_changes_nothing(state: AppState, line: bool) -> None:
    client, gate = Client(line=line), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await gate.wait()

    task = attending(state, client, work)
    await steps()
    draining = asyncio.create_task(state.active.drain(0))
    await until(lambda: any(request.failure for request in state.active._requests))
    client.leave()
    await steps()
    gate.set()
    with pytest.raises(ApiError):
        await task
    await draining


@with_and_without_a_line
async def test_a_cancellation_from_elsewhere_goes_on(state: AppState, line: bool) -> None:
    task = attending(state, Client(line=line), asyncio.Event().wait)  # type: ignore[arg-type]
    await steps()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(state.active) == 0


@with_and_without_a_line
async def test_a_failure_of_the_work_goes_on(state: AppState, line: bool) -> None:
    async def fail() -> None:
        raise ApiError("engine_failed")

    with pytest.raises(ApiError) as caught:
        await attending(state, Client(line=line), fail)
    assert caught.value.code == "engine_failed"
    assert len(state.active) == 0


async def test_a_server_that_stops_takes_no_more_work(state: AppState) -> None:
    await state.active.drain(0)
    worked = False

    async def work() -> None:
        nonlocal worked
        worked = True

    with pytest.raises(ApiError) as caught:
        await attending(state, Client(line=False), work)
    assert caught.value.code == "server_shutting_down"
    assert not worked
