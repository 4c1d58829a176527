"""How answers end: before the commit point, after it, by the client, by the server's stop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

import orjson
import pytest
from tests.support.provider import SECRET, WHOLE, ScriptedProvider, Step, delta, finish, role, usage
from tests.support.raw_server import Peer, RawServer, Script, raw_server
from tests.support.waiting import until
from tests.support.web import (
    CHAT,
    COMPLETION,
    EMBEDDINGS,
    STREAM,
    AsgiCall,
    Served,
    client,
    get,
    post,
    serving,
    settings,
)

from coterie.api.app import make_app, make_state
from coterie.api.edge import CLIENT_CLOSED
from coterie.api.writer import StreamWriter
from coterie.config import ProviderSettings
from coterie.dialects.chat_validator import judge
from coterie.errors import ApiError
from coterie.providers.http import HttpProvider
from coterie.providers.short_text import ShortText
from coterie.wire.lingua import Chunk, Generation

CHAT_PATH = "/v1/chat/completions"

COMMITTED = (delta("Hel"),)
"""What a provider says before it fails in mid-stream."""

SAYS_NOTHING: dict[str, Sequence[Chunk]] = {
    "no chunk": (),
    "a role": (role(),),
    "an empty text": (role(), delta("")),
    "no choices": ({"choices": []}, usage()),
}

FAILURES: dict[str, tuple[Exception, int, str]] = {
    "overload": (ApiError("server_is_overloaded", retry_after_s=2.5), 503, "server_is_overloaded"),
    "context": (
        ApiError("context_length_exceeded", param="messages", limit=8, actual=9),
        400,
        "context_length_exceeded",
    ),
    "engine": (ApiError("engine_failed", detail=SECRET), 500, "engine_failed"),
    "timeout": (ApiError("engine_timeout", limit_s=3), 504, "engine_timeout"),
    "a bug": (RuntimeError(SECRET), 500, "internal_error"),
    "a bug of another kind": (KeyError(SECRET), 500, "internal_error"),
}


async def test_a_stream_that_succeeds() -> None:
    body = {**STREAM, "stream_options": {"include_usage": True}}
    answer = await client(ScriptedProvider()).post(CHAT_PATH, body)
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-cache"
    assert judge(answer.body, include_usage=True, choices=1) == []
    texts = [orjson.loads(event)["choices"][0]["delta"].get("content") for event in answer.events[:2]]
    assert texts == ["Hel", "lo"]


async def test_a_stream_without_usage() -> None:
    answer = await client(ScriptedProvider()).post(CHAT_PATH, STREAM)
    assert judge(answer.body, include_usage=False, choices=1) == []


async def test_each_event_is_one_write() -> None:
    app = make_app(make_state(settings(), [ScriptedProvider()]))
    call = AsgiCall(app, "POST", CHAT_PATH, orjson.dumps(STREAM))
    await call.task
    parts = [message["body"] for message in call.sent[1:]]
    assert all(part.startswith(b"data: ") and part.endswith(b"\n\n") and part.count(b"\n\n") == 1 for part in parts)
    assert [message["more_body"] for message in call.sent[1:]] == [True] * (len(parts) - 1) + [False]


async def test_a_whole_answer() -> None:
    answer = await client(ScriptedProvider()).post(CHAT_PATH, CHAT)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["object"] == "chat.completion"
    assert answer.json["choices"][0]["message"]["content"] == "Hello"
    assert answer.json["choices"][0]["finish_reason"] == "stop"
    assert answer.json["usage"]["total_tokens"] == 5


async def test_the_choices_of_a_stream() -> None:
    script = (delta("a", 1), delta("b", 0), finish(index=0), finish("length", index=1), usage())
    answer = await client(ScriptedProvider(script)).post(CHAT_PATH, {**STREAM, "n": 2})
    assert judge(answer.body, choices=2) == []


@pytest.mark.parametrize(("failure", "status", "code"), FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("silence", SAYS_NOTHING.values(), ids=SAYS_NOTHING.keys())
@pytest.mark.parametrize("body", [STREAM, CHAT], ids=["stream", "plain"])
async def test_a_failure_before_anything_was_said_is_an_http_error(
    body: Mapping[str, Any], silence: Sequence[Chunk], failure: Exception, status: int, code: str
) -> None:
    provider = ScriptedProvider((*silence, failure))
    answer = await client(provider).post(CHAT_PATH, body)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert SECRET not in answer.body.decode() + str(answer.headers)
    assert provider.closed.is_set()


async def test_the_delay_of_an_overload_is_told() -> None:
    failure = ApiError("server_is_overloaded", retry_after_s=2.5)
    answer = await client(ScriptedProvider((failure,))).post(CHAT_PATH, STREAM)
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["retry-after-ms"] == "2500"
    assert "Please try again in 3s" in answer.error["message"]


@pytest.mark.parametrize(("failure", "status", "code"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_failure_in_mid_stream_is_its_last_event(failure: Exception, status: int, code: str) -> None:
    answer = await client(ScriptedProvider((*COMMITTED, failure))).post(CHAT_PATH, STREAM)
    assert answer.status == 200
    assert answer.last_error["code"] == code
    assert judge(answer.body, choices=1) == []
    assert SECRET not in answer.body.decode() + str(answer.headers)


@pytest.mark.parametrize("failure", [RuntimeError(SECRET), ApiError("engine_failed", detail=SECRET)])
async def test_what_the_client_is_not_told_is_logged(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    await client(ScriptedProvider((*COMMITTED, failure))).post(CHAT_PATH, STREAM)
    assert SECRET in caplog.text


BROKEN: dict[str, tuple[Sequence[Step], str]] = {
    "no finish reason": ((delta("a"), usage()), "upstream_stream_interrupted"),
    "no usage": ((delta("a"), finish()), "upstream_stream_interrupted"),
    "nothing after the text": ((delta("a"),), "upstream_stream_interrupted"),
    "tokens after the finish": ((delta("a"), finish(), delta("b"), usage()), "upstream_protocol_error"),
    "two finish reasons": ((delta("a"), finish(), finish(), usage()), "upstream_protocol_error"),
    "an unknown finish reason": ((delta("a"), finish("error"), usage()), "upstream_protocol_error"),
    "a choice nobody asked for": ((delta("a"), delta("b", 1), finish(), usage()), "upstream_protocol_error"),
}


@pytest.mark.parametrize(("script", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_an_answer_that_is_not_whole_is_never_a_success(script: Sequence[Step], code: str) -> None:
    stream = await client(ScriptedProvider(script)).post(CHAT_PATH, STREAM)
    assert stream.last_error["code"] == code
    assert {violation.rule for violation in judge(stream.body)} <= {"outcome-one"}
    plain = await client(ScriptedProvider(script)).post(CHAT_PATH, CHAT)
    assert (plain.status, plain.error["code"]) == (502, code)


@pytest.mark.parametrize("silence", SAYS_NOTHING.values(), ids=SAYS_NOTHING.keys())
async def test_an_answer_that_says_nothing_is_an_http_error(silence: Sequence[Chunk]) -> None:
    answer = await client(ScriptedProvider(silence)).post(CHAT_PATH, STREAM)
    assert (answer.status, answer.error["code"]) == (502, "upstream_stream_interrupted")


async def test_a_stream_has_its_end_even_where_counting_its_usage_fails() -> None:
    odd_usage: Chunk = {"choices": [], "usage": {"tokens": 1}}
    answer = await client(ScriptedProvider((delta("a"), finish(), odd_usage))).post(CHAT_PATH, STREAM)
    assert answer.events[-1] == b"[DONE]"


async def test_the_head_is_held_back_until_something_is_said() -> None:
    gate, second = asyncio.Event(), asyncio.Event()
    app = make_app(make_state(settings(), [ScriptedProvider((role(), delta(""), gate, delta("a"), second, *WHOLE))]))
    call = AsgiCall(app, "POST", CHAT_PATH, orjson.dumps(STREAM))
    for _ in range(20):
        await asyncio.sleep(0)
    assert call.sent == []
    gate.set()
    await call.head.wait()
    assert len(call.sent) == 2
    second.set()
    await call.task


class KeepingProvider(ScriptedProvider):
    """Keeps its generators, so that nothing but the server can close them."""

    def __init__(self, script: Sequence[Step]) -> None:
        super().__init__(script)
        self.kept: list[AsyncGenerator[Chunk, None]] = []

    def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        self.kept.append(super().generate(generation))
        return self.kept[-1]


@pytest.mark.parametrize("body", [STREAM, CHAT], ids=["stream", "plain"])
async def test_a_provider_that_breaks_the_rules_is_cancelled(body: Mapping[str, Any]) -> None:
    provider = KeepingProvider((delta("a"), finish(), delta("b"), asyncio.Event()))
    await client(provider).post(CHAT_PATH, body)
    assert provider.closed.is_set()


@pytest.mark.parametrize("body", [STREAM, CHAT], ids=["stream", "plain"])
async def test_an_answer_leaves_nothing_running(body: Mapping[str, Any]) -> None:
    before = asyncio.all_tasks()
    await client(ScriptedProvider()).post(CHAT_PATH, body)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


# The client leaves.


@pytest.mark.parametrize("body", [STREAM, CHAT], ids=["stream", "plain"])
async def test_a_client_that_leaves_before_the_first_chunk(
    body: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "coterie.access")
    provider = ScriptedProvider((asyncio.Event(),))
    async with serving(provider) as served:
        async with served.connect() as wire:
            await wire.send(post(CHAT_PATH, body))
            await provider.asked.wait()
            wire.reset()
        await provider.closed.wait()
        await _nobody_is_active(served.state.active)
    assert CLIENT_CLOSED in caplog.text
    assert outcomes(served.state) == {CLIENT_CLOSED: 1.0}


async def test_a_client_that_leaves_in_mid_stream() -> None:
    provider = ScriptedProvider((delta("a"), asyncio.Event()))
    async with serving(provider) as served:
        async with served.connect() as wire:
            await wire.send(post(CHAT_PATH, STREAM))
            assert (await wire.head())[0] == 200
            assert not provider.closed.is_set()
            wire.reset()
        await provider.closed.wait()
        await _nobody_is_active(served.state.active)
    assert outcomes(served.state) == {CLIENT_CLOSED: 1.0}


async def test_a_client_that_closes_politely_in_mid_stream() -> None:
    provider = ScriptedProvider((delta("a"), asyncio.Event()))
    async with serving(provider) as served, served.connect() as wire:
        await wire.send(post(CHAT_PATH, STREAM))
        await wire.head()
        wire.writer.close()
        await provider.closed.wait()


async def test_a_client_that_leaves_an_embedding() -> None:
    provider = ScriptedProvider()
    provider.embed_gate = asyncio.Event()
    async with serving(provider) as served:
        async with served.connect() as wire:
            await wire.send(post("/v1/embeddings", EMBEDDINGS))
            await provider.asked.wait()
            wire.reset()
        await provider.closed.wait()
        await _nobody_is_active(served.state.active)
    assert outcomes(served.state) == {CLIENT_CLOSED: 1.0}


async def test_one_client_that_leaves_is_no_matter_of_another() -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider((delta("a"), gate, finish(), usage()))
    async with serving(provider) as served, served.connect() as stays:
        await stays.send(post(CHAT_PATH, STREAM))
        await stays.head()
        async with served.connect() as leaves:
            await leaves.send(post(CHAT_PATH, STREAM))
            await leaves.head()
            leaves.reset()
        await provider.closed.wait()
        gate.set()
        assert judge(b"".join([part async for part in stays.parts()])) == []


async def test_a_slow_reader_holds_the_generation_back() -> None:
    text = "x" * 10_000
    provider = ScriptedProvider(itertools.repeat(delta(text), 20_000))
    async with serving(provider) as served:
        async with served.connect() as wire:
            await wire.send(post(CHAT_PATH, STREAM))
            await wire.head()
            async with served.connect() as other:
                for _ in range(20):  # without back-pressure the answer would be whole before the first of these
                    assert (await other.ask(get("/health"))).status == 200
            pulled = provider.pulled
            assert len(text) * pulled < 32 * 1024 * 1024  # what the sockets of a system buffer, at most
            async for _ in wire.parts():
                if provider.pulled > pulled:
                    break
            wire.reset()
        await provider.closed.wait()
    assert provider.pulled < 20_000


# The server's stop.


async def test_a_stop_lets_running_answers_finish_and_refuses_new_ones() -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider((delta("a"), gate, finish(), usage()))
    async with serving(provider) as served, served.connect() as old, served.connect() as new:
        await old.send(post(CHAT_PATH, STREAM))
        await old.head()
        draining = asyncio.create_task(served.state.active.drain(60))
        await asyncio.sleep(0)
        refused = await new.ask(post(CHAT_PATH, STREAM))
        assert (refused.status, refused.error["code"]) == (503, "server_shutting_down")
        assert refused.headers["retry-after"] == "60"  # what is left of the time that the running ones have
        gate.set()
        body = b"".join([part async for part in old.parts()])
        await draining
        assert judge(body, choices=1) == []
        assert body.endswith(b"data: [DONE]\n\n")
        assert b"error" not in body


async def test_a_stop_ends_what_does_not_finish() -> None:
    provider = ScriptedProvider((delta("a"), asyncio.Event()))
    app_state = make_state(settings(), [provider])
    call = AsgiCall(make_app(app_state), "POST", CHAT_PATH, orjson.dumps(STREAM))
    await call.head.wait()
    await app_state.active.drain(0)
    await call.task
    assert call.answer.last_error["code"] == "server_shutting_down"
    assert judge(call.answer.body, choices=1) == []
    assert provider.closed.is_set()


@pytest.mark.parametrize(
    ("path", "body"), [(CHAT_PATH, STREAM), (CHAT_PATH, CHAT), ("/v1/completions", COMPLETION)], ids=str
)
async def test_a_stop_before_anything_was_said_is_an_http_error(path: str, body: Mapping[str, Any]) -> None:
    provider = ScriptedProvider((asyncio.Event(),))
    app_state = make_state(settings(), [provider])
    call = AsgiCall(make_app(app_state), "POST", path, orjson.dumps(body))
    await provider.asked.wait()
    await app_state.active.drain(0)
    await call.task
    assert (call.answer.status, call.answer.error["code"]) == (503, "server_shutting_down")
    assert provider.closed.is_set()


async def test_a_stop_ends_an_embedding() -> None:
    provider = ScriptedProvider()
    provider.embed_gate = asyncio.Event()
    app_state = make_state(settings(), [provider])
    call = AsgiCall(make_app(app_state), "POST", "/v1/embeddings", orjson.dumps(EMBEDDINGS))
    await provider.asked.wait()
    await app_state.active.drain(0)
    await call.task
    assert call.answer.error["code"] == "server_shutting_down"


async def test_a_cancellation_from_elsewhere_ends_the_generation_and_is_told() -> None:
    provider = ScriptedProvider((asyncio.Event(),))
    app_state = make_state(settings(), [provider])
    call = AsgiCall(make_app(app_state), "POST", CHAT_PATH, orjson.dumps(STREAM))
    await provider.asked.wait()
    call.task.cancel()
    await call.task
    assert call.answer.error["code"] == "server_shutting_down"
    assert provider.closed.is_set()
    assert len(app_state.active) == 0


# Counting.


@pytest.mark.parametrize("body", [STREAM, CHAT], ids=["stream", "plain"])
async def test_usage_and_times_are_counted(body: Mapping[str, Any]) -> None:
    app_state = make_state(settings(), [ScriptedProvider()])
    call = AsgiCall(make_app(app_state), "POST", CHAT_PATH, orjson.dumps(body))
    await call.task
    page = app_state.metrics.render().decode()
    assert 'coterie_prompt_tokens_total{model="m"} 3.0' in page
    assert 'coterie_generation_tokens_total{model="m"} 2.0' in page
    assert 'coterie_e2e_request_latency_seconds_count{model="m"} 1.0' in page
    assert ('coterie_time_to_first_token_seconds_count{model="m"} 1.0' in page) is (body is STREAM)


def outcomes(app_state: Any) -> dict[str, float]:
    """Requests by outcome, as the metrics have them."""
    lines = app_state.metrics.render().decode().splitlines()
    counts = [line for line in lines if line.startswith("coterie_requests_total")]
    return {line.split('outcome="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1]) for line in counts}


async def _nobody_is_active(active: Any) -> None:
    await until(lambda: not len(active))


# The short way of text

UPSTREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
UPSTREAM_USAGE = {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


def upstream_event(payload: Mapping[str, Any] | bytes) -> bytes:
    """An event of an upstream, as a piece of a chunked body."""
    data = b"data: %b\n\n" % (payload if isinstance(payload, bytes) else orjson.dumps(payload))
    return b"%x\r\n%b\r\n" % (len(data), data)


def upstream_texts(*texts: str, **fields: Any) -> list[bytes]:
    return [upstream_event({**delta(text), **fields}) for text in texts]


UPSTREAM_END = [
    upstream_event(finish()),
    upstream_event({"choices": [], "usage": UPSTREAM_USAGE}),
    upstream_event(b"[DONE]"),
    b"0\r\n\r\n",
]
TEXTS = ("Hel", "lo", " \u00fc\n", "\U0001f600", '"}', "\r\n\r\ndata: x")


def http_provider(server: RawServer, name: str = "p", **fields: Any) -> HttpProvider:
    url = f"http://127.0.0.1:{server.origin.port}/v1"
    return HttpProvider(ProviderSettings.model_validate({"name": name, "base_url": url, "models": ["m"], **fields}))


@contextlib.asynccontextmanager
async def before(script: Script) -> AsyncIterator[tuple[Served, RawServer]]:
    """The real server before an upstream that plays ``script``."""
    async with raw_server(script) as server:
        provider = http_provider(server)
        try:
            async with serving(provider) as served:
                yield served, server
        finally:
            await provider.stop()


@pytest.fixture(name="taken")
def _taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes took the short way, each time that some could have."""
    seen, take_from = list[int](), ShortText._take_from

    def taken(way: ShortText, data: bytes, begin: int) -> int:
        end = take_from(way, data, begin)
        seen.append(end - begin)
        return end

    monkeypatch.setattr(ShortText, "_take_from", taken)
    return seen


