"""No secret is left, wherever it stands and however it is cut; what is none stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.testbed.scrub import (
    REDACTED,
    is_secret_name,
    scrub_chunks,
    scrub_headers,
    scrub_json,
    scrub_target,
    scrub_text,
)

SECRETS = [
    "sk-abcdefgh12345678",
    "sk-proj-Ab_cd-1234567890",
    "sk-ant-api03-abcdef",
    "hf_abcdefghijkl",
    "gsk_abcdefghijkl",
    "AIzaSyA1234567890abcdefghijk",
    "AKIAABCDEFGHIJKLMNOP",
    "github_pat_11ABCDEFG0",
    "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl",
    "org-abcdefgh1234",
    "proj_abcdefgh1234",
    "user-abcdefgh1234",
    "jane.doe+x@mail.example.com",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_text(secret: str) -> None:
    assert scrub_text(f"Key {secret}. End") == f"Key {REDACTED}. End"
    assert scrub_text(f'"{secret}"') == f'"{REDACTED}"'


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("Authorization: Bearer aB3defgh", f"Authorization: Bearer {REDACTED}"),
        ("bearer abcdefghijklmnopq", f"bearer {REDACTED}"),
        ("Basic dXNlcjpwYXNz=", f"Basic {REDACTED}"),
        ("https://jane:pass@host/x", f"https://{REDACTED}@host/x"),
        ("https://sk-abcdefgh.x@host/x", f"https://{REDACTED}@host/x"),
        ("a\nsk-abcdefgh", f"a\n{REDACTED}"),
    ],
)
def test_what_stands_behind_a_word(text: str, scrubbed: str) -> None:
    assert scrub_text(text) == scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "task-oriented desk-mounted",
        "the basic things about bearer tokens",
        "sk-",
        "mail @ noon",
        "chatcmpl-abc123456789",
        "http://127.0.0.1:8000/v1",
        "organisation: my org-chart",
        "maximum context length is 4096 tokens",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert scrub_text(text) == text


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("Authorization", True),
        ("x-api-key", True),
        ("API-KEY", True),
        ("apiKey", True),
        ("OpenAI-Organization", True),
        ("openai-project", True),
        ("Set-Cookie", True),
        ("proxy-authorization", True),
        ("x-auth-token", True),
        ("x-ratelimit-remaining-tokens", False),
        ("content-type", False),
        ("completion_tokens", False),
        ("author", False),
        ("monkey", False),
    ],
)
def test_secret_names(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


def test_headers() -> None:
    given_headers = [("Authorization", "x"), ("accept", "*/*"), ("x-note", "sk-abcdefgh"), ("User-Agent", "curl/8")]
    assert scrub_headers(given_headers) == [
        ("Authorization", REDACTED),
        ("accept", "*/*"),
        ("x-note", REDACTED),
        ("User-Agent", "curl/8"),
    ]


def test_a_target() -> None:
    assert scrub_target("/v1/x?api-version=1&api-key=abc#f") == f"/v1/x?api-version=1&api-key={REDACTED}#f"


def test_json_by_name_and_by_look() -> None:
    value = {"user": "jane", "messages": [{"content": "my key sk-abcdefgh"}], "n": 1, "meta": {"api_key": "plain"}}
    assert scrub_json(value) == {
        "user": REDACTED,
        "messages": [{"content": f"my key {REDACTED}"}],
        "n": 1,
        "meta": {"api_key": REDACTED},
    }


def test_json_without_secrets_is_the_same_object() -> None:
    value = {"messages": [{"role": "user", "content": "Hi"}], "logprobs": [{"token": "Hi", "logprob": -1.5}]}
    assert scrub_json(value) is value


def test_escapes_hide_nothing() -> None:
    body = rb'{"content": "sk-\u0061bcdefgh"}'
    assert scrub_chunks([body]) == [b'{"content":"[redacted]"}']


@pytest.mark.parametrize("body", [b'{"api_key": "plain-word', b'garbage "api_key": "plain-word" garbage'])
def test_a_named_secret_in_broken_json(body: bytes) -> None:
    assert b"plain-word" not in scrub_chunks([body])[0]


def test_deep_json_is_scrubbed_as_text() -> None:
    body = b'{"a":' * 5000 + b'"sk-abcdefgh"' + b"}" * 5000
    assert scrub_chunks([body]) == [body.replace(b"sk-abcdefgh", REDACTED.encode())]


def event(text: str, index: int = 0) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": index, "delta": {"content": text}}]}).encode() + b"\n\n"


def said(stream: bytes, index: int = 0) -> str:
    lines = [line for line in stream.split(b"\n") if line.startswith(b"data: {")]
    choices = [json.loads(line.removeprefix(b"data: "))["choices"][0] for line in lines]
    return "".join(choice["delta"]["content"] for choice in choices if choice["index"] == index)


@given(st.sampled_from(SECRETS), st.data())
def test_a_generated_secret_is_found_however_it_is_cut(secret: str, data: st.DataObject) -> None:
    text = f"It is {secret}, yes"
    text_cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *text_cuts], [*text_cuts, len(text)], strict=True)]
    stream = b"".join(event(piece) + event("other", 1) for piece in pieces) + b"data: [DONE]\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    scrubbed = scrub_chunks(chunks)
    assert len(scrubbed) == len(chunks)
    assert said(b"".join(scrubbed)) == f"It is {REDACTED}, yes"
    assert said(b"".join(scrubbed), 1) == "other" * len(pieces)
    assert b"".join(scrubbed).endswith(b"data: [DONE]\n\n")


@given(st.sampled_from(SECRETS), st.text(alphabet=" ,\n\"{}:'", max_size=8), st.data())
def test_a_secret_in_text_is_found_however_it_is_cut(secret: str, around: str, data: st.DataObject) -> None:
    body = f"{around}{secret} {around}".encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    chunks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert b"".join(scrub_chunks(chunks)) == f"{around}{REDACTED} {around}".encode()


texts = st.lists(st.sampled_from([*SECRETS, "sk-", "abc", " ", ".", "@", "Bearer ", "://", "w1", '"', ":"])).map(
    "".join
)


@given(texts)
def test_to_scrub_twice_changes_nothing_more(text: str) -> None:
    once = scrub_text(text)
    assert scrub_text(once) == once
    value = {"messages": [{"content": text}], "user": text}
    assert scrub_json(scrub_json(value)) == scrub_json(value)


@given(st.lists(st.binary(max_size=20).filter(lambda data: not {*b'@":-_'} & {*data}), max_size=6))
def test_bytes_without_secrets_stay(chunks: list[bytes]) -> None:
    assert scrub_chunks(chunks) == chunks
