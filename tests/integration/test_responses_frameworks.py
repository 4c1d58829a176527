"""Frameworks over the Responses API: an agent of ``openai-agents`` that uses a tool, and ``langchain-openai``.

Both stand on the official SDK; what is tested here is what they make of its answers: items sent back, events, failures.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from agents import Agent, ModelSettings, OpenAIResponsesModel, RunConfig, Runner, SQLiteSession, function_tool
from agents.models.openai_responses import OpenAIResponsesWSModel
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from pydantic import BaseModel, SecretStr
from tests.support.leaks import MARKER
from tests.support.models import QUESTION
from tests.support.responses_server import TEMPERATURE, WORDS, Responsive, responsive
from tests.support.scripted_upstream import word

from coterie.config import DEFAULT_MODEL

ANSWER = f"In Paris: {TEMPERATURE}."
NOTHING_SENT_HOME = RunConfig(tracing_disabled=True)


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Responsive]:
    with responsive(tmp_path_factory.mktemp(f"{MARKER}-frameworks")) as running:
        yield running


# openai-agents


@pytest.fixture(name="sdk")
async def _sdk(running: Responsive) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=running.server.base_url, api_key="unused", max_retries=0) as client:
        yield client


@function_tool
def temperature_of(city: str) -> str:
    """The temperature in a city."""
    assert city == "Paris"
    return TEMPERATURE


def agent(sdk: AsyncOpenAI, model: str = "weather", *, socket: bool = False, **settings: Any) -> Agent[None]:
    kind = OpenAIResponsesWSModel if socket else OpenAIResponsesModel
    return Agent(
        "Forecaster",
        instructions="Use the tool.",
        model=kind(model, sdk),
        tools=[temperature_of],
        model_settings=ModelSettings(**settings),
    )


@pytest.mark.parametrize("store", [True, False])
async def test_an_agent_uses_its_tool(sdk: AsyncOpenAI, store: bool) -> None:
    result = await Runner.run(agent(sdk, store=store), "How warm is Paris?", run_config=NOTHING_SENT_HOME)
    assert result.final_output == ANSWER
    assert [item.type for item in result.new_items] == [
        "message_output_item",
        "tool_call_item",
        "tool_call_output_item",
        "message_output_item",
    ]
    assert len(result.raw_responses) == 2
    assert all(response.usage.total_tokens for response in result.raw_responses)


@pytest.mark.parametrize("socket", [False, True], ids=["HTTP", "WebSocket"])
async def test_an_agent_as_a_stream(sdk: AsyncOpenAI, socket: bool) -> None:
    forecaster = agent(sdk, socket=socket)
    result = Runner.run_streamed(forecaster, "How warm is Paris?", run_config=NOTHING_SENT_HOME)
    deltas: list[str] = []
    items: list[str] = []
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            deltas.append(event.data.delta)
        elif event.type == "run_item_stream_event":
            items.append(event.name)
    assert isinstance(forecaster.model, OpenAIResponsesModel)
    await forecaster.model.close()
    assert "".join(deltas) == f"Let me look.{ANSWER}"
    assert items == ["message_output_created", "tool_called", "tool_output", "message_output_created"]
    assert result.final_output == ANSWER


async def test_an_agent_goes_on_by_the_previous_response(sdk: AsyncOpenAI, running: Responsive) -> None:
    first = await Runner.run(agent(sdk), "How warm is Paris?", run_config=NOTHING_SENT_HOME)
    second = await Runner.run(
        agent(sdk), "Sure?", previous_response_id=first.last_response_id, run_config=NOTHING_SENT_HOME
    )
    assert second.final_output == ANSWER
    roles = [message["role"] for message in running.upstream.asked[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]


async def test_an_agent_in_a_conversation(sdk: AsyncOpenAI) -> None:
    conversation = await sdk.conversations.create()
    result = await Runner.run(
        agent(sdk), "How warm is Paris?", conversation_id=conversation.id, run_config=NOTHING_SENT_HOME
    )
    assert result.final_output == ANSWER
    items = [item.type async for item in sdk.conversations.items.list(conversation.id, order="asc")]
    assert items == ["message", "message", "function_call", "function_call_output", "message"]


async def test_an_agent_with_a_session(sdk: AsyncOpenAI) -> None:
    session = SQLiteSession("test")
    for question in ("How warm is Paris?", "Sure?"):
        result = await Runner.run(agent(sdk), question, session=session, run_config=NOTHING_SENT_HOME)
        assert result.final_output == ANSWER
    session.close()


class City(BaseModel):
    """What an answer is held to."""

    name: str
    inhabitants: int


async def test_an_agent_with_an_output_type(sdk: AsyncOpenAI) -> None:
    structured = Agent("Writer", model=OpenAIResponsesModel("structured", sdk), output_type=City)
    result = await Runner.run(structured, "Paris?", run_config=NOTHING_SENT_HOME)
    assert result.final_output == City(name="Paris", inhabitants=2_100_000)


async def test_an_agent_that_reasons(sdk: AsyncOpenAI) -> None:
    thinker = Agent("Thinker", model=OpenAIResponsesModel("thinker", sdk))
    first = await Runner.run(thinker, "2 + 2?", run_config=NOTHING_SENT_HOME)
    assert [item.type for item in first.new_items] == ["reasoning_item", "message_output_item"]
    again = [*first.to_input_list(), {"role": "user", "content": "Sure?"}]
    second = await Runner.run(thinker, again, run_config=NOTHING_SENT_HOME)  # type: ignore[arg-type]
    assert second.final_output == "4"


async def test_failures_of_an_agent(sdk: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await Runner.run(agent(sdk, "no-such-model"), "Hi", run_config=NOTHING_SENT_HOME)
    assert raised.value.code == "model_not_found"
    result = Runner.run_streamed(agent(sdk, "cut"), "Hi", run_config=NOTHING_SENT_HOME)
    with pytest.raises(openai.APIError) as broken:
        [event async for event in result.stream_events()]
    assert broken.value.code == "server_error"


# langchain-openai


def chain(running: Responsive, model: str, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=model,
        base_url=running.server.base_url,
        api_key=SecretStr("unused"),
        use_responses_api=True,
        max_retries=0,
        **settings,
    )


@tool
def temperature_in(city: str) -> str:
    """The temperature in a city."""
    assert city == "Paris"
    return TEMPERATURE


def test_invoke(running: Responsive) -> None:
    message = chain(running, DEFAULT_MODEL, temperature=0, max_tokens=16).invoke(QUESTION)
    assert message.text == "The capital of Cuba is Havana."
    assert message.response_metadata["status"] == "completed"
    assert message.response_metadata["id"].startswith("resp_")
    assert message.usage_metadata is not None
    assert message.usage_metadata["total_tokens"] > 0


def test_stream(running: Responsive) -> None:
    running.upstream.gate("stream").opened.set()
    chunks = list(chain(running, "gated").stream("stream"))
    assert len([chunk for chunk in chunks if chunk.text]) == WORDS
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert isinstance(whole, AIMessageChunk)
    assert whole.text == "".join(word(number) for number in range(WORDS))
    assert whole.usage_metadata is not None


async def test_asynchronous(running: Responsive) -> None:
    message = await chain(running, "thinker").ainvoke("2 + 2?")
    assert message.text == "4"
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]


@pytest.mark.parametrize("by_id", [False, True])
def test_a_tool(running: Responsive, by_id: bool) -> None:
    model = chain(running, "weather", use_previous_response_id=by_id).bind_tools([temperature_in])
    question = HumanMessage("How warm is Paris?")
    first = model.invoke([question])
    [call] = first.tool_calls
    assert (call["name"], call["args"]) == ("temperature_in", {"city": "Paris"})
    output = temperature_in.invoke(call)
    assert isinstance(output, ToolMessage)
    assert model.invoke([question, first, output]).text == ANSWER


def test_a_tool_as_a_stream(running: Responsive) -> None:
    model = chain(running, "weather").bind_tools([temperature_in])
    whole: Any = None
    for chunk in model.stream("How warm is Paris?"):
        whole = chunk if whole is None else whole + chunk
    [call] = whole.tool_calls
    assert call["args"] == {"city": "Paris"}
    assert whole.text == "Let me look."


def test_structured_output(running: Responsive) -> None:
    model = chain(running, "structured").with_structured_output(City, method="json_schema")
    assert model.invoke("Paris?") == City(name="Paris", inhabitants=2_100_000)


def test_failures(running: Responsive) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        chain(running, "no-such-model").invoke("Hi")
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as full:
        chain(running, "overflowing").invoke("Hi")
    assert full.value.code == "context_length_exceeded"
    with pytest.raises(openai.APIError) as broken:
        list(chain(running, "cut").stream("Hi"))
    assert broken.value.code == "server_error"
