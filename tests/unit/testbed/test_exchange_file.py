"""The file: what is written can be read, what is broken is named. And how a request is recognised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.testbed.exchange_file import (
    Base64,
    Exchange,
    ExchangeFileError,
    Library,
    Request,
    Response,
    chunk_bytes,
    digest,
    next_number,
    read,
    recorded_chunk,
    scrubbed_request,
    scrubbed_response,
    write,
)

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def request(body: object = CHAT, target: str = "/v1/chat/completions", method: str = "POST") -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return scrubbed_request(method, target, [("content-type", "application/json")], data)


def exchange(body: object = CHAT, text: str = "a") -> Exchange:
    response = Response(status=200, reason="OK", headers=[("x-a", "é")], head_ms=1.5, chunks=[(2.0, text)])
    return Exchange(request=request(body), response=response, ended="complete", ended_ms=3.0)


SAME: list[tuple[object, object]] = [
    (CHAT, {**CHAT, "temperature": 0.5, "user": "jane", "stream": False, "n": None}),
    ({"a": 1, **CHAT}, {**dict(reversed(CHAT.items()))}),
    (b"text", b"text"),
]
DIFFERENT: list[tuple[object, object]] = [
    (CHAT, {**CHAT, "model": "other"}),
    (CHAT, {**CHAT, "messages": []}),
    (CHAT, {**CHAT, "stream": True}),
    (CHAT, {**CHAT, "tools": [{}]}),
    (b"text", b"other"),
    (b"", b"other"),
    (b"\xff", b"\xfe"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_is_the_same_request(one: object, other: object) -> None:
    assert digest(request(one)) == digest(request(other))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_is_another_request(one: object, other: object) -> None:
    assert digest(request(one)) != digest(request(other))


def test_path_and_method_count_and_the_query_does_not() -> None:
    assert digest(request(target="/a?x=1")) == digest(request(target="/a?x=2"))
    assert len({digest(request()), digest(request(target="/a")), digest(request(method="PUT"))}) == 3


def test_another_key_is_the_same_request() -> None:
    texts = [{**CHAT, "messages": [{"content": f"sk-{letter * 12}"}]} for letter in "ab"]
    assert digest(request(texts[0])) == digest(request(texts[1]))


@given(st.binary(max_size=50))
def test_a_chunk_comes_back(data: bytes) -> None:
    assert chunk_bytes(recorded_chunk(data)) == data


bodies = st.one_of(st.binary(max_size=30), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
))  # fmt: skip


@given(bodies, st.lists(st.tuples(st.floats(0, 1e6), st.binary(max_size=9)), max_size=4))
def test_what_is_written_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, body: object, chunks: list[tuple[float, bytes]]
) -> None:
    response = Response(
        status=200, reason="", headers=[], head_ms=0, chunks=[(at, recorded_chunk(data)) for at, data in chunks]
    )
    whole = Exchange(request=request(body), response=response, ended="reset", ended_ms=1)
    folder = tmp_path_factory.mktemp("exchanges")
    path = write(folder, 7, whole)
    assert path.name == f"000007-{digest(whole.request)[:12]}.json"
    assert read(path) == whole
    assert digest(read(path).request) == digest(whole.request)
    assert list(folder.iterdir()) == [path]
    assert next_number(folder) == 8


def broken(change: dict[str, Any]) -> str:
    value = json.loads(json.dumps(exchange().model_dump(by_alias=True)))
    for place, new in change.items():
        *outer, last = place.split(".")
        inner = value
        for name in outer:
            inner = inner[name]
        inner[last] = new
    return json.dumps(value)


BROKEN = {
    "no JSON": ("{", "no JSON"),
    "a list": ("[]", "the whole"),
    "nothing": ("{}", "request"),
    "another format": (broken({"format": "har"}), "format"),
    "another version": (broken({"version": 2}), "version"),
    "an unknown field": (broken({"more": 1}), "more"),
    "an unknown end": (broken({"ended": "well"}), "ended"),
    "a negative time": (broken({"response.head_ms": -1}), "response.head_ms"),
    "no status": (broken({"response.status": 42}), "response.status"),
    "a header with a line end": (broken({"response.headers": [["a", "b\r\nc"]]}), "response.headers.0"),
    "a header without a name": (broken({"response.headers": [["", "b"]]}), "response.headers.0"),
    "base64 that is none": (broken({"response.chunks": [[1, {"base64": "%"}]]}), "no base64"),
    "a path with a space": (broken({"request.path": "/a b"}), "request.path"),
    "complete without a response": (broken({"response": None}), "cannot be complete"),
    "an answer of nobody": (broken({"ended": "unreachable"}), "has not answered"),
    "deep": ("[" * 100_000, "no JSON"),
}


@pytest.mark.parametrize(("text", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "000001-x.json"
    path.write_text(text)
    with pytest.raises(ExchangeFileError, match=r"000001-x\.json") as caught:
        Library.load(tmp_path)
    assert reason in str(caught.value)
    assert caught.value.path == path


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ExchangeFileError, match="cannot be read"):
        read(tmp_path / "none.json")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExchangeFileError, match="no recorded exchange"):
        Library.load(tmp_path)


def test_recordings_of_one_request_are_taken_in_turn_and_the_last_repeats() -> None:
    first, second, other = exchange(text="1"), exchange(text="2"), exchange({**CHAT, "model": "x"}, "3")
    library = Library([("a", first), ("b", other), ("c", second)])
    assert len(library) == 3
    assert [library.take(request()) for _ in range(4)] == [first, second, second, second]
    assert library.take(other.request) == other
    assert library.take(request(b"unknown")) is None


def test_the_nearest_differs_in_the_fewest_fields_and_then_the_least() -> None:
    def asking(text: str, model: str = "m") -> dict[str, Any]:
        return {"model": model, "messages": [{"role": "user", "content": text}]}

    library = Library([
        ("far", exchange(asking("the weather in Rome", "x"))),
        ("near", exchange(asking("the weather in Paris"))),
        ("else", exchange(asking("0123456789"))),
    ])  # fmt: skip
    nearest = library.nearest(request(asking("the weather in Oslo")))
    assert nearest is not None
    assert (nearest.file, list(nearest.differs_in)) == ("near", ["messages"])
    assert Library([]).nearest(request()) is None


def test_a_scrubbed_response_keeps_its_times_and_what_was_missing() -> None:
    secret = b"key sk-abcdefghijklmnop\xff"
    response = Response(
        status=200,
        reason="OK",
        headers=[("Content-Length", str(len(secret) + 5)), ("set-cookie", "a=b")],
        head_ms=1,
        chunks=[(2, recorded_chunk(secret[:10])), (3, recorded_chunk(secret[10:]))],
    )
    scrubbed = scrubbed_response(response)
    assert scrubbed.body == b"key [redacted]\xff"
    assert [at for at, _ in scrubbed.chunks] == [2, 3]
    assert isinstance(scrubbed.chunks[1][1], Base64)
    assert scrubbed.headers == [("Content-Length", str(len(scrubbed.body) + 5)), ("set-cookie", "[redacted]")]
