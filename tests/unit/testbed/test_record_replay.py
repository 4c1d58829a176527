"""What was recorded is played as it was: bytes, status, end. A scripted upstream, the recorder, then the replayer."""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.raw_server import Peer, RawServer, raw_server

from coterie.testbed.exchange_file import Ended, read
from coterie.testbed.recorder import Recorder
from coterie.testbed.replayer import Replayer


def request_bytes(body: object, path: str = "/v1/chat/completions") -> bytes:
    data = json.dumps(body).encode()
    return b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (path.encode(), len(data), data)


ASK = request_bytes({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True})


@dataclass(frozen=True)
class Heard:
    """What a client reads until the end, and how that was."""

    head: bytes
    rest: bytes
    was_reset: bool

    @property
    def body(self) -> bytes:
        """Without the chunked encoding, as far as it came."""
        if b"transfer-encoding: chunked" not in self.head:
            return self.rest
        body, left = b"", self.rest
        while left:
            line, _, left = left.partition(b"\r\n")
            size = int(line or b"0", 16)
            body, left = body + left[:size], left[size + 2 :]
        return body

    @property
    def ends_well(self) -> bool:
        """Whether the last chunk came."""
        return self.rest.endswith(b"\r\n0\r\n\r\n") or self.rest == b"0\r\n\r\n"


class Client(asyncio.Protocol):
    """Reads until the connection ends, also what comes before a reset (a stream reader drops that)."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc is not None)


async def ask(url: str, request: bytes = ASK) -> Heard:
    """Send one request and read until the connection ends."""
    transport, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port_of(url))
    transport.write(request)
    was_reset = await client.ended
    head, _, rest = bytes(client.heard).partition(b"\r\n\r\n")
    return Heard(head, rest, was_reset)


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def written(folder: Path) -> tuple[str, set[int]]:
    """The text of all files, and who may read them."""
    return "".join(path.read_text() for path in files(folder)), {path.stat().st_mode & 0o777 for path in files(folder)}


def url_of(upstream: RawServer) -> str:
    return f"http://127.0.0.1:{upstream.origin.port}"


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@dataclass(frozen=True)
class Script:
    """An upstream's answer, its framing and its end."""

    status: int
    chunks: tuple[bytes, ...]
    framing: str
    ended: Ended

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        missing = 0 if self.ended == "complete" else 7
        framing = {
            "length": b"content-length: %d\r\n" % (sum(map(len, self.chunks)) + missing),
            "chunked": b"transfer-encoding: chunked\r\n",
            "none": b"",
        }[self.framing]
        head = b"HTTP/1.1 %d Some Reason\r\ncontent-type: x/y\r\nconnection: close\r\n%s\r\n" % (self.status, framing)
        chunked = self.framing == "chunked"
        await peer.say(head, *(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data for data in self.chunks))
        if chunked and self.ended == "complete":
            await peer.say(b"0\r\n\r\n")
        if self.ended == "reset":
            peer.reset()


def scripts() -> st.SearchStrategy[Script]:
    chunks = st.lists(st.binary(min_size=1, max_size=40).filter(lambda data: not {*b'@":-_'} & {*data}), max_size=5)
    endings: dict[str, list[Ended]] = {
        "length": ["complete", "closed", "reset"],
        "chunked": ["complete", "closed", "reset"],
        "none": ["complete"],
    }
    return st.sampled_from(sorted(endings)).flatmap(
        lambda framing: st.builds(
            Script,
            status=st.sampled_from([200, 201, 400, 429, 500, 503, 529]),
            chunks=chunks.map(tuple),
            framing=st.just(framing),
            ended=st.sampled_from(endings[framing]),
        )
    )


async def passed_and_played(script: Script, folder: Path) -> tuple[Heard, Heard]:
    async with raw_server(script) as upstream, Recorder(url_of(upstream), folder) as recorder:
        passed = await ask(recorder.url)
        await recorder.settled(1)
    assert not recorder.skipped
    (path,) = recorder.recorded
    assert read(path).ended == script.ended
    async with Replayer(folder, speed=0) as replayer:
        return passed, await ask(replayer.url)


@settings(max_examples=60, deadline=None)
@given(scripts())
def test_what_is_played_is_what_passed(script: Script) -> None:
    with tempfile.TemporaryDirectory() as folder:
        passed, played = asyncio.run(passed_and_played(script, Path(folder)))
    for heard in (passed, played):
        assert heard.head.startswith(b"HTTP/1.1 %d Some Reason\r\n" % script.status)
        assert heard.body == b"".join(script.chunks)
        assert heard.was_reset == (script.ended == "reset")
        if script.framing == "chunked":
            assert heard.ends_well == (script.ended == "complete")
    assert played.head == passed.head


