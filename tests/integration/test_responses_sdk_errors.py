"""Failures of the Responses API through the official Python SDK: class, code, ``param``, and how often it asked.

Before a response says something, a failure has the status of its cause, streaming or not; afterwards it is told in the
stream, with a code of the specification, and the response that is stored has it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai import APIStatusError, OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from tests.integration.conftest import API_KEY
from tests.support.counting_proxy import CountingProxy
from tests.support.leaks import MARKER, assert_clean
from tests.support.responses_server import Responsive, responsive
from tests.support.scripted_upstream import word
from tests.support.server import Server, eventually

from coterie.config import DEFAULT_MODEL
from coterie.errors import CATALOGUE
from coterie.errors.render_responses import RESPONSE_ERROR_CODES

PATH = "/v1/responses"


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Responsive]:
    with responsive(tmp_path_factory.mktemp(f"{MARKER}-errors")) as running:
        yield running


@pytest.fixture(name="proxy")
def _proxy(running: Responsive) -> Iterator[CountingProxy]:
    with CountingProxy(running.server.port) as proxy:
        yield proxy


@pytest.fixture(name="sdk")
def _sdk(proxy: CountingProxy) -> Iterator[OpenAI]:
    """With its own two retries."""
    with OpenAI(base_url=proxy.base_url, api_key="unused") as client:
        yield client


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK asks again at once."""
    monkeypatch.setattr("openai._base_client.time.sleep", lambda _: None)


@dataclass(frozen=True)
class Case:
    """What is wrong in a request, and what is raised."""

    name: str
    kind: type[APIStatusError]
    code: str
    param: str | None
    request: dict[str, Any]
    requests: int = 1


def _bad(name: str, code: str, param: str, **request: Any) -> Case:
    return Case(name, openai.BadRequestError, code, param, request)


def _user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


PICTURE = "data:image/png;base64,iVBORw0KGgo="
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
OUTPUT = {"type": "function_call_output", "call_id": "call_none", "output": "1"}

CASES = [
    Case("unknown model", openai.NotFoundError, "model_not_found", "model", {"model": "no-such-model"}),
    Case("unknown previous response", openai.NotFoundError, "previous_response_not_found", "previous_response_id",
         {"previous_response_id": "resp_none"}),
    Case("unknown conversation", openai.NotFoundError, "conversation_not_found", "conversation",
         {"conversation": "conv_none"}),
    Case("unknown item", openai.NotFoundError, "item_reference_not_found", "input[0].id",
         {"input": [{"type": "item_reference", "id": "msg_none"}]}),
    _bad("unknown parameter", "unknown_parameter", "temprature", extra_body={"temprature": 1}),
    _bad("unsupported parameter", "unsupported_parameter", "prompt", prompt={"id": "pmpt_1"}),
    _bad("web search", "unsupported_value", "tools[0].type", tools=[{"type": "web_search"}]),
    _bad("service tier", "unsupported_value", "service_tier", service_tier="flex"),
    _bad("too hot", "decimal_above_max_value", "temperature", temperature=3),
    _bad("few tokens", "integer_below_min_value", "max_output_tokens", max_output_tokens=1),
    _bad("empty input", "invalid_value", "input", input=[]),
    _bad("two histories", "invalid_value", "previous_response_id",
         previous_response_id="resp_1", conversation="conv_1"),
    _bad("background without a store", "invalid_value", "background", background=True, store=False),
    _bad("bad schema", "invalid_json_schema", "text.format.schema.contains",
         text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "array", "contains": {}}}}),
    _bad("bad function", "invalid_function_parameters", "tools[0].parameters",
         tools=[{**TOOL, "parameters": {"type": "string"}}]),
    _bad("unknown choice", "invalid_value", "tool_choice.tools[0].name", tools=[TOOL],
         tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}),
    _bad("output without a call", "invalid_value", "input[0].call_id", input=[OUTPUT]),
    _bad("foreign seal", "invalid_value", "input[0].encrypted_content",
         input=[{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "AAAA"}]),
    _bad("a picture for a model without eyes", "unsupported_value", "input[0].content[1].type",
         input=_user({"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": PICTURE})),
    _bad("broken picture", "invalid_base64_image", "input[0].content[0].image_url",
         input=_user({"type": "input_image", "image_url": "data:image/png;base64,****"})),
    _bad("a picture by its id", "unsupported_parameter", "input[0].content[0].file_id",
         input=_user({"type": "input_image", "file_id": "file_1"})),
    _bad("a file", "unsupported_value", "input[0].content[0].type",
         input=_user({"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"})),
    _bad("too long", "context_length_exceeded", "input", input="one two three " * 400),
    _bad("too long elsewhere", "context_length_exceeded", "input", model="overflowing"),
    _bad("filtered", "content_policy_violation", "input", model="filtered"),
    Case("rate limit", openai.RateLimitError, "rate_limit_exceeded", None, {"model": "rate-limited"}, 3),
    Case("unavailable", openai.InternalServerError, "server_is_overloaded", None, {"model": "unavailable"}, 3),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_before_the_stream(sdk: OpenAI, proxy: CountingProxy, case: Case, stream: bool) -> None:
    request: dict[str, Any] = {"model": DEFAULT_MODEL, "input": "Hi", "stream": stream, **case.request}
    with pytest.raises(case.kind) as raised:
        sdk.responses.create(**request)
    error = raised.value
    assert (error.code, error.param) == (case.code, case.param)
    assert error.request_id is not None
    assert error.request_id.startswith("req_")
    assert proxy.requests == [f"POST {PATH}"] * case.requests
    assert_clean(error.message, (PICTURE, "image/png"))