@contextlib.contextmanager
def without_the_short_way() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShortText, "learn", lambda *_, **__: None)
        yield


async def read_in_step(
    body: Mapping[str, Any], pieces: Sequence[bytes], end: Sequence[bytes]
) -> tuple[list[bytes], str]:
    """The writes of a stream, of which the upstream sends each text when the one before was read; and the gaps."""
    read = asyncio.Semaphore(1)

    async def script(peer: Peer) -> None:
        await peer.answer(UPSTREAM_HEAD)
        for piece in pieces:
            await read.acquire()
            await peer.say(piece)
        await read.acquire()
        await peer.say(b"".join(end))

    async with before(script) as (served, _), served.connect() as wire:
        await wire.send(post(CHAT_PATH, body))
        assert (await wire.head())[0] == 200
        parts = []
        async for part in wire.parts():
            parts.append(re.sub(rb'"id":"chatcmpl-[0-9a-f]{32}"|"created":[0-9]+|req_[0-9a-f]{32}', b"_", part))
            read.release()
        page = served.state.metrics.render().decode()
    return parts, "".join(line for line in page.splitlines(True) if "latency_seconds_count" in line)


FIELDS = pytest.mark.parametrize("fields", [{}, {"system_fingerprint": "f", "x": [1]}], ids=["plain", "more"])
ENDS = pytest.mark.parametrize(
    "end", [UPSTREAM_END, [upstream_event({"error": {"message": "no"}})], [b"garbage"]], ids=["whole", "error", "cut"]
)


