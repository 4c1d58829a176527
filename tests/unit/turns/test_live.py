"""Events of a running response: for whom they come, and what is left of them where the journal fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.responding import full_disk

from coterie.errors import ApiError
from coterie.errors.render import DONE
from coterie.storage.journal import Journal, JournalFile
from coterie.turns import live as live_module
from coterie.turns.live import Live, replay

EVENTS = [b"event: %d\ndata: {}\n\n" % number for number in range(5)]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[JournalFile]:
    file = Journal(tmp_path).open("resp_1")
    yield file
    file.close()


def is_open(file: JournalFile) -> bool:
    return file._descriptor >= 0


async def heard(live: Live, after: int = -1) -> list[bytes]:
    with live.listening():
        return [event async for event in live.follow(after)]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("after", range(-1, 7))
@pytest.mark.parametrize("before", range(6), ids="{} events before".format)
async def test_a_listener_hears_what_it_has_not_from_any_moment_on(file: JournalFile, before: int, after: int) -> None:
    live = Live(file)
    live.say(EVENTS[:before])
    listening = asyncio.create_task(heard(live, after))
    await settled()
    for event in EVENTS[before:]:
        live.say([event])
        await settled()
    live.end([DONE])
    assert await listening == [*EVENTS[after + 1 :], DONE]


async def test_an_event_is_heard_before_the_next_is_said(file: JournalFile) -> None:
    live = Live(file)
    with live.listening():
        events = live.follow(-1)
        for event in EVENTS:
            hearing = asyncio.ensure_future(anext(events))
            await settled()
            assert not hearing.done()
            live.say([event])
            assert await hearing == event
        await events.aclose()


async def test_several_listen_each_at_its_own_pace(file: JournalFile) -> None:
    live = Live(file)
    live.say(EVENTS[:1])
    with live.listening():
        slow = live.follow(-1)
        assert await anext(slow) == EVENTS[0]
        fast = [asyncio.create_task(heard(live)) for _ in range(3)]
        await settled()
        live.say(EVENTS[1:])
        live.end([DONE])
        assert await asyncio.gather(*fast) == [[*EVENTS, DONE]] * 3
        assert is_open(file)
        assert [event async for event in slow] == [*EVENTS[1:], DONE]
    assert not is_open(file)


async def test_a_listener_that_is_cancelled_disturbs_nobody(file: JournalFile) -> None:
    live = Live(file)
    leaves, stays = asyncio.create_task(heard(live)), asyncio.create_task(heard(live))
    await settled()
    leaves.cancel()
    await settled()
    live.say(EVENTS)
    live.end([DONE])
    assert leaves.cancelled()
    assert await stays == [*EVENTS, DONE]
    assert not is_open(file)


def test_what_was_said_is_in_the_journal_when_it_was_said(file: JournalFile, tmp_path: Path) -> None:
    live = Live(file)
    live.say(EVENTS[:2])
    assert Journal(tmp_path).left() == {"resp_1": b"".join(EVENTS[:2])}
    assert live.said() == b"".join(EVENTS[:2])


def test_without_listeners_the_end_closes_the_journal(file: JournalFile) -> None:
    live = Live(file)
    live.say(EVENTS)
    assert is_open(file)
    live.end([DONE])
    assert not is_open(file)


async def test_who_listens_before_the_end_finds_the_events_after_it(file: JournalFile) -> None:
    live = Live(file)
    live.say(EVENTS)
    with live.listening():
        live.forget()
        live.end([DONE])
        assert [event async for event in live.follow(2)] == [*EVENTS[3:], DONE]


async def test_what_is_held_is_closed_when_it_is_released(file: JournalFile) -> None:
    live = Live(file)
    live.held = True
    live.say(EVENTS)
    live.end([DONE])
    assert await heard(live) == [*EVENTS, DONE]
    assert live.said() == b"".join((*EVENTS, DONE))
    live.release()
    assert not is_open(file)


@pytest.mark.parametrize("room", [0, 1, len(EVENTS[0]), len(EVENTS[0]) + 3])
@pytest.mark.parametrize("space_again", [True, False])
async def test_a_journal_that_fails_holds_whole_events_and_the_end_is_heard(
    file: JournalFile, tmp_path: Path, room: int, space_again: bool
) -> None:
    live = Live(file)
    live.held = True
    live.say(EVENTS[:2])
    listening = asyncio.create_task(heard(live))
    await settled()
    with full_disk(room):
        with pytest.raises(ApiError, match="storage"):
            live.say(EVENTS[2:4])
        assert live.said() == b"".join(EVENTS[:2])
        if not space_again:
            live.end([EVENTS[4], DONE])
    if space_again:
        live.end([EVENTS[4], DONE])
    assert await listening == [*EVENTS[:2], EVENTS[4], DONE]
    assert live.said() == b"".join((*EVENTS[:2], EVENTS[4], DONE))
    live.release()


@given(after=st.integers(-2, 9), count=st.integers(0, 5))
def test_a_replay_is_what_a_listener_heard(after: int, count: int) -> None:
    stream = b"".join((*EVENTS[:count], DONE))
    assert list(replay(stream, after)) == [*EVENTS[:count][max(0, after + 1) :], DONE]


@pytest.mark.parametrize("size", [1, 7, 22, 23, 1000])
@pytest.mark.parametrize("failed", [False, True], ids=["", "the journal fails"])
async def test_a_listener_reads_a_block_at_a_time(
    file: JournalFile, monkeypatch: pytest.MonkeyPatch, size: int, failed: bool
) -> None:
    monkeypatch.setattr(live_module, "_BLOCK_BYTES", size)
    blocks: list[int] = []
    read = file.read

    def counted(offset: int, most: int | None = None) -> bytes:
        data = read(offset, most)
        blocks.append(len(data))
        return data

    file.read = counted  # type: ignore[method-assign]
    live = Live(file)
    live.held = True
    live.say(EVENTS[:3])
    listening = asyncio.create_task(heard(live))
    await settled()
    live.say(EVENTS[3:])
    with full_disk(0 if failed else 10_000):
        live.end([DONE])
    assert await listening == [*EVENTS, DONE]
    assert max(blocks) <= size
    assert live.said() == b"".join((*EVENTS, DONE))
    live.release()


async def test_a_journal_that_cannot_be_deleted_is_no_failure(
    file: JournalFile, caplog: pytest.LogCaptureFixture
) -> None:
    def forget() -> None:
        raise PermissionError("no")

    file.forget = forget  # type: ignore[method-assign]
    Live(file).forget()
    assert "a journal was not deleted" in caplog.text
