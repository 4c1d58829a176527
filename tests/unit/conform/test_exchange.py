"""One exchange: whole answers, and each way to have none."""

from __future__ import annotations

import orjson
import pytest
from tests.support.raw_server import Peer, Script, raw_server

from coterie.conform import exchange
from coterie.conform.exchange import Client, Reply, Target

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: Application/JSON; charset=utf-8\r\ncontent-length: 9\r\n\r\n{"a":"b"}'


async def asked(script: Script, method: str = "POST", *, timeout_s: float = 30, key: str | None = None) -> Reply:
    async with raw_server(script) as server, Client(Target(url(server.origin.port), "m", key), timeout_s) as client:
        return await client.ask(method, "/responses", {"model": "m"})


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


async def test_an_answer() -> None:
    requests: list[bytes] = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.answer(ANSWER))

    reply = await asked(script, key="secret")
    assert (reply.status, reply.content_type, reply.object, reply.broken) == (200, "application/json", {"a": "b"}, None)
    assert reply.asked == 'POST /v1/responses {"model":"m"}'
    [request] = requests
    assert request.startswith(b"POST /v1/responses HTTP/1.1\r\n")
    assert b"content-type: application/json\r\n" in request
    assert b"authorization: Bearer secret\r\n" in request


async def test_without_its_key_and_with_another() -> None:
    requests: list[bytes] = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.answer(ANSWER))
        await peer.closed()

    async with raw_server(script) as server, Client(Target(url(server.origin.port), "m", "secret"), 30) as client:
        await client.ask("GET", "/models", keyed=False)
        await client.ask("GET", "/models", keyed=False, headers={"authorization": "Bearer other"})
    assert not any(b"secret" in request for request in requests)
    assert b"Bearer other" in requests[1]


async def test_each_exchange_has_a_connection_of_its_own() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(ANSWER)
        await peer.closed()

    async with raw_server(script) as server, Client(Target(url(server.origin.port), "m"), 5) as client:
        replies = [await client.ask("GET", "/models") for _ in range(5)]
    assert [(reply.status, reply.broken) for reply in replies] == [(200, None)] * 5


async def test_no_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    reply = await asked(script)
    assert (reply.status, reply.body) == (0, b"")
    assert (reply.broken or "").startswith("reset_before_head: ")


async def test_half_an_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(ANSWER[:-3])

    reply = await asked(script)
    assert (reply.status, reply.body) == (200, b'{"a":"'[:6])
    assert (reply.broken or "").startswith("broken: ")


@pytest.mark.parametrize("sent", [b"", ANSWER[:-3]])
async def test_an_answer_that_does_not_end(sent: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(sent)
        await peer.closed()

    reply = await asked(script, timeout_s=0.2)
    assert "was not there within 0.2 s" in (reply.broken or "")


async def test_an_answer_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_REPLY_BYTES", 5)

    async def script(peer: Peer) -> None:
        await peer.answer(ANSWER)

    assert (await asked(script)).broken == "more than 5 bytes"


async def test_a_client_that_has_read_enough() -> None:
    left: list[bool] = []

    async def script(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nenough")
        await peer.closed()
        left.append(True)

    async with raw_server(script) as server, Client(Target(url(server.origin.port), "m"), 30) as client:
        reply = await client.ask("POST", "/responses", {}, until=lambda body: body.endswith(b"enough"))
    assert (reply.body, reply.broken, left) == (b"enough", None, [True])


async def test_nobody_there() -> None:
    async with raw_server(lambda peer: peer.closed()) as server:
        port = server.origin.port
    async with Client(Target(url(port), "m"), 30) as client:
        assert ((await client.ask("GET", "/models")).broken or "").startswith("refused: ")


def test_targets() -> None:
    assert Target("http://x", "m").base == "/v1"
    assert Target("http://x/api/", "m").base == "/api"
    assert Target("http://x", "m").authorization(None) == {}
    for wrong in ("x", "ftp://x", "http://u:p@x", "http://x?a=b"):
        with pytest.raises(ValueError, match="URL"):
            Target(wrong, "m")
    for key in ("a\r\nb", "é", " "):
        with pytest.raises(ValueError, match="key"):
            Target("http://x", "m", key)


def test_a_body_that_is_no_object() -> None:
    assert Reply("", "", b"", body=b"[1]").object == {}
    assert Reply("", "", b"", body=b"{").json is None
    assert Reply("GET", "/a", orjson.dumps("x" * 999)).asked.startswith('GET /a "xxx')
    assert len(Reply("GET", "/a", b"x" * 999).asked) < 500
