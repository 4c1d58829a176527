"""What a client sees when the only provider fails: the exact error, before the stream and in its middle.

By the official SDK with its own two retries: class, status, code, ``param``, type, request id, and how often it asked.
No fault's body, each of which is full of what looks like secrets, leaves a trace in an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import openai
import pytest
from openai import APIError, APIStatusError, OpenAI
from openai.types.chat import ChatCompletionChunk
from tests.support.behind import WHOLE, Behind, behind
from tests.support.counting_proxy import CountingProxy
from tests.support.leaks import MARKER, assert_clean
from tests.support.server import RawStream

from coterie.dialects.chat_validator import judge
from coterie.errors import CATALOGUE
from coterie.testbed.faults import FAULTS

CHAT: Final = "/v1/chat/completions"
LEAK: Final = "zq9leaked"


@dataclass(frozen=True)
class Case:
    """A fault and its error."""

    fault: str
    code: str
    param: str | None = None
    requests: int = 3
    """How many times the SDK asks: two retries, or none where the answer says that they are in vain."""
    says: str = ""


BEFORE: Final = [
    Case("rate-limit@7", "rate_limit_exceeded", says="Please try again in "),
    Case("unavailable", "server_is_overloaded", says="overloaded"),
    Case("reset", "upstream_unreachable"),
    Case("silent", "upstream_timeout", says="No first token"),
    Case("slow-first@20", "upstream_timeout"),
    Case("unauthorized", "upstream_auth_failed", requests=1),
    Case("no-model", "upstream_model_unavailable", requests=1),
    Case("no-credit:style=openrouter", "upstream_quota_exhausted", requests=1),
    Case("no-credit:style=openai", "upstream_quota_exhausted", requests=1),
    Case("no-credit:style=deepseek", "upstream_quota_exhausted", requests=1),
    *(
        Case(f"overflow:style={style}", "context_length_exceeded", "messages", 1, "maximum context length")
        for style in ("openai", "vllm", "llamacpp", "sglang", "ollama", "tgi")
    ),
    Case("filter", "content_policy_violation", "messages", 1),
    Case("html", "upstream_error"),
    Case("redirect", "upstream_error", requests=1),
    Case("endless-headers", "upstream_protocol_error"),
    Case("blank", "upstream_empty_response"),
    Case("empty", "upstream_empty_response"),
    Case("role-only:then=reset", "upstream_stream_interrupted"),
    Case("wrong-type:as=html", "upstream_protocol_error"),
    Case("error-event@0", "upstream_error"),
]

IN_THE_MIDDLE: Final = [
    ("cut@20", "upstream_stream_interrupted"),
    ("close@20", "upstream_stream_interrupted"),
    ("end@20", "upstream_stream_interrupted"),
    ("stall@20", "upstream_timeout"),
    ("malformed@20", "upstream_protocol_error"),
    ("bad-utf8@20", "upstream_protocol_error"),
    ("huge@20", "upstream_protocol_error"),
    ("finish-error@20", "upstream_error"),
    ("error-event@20:style=openai", "upstream_error"),
    ("error-event@20:style=vllm", "upstream_error"),
    ("error-event@20:style=sglang", "server_is_overloaded"),
    ("error-event@20:style=openrouter", "upstream_error"),
    ("error-event@20:style=text", "upstream_error"),
    ("no-finish", "upstream_stream_interrupted"),
    ("after-finish", "upstream_protocol_error"),
    ("tool-cut", "upstream_stream_interrupted"),
]

NAMES: Final = set(FAULTS)


@pytest.fixture(scope="module", name="alone")
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    faults = {case.fault for case in BEFORE} | {fault for fault, _ in IN_THE_MIDDLE} | NAMES
    row = {_model(fault): fault for fault in sorted(faults)}
    folder = tmp_path_factory.mktemp(f"{MARKER}-alone")
    with behind(folder, row, dispatch="attempts = 1", marker=LEAK) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK asks again at once: how often it asks is tested here, not how long it waits."""
    monkeypatch.setattr("openai._base_client.time.sleep", lambda _: None)


def _model(fault: str) -> str:
    return fault.replace(":", "-").replace("=", "-").replace("@", "-")


def _body(fault: str, **changes: Any) -> dict[str, Any]:
    return {"model": _model(fault), "messages": [{"role": "user", "content": "one two three"}], **changes}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("case", BEFORE, ids=lambda case: case.fault)
def test_before_the_stream(alone: Behind, case: Case, stream: bool) -> None:
    with (
        CountingProxy(alone.server.port) as proxy,
        OpenAI(base_url=proxy.base_url, api_key="unused") as client,
        pytest.raises(APIStatusError) as raised,
    ):
        client.chat.completions.create(**_body(case.fault, stream=stream))
    error, entry = raised.value, CATALOGUE[case.code]
    assert (error.code, error.status_code, error.type, error.param) == (case.code, entry.status, entry.type, case.param)
    assert error.request_id is not None
    assert error.request_id.startswith("req_")
    assert len(proxy.requests) == case.requests
    assert case.says in error.message
    assert LEAK not in f"{error.response.headers} {error.response.text}"
    assert_clean(error.message)


def _read(stream: Iterable[ChatCompletionChunk], said: list[str]) -> None:
    for chunk in stream:
        for choice in chunk.choices:
            said.append(choice.delta.content or "")
            assert choice.finish_reason is None


@pytest.mark.parametrize(("fault", "code"), IN_THE_MIDDLE)
def test_in_the_middle(alone: Behind, fault: str, code: str) -> None:
    body = _body(fault, stream=True)
    if fault == "tool-cut":
        body["tools"] = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    said: list[str] = []
    with OpenAI(base_url=alone.server.base_url, api_key="unused") as client, pytest.raises(APIError) as raised:
        _read(client.chat.completions.create(**body), said)
    error, text = raised.value, "".join(said)
    assert type(error) is openai.APIError
    assert (error.code, error.type) == (code, CATALOGUE[code].type)
    assert WHOLE.startswith(text)
    assert text or fault == "tool-cut"
    assert_clean(error.message)


@pytest.mark.parametrize(
    ("path", "stream"),
    [(CHAT, False), (CHAT, True), ("/v1/completions", False), ("/v1/completions", True), ("/v1/embeddings", False)],
)
@pytest.mark.parametrize("name", sorted(NAMES))
def test_nothing_of_a_fault_leaks(alone: Behind, name: str, path: str, stream: bool) -> None:
    prompts = {CHAT: {}, "/v1/completions": {"prompt": "one"}, "/v1/embeddings": {"input": "one"}}
    body: dict[str, Any] = _body(name, **prompts[path])
    if path != CHAT:
        del body["messages"]
    if not stream:
        answer = alone.server.ask("POST", path, body)
        status, seen = answer.status, str(answer.headers) + answer.body.decode()
    else:
        with RawStream(alone.server, path, body) as raw:
            status, seen = raw.status, raw.rest().decode()
    assert LEAK not in seen
    if status == 200 and stream and path == CHAT:
        assert judge(seen.encode(), include_usage=False, choices=1) == []
