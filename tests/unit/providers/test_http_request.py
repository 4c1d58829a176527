"""What is sent to another server: bodies, headers, and how each kind of server is asked to go on with an answer."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest

from coterie.providers.http_request import embedding_request, generation_request, request_headers
from coterie.wire.lingua import Embedding, Generation

USER = {"role": "user", "content": "hi"}
BEGUN = {"role": "assistant", "content": "Hel"}
ALWAYS = {"model": "there", "stream": True, "stream_options": {"include_usage": True}}


def sent(generation: Generation, continuation: str = "assistant", **more: Any) -> tuple[str, dict[str, Any]]:
    before = copy.deepcopy(generation.body)
    path, body = generation_request(generation, "there", continuation, **more)
    assert generation.body == before
    return path, orjson.loads(body)


def test_a_chat() -> None:
    assert sent(Generation("here", {"messages": [USER], "temperature": 0, "top_k": 5})) == (
        "/chat/completions", {**ALWAYS, "messages": [USER], "temperature": 0, "top_k": 5},
    )  # fmt: skip


def test_the_body_does_not_decide_what_the_server_does() -> None:
    odd = {"model": "x", "stream": False, "stream_options": {"include_usage": False}}
    assert sent(Generation("here", {"messages": [USER], **odd}))[1] == {**ALWAYS, "messages": [USER]}


def test_choices() -> None:
    assert sent(Generation("here", {"messages": [USER]}, n=3))[1]["n"] == 3
    assert "n" not in sent(Generation("here", {"messages": [USER]}))[1]


@pytest.mark.parametrize(
    ("prompts", "prompt"),
    [
        (("a",), "a"),
        (("a", "b"), ["a", "b"]),
        (([1, 2],), [1, 2]),
        (([1], [2]), [[1], [2]]),
    ],
)
def test_a_text_completion(prompts: tuple[Any, ...], prompt: Any) -> None:
    asked = Generation("here", {"max_tokens": 5}, prompts=prompts)
    assert sent(asked) == ("/completions", {**ALWAYS, "max_tokens": 5, "prompt": prompt})


@pytest.mark.parametrize(
    ("continuation", "fields", "message"),
    [
        ("assistant", {}, BEGUN),
        ("vllm", {"continue_final_message": True, "add_generation_prompt": False}, BEGUN),
        ("prefix", {}, {**BEGUN, "prefix": True}),
    ],
)
def test_going_on(continuation: str, fields: dict[str, Any], message: dict[str, Any]) -> None:
    body = {"messages": [USER, BEGUN]}
    _, partial = sent(Generation("here", body, partial=True), continuation)
    assert partial == {**ALWAYS, **fields, "messages": [USER, message]}
    _, whole = sent(Generation("here", body), continuation)
    assert whole == {**ALWAYS, "messages": [USER, BEGUN]}


@pytest.mark.parametrize(
    ("fields", "asked"), [({}, True), ({"prompts": ("a",)}, True), ({"streamed": False}, False), ({"n": 2}, False)]
)
def test_usage_with_every_token_is_asked_for_where_an_answer_could_go_on(fields: dict[str, Any], asked: bool) -> None:
    generation = Generation("here", {"stream_options": {"x": 1}}, **fields)
    options = {"x": 1, "include_usage": True}
    assert sent(generation)[1]["stream_options"] == options
    more = {"continuous_usage_stats": True} if asked else {}
    assert sent(generation, continuous_usage=True)[1]["stream_options"] == {**options, **more}


@pytest.mark.parametrize(
    ("inputs", "given"), [(("a",), "a"), (("a", "b"), ["a", "b"]), (([1, 2],), [1, 2]), (([1], "b"), [[1], "b"])]
)
def test_embeddings(inputs: tuple[Any, ...], given: Any) -> None:
    path, body = embedding_request(Embedding("here", inputs, {"encoding_format": "base64", "task": "t"}), "there")
    assert path == "/embeddings"
    assert orjson.loads(body) == {"model": "there", "input": given, "encoding_format": "float", "task": "t"}


def test_headers() -> None:
    assert request_headers(None, {}) == {
        "content-type": "application/json", "accept": "text/event-stream, application/json",
    }  # fmt: skip
    assert request_headers("sk-1", {})["authorization"] == "Bearer sk-1"
    own = request_headers("sk-1", {"Authorization": "Basic x", "ACCEPT": "*/*", "X-Team": "a"})
    assert own == {
        "content-type": "application/json", "accept": "*/*", "authorization": "Basic x", "x-team": "a",
    }  # fmt: skip
