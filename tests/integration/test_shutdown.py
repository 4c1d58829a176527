"""The server is told to stop while it answers."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import openai
import orjson
import pytest
from openai import APIError, OpenAI
from tests.support.failures import CHAT
from tests.support.leaks import assert_clean
from tests.support.models import long_chat
from tests.support.server import RawStream, Server, eventually, process_gone

from coterie.dialects.chat_validator import judge

NewServer = Callable[..., Server]

CONFIG = """
[server]
shutdown_grace_s = {grace}

[engine]
slots = 3
context_tokens = 2048
threads = 1

[[models]]
name = "m"
path = "{model}"
"""


def _config(grace_s: float) -> str:
    return CONFIG.replace("{grace}", str(grace_s))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_answers_that_outlast_the_grace_end_with_an_error(new_server: NewServer, number: int) -> None:
    server = new_server(_config(0.3))
    with (
        OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as client,
        client.chat.completions.create(**long_chat("m"), stream=True) as stream,
        RawStream(server, CHAT, long_chat("m")) as raw,
        ThreadPoolExecutor(1) as pool,
    ):
        next(stream)
        assert raw.events(1)
        plain = pool.submit(lambda: client.chat.completions.create(**long_chat("m")))
        engine = server.wait_for("m", lambda engine: engine["running"] == 3)
        server.signal(number)
        with pytest.raises(APIError) as raised:
            list(stream)
        body = raw.rest()
        refused = plain.exception()
    assert (raised.value.code, raised.value.type) == ("server_shutting_down", "service_unavailable_error")
    assert type(refused) is openai.InternalServerError
    assert (refused.status_code, refused.code) == (503, "server_shutting_down")
    _check_last_words(body)
    assert server.ended() == 0
    assert process_gone(engine["pid"])


def _check_last_words(body: bytes) -> None:
    assert judge(body, include_usage=False, choices=1) == []
    failure, done = body.removesuffix(b"\n\n").split(b"\n\n")[-2:]
    error = orjson.loads(failure.removeprefix(b"data: "))["error"]
    assert (error["code"], error["type"], error["param"]) == ("server_shutting_down", "service_unavailable_error", None)
    assert done == b"data: [DONE]"
    assert_clean(failure.decode())
    assert b'"finish_reason":"' not in body


def test_answers_that_end_within_the_grace_are_whole(new_server: NewServer) -> None:
    server = new_server(_config(60))
    with RawStream(server, CHAT, long_chat("m", max_tokens=100)) as raw:
        assert raw.events(1)
        pid = server.engine("m")["pid"]
        server.signal(signal.SIGTERM)
        body = raw.rest()
    assert judge(body, include_usage=False, choices=1) == []
    assert b'"finish_reason":"length"' in body
    assert server.ended() == 0
    assert process_gone(pid)


def test_a_second_signal_cuts_the_grace_short(new_server: NewServer) -> None:
    server = new_server(_config(3600))
    with RawStream(server, CHAT, long_chat("m")) as raw:
        assert raw.events(1)
        server.signal(signal.SIGTERM)
        eventually(lambda: server.log, lambda log: "stopping: 1 answers are running" in log)
        server.signal(signal.SIGTERM)
        body = raw.rest()
    _check_last_words(body)
    assert server.ended() == 0


def test_a_client_that_does_not_read_holds_nothing_up(new_server: NewServer) -> None:
    server = new_server(_config(0.3))
    with RawStream(server, CHAT, long_chat("m")) as raw:
        assert raw.events(1)
        pid = server.engine("m")["pid"]
        server.signal(signal.SIGTERM)
        assert server.ended() == 0
        assert process_gone(pid)


def test_stop_while_a_model_loads(new_server: NewServer) -> None:
    """A stop does not wait for a load that nobody needs any more."""
    server = new_server(_config(3600), "--preload")
    server.signal(signal.SIGTERM)
    assert server.ended() == 0
