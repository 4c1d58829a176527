"""What the recorder passes on, and what it leaves out; that it plays back is told in test_record_replay.py."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.raw_server import Peer, RawServer, raw_server

from coterie.testbed import recorder as module
from coterie.testbed.exchange_file import JsonBody, Request, read
from coterie.testbed.recorder import Recorder

ASK = b'POST /v1/x?a=1 HTTP/1.1\r\nHost: x\r\nX-Odd:  y \r\ncontent-length: 9\r\n\r\n{"a":"b"}'
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


def url_of(server: RawServer) -> str:
    return f"http://127.0.0.1:{server.origin.port}"


async def answer_of(recorder: Recorder, request: bytes = ASK, size: int | None = None) -> bytes:
    """All that comes until the connection ends, or the first ``size`` bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(recorder.url.rpartition(":")[2]))
    writer.write(request)
    try:
        return await reader.read() if size is None else await reader.readexactly(size)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_requests_pass_byte_for_byte(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.answer(HELLO))

    async with raw_server(script) as server, Recorder(url_of(server), tmp_path / "new") as recorder:
        assert await answer_of(recorder) == HELLO
        await recorder.settled(1)
        assert recorder.base_url == f"{recorder.url}/v1"
    assert seen == [ASK]
    exchange = read(recorder.recorded[0])
    assert exchange.request == Request(
        method="POST",
        path="/v1/x?a=1",
        headers=[("Host", "x"), ("X-Odd", "y "), ("content-length", "9")],
        body=JsonBody(json={"a": "b"}),
    )
    assert exchange.response is not None
    assert exchange.response.body == b"hello"


async def test_another_machine_gets_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.answer(HELLO))
        seen.append(await peer.answer(HELLO))

    monkeypatch.setattr(module, "is_this_machine", lambda host: False)
    async with raw_server(script) as server, Recorder(url_of(server), tmp_path) as recorder:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(recorder.url.rpartition(":")[2]))
        for _ in range(2):
            for place in range(len(ASK)):  # the head comes in pieces
                writer.write(ASK[place : place + 1])
                await asyncio.sleep(0)
            assert await reader.readexactly(len(HELLO)) == HELLO
        writer.close()
        await writer.wait_closed()
        await recorder.settled(2)
    assert seen == [ASK.replace(b"Host: x", f"host: 127.0.0.1:{server.origin.port}".encode())] * 2


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_what_is_packed_is_recorded_unpacked_and_scrubbed(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack(b"a key: sk-abcdefgh12345678")
    passed = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\ncontent-length: %d\r\n\r\n" % (name.encode(), len(packed))

    async def script(peer: Peer) -> None:
        await peer.answer(passed, packed[:9], packed[9:])

    async with raw_server(script) as server, Recorder(url_of(server), tmp_path) as recorder:
        assert await answer_of(recorder) == passed + packed
        await recorder.settled(1)
    response = read(recorder.recorded[0]).response
    assert response is not None
    assert response.body == b"a key: [redacted]"
    assert response.headers == [("content-length", "17")]


BROTLI = b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\na"
BAD_GZIP = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\na"
BOMB = gzip.compress(bytes(5000))
NOT_RECORDED = {
    "a compression that cannot be read": (ASK, BROTLI, "an answer in a compression that cannot be read"),
    "a compression that is broken": (ASK, BAD_GZIP, "an answer whose compression is broken"),
    "what unpacks to too much": (
        ASK,
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%s" % (len(BOMB), BOMB),
        "more bytes than are recorded",
    ),
    "a packed request": (ASK.replace(b"X-Odd", b"content-encoding"), HELLO, "a compressed request"),
    "too much": (ASK, b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n" + b"a" * 1001, "more bytes than are recorded"),
    "no HTTP": (ASK, b"hello\r\n\r\n", "not HTTP: HttpParserInvalidStatusError"),
}


@pytest.mark.parametrize(("request_", "answer", "reason"), NOT_RECORDED.values(), ids=NOT_RECORDED.keys())
async def test_what_passes_and_is_not_recorded(tmp_path: Path, request_: bytes, answer: bytes, reason: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(answer)

    async with raw_server(script) as server, Recorder(url_of(server), tmp_path, max_exchange_bytes=1000) as recorder:
        assert await answer_of(recorder, request_) == answer
        await recorder.settled(1)
    assert not recorder.recorded
    (found,) = recorder.skipped
    assert found == reason or (reason.startswith("not HTTP") and found.startswith("not HTTP"))


async def test_only_so_many_are_recorded(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(HELLO)

    async with raw_server(script) as server, Recorder(url_of(server), tmp_path, max_exchanges=1) as recorder:
        for _ in range(2):
            assert await answer_of(recorder) == HELLO
        await recorder.settled(2)
    assert len(recorder.recorded) == 1
    assert recorder.skipped == {"enough exchanges are recorded": 1}


async def test_pipelined_requests_pass_unrecorded(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.request()
        await peer.say(HELLO, HELLO)

    async with raw_server(script) as server, Recorder(url_of(server), tmp_path) as recorder:
        assert await answer_of(recorder, ASK * 2) == HELLO * 2
        await recorder.settled(1)
    assert not recorder.recorded


async def test_a_second_recorder_goes_on_counting(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(HELLO)

    names = []
    async with raw_server(script) as server:
        for _ in range(2):
            async with Recorder(url_of(server), tmp_path) as recorder:
                await answer_of(recorder)
                await recorder.settled(1)
            names.append(recorder.recorded[0].name[:6])
    assert names == ["000001", "000002"]


async def test_a_running_exchange_is_recorded_when_the_recorder_stops(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(HELLO[:-1])
        begun.set()
        await peer.closed()

    async with raw_server(script) as server:
        async with Recorder(url_of(server), tmp_path) as recorder:
            asking = asyncio.create_task(answer_of(recorder, size=len(HELLO) - 1))
            await begun.wait()
            await asking
        assert len(recorder.recorded) == 1
    assert json.loads(recorder.recorded[0].read_text())["ended"] == "client_gone"


@pytest.mark.parametrize("upstream", ["http://localhost/v1", "localhost:80", "http://u:p@localhost", "http://"])
def test_what_is_no_upstream(tmp_path: Path, upstream: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        Recorder(upstream, tmp_path)


async def test_a_large_answer_passes_whole(tmp_path: Path) -> None:
    size = 4_000_000
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size

    async def script(peer: Peer) -> None:
        await peer.answer(head, bytes(size))

    async with raw_server(script) as server, Recorder(url_of(server), tmp_path) as recorder:
        assert await answer_of(recorder) == head + bytes(size)
        await recorder.settled(1)
    response = read(recorder.recorded[0]).response
    assert response is not None
    assert response.body == bytes(size)
