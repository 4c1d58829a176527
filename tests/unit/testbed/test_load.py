"""The load generator against scripted servers: outcomes, segments, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from tests.support.raw_server import Peer, raw_server

from coterie.testbed.integrity import Outcome, Sequence
from coterie.testbed.load import LoadPlan, LoadPlanError, request_bytes, run_load
from coterie.testbed.load_report import LoadReport

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = STREAM + b"transfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
ERROR = b'data: {"error":{"message":"x","type":"t","param":null,"code":"upstream_timeout"}}\n\n'
LAST = b"0\r\n\r\n"


def said(text: str) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text.encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def whole(*events: bytes) -> bytes:
    return CHUNKED + chunk(b"".join(events)) + LAST


def body(status: int, data: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(data), data)


GOOD = (ROLE, said(" w0"), said(" w1"), STOP, DONE)
ANSWERS: Mapping[str, tuple[tuple[bytes, ...], Outcome]] = {
    "complete": ((whole(*GOOD),), Outcome("complete")),
    "complete in pieces": ((CHUNKED, *map(chunk, GOOD), LAST), Outcome("complete")),
    "after an interim answer": ((b"HTTP/1.1 100 Continue\r\n\r\n", whole(*GOOD)), Outcome("complete")),
    "to the end of the connection": ((STREAM + b"\r\n", *GOOD), Outcome("complete")),
    "an error frame": ((whole(ROLE, said(" w0"), ERROR, DONE),), Outcome("error frame", "upstream_timeout")),
    "an error": ((body(429, b'{"error":{"code":"busy"}}'),), Outcome("http error", "429 busy")),
    "an error that is no JSON": ((body(502, b"<html>"),), Outcome("http error", "502 unknown")),
    "a gap": ((whole(said(" w0"), said(" w2"), STOP, DONE),), Outcome("broken", "gap")),
    "a truncation": ((whole(said(" w0"), STOP, DONE),), Outcome("broken", "count")),
    "no end": ((whole(said(" w0"), said(" w1"), STOP),), Outcome("broken", "no-done")),
    "cut off": ((CHUNKED + chunk(said(" w0")),), Outcome("broken", "cut")),
    "cut off at the very end": ((CHUNKED + chunk(b"".join(GOOD)),), Outcome("broken", "cut")),
    "half an event": ((whole(*GOOD, b"data: x"),), Outcome("broken", "half-event")),
    "an event without end": ((CHUNKED + chunk(b"data: " + b"a" * 1_100_000),), Outcome("broken", "size")),
    "another answer": ((whole(*GOOD) + body(200, b""),), Outcome("broken", "after-end")),
    "no stream": ((body(200, b"{}"),), Outcome("broken", "content-type")),
    "no HTTP": ((b"hello\r\n\r\n",), Outcome("broken", "not-http")),
    "nothing": ((), Outcome("broken", "cut")),
}


def port_plan(port: int, **settings: object) -> LoadPlan:
    known: dict[str, object] = {"ramp_s": 0.0, "timeout_s": 20.0, "verifier": lambda: Sequence(2)}
    return LoadPlan(f"http://127.0.0.1:{port}", "m", **{**known, **settings})  # type: ignore[arg-type]


async def loaded(pieces: tuple[bytes, ...], **settings: object) -> LoadReport:
    async def answer(peer: Peer) -> None:
        await peer.answer(*pieces)

    async with raw_server(answer) as server:
        return await run_load(port_plan(server.origin.port, **settings))


@pytest.mark.parametrize(("pieces", "outcome"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_outcomes(pieces: tuple[bytes, ...], outcome: Outcome) -> None:
    report = await loaded(pieces)
    assert report.outcomes == {outcome: 1}
    assert report.failures == (outcome.kind != "complete")
    assert report.broken == (outcome.kind == "broken")


async def test_segments_of_many_streams() -> None:
    report = await loaded((whole(*GOOD),), streams=5, requests=20, rate=10.0)
    assert report.outcomes == {Outcome("complete"): 20}
    assert report.tokens == 40
    counts = {name: summary.count for name, summary in report.segments.items() if name != "loop_lag"}
    assert counts == {"connect": 20, "head": 20, "ttft": 20, "gap": 20, "lateness": 20, "total": 20}


async def test_a_role_is_no_first_token() -> None:
    report = await loaded((whole(ROLE, ERROR, DONE),))
    assert report.segments["ttft"].count == 0
    assert report.segments["head"].count == 1


PLAIN = b'{"choices":[{"index":0,"message":{"content":" w0 w1"},"finish_reason":"stop"}]}'


@pytest.mark.parametrize(
    ("pieces", "outcome"),
    [
        ((body(200, PLAIN),), Outcome("complete")),
        ((body(200, PLAIN.replace(b"w1", b"w2")),), Outcome("broken", "gap")),
        ((body(500, b'{"error":{"type":"server_error"}}'),), Outcome("http error", "500 server_error")),
        ((body(200, PLAIN)[:-1],), Outcome("broken", "cut")),
    ],
)
async def test_plain_answers(pieces: tuple[bytes, ...], outcome: Outcome) -> None:
    assert (await loaded(pieces, streamed=False)).outcomes == {outcome: 1}


async def test_a_server_that_is_not_there() -> None:
    async def leave(peer: Peer) -> None:
        return None

    async with raw_server(leave) as server:
        port = server.origin.port
    report = await run_load(port_plan(port, streams=2))
    assert report.outcomes == {Outcome("broken", "connect"): 2}


async def endless(peer: Peer) -> None:
    await peer.answer(CHUNKED, chunk(said(" w0")))
    await peer.closed()


async def test_the_end_of_the_measurement_is_no_failure() -> None:
    async with raw_server(endless) as server:
        report = await run_load(port_plan(server.origin.port, streams=3, duration_s=0.2))
    assert report.outcomes == {Outcome("unfinished"): 3}
    assert report.failures == 0


async def test_an_answer_without_end_is_one() -> None:
    async with raw_server(endless) as server:
        report = await run_load(port_plan(server.origin.port, timeout_s=0.2))
    assert report.outcomes == {Outcome("broken", "timeout"): 1}


async def test_no_connection_stays_when_the_load_is_cancelled() -> None:
    begun = asyncio.Event()

    async def hold(peer: Peer) -> None:
        begun.set()
        await endless(peer)

    async with raw_server(hold) as server:
        load = asyncio.create_task(run_load(port_plan(server.origin.port)))
        await begun.wait()
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        async with asyncio.timeout(10):
            while server.open:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0)


def test_the_request() -> None:
    plan = LoadPlan("http://localhost:8000/api/v1/", "m", tokens=7, api_key="key")
    head, _, data = request_bytes(plan).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/chat/completions HTTP/1.1\r\nhost: localhost:8000\r\n")
    assert b"\r\nauthorization: Bearer key" in head
    assert data == b'{"model":"m","messages":[{"role":"user","content":"Count."}],"max_tokens":7,"stream":true}'
    assert b"/v1/chat/completions" in request_bytes(LoadPlan("http://[::1]:80", "m", streamed=False))


@pytest.mark.parametrize(
    ("url", "settings", "reason"),
    [
        ("http://example.com", {}, "not this machine"),
        ("http://10.0.0.1", {}, "not this machine"),
        ("http://127.0.0.1.example.com", {}, "not this machine"),
        ("ftp://localhost", {}, "http://"),
        ("http://localhost", {"streams": 0}, "streams"),
        ("http://localhost", {"streams": 10_001}, "streams"),
        ("http://localhost", {"requests": 0}, "requests"),
        ("http://localhost", {"duration_s": -1.0}, "duration_s"),
        ("http://localhost", {"rate": 0.0}, "rate"),
        ("http://localhost", {"ramp_s": -1.0}, "ramp_s"),
    ],
)
def test_what_cannot_be_done(url: str, settings: dict[str, float], reason: str) -> None:
    with pytest.raises(LoadPlanError, match=reason):
        LoadPlan(url, "m", **settings)  # type: ignore[arg-type]


def test_a_key_that_is_no_header() -> None:
    with pytest.raises(LoadPlanError, match="API key"):
        request_bytes(LoadPlan("http://localhost", "m", api_key="a\r\nb"))


def test_remote_targets_must_be_allowed() -> None:
    assert LoadPlan("https://example.com/v1", "m", allow_remote=True).target[0].host == "example.com"
