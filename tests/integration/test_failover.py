"""The field's catalogue of faults, through the real server: the first provider fails, the second is healthy.

Every answer is complete and correct, or, where no healthy provider may be used, the one exact error. None hangs, none
is cut, nothing hopeless is repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from tests.support.behind import TOKENS, WHOLE, Behind, behind
from tests.support.leaks import MARKER
from tests.support.server import RawStream, Server

from coterie.dialects.chat_validator import judge

CHAT: Final = "/v1/chat/completions"

SURVIVED: Final[Mapping[str, str]] = {
    "429 with a delay": "rate-limit@30",
    "429 without a delay": "rate-limit-bare",
    "500 once": "error-once",
    "503 for ever": "unavailable",
    "reset before the headers": "reset",
    "no answer": "silent",
    "slow first token": "slow-first@20",
    "cut at a token": "cut@40",
    "closed at a token": "close@40",
    "ended at a token": "end@40",
    "stall": "stall@40",
    "malformed chunk": "malformed@40",
    "no DONE": "no-done",
    "flapping": "flap@2",
    "HTML": "html",
    "redirect": "redirect",
    "wrong type": "wrong-type:as=html",
    "blank": "blank",
    "empty": "empty",
    "role only, then a reset": "role-only:then=reset",
    "role only, then an error": "role-only:then=error",
    "error first": "error-event@0",
    "error in the middle": "error-event@40",
    "bad UTF-8": "bad-utf8@40",
    "no finish reason": "no-finish",
    "a finish reason 'error'": "finish-error@40",
    "our key is refused": "unauthorized",
    "our account is empty": "no-credit:style=openai",
    "no such model there": "no-model",
    "an endless head": "endless-headers",
    "a huge event": "huge@10",
    "split": "split",
    "all at once": "coalesce@0",
    "CRLF": "crlf",
    "comments": "comments",
    "a mark first": "bom",
    "finished twice": "double-finish",
    "JSON instead of a stream": "wrong-type:as=json",
    "error in a 200": "error-body:style=openai",
    "truncated JSON": "truncated",
}
"""Faults of the first provider after which the answer is whole, by what is wrong."""


@pytest.fixture(scope="module", name="pair")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    faults = {_model(name): fault for name, fault in SURVIVED.items()}
    faults |= {f"cut-{k}": f"cut@{k}" for k in range(TOKENS)} | {f"close-{k}": f"close@{k}" for k in range(TOKENS)}
    with behind(tmp_path_factory.mktemp(f"{MARKER}-pair"), faults, dict.fromkeys(faults, "ok")) as pair:
        yield pair


def _model(name: str) -> str:
    return name.lower().replace(" ", "-").replace(",", "").replace("'", "")


def _body(model: str, **changes: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "one two three"}], **changes}


def _streamed(server: Server, model: str, **changes: Any) -> bytes:
    with RawStream(server, CHAT, _body(model, stream_options={"include_usage": True}, **changes)) as stream:
        assert stream.status == 200, stream.rest()
        return stream.rest()


def _chunks(body: bytes) -> list[dict[str, Any]]:
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    assert events[-1] == b"[DONE]"
    return [json.loads(event) for event in events[:-1]]


def _text(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))


def _check_whole_stream(body: bytes) -> None:
    assert judge(body, include_usage=True, choices=1) == []
    chunks = _chunks(body)
    assert _text(chunks) == WHOLE
    assert chunks[-1]["usage"] == {
        **chunks[-1]["usage"], "prompt_tokens": 3, "completion_tokens": TOKENS, "total_tokens": TOKENS + 3
    }  # fmt: skip


def _check_broken_stream(body: bytes, code: str) -> None:
    assert judge(body, include_usage=True, choices=1) == []
    chunks = _chunks(body)
    assert chunks[-1]["error"]["code"] == code
    assert WHOLE.startswith(_text(chunks))
    assert not any(choice["finish_reason"] for chunk in chunks[:-1] for choice in chunk["choices"])


@pytest.mark.parametrize("name", SURVIVED)
def test_a_plain_answer_is_whole(pair: Behind, name: str) -> None:
    answer = pair.server.ask("POST", CHAT, _body(_model(name)))
    assert answer.status == 200, answer.body
    assert answer.json["choices"][0]["message"]["content"] == WHOLE
    assert answer.json["choices"][0]["finish_reason"] == "stop"
    assert answer.json["usage"]["prompt_tokens"] == 3
    assert answer.json["usage"]["completion_tokens"] == TOKENS


@pytest.mark.parametrize("name", SURVIVED)
def test_a_stream_is_whole(pair: Behind, name: str) -> None:
    _check_whole_stream(_streamed(pair.server, _model(name)))


@pytest.mark.parametrize("how", ["cut", "close"])
def test_a_cut_at_every_token_is_not_seen(pair: Behind, how: str) -> None:
    for k in range(TOKENS):
        _check_whole_stream(_streamed(pair.server, f"{how}-{k}"))
        answer = pair.server.ask("POST", CHAT, _body(f"{how}-{k}"))
        assert answer.json["choices"][0]["message"]["content"] == WHOLE


def test_a_limit_of_tokens_holds_over_a_cut(pair: Behind) -> None:
    [*_, last, usage] = chunks = _chunks(_streamed(pair.server, "cut-40", max_tokens=50))
    assert _text(chunks) == "".join(f" w{number}" for number in range(50))
    assert last["choices"][0]["finish_reason"] == "length"
    assert usage["usage"]["completion_tokens"] == 50


def test_a_flapping_provider_does_not_stop_anybody(pair: Behind) -> None:
    for _ in range(10):
        _check_whole_stream(_streamed(pair.server, "flapping"))


def test_the_provider_that_answered_and_the_times_are_told(pair: Behind) -> None:
    answer = pair.server.ask("POST", CHAT, _body("503-for-ever"))
    assert answer.headers["x-coterie-provider"] == "provider-1"
    timing = json.loads(answer.headers["x-timing"])
    assert timing.keys() == {
        "parse_us", "admit_us", "route_us", "queue_us", "connect_us", "provider_us", "attempts"
    }  # fmt: skip
    assert all(type(value) is int and value >= 0 for value in timing.values())


@pytest.fixture(scope="module", name="strict_pair")
def _strict_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """The second provider is no help."""
    first = {"full": "overflow", "filtered": "filter", "cut": "cut@40", "cut-first": "cut@10"}
    second = {"full": "ok", "filtered": "ok", "cut": "no-continue", "cut-first": "cut@10"}
    with behind(tmp_path_factory.mktemp(f"{MARKER}-strict"), first, second, dispatch="attempts = 2") as pair:
        yield pair


@pytest.mark.parametrize(
    ("model", "code", "param"),
    [("full", "context_length_exceeded", "messages"), ("filtered", "content_policy_violation", None)],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_the_callers_fault_is_not_tried_elsewhere(
    strict_pair: Behind, model: str, code: str, param: str | None, stream: bool
) -> None:
    strict_pair.upstreams[1].forget()
    answer = strict_pair.server.ask("POST", CHAT, _body(model, stream=stream))
    assert answer.status == 400
    error = answer.json["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert param is None or error["param"] == param
    assert not [entry for entry in strict_pair.upstreams[1].log if entry.path.endswith("completions")]


def test_a_provider_that_refuses_to_continue_leaves_the_first_failure(strict_pair: Behind) -> None:
    body = _streamed(strict_pair.server, "cut")
    _check_broken_stream(body, "upstream_stream_interrupted")
    assert _text(_chunks(body)) == "".join(f" w{number}" for number in range(40))


def test_a_continuation_that_breaks_is_continued_within_the_budget(strict_pair: Behind) -> None:
    body = _streamed(strict_pair.server, "cut-first")
    _check_broken_stream(body, "upstream_stream_interrupted")
    assert _text(_chunks(body)) == "".join(f" w{number}" for number in range(20))


def test_a_longer_context_elsewhere_is_used(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp(f"{MARKER}-longer")
    models = tuple(f'models = [{{name = "m", context_tokens = {tokens}}}]' for tokens in (1000, 9000))
    with behind(folder, {"m": "overflow"}, {"m": "ok"}, models=models) as pair:
        assert pair.server.ask("POST", CHAT, _body("m")).json["choices"][0]["message"]["content"] == WHOLE
