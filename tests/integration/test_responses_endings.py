"""Responses that end before their time: the client goes, the server stops, the engine dies, another provider helps."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from tests.support.behind import TOKENS, WHOLE, Behind, behind
from tests.support.leaks import MARKER, assert_clean
from tests.support.response_client import (
    CONVERSATIONS,
    RESPONSES,
    RUNNING,
    begins,
    begun,
    check_kept,
    configured,
    create,
    ended,
    get,
    journals,
    nothing_stored,
    parsed,
    replayed,
    respond,
    rows,
    stream,
    text_of,
)
from tests.support.server import RawStream, Server, eventually, serving

from coterie.dialects.responses_validator import judge
from coterie.testbed.upstream import FaultyUpstream

NewServer = Callable[..., Server]

MODELS: Final = {"ok": "ok", "slow": "ok:tokens=100000:rate=100", "late": "slow-first@0.3", "close": "close@20"}


@pytest.fixture(scope="module", name="upstream")
def _upstream() -> Iterator[FaultyUpstream]:
    with FaultyUpstream(models=MODELS) as upstream:
        yield upstream


@pytest.fixture(scope="module", name="paced")
def _paced(tmp_path_factory: pytest.TempPathFactory, upstream: FaultyUpstream) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(f"{MARKER}-paced")
    with serving(folder, configured((upstream.base_url, MODELS))) as running:
        yield running


def _conversation(server: Server) -> str:
    return str(server.ask("POST", CONVERSATIONS, {}).json["id"])


def _items(server: Server, conversation: str) -> list[dict[str, Any]]:
    page = server.ask("GET", f"{CONVERSATIONS}/{conversation}/items?order=asc&limit=100").json
    assert not page["has_more"]
    items: list[dict[str, Any]] = page["data"]
    return items


def _check_free(server: Server, conversation: str, items: int) -> None:
    """Nothing runs in the conversation, and it has so many items."""
    assert len(_items(server, conversation)) == items
    answer = create(server, "ok", conversation=conversation)
    assert answer.status == 200, answer.body
    assert len(_items(server, conversation)) == items + 2


# The client goes


def test_a_client_that_leaves(paced: Server, upstream: FaultyUpstream) -> None:
    """The generation stops, and the response is stored as cancelled, with all that anybody was sent."""
    conversation = _conversation(paced)
    upstream.forget()
    with stream(paced, "slow", conversation=conversation) as raw:
        response_id = begun(raw, 12)
    upstream.wait_for(lambda entry: entry.ended == "client_closed")
    response = ended(paced, response_id)
    assert (response["status"], response["error"], response["incomplete_details"]) == ("cancelled", None, None)
    body = replayed(paced, response_id)
    assert body.startswith(raw.body)
    assert check_kept(paced, body) == response
    assert parsed(body)[-1]["type"] == "response.incomplete"
    assert " w0 w1 w2" in text_of(response)
    _check_free(paced, conversation, items=0)


def test_a_client_that_leaves_before_the_first_token(paced: Server, upstream: FaultyUpstream) -> None:
    conversation = _conversation(paced)
    with nothing_stored(paced):
        for body in (respond("late", stream=True), respond("slow"), respond("late", conversation=conversation)):
            upstream.forget()
            with _sent(paced, body):
                upstream.wait_for(lambda entry: entry.ended is None)
            upstream.wait_for(lambda entry: entry.ended == "client_closed")
    eventually(lambda: create(paced, "ok", conversation=conversation).status, lambda status: status == 200)


def test_a_stored_response_that_nobody_knows(paced: Server) -> None:
    with stream(paced, "slow", store=False) as raw:
        response_id = begun(raw, 12)
        assert get(paced, response_id).status == 404
    assert get(paced, response_id).status == 404


def test_a_listener_that_leaves_stops_nobody(paced: Server) -> None:
    with stream(paced, "slow", background=True) as raw:
        response_id = begun(raw, 12)
        first = raw.body
    number = parsed(first)[-1]["sequence_number"]
    path = f"{RESPONSES}/{response_id}?stream=true&starting_after={number}"
    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(paced.ask, "GET", path)
        assert get(paced, response_id).json["status"] == "in_progress"
        cancelled = paced.ask("POST", f"{RESPONSES}/{response_id}/cancel")
        rest = listening.result().body
    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    assert check_kept(paced, first + rest) == cancelled.json


@contextlib.contextmanager
def _sent(server: Server, body: dict[str, Any]) -> Iterator[socket.socket]:
    """A request is sent; at the end its client has gone without a word."""
    data = json.dumps(body).encode()
    head = (
        f"POST {RESPONSES} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(head.encode() + data)
        yield client


@pytest.mark.parametrize("way", ["stream", "plain", "background"])
def test_clients_that_leave_at_any_moment(paced: Server, way: str) -> None:
    """Whenever it was: nothing is left that seems to run, and the conversation is free."""
    fields = {} if way == "plain" else {way: True}
    conversations = [_conversation(paced) for _ in range(40)]
    for place, conversation in enumerate(conversations):
        with _sent(paced, respond("ok", conversation=conversation, **fields)):
            time.sleep(place * 0.0004)  # any moment of an answer of some milliseconds
    eventually(lambda: set(rows(paced.folder).values()) & set(RUNNING), lambda running: not running)
    eventually(lambda: journals(paced.folder), lambda left: left == [])
    for conversation in conversations:
        done = len(_items(paced, conversation))
        assert done in (0, 2)
        _check_free(paced, conversation, done)


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_responses_that_are_stopped_at_any_moment(paced: Server, how: str) -> None:
    """Whoever stops a response is answered, and so is whoever listens to it."""
    method, end = ("POST", "/cancel") if how == "cancel" else ("DELETE", "")
    with ThreadPoolExecutor(2) as pool:
        for place in range(30):
            response_id = create(paced, "ok", background=True).json["id"]
            listening = pool.submit(paced.ask, "GET", f"{RESPONSES}/{response_id}?stream=true")
            time.sleep(place * 0.0004)
            stopped = paced.ask(method, f"{RESPONSES}/{response_id}{end}")
            heard = listening.result()
            assert stopped.status == 200, stopped.body
            if how == "delete":
                assert get(paced, response_id).status == 404
                assert heard.status == 404 or judge(heard.body) == []
            else:
                assert stopped.json["status"] in ("cancelled", "completed")
                assert check_kept(paced, heard.body) == stopped.json
    assert not set(rows(paced.folder).values()) & set(RUNNING)


# The server stops


def _check_stopped(body: bytes) -> dict[str, Any]:
    assert judge(body) == []
    error, failed = parsed(body)[-2:]
    assert (error["type"], error["error"]["type"], error["code"]) == (
        "error", "service_unavailable_error", "server_error"
    )  # fmt: skip
    response: dict[str, Any] = failed["response"]
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert "shutting down" in response["error"]["message"]
    assert_clean(response["error"]["message"])
    return response


def test_the_server_stops_while_responses_run(tmp_path: Any, upstream: FaultyUpstream) -> None:
    config = configured((upstream.base_url, MODELS), top="[server]\nshutdown_grace_s = 0.2")
    folder = tmp_path / f"{MARKER}-stopped"
    with serving(folder, config) as first, ThreadPoolExecutor(2) as pool:
        conversation = _conversation(first)
        plain = pool.submit(create, first, "slow")
        with stream(first, "slow", conversation=conversation) as told, stream(first, "slow", background=True) as heard:
            ids = [begun(told, 12), begun(heard, 12)]
            ids.append(create(first, "slow", background=True).json["id"])
            begins(first, ids[-1])
            first.signal(signal.SIGTERM)
            bodies = [told.rest(), heard.rest()]
        refused = plain.result()
        assert first.ended() == 0
    assert (refused.status, refused.json["error"]["code"]) == (503, "server_shutting_down")
    responses = [_check_stopped(body) for body in bodies]
    assert set(rows(folder).values()) == {"failed"}
    assert journals(folder) == []
    with serving(folder, config) as second:
        for body, response in zip(bodies, responses, strict=True):
            assert check_kept(second, body) == response
        _check_stopped(replayed(second, ids[-1]))
        _check_free(second, conversation, items=0)


# The engine dies


def test_the_engine_is_killed_amid_a_response(server: Server) -> None:
    ask = respond("fragile", input="Write a very long story about the sea.", max_output_tokens=1500, temperature=0)
    with RawStream(server, RESPONSES, ask) as raw:
        begun(raw, 8)
        os.kill(server.engine("fragile")["pid"], signal.SIGKILL)
        body = raw.rest()
    response = check_kept(server, body)
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert "engine" in response["error"]["message"]
    assert_clean(response["error"]["message"])
    assert text_of(response)
    assert response["output"][-1]["status"] == "incomplete"
    again = create(server, "fragile", max_output_tokens=16)
    assert again.status == 200, "the engine is started anew"


def test_the_engine_is_killed_amid_a_response_in_the_background(server: Server) -> None:
    ask = respond("fragile", input="Write a very long story about the sea.", max_output_tokens=1500, temperature=0)
    with RawStream(server, RESPONSES, {**ask, "background": True}) as raw:
        response_id = begun(raw, 8)
        os.kill(server.engine("fragile")["pid"], signal.SIGKILL)
        body = raw.rest()
    assert check_kept(server, body) == ended(server, response_id)
    assert ended(server, response_id)["error"]["code"] == "server_error"


# Settings


@pytest.fixture(scope="module", name="strict")
def _strict(tmp_path_factory: pytest.TempPathFactory, upstream: FaultyUpstream) -> Iterator[Server]:
    """A server that sends no error events, and has little time for the background."""
    tables = "[responses]\nerror_event = false\nbackground = 1\nbackground_timeout_s = 0.5"
    with serving(
        tmp_path_factory.mktemp(f"{MARKER}-strict"), configured((upstream.base_url, MODELS), tables=tables)
    ) as s:
        yield s


@pytest.mark.parametrize("background", [False, True], ids=["stream", "background"])
def test_a_failure_without_an_error_event(strict: Server, background: bool) -> None:
    with stream(strict, "close", background=background) as raw:
        body = raw.rest()
    response = check_kept(strict, body)
    types = [event["type"] for event in parsed(body)]
    assert "error" not in types
    assert types[-2:] == ["response.output_item.done", "response.failed"]
    assert response["error"]["code"] == "server_error"
    assert WHOLE.startswith(text_of(response))
    missing = create(strict, "no-such", stream=True)
    assert (missing.status, missing.json["error"]["code"]) == (404, "model_not_found")


def test_the_background_has_its_time(strict: Server, upstream: FaultyUpstream) -> None:
    """Waiting counts too; and what is late stops."""
    upstream.forget()
    ids = [create(strict, "slow", background=True).json["id"] for _ in range(2)]
    running, waiting = (ended(strict, response_id) for response_id in ids)
    upstream.wait_for(lambda entry: entry.ended == "client_closed")
    assert len(text_of(running)) > len(text_of(waiting))
    for response in (running, waiting):
        assert check_kept(strict, replayed(strict, response["id"])) == response
        assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
        assert "did not finish within 0.5 seconds" in response["error"]["message"]


# Another provider helps

RESCUED: Final = {
    "cut": "cut@40", "ended": "end@20", "no-finish": "no-finish", "finish-error": "finish-error@20",
    "first-event": "error-event@0", "event": "error-event@20", "rate-limit": "rate-limit@30", "role": "role-only",
}  # fmt: skip


@pytest.fixture(scope="module", name="pair")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with behind(tmp_path_factory.mktemp(f"{MARKER}-two"), RESCUED, dict.fromkeys(RESCUED, "ok")) as pair:
        yield pair


@pytest.mark.parametrize("way", ["stream", "plain", "background"])
@pytest.mark.parametrize("model", RESCUED)
def test_another_provider_goes_on(pair: Behind, model: str, way: str) -> None:
    if way == "stream":
        with stream(pair.server, model) as raw:
            assert raw.status == 200
            response = check_kept(pair.server, raw.rest())
    else:
        given = create(pair.server, model, background=way == "background").json
        response = ended(pair.server, given["id"])
        assert check_kept(pair.server, replayed(pair.server, given["id"])) == response
    assert (response["status"], text_of(response), len(response["output"])) == ("completed", WHOLE, 1)
    assert response["usage"]["output_tokens"] == TOKENS
