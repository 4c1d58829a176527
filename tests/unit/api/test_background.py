"""Responses in the background: their order, their time, and what ends them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from tests.support.provider import WHOLE, ScriptedProvider, delta, finish, role, usage
from tests.support.responding import (
    BACKGROUND,
    PATH,
    App,
    Gate,
    failing,
    full_disk,
    last,
    read,
    responding,
    text_of,
)
from tests.support.waiting import until

from coterie.api import background as background_module
from coterie.errors import ApiError

FOLLOWED = {**BACKGROUND, "stream": True}


async def accepted(app: App, **fields: Any) -> str:
    """The id of a response that was accepted."""
    response = await app.created(background=True, **fields)
    assert response["background"] is True
    name: str = response["id"]
    return name


async def ended(app: App, response_id: str) -> Any:
    """A response in the background once its end is stored."""
    await until(lambda: response_id not in app.keeping.running)
    return await app.row(response_id)


async def cancelled(app: App, response_id: str) -> dict[str, Any]:
    answer = await app.answered(f"{PATH}/{response_id}/cancel", {})
    assert answer.status == 200, answer.body
    response: dict[str, Any] = answer.json
    return response


def metric(app: App, outcome: str) -> bool:
    lines = app.state.metrics.render().decode().splitlines()
    return any(
        line.startswith("coterie_requests_total") and 'route="background"' in line and f'outcome="{outcome}"' in line
        for line in lines
    )


async def test_it_is_answered_at_once_and_generated_later(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider((gate, *WHOLE))
    async with responding(provider, tmp_path) as app:
        response = await app.created(background=True)
        assert response["status"] == "queued"
        assert response["output"] == []
        await provider.asked.wait()
        assert (await app.answered(f"{PATH}/{response['id']}")).json["status"] == "in_progress"
        gate.set()
        row = await ended(app, response["id"])
        assert text_of(row.response) == "Hello"
        kinds = [said["type"] for said in read(row.events)]
        assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
        assert kinds[-1] == "response.completed"
        assert (await app.answered(f"{PATH}/{response['id']}")).json == last(row.events) == row.response
        await until(lambda: app.state.background.count == 0)
        assert len(app.state.active) == 0
        assert metric(app, "ok")


async def test_they_are_generated_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    gates = [asyncio.Event() for _ in range(5)]
    provider = ScriptedProvider()
    provider.scripts = [(gate, *WHOLE) for gate in gates]
    async with responding(provider, tmp_path, responses={"background": 2}) as app:
        names = [await accepted(app, input=f"number {i}") for i in range(5)]
        for i, gate in enumerate(gates):
            wanted = min(5, i + 2)
            await until(lambda wanted=wanted: len(provider.generations) == wanted)  # type: ignore[misc]
            states = [(await app.row(name)).response["status"] for name in names[i:]]
            assert states == ["in_progress"] * (wanted - i) + ["queued"] * (5 - wanted)
            gate.set()
            assert (await ended(app, names[i])).status == "completed"
        texts = [generation.body["messages"][-1]["content"] for generation in provider.generations]
        assert texts == [f"number {i}" for i in range(5)]


async def test_without_room_one_more_is_refused_with_a_delay(tmp_path: Path) -> None:
    provider = ScriptedProvider((asyncio.Event(),))
    async with responding(provider, tmp_path, responses={"background": 1, "background_queue": 2}) as app:
        names = [await accepted(app) for _ in range(3)]
        refused = await app.answered(PATH, BACKGROUND)
        assert (refused.status, refused.error["code"]) == (503, "server_is_overloaded")
        assert float(refused.headers["retry-after"]) >= 1
        await app.stored(3)
        await cancelled(app, names[2])
        await until(lambda: app.state.background.count == 2)
        assert await accepted(app)


async def test_those_that_come_at_once_keep_the_bound_as_well(tmp_path: Path) -> None:
    provider = ScriptedProvider((asyncio.Event(),))
    async with responding(provider, tmp_path, responses={"background": 1, "background_queue": 2}) as app:
        answers = await asyncio.gather(*(app.answered(PATH, BACKGROUND) for _ in range(10)))
        assert sorted(answer.status for answer in answers) == [200] * 3 + [503] * 7
        await app.stored(3)


async def test_what_is_refused_takes_no_room(tmp_path: Path) -> None:
    async with responding(
        ScriptedProvider((asyncio.Event(),)), tmp_path, responses={"background": 1, "background_queue": 0}
    ) as app:
        for _ in range(3):
            refused = await app.answered(PATH, {**BACKGROUND, "previous_response_id": "resp_0"})
            assert refused.error["code"] == "previous_response_not_found"
        assert await accepted(app)


async def test_what_is_known_to_be_wrong_is_told_at_once_and_leaves_no_trace(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = await app.conversation()
        wrong = {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "nonsense"}}}}
        answer = await app.answered(PATH, {**BACKGROUND, **wrong, "conversation": name})
        assert answer.status == 400
        await app.stored(0)
        assert await app.is_free(name)
        assert app.state.background.count == 0


async def test_one_has_a_limit_for_all_of_its_time(tmp_path: Path) -> None:
    provider = ScriptedProvider((delta("Hel"), asyncio.Event()))
    async with responding(provider, tmp_path, responses={"background_timeout_s": 0.05}) as app:
        row = await ended(app, await accepted(app))
        assert row.status == "failed"
        assert row.response["error"]["code"] == "server_error"
        assert "0.05 seconds" in row.response["error"]["message"]
        assert text_of(row.response) == "Hel"
        assert provider.closed.is_set()


async def test_the_limit_counts_the_time_of_waiting_too(tmp_path: Path) -> None:
    limits = {"background": 1, "background_timeout_s": 0.05}
    provider = ScriptedProvider((delta("Hel"), asyncio.Event()))
    async with responding(provider, tmp_path, responses=limits) as app:
        names = [await accepted(app) for _ in range(3)]
        assert [(await ended(app, name)).status for name in names] == ["failed"] * 3


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited for room, in no time."""
    waited: list[float] = []

    async def sleep(delay_s: float) -> None:
        waited.append(delay_s)
        await asyncio.sleep(0)

    monkeypatch.setattr(background_module, "_pause", sleep)
    return waited


