"""The WebSocket mode of the Responses API through the official Python SDK: several turns over one connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.resources.responses.responses import ResponsesConnection
from openai.types.responses import Response
from tests.integration.conftest import API_KEY
from tests.support.leaks import MARKER
from tests.support.models import QUESTION
from tests.support.responses_server import TEMPERATURE, Responsive, responsive
from tests.support.scripted_upstream import word
from tests.support.server import Server, eventually
from websockets.exceptions import InvalidStatus

from coterie.config import DEFAULT_MODEL

TERMINAL = ("response.completed", "response.incomplete", "response.failed")


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Responsive]:
    with responsive(tmp_path_factory.mktemp(f"{MARKER}-socket")) as running:
        yield running


@pytest.fixture(name="sdk")
def _sdk(running: Responsive) -> Iterator[OpenAI]:
    with OpenAI(base_url=running.server.base_url, api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(name="socket")
def _socket(sdk: OpenAI) -> Iterator[ResponsesConnection]:
    with sdk.responses.connect() as connection:
        yield connection


def events_of(socket: ResponsesConnection) -> list[Any]:
    """The events of one turn."""
    events: list[Any] = []
    for event in socket:
        events.append(event)
        if event.type in TERMINAL or event.type == "error":
            break
    return events


def turn(socket: ResponsesConnection, question: Any, **changes: Any) -> Response:
    """One turn that goes well, by the model that answers with what it was sent."""
    socket.response.create(**{"model": "mirror", "input": question, **changes})
    *before, last = events_of(socket)
    assert last.type == "response.completed", last
    assert [event.sequence_number for event in (*before, last)] == list(range(len(before) + 1))
    assert isinstance(last.response, Response)
    return last.response


def refusal(socket: ResponsesConnection, question: Any, **changes: Any) -> tuple[int, str, str | None]:
    """One turn that is refused: status, code and ``param``."""
    socket.response.create(**{"model": "mirror", "input": question, **changes})
    [event] = events_of(socket)
    assert event.type == "error"
    assert event.error.message
    return event.status, event.error.code, event.error.param


def sent(response: Response) -> Any:
    """What the model "mirror" was sent: pairs of role and text."""
    return json.loads(response.output_text)


def test_the_real_model(socket: ResponsesConnection) -> None:
    response = turn(socket, QUESTION, model=DEFAULT_MODEL, max_output_tokens=16, temperature=0)
    assert response.output_text == "The capital of Cuba is Havana."


def test_turns_on_one_connection(socket: ResponsesConnection, sdk: OpenAI) -> None:
    first, second = turn(socket, "one"), turn(socket, "two")
    assert (sent(first), sent(second)) == ([["user", "one"]], [["user", "two"]])
    assert sdk.responses.retrieve(first.id) == first


def test_turns_that_were_sent_at_once(socket: ResponsesConnection) -> None:
    for number in range(4):
        socket.response.create(model="mirror", input=str(number))
    answers = [events_of(socket)[-1].response for _ in range(4)]
    assert [sent(answer) for answer in answers] == [[["user", str(number)]] for number in range(4)]


def test_continuation_without_a_store(socket: ResponsesConnection, sdk: OpenAI) -> None:
    first = turn(socket, "one", store=False)
    second = turn(socket, "two", store=False, previous_response_id=first.id)
    third = turn(socket, "three", store=False, previous_response_id=second.id)
    assert sent(second) == [["user", "one"], ["assistant", first.output_text], ["user", "two"]]
    assert sent(third) == [*sent(second), ["assistant", second.output_text], ["user", "three"]]
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(first.id)


def test_another_connection_knows_only_what_is_stored(socket: ResponsesConnection, sdk: OpenAI) -> None:
    stored, unstored = turn(socket, "one"), turn(socket, "two", store=False)
    with sdk.responses.connect() as other:
        missing = refusal(other, "three", previous_response_id=unstored.id)
        assert missing[1:] == ("previous_response_not_found", "previous_response_id")
        assert sent(turn(other, "three", previous_response_id=stored.id))[0] == ["user", "one"]
    over_http = sdk.responses.create(model="mirror", input="four", previous_response_id=stored.id)
    assert sent(over_http)[0] == ["user", "one"]


def test_a_failed_continuation_is_forgotten(socket: ResponsesConnection) -> None:
    first = turn(socket, "one", store=False)
    output = {"type": "function_call_output", "call_id": "call_none", "output": "1"}
    assert refusal(socket, [output], store=False, previous_response_id=first.id)[0] == 400
    again = refusal(socket, "two", store=False, previous_response_id=first.id)
    assert again[1:] == ("previous_response_not_found", "previous_response_id")
    turn(socket, "three", store=False)


def test_a_tool(socket: ResponsesConnection) -> None:
    tools: Any = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]
    first = turn(socket, "How warm?", model="weather", tools=tools, store=False)
    [call] = [item for item in first.output if item.type == "function_call"]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": TEMPERATURE}
    second = turn(socket, [output], model="weather", tools=tools, store=False, previous_response_id=first.id)
    assert second.output_text == f"In Paris: {TEMPERATURE}."


def test_warming_up(socket: ResponsesConnection, running: Responsive) -> None:
    asked = len(running.upstream.asked)
    warm = turn(socket, "one", generate=False, store=False)
    assert len(running.upstream.asked) == asked, "no model is asked"
    assert warm.output == []
    assert warm.usage is not None
    assert warm.usage.total_tokens == 0
    assert sent(turn(socket, "two", store=False, previous_response_id=warm.id)) == [["user", "one"], ["user", "two"]]


def test_lanes(socket: ResponsesConnection) -> None:
    socket.response.create(model="mirror", input="one", stream_id="left", store=False)
    events = events_of(socket)
    assert {event.stream_id for event in events} == {"left"}
    socket.response.create(
        model="mirror", input="two", stream_id="right", previous_response_id=events[-1].response.id, store=False
    )
    forked = events_of(socket)
    assert {event.stream_id for event in forked} == {"right"}
    assert sent(forked[-1].response)[-1] == ["user", "two"]
    socket.response.create(model="no-such-model", input="three", stream_id="right")
    [error] = events_of(socket)
    assert (error.type, error.stream_id, error.error.code) == ("error", "right", "model_not_found")


REFUSED: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"model": "no-such-model"}, 404, "model_not_found", "model"),
    ({"temperature": 3}, 400, "decimal_above_max_value", "temperature"),
    ({"background": True}, 400, "unsupported_value", "background"),
    ({"stream": False}, 400, "unsupported_value", "stream"),
    ({"stream_id": "not a lane"}, 400, "invalid_stream_id", "stream_id"),
    ({"model": "overflowing"}, 400, "context_length_exceeded", "input"),
    ({"model": "unavailable"}, 503, "server_is_overloaded", None),
    ({"model": "rate-limited"}, 429, "rate_limit_exceeded", None),
]


@pytest.mark.parametrize(("request_", "status", "code", "param"), REFUSED)
def test_what_is_refused(
    socket: ResponsesConnection, request_: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    assert refusal(socket, "Hi", **request_) == (status, code, param)
    turn(socket, "The connection goes on.")


def test_what_is_no_request(socket: ResponsesConnection) -> None:
    for message in ("{", "[]", "{}", '{"type": "response.cancel"}'):
        socket.send_raw(message)
        [event] = events_of(socket)
        assert (event.type, event.status) == ("error", 400)
    socket.response.steer(input="Be brief.", previous_response_id="resp_1")
    [event] = events_of(socket)
    assert (event.status, event.error.code) == (400, "websocket_message_invalid")
    turn(socket, "The connection goes on.")


@pytest.mark.parametrize("model", ["cut", "stalled"])
def test_a_failure_in_the_middle(socket: ResponsesConnection, sdk: OpenAI, model: str) -> None:
    socket.response.create(model=model, input="Hi")
    *before, last = events_of(socket)
    assert "error" not in [event.type for event in before], "a turn ends in one way"
    assert last.type == "response.failed"
    assert last.response.error.code == "server_error"
    assert last.response.output_text == "".join(word(number) for number in range(20))
    assert sdk.responses.retrieve(last.response.id) == last.response
    turn(socket, "The connection goes on.")


def test_a_client_that_leaves_cancels_its_turn(sdk: OpenAI, running: Responsive) -> None:
    with sdk.responses.connect() as connection:
        connection.response.create(model="gated", input="socket")
        first = connection.recv()
        assert running.upstream.gate("socket").reached.wait(60)
    assert running.upstream.gate("socket").left.wait(60)
    assert first.type == "response.created"
    eventually(lambda: sdk.responses.retrieve(first.response.id).status, lambda status: status == "cancelled")


def test_handlers(sdk: OpenAI) -> None:
    said: list[str] = []
    with sdk.responses.connect() as connection:
        connection.on("response.output_text.delta", lambda event: said.append(event.delta))
        connection.on("response.completed", lambda _: connection.close())
        connection.response.create(model="thinker", input="2 + 2?")
        connection.dispatch_events()
    assert said == ["4"]


async def test_asynchronous(running: Responsive) -> None:
    async with (
        AsyncOpenAI(base_url=running.server.base_url, api_key="unused") as sdk,
        sdk.responses.connect() as connection,
    ):
        await connection.response.create(model="thinker", input="2 + 2?")
        async for event in connection:
            if event.type == "response.completed":
                assert event.response.output_text == "4"
                break


def test_keys(guarded: Server) -> None:
    with (
        OpenAI(base_url=guarded.base_url, api_key="wrong") as sdk,
        pytest.raises(InvalidStatus) as raised,
        sdk.responses.connect(),
    ):
        pass
    assert raised.value.response.status_code == 401
    with OpenAI(base_url=guarded.base_url, api_key=API_KEY) as sdk, sdk.responses.connect() as connection:
        assert refusal(connection, "Hi", model="no-such-model")[1] == "model_not_found"