@FIELDS
@ENDS
async def test_a_client_gets_the_same_bytes_the_short_way(
    end: Sequence[bytes], fields: dict[str, Any], taken: list[int]
) -> None:
    body = {**STREAM, **({"stream_options": {"include_usage": True}} if fields else {})}
    pieces = upstream_texts(*TEXTS, **fields)
    short, gaps = await read_in_step(body, pieces, end)
    assert [bool(size) for size in taken].count(True) == len(TEXTS) - 1
    assert b"".join(short).count(b'"content"') == len(TEXTS)
    taken.clear()
    with without_the_short_way():
        usual, usual_gaps = await read_in_step(body, pieces, end)
    assert not any(taken)
    assert short == usual
    assert gaps == usual_gaps
    assert f'coterie_inter_token_latency_seconds_count{{model="m"}} {len(TEXTS) - 1}' in gaps


@FIELDS
@ENDS
async def test_a_client_gets_the_same_bytes_where_all_comes_in_one_read(
    end: Sequence[bytes], fields: dict[str, Any], taken: list[int]
) -> None:
    body = {**STREAM, **({"stream_options": {"include_usage": True}} if fields else {})}
    pieces = upstream_texts(*TEXTS, **fields)
    apart, gaps = await read_in_step(body, pieces, end)
    sizes = sum(taken)
    taken.clear()
    short, short_gaps = await read_in_step(body, [b"".join(pieces)], end)
    assert sum(taken) == sizes == sum(len(piece) - len(b"xx\r\n\r\n") for piece in pieces[1:])
    with without_the_short_way():
        usual, usual_gaps = await read_in_step(body, [b"".join(pieces)], end)
    assert b"".join(short) == b"".join(usual) == b"".join(apart)
    assert short_gaps == usual_gaps == gaps


