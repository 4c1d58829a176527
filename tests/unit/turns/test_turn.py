"""One turn, from its request to its end: what is stored, what is told, and what becomes of its conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.provider import SECRET, WHOLE, Short, Step, delta, finish, role, usage
from tests.support.responding import FAILURE, Gate, failing, full_disk, last, plan, read, text_of
from tests.support.stored import message
from tests.support.turning import Running, Sink, conversation, finished, is_free, rows, stored, texts

from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.turns.keeping import Keeping
from coterie.turns.turn import Plan, Turn
from coterie.wire.lingua import RESTART

STOP = ApiError("server_shutting_down", retry_after_s=3)
HALF: Sequence[Step] = (delta("Hel"),)

KINDS: dict[str, dict[str, Any]] = {
    "stream": {"told": True},
    "plain": {"told": False},
    "stream, not stored": {"told": True, "store": False},
    "plain, not stored": {"told": False, "store": False},
}
TOLD = [name for name in KINDS if KINDS[name]["told"]]

every_kind = pytest.mark.parametrize("kind", KINDS)
every_told_kind = pytest.mark.parametrize("kind", TOLD)


async def planned(keeping: Keeping, kind: str, *, in_conversation: bool = True) -> tuple[Plan, str]:
    """A turn of a kind, and its conversation, which is locked."""
    name = await conversation(keeping, message("msg_1", "before"))
    fields: dict[str, Any] = {"conversation": name} if in_conversation else {}
    return await keeping.plan(plan(**KINDS[kind], **fields)), name


async def nothing_is_left(keeping: Keeping, folder: Path, name: str) -> None:
    assert await rows(keeping) == []
    assert keeping.running == {}
    assert list((folder / "responses").iterdir()) == []
    assert await is_free(keeping, name)
    assert await texts(keeping, name) == ["before"]


# Whole answers


@every_kind
async def test_a_whole_answer(keeping: Keeping, folder: Path, kind: str) -> None:
    asked, name = await planned(keeping, kind)
    turn, sink = await finished(keeping, asked)
    assert turn.response["status"] == "completed"
    assert text_of(turn.response) == "Hello"
    assert turn.failure is None
    assert await texts(keeping, name) == ["before", "Hi", "Hello"]
    assert await is_free(keeping, name)
    assert list((folder / "responses").iterdir()) == []
    assert keeping.running == {}
    if asked.told:
        assert last(sink.stream) == turn.response
    if not asked.parsed.store:
        assert await rows(keeping) == []
        return
    row = await stored(keeping, turn)
    assert (row.status, row.response) == ("completed", turn.response)
    assert last(row.events) == turn.response
    assert not asked.told or row.events == sink.stream


@every_kind
@pytest.mark.parametrize("script", [(finish(), usage()), (role(), delta(""), finish("length"), usage())], ids=repr)
async def test_an_answer_that_says_nothing_before_its_end_is_stored_whole(
    keeping: Keeping, kind: str, script: Sequence[Step]
) -> None:
    asked, name = await planned(keeping, kind)
    turn, sink = await finished(keeping, asked, script)
    assert turn.response["status"] in ("completed", "incomplete")
    assert await texts(keeping, name) == ["before", "Hi", ""]
    assert await is_free(keeping, name)
    if asked.told:
        assert last(sink.stream) == turn.response
    if asked.parsed.store:
        row = await stored(keeping, turn)
        assert (row.status, row.response) == (turn.response["status"], turn.response)
        assert last(row.events) == turn.response


async def test_only_the_last_attempt_of_an_answer_is_kept(keeping: Keeping) -> None:
    turn, _ = await finished(keeping, plan(told=False), (delta("void"), RESTART, *WHOLE))
    row = await stored(keeping, turn)
    assert text_of(row.response) == text_of(last(row.events)) == "Hello"


async def test_a_response_is_unknown_until_it_says_something(keeping: Keeping, folder: Path) -> None:
    gate = asyncio.Event()
    running = Running(keeping, plan(), (role(), delta(""), gate, *WHOLE))
    await running.provider.asked.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert await rows(keeping) == []
    assert keeping.running == {}
    assert running.sink.events == []
    gate.set()
    await running.sink.told.wait()
    row = await stored(keeping, running.turn)
    assert row.status in ("in_progress", "completed")
    await running.task


async def test_what_is_told_is_in_the_journal_before(keeping: Keeping, folder: Path) -> None:
    class Watcher(Sink):
        async def write(self, event: bytes) -> None:
            for path in (folder / "responses").iterdir():
                kept = path.read_bytes()
                assert kept.startswith(self.stream + event)
                seen.append(event)
            await super().write(event)

        def put(self, event: bytes) -> bool:
            for path in (folder / "responses").iterdir():
                assert path.read_bytes() == self.stream + event
                seen.append(event)
            return super().put(event)

    seen: list[bytes] = []
    _, sink = await finished(keeping, plan(), (delta("Hel"), Short("lo"), finish(), usage()), sink=Watcher())
    assert len(seen) > 5
    assert sink.events[: len(seen)] == seen


async def test_the_end_is_stored_before_it_is_told(keeping: Keeping) -> None:
    gate = Gate(keeping.responses, "finish", done_first=True)
    running = Running(keeping, plan())
    await gate.reached.wait()
    assert DONE not in running.sink.events
    assert b"response.completed" not in running.sink.stream
    row = await stored(keeping, running.turn)
    gate.opened.set()
    await running.task
    assert row.events == running.sink.stream


# The short way of text

LONG: Sequence[Step] = (role(), delta("a"), Short("b\n"), Short("\u00fc"), delta("d"), Short("e"), finish(), usage())


@every_kind
async def test_text_on_the_short_way_is_told_and_kept_as_any_other(keeping: Keeping, kind: str) -> None:
    usual = [delta(step.text) if isinstance(step, Short) else step for step in LONG]
    asked = plan(**KINDS[kind])
    running = Running(keeping, asked, LONG)
    await running.task
    _, beside = await finished(keeping, plan(**KINDS[kind]), usual)
    assert running.provider.shortened == 3
    assert text_of(running.turn.response) == "ab\n\u00fcde"
    if asked.told:
        told, usually_told = read(running.sink.stream), read(beside.stream)
        assert [_without_ids(event) for event in told] == [_without_ids(event) for event in usually_told]
    if asked.parsed.store:
        row = await stored(keeping, running.turn)
        assert row.response == last(row.events) == running.turn.response
        assert not asked.told or row.events == running.sink.stream


async def test_in_the_background_too(keeping: Keeping) -> None:
    running = Running(keeping, plan(background=True, told=True), LONG)
    running.go.set()
    await running.task
    assert running.provider.shortened == 3
    row = await stored(keeping, running.turn)
    assert text_of(row.response) == text_of(last(row.events)) == "ab\n\u00fcde"


async def test_text_waits_for_a_client_that_reads_slowly(keeping: Keeping) -> None:
    running = Running(keeping, plan(), LONG, Sink(at=6))
    await running.sink.waits.wait()
    running.sink.gate.set()
    await running.task
    assert running.provider.shortened == 2
    assert text_of(last(running.sink.stream)) == "ab\n\u00fcde"


async def test_what_took_the_short_way_is_void_with_its_attempt(keeping: Keeping) -> None:
    script = (delta("vo"), Short("id"), RESTART, delta("Hel"), Short("lo"), finish(), usage())
    running = Running(keeping, plan(told=False), script)
    await running.task
    assert running.provider.shortened == 2
    row = await stored(keeping, running.turn)
    assert text_of(row.response) == text_of(last(row.events)) == "Hello"


FULL = ApiError("storage_failed", detail="full")


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(
    "rest", [(), (Short("c"), Short("d")), (delta("c"), finish(), usage())], ids=["nothing", "short", "usual"]
)
async def test_what_cannot_be_kept_on_the_short_way_ends_the_turn_at_once(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch, rest: Sequence[Step], *, background: bool
) -> None:
    gate = asyncio.Event()
    asked = plan(background=background, told=True)
    running = Running(keeping, asked, (delta("a"), gate, Short("b"), *rest, asyncio.Event()))
    running.go.set()
    await running.provider.paused.wait()
    assert running.turn.live is not None
    with monkeypatch.context() as patch:
        patch.setattr(running.turn.live, "say", _raising(FULL))
        gate.set()
        await running.provider.closed.wait()  # though it has more to say, some day
    await running.task
    assert running.turn.failure is FULL
    response = running.turn.response
    assert response["status"] == "failed"
    assert text_of(response) == "ab"
    row = await stored(keeping, running.turn)
    assert last(row.events) == row.response == response
    assert background or row.events == running.sink.stream
    numbers = [event["sequence_number"] for event in read(row.events)]
    assert numbers == list(range(len(numbers)))


def _raising(error: Exception) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise error

    return fail


async def test_after_the_end_there_is_no_short_way(keeping: Keeping) -> None:
    running = Running(keeping, plan(), LONG)
    await running.task
    (generation,) = running.provider.generations
    assert generation.shortcut.take is None


def _without_ids(event: dict[str, Any]) -> tuple[Any, ...]:
    return event["type"], event["sequence_number"], event.get("delta"), event.get("text")


# Failures


@every_kind
@pytest.mark.parametrize("script", [(), (role(),), (role(), delta(""))], ids=["nothing", "a role", "an empty text"])
@pytest.mark.parametrize("failure", [ApiError("engine_failed"), RuntimeError(SECRET)], ids=["failure", "bug"])
async def test_a_failure_before_anything_was_said_leaves_no_trace(
    keeping: Keeping, folder: Path, kind: str, script: Sequence[Step], failure: Exception
) -> None:
    asked, name = await planned(keeping, kind)
    with pytest.raises(type(failure)):
        await finished(keeping, asked, (*script, failure))
    await nothing_is_left(keeping, folder, name)


@every_kind
async def test_an_answer_that_is_not_whole_is_a_failure(keeping: Keeping, folder: Path, kind: str) -> None:
    asked, name = await planned(keeping, kind)
    with pytest.raises(ApiError) as caught:
        await finished(keeping, asked, (role(),))
    assert caught.value.code == "upstream_stream_interrupted"
    await nothing_is_left(keeping, folder, name)


@pytest.mark.parametrize("kind", ["plain", "plain, not stored"])
async def test_a_failure_of_what_is_told_when_it_is_whole_leaves_no_trace(
    keeping: Keeping, folder: Path, kind: str
) -> None:
    asked, name = await planned(keeping, kind)
    with pytest.raises(ApiError):
        await finished(keeping, asked, (*HALF, ApiError("engine_failed")))
    await nothing_is_left(keeping, folder, name)


@every_kind
async def test_a_failure_before_anything_was_said_is_told_in_the_requests_words(keeping: Keeping, kind: str) -> None:
    with pytest.raises(ApiError) as caught:
        await finished(keeping, plan(**KINDS[kind]), (FAILURES["in the request's words"][0],))
    assert caught.value.param == "input"


FAILURES: dict[str, tuple[Exception, str]] = {
    "failure": (ApiError("engine_failed", detail=SECRET), "engine_failed"),
    "bug": (RuntimeError(SECRET), "internal_error"),
    "in the request's words": (
        ApiError("context_length_exceeded", param="messages", limit=8, actual=9),
        "context_length_exceeded",
    ),
}


@every_told_kind
@pytest.mark.parametrize(("failure", "code"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_failure_after_something_was_said(keeping: Keeping, kind: str, failure: Exception, code: str) -> None:
    asked, name = await planned(keeping, kind)
    turn, sink = await finished(keeping, asked, (*HALF, failure))
    assert turn.failure is not None
    assert turn.failure.code == code
    assert turn.failure.param in (None, "input")
    said = read(sink.stream)
    assert [one["type"] for one in said[-2:]] == ["error", "response.failed"]
    assert last(sink.stream) == turn.response
    assert turn.response["status"] == "failed"
    assert text_of(turn.response) == "Hel"
    assert SECRET not in sink.stream.decode()
    assert await texts(keeping, name) == ["before"]
    assert await is_free(keeping, name)
    if asked.parsed.store:
        row = await stored(keeping, turn)
        assert (row.status, row.response, row.events) == ("failed", turn.response, sink.stream)


# The client leaves


@every_kind
async def test_a_client_that_leaves_before_the_first_chunk_leaves_no_trace(
    keeping: Keeping, folder: Path, kind: str
) -> None:
    asked, name = await planned(keeping, kind)
    running = Running(keeping, asked, (asyncio.Event(),))
    await running.provider.asked.wait()
    running.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running.task
    assert running.provider.closed.is_set()
    await nothing_is_left(keeping, folder, name)


@pytest.mark.parametrize("done_first", [True, False], ids=["created", "not created"])
async def test_a_client_that_leaves_while_the_beginning_is_stored_leaves_no_trace(
    keeping: Keeping, folder: Path, done_first: bool
) -> None:
    asked, name = await planned(keeping, "stream")
    gate = Gate(keeping.responses, "create", done_first=done_first)
    running = Running(keeping, asked, (*HALF, asyncio.Event()))
    await gate.reached.wait()
    running.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running.task
    await nothing_is_left(keeping, folder, name)


@every_told_kind
async def test_a_client_that_leaves_in_mid_stream_cancels_its_response(keeping: Keeping, kind: str) -> None:
    asked, name = await planned(keeping, kind)
    running = Running(keeping, asked, (*HALF, asyncio.Event()))
    await running.sink.told.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    running.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running.task
    assert running.turn.settled.is_set()
    assert running.turn.response["status"] == "cancelled"
    assert await is_free(keeping, name)
    assert await texts(keeping, name) == ["before"]
    if asked.parsed.store:
        row = await stored(keeping, running.turn)
        assert row.status == row.response["status"] == last(row.events)["status"] == "cancelled"
        assert row.events.startswith(running.sink.stream)


async def test_a_client_that_leaves_while_it_reads_slowly(keeping: Keeping) -> None:
    running = Running(keeping, plan(), (*HALF, asyncio.Event()), Sink(at=3))
    await running.sink.waits.wait()
    running.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running.task
    assert (await stored(keeping, running.turn)).status == "cancelled"


@every_kind
async def test_a_client_that_leaves_while_the_end_is_stored(keeping: Keeping, kind: str) -> None:
    """The response has come to its end: it stays as it is, and who follows it hears all of it."""
    asked, name = await planned(keeping, kind)
    method = {
        "stream": (keeping.responses, "finish"),
        "plain": (keeping.responses, "create"),
    }.get(kind, (keeping.conversations, "append"))
    gate = Gate(*method)
    running = Running(keeping, asked)
    await gate.reached.wait()
    follower = None
    if running.turn.live is not None:
        follower = asyncio.create_task(_heard(running.turn))
        await asyncio.sleep(0)
    running.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running.task
    assert not await is_free(keeping, name)
    gate.opened.set()
    await running.turn.settled.wait()
    assert await is_free(keeping, name)
    assert await texts(keeping, name) == ["before", "Hi", "Hello"]
    if asked.parsed.store:
        assert (await stored(keeping, running.turn)).status == "completed"
    if follower is not None:
        assert last(await follower)["status"] == "completed"


async def _heard(turn: Turn) -> bytes:
    assert turn.live is not None
    with turn.live.listening():
        return b"".join([event async for event in turn.live.follow(-1)])


# Told to stop, and the server's stop


async def test_a_response_that_is_told_to_stop_says_so_to_its_client(keeping: Keeping) -> None:
    asked, name = await planned(keeping, "stream")
    running = Running(keeping, asked, (*HALF, asyncio.Event()))
    await running.sink.told.wait()
    running.turn.cancel()
    running.turn.cancel()
    await running.task
    assert last(running.sink.stream)["status"] == "cancelled"
    assert running.turn.failure is None
    row = await stored(keeping, running.turn)
    assert (row.status, row.events) == ("cancelled", running.sink.stream)
    assert await is_free(keeping, name)


async def test_one_that_is_told_to_stop_before_it_runs_is_cancelled_all_the_same(keeping: Keeping) -> None:
    running = Running(keeping, plan(background=True), (*HALF, asyncio.Event()))
    await running.accepted.wait()
    running.turn.cancel()
    running.go.set()
    await running.task
    assert (await stored(keeping, running.turn)).status == "cancelled"


@every_told_kind
async def test_being_told_to_stop_while_the_end_is_stored_is_too_late(keeping: Keeping, kind: str) -> None:
    asked, name = await planned(keeping, kind)
    gate = Gate(keeping.responses, "finish") if kind == "stream" else Gate(keeping.conversations, "append")
    running = Running(keeping, asked)
    await gate.reached.wait()
    running.turn.cancel()
    gate.opened.set()
    await running.task
    assert running.turn.settled.is_set()
    assert last(running.sink.stream)["status"] == "completed"
    assert await texts(keeping, name) == ["before", "Hi", "Hello"]


@every_told_kind
async def test_the_servers_stop_is_the_failure_that_is_told(keeping: Keeping, kind: str) -> None:
    asked, name = await planned(keeping, kind)
    running = Running(keeping, asked, (*HALF, asyncio.Event()))
    await running.sink.told.wait()
    running.stop(STOP)
    await running.task
    assert running.turn.failure is STOP
    assert last(running.sink.stream)["status"] == "failed"
    assert await is_free(keeping, name)


@every_kind
async def test_the_servers_stop_before_anything_was_said_leaves_no_trace(
    keeping: Keeping, folder: Path, kind: str
) -> None:
    asked, name = await planned(keeping, kind)
    running = Running(keeping, asked, (asyncio.Event(),))
    await running.provider.asked.wait()
    running.stop(STOP)
    with pytest.raises(asyncio.CancelledError):
        await running.task
    await nothing_is_left(keeping, folder, name)


@every_kind
async def test_the_servers_stop_lets_an_end_be_stored_and_told(keeping: Keeping, kind: str) -> None:
    asked, name = await planned(keeping, kind)
    gate = Gate(keeping.conversations, "unlock") if "not stored" in kind else Gate(keeping.responses, "finish")
    running = Running(keeping, asked)
    await gate.reached.wait()
    running.stop(STOP)
    gate.opened.set()
    await running.task
    assert running.turn.response["status"] == "completed"
    assert running.turn.failure is None
    assert not asked.told or last(running.sink.stream)["status"] == "completed"
    assert await texts(keeping, name) == ["before", "Hi", "Hello"]


@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_a_client_that_reads_slowly_gets_every_event_whatever_ends_it(
    keeping: Keeping, at: int, how: str
) -> None:
    running = Running(keeping, plan(), (delta("a"), delta("b"), delta("c"), delta("d"), asyncio.Event()), Sink(at))
    await running.sink.waits.wait()
    if how == "stop":
        running.stop(STOP)
    else:
        running.turn.cancel()
    running.sink.gate.set()
    await running.task
    assert last(running.sink.stream) == running.turn.response
    assert (await stored(keeping, running.turn)).events == running.sink.stream


# Storage that fails


@every_kind
async def test_what_cannot_be_stored_at_its_beginning_is_an_error_and_leaves_no_trace(
    keeping: Keeping, folder: Path, kind: str
) -> None:
    asked, name = await planned(keeping, kind, in_conversation="not stored" not in kind)
    if not asked.parsed.store:
        await finished(keeping, asked)
        return
    with failing(keeping.responses, "create"), pytest.raises(ApiError) as caught:
        await finished(keeping, asked)
    assert caught.value.code == "storage_failed"
    await nothing_is_left(keeping, folder, name)


async def test_a_full_disk_at_the_beginning_is_an_error_and_leaves_no_trace(keeping: Keeping, folder: Path) -> None:
    asked, name = await planned(keeping, "stream")
    with full_disk(10), pytest.raises(ApiError) as caught:
        await finished(keeping, asked)
    assert caught.value.code == "storage_failed"
    await nothing_is_left(keeping, folder, name)


async def test_a_response_in_the_background_that_a_full_disk_keeps_out_leaves_no_trace(
    keeping: Keeping, folder: Path
) -> None:
    name = await conversation(keeping, message("msg_1", "before"))
    asked = await keeping.plan(plan(background=True, conversation=name))
    turn = Turn(asked, keeping, lambda error: error)
    with full_disk(10), pytest.raises(ApiError):
        await turn.accept()
    await keeping.withdraw(asked)
    await nothing_is_left(keeping, folder, name)


async def test_a_whole_answer_is_stored_with_its_items_or_not_at_all(keeping: Keeping, folder: Path) -> None:
    asked, name = await planned(keeping, "plain")
    with failing(keeping.responses, "finish"), pytest.raises(ApiError):
        await finished(keeping, asked)
    await nothing_is_left(keeping, folder, name)


@pytest.mark.parametrize("way", [delta, Short])
@pytest.mark.parametrize("room", [3000, 4000, 4100, 4200])
async def test_a_disk_that_fills_up_in_mid_stream_fails_the_response_without_a_gap(
    keeping: Keeping, folder: Path, room: int, way: Callable[[str], Step]
) -> None:
    asked, name = await planned(keeping, "stream")
    with full_disk(room):
        turn, sink = await finished(keeping, asked, (*(way(f"word {i} ") for i in range(100)), finish(), usage()))
    assert turn.failure is not None
    assert turn.failure.code == "storage_failed"
    assert last(sink.stream) == turn.response
    assert turn.response["status"] == "failed"
    row = await stored(keeping, turn)
    assert (row.status, row.response, row.events) == ("failed", turn.response, sink.stream)
    assert await is_free(keeping, name)
    assert list((folder / "responses").iterdir()) == []


ENDS: dict[str, tuple[Sequence[Step], Callable[[Running], Any] | None]] = {
    "whole": (WHOLE, None),
    "failed": ((*HALF, ApiError("engine_failed")), None),
    "cancelled": ((*HALF, asyncio.Event()), lambda running: running.turn.cancel()),
    "stopped": ((*HALF, asyncio.Event()), lambda running: running.stop(STOP)),
}


@pytest.mark.parametrize("name_of_end", ENDS)
@pytest.mark.parametrize("error", [FAILURE, RuntimeError(SECRET)], ids=["failure", "bug"])
async def test_an_end_that_cannot_be_stored_is_told_as_a_failure_and_stored_when_it_can_be(
    keeping: Keeping, folder: Path, name_of_end: str, error: Exception
) -> None:
    script, end = ENDS[name_of_end]
    asked, name = await planned(keeping, "stream")
    with failing(keeping.responses, "finish", error=error):
        running = Running(keeping, asked, script)
        await running.sink.told.wait()
        if end is not None:
            end(running)
        await running.task
    turn, stream = running.turn, running.sink.stream
    assert turn.settled.is_set()
    assert turn.failure is not None
    assert turn.failure.code == ("storage_failed" if error is FAILURE else "internal_error")
    assert last(stream) == turn.response
    assert turn.response["status"] == "failed"
    assert SECRET not in stream.decode()
    assert (await stored(keeping, turn)).status == "in_progress"
    assert await _heard(turn) == stream
    assert not await is_free(keeping, name)

    await keeping.mend()
    row = await stored(keeping, turn)
    assert (row.status, row.response, row.events) == ("failed", turn.response, stream)
    assert await is_free(keeping, name)
    assert await texts(keeping, name) == ["before"]
    assert keeping.running == {}
    assert list((folder / "responses").iterdir()) == []
    assert turn.live is not None
    assert turn.live._journal._descriptor < 0


async def test_a_conversation_that_cannot_take_the_items_fails_the_turn(keeping: Keeping) -> None:
    asked, name = await planned(keeping, "stream, not stored")
    with failing(keeping.conversations, "append"):
        turn, sink = await finished(keeping, asked)
    assert turn.failure is not None
    assert turn.failure.code == "storage_failed"
    assert last(sink.stream)["status"] == "failed"
    assert await is_free(keeping, name)


@every_kind
async def test_a_conversation_that_cannot_be_freed_is_freed_later_and_the_failure_is_told_as_it_was(
    keeping: Keeping, kind: str
) -> None:
    asked, name = await planned(keeping, kind)
    with failing(keeping.conversations, "unlock"), pytest.raises(ApiError) as caught:
        await finished(keeping, asked, (ApiError("engine_failed"),))
    assert caught.value.code == "engine_failed"
    assert not await is_free(keeping, name)
    await keeping.mend()
    assert await is_free(keeping, name)


async def test_a_conversation_that_was_deleted_meanwhile_hides_no_failure(keeping: Keeping) -> None:
    asked, name = await planned(keeping, "stream, not stored")
    gate = asyncio.Event()
    running = Running(keeping, asked, (*HALF, gate, ApiError("engine_failed")))
    await running.sink.told.wait()
    await keeping.conversations.delete("", name)
    gate.set()
    await running.task
    assert running.turn.failure is not None
    assert running.turn.failure.code == "engine_failed"


# In the background


async def test_a_response_in_the_background_is_known_once_it_is_accepted(keeping: Keeping) -> None:
    running = Running(keeping, plan(background=True), (asyncio.Event(),))
    await running.accepted.wait()
    row = await stored(keeping, running.turn)
    assert (row.status, row.background) == ("queued", True)
    assert keeping.running == {running.turn.plan.id: running.turn}
    await running.turn.start()
    assert (await stored(keeping, running.turn)).status == "in_progress"
    assert running.turn.response["status"] == "in_progress"
    running.turn.cancel()
    running.go.set()
    await running.task
    events = [one["type"] for one in read((await stored(keeping, running.turn)).events)]
    assert events == ["response.created", "response.queued", "response.in_progress", "response.incomplete"]


async def test_the_kept_events_do_not_grow_where_nothing_is_stored(keeping: Keeping) -> None:
    turn, _ = await finished(keeping, plan(told=False, store=False))
    assert turn.kept == []
