"""Every failure before the stream, as the official SDK shows it: class, status, code, type, param, request id, retries.

The table is :mod:`tests.support.failures`; each case is sent plain and, where the route can, as a stream.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import openai
import pytest
from openai import APIStatusError, AsyncOpenAI, OpenAI, Stream
from tests.integration.conftest import API_KEY
from tests.support.counting_proxy import CountingProxy
from tests.support.failures import CASES, CHAT, NO_KEY, Case
from tests.support.leaks import assert_clean
from tests.support.models import chat, damaged_copy, long_chat
from tests.support.server import RawStream, Server, eventually, exchange

from coterie.errors import CATALOGUE
from coterie.errors.entries import RELAYED
from coterie.errors.entries_stored import STORED

CLASSES: Final[Mapping[int, type[APIStatusError]]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    404: openai.NotFoundError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
    504: openai.InternalServerError,
}
"""The SDK's class for a status; those that are not here are a plain ``APIStatusError``."""

UNREACHABLE: Final[Mapping[str, str]] = {
    "internal_error": "a bug, which no test of a whole server can order; the edge's unit tests raise one",
    **{
        entry.code: "what only an HTTP provider can cause; see test_provider_errors"
        for entry in CATALOGUE.values()
        if entry.fault == "upstream" or entry in RELAYED
    },
    **{
        entry.code: "a matter of the Responses API; see test_responses_refusals, test_responses_storage and others"
        for entry in (*STORED, CATALOGUE["invalid_base64_image"])
    },
}

_RUNS: Final = [
    pytest.param(case, stream, id=f"{case.code}-{case.name}{'-stream' * stream}".replace(" ", "_"))
    for case in CASES
    for stream in case.streams
]


@pytest.mark.parametrize(("case", "stream"), _RUNS)
def test_failure_before_the_stream(case: Case, stream: bool, request: pytest.FixtureRequest) -> None:
    running: Server = request.getfixturevalue(case.server)
    with (
        case.situation(running),
        CountingProxy(running.port, case.rewrite) as proxy,
        OpenAI(base_url=proxy.url, api_key=API_KEY if case.server == "guarded" else "unused") as client,
    ):
        with pytest.raises(APIStatusError) as raised:
            _send(client, case, stream)
        sent = len(proxy.requests)
    error, entry = raised.value, CATALOGUE[case.code]
    assert (error.code, error.status_code, error.type, error.param) == (case.code, entry.status, entry.type, case.param)
    assert type(error) is CLASSES.get(entry.status, APIStatusError)
    assert sent == case.requests
    for pattern in case.says:
        assert re.search(pattern, error.message)
    _check_answer(error, case.own_words)
    if entry.retry.value == "after":
        _check_delay(error)


def _send(client: OpenAI, case: Case, stream: bool) -> None:
    headers = {name: openai.omit if value == NO_KEY else value for name, value in _spelled(case.headers).items()}
    how: dict[str, Any] = {"cast_to": object, "options": {"headers": headers}}
    if stream:
        how |= {"stream": True, "stream_cls": Stream[object]}
    if case.method != "POST":
        (client.get if case.method == "GET" else client.delete)(case.path, **how)
    elif isinstance(case.body, bytes):
        how["options"] = {"headers": {"Content-Type": "application/json", **headers}}
        client.post(case.path, content=case.body, **how)
    else:
        assert case.body is not None
        client.post(case.path, body={**case.body, "stream": True} if stream else case.body, **how)


def _spelled(headers: Mapping[str, str]) -> dict[str, str]:
    """As the SDK spells them, or both would be sent."""
    return {"-".join(part.capitalize() for part in name.split("-")): value for name, value in headers.items()}


def _check_answer(error: APIStatusError, own_words: tuple[str, ...] = ()) -> None:
    """What holds for every failure."""
    assert error.response.headers["content-type"] == "application/json"
    assert error.request_id is not None
    assert re.fullmatch(r"req_[0-9a-f]{32}", error.request_id)
    body = error.response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert_clean(error.response.text, own_words)


def _check_delay(error: APIStatusError) -> None:
    headers = error.response.headers
    seconds, milliseconds = int(headers["retry-after"]), int(headers["retry-after-ms"])
    assert seconds >= 1
    assert 1 <= milliseconds <= seconds * 1000
    assert f"Please try again in {seconds}s." in error.message


def test_the_server_is_well_after_all_that(server: Server, client: OpenAI) -> None:
    for case in CASES:
        if case.server == "server" and case.requests == 1:
            body = b"" if case.body is None else case.body
            assert server.ask(case.method, case.path, body, case.headers).status == CATALOGUE[case.code].status
    answer = client.chat.completions.create(**chat())
    assert answer.choices[0].message.content