def busy(delay_s: float) -> ApiError:
    return ApiError("server_is_overloaded", retry_after_s=delay_s)


async def test_one_without_room_waits_and_asks_again(tmp_path: Path, waits: list[float]) -> None:
    provider = ScriptedProvider()
    provider.scripts = [(busy(0.01),), (role(), busy(7)), (busy(600),)]
    async with responding(provider, tmp_path) as app:
        row = await ended(app, await accepted(app))
        assert (row.status, text_of(row.response)) == ("completed", "Hello")
        assert waits == [1, 7, 30]
        assert read(row.events)[-1]["type"] == "response.completed"
        assert len(provider.generations) == 4


async def test_one_that_has_said_something_does_not_ask_again(tmp_path: Path, waits: list[float]) -> None:
    async with responding(ScriptedProvider((delta("Hel"), busy(1))), tmp_path) as app:
        row = await ended(app, await accepted(app))
        assert (row.status, text_of(row.response)) == ("failed", "Hel")
        assert waits == []


async def test_another_failure_is_not_asked_again(tmp_path: Path, waits: list[float]) -> None:
    async with responding(ScriptedProvider((ApiError("engine_failed"),)), tmp_path) as app:
        assert (await ended(app, await accepted(app))).status == "failed"
        assert waits == []


async def test_waiting_for_room_ends_with_the_limit_or_when_it_is_cancelled(tmp_path: Path) -> None:
    limits = {"background_timeout_s": 0.1}
    provider = ScriptedProvider((busy(20),))
    async with responding(provider, tmp_path, responses=limits) as app:
        late, left = await accepted(app), await accepted(app)
        await until(lambda: len(provider.generations) == 2)
        assert (await cancelled(app, left))["status"] == "cancelled"
        row = await ended(app, late)
        assert "0.1 seconds" in row.response["error"]["message"]


async def test_who_waits_for_an_answer_is_told_at_once_that_there_is_no_room(
    tmp_path: Path, waits: list[float]
) -> None:
    async with responding(ScriptedProvider((busy(5),)), tmp_path) as app:
        for fields in ({}, {"stream": True}):
            answer = await app.answered(PATH, {"model": "m", "input": "Hi", **fields})
            assert (answer.status, answer.error["code"]) == (503, "server_is_overloaded")
        assert waits == []


