"""The book of running requests."""

from __future__ import annotations

import asyncio

import pytest

from coterie.api import active
from coterie.api.active import ActiveRequest, ActiveRequests
from coterie.errors import ApiError


class Running:
    """A request in a task of its own, which waits for ``go``."""

    def __init__(self, requests: ActiveRequests, *, stubborn: bool = False) -> None:
        self.go = asyncio.Event()
        self.entered = asyncio.Event()
        self.request: ActiveRequest | None = None
        self.cancelled = 0
        self._requests = requests
        self._stubborn = stubborn
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        self.request = self._requests.enter()
        self.entered.set()
        try:
            await self._wait()
        finally:
            self._requests.leave(self.request)

    async def _wait(self) -> None:
        while not self.go.is_set():
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if not self._stubborn:
                    return


async def running(requests: ActiveRequests, *, stubborn: bool = False) -> tuple[Running, ActiveRequest]:
    task = Running(requests, stubborn=stubborn)
    await task.entered.wait()
    assert task.request is not None
    return task, task.request


async def test_requests_are_counted() -> None:
    requests = ActiveRequests()
    first, _ = await running(requests)
    second, _ = await running(requests)
    assert len(requests) == 2
    first.go.set()
    second.go.set()
    await asyncio.gather(first.task, second.task)
    assert len(requests) == 0


async def test_a_client_that_leaves_cancels_once() -> None:
    task, request = await running(ActiveRequests(), stubborn=True)
    request.end_for_client()
    request.end_for_client()
    request.end_with(ActiveRequests().shutting_down())
    task.go.set()
    await task.task
    assert (task.cancelled, request.client_gone, request.failure) == (1, True, None)


async def test_a_failure_cancels_once_and_comes_before_the_client() -> None:
    task, request = await running(ActiveRequests(), stubborn=True)
    failure = ActiveRequests().shutting_down()
    request.end_with(failure)
    request.end_with(ActiveRequests().shutting_down())
    request.end_for_client()
    task.go.set()
    await task.task
    assert (task.cancelled, request.client_gone, request.failure) == (1, False, failure)


async def test_a_drain_of_nothing_returns_at_once() -> None:
    requests = ActiveRequests()
    await requests.drain(3600)
    assert requests.draining


async def test_a_drain_refuses_new_requests() -> None:
    requests = ActiveRequests()
    await requests.drain(0)
    with pytest.raises(ApiError) as caught:
        requests.enter()
    assert (caught.value.code, caught.value.retry_after_s) == ("server_shutting_down", 1.0)


async def test_a_drain_waits_for_those_that_run() -> None:
    requests = ActiveRequests()
    task, request = await running(requests)
    drain = asyncio.create_task(requests.drain(3600))
    await asyncio.sleep(0)
    assert not drain.done()
    task.go.set()
    await drain
    assert (task.cancelled, request.failure) == (0, None)


async def test_a_drain_ends_those_that_do_not_finish() -> None:
    requests = ActiveRequests()
    first, request = await running(requests)
    second, _ = await running(requests)
    await requests.drain(0)
    assert (first.cancelled, second.cancelled, len(requests)) == (1, 1, 0)
    assert request.failure is not None
    assert request.failure.code == "server_shutting_down"


async def test_a_drain_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(active, "_END_S", 0.01)
    requests = ActiveRequests()
    task, _ = await running(requests, stubborn=True)
    await requests.drain(0)
    assert len(requests) == 1
    task.go.set()
    await task.task
    assert len(requests) == 0


async def test_a_second_drain_ends_what_was_accepted_since_the_first() -> None:
    """As what goes on in the background, which is accepted with the request for it."""
    requests = ActiveRequests()
    task, _ = await running(requests)
    draining = asyncio.create_task(requests.drain(60))
    await asyncio.sleep(0)
    task.go.set()
    await draining
    later = requests.admit(asyncio.create_task(asyncio.Event().wait()))
    later.task.add_done_callback(lambda _: requests.leave(later))
    await requests.drain(0)
    assert later.failure is not None
    assert len(requests) == 0


async def test_the_stop_is_told_to_who_asked_for_it() -> None:
    requests = ActiveRequests()
    told: list[str] = []
    with requests.told_of_stop(lambda: told.append("during")):
        with requests.told_of_stop(lambda: told.append("before")):
            pass
        await requests.drain(0)
    assert told == ["during"]
