"""Failures in mid-stream, with a real engine that is really killed or stopped; and clients that leave."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from openai import APIError, AsyncOpenAI, OpenAI
from tests.support.failures import CHAT
from tests.support.leaks import assert_clean
from tests.support.models import END_OF_TEXT, END_OF_TURN, LONG_TOKENS, chat, long_chat
from tests.support.server import RawStream, Server

from coterie.dialects.chat_validator import judge

MODEL, STALLING = "fragile", "stalling"


def _kill_engine(server: Server) -> None:
    os.kill(server.engine(MODEL)["pid"], signal.SIGKILL)


@contextlib.contextmanager
def _engine_stopped(server: Server) -> Iterator[None]:
    """The engine's process stands still; afterwards it is ended."""
    pid = server.engine(STALLING)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        server.wait_for(STALLING, lambda engine: engine["pid"] is None)


def _frames(body: bytes) -> list[bytes]:
    return body.removesuffix(b"\n\n").split(b"\n\n")


def _check_broken_off(body: bytes, code: str, type_: str) -> None:
    """Chunks, exactly one error frame, ``[DONE]``; and nothing that looks like an answer that is whole."""
    assert judge(body, include_usage=False, choices=1) == []
    *chunks, failure, done = _frames(body)
    assert done == b"data: [DONE]"
    error = orjson.loads(failure.removeprefix(b"data: "))["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["code"], error["type"], error["param"]) == (code, type_, None)
    assert chunks
    assert not any(b'"error"' in chunk for chunk in chunks)
    assert not any(b'"finish_reason":"' in chunk for chunk in chunks)
    assert_clean(failure.decode())


def _check_error(error: APIError, code: str, type_: str) -> None:
    assert type(error) is APIError, "an error in the stream is no HTTP status"
    assert (error.code, error.type, error.param) == (code, type_, None)
    assert_clean(str(error))


def test_engine_killed(server: Server, client: OpenAI) -> None:
    with client.chat.completions.create(**long_chat(MODEL), stream=True) as stream:
        for _ in range(3):
            next(stream)
        _kill_engine(server)
        finish_reasons: list[Any] = []
        with pytest.raises(APIError) as raised:
            finish_reasons += [chunk.choices[0].finish_reason for chunk in stream]
        assert list(stream) == [], "nothing follows the failure"
    assert set(finish_reasons) <= {None}
    _check_error(raised.value, "engine_failed", "server_error")
    assert client.chat.completions.create(**chat(MODEL)).choices[0].message.content, "the engine is started anew"


async def test_engine_killed_asynchronous(server: Server) -> None:
    async with AsyncOpenAI(base_url=server.base_url, api_key="unused") as client:
        async with await client.chat.completions.create(**long_chat(MODEL), stream=True) as stream:
            await anext(stream)
            _kill_engine(server)
            with pytest.raises(APIError) as raised:
                async for _ in stream:
                    pass
        _check_error(raised.value, "engine_failed", "server_error")


def test_engine_killed_under_the_stream_helper(server: Server, client: OpenAI) -> None:
    with client.chat.completions.stream(**long_chat(MODEL)) as stream:
        next(iter(stream))
        _kill_engine(server)
        with pytest.raises(APIError) as raised:
            stream.until_done()
    _check_error(raised.value, "engine_failed", "server_error")


def test_engine_killed_under_a_text_completion(server: Server, client: OpenAI) -> None:
    endless = {END_OF_TURN: -100, END_OF_TEXT: -100}
    with client.completions.create(
        model=MODEL, prompt="Once upon", max_tokens=LONG_TOKENS, logit_bias=endless, stream=True
    ) as stream:
        next(stream)
        _kill_engine(server)
        with pytest.raises(APIError) as raised:
            list(stream)
    _check_error(raised.value, "engine_failed", "server_error")


def test_bytes_of_a_stream_whose_engine_is_killed(server: Server) -> None:
    with RawStream(server, CHAT, long_chat(MODEL)) as stream:
        assert stream.events(3)
        _kill_engine(server)
        body = stream.rest()
    _check_broken_off(body, "engine_failed", "server_error")


def test_bytes_of_a_stream_of_two_choices_whose_engine_is_killed(server: Server) -> None:
    with RawStream(server, CHAT, long_chat(MODEL, n=2, stream_options={"include_usage": True})) as stream:
        assert stream.events(3)
        _kill_engine(server)
        body = stream.rest()
    assert judge(body, include_usage=True, choices=2) == []
    assert body.count(b'"error":{') == 1
    assert body.endswith(b"\n\ndata: [DONE]\n\n")
    assert b'"finish_reason":"' not in body
    assert b'"usage":{' not in body


def test_every_stream_of_a_killed_engine_ends_and_no_other(server: Server) -> None:
    with (
        RawStream(server, CHAT, long_chat(MODEL)) as first,
        RawStream(server, CHAT, long_chat(MODEL)) as second,
        RawStream(server, CHAT, long_chat(max_tokens=60)) as bystander,
    ):
        assert first.events(1)
        assert second.events(1)
        assert bystander.events(1)
        _kill_engine(server)
        _check_broken_off(first.rest(), "engine_failed", "server_error")
        _check_broken_off(second.rest(), "engine_failed", "server_error")
        assert judge(bystander.rest(), include_usage=False, choices=1) == []
        assert b'"finish_reason":"length"' in bystander.body


def test_engine_stands_still(server: Server, client: OpenAI) -> None:
    with (
        client.chat.completions.create(**long_chat(STALLING), stream=True) as stream,
        RawStream(server, CHAT, long_chat(STALLING)) as raw,
    ):
        next(stream)
        assert raw.events(1)
        with _engine_stopped(server):
            with pytest.raises(APIError) as raised:
                list(stream)
            body = raw.rest()
    _check_error(raised.value, "engine_timeout", "server_error")
    _check_broken_off(body, "engine_timeout", "server_error")
    assert "within 2 seconds" in raised.value.message
    assert client.chat.completions.create(**chat(STALLING)).choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_client_leaves_a_running_answer(server: Server, stream: bool) -> None:
    """Its slot is free at once; the other answer goes on as if nothing had been."""
    with RawStream(server, CHAT, long_chat(MODEL, max_tokens=150)) as other:
        assert other.events(1)
        leaving = _send(server, long_chat(MODEL, stream=stream))
        server.wait_for(MODEL, lambda engine: engine["running"] == 2)
        if stream:
            assert leaving.recv(4096).startswith(b"HTTP/1.1 200 ")
        leaving.close()
        server.wait_for(MODEL, lambda engine: engine["running"] == 1)
        assert judge(other.rest(), include_usage=False, choices=1) == []
        assert b'"finish_reason":"length"' in other.body


@pytest.mark.parametrize("stream", [False, True])
def test_client_leaves_while_it_waits(server: Server, stream: bool) -> None:
    with (
        RawStream(server, CHAT, long_chat(MODEL, max_tokens=250)) as first,
        RawStream(server, CHAT, long_chat(MODEL)) as second,
    ):
        assert first.events(1)
        assert second.events(1)
        leaving = _send(server, chat(MODEL, stream=stream))
        server.wait_for(MODEL, lambda engine: engine["waiting"] == 1)
        leaving.close()
        server.wait_for(MODEL, lambda engine: engine["waiting"] == 0)
        second.close()
        assert judge(first.rest(), include_usage=False, choices=1) == []
        assert b'"finish_reason":"length"' in first.body
    server.wait_for(MODEL, lambda engine: engine["running"] == 0)


def test_client_leaves_several_choices(server: Server) -> None:
    """Two that run and one that waits leave together."""
    with RawStream(server, CHAT, long_chat(MODEL, n=3)) as stream:
        assert stream.events(2)
        server.wait_for(MODEL, lambda engine: (engine["running"], engine["waiting"]) == (2, 1))
    server.wait_for(MODEL, lambda engine: (engine["running"], engine["waiting"]) == (0, 0))


def test_sdk_closes_its_stream(server: Server, client: OpenAI) -> None:
    with client.chat.completions.create(**long_chat(MODEL), stream=True) as stream:
        next(stream)
    server.wait_for(MODEL, lambda engine: engine["running"] == 0)
    assert client.chat.completions.create(**chat(MODEL)).choices[0].message.content


def test_client_leaves_its_embedding(server: Server) -> None:
    """Also where the answer is none that is generated token by token."""
    inputs = ["one two three four five six seven eight nine ten " * 8] * 400
    body = {"model": MODEL, "input": inputs}
    leaving = _send(server, body, "/v1/embeddings")
    server.wait_for(MODEL, lambda _: _embedding(server)["running"] == 1)
    leaving.close()
    server.wait_for(MODEL, lambda _: _embedding(server)["running"] == 0)


def _embedding(server: Server) -> dict[str, Any]:
    rows = server.ask("GET", "/status").json["engines"]
    return next((row for row in rows if (row["model"], row["task"]) == (MODEL, "embed")), {"running": 0})


def _send(server: Server, body: dict[str, Any], path: str = CHAT) -> socket.socket:
    """Send a request and return the connection without reading."""
    data = orjson.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(head.encode() + data)
    return connection
