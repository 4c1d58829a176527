"""The HTTP provider against an upstream that misbehaves, and against one whose every byte is scripted."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.support.raw_server import AUTHORITY, Peer, raw_server
from tests.support.waiting import until

from coterie.config import ConfigError, DispatchSettings, ProviderSettings
from coterie.dispatch.health import HealthState
from coterie.dispatch.router import Router
from coterie.dispatch.seats import now_s
from coterie.errors import ApiError, Retry
from coterie.observe.timing import Timing
from coterie.providers.deadlines import Deadlines
from coterie.providers.http import HttpProvider, provider_from
from coterie.testbed.answers import answer_text
from coterie.testbed.faults import ERROR_STYLES, FAULTS, OVERFLOW_STYLES
from coterie.testbed.log import digest
from coterie.testbed.upstream import FaultyUpstream
from coterie.wire.choices import Choices
from coterie.wire.lingua import Chunk, Embedding, Generation, Shortcut

pytestmark = pytest.mark.timeout(60)


def settings(base_url: str, **fields: Any) -> ProviderSettings:
    return ProviderSettings.model_validate({"name": "p", "base_url": base_url, "models": ["m"], **fields})


def provider_for(base_url: str, **fields: Any) -> HttpProvider:
    return HttpProvider(settings(base_url, **fields))


def generation(model: str = "m", **fields: Any) -> Generation:
    return Generation(model, {"messages": [{"role": "user", "content": "hi"}]}, **fields)


async def taken(provider: HttpProvider, asked: Generation | None = None) -> tuple[str, list[str], ApiError | None]:
    """Text, finish reasons and failure of an answer; the chunks keep the rules of every stream."""
    asked = asked or generation()
    choices, said = Choices(asked.choices), list[dict[str, Any]]()
    failure = None
    try:
        async with contextlib.aclosing(provider.generate(asked)) as chunks:
            async for chunk in chunks:
                said += choices.admit(chunk)
        choices.check_whole()
    except ApiError as error:
        failure = error
    text = "".join(choice["delta"].get("content", "") for choice in said)
    return text, [choice["finish_reason"] for choice in said if choice["finish_reason"]], failure


def code_of(failure: ApiError | None) -> str | None:
    return None if failure is None else failure.code


async def at_rest(provider: HttpProvider) -> None:
    """Wait until no connection is in use."""
    await until(lambda: provider._pool.connections_open == provider._pool.connections_idle, 10)


@contextlib.asynccontextmanager
async def facing(fault: str, **fields: Any) -> AsyncIterator[tuple[HttpProvider, FaultyUpstream]]:
    """A provider of the model "m" that has ``fault``; all of its connections are idle in the end, or closed."""
    async with FaultyUpstream(models={"m": fault}) as upstream:
        provider = provider_for(upstream.base_url, **fields)
        try:
            yield provider, upstream
            await at_rest(provider)
        finally:
            await provider.stop()
        await until(lambda: provider._pool.connections_open == 0, 10)


# Every fault

WHOLE = None
BROKEN = "upstream_stream_interrupted"
GARBAGE = "upstream_protocol_error"

OUTCOMES: dict[str, tuple[str | None, int]] = {
    "ok": (WHOLE, 60),
    "rate-limit": ("rate_limit_exceeded", 0),
    "rate-limit-bare": ("rate_limit_exceeded", 0),
    "error-once": ("upstream_error", 0),
    "unavailable": ("server_is_overloaded", 0),
    "reset": ("upstream_unreachable", 0),
    "silent": ("upstream_timeout", 0),
    "unauthorized": ("upstream_auth_failed", 0),
    "no-model": ("upstream_model_unavailable", 0),
    "no-credit": ("upstream_quota_exhausted", 0),
    "no-credit:style=openai": ("upstream_quota_exhausted", 0),
    "overflow": ("context_length_exceeded", 0),
    "overflow:style=vllm": ("context_length_exceeded", 0),
    "filter": ("content_policy_violation", 0),
    "html": ("upstream_error", 0),
    "redirect": ("upstream_error", 0),
    "endless-headers": (GARBAGE, 0),
    "blank": ("upstream_empty_response", 0),
    "flap@1": ("server_is_overloaded", 0),
    "flap@2": (WHOLE, 60),
    "slow-first@0.01": (WHOLE, 60),
    "slow-first@30": ("upstream_timeout", 0),
    "slow-first@30:before=headers": ("upstream_timeout", 0),
    "cut": (BROKEN, 40),
    "cut@0": (BROKEN, 0),
    "close": (BROKEN, 40),
    "end": (BROKEN, 40),
    "end@0": ("upstream_empty_response", 0),
    "stall@5:seconds=30": ("upstream_timeout", 5),
    "role-only": (BROKEN, 0),
    "role-only:then=close": (BROKEN, 0),
    "role-only:then=end": ("upstream_empty_response", 0),
    "role-only:then=error": ("upstream_error", 0),
    "empty": ("upstream_empty_response", 0),
    "malformed": (GARBAGE, 40),
    "bad-utf8": (GARBAGE, 40),
    "truncated": (WHOLE, 60),  # only to plain answers
    "no-done": (WHOLE, 60),
    "no-finish": (BROKEN, 60),
    "double-finish": (WHOLE, 60),
    "after-finish": (GARBAGE, 60),
    "finish-error": ("upstream_error", 40),
    "filter-finish": (WHOLE, 40),
    "error-event": ("upstream_error", 0),
    "error-event@7:style=vllm": ("upstream_error", 7),
    "error-event@7:style=openrouter": ("upstream_error", 7),
    "error-body": (WHOLE, 60),  # only to plain answers
    "wrong-type": (GARBAGE, 0),
    "wrong-type:as=json": (WHOLE, 60),
    "no-usage": (WHOLE, 60),
    "no-continue": (WHOLE, 60),
    "split": (WHOLE, 60),
    "coalesce": (WHOLE, 60),
    "coalesce@7": (WHOLE, 60),
    "crlf": (WHOLE, 60),
    "comments": (WHOLE, 60),
    "bom": (WHOLE, 60),
    "huge": (GARBAGE, 1),
    "tool-cut": (BROKEN, 0),
}
"""What becomes of each fault: the failure, and the tokens before it."""


def test_every_fault_is_looked_at() -> None:
    assert {name.partition("@")[0].partition(":")[0] for name in OUTCOMES} | {"tool-call"} == FAULTS.keys()


@pytest.mark.parametrize(("fault", "outcome"), OUTCOMES.items(), ids=OUTCOMES.keys())
async def test_a_fault_is_a_whole_answer_or_one_failure(fault: str, outcome: tuple[str | None, int]) -> None:
    late = {"first_token_timeout_s": 0.1} if "@30" in fault or fault == "silent" else {}
    if fault.startswith("stall"):
        late = {"idle_timeout_s": 0.1}
    code, tokens = outcome
    async with facing(fault, **late) as (provider, upstream):
        text, finish, failure = await taken(provider)
        assert (code_of(failure), text) == (code, answer_text(tokens))
        if code is WHOLE:
            assert finish == ["content_filter" if fault == "filter-finish" else "stop"]
        assert len(upstream.log) == 1  # nothing is sent twice, and no redirect followed


async def test_a_call_of_a_tool() -> None:
    async with facing("tool-call") as (provider, _):
        assert await taken(provider) == ("", ["tool_calls"], None)


async def test_several_choices_and_text_completions() -> None:
    async with facing("ok:tokens=3") as (provider, upstream):
        text, finish, failure = await taken(provider, generation(n=2))
        assert (failure, len(text), finish) == (None, 2 * len(answer_text(3)), ["stop"] * 2)
        prompt = Generation("m", {}, prompts=("once upon",))
        assert await taken(provider, prompt) == (answer_text(3), ["stop"], None)
        assert [entry.path for entry in upstream.log] == ["/v1/chat/completions", "/v1/completions"]


# Connections


async def test_a_connection_is_used_again_after_a_good_stream() -> None:
    async with facing("ok:tokens=3") as (provider, upstream):
        for _ in range(5):
            assert (await taken(provider))[2] is None
            await at_rest(provider)
        assert (provider._pool.connections_made, provider._pool.connections_reused) == (1, 4)
        assert {entry.ended for entry in upstream.log} == {"done"}


async def test_and_after_a_failure_that_was_told_in_full() -> None:
    async with facing("unavailable") as (provider, _):
        for _ in range(3):
            assert code_of((await taken(provider))[2]) == "server_is_overloaded"
        assert provider._pool.connections_made == 1


def event(content: str | None, finish: str | None = None) -> bytes:
    delta = {} if content is None else {"content": content}
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}) + b"\n\n"


def piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
LAST = b"0\r\n\r\n"

Script = Callable[[Peer], Awaitable[None]]


@contextlib.asynccontextmanager
async def scripted(script: Script, **fields: Any) -> AsyncIterator[HttpProvider]:
    async with raw_server(script) as server:
        provider = provider_for(f"http://127.0.0.1:{server.origin.port}/v1", **fields)
        try:
            yield provider
        finally:
            await provider.stop()


async def test_the_end_of_the_body_may_come_after_done() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM, piece(event("a", "stop") + DONE))
        await go_on.wait()
        await peer.say(LAST)
        await peer.answer(STREAM, piece(event("b", "stop") + DONE), LAST)
        await peer.closed()

    async with scripted(script) as provider:
        assert await taken(provider) == ("a", ["stop"], None)  # it is not waited for
        assert (provider._pool.connections_open, provider._pool.connections_idle) == (1, 0)
        go_on.set()
        await at_rest(provider)
        assert await taken(provider) == ("b", ["stop"], None)
        assert provider._pool.connections_made == 1


async def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.providers.http_call._LINGER_S", 0.01)
    cut = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM, piece(event("a", "stop") + DONE))
        await peer.closed()
        cut.set()

    async with scripted(script) as provider:
        assert await taken(provider) == ("a", ["stop"], None)
        await asyncio.wait_for(cut.wait(), 10)
        assert provider._pool.connections_open == 0


@pytest.mark.parametrize("chunks", [0, 1, 2, 10])
async def test_closing_the_iterator_cuts_the_connection(chunks: int) -> None:
    async with facing("ok:tokens=100000:rate=500") as (provider, upstream):
        answer = provider.generate(generation())
        for _ in range(chunks):
            await anext(answer)
        await answer.aclose()
        if chunks:
            (entry,) = await upstream.saw(lambda entry: entry.ended is not None, timeout_s=10)
            assert entry.ended == "client_closed"
            assert provider._pool.connections_idle == 0
        else:
            assert upstream.log == []


@pytest.mark.parametrize("fault", ["silent", "stall@3:seconds=60", "slow-first@60", "slow-first@60:before=headers"])
async def test_cancelling_the_reader_cuts_the_connection(fault: str) -> None:
    async with facing(fault) as (provider, upstream):
        reader = asyncio.create_task(taken(provider))
        await upstream.saw(lambda entry: entry.tokens_sent == 3 or not fault.startswith("stall"), timeout_s=10)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        (entry,) = await upstream.saw(lambda entry: entry.ended is not None, timeout_s=10)
        assert entry.ended == "client_closed"


async def test_running_answers_outlive_the_stop() -> None:
    async with facing("ok:tokens=5:rate=200") as (provider, _):
        answer = provider.generate(generation())
        chunks = [await anext(answer)]
        await provider.stop()
        chunks += [chunk async for chunk in answer]
        assert chunks[-1]["usage"]["completion_tokens"] == 5
        assert code_of((await taken(provider))[2]) == BROKEN  # the pool is closed


# Habits of servers


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_server_that_ignores_n_is_asked_once_and_keeps_its_name(streamed: bool) -> None:
    whole = orjson.dumps({"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]})
    as_json = [JSON, b"content-length: %d\r\n\r\n" % len(whole), whole]
    as_stream = [STREAM, piece(event("a", "stop") + DONE), LAST]
    requests: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            requests.append(await peer.request())
            await peer.say(*(as_stream if len(requests) % 2 else as_json))

    async with scripted(script) as one, scripted(script) as other:
        other.name = "q"
        router = Router([one, other], DispatchSettings(attempts=10, open_after=1))
        timing = Timing()
        with pytest.raises(ApiError) as caught:
            _ = [chunk async for chunk in router.generate(generation(n=3, streamed=streamed), timing)]
        assert (caught.value.code, caught.value.retry) == (BROKEN, Retry.NEVER)
        assert "gives 1 of 3 choices" in caught.value.message
        asked = [attempt.provider for attempt in timing.attempts]
        assert len(asked) == (1 if streamed else 2)
        assert len({*asked}) == len(asked) == len(requests)
        for candidate in router.candidates(generation()):
            assert candidate.health.state(now_s()) is HealthState.CLOSED
            assert candidate.health.blame(now_s()) == 0


async def test_usage_with_every_token_is_asked_for_and_given_to_dispatch() -> None:
    counts = [{"prompt_tokens": 5, "completion_tokens": n, "total_tokens": 5 + n} for n in (3, 4)]
    pieces = [event("a"), event(None, "stop")]
    events = [{**orjson.loads(said[6:]), "usage": usage} for said, usage in zip(pieces, counts, strict=True)]
    requests: list[bytes] = []

    async def script(peer: Peer) -> None:
        said = b"".join(b"data: " + orjson.dumps(each) + b"\n\n" for each in events)
        while True:
            requests.append(await peer.request())
            await peer.say(STREAM, piece(said + DONE), LAST)

    for asked in (True, False):
        async with scripted(script, continuous_usage=asked) as provider:
            chunks = [chunk async for chunk in provider.generate(generation())]
            assert (b'"continuous_usage_stats":true' in requests[-1]) is asked
            assert [chunk.get("usage") for chunk in chunks] == [*(counts if asked else (None, None)), counts[1]]


@pytest.mark.parametrize("asked", [True, False])
async def test_an_answer_goes_on_with_the_tokens_that_are_left_by_that_count(asked: bool) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    several = {**orjson.loads(event("one two three")[6:]), "usage": usage}
    requests: list[bytes] = []

    async def breaks(peer: Peer) -> None:
        await peer.answer(STREAM, piece(b"data: " + orjson.dumps(several) + b"\n\n"), LAST)

    async def goes_on(peer: Peer) -> None:
        requests.append(await peer.request())
        await peer.say(STREAM, piece(event(" four", "stop") + DONE), LAST)

    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
    async with (
        scripted(breaks, continuous_usage=asked) as one,
        scripted(goes_on, priority=1) as other,
    ):
        other.name = "q"
        chunks, failure = list[Chunk](), None
        try:
            async for chunk in Router([one, other]).generate(Generation("m", body), Timing()):
                chunks.append(chunk)
        except ApiError as error:
            failure = error
        assert "usage" not in chunks[0]
        assert code_of(failure) == (None if asked else BROKEN)
        assert [b'"max_tokens":7' in request for request in requests] == ([True] if asked else [])


async def test_a_field_that_nobody_knows_is_no_token_after_a_finish_reason_either() -> None:
    late = b'data: {"choices": [{"index": 0, "delta": {}, "x": 1}]}\n\n'

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM, piece(event("a", "stop")))
        with contextlib.suppress(OSError):
            while True:
                await peer.say(piece(late))
                await asyncio.sleep(0.01)

    async with scripted(script, idle_timeout_s=0.1, total_timeout_s=5) as provider:
        text, finish, failure = await taken(provider, generation(n=2))
        assert (text, finish, code_of(failure)) == ("a", ["stop"], "upstream_timeout")


# Deadlines


async def test_each_deadline_has_its_own_failure() -> None:
    async with facing("silent", first_token_timeout_s=0.02) as (provider, _):
        failure = (await taken(provider))[2]
        assert failure is not None
        assert (failure.code, "No first token came within 0.02 seconds" in failure.message) == (
            "upstream_timeout",
            True,
        )
    async with facing("stall@2:seconds=60", idle_timeout_s=0.1) as (provider, _):
        text, _, failure = await taken(provider)
        assert failure is not None
        assert (failure.code, "after the last token came within 0.1" in failure.message) == ("upstream_timeout", True)
        assert text == answer_text(2)
    async with facing("ok:tokens=100000:rate=200", total_timeout_s=0.1) as (provider, upstream):
        text, _, failure = await taken(provider)
        assert failure is not None
        assert (failure.code, "within 0.1 seconds" in failure.message) == ("upstream_total_timeout", True)
        (entry,) = await upstream.saw(lambda entry: entry.ended is not None, timeout_s=10)
        assert entry.ended == "client_closed"


async def test_the_deadline_for_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        provider = provider_for(url, connect_timeout_s=0.05)  # a handshake that nobody answers
        assert code_of((await taken(provider))[2]) == "upstream_connect_timeout"
    assert code_of((await taken(provider))[2]) == "upstream_unreachable"
    await provider.stop()


SILENT = {
    "comments": b": keep-alive\n\n",
    "roles": b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n',
    "fields that nobody knows": b'data: {"choices":[],"progress":1}\n\n',
    "usage": b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":0,"total_tokens":1}}\n\n',
    "a choice's fields": b'data: {"choices":[{"index":0,"delta":{},"finish_reason":null,"filter":{}}]}\n\n',
}


@pytest.mark.parametrize("silent", SILENT.values(), ids=SILENT.keys())
@pytest.mark.parametrize("begun", [False, True], ids=["before the first", "after a token"])
async def test_what_says_nothing_is_no_token(silent: bytes, begun: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(STREAM, *([piece(event("a"))] if begun else []))
        while True:
            await peer.say(piece(silent))
            await asyncio.sleep(0.005)

    limits = {"first_token_timeout_s": 5 if begun else 0.1, "idle_timeout_s": 0.1 if begun else 5}
    async with scripted(script, **limits, total_timeout_s=10) as provider:
        text, _, failure = await taken(provider)
        assert (text, code_of(failure)) == ("a" if begun else "", "upstream_timeout")


async def test_a_slow_reader_is_not_a_slow_provider() -> None:
    read_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM, piece(event("a") + event("b")))
        await read_on.wait()
        await peer.say(piece(event("c", "stop") + DONE), LAST)

    async with scripted(script, idle_timeout_s=0.1) as provider:
        async with contextlib.aclosing(provider.generate(generation())) as chunks:
            await anext(chunks)
            await anext(chunks)  # after the first the idle deadline is in force
            await asyncio.sleep(0.3)  # three times the deadline
            read_on.set()
            rest = [chunk async for chunk in chunks]
        assert [choice["delta"]["content"] for choice in rest[0]["choices"]] == ["c"]


async def test_nothing_is_left_to_the_garbage_collector() -> None:
    left = list[Any]()
    async with facing("ok:tokens=100000:rate=500") as (provider, _):
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=left.append)
        try:
            answer = provider.generate(generation())
            await anext(answer)
            await answer.aclose()
        finally:
            sys.set_asyncgen_hooks(*hooks)
        assert left == []


@pytest.mark.parametrize("ends", ["idle", "total", "reset", "close"])
async def test_what_becomes_of_the_connection_after_the_finish_reason_takes_nothing_from_the_answer(ends: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(STREAM, piece(event("a")), piece(event(None, "stop")))
        if ends == "reset":
            await asyncio.sleep(0.02)  # a reset may overtake what was sent before it
            peer.reset()
        elif ends != "close":
            await peer.closed()

    limits = {"idle": {"idle_timeout_s": 0.1}, "total": {"total_timeout_s": 0.3}}.get(ends, {})
    async with scripted(script, **limits) as provider:
        assert await taken(provider) == ("a", ["stop"], None)


# Failures that are told


async def test_the_body_of_a_failure_is_bounded() -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.answer(b"HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(4000):
            await peer.say(piece(b"x" * 16384))
            sent += 16384

    async with scripted(script) as provider:
        assert code_of((await taken(provider))[2]) == "server_is_overloaded"
        assert provider._pool.connections_idle == 0
    assert sent < 16_000_000


async def test_a_stream_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.providers.http._ANSWER_BYTES", 100_000)

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM)
        while True:
            await peer.say(piece(event("x" * 1000)))

    async with scripted(script) as provider:
        text, _, failure = await taken(provider)
        assert code_of(failure) == GARBAGE
        assert 50_000 < len(text) < 100_000
        assert provider._pool.connections_idle == 0


async def test_also_where_it_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.providers.http._ANSWER_BYTES", 10_000)

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM)
        while True:
            await peer.say(piece(b": nothing\n\n" * 50))

    async with scripted(script) as provider:
        assert code_of((await taken(provider))[2]) == GARBAGE


@pytest.mark.parametrize("ends", ["late", "cut"])
async def test_a_failure_is_told_by_its_status_where_its_body_does_not_come(ends: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 401 No\r\ncontent-length: 100\r\n\r\n", b"{")
        if ends == "late":
            await peer.closed()

    async with scripted(script, first_token_timeout_s=0.05) as provider:
        assert code_of((await taken(provider))[2]) == "upstream_auth_failed"


async def test_a_refusal_whose_body_stalls_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.providers.refusal.BODY_S", 0.02)

    async def script(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 503 Busy\r\ncontent-length: 100\r\n\r\n", b"{")
        await peer.closed()

    async with scripted(script, first_token_timeout_s=600) as provider:
        assert code_of((await taken(provider))[2]) == "server_is_overloaded"
        with pytest.raises(ApiError) as caught:
            await provider.embed(Embedding("m", ("a",)))
        assert caught.value.code == "server_is_overloaded"


async def test_a_refusal_that_is_cut_off_is_not_the_callers_fault() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 400 No\r\ncontent-length: 100\r\n\r\n")

    async with scripted(script) as provider:
        assert code_of((await taken(provider))[2]) == BROKEN


@pytest.mark.parametrize("kind", [b"text/event-stream", b"application/json"])
async def test_a_compressed_answer_is_none(kind: bytes) -> None:
    async def script(peer: Peer) -> None:
        packed = gzip.compress(event("a", "stop") + DONE)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
        while True:
            await peer.answer(head % (kind, len(packed)), packed)

    async with scripted(script) as provider:
        assert code_of((await taken(provider))[2]) == GARBAGE
        with pytest.raises(ApiError) as caught:
            await provider.embed(Embedding("m", ("a",)))
        assert (caught.value.code, "gzip" in (caught.value.detail or "")) == (GARBAGE, True)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 204 None\r\n\r\n", "upstream_error"),
        (JSON + b"content-length: 0\r\n\r\n", "upstream_empty_response"),
        (JSON + b"content-length: 2\r\n\r\n{}", "upstream_empty_response"),
        (JSON + b"content-length: 2\r\n\r\n[]", GARBAGE),
        (JSON + b"content-length: 9\r\n\r\n{", BROKEN),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{}", "upstream_empty_response"),
        (b"HTTP/1.1 101 Up\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", GARBAGE),
        (b"220 smtp.example.org\r\n", GARBAGE),
        (b"", "upstream_unreachable"),
        (JSON + b'content-length: 17\r\n\r\n{"error": "boom"}',
         "upstream_error"),
    ],
)  # fmt: skip
async def test_odd_answers(answer: bytes, code: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(answer)

    async with scripted(script) as provider:
        assert code_of((await taken(provider))[2]) == code


# What is sent


async def test_headers_key_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", " sk-zq7 ")
    async with FaultyUpstream(models={"there": "ok:tokens=1"}, api_key="sk-zq7") as upstream:
        provider = provider_from(
            settings(
                upstream.base_url,
                api_key_env="UPSTREAM_KEY",
                headers={"X-Team": "blue"},
                models=[{"name": "here", "upstream": "there"}],
            )
        )
        assert (await taken(provider, generation("here")))[2] is None
        await provider.stop()
        (entry,) = upstream.log
        assert entry.headers["authorization"] == f"sha256:{digest('Bearer sk-zq7')}"
        assert entry.headers["x-team"] == "blue"
        assert (entry.body["model"], entry.body["stream"], entry.body["stream_options"]) == (
            "there", True, {"include_usage": True},
        )  # fmt: skip
        assert provider.key == "sk-zq7"


@pytest.mark.parametrize("key", ["", "a\nb", "schlüssel\u20ac"])
def test_a_key_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", key)
    with pytest.raises(ConfigError) as caught:
        provider_from(settings("http://127.0.0.1:1/v1", api_key_env="UPSTREAM_KEY"))
    assert "UPSTREAM_KEY" in str(caught.value)
    assert not key or key not in str(caught.value)


async def test_certificates(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(STREAM, piece(event("a", "stop") + DONE), LAST)
        await peer.closed()

    async with raw_server(script, tls=True) as server:
        url = f"https://localhost:{server.origin.port}/v1"
        for trusted, code in ((AUTHORITY, None), (None, "upstream_unreachable")):
            provider = provider_from(settings(url, ca_file=trusted))
            assert code_of((await taken(provider))[2]) == code
            await provider.stop()
    for missing in (tmp_path / "none.pem", tmp_path):
        with pytest.raises(ConfigError) as caught:
            provider_from(settings(url, ca_file=missing))
        assert "ca_file" in str(caught.value)
    (tmp_path / "empty.pem").write_text("no certificate")
    with pytest.raises(ConfigError):
        provider_from(settings(url, ca_file=tmp_path / "empty.pem"))


async def test_what_is_offered() -> None:
    provider = provider_for(
        "http://127.0.0.1:1/v1", priority=2, weight=0.5, concurrency=7, continuation="none", models=["m"]
    )
    offer = provider.offer("m")
    assert offer is not None
    assert (offer.priority, offer.weight, offer.seats, offer.open, offer.continues) == (2, 0.5, 7, True, False)
    assert provider.offer("other") is None
    assert provider.ready()
    assert provider.status() == []
    assert [(card.id, card.owned_by) for card in provider.models()] == [("m", "p")]
    await provider.stop()


# Embeddings


async def test_embeddings() -> None:
    async with facing("ok") as (provider, upstream):
        found = await provider.embed(Embedding("m", ("one two", "three"), {"x": 1}))
        assert (len(found.vectors), len(found.vectors[0]), found.prompt_tokens) == (2, 8, 3)
        assert upstream.log[0].body["x"] == 1
        await provider.embed(Embedding("m", ("one",)))
        assert upstream.log[1].body["input"] == "one"
    async with facing("rate-limit@3") as (provider, _):
        with pytest.raises(ApiError) as caught:
            await provider.embed(Embedding("m", ("a",)))
        assert (caught.value.code, caught.value.retry_after_s) == ("rate_limit_exceeded", 3)


@pytest.mark.parametrize(
    ("said", "limits"),
    [
        ([], {"first_token_timeout_s": 0.05}),
        ([JSON + b"content-length: 9\r\n\r\n"], {"idle_timeout_s": 0.05}),
        ([JSON + b"content-length: 9\r\n\r\n", b"{"], {"idle_timeout_s": 0.05}),
    ],
    ids=["no head", "no body", "a part"],
)
async def test_embeddings_do_not_wait_for_a_silent_server(said: list[bytes], limits: dict[str, float]) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(*said)
        await peer.closed()

    async with scripted(script, **limits) as provider:
        with pytest.raises(ApiError) as caught:
            await provider.embed(Embedding("m", ("a",)))
        assert caught.value.code == "upstream_timeout"


async def test_embeddings_may_take_long_to_come() -> None:
    body = orjson.dumps({"data": [row([1])]})

    async def script(peer: Peer) -> None:
        await peer.answer(JSON + b"content-length: %d\r\n\r\n" % len(body))
        for place in range(len(body)):
            await peer.say(body[place : place + 1])
            await asyncio.sleep(0.02)

    async with scripted(script, first_token_timeout_s=0.3, idle_timeout_s=0.3) as provider:
        assert (await provider.embed(Embedding("m", ("a",)))).vectors == [[1.0]]


def row(vector: Any, index: Any = 0) -> dict[str, Any]:
    return {"index": index, "embedding": vector}


@pytest.mark.parametrize(
    ("answer", "vectors"),
    [
        ({"data": [row([2], 1), row([1, 0.5])], "usage": {"prompt_tokens": 4}}, [[1.0, 0.5], [2.0]]),
        ({"data": [row([1]), row([2], 1)]}, [[1.0], [2.0]]),
        ({"data": [row([1]), row([2])]}, None),
        ({"data": [row([1])]}, None),
        ({"data": [row([1]), row([2], 2)]}, None),
        ({"data": [row([1]), row([], 1)]}, None),
        ({"data": [row([1]), row(["2"], 1)]}, None),
        ({"data": [row([1]), row("AAAA", 1)]}, None),
        ({"data": [row([1]), row([True], 1)]}, None),
        ({"data": [row([1]), row([[1]], 1)]}, None),
        ({"data": [row([1]), row({"a": 1}, 1)]}, None),
        ({"data": [row([1]), row([2], "1")]}, None),
        ({"data": [row([1]), {"embedding": [1]}]}, None),
        ({"data": "x"}, None),
        ({}, None),
        ([1], None),
        (5, None),
        ({"data": [row([1]), row([2], 1)], "usage": "x"}, None),
        ({"data": [row([1]), row([2], 1)], "usage": {"prompt_tokens": "x"}}, [[1.0], [2.0]]),
    ],
)  # fmt: skip
async def test_what_embeddings_may_be(answer: Any, vectors: Any) -> None:
    body = orjson.dumps(answer)

    async def script(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body), body)

    async with scripted(script) as provider:
        try:
            assert (await provider.embed(Embedding("m", ("a", "b")))).vectors == vectors
        except ApiError as error:
            assert (error.code, vectors) == (GARBAGE, None)  # noqa: PT017 - either is right


# Discovery


class Listing:
    """A server that lists what a test says."""

    def __init__(self) -> None:
        self.answer: bytes | None = b"[]"
        self.asked = 0

    def says(self, *rows: dict[str, Any]) -> None:
        self.answer = orjson.dumps({"object": "list", "data": rows})

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            if self.answer is None:
                peer.reset()
            else:
                await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(self.answer), self.answer)
            self.asked += 1

    async def asked_again(self) -> None:
        asked = self.asked
        await until(lambda: self.asked >= asked + 2, 10)


def names(provider: HttpProvider) -> list[str]:
    return [card.id for card in provider.models()]


async def test_models_are_discovered_again_and_again() -> None:
    listing = Listing()
    listing.says({"id": "a", "created": 7, "owned_by": "vllm", "max_model_len": 4096}, {"id": "b"})
    async with scripted(listing, models=[], discovery_interval_s=0.01) as provider:
        assert provider.models() == []
        await provider.start()
        assert [(card.id, card.owned_by) for card in provider.models()] == [("a", "vllm"), ("b", "provider")]
        assert provider.models()[0].created == 7
        created = provider.models()[1].created
        listing.says({"id": "b", "max_model_len": 100}, {"id": "c"})
        await until(lambda: names(provider) == ["b", "c"], 10)
        assert provider.offer("a") is None
        await until(lambda: getattr(provider.offer("b"), "context_tokens", 0) == 100, 10)
        assert provider.models()[0].created == created
        listing.says({"id": "b", "max_model_len": 50}, {"id": "c"})  # the same names
        await until(lambda: getattr(provider.offer("b"), "context_tokens", 0) == 50, 10)
        listing.says()
        await until(lambda: names(provider) == [], 10)


@pytest.mark.parametrize("bad", [None, b"", b"{", b"<html>", b'{"data": 5}', b'{"error": {"message": "no"}}'])
async def test_a_list_that_cannot_be_read_leaves_the_last_one(
    bad: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    listing = Listing()
    listing.says({"id": "a"})
    async with scripted(listing, models=[], discovery_interval_s=0.01) as provider:
        await provider.start()
        listing.answer = bad
        with caplog.at_level(logging.WARNING, "coterie.providers.http"):
            await listing.asked_again()
        assert names(provider) == ["a"]
        assert "cannot be read" in caplog.text
        listing.says({"id": "b"})
        await until(lambda: names(provider) == ["b"], 10)


async def test_a_list_that_does_not_come_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.closed()

    async with scripted(script, models=[], connect_timeout_s=0.02) as provider:
        await provider.start()
        assert "did not come in time" in caplog.text
        assert provider.models() == []
        await until(lambda: provider._pool.connections_open == 0, 10)


async def test_a_server_that_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.providers.listing.FIRST_PAUSE_S", 0.01)
    listing = Listing()
    listing.answer = None
    async with scripted(listing, models=[], discovery_interval_s=3600) as provider:
        assert provider.unread
        await provider.start()
        assert (provider.models(), provider.unread) == ([], True)
        await listing.asked_again()
        assert provider.unread
        listing.says({"id": "a"})
        await until(lambda: names(provider) == ["a"], 10)
        assert not provider.unread


async def test_a_list_without_models_was_read() -> None:
    async with scripted(Listing(), models=[]) as provider:
        await provider.start()
        assert (provider.models(), provider.unread) == ([], False)


async def test_configured_models_need_no_list() -> None:
    provider = provider_for("http://127.0.0.1:1/v1")
    await provider.start()
    assert not provider.unread
    await provider.stop()


async def test_the_start_does_not_wait_for_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.providers.http._START_S", 0.01)
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await go_on.wait()
        body = b'[{"id": "a"}]'
        await peer.say(JSON + b"content-length: %d\r\n\r\n" % len(body), body)

    async with scripted(script, models=[], connect_timeout_s=30) as provider:
        await asyncio.wait_for(provider.start(), 10)
        assert provider.unread
        go_on.set()
        await until(lambda: names(provider) == ["a"], 10)


async def test_configured_models_take_their_context_from_the_list() -> None:
    listing = Listing()
    listing.says({"id": "there", "max_model_len": 4096}, {"id": "m", "max_model_len": 1})
    models = [{"name": "here", "upstream": "there"}, "gone", {"name": "m", "context_tokens": 2048}]
    async with scripted(listing, models=models, discovery_interval_s=0.01) as provider:
        await provider.start()

        def contexts() -> list[int]:
            offers = [provider.offer(name) for name in ("here", "gone", "m")]
            return [offer.context_tokens for offer in offers if offer is not None]

        assert contexts() == [4096, 0, 2048]
        assert names(provider) == ["here", "gone", "m"]
        listing.says({"id": "there", "max_model_len": 8192})
        await until(lambda: contexts() == [8192, 0, 2048], 10)
        listing.says()
        await until(lambda: contexts() == [0, 0, 2048], 10)


async def test_a_model_that_has_gone_since_the_request_came() -> None:
    async with scripted(Listing(), models=[]) as provider:
        assert code_of((await taken(provider))[2]) == "upstream_model_unavailable"
        with pytest.raises(ApiError) as caught:
            await provider.embed(Embedding("m", ("a",)))
        assert caught.value.code == "upstream_model_unavailable"


async def test_where_every_context_is_configured_nothing_is_asked() -> None:
    listing = Listing()
    async with scripted(listing, models=[{"name": "m", "context_tokens": 10}]) as provider:
        await provider.start()
    assert listing.asked == 0


# Chunks beside the answer


async def test_fields_of_an_event_without_choices_pass() -> None:
    async def script(peer: Peer) -> None:
        first = b'data: {"choices":[],"prompt_filter_results":[]}\n\n'
        await peer.answer(STREAM, piece(first + event("a", "stop") + DONE), LAST)

    async with scripted(script) as provider:
        chunks: list[Chunk] = [chunk async for chunk in provider.generate(generation())]
    assert chunks[0] == {"choices": [], "extra": {"prompt_filter_results": []}}
    assert chunks[-1] == {"choices": [], "usage": None}


async def test_what_an_attempt_measured() -> None:
    async with facing("ok:tokens=1") as (provider, _):
        first, second = generation(), generation()
        await taken(provider, first)
        await at_rest(provider)
        await taken(provider, second)
        assert first.attempt.connect_s
        assert second.attempt.connect_s == 0


async def test_and_an_attempt_at_embeddings() -> None:
    async with facing("ok") as (provider, _):
        first, second = (Embedding("m", ("a",)) for _ in range(2))
        await provider.embed(first)
        await provider.embed(second)
        assert first.attempt.connect_s
        assert second.attempt.connect_s == 0


@pytest.mark.parametrize("fault", ["reset", "silent", "unavailable"])
async def test_and_one_that_failed(fault: str) -> None:
    async with facing(fault, first_token_timeout_s=0.1) as (provider, _):
        asked = generation()
        assert (await taken(provider, asked))[2] is not None
        assert asked.attempt.connect_s


async def test_and_one_that_found_nobody() -> None:
    provider = provider_for("http://127.0.0.1:1/v1")
    asked, embedding = generation(), Embedding("m", ("a",))
    assert code_of((await taken(provider, asked))[2]) == "upstream_unreachable"
    with pytest.raises(ApiError):
        await provider.embed(embedding)
    assert asked.attempt.connect_s
    assert embedding.attempt.connect_s


@pytest.mark.parametrize("style", ERROR_STYLES)
@pytest.mark.parametrize("tokens", [0, 3])
async def test_an_error_in_a_stream_in_whatever_words(style: str, tokens: int) -> None:
    async with facing(f"error-event@{tokens}:style={style}") as (provider, _):
        text, finish, failure = await taken(provider)
        code = "server_is_overloaded" if style == "sglang" else "upstream_error"  # its words are those of a full queue
        assert (text, finish, code_of(failure)) == (answer_text(tokens), [], code)


@pytest.mark.parametrize("style", OVERFLOW_STYLES)
async def test_a_full_context_in_whatever_words(style: str) -> None:
    async with facing(f"overflow:style={style}") as (provider, _):
        assert code_of((await taken(provider))[2]) == "context_length_exceeded"


# The short way of text


class Consumer:
    """Takes the chunks of an answer, and its text the short way as soon as something was said."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.shortcut = Shortcut()
        self.said: list[tuple[str, str]] = []
        """Each text, with the way that it took."""
        self.more = asyncio.Event()
        """Set with each text."""
        self.finish: list[str] = []
        self.failure: ApiError | None = None
        self.refuses = refuses

    async def take(self, provider: HttpProvider) -> None:
        try:
            async with contextlib.aclosing(provider.generate(generation(shortcut=self.shortcut))) as chunks:
                async for chunk in chunks:
                    self._note(chunk)
        except ApiError as error:
            self.failure = error

    def _note(self, chunk: Chunk) -> None:
        for choice in chunk["choices"]:
            if text := choice["delta"].get("content"):
                self._hear(text, "usual")
                self.shortcut.take = self._take
            if choice["finish_reason"]:
                self.finish.append(choice["finish_reason"])

    def _take(self, index: int, text: str, extra: dict[str, Any] | None) -> bool:
        if not self.refuses:
            self._hear(text, "short")
        return not self.refuses

    def _hear(self, text: str, way: str) -> None:
        self.said.append((text, way))
        self.more.set()

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.said)

    @property
    def ways(self) -> list[str]:
        return [way for _, way in self.said]

    async def heard(self) -> None:
        """Wait for a text."""
        await self.more.wait()
        self.more.clear()


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("fault", [name for name in OUTCOMES if "@30" not in name and name not in ("silent", "stall")])
async def test_a_fault_has_the_same_outcome_the_short_way(fault: str, *, refuses: bool) -> None:
    late = {"idle_timeout_s": 0.1} if fault.startswith("stall") else {}
    code, tokens = OUTCOMES[fault]
    async with facing(fault, **late) as (provider, _):
        consumer = Consumer(refuses=refuses)
        await consumer.take(provider)
        assert (code_of(consumer.failure), consumer.text) == (code, answer_text(tokens))


