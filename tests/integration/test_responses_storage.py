"""What is kept of responses: over a killed server, by turns that race, for as long as it should be, and not at all."""

from __future__ import annotations

import contextlib
import http.client
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.leaks import MARKER, assert_clean
from tests.support.postgres import postgres_server
from tests.support.response_client import (
    CONVERSATIONS,
    RESPONSES,
    begins,
    begun,
    check_kept,
    configured,
    create,
    ended,
    get,
    holders,
    journals,
    parsed,
    replayed,
    rows,
    stream,
    text_of,
)
from tests.support.server import RawStream, Server, eventually, serving

from coterie.dialects.responses_validator import judge
from coterie.testbed.upstream import FaultyUpstream

MODELS: Final = {"ok": "ok", "slow": "ok:tokens=100000:rate=200", "steady": "ok:rate=300", "close": "close@20"}
STORES: Final = ("sqlite", "postgresql")
SECRET: Final = "zq5keepsake"
"""Stands in what must not be kept."""


@pytest.fixture(scope="module", name="upstream")
def _upstream() -> Iterator[FaultyUpstream]:
    with FaultyUpstream(models=MODELS) as upstream:
        yield upstream


def _config(upstream: FaultyUpstream, store: str = "sqlite", responses: str = "") -> str:
    storage = f'[storage]\nurl = "{postgres_server().new_database()}"\n' if store == "postgresql" else ""
    return configured((upstream.base_url, MODELS), tables=f"{storage}[responses]\n{responses}")


@pytest.fixture(scope="module", name="kept")
def _kept(tmp_path_factory: pytest.TempPathFactory, upstream: FaultyUpstream) -> Iterator[Server]:
    """A server with SQLite."""
    with serving(tmp_path_factory.mktemp(f"{MARKER}-kept"), _config(upstream)) as running:
        yield running


@pytest.fixture(scope="module", name="stored", params=STORES)
def _stored(request: Any, tmp_path_factory: pytest.TempPathFactory, upstream: FaultyUpstream) -> Iterator[Server]:
    """A server with each kind of database."""
    folder = tmp_path_factory.mktemp(f"{MARKER}-{request.param}")
    with serving(folder, _config(upstream, request.param)) as running:
        yield running


def _conversation(server: Server) -> str:
    return str(server.ask("POST", CONVERSATIONS, {}).json["id"])


def _items(server: Server, conversation: str) -> list[dict[str, Any]]:
    page = server.ask("GET", f"{CONVERSATIONS}/{conversation}/items?order=asc&limit=100").json
    assert not page["has_more"]
    items: list[dict[str, Any]] = page["data"]
    return items


# A server that is killed


def _received(raw: RawStream) -> bytes:
    """All that comes of a stream whose server is killed; the last event may be cut."""
    with contextlib.suppress(http.client.HTTPException, ConnectionError):
        while raw.events(1):
            pass
    return raw.body


def _check_interrupted(server: Server, response_id: str, received: bytes) -> dict[str, Any]:
    """The response failed, with all that anybody was sent of it; its stream can be gone on with."""
    whole = replayed(server, response_id)
    assert whole.startswith(received)
    response = check_kept(server, whole)
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert "stopped before the response was complete" in response["error"]["message"]
    assert_clean(response["error"]["message"])
    known = len(parsed(received))
    rest = server.ask("GET", f"{RESPONSES}/{response_id}?stream=true&starting_after={known - 1}").body
    assert b"\n\n".join(received.split(b"\n\n")[:known]) + b"\n\n" * bool(known) + rest == whole
    return response


@pytest.mark.parametrize("store", STORES)
def test_the_server_is_killed(tmp_path: Path, upstream: FaultyUpstream, store: str) -> None:
    folder, config = tmp_path / f"{MARKER}-killed", _config(upstream, store, "background = 1")
    with serving(folder, config) as first, ThreadPoolExecutor(1) as pool:
        conversation, other = _conversation(first), _conversation(first)
        plain = pool.submit(create, first, "slow", input=SECRET, conversation=other)
        with (
            stream(first, "slow", conversation=conversation) as told,
            stream(first, "slow", background=True) as heard,
            stream(first, "slow") as young,
        ):
            ids = [begun(told, 60), begun(heard, 30), begun(young, 1)]
            queued = create(first, "slow", background=True).json
            first.signal(signal.SIGKILL)
            bodies = [_received(told), _received(heard), _received(young)]
        assert first.ended() == -signal.SIGKILL
        assert isinstance(plain.exception(), http.client.HTTPException | ConnectionError)
    with serving(folder, config) as second:
        assert queued["status"] == "queued"
        assert "4 responses were interrupted" in second.log
        for response_id, body in zip(ids, bodies, strict=True):
            text = text_of(_check_interrupted(second, response_id, body))
            assert text.startswith(" w0 w1") or body is bodies[-1]
        never = _check_interrupted(second, queued["id"], b"")
        assert never["output"] == []
        assert [event["type"] for event in parsed(replayed(second, queued["id"]))] == [
            "response.created", "response.queued", "error", "response.failed"
        ]  # fmt: skip
        assert journals(folder) == []
        if store == "sqlite":
            assert rows(folder) == dict.fromkeys([*ids, queued["id"]], "failed")
            assert holders(folder, SECRET.encode()) == []
        for free in (conversation, other):
            assert _items(second, free) == []
            assert create(second, "ok", conversation=free).status == 200
        assert create(second, "ok", previous_response_id=ids[0]).status == 200, "what was said can be gone on from"