async def test_what_has_ended_is_not_held_until_its_limit(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        calls: list[weakref.ref[Any]] = []
        admit = app.state.active.admit

        def noted(task: asyncio.Task[Any]) -> Any:
            request = admit(task)
            calls.append(weakref.ref(request))
            return request

        app.state.active.admit = noted  # type: ignore[method-assign]
        await ended(app, await accepted(app))
        await until(lambda: app.state.background.count == 0)
        gc.collect()
        assert [call() for call in calls] == [None] * len(calls)
        assert calls


# Cancelled


async def test_a_queued_one_is_cancelled_without_being_asked_for(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider((gate, *WHOLE))
    async with responding(provider, tmp_path, responses={"background": 1}) as app:
        first, second, third = [await accepted(app, input=str(i)) for i in range(3)]
        response = await cancelled(app, second)
        assert response["status"] == "cancelled"
        row = await ended(app, second)
        assert row.response == response == last(row.events)
        kinds = [said["type"] for said in read(row.events)]
        assert kinds == ["response.created", "response.queued", "response.incomplete"]
        gate.set()
        for name in (first, third):
            assert (await ended(app, name)).status == "completed"
        assert [generation.body["messages"][-1]["content"] for generation in provider.generations] == ["0", "2"]


async def test_a_running_one_is_cancelled_and_its_generation_too(tmp_path: Path) -> None:
    provider = ScriptedProvider((delta("Hel"), asyncio.Event()))
    async with responding(provider, tmp_path) as app:
        conversation = await app.conversation()
        name = await accepted(app, conversation=conversation)
        await provider.asked.wait()
        answers = await asyncio.gather(*(cancelled(app, name) for _ in range(3)))
        assert {answer["status"] for answer in answers} == {"cancelled"}
        await provider.closed.wait()
        row = await ended(app, name)
        assert row.response == answers[0]
        assert await app.is_free(conversation)
        assert await app.items(conversation) == []


async def test_an_ended_one_stays_as_it_is(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = await accepted(app)
        row = await ended(app, name)
        assert await cancelled(app, name) == row.response
        assert (await app.row(name)).status == "completed"


async def test_one_that_is_cancelled_while_its_end_is_stored_has_ended(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        gate = Gate(app.keeping.responses, "finish")
        name = await accepted(app)
        await gate.reached.wait()
        cancelling = asyncio.create_task(cancelled(app, name))
        await asyncio.sleep(0)
        gate.opened.set()
        assert (await cancelling)["status"] == "completed"
        assert (await app.row(name)).status == "completed"


async def test_one_that_is_cancelled_while_its_start_is_stored(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        gate = Gate(app.keeping.responses, "set_response")
        name = await accepted(app)
        await gate.reached.wait()
        assert (await cancelled(app, name))["status"] == "cancelled"
        assert (await ended(app, name)).status == "cancelled"


# Failing


async def test_a_failure_is_stored_with_its_error(tmp_path: Path) -> None:
    provider = ScriptedProvider((delta("Hel"), ApiError("engine_failed", detail="PRIVATE")))
    async with responding(provider, tmp_path) as app:
        row = await ended(app, await accepted(app))
        assert row.status == "failed"
        assert row.response["error"]["code"] == "server_error"
        assert last(row.events) == row.response
        assert b"PRIVATE" not in row.events
        assert metric(app, "service")


@pytest.mark.parametrize("method", ["set_response", "finish"])
async def test_storage_that_fails_is_a_failure_and_nothing_hangs(tmp_path: Path, method: str) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        conversation = await app.conversation()
        with failing(app.keeping.responses, method):
            call = app.call(PATH, {**FOLLOWED, "conversation": conversation})
            await call.task
        response = last(call.answer.body)
        assert response["status"] == "failed"
        await app.keeping.mend()
        row = await app.row(response["id"])
        assert row.response == response
        assert row.events == call.answer.body
        assert await app.is_free(conversation)


async def test_a_failed_end_can_be_read_before_it_is_stored(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        with failing(app.keeping.responses, "finish"):
            name = await accepted(app)
            turn = app.keeping.running[name]
            await turn.settled.wait()
            shown = (await app.answered(f"{PATH}/{name}")).json
            assert shown["status"] == "failed"
            assert await cancelled(app, name) == shown
            assert last((await app.answered(f"{PATH}/{name}?stream=true")).body) == shown
        await app.keeping.mend()
        assert (await app.row(name)).response == shown


@pytest.mark.parametrize("room", [0, 100])
async def test_a_full_disk_keeps_it_out(tmp_path: Path, room: int) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        conversation = await app.conversation()
        with full_disk(room):
            answer = await app.answered(PATH, {**BACKGROUND, "conversation": conversation})
        assert (answer.status, answer.error["code"]) == (503, "storage_failed")
        await app.keeping.stop()
        await app.stored(0)
        assert app.journals() == []
        assert app.keeping.running == {}
        assert await app.is_free(conversation)


async def test_a_creation_that_fails_is_told_at_once(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        conversation = await app.conversation()
        with failing(app.keeping.responses, "create"):
            answer = await app.answered(PATH, {**BACKGROUND, "conversation": conversation})
        assert (answer.status, answer.error["code"]) == (503, "storage_failed")
        assert app.journals() == []
        assert await app.is_free(conversation)


# Its client, and the server's stop


async def test_it_is_generated_whoever_leaves(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with responding(ScriptedProvider((delta("Hel"), gate, delta("lo"), finish(), usage())), tmp_path) as app:
        call = app.call(PATH, FOLLOWED)
        await call.head.wait()
        name = next(iter(app.keeping.running))
        call.leave()
        await call.task
        gate.set()
        row = await ended(app, name)
        assert text_of(row.response) == "Hello"
        assert row.events.startswith(call.body_so_far)


async def test_the_servers_stop_lets_it_finish(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider((gate, *WHOLE))
    async with responding(provider, tmp_path) as app:
        name = await accepted(app)
        await provider.asked.wait()
        draining = asyncio.create_task(app.state.active.drain(60))
        await asyncio.sleep(0)
        refused = await app.answered(PATH, BACKGROUND)
        assert refused.error["code"] == "server_shutting_down"
        gate.set()
        await draining
        assert (await app.row(name)).status == "completed"


async def test_the_servers_stop_ends_the_running_and_the_queued(tmp_path: Path) -> None:
    provider = ScriptedProvider((delta("Hel"), asyncio.Event()))
    async with responding(provider, tmp_path, responses={"background": 1}) as app:
        conversation = await app.conversation()
        running, queued = await accepted(app, conversation=conversation), await accepted(app)
        follower = app.call(f"{PATH}/{running}?stream=true")
        await provider.asked.wait()
        await follower.head.wait()
        await app.state.active.drain(0)
        await follower.task
        for name in (running, queued):
            row = await app.row(name)
            assert row.status == "failed"
            assert row.response["error"]["code"] == "server_error"
            assert last(row.events) == row.response
        assert follower.answer.body == (await app.row(running)).events
        assert await app.is_free(conversation)
        assert len(app.state.active) == 0
        assert app.journals() == []


@pytest.mark.parametrize("told", [False, True], ids=["stopped", "cancelled as well"])
async def test_one_that_the_stop_ends_before_it_ran_is_ended_and_holds_nobody_up(tmp_path: Path, told: bool) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        conversation = await app.conversation()
        gate = Gate(app.keeping.responses, "create", done_first=True)
        call = app.call(PATH, {**FOLLOWED, "conversation": conversation})
        await gate.reached.wait()
        begin = app.state.background.begin

        def begin_and_stop(turn: Any, asking: Any) -> None:
            before = set(app.state.active._requests)
            begin(turn, asking)
            for request in set(app.state.active._requests) - before:
                request.end_with(app.state.active.shutting_down())
            if told:
                turn.cancel()

        app.state.background.begin = begin_and_stop  # type: ignore[method-assign]
        gate.opened.set()
        await call.task
        await app.state.active.drain(60)
        assert len(app.state.active) == 0
        response = last(call.answer.body)
        assert response["status"] == ("cancelled" if told else "failed")
        row = await app.row(response["id"])
        assert (row.response, row.events) == (response, call.answer.body)
        assert app.keeping.running == {}
        assert await app.is_free(conversation)
        assert metric(app, "ok" if told else "service")


async def test_a_provider_that_is_down_is_not_waited_for(tmp_path: Path) -> None:
    down = ApiError("server_is_overloaded", retry_after_s=1.0, detail="503 Service Unavailable")
    async with responding(ScriptedProvider((down,)), tmp_path) as app:
        name = (await app.created(background=True))["id"]
        row = await ended(app, name)
        assert (row.status, row.response["error"]["code"]) == ("failed", "server_error")