async def test_text_takes_the_short_way_while_the_consumer_waits() -> None:
    consumer = Consumer()

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM)
        for text in "abcd":
            await peer.say(piece(event(text)))
            await consumer.heard()
        await peer.say(piece(event("e", "length") + DONE), LAST)

    async with scripted(script) as provider:
        await consumer.take(provider)
        assert consumer.said == [("a", "usual"), ("b", "short"), ("c", "short"), ("d", "short"), ("e", "usual")]
        assert (consumer.finish, consumer.failure) == (["length"], None)
        await at_rest(provider)


async def test_so_do_the_texts_that_come_in_one_read_with_the_first() -> None:
    consumer = Consumer()
    texts, end = b"".join(map(event, "abcd")), event("e", "length") + DONE + event("f") + DONE

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM, piece(texts + end), LAST)

    async with scripted(script) as provider:
        await consumer.take(provider)
        assert consumer.said == [("a", "usual"), ("b", "short"), ("c", "short"), ("d", "short"), ("e", "usual")]
        assert (consumer.finish, consumer.failure) == (["length"], None)


async def test_a_read_of_which_some_texts_are_refused_comes_out_in_its_order() -> None:
    class Choosy(Consumer):
        def _take(self, index: int, text: str, extra: dict[str, Any] | None) -> bool:
            return text not in "ceh" and super()._take(index, text, extra)

    consumer = Choosy()

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM, piece(b"".join(map(event, "abcdefghi")) + event(None, "stop") + DONE), LAST)

    async with scripted(script) as provider:
        await consumer.take(provider)
        assert (consumer.text, consumer.finish, consumer.failure) == ("abcdefghi", ["stop"], None)
        assert [text for text, way in consumer.said if way == "usual"] == [*"aceh"]