@pytest.mark.parametrize("in_one_read", [False, True])
async def test_a_bug_on_the_short_way_is_told_as_one_and_nothing_is_said_twice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, in_one_read: bool
) -> None:
    """What is raised in the callback of a socket must not pass for the peer's failure, which would be continued."""
    put, written = StreamWriter.put, list[bytes]()

    def broken(writer: StreamWriter, event: bytes) -> bool:
        written.append(event)
        is_sent = put(writer, event)
        if len(written) == 2:
            raise RuntimeError(SECRET)
        return is_sent

    monkeypatch.setattr(StreamWriter, "put", broken)
    pieces = upstream_texts(*TEXTS)
    parts, _ = await read_in_step(STREAM, [b"".join(pieces)] if in_one_read else pieces, UPSTREAM_END)
    told = b"".join(parts)
    assert told.count(b'"content"') == 3
    assert told.endswith(b"data: [DONE]\n\n")
    assert orjson.loads(told.split(b"\n\n")[-3][6:])["error"]["code"] == "internal_error"
    assert b'finish_reason":"stop' not in told
    assert SECRET not in told.decode()
    assert any(record.exc_info and record.name.startswith("coterie") for record in caplog.records)


async def test_a_client_without_a_line_of_its_own_is_served_the_usual_way(taken: list[int]) -> None:
    script = plays(*upstream_texts(*TEXTS), *UPSTREAM_END)
    async with raw_server(script) as server:
        provider = http_provider(server)
        answer = await client(provider).post(CHAT_PATH, STREAM)
        await provider.stop()
    assert judge(answer.body) == []
    assert answer.body.count(b'"content"') == len(TEXTS)
    assert not any(taken)