def test_the_server_is_killed_while_many_responses_end(tmp_path: Path, upstream: FaultyUpstream) -> None:
    """Whatever a client was told, be it the end, is what it reads afterwards."""
    folder, config = tmp_path / f"{MARKER}-crowd", _config(upstream)
    received: list[bytes] = []

    def ask_until_it_is_gone(server: Server, background: bool) -> None:
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            while True:
                with stream(server, "ok", background=background) as raw:
                    body = _received(raw)
                received.append(body)

    with serving(folder, config) as first, ThreadPoolExecutor(6) as pool:
        for number in range(6):
            pool.submit(ask_until_it_is_gone, first, number % 2 == 0)
        eventually(lambda: len(received), lambda count: count >= 30)
        first.signal(signal.SIGKILL)
    assert len(received) >= 30
    with serving(folder, config) as second:
        for body in filter(None, received):
            response_id = parsed(body)[0]["response"]["id"]
            whole = replayed(second, response_id)
            assert whole.startswith(body)
            response = check_kept(second, whole)
            assert response["status"] in ("completed", "failed")
            assert response["status"] == "completed" or not body.endswith(b"data: [DONE]\n\n")
        assert set(rows(folder).values()) <= {"completed", "failed"}
        assert journals(folder) == []


# What is streamed is what is stored


@pytest.mark.parametrize("fields", [{}, {"background": True}], ids=["stream", "background"])
@pytest.mark.parametrize("model", ["ok", "close"])
def test_what_was_streamed_is_stored(stored: Server, model: str, fields: dict[str, Any]) -> None:
    with stream(stored, model, metadata={"a": "b"}, **fields) as raw:
        response = check_kept(stored, raw.rest())
    assert response["status"] == ("completed" if model == "ok" else "failed")
    assert response["metadata"] == {"a": "b"}


def test_who_did_not_stream_can_see_the_stream(stored: Server) -> None:
    response = create(stored, "ok").json
    assert check_kept(stored, replayed(stored, response["id"])) == response


def test_what_is_told_is_stored(kept: Server, upstream: FaultyUpstream) -> None:
    """Nobody is told of an end while it is not stored: a crash at this moment would undo it."""
    upstream.forget()
    response_id = create(kept, "steady", background=True).json["id"]
    begins(kept, response_id)
    file = kept.folder / "state" / "coterie.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as busy, ThreadPoolExecutor(1) as pool:
        busy.execute("BEGIN IMMEDIATE")  # until it is rolled back, nobody else writes
        upstream.wait_for(lambda entry: entry.ended == "done")
        for _ in range(500):
            looking = pool.submit(lambda: (get(kept, response_id).json["status"], rows(kept.folder)[response_id]))
            if not wait([looking], timeout=0.2).done:
                break
            assert looking.result() == ("in_progress", "in_progress")
        busy.execute("ROLLBACK")
        assert looking.result() == ("completed", "completed")


def test_a_stream_goes_on_where_it_broke(stored: Server) -> None:
    """At every event, of one that runs and of one that has ended."""
    with stream(stored, "ok", background=True) as raw:
        whole = raw.rest()
    events = whole.split(b"\n\n")[:-1]
    response_id = parsed(whole)[0]["response"]["id"]
    for number in (*range(-1, len(events), 7), len(events) + 10):
        answer = stored.ask("GET", f"{RESPONSES}/{response_id}?stream=true&starting_after={number}")
        assert answer.body == b"".join(event + b"\n\n" for event in [*events[number + 1 : -1], events[-1]])


# Turns that race


def test_turns_of_one_conversation_that_race(stored: Server, upstream: FaultyUpstream) -> None:
    """Each that is taken has what came before it, and adds its own; the others may try again."""
    conversation, turns = _conversation(stored), 8
    upstream.forget()

    def take_turn(number: int) -> tuple[dict[str, Any], int]:
        refused = 0
        while (answer := create(stored, "ok", conversation=conversation, input=f"turn {number}")).status != 200:
            error = answer.json["error"]
            assert (answer.status, error["code"], error["type"]) == (
                409,
                "conversation_locked",
                "invalid_request_error",
            )
            assert conversation in error["message"]
            assert "x-should-retry" not in answer.headers
            refused += 1
        return answer.json, refused

    with ThreadPoolExecutor(turns) as pool:
        taken = list(pool.map(take_turn, range(turns)))
    assert sum(refused for _, refused in taken) > 0, "none of them met another"
    items = _items(stored, conversation)
    asked = [item["content"][0]["text"] for item in items[::2]]
    assert sorted(asked) == [f"turn {number}" for number in range(turns)]
    for text, answered in zip(asked, items[1::2], strict=True):
        response, _ = taken[int(text.removeprefix("turn "))]
        assert response["output"] == [answered]
    sent = [entry.body["messages"] for entry in upstream.log]
    assert [len(messages) for messages in sent] == list(range(1, 2 * turns, 2))
    assert [messages[-1]["content"] for messages in sent] == asked