@pytest.mark.parametrize("refuses", [False, True])
async def test_what_breaks_in_the_middle_of_a_read_breaks_behind_the_texts_before_it(*, refuses: bool) -> None:
    consumer = Consumer(refuses=refuses)

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM, piece(b"".join(map(event, "abc")) + b"data: {oops\n\n" + event("d")), LAST)

    async with scripted(script) as provider:
        await consumer.take(provider)
        assert (consumer.text, code_of(consumer.failure)) == ("abc", GARBAGE)


async def test_what_says_more_than_text_does_not_take_it_the_second_time_either() -> None:
    consumer = Consumer()
    counted = orjson.dumps({**orjson.loads(event("c")[6:]), "usage": {"prompt_tokens": 1, "completion_tokens": 3}})

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM)
        for said in (event("a"), event("b"), *[b"data: %b\n\n" % counted] * 3, event("d")):
            await peer.say(piece(said))
            await consumer.heard()
        await peer.say(piece(event(None, "stop") + DONE), LAST)

    async with scripted(script) as provider:
        await consumer.take(provider)
        ways = ["usual", "short", *["usual"] * 4]
        assert (consumer.text, consumer.ways, consumer.failure) == ("abcccd", ways, None)


async def test_nothing_takes_the_short_way_past_a_consumer_who_does_something_else() -> None:
    consumer, go_on, sent = Consumer(), asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM)
        for text in "ab":
            await peer.say(piece(event(text)))
            await consumer.heard()
        await go_on.wait()
        await peer.say(piece(event("c")))
        sent.set()
        await peer.say(piece(event("d", "stop") + DONE), LAST)

    async with scripted(script) as provider:
        chunks = provider.generate(generation(shortcut=consumer.shortcut))
        consumer._note(await anext(chunks))
        consumer.refuses = True  # so that the consumer gets a chunk while there is a form
        consumer._note(await anext(chunks))
        consumer.refuses = False
        go_on.set()
        await sent.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert consumer.text == "ab"
        consumer._note(await anext(chunks))
        assert consumer.said == [("a", "usual"), ("b", "usual"), ("c", "short"), ("d", "usual")]
        await chunks.aclose()