async def test_a_client_that_reads_slowly_loses_nothing(taken: list[int]) -> None:
    size, count = 50_000, 600
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.answer(UPSTREAM_HEAD, *upstream_texts("<", "<"))
        for number in range(count):
            await peer.say(*upstream_texts(f"{number}".rjust(size, "x")))
            sent += 1
        await peer.say(*UPSTREAM_END)

    async with before(script) as (served, _), served.connect() as wire:
        await wire.send(post(CHAT_PATH, STREAM))
        await wire.head()
        (protocol,) = served.protocols
        await until(lambda: protocol.flow.write_paused)
        for _ in range(200):
            await asyncio.sleep(0)
        assert sent < count  # the upstream is held back
        body = b"".join([part async for part in wire.parts()])
    assert any(taken)
    assert not all(taken[2:])
    assert judge(body) == []
    numbers = re.findall(rb'"content":"x+([0-9]+)"', body)
    assert numbers == [b"%d" % number for number in range(count)]


async def test_a_client_that_leaves_in_the_middle_of_the_short_way(taken: list[int]) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(UPSTREAM_HEAD)
        while True:
            await peer.say(*upstream_texts("a"))

    async with before(script) as (served, server):
        async with served.connect() as wire:
            await wire.send(post(CHAT_PATH, STREAM))
            await wire.head()
            await until(lambda: any(taken))
            wire.reset()
        await until(lambda: server.open == 0)
        await _nobody_is_active(served.state.active)
        assert outcomes(served.state) == {CLIENT_CLOSED: 1.0}


