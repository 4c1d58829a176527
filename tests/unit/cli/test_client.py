from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from tests.support.canned import REQUEST_ID, CannedServer, answer, error_answer, said, stream_answer

from coterie.cli.client import (
    ChatReader,
    Piece,
    RequestError,
    Server,
    failure_of,
    find_server,
    no_server,
    show_failure,
)
from coterie.cli.state_lock import StateLock
from coterie.errors import CATALOGUE

CHAT = "/v1/chat/completions"


@pytest.fixture
def canned() -> Iterator[CannedServer]:
    with CannedServer() as server:
        yield server


def failure(server: Server, path: str = "/status") -> RequestError:
    with pytest.raises(RequestError) as raised:
        server.get(path)
    return raised.value


def read_answer(canned: CannedServer, raw: bytes) -> tuple[str, str | None]:
    canned.answers[CHAT] = raw
    reply = Server(canned.url).chat({"model": "m"})
    return "".join(piece.text for piece in reply.pieces()), reply.finish_reason


def broken_answer(canned: CannedServer, raw: bytes) -> tuple[str, RequestError]:
    canned.answers[CHAT] = raw
    heard: list[Piece] = []
    with pytest.raises(RequestError) as raised:
        heard.extend(Server(canned.url).chat({"model": "m"}).pieces())
    return "".join(piece.text for piece in heard), raised.value


def test_get_returns_the_object_and_sends_the_key(canned: CannedServer) -> None:
    canned.answers["/status"] = answer({"ready": True})
    assert Server(canned.url, "secret-key").get("/status") == {"ready": True}
    assert canned.asked[0].headers["authorization"] == "Bearer secret-key"


def test_no_key_is_no_header(canned: CannedServer) -> None:
    canned.answers["/status"] = answer({})
    Server(canned.url).get("/status")
    assert "authorization" not in canned.asked[0].headers


def test_a_failure_has_code_request_id_and_the_catalogues_remedy(canned: CannedServer) -> None:
    canned.answers["/status"] = error_answer(401, "invalid_api_key", "Incorrect API key provided.")
    error = failure(Server(canned.url))
    assert (error.message, error.code, error.request_id) == (
        "Incorrect API key provided.",
        "invalid_api_key",
        REQUEST_ID,
    )
    assert error.remedy == CATALOGUE["invalid_api_key"].remedy


def test_a_foreign_code_has_a_remedy_too(canned: CannedServer) -> None:
    canned.answers["/status"] = error_answer(400, None, "Bad.", type="other_error")
    error = failure(Server(canned.url))
    assert error.code == "other_error"
    assert "not Coterie" in error.remedy


@pytest.mark.parametrize("error", [None, "text", {}, {"message": ""}])
def test_an_error_that_says_nothing_is_still_told(error: object) -> None:
    assert failure_of(error, None).message.startswith("The server said that the request failed")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"detail": 1}'])
def test_an_error_page_is_the_status(canned: CannedServer, body: bytes) -> None:
    canned.answers["/status"] = answer(body, status=502)
    error = failure(Server(canned.url))
    assert "HTTP status 502" in error.message
    assert error.request_id == REQUEST_ID


@pytest.mark.parametrize("body", [b"<html>", b"[]", b""])
def test_an_answer_that_is_no_object(canned: CannedServer, body: bytes) -> None:
    canned.answers["/status"] = answer(body)
    assert "not part of OpenAI's API" in failure(Server(canned.url)).message


def test_nobody_listens() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert failure(Server(url)).message == f"Nothing answers at {url}."