def has_ended(response: Response) -> bool:
    return response.status not in ("queued", "in_progress")


LATE = {
    "a picture for a model without eyes": "failed",
    "too long": "failed",
    "too long elsewhere": "failed",
    "filtered": "failed",
    "rate limit": "failed",
    "unavailable": "failed",
}
"""Cases that only the provider knows of, by what becomes of a response in the background."""


@pytest.mark.parametrize("case", [case for case in CASES if case.name not in LATE], ids=lambda case: case.name)
def test_in_the_background_what_is_known_at_once(sdk: OpenAI, case: Case) -> None:
    with pytest.raises(case.kind) as raised:
        sdk.responses.create(**{"model": DEFAULT_MODEL, "input": "Hi", "background": True, **case.request})
    assert (raised.value.code, raised.value.param) == (case.code, case.param)


@pytest.mark.parametrize("case", [case for case in CASES if case.name in LATE], ids=lambda case: case.name)
def test_in_the_background_what_comes_out_later(sdk: OpenAI, case: Case) -> None:
    accepted = sdk.responses.create(**{"model": DEFAULT_MODEL, "input": "Hi", "background": True, **case.request})
    ended = eventually(lambda: sdk.responses.retrieve(accepted.id), has_ended)
    assert ended.status == LATE[case.name]
    assert ended.error is not None
    assert ended.error.code in RESPONSE_ERROR_CODES
    assert ended.error.code == CATALOGUE[case.code].responses_code
    assert_clean(ended.error.message)


@pytest.mark.parametrize(("model", "code"), [("cut", "upstream_stream_interrupted"), ("stalled", "upstream_timeout")])
def test_while_a_plain_answer_is_made(sdk: OpenAI, proxy: CountingProxy, model: str, code: str) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        sdk.responses.create(model=model, input="Hi")
    assert (raised.value.code, raised.value.param) == (code, None)
    assert len(proxy.requests) == 3
    assert_clean(raised.value.message)


def _read(sdk: OpenAI, model: str, seen: list[ResponseStreamEvent]) -> None:
    seen.extend(sdk.responses.create(model=model, input="Hi", stream=True))


