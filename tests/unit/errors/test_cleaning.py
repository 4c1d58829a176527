"""Relayed texts: whatever names a machine, an account or a secret is gone, what the caller needs stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors.cleaning import MASK, MAX_CLEAN, MAX_DETAIL, clean, mask_secrets

SECRETS = (
    "sk-{}", "sk-proj-{}abc", "Bearer {}", "Authorization: Bearer {}", "AIza{}", "gsk_{}", "xai-{}", "hf_{}", "AKIA{}",
    "eyJhbGciOi.{}.{}", "key={}", "api_key={}", "api_key: {}", "'api_key': '{}'", '"apiKey": "{}"', "x-api-key: {}",
    "API key provided: {}", "API key {}", "password={}", "token: {}", "token={}", "ghp_{}", "Cookie: {}", "?sig={}",
    "ssh-rsa {}", "-----BEGIN PRIVATE KEY----- {}",
)  # fmt: skip
PLACES = (
    "https://{}.example.com/x", "http://10.0.0.1:80/{}", "https://u:{}@h/", "s3://{}/a", "file:///{}", "www.{}.org",
    "{}.internal:8000", "gpu-{}.svc.cluster.local", "{}:8000", "localhost:{}", "host='{}'", "host {}:80",
    "[fe80::1%{}]", "/usr/lib/{}", "/home/{}/x.py", "~/{}", "./{}/a", "C:\\Users\\{}\\x", "C:\\Program Files\\{}\\a b",
    "\\\\srv\\{}", "models/{}.gguf", "{}.py:12", "data:image/png;base64,{}", "unix:/run/{}.sock",
    "arn:aws:bedrock:us-east-1:123456789012:model/{}", "arn:aws:iam::1234:user/{}", "ip-10-0-0-3.{}", "db.prod.{}",
    "a.b.c.d.e.f.g.h.i.j.{}.com", "/" + "a/" * 150 + "{}.py", "a" * 250 + "{}@corp.com", "{}.gpu-3.acme",
)  # fmt: skip
NAMES = (
    "org-{}", "organization org-{}", "proj_{}", "req_{}", "acct_{}", "user-{}", "user_id={}", "request id: {}",
    "request_id={}", "Request ID {}", "account {}", "project {}", "organization `{}`", "{}@corp.com", "bob@{}.com",
)  # fmt: skip
MAKINGS = (
    "<{} object at 0x7f>", "<class 'foo.{}'>", "foo.{}Error: x", "vllm.engine.{}", "ValueError('{}')", "{}Exception",
    "0xdeadbeef{}", "<html>{}</html>", "Traceback (most recent call last): {}", 'File "/a/{}.py", line 3',
)  # fmt: skip
AROUND = ("{}", "The value {} is wrong here.", "Invalid request ({}) sent", "bad thing: '{}'")


@pytest.mark.parametrize("form", [*SECRETS, *PLACES, *NAMES, *MAKINGS])
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("marker", ["Zq7MARKER9", "Zmarker"])
def test_what_must_not_be_shown_is_gone(form: str, around: str, marker: str) -> None:
    assert marker not in clean(around.format(form.replace("{}", marker)))


@pytest.mark.parametrize(
    "name",
    ["host ip-10-0-0-3", "ip-10-0-0-3", "internal-llm-7", "gpu-node-3.acme", "db.prod.acme", "10-gpu:8000",
     "token abcdef123456", "token 'abc-def-123'", "ssh-ed25519 AAAAC3NzaC1lZDI1 bob", "redis-2:6379"],
)  # fmt: skip
def test_names_of_machines_and_bare_tokens_are_gone(name: str) -> None:
    cleaned = clean(f"The part {name} gave up here.")
    assert MASK in cleaned
    assert not {word for word in name.split() if any(sign in word for sign in "0123456789.")} & set(cleaned.split())


@pytest.mark.parametrize("form", SECRETS)
def test_the_log_has_no_secret_either(form: str) -> None:
    assert "Zq7MARKER9" not in mask_secrets(f"HTTP 401: bad {form.replace('{}', 'Zq7MARKER9')} given")


def test_the_log_keeps_hosts_and_paths() -> None:
    assert mask_secrets("no\nroute to gpu-1:8000 /v1/x") == "no route to gpu-1:8000 /v1/x"
    assert len(mask_secrets("word " * 10_000)) <= MAX_DETAIL


@pytest.mark.parametrize(
    "text",
    [
        "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) is supported.",
        "Invalid type for 'input[0].content[1].image_url': expected an image URL, but got an object instead.",
        "response_format.json_schema.schema: additionalProperties is required to be false",
        "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for claude-3-5-sonnet",
        "top_k must be -1 (disable), or at least 1, got 0.",
        "Conversation roles must alternate user/assistant/user/assistant",
        "Expected max_completion_tokens: 5",
        "Use gpt-4o-mini-2024-07-18 or llama-3.1-70b at token 12345 of messages.0.content.1.text",
    ],
)
def test_what_the_caller_needs_stays(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("litellm.BadRequestError: top_p is out of range", "top_p is out of range"),
        ("Do that. Visit https://a.b/c to learn more.", "Do that."),
        ("two\r\nlines\there\x00", "two lines here"),
        ("cannot read <_io.BytesIO object at 0x7f00>", f"cannot read {MASK}"),
        ("a zero\u200bwidth sk-\u200babcdef sign", f"a zerowidth {MASK} sign"),
    ],
)
def test_the_rest_still_reads_well(text: str, shown: str) -> None:
    assert clean(text) == shown


@pytest.mark.parametrize(
    "text", ["", " ", "Bad Request", "Provider returned error", "https://a.b/c", "400", "<p>x y</p>"]
)
def test_a_text_that_says_nothing_is_empty(text: str) -> None:
    assert clean(text) == ""


FORMS = [*SECRETS, *PLACES, *NAMES, *MAKINGS]


@given(st.lists(st.one_of(st.text(max_size=40), st.sampled_from(FORMS)), max_size=8))
def test_cleaning_is_bounded_and_idempotent(parts: list[str]) -> None:
    cleaned = clean(" ".join(parts))
    assert len(cleaned) <= MAX_CLEAN
    assert "\n" not in cleaned
    assert clean(cleaned) == cleaned


@given(
    st.sampled_from(SECRETS + PLACES + NAMES),
    st.from_regex(r"[A-Z][a-z]{2}[0-9][A-Za-z0-9]{4,12}", fullmatch=True),
    st.lists(st.sampled_from(["the", "request", "is", "not", "valid:", "for", "'x'", "(see)", "model"]), max_size=5),
)
def test_no_marker_survives(form: str, marker: str, words: list[str]) -> None:
    text = " ".join([*words, form.replace("{}", marker), *words])
    assert marker not in clean(text)


@pytest.mark.parametrize(
    "piece",
    [
        "a.",
        "a-",
        "/",
        "a@",
        "1:",
        "eyJ",
        "(",
        "<",
        "host=",
        "C:\\a \\",
        "Aa",
        "[type=",
        " ",
        "1.",
        "a.a-",
        "\n",
        "gpu-",
    ],
)
def test_a_long_text_is_cut_before_it_is_searched(piece: str) -> None:
    assert len(clean(piece * 1_000_000)) <= MAX_CLEAN