def test_a_damaged_model_is_said_not_to_be_worth_a_retry(client: OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(**chat("damaged"))
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert client.chat.completions.create(**chat()).choices[0].message.content


def test_a_wrong_method_is_told_the_right_one(client: OpenAI) -> None:
    with pytest.raises(APIStatusError) as raised:
        client.get("/chat/completions", cast_to=object)
    assert raised.value.response.headers["allow"] == "POST"


def test_a_wrong_key_is_told_the_scheme(guarded: Server) -> None:
    with OpenAI(base_url=guarded.base_url, api_key="wrong") as client, pytest.raises(APIStatusError) as raised:
        client.models.list()
    assert raised.value.response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_asynchronous_sdk_sees_the_same(proxy: CountingProxy, stream: bool) -> None:
    async with AsyncOpenAI(base_url=proxy.base_url, api_key="unused") as client:
        with pytest.raises(openai.NotFoundError) as raised:
            await client.chat.completions.create(**chat("no-such-model", stream=stream))
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    assert len(proxy.requests) == 1
    _check_answer(raised.value)


@pytest.mark.parametrize("retries", [0, 2])
def test_engine_killed_under_a_plain_request(
    server: Server, proxy: CountingProxy, client: OpenAI, retries: int
) -> None:
    """Without a retry the failure is seen; with the SDK's retries the engine is started anew and the answer comes."""
    impatient = client.with_options(max_retries=retries)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: impatient.chat.completions.create(**long_chat("fragile", max_tokens=150)))
        server.wait_for("fragile", lambda engine: engine["running"] == 1)
        # A later stream that generates says that the earlier request does too.
        with RawStream(server, CHAT, long_chat("fragile")) as witness:
            assert witness.events(3)
            os.kill(server.engine("fragile")["pid"], signal.SIGKILL)
            _check_killed(answer, retries)
    assert len(proxy.requests) == (2 if retries else 1)


def _check_killed(answer: Future[Any], retries: int) -> None:
    if retries:
        assert answer.result().choices[0].finish_reason == "length"
        return
    error = answer.exception()
    assert type(error) is openai.InternalServerError
    assert (error.status_code, error.code, error.type, error.param) == (500, "engine_failed", "server_error", None)
    _check_answer(error)


def test_new_requests_are_refused_while_the_server_stops(new_server: Callable[..., Server]) -> None:
    """On connections that were open before; new ones are not accepted. The delay is what is left of the grace time."""
    server = new_server('[engine]\ncontext_tokens = 2048\nthreads = 1\n[[models]]\nname = "m"\npath = "{model}"')
    with (
        CountingProxy(server.port) as proxy,
        OpenAI(base_url=proxy.base_url, api_key="unused", max_retries=0) as client,
        RawStream(server, CHAT, long_chat("m")) as stream,
    ):
        assert stream.events(1)
        assert client.models.list().data
        with closing(HTTPConnection("127.0.0.1", server.port)) as watcher:
            exchange(watcher, "GET", "/health")
            server.signal(signal.SIGTERM)
            eventually(lambda: exchange(watcher, "GET", "/ready").status, lambda status: status == 503)
        with pytest.raises(openai.InternalServerError) as raised:
            client.chat.completions.create(**chat("m"))
        _check_unavailable(raised.value, "server_shutting_down")
        assert int(raised.value.response.headers["retry-after"]) <= 30
        with pytest.raises(ConnectionRefusedError):
            server.ask("GET", "/health")
    assert server.ended() == 0


def test_not_ready(new_server: Callable[..., Server], tmp_path: Path) -> None:
    """A model that should be loaded at start cannot be. Later a request may try again, so it does not last."""
    config = f'[[models]]\nname = "m"\npath = "{damaged_copy(tmp_path)}"\n'
    server = new_server(config, "--preload")
    server.wait_for("m", lambda engine: engine["state"] == "failed")
    with CountingProxy(server.port) as proxy, OpenAI(base_url=proxy.url, api_key="unused", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as raised:
            client.get("/ready", cast_to=object)
        _check_unavailable(raised.value, "not_ready")
        assert len(proxy.requests) == 1
    eventually(lambda: server.ask("GET", "/ready").status, lambda status: status == 200)


def _check_unavailable(error: APIStatusError, code: str) -> None:
    assert (error.status_code, error.code, error.type) == (503, code, "service_unavailable_error")
    assert error.param is None
    _check_answer(error)
    _check_delay(error)


SPECIAL: Final[Mapping[str, Callable[..., None]]] = {
    "engine_failed": test_engine_killed_under_a_plain_request,
    "server_shutting_down": test_new_requests_are_refused_while_the_server_stops,
    "not_ready": test_not_ready,
}
"""Codes that need more than a request and a situation."""


def test_every_failure_of_the_catalogue_is_provoked() -> None:
    provoked = {case.code for case in CASES} | SPECIAL.keys()
    assert provoked | UNREACHABLE.keys() == CATALOGUE.keys()
    assert not provoked & UNREACHABLE.keys()
    assert len({case.name for case in CASES}) == len(CASES)
