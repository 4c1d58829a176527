"""The connection over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop
from tests.support.upstream import CHAT, chat, connected, exchange, has_ended
from tests.support.web import get, post

from coterie.dialects.chat_validator import judge
from coterie.testbed.upstream import FaultyUpstream


async def test_one_connection_carries_many_answers() -> None:
    async with FaultyUpstream() as upstream, connected(upstream) as wire:
        for model in ("ok", "unavailable", "split:tokens=3", "ok"):
            answer = await wire.ask(post(CHAT, chat(model, stream=True)))
            if answer.status == 200:
                assert judge(answer.body, include_usage=False) == []
        assert [entry.status for entry in upstream.log] == [200, 503, 200, 200]
        assert upstream.connections == 1


async def test_requests_may_be_sent_together() -> None:
    async with FaultyUpstream() as upstream, connected(upstream) as wire:
        await wire.send(b"".join(post(CHAT, chat(f"ok:tokens={number}")) for number in range(1, 40)))
        for number in range(1, 40):
            assert (await wire.answer()).json["usage"]["completion_tokens"] == number


async def test_a_body_may_wait_for_a_word() -> None:
    async with FaultyUpstream() as upstream, connected(upstream) as wire:
        request = post(CHAT, chat("ok"), expect="100-continue")
        head, _, body = request.partition(b"\r\n\r\n")
        await wire.send(head + b"\r\n\r\n")
        assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await wire.ask(body)).status == 200


@pytest.mark.parametrize("request_bytes", [b"what is this\r\n\r\n", get("/" + "x" * 100_000)])
async def test_what_cannot_be_read_is_refused(request_bytes: bytes) -> None:
    async with FaultyUpstream() as upstream, connected(upstream) as wire:
        assert (await wire.ask(request_bytes)).status == 400
        assert await wire.at_end()


async def test_a_client_that_closes_is_seen_at_its_token() -> None:
    async with FaultyUpstream() as upstream:
        async with connected(upstream) as wire:
            await wire.send(post(CHAT, chat("stall@5", stream=True)))
            await upstream.saw(lambda entry: entry.tokens_sent == 5)
        (entry,) = await upstream.saw(has_ended)
        assert (entry.ended, entry.tokens_sent) == ("client_closed", 5)


async def test_a_silent_upstream_until_the_client_goes() -> None:
    async with FaultyUpstream() as upstream:
        async with connected(upstream) as wire:
            await wire.send(post(CHAT, chat("silent")))
            (entry,) = await upstream.saw(lambda entry: entry.fault == "silent")
            assert (entry.status, entry.ended) == (None, None)
        await upstream.saw(has_ended)
        assert entry.ended == "client_closed"


async def test_a_client_that_does_not_read_holds_its_answer_back() -> None:
    async with FaultyUpstream() as upstream, connected(upstream) as wire:
        await wire.send(post(CHAT, chat("huge@60:tokens=100", stream=True)))
        await upstream.saw(lambda entry: entry.tokens_sent == 1)
        async with connected(upstream) as other:
            await other.ask(post(CHAT, chat("ok", stream=True)))
        assert upstream.log[0].tokens_sent == 1
        tail = b""
        while not tail.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            tail = tail[-100:] + await wire.reader.read(1_000_000)
        (entry,) = await upstream.saw(lambda entry: entry.fault == "huge" and entry.ended is not None)
        assert (entry.ended, entry.tokens_sent) == ("done", 100)


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("at", [0, 7, 40])
def test_all_that_was_sent_arrives_before_the_reset(
    at: int, make_loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio, "new_event_loop", make_loop)
    with FaultyUpstream() as upstream:
        received, reset = exchange(upstream, post(CHAT, chat(f"cut@{at}", stream=True)))
        assert reset
        assert received.count(b'"content":" w') == at
        (entry,) = upstream.wait_for(has_ended)
        assert (entry.ended, entry.tokens_sent) == ("fault", at)


def test_much_that_was_sent_arrives_before_the_reset() -> None:
    with FaultyUpstream() as upstream:
        tokens = 30_000
        received, reset = exchange(upstream, post(CHAT, chat(f"cut@{tokens}:tokens={tokens}", stream=True)))
        assert reset
        assert received.count(b'"content":" w') == tokens


def test_a_reset_before_any_byte() -> None:
    with FaultyUpstream() as upstream:
        assert exchange(upstream, post(CHAT, chat("reset"))) == (b"", True)


def test_a_clean_close_has_no_last_chunk() -> None:
    with FaultyUpstream() as upstream:
        received, reset = exchange(upstream, post(CHAT, chat("close@3", stream=True)))
        assert not reset
        assert received.count(b'"content":" w') == 3
        assert not received.endswith(b"0\r\n\r\n")
        assert upstream.wait_for(has_ended)[0].ended == "fault"


def test_a_request_may_ask_to_close() -> None:
    with FaultyUpstream() as upstream:
        received, reset = exchange(upstream, post(CHAT, chat("ok"), connection="close"))
        assert (received[:12], reset) == (b"HTTP/1.1 200", False)