def test_a_conversation_is_busy_while_a_turn_runs(stored: Server) -> None:
    conversation = _conversation(stored)
    with stream(stored, "slow", conversation=conversation) as raw:
        response_id = begun(raw, 5)
        ways: tuple[dict[str, Any], ...] = ({}, {"stream": True}, {"background": True})
        for fields in ways:
            answer = create(stored, "ok", conversation=conversation, **fields)
            assert (answer.status, answer.json["error"]["code"]) == (409, "conversation_locked")
        assert stored.ask("DELETE", f"{RESPONSES}/{response_id}").status == 200
        raw.rest()
    assert create(stored, "ok", conversation=conversation).status == 200


# How long it is kept


def _check_gone(server: Server, response_id: str) -> None:
    for method, path in (("GET", ""), ("GET", "?stream=true"), ("GET", "/input_items"), ("DELETE", "")):
        answer = server.ask(method, f"{RESPONSES}/{response_id}{path}")
        assert (answer.status, answer.json["error"]["code"]) == (404, "response_not_found")
    later = create(server, "ok", previous_response_id=response_id)
    assert (later.status, later.json["error"]["code"]) == (404, "previous_response_not_found")


def test_an_expired_response_is_gone(tmp_path: Path, upstream: FaultyUpstream) -> None:
    folder, config = tmp_path / MARKER, _config(upstream, responses="retention_days = 0.00002")  # 1.7 seconds
    with serving(folder, config) as server:
        response = create(server, "ok", input=SECRET).json
        assert response["status"] == "completed"
        eventually(lambda: get(server, response["id"]).status, lambda status: status == 404)
        _check_gone(server, response["id"])
    assert holders(folder, SECRET.encode()) != []
    with serving(folder, config):
        eventually(lambda: holders(folder, SECRET.encode()), lambda where: where == [])
    assert rows(folder) == {}


@pytest.mark.parametrize("way", ["plain", "stream", "background"])
def test_a_deleted_response_is_gone(kept: Server, way: str) -> None:
    fields: dict[str, Any] = {} if way == "plain" else {way: True}
    secret = f"{SECRET}-{way}"
    answer = create(kept, "ok", input=secret, instructions=secret, metadata={"m": secret}, **fields)
    response_id = parsed(answer.body)[0]["response"]["id"] if way == "stream" else answer.json["id"]
    ended(kept, response_id)
    assert holders(kept.folder, secret.encode()) != []
    deleted = kept.ask("DELETE", f"{RESPONSES}/{response_id}")
    assert deleted.json == {"id": response_id, "object": "response", "deleted": True}
    _check_gone(kept, response_id)
    assert holders(kept.folder, secret.encode()) == []


@pytest.mark.parametrize("background", [False, True], ids=["stream", "background"])
def test_a_response_is_deleted_while_it_runs(kept: Server, upstream: FaultyUpstream, background: bool) -> None:
    """It stops, whoever listens is told, and nothing of it stays."""
    conversation, secret = _conversation(kept), f"{SECRET}-running-{background}"
    upstream.forget()
    with stream(kept, "slow", conversation=conversation, input=secret, background=background) as raw:
        response_id = begun(raw, 12)
        deleted = kept.ask("DELETE", f"{RESPONSES}/{response_id}")
        body = raw.rest()
    assert (deleted.status, deleted.json["deleted"]) == (200, True)
    upstream.wait_for(lambda entry: entry.ended == "client_closed")
    assert judge(body) == []
    last = parsed(body)[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
    _check_gone(kept, response_id)
    assert response_id not in rows(kept.folder)
    assert journals(kept.folder) == []
    assert holders(kept.folder, secret.encode()) == []
    assert _items(kept, conversation) == []
    assert create(kept, "ok", conversation=conversation).status == 200


def test_a_response_that_is_not_to_be_stored(kept: Server) -> None:
    secret = f"{SECRET}-never"
    fields: dict[str, Any] = {"input": secret, "instructions": secret, "metadata": {"m": secret}, "store": False}
    before = rows(kept.folder)
    answers = [create(kept, model, **fields) for model in ("ok", "close")]
    assert [answer.status for answer in answers] == [200, 502]
    ids = [answers[0].json["id"]]
    for model in ("ok", "close"):
        with stream(kept, model, **fields) as raw:
            body = raw.rest()
        assert judge(body) == []
        ids.append(parsed(body)[-1]["response"]["id"])
    with stream(kept, "slow", **fields) as raw:
        ids.append(begun(raw, 12))
        assert holders(kept.folder, secret.encode()) == []
        assert journals(kept.folder) == []
        assert get(kept, ids[-1]).status == 404
    for response_id in ids:
        _check_gone(kept, response_id)
    assert rows(kept.folder) == before
    assert holders(kept.folder, secret.encode()) == []