EVENTS = [b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n' % text for text in (b"sk", b"-abcdef1")]


async def test_no_secret_touches_the_disk_though_it_passes(tmp_path: Path) -> None:
    script = Script(200, (*EVENTS, b"bearer ABCDEFG", b"HIJK12345\n"), "chunked", "complete")
    request = ASK.replace(b"host: x", b"host: x\r\nAuthorization: Bearer hidden\r\nCookie: hidden")
    async with raw_server(script) as upstream, Recorder(url_of(upstream), tmp_path) as recorder:
        passed = await ask(recorder.url, request)
        await recorder.settled(1)
    assert passed.body == b"".join(script.chunks)
    text, modes = written(tmp_path)
    for secret in ("hidden", "abcdef1", "ABCDEFG", "HIJK"):
        assert secret not in text
    assert text.count("[redacted]") == 4
    assert modes == {0o600}


async def test_the_length_is_right_for_what_is_left(tmp_path: Path) -> None:
    script = Script(401, (b"Incorrect API key: sk-abcdefghijklmnopq",), "length", "complete")
    _, played = await passed_and_played(script, tmp_path)
    assert played.body == b"Incorrect API key: [redacted]"
    assert b"content-length: 29\r\n" in played.head + b"\r\n"


async def test_an_upstream_that_is_not_there(tmp_path: Path) -> None:
    async def leave(peer: Peer) -> None:
        return None

    async with raw_server(leave) as gone:
        url = url_of(gone)
    async with Recorder(url, tmp_path) as recorder:
        assert (await ask(recorder.url)).was_reset
        await recorder.settled(1)
    assert read(recorder.recorded[0]).ended == "unreachable"
    async with Replayer(tmp_path) as replayer:
        heard = await ask(replayer.url)
    assert heard == Heard(b"", b"", was_reset=True)


async def test_an_upstream_that_says_nothing(tmp_path: Path) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()

    async with raw_server(silent) as upstream, Recorder(url_of(upstream), tmp_path) as recorder:
        assert await ask(recorder.url) == Heard(b"", b"", was_reset=False)
        await recorder.settled(1)
    exchange = read(recorder.recorded[0])
    assert (exchange.ended, exchange.response) == ("closed", None)
    async with Replayer(tmp_path) as replayer:
        assert await ask(replayer.url) == Heard(b"", b"", was_reset=False)


async def test_a_client_that_leaves(tmp_path: Path) -> None:
    async def endless(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        await peer.closed()

    async with raw_server(endless) as upstream, Recorder(url_of(upstream), tmp_path) as recorder:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(recorder.url))
        writer.write(ASK)
        await reader.readuntil(b"1\r\na\r\n")
        writer.transport.abort()
        await recorder.settled(1)
    assert read(recorder.recorded[0]).ended == "client_gone"
    async with Replayer(tmp_path) as replayer:
        heard = await ask(replayer.url)
    assert (heard.body, heard.ends_well) == (b"a", False)


async def test_several_exchanges_on_one_connection_and_in_turn(tmp_path: Path) -> None:
    async def twice(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 429 Busy\r\ncontent-length: 1\r\n\r\na")
        await peer.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nb")

    async def two(url: str) -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
        answers = []
        for _ in range(2):
            writer.write(ASK)
            answers.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(1))
        writer.close()
        await writer.wait_closed()
        return answers

    async with raw_server(twice) as upstream, Recorder(url_of(upstream), tmp_path) as recorder:
        passed = await two(recorder.url)
        await recorder.settled(2)
    assert sorted(path.name[:6] for path in recorder.recorded) == ["000001", "000002"]
    async with Replayer(tmp_path, speed=0) as replayer:
        assert await two(replayer.url) == passed
        assert [answer[-1:] for answer in await two(replayer.url)] == [b"b", b"b"]


@pytest.mark.parametrize(
    ("request_bytes_", "differs_in"),
    [
        (request_bytes({"model": "other", "messages": [{"role": "user", "content": "Hi"}], "stream": True}), ["model"]),
        (request_bytes({"model": "m", "messages": [], "stream": True}), ["messages"]),
        (request_bytes({"model": "m"}, "/v1/responses"), ["messages", "path", "stream"]),
    ],
)
async def test_what_was_never_recorded(tmp_path: Path, request_bytes_: bytes, differs_in: list[str]) -> None:
    await passed_and_played(Script(200, (b"a",), "length", "complete"), tmp_path)
    (path,) = files(tmp_path)
    async with Replayer(tmp_path) as replayer:
        heard = await ask(replayer.url, request_bytes_.replace(b"host: x", b"host: x\r\nconnection: close"))
    assert heard.head.startswith(b"HTTP/1.1 404 ")
    body = json.loads(heard.body)
    assert body["nearest"] == {"file": path.name, "differs_in": differs_in}
    assert body["error"]["code"] == "no_recording"
    assert path.name in body["error"]["message"]
