"""Answers held to a form, and tools, through the official Python SDK."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel, Field
from tests.support.judged import judged_stream
from tests.support.models import chat
from tests.support.server import Server

from coterie.config import DEFAULT_MODEL

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Paris", "Oslo"]},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
TIME: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"type": "string", "enum": ["UTC"]}},
            "required": ["zone"],
        },
    },
}
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Paris?"}]


class City(BaseModel):
    """What an answer is held to."""

    name: Literal["Paris", "Oslo"]
    inhabitants: Annotated[int, Field(ge=1, le=9)]
    tags: Annotated[list[Literal["big", "small"]], Field(min_length=1, max_length=2)]


def test_json_object(server: Server, client: OpenAI) -> None:
    form = {"type": "json_object"}
    messages = [{"role": "user", "content": 'Answer with the JSON {"ok": true}.'}]
    answer = client.chat.completions.create(**chat(messages=messages, response_format=form, max_tokens=200))
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)
    judged_stream(server, messages=messages, response_format=form, max_tokens=200)


def test_json_schema(server: Server, client: OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": City.model_json_schema(), "strict": True}}
    answer = client.chat.completions.create(**chat(response_format=form, max_tokens=100))
    assert isinstance(City.model_validate_json(answer.choices[0].message.content or ""), City)
    judged_stream(server, response_format=form, max_tokens=100)


def test_parse(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=DEFAULT_MODEL, messages=QUESTION, response_format=City, temperature=0, max_tokens=300
    )
    assert isinstance(answer.choices[0].message.parsed, City)


def test_stream_helper(client: OpenAI) -> None:
    request = chat(max_tokens=200)
    with client.chat.completions.stream(**request) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content
    assert final.choices[0].message.content == client.chat.completions.create(**request).choices[0].message.content


def test_stream_helper_with_a_schema(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=DEFAULT_MODEL, messages=QUESTION, response_format=City, temperature=0, max_tokens=300
    ) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, City)


# Tools


def _call_tools(client: OpenAI, **changes: Any) -> ChatCompletion:
    request = {"messages": QUESTION, "tools": [WEATHER, TIME], "max_tokens": 300, **changes}
    answer: ChatCompletion = client.chat.completions.create(**chat(**request))
    return answer


def _check_call(answer: ChatCompletion, names: set[str]) -> None:
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason in ("tool_calls", "stop")
    assert message.tool_calls
    assert len({call.id for call in message.tool_calls}) == len(message.tool_calls)
    for call in message.tool_calls:
        assert call.type == "function"
        assert call.function.name in names
        arguments = json.loads(call.function.arguments)
        if call.function.name == "get_weather":
            assert arguments.keys() == {"city", "unit"}
            assert arguments["city"] in ("Paris", "Oslo")


def test_tools_required(server: Server, client: OpenAI) -> None:
    answer = _call_tools(client, tool_choice="required")
    assert answer.choices[0].finish_reason == "tool_calls"
    _check_call(answer, {"get_weather", "get_time"})
    body = judged_stream(server, messages=QUESTION, tools=[WEATHER], tool_choice="required", max_tokens=300)
    assert b'"finish_reason":"tool_calls"' in body


def test_tools_named(server: Server, client: OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = _call_tools(client, tool_choice=choice)
    _check_call(answer, {"get_weather"})
    assert len(answer.choices[0].message.tool_calls or ()) == 1
    judged_stream(server, messages=QUESTION, tools=[WEATHER, TIME], tool_choice=choice, max_tokens=300)


def test_tools_auto(server: Server, client: OpenAI) -> None:
    """Whether it calls is the model's choice; either way the answer is one of the two kinds and nothing between."""
    answer = _call_tools(client)
    message = answer.choices[0].message
    if answer.choices[0].finish_reason == "tool_calls":
        _check_call(answer, {"get_weather", "get_time"})
    else:
        assert message.content
        assert not message.tool_calls
    assert "tool_calls" not in (message.content or "")
    judged_stream(server, include_usage=True, messages=QUESTION, tools=[WEATHER], max_tokens=300)


def test_tools_none(server: Server, client: OpenAI) -> None:
    answer = _call_tools(client, tool_choice="none", max_tokens=16)
    assert not answer.choices[0].message.tool_calls
    assert answer.choices[0].message.content
    judged_stream(server, messages=QUESTION, tools=[WEATHER], tool_choice="none", max_tokens=16)


def test_one_tool_call_at_a_time(client: OpenAI) -> None:
    answer = _call_tools(client, tool_choice="required", parallel_tool_calls=False)
    assert len(answer.choices[0].message.tool_calls or ()) == 1


def test_tool_loop(server: Server, client: OpenAI) -> None:
    """Call, result, answer; the assistant's message goes back exactly as the SDK gave it."""
    first = _call_tools(client, tool_choice="required", parallel_tool_calls=False)
    message = first.choices[0].message
    assert message.tool_calls
    messages = [
        *QUESTION,
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Sunny, 21 degrees celsius."},
    ]
    answer = _call_tools(client, messages=messages, tool_choice="none", max_tokens=32)
    assert answer.choices[0].message.content
    judged_stream(server, messages=messages, tools=[WEATHER, TIME], tool_choice="none", max_tokens=32)


def test_tool_calls_through_the_stream_helper(client: OpenAI) -> None:
    request = chat(messages=QUESTION, tools=[WEATHER], tool_choice="required", max_tokens=300)
    with client.chat.completions.stream(**request) as stream:
        final = stream.get_final_completion()
    _check_call(final, {"get_weather"})