@pytest.mark.parametrize("raw", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"])
def test_what_is_no_http_is_a_broken_connection(canned: CannedServer, raw: bytes) -> None:
    canned.answers["/status"] = raw
    assert failure(Server(canned.url)).message.startswith(f"The connection to {canned.url} broke: ")


def test_the_models(canned: CannedServer) -> None:
    canned.answers["/v1/models"] = answer({"data": [{"id": "a"}, {"id": "b"}]})
    canned.answers["/v1/models/org/a%20b"] = answer({"id": "org/a b"})
    server = Server(canned.url)
    assert server.models() == ["a", "b"]
    server.check_model("org/a b")
    with pytest.raises(RequestError):
        server.check_model("c")


@pytest.mark.parametrize("listed", [{}, {"data": [1]}, {"data": None}])
def test_a_list_of_models_that_is_none(canned: CannedServer, listed: Any) -> None:
    canned.answers["/v1/models"] = answer(listed)
    with pytest.raises(RequestError, match="not part of"):
        Server(canned.url).models()


def test_an_answer_is_streamed_whole(canned: CannedServer) -> None:
    raw = stream_answer(said("Hel"), said("lo"), said("", "stop"), {"choices": [], "usage": {}}, "[DONE]")
    assert read_answer(canned, raw) == ("Hello", "stop")
    assert canned.asked[0].json == {"model": "m", "stream": True}


def test_reasoning_is_told_apart(canned: CannedServer) -> None:
    canned.answers[CHAT] = stream_answer(
        said("", reasoning_content="hm"), said("yes"), said("", "stop", refusal="no"), "[DONE]"
    )
    pieces = list(Server(canned.url).chat({}).pieces())
    assert pieces == [Piece("hm", reasoning=True), Piece("yes"), Piece("no")]


@pytest.mark.parametrize(
    "raw",
    [
        stream_answer(said("Hel"), said("lo")),
        stream_answer(said("Hel"), said("lo"), said("", "stop")),
        stream_answer(said("Hel"), said("lo"), "[DONE]"),
        stream_answer(said("Hel"), said("lo"), whole=False),
    ],
    ids=["bare end", "no end mark", "no finish reason", "cut"],
)
def test_an_answer_that_broke_off_is_told_after_its_text(canned: CannedServer, raw: bytes) -> None:
    text, error = broken_answer(canned, raw)
    assert text == "Hello"
    assert "broke" in error.message


def test_an_error_frame_is_a_failure_after_the_text(canned: CannedServer) -> None:
    frame = {"error": {"message": "Gone.", "type": "server_error", "param": None, "code": "engine_failed"}}
    text, error = broken_answer(canned, stream_answer(said("Hel"), frame, "[DONE]"))
    assert (text, error.code, error.request_id) == ("Hel", "engine_failed", REQUEST_ID)
    assert error.remedy == CATALOGUE["engine_failed"].remedy


@pytest.mark.parametrize("event", ["no json", "[1]", {"choices": None}, {"choices": ["x"]}, {"other": 1}])
def test_what_is_no_chat_stream_is_told(canned: CannedServer, event: object) -> None:
    text, error = broken_answer(canned, stream_answer(said("Hel"), event, "[DONE]"))
    assert text == "Hel"
    assert "not part of OpenAI's API" in error.message


def test_an_endless_event_is_told_after_what_came_before() -> None:
    reader = ChatReader()
    heard: list[Piece] = []
    with pytest.raises(RequestError, match="not part of"):
        heard.extend(reader.feed(f"data: {json.dumps(said('a'))}\n\ndata: ".encode() + b"x" * 2_000_000))
    assert heard == [Piece("a")]


def test_leaving_an_answer_closes_its_connection(canned: CannedServer) -> None:
    canned.answers[CHAT] = stream_answer(said("Hel"), whole=False)
    canned.held.add(CHAT)
    with closing(Server(canned.url).chat({}).pieces()) as pieces:
        assert next(pieces) == Piece("Hel")
        assert not canned.left.is_set()
    assert canned.left.wait(30)


def test_a_refused_answer_is_its_failure(canned: CannedServer) -> None:
    text, error = broken_answer(canned, error_answer(503, "server_is_overloaded", "Busy."))
    assert (text, error.code) == ("", "server_is_overloaded")


@given(st.lists(st.text(min_size=1)), st.integers(1, 50))
def test_how_a_stream_is_cut_changes_nothing(texts: list[str], size: int) -> None:
    events = [*map(said, texts), said("", "stop")]
    data = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + b"data: [DONE]\n\n"
    reader = ChatReader()
    pieces = [
        piece for start in range(0, len(data), size) for piece in reader.feed(data[start : start + size])
    ]  # fmt: skip
    reader.end()
    assert [piece.text for piece in pieces] == texts
    assert (reader.done, reader.finish_reason) == (True, "stop")


@given(st.binary())
def test_no_bytes_look_like_an_answer(data: bytes) -> None:
    def read() -> None:
        reader = ChatReader()
        list(reader.feed(data))
        reader.end()

    with pytest.raises(RequestError):
        read()


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("http://h:1", "http://h:1"),
        ("http://h:1/v1/", "http://h:1"),
        ("https://h/v1", "https://h"),
        ("localhost:8000", "http://localhost:8000"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_an_address_as_people_write_it(given_url: str, url: str) -> None:
    assert find_server(given_url, "key", None) == Server(url, "key")


@pytest.mark.parametrize(
    "url", ["ftp://h", "http://", "http://h:x", "http://h/other", "http://user:pw@h", "http://[::"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no address of a server"):
        find_server(url, None, None)


@pytest.mark.parametrize("key", ["schlüssel", "a\nb", "a\0b"])
def test_what_can_be_no_key(key: str) -> None:
    with pytest.raises(typer.BadParameter):
        find_server("http://h", key, None)


def test_no_server_runs() -> None:
    assert find_server(None, None, None) is None
    assert no_server().exit_code == 1


def test_the_running_server_is_found_with_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with StateLock(tmp_path / "state") as lock:
        lock.tell("http://127.0.0.1:1234")
        assert find_server(None, None, None) == Server("http://127.0.0.1:1234", None)
        monkeypatch.setenv("COTERIE_SERVER__API_KEYS", '["first-key", "second-key"]')
        assert find_server(None, None, None) == Server("http://127.0.0.1:1234", "first-key")
        assert find_server(None, "mine", None) == Server("http://127.0.0.1:1234", "mine")
        assert find_server("http://h", None, None) == Server("http://h", None)


def test_the_configuration_does_not_matter_for_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTERIE_SERVER__PORT", "many")
    assert find_server("http://h", None, None) is not None


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (RequestError("M.", "R.", code="c", request_id="req_1"), ["error: M.", "  c, request id req_1", "  R."]),
        (RequestError("M (req_1)", "R.", code="c", request_id="req_1"), ["error: M (req_1)", "  c", "  R."]),
        (RequestError("M.", "R."), ["error: M.", "  R."]),
    ],
)
def test_a_failure_is_shown(capsys: pytest.CaptureFixture[str], error: RequestError, lines: list[str]) -> None:
    show_failure(error)
    shown = capsys.readouterr()
    assert shown.err.splitlines() == lines
    assert shown.out == ""