async def test_a_stop_ends_what_goes_the_short_way(taken: list[int]) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(UPSTREAM_HEAD)
        while True:
            await peer.say(*upstream_texts("a"))

    async with before(script) as (served, server), served.connect() as wire:
        await wire.send(post(CHAT_PATH, STREAM))
        await wire.head()
        await until(lambda: any(taken))
        draining = asyncio.create_task(served.state.active.drain(0))
        body = b"".join([part async for part in wire.parts()])
        await draining
        assert judge(body, choices=1) == []
        assert b"server_shutting_down" in body
        await until(lambda: server.open == 0)


PLAIN_PATHS = [(CHAT_PATH, CHAT), ("/v1/completions", COMPLETION)]


async def plain_answer(path: str, body: Mapping[str, Any], *scripts: Script) -> Any:
    """A whole answer of the first of some providers that can give one, but for what differs every time."""
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(raw_server(script)) for script in scripts]
        providers = [http_provider(server, f"p{n}", priority=n) for n, server in enumerate(servers)]
        state = make_state(settings(dispatch={"attempts": len(scripts)}), providers)
        call = AsgiCall(make_app(state), "POST", path, orjson.dumps(body))
        await call.task
        for provider in providers:
            await provider.stop()
        return {name: value for name, value in call.answer.json.items() if name not in ("id", "created")}


def plays(*pieces: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.answer(UPSTREAM_HEAD, *pieces)

    return script


@pytest.mark.parametrize(("path", "body"), PLAIN_PATHS, ids=["chat", "completions"])
async def test_a_whole_answer_is_the_same_the_short_way(path: str, body: Mapping[str, Any], taken: list[int]) -> None:
    script = plays(*upstream_texts(*TEXTS, *TEXTS, x=1), *UPSTREAM_END)
    short = await plain_answer(path, body, script)
    assert any(taken)
    with without_the_short_way():
        assert await plain_answer(path, body, script) == short
    (choice,) = short["choices"]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    assert (text, short["usage"]) == ("".join(TEXTS * 2), UPSTREAM_USAGE)


@pytest.mark.parametrize(("path", "body"), PLAIN_PATHS, ids=["chat", "completions"])
async def test_what_took_the_short_way_is_void_after_a_restart(
    path: str, body: Mapping[str, Any], taken: list[int]
) -> None:
    broken, whole = plays(*upstream_texts(*"nonono")), plays(*upstream_texts(*TEXTS), *UPSTREAM_END)
    answer = await plain_answer(path, body, broken, whole)
    assert any(taken)
    assert answer == await plain_answer(path, body, whole)