@pytest.mark.parametrize("model", ["cut", "stalled"])
def test_in_the_middle_of_a_stream(sdk: OpenAI, proxy: CountingProxy, model: str) -> None:
    seen: list[ResponseStreamEvent] = []
    with pytest.raises(openai.APIError) as raised:
        _read(sdk, model, seen)
    error = raised.value
    assert type(error) is openai.APIError
    assert error.code == "server_error"
    assert error.code in RESPONSE_ERROR_CODES
    assert_clean(error.message)
    assert proxy.requests == [f"POST {PATH}"]
    text = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
    assert text == "".join(word(number) for number in range(20))
    assert seen[0].type == "response.created"
    stored = sdk.responses.retrieve(seen[0].response.id)
    assert stored.status == "failed"
    assert stored.error is not None
    assert (stored.error.code, stored.error.message) == (error.code, error.message)
    assert stored.output_text == text
    [message] = stored.output
    assert message.type == "message"
    assert message.status == "incomplete"


def test_in_the_middle_under_the_stream_helper(sdk: OpenAI) -> None:
    with sdk.responses.stream(model="cut", input="Hi") as stream, pytest.raises(openai.APIError) as raised:
        stream.get_final_response()
    assert raised.value.code == "server_error"


def test_a_failure_in_the_background(sdk: OpenAI) -> None:
    accepted = sdk.responses.create(model="cut", input="Hi", background=True)
    ended = eventually(lambda: sdk.responses.retrieve(accepted.id), has_ended)
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error.code == "server_error"
    assert ended.output_text == "".join(word(number) for number in range(20))
    with pytest.raises(openai.APIError) as raised, sdk.responses.retrieve(accepted.id, stream=True) as stream:
        list(stream)
    assert (raised.value.code, raised.value.message) == (ended.error.code, ended.error.message)


def test_nothing_is_stored_of_what_never_began(sdk: OpenAI) -> None:
    conversation = sdk.conversations.create()
    with pytest.raises(openai.BadRequestError):
        sdk.responses.create(model="overflowing", input="Hi", conversation=conversation.id)
    assert list(sdk.conversations.items.list(conversation.id)) == []


def test_only_what_is_in_the_background_is_cancelled(sdk: OpenAI, proxy: CountingProxy) -> None:
    response = sdk.responses.create(model="mirror", input="Hi")
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.responses.cancel(response.id)
    assert raised.value.code == "response_not_cancellable"
    assert len(proxy.requests) == 2


def test_a_locked_conversation_is_asked_for_again(sdk: OpenAI, proxy: CountingProxy, running: Responsive) -> None:
    conversation = sdk.conversations.create()
    accepted = sdk.responses.create(model="gated", input="locked", background=True, conversation=conversation.id)
    proxy.requests.clear()
    with pytest.raises(openai.ConflictError) as raised:
        sdk.responses.create(model="mirror", input="Hi", conversation=conversation.id)
    assert raised.value.code == "conversation_locked"
    assert len(proxy.requests) == 3
    with pytest.raises(openai.BadRequestError) as early:
        sdk.responses.create(model="mirror", input="Hi", previous_response_id=accepted.id)
    assert (early.value.code, early.value.param) == ("previous_response_not_finished", "previous_response_id")
    running.upstream.gate("locked").opened.set()


def test_a_wrong_key(guarded: Server) -> None:
    with OpenAI(base_url=guarded.base_url, api_key="wrong") as sdk:
        for ask in (
            lambda: sdk.responses.create(model=DEFAULT_MODEL, input="Hi"),
            lambda: sdk.responses.retrieve("resp_1"),
            lambda: sdk.conversations.create(),
        ):
            with pytest.raises(openai.AuthenticationError) as raised:
                ask()
            assert raised.value.code == "invalid_api_key"
    with OpenAI(base_url=guarded.base_url, api_key=API_KEY) as sdk:
        assert sdk.conversations.create().id
