"""The replayer alone, with files made by hand; that it plays what was recorded is told in test_record_replay.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coterie.testbed.exchange_file import Ended, Exchange, ExchangeFileError, Response, scrubbed_request, write
from coterie.testbed.replayer import Replayer


def recorded(folder: Path, response: Response, method: str = "POST", ended: Ended = "complete") -> None:
    body = b'{"model":"m"}' if method == "POST" else b""
    request = scrubbed_request(method, "/v1/x", [], body)
    write(folder, 1, Exchange(request=request, response=response, ended=ended, ended_ms=4))


def response(*headers: tuple[str, str], chunks: tuple[str, ...] = ("ab", "c"), status: int = 200) -> Response:
    made = [(float(number), chunk) for number, chunk in enumerate(chunks)]
    return Response(status=status, reason="Fine", headers=list(headers), head_ms=0, chunks=made)  # type: ignore[arg-type]


CHUNKED = response(("transfer-encoding", "chunked"))
LENGTH = response(("content-length", "3"))
POST = b'POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 13\r\n\r\n{"model":"m"}'


@contextlib.asynccontextmanager
async def connected(folder: Path, speed: float = 0) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with Replayer(folder, speed=speed) as replayer:
        assert replayer.base_url == f"{replayer.url}/v1"
        reader, writer = await asyncio.open_connection("127.0.0.1", int(replayer.url.rpartition(":")[2]))
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.mark.parametrize("speed", [0, 1, 1000])
async def test_each_chunk_is_a_chunk_of_its_own(tmp_path: Path, speed: float) -> None:
    recorded(tmp_path, CHUNKED)
    async with connected(tmp_path, speed) as (reader, writer):
        writer.write(POST)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head == b"HTTP/1.1 200 Fine\r\ntransfer-encoding: chunked\r\n\r\n"
        assert await reader.readuntil(b"\r\n0\r\n\r\n") == b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"


async def test_an_empty_chunk_ends_nothing(tmp_path: Path) -> None:
    recorded(tmp_path, response(("transfer-encoding", "chunked"), chunks=("a", "", "b")))
    async with connected(tmp_path) as (reader, writer):
        writer.write(POST)
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readuntil(b"0\r\n\r\n") == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"


async def test_requests_that_come_together_are_answered_one_after_the_other(tmp_path: Path) -> None:
    recorded(tmp_path, LENGTH)
    async with connected(tmp_path) as (reader, writer):
        writer.write(POST * 3)
        for _ in range(3):
            assert await reader.readuntil(b"\r\n\r\nabc") == b"HTTP/1.1 200 Fine\r\ncontent-length: 3\r\n\r\nabc"


async def test_an_answer_to_head_has_no_body(tmp_path: Path) -> None:
    recorded(tmp_path, response(("transfer-encoding", "chunked"), chunks=()), method="HEAD")
    async with connected(tmp_path) as (reader, writer):
        writer.write(b"HEAD /v1/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert await reader.read() == b"HTTP/1.1 200 Fine\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("made", "closes"),
    [
        (response(chunks=("abc",)), True),
        (response(("Connection", "close"), ("content-length", "3")), True),
        (response(chunks=(), status=204), False),
    ],
)
async def test_when_the_connection_ends(tmp_path: Path, made: Response, closes: bool) -> None:
    recorded(tmp_path, made)
    async with connected(tmp_path) as (reader, writer):
        writer.write(POST)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"" if closes else POST)
        rest = await (reader.read() if closes else reader.readuntil(b"\r\n\r\n"))
        assert rest == (b"abc" if closes else b"HTTP/1.1 204 Fine\r\n\r\n")


async def test_a_client_that_asks_first_is_told_to_go_on(tmp_path: Path) -> None:
    recorded(tmp_path, LENGTH)
    head, _, body = POST.partition(b"\r\n\r\n")
    async with connected(tmp_path) as (reader, writer):
        writer.write(head + b"\r\nexpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.readuntil(b"\r\n\r\nabc")).startswith(b"HTTP/1.1 200")


async def test_what_is_no_request(tmp_path: Path) -> None:
    recorded(tmp_path, LENGTH)
    async with connected(tmp_path) as (reader, writer):
        writer.write(b"hello\r\n\r\n")
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http_request"


async def test_a_client_that_leaves_ends_its_answer(tmp_path: Path) -> None:
    slow = Response(status=200, reason="", headers=[], head_ms=0, chunks=[(3_600_000, "never")])
    recorded(tmp_path, slow)
    async with Replayer(tmp_path) as replayer:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(replayer.url.rpartition(":")[2]))
        writer.write(POST)
        await reader.readuntil(b"\r\n\r\n")
        (task,) = replayer.tasks
        writer.transport.abort()
        # The end of the client's side is no sign that it does not read; the next write would tell.
        assert not task.done()
    assert task.cancelled()
    assert not replayer.tasks


def test_what_cannot_be_played(tmp_path: Path) -> None:
    with pytest.raises(ExchangeFileError):
        Replayer(tmp_path)
    with pytest.raises(ValueError, match="speed"):
        Replayer(tmp_path, speed=-1)
