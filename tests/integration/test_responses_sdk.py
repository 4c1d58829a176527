"""The Responses API through the official Python SDK: what works, from one answer to whole conversations.

The real model answers where any answer will do, a scripted one where the answer needs wits or has to wait for the test.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseOutputMessage, ResponseStreamEvent
from pydantic import BaseModel, Field
from tests.support.counting_proxy import CountingProxy
from tests.support.leaks import MARKER
from tests.support.models import QUESTION
from tests.support.responses_server import HELD_AT, TEMPERATURE, WORDS, Responsive, responsive
from tests.support.scripted_upstream import word
from tests.support.server import eventually

from coterie.config import DEFAULT_MODEL
from coterie.dialects.responses_validator import judge

ANSWER = "The capital of Cuba is Havana."
WHOLE = "".join(word(number) for number in range(WORDS))
TOOL: Any = {
    "type": "function",
    "name": "get_temperature",
    "description": "The temperature in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Responsive]:
    with responsive(tmp_path_factory.mktemp(f"{MARKER}-responses")) as running:
        yield running


@pytest.fixture(name="sdk")
def _sdk(running: Responsive) -> Iterator[OpenAI]:
    with OpenAI(base_url=running.server.base_url, api_key="unused", max_retries=0) as client:
        yield client


def asked(**changes: Any) -> dict[str, Any]:
    """A request to the real model, whose answer is known."""
    return {"model": DEFAULT_MODEL, "input": QUESTION, "max_output_tokens": 16, "temperature": 0, **changes}


def create(sdk: OpenAI, **request: Any) -> Response:
    response = sdk.responses.create(**request)
    assert isinstance(response, Response)
    return response


def mirrored(response: Response) -> Any:
    """What the model "mirror" was sent: pairs of role and text."""
    return json.loads(response.output_text)


def check_numbers(events: Iterable[ResponseStreamEvent], first: int = 0) -> None:
    """The events are numbered from ``first`` on without a gap or a repetition."""
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(first, first + len(numbers)))


def text_of(events: Iterable[ResponseStreamEvent]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


# One answer


def test_plain(sdk: OpenAI) -> None:
    response = create(sdk, **asked(metadata={"for": "a test"}, user="ann", parallel_tool_calls=False))
    [message] = response.output
    assert isinstance(message, ResponseOutputMessage)
    assert response.output_text == ANSWER
    assert (response.object, response.status, response.model) == ("response", "completed", DEFAULT_MODEL)
    assert response.id.startswith("resp_")
    assert message.id.startswith("msg_")
    assert (response.error, response.incomplete_details) == (None, None)
    assert (response.temperature, response.max_output_tokens, response.parallel_tool_calls) == (0, 16, False)
    assert (response.metadata, response.user) == ({"for": "a test"}, "ann")
    assert response.completed_at is not None
    assert response.completed_at >= response.created_at
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response._request_id is not None
    assert response._request_id.startswith("req_")
    assert sdk.responses.retrieve(response.id) == response


def test_stream(sdk: OpenAI) -> None:
    with sdk.responses.create(**asked(stream=True)) as stream:
        events = list(stream)
    assert [event.type for event in events if event.type != "response.output_text.delta"] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    check_numbers(events)
    assert text_of(events) == ANSWER
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == ANSWER
    assert sdk.responses.retrieve(last.response.id) == last.response


def test_stored_events_are_those_that_were_sent(sdk: OpenAI) -> None:
    with sdk.responses.create(**asked(stream=True)) as stream:
        events = list(stream)
    assert events[0].type == "response.created"
    with sdk.responses.retrieve(events[0].response.id, stream=True) as stream:
        assert list(stream) == events
    with sdk.responses.retrieve(events[0].response.id, stream=True, starting_after=4) as stream:
        assert list(stream) == events[5:]


def test_stream_helper(sdk: OpenAI) -> None:
    with sdk.responses.stream(model=DEFAULT_MODEL, input=QUESTION, temperature=0, max_output_tokens=16) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots[-1] == final.output_text == ANSWER


def test_streaming_response(sdk: OpenAI) -> None:
    with sdk.responses.with_streaming_response.create(**asked(stream=True)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-request-id"].startswith("req_")
        body = b"".join(response.iter_bytes())
    assert judge(body) == []


@pytest.mark.parametrize("model", ["mirror", "weather", "two-calls", "thinker", "refuser", "half-filtered", "cut"])
def test_streams_keep_the_rules(sdk: OpenAI, model: str) -> None:
    request: dict[str, Any] = {"model": model, "input": "Hi", "tools": [TOOL], "stream": True}
    with sdk.responses.with_streaming_response.create(**request) as response:
        assert judge(b"".join(response.iter_bytes())) == []


async def test_asynchronous(running: Responsive) -> None:
    async with AsyncOpenAI(base_url=running.server.base_url, api_key="unused", max_retries=0) as sdk:
        response = await sdk.responses.create(**asked())
        assert response.output_text == ANSWER
        async with await sdk.responses.create(**asked(stream=True)) as stream:
            assert text_of([event async for event in stream]) == ANSWER
        async with sdk.responses.stream(model="thinker", input="2 + 2?") as helped:
            assert (await helped.get_final_response()).output_text == "4"


def test_length_makes_it_incomplete(sdk: OpenAI) -> None:
    response = create(sdk, **asked(input="Write a long story about a dog."))
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.output_tokens == 16


def test_a_filter_makes_it_incomplete(sdk: OpenAI) -> None:
    response = create(sdk, model="half-filtered", input="Hi")
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "content_filter"
    assert response.output_text == "".join(word(number) for number in range(5))


def test_reasoning(sdk: OpenAI) -> None:
    request: dict[str, Any] = {
        "model": "thinker",
        "input": "2 + 2?",
        "include": ["reasoning.encrypted_content"],
        "store": False,
    }
    response = create(sdk, **request)
    reasoning, message = response.output
    assert reasoning.type == "reasoning"
    assert reasoning.content is not None
    assert reasoning.content[0].text == "Two and two is four."
    assert reasoning.encrypted_content
    assert message.type == "message"
    with sdk.responses.create(**request, stream=True) as stream:
        thoughts = [event.delta for event in stream if event.type == "response.reasoning_text.delta"]
    assert thoughts == ["Two and two", " is four."]
    again: Any = [{"role": "user", "content": "2 + 2?"}, *response.output, {"role": "user", "content": "Sure?"}]
    assert create(sdk, model="mirror", input=again, store=False).status == "completed"


def test_refusal(sdk: OpenAI) -> None:
    response = create(sdk, model="refuser", input="Hi")
    [message] = response.output
    assert message.type == "message"
    assert message.content[0].type == "refusal"
    assert message.content[0].refusal == "I cannot help with that."


def test_log_probabilities(sdk: OpenAI) -> None:
    request = asked(include=["message.output_text.logprobs"], top_logprobs=2)
    [message] = create(sdk, **request).output
    assert message.type == "message"
    assert message.content[0].type == "output_text"
    logprobs = message.content[0].logprobs
    assert logprobs
    assert "".join(row.token for row in logprobs) == ANSWER
    assert {len(row.top_logprobs) for row in logprobs} == {2}
    assert max(row.logprob for row in logprobs) <= 0
    with sdk.responses.create(**request, stream=True) as stream:
        tokens = [row.token for event in stream if event.type == "response.output_text.delta" for row in event.logprobs]
    assert "".join(tokens) == ANSWER


# Answers held to a form


class City(BaseModel):
    """What an answer is held to."""

    name: Literal["Paris", "Oslo"]
    inhabitants: Annotated[int, Field(ge=1, le=9_999_999)]


@pytest.mark.parametrize("model", [DEFAULT_MODEL, "structured"])
def test_parse(sdk: OpenAI, model: str) -> None:
    response = sdk.responses.parse(model=model, input="Tell me of Paris.", text_format=City, temperature=0)
    assert isinstance(response.output_parsed, City)
    assert response.text is not None
    assert response.text.format is not None
    assert response.text.format.type == "json_schema"


def test_parse_a_stream(sdk: OpenAI) -> None:
    with sdk.responses.stream(model="structured", input="Tell me of Paris.", text_format=City) as stream:
        parsed = [event.parsed for event in stream if event.type == "response.output_text.done"]
        final = stream.get_final_response()
    assert parsed == [final.output_parsed] == [City(name="Paris", inhabitants=2_100_000)]


def test_json_object(sdk: OpenAI, running: Responsive) -> None:
    response = create(sdk, model="structured", input="In JSON.", text={"format": {"type": "json_object"}})
    assert json.loads(response.output_text)["name"] == "Paris"
    [request] = [request for request in running.upstream.asked if request["messages"][-1]["content"] == "In JSON."]
    assert request["response_format"] == {"type": "json_object"}


# Tools


def call_in(response: Response) -> ResponseFunctionToolCall:
    [call] = [item for item in response.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"city": "Paris"}
    return call


def test_a_tool_and_its_output_by_the_previous_response(sdk: OpenAI) -> None:
    first = create(sdk, model="weather", input="How warm is Paris?", tools=[TOOL])
    assert first.output_text == "Let me look."
    output: Any = {"type": "function_call_output", "call_id": call_in(first).call_id, "output": TEMPERATURE}
    second = create(sdk, model="weather", input=[output], tools=[TOOL], previous_response_id=first.id)
    assert second.output_text == f"In Paris: {TEMPERATURE}."
    assert second.previous_response_id == first.id


def test_a_tool_and_its_output_by_sending_all_items(sdk: OpenAI) -> None:
    items: list[Any] = [{"role": "user", "content": "How warm is Paris?"}]
    first = create(sdk, model="weather", input=items, tools=[TOOL], store=False)
    output = {"type": "function_call_output", "call_id": call_in(first).call_id, "output": TEMPERATURE}
    second = create(sdk, model="weather", input=[*items, *first.output, output], tools=[TOOL], store=False)
    assert second.output_text == f"In Paris: {TEMPERATURE}."


def test_a_tool_as_a_stream(sdk: OpenAI) -> None:
    with sdk.responses.stream(model="weather", input="How warm is Paris?", tools=[TOOL]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    pieces = [event for event in events if event.type == "response.function_call_arguments.delta"]
    [done] = [event for event in events if event.type == "response.function_call_arguments.done"]
    call = call_in(final)
    assert len(pieces) == 2
    assert pieces[-1].snapshot == done.arguments == call.arguments
    assert done.item_id == call.id


def test_two_calls_at_once(sdk: OpenAI) -> None:
    response = create(sdk, model="two-calls", input="How warm?", tools=[TOOL])
    calls = [item for item in response.output if item.type == "function_call"]
    assert [json.loads(call.arguments)["city"] for call in calls] == ["Paris", "Oslo"]
    assert [call.call_id for call in calls] == ["call_1", "call_2"]


def test_a_forced_call_of_the_real_model(sdk: OpenAI) -> None:
    choice = {"type": "function", "name": TOOL["name"]}
    response = create(sdk, **asked(tools=[TOOL], tool_choice=choice, max_output_tokens=200))
    [call] = response.output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["city"] in ("Paris", "Oslo")


# Background, resuming, cancelling, deleting


def test_background(sdk: OpenAI, running: Responsive) -> None:
    accepted = create(sdk, model="gated", input="poll", background=True)
    assert accepted.status in ("queued", "in_progress")
    assert accepted.background is True
    running.upstream.gate("poll").reached.wait(60)
    assert sdk.responses.retrieve(accepted.id).status == "in_progress"
    running.upstream.gate("poll").opened.set()
    ended = eventually(lambda: sdk.responses.retrieve(accepted.id), lambda response: response.status != "in_progress")
    assert (ended.status, ended.output_text) == ("completed", WHOLE)


def cut_stream(running: Responsive, name: str, count: int) -> tuple[str, list[ResponseStreamEvent]]:
    """Read ``count`` events of a response in the background, then lose the connection. Its id, and what was read."""
    with CountingProxy(running.server.port) as proxy:
        sdk = OpenAI(base_url=proxy.base_url, api_key="unused", max_retries=0)
        stream = sdk.responses.create(model="gated", input=name, background=True, stream=True)
        seen = [next(stream) for _ in range(count)]
    with sdk, pytest.raises(openai.APIConnectionError):
        list(stream)
    assert seen[0].type == "response.created"
    return seen[0].response.id, seen


@pytest.mark.parametrize("when", ["while it runs", "after its end"])
def test_resume_after_a_cut_connection(sdk: OpenAI, running: Responsive, when: str) -> None:
    response_id, seen = cut_stream(running, when, 7)
    gate = running.upstream.gate(when)
    if when == "after its end":
        gate.opened.set()
        eventually(lambda: sdk.responses.retrieve(response_id).status, lambda status: status == "completed")
    with sdk.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number) as stream:
        seen.append(next(stream))
        gate.opened.set()
        seen.extend(stream)
    check_numbers(seen)
    assert text_of(seen) == WHOLE
    assert seen[-1].type == "response.completed"
    assert sdk.responses.retrieve(response_id) == seen[-1].response
    with sdk.responses.retrieve(response_id, stream=True) as stream:
        assert list(stream) == seen


def test_resume_where_nothing_is_new_yet(sdk: OpenAI, running: Responsive) -> None:
    """The head of the answer does not wait for the next event."""
    response_id, seen = cut_stream(running, "nothing new", HELD_AT + 5)
    with sdk.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number) as stream:
        assert not running.upstream.gate("nothing new").opened.is_set()
        running.upstream.gate("nothing new").opened.set()
        seen.extend(stream)
    check_numbers(seen)
    assert text_of(seen) == WHOLE


def test_resume_by_the_stream_helper(sdk: OpenAI, running: Responsive) -> None:
    response_id, seen = cut_stream(running, "helper", 7)
    running.upstream.gate("helper").opened.set()
    with sdk.responses.stream(response_id=response_id, starting_after=seen[-1].sequence_number) as stream:
        rest = list(stream)
        assert stream.get_final_response().output_text == WHOLE
    check_numbers(rest, first=len(seen))


def test_two_follow_one_response(sdk: OpenAI, running: Responsive) -> None:
    accepted = create(sdk, model="gated", input="two follow", background=True)
    with (
        sdk.responses.retrieve(accepted.id, stream=True) as one,
        sdk.responses.retrieve(accepted.id, stream=True, starting_after=3) as other,
    ):
        begun = [next(one), next(one)]
        running.upstream.gate("two follow").opened.set()
        seen = [*begun, *one]
        assert list(other) == seen[4:]
    assert text_of(seen) == WHOLE


def test_cancel(sdk: OpenAI, running: Responsive) -> None:
    accepted = create(sdk, model="gated", input="cancel", background=True)
    gate = running.upstream.gate("cancel")
    assert gate.reached.wait(60)
    with sdk.responses.retrieve(accepted.id, stream=True) as stream:
        begun = [next(stream) for _ in range(6)]
        cancelled = sdk.responses.cancel(accepted.id)
        seen = [*begun, *stream]
    assert cancelled.status == "cancelled"
    assert gate.left.wait(60), "the model server is told to stop"
    assert WHOLE.startswith(cancelled.output_text)
    assert cancelled.output_text
    assert seen[-1].type == "response.incomplete"
    assert seen[-1].response == cancelled == sdk.responses.retrieve(accepted.id) == sdk.responses.cancel(accepted.id)
    check_numbers(seen)


def test_a_client_that_leaves_a_stream_cancels_it(sdk: OpenAI, running: Responsive) -> None:
    with sdk.responses.create(model="gated", input="leave", stream=True) as stream:
        first = next(stream)
        assert running.upstream.gate("leave").reached.wait(60)
    assert running.upstream.gate("leave").left.wait(60)
    assert first.type == "response.created"
    eventually(lambda: sdk.responses.retrieve(first.response.id).status, lambda status: status == "cancelled")


def test_delete(sdk: OpenAI) -> None:
    response = create(sdk, **asked())
    sdk.responses.delete(response.id)
    for ask in (sdk.responses.retrieve, sdk.responses.delete, sdk.responses.cancel, sdk.responses.input_items.list):
        with pytest.raises(openai.NotFoundError) as raised:
            ask(response.id)
        assert raised.value.code == "response_not_found"


def test_delete_while_it_runs(sdk: OpenAI, running: Responsive) -> None:
    accepted = create(sdk, model="gated", input="delete", background=True)
    assert running.upstream.gate("delete").reached.wait(60)
    sdk.responses.delete(accepted.id)
    assert running.upstream.gate("delete").left.wait(60)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(accepted.id)


def test_what_is_not_stored_is_not_found(sdk: OpenAI) -> None:
    response = create(sdk, **asked(store=False))
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(response.id)