async def test_what_takes_the_short_way_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer, log, touch = Consumer(), list[str](), Deadlines.touch

    def touched(deadlines: Deadlines) -> None:
        log.append(f"touch {len(consumer.said)}")
        touch(deadlines)

    monkeypatch.setattr(Deadlines, "touch", touched)

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM)
        for text in "abcde":
            await peer.say(piece(event(text)))
            await consumer.heard()
        await peer.say(piece(event(None, "stop") + DONE), LAST)

    async with scripted(script) as provider:
        await consumer.take(provider)
    assert consumer.ways == ["usual"] + ["short"] * 4
    assert log == [f"touch {number}" for number in (1, 2, 3, 4, 5, 5)]


async def test_a_stream_that_takes_the_short_way_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.providers.http._ANSWER_BYTES", 10_000)
    consumer = Consumer()

    async def script(peer: Peer) -> None:
        await peer.answer(STREAM)
        while True:
            await peer.say(piece(event("x" * 1000)))
            await consumer.heard()

    async with scripted(script) as provider:
        await consumer.take(provider)
        assert code_of(consumer.failure) == GARBAGE
        assert consumer.ways[1:8] == ["short"] * 7
        assert len(consumer.said) < 13  # of some 1,060 bytes each
        assert provider._pool.connections_idle == 0


async def test_and_at_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.providers.http._ANSWER_BYTES", 10_000)
    usual, short = Consumer(refuses=True), Consumer()
    for consumer in (usual, short):

        async def script(peer: Peer, consumer: Consumer = consumer) -> None:
            await peer.answer(STREAM)
            while True:
                await peer.say(piece(event("x" * 1000)))
                await consumer.heard()

        async with scripted(script) as provider:
            await consumer.take(provider)
            assert code_of(consumer.failure) == GARBAGE
    assert len(short.text) == len(usual.text)
