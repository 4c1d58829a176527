"""What the Responses API remembers, through the official Python SDK: chains, input items, conversations; and how much
of it a model is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from tests.support.leaks import MARKER
from tests.support.responses_server import Responsive, responsive

from coterie.config import DEFAULT_MODEL


@pytest.fixture(scope="module", name="running")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Responsive]:
    with responsive(tmp_path_factory.mktemp(f"{MARKER}-state")) as running:
        yield running


@pytest.fixture(name="sdk")
def _sdk(running: Responsive) -> Iterator[OpenAI]:
    with OpenAI(base_url=running.server.base_url, api_key="unused", max_retries=0) as client:
        yield client


def ask(sdk: OpenAI, question: Any, **changes: Any) -> Response:
    """Ask the model "mirror", which answers with what it was sent."""
    response = sdk.responses.create(**{"model": "mirror", "input": question, **changes})
    assert isinstance(response, Response)
    return response


def sent(response: Response) -> Any:
    """What the model "mirror" was sent: pairs of role and text."""
    return json.loads(response.output_text)


def said(role: str, text: str) -> dict[str, Any]:
    """A message of the input."""
    return {"type": "message", "role": role, "content": text}


# Chains


def test_a_chain_of_responses(sdk: OpenAI) -> None:
    first = ask(sdk, "one", instructions="Be brief.")
    second = ask(sdk, "two", previous_response_id=first.id)
    third = ask(sdk, "three", previous_response_id=second.id, instructions="Be polite.")
    other = ask(sdk, "other", previous_response_id=first.id)
    so_far = [["user", "one"], ["assistant", first.output_text]]
    assert sent(first) == [["system", "Be brief."], ["user", "one"]]
    assert sent(second) == [*so_far, ["user", "two"]], "instructions are not carried over"
    so_far += [["user", "two"], ["assistant", second.output_text]]
    assert sent(third) == [["system", "Be polite."], *so_far, ["user", "three"]]
    assert sent(other) == [*so_far[:2], ["user", "other"]]


def test_a_chain_through_a_stream(sdk: OpenAI) -> None:
    with sdk.responses.stream(model="mirror", input="one") as stream:
        first = stream.get_final_response()
    assert sent(ask(sdk, "two", previous_response_id=first.id))[1] == ["assistant", first.output_text]


def test_an_item_by_reference(sdk: OpenAI) -> None:
    first = ask(sdk, "one")
    reference = {"type": "item_reference", "id": first.output[0].id}
    assert sent(ask(sdk, [reference, said("user", "two")])) == [["assistant", first.output_text], ["user", "two"]]


def test_all_roles_and_parts(sdk: OpenAI) -> None:
    parts = [{"type": "input_text", "text": "one "}, {"type": "input_text", "text": "two"}]
    roles = [said("system", "s"), said("developer", "d"), {"role": "user", "content": parts}, said("assistant", "a")]
    response = ask(sdk, [*roles, said("user", "Hi")])
    texts = [text for _, text in sent(response)]
    assert texts == ["s", "d", "one two", "a", "Hi"]


# Input items


def test_pages_of_input_items(sdk: OpenAI) -> None:
    numbers = [str(number) for number in range(7)]
    response = ask(sdk, [said("user", number) for number in numbers])

    def texts(**query: Any) -> list[str]:
        items: Any = sdk.responses.input_items.list(response.id, **query)
        return [item.content[0].text for item in items]

    assert texts(order="asc", limit=3) == numbers, "the SDK asks for page after page"
    assert texts() == texts(order="desc", limit=2) == numbers[::-1]
    page = sdk.responses.input_items.list(response.id, order="asc", limit=3)
    assert (len(page.data), page.has_more) == (3, True)
    assert page.data[-1].id is not None
    assert texts(order="asc", after=page.data[-1].id) == numbers[3:]
    last = sdk.responses.input_items.list(response.id, order="asc", limit=7)
    assert last.has_more is False
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.responses.input_items.list(response.id, limit=101)
    assert raised.value.param == "limit"


def test_input_items_keep_their_ids(sdk: OpenAI) -> None:
    response = ask(sdk, "one")
    [item] = sdk.responses.input_items.list(response.id)
    [again] = sdk.responses.input_items.list(response.id)
    assert item.id == again.id
    assert item.type == "message"


# Conversations


def test_a_conversation(sdk: OpenAI) -> None:
    conversation = sdk.conversations.create(metadata={"for": "a test"}, items=[{"role": "user", "content": "zero"}])
    assert conversation.id.startswith("conv_")
    first = ask(sdk, "one", conversation=conversation.id)
    assert sent(first) == [["user", "zero"], ["user", "one"]]
    second = ask(sdk, "two", conversation={"id": conversation.id})
    assert sent(second) == [*sent(first), ["assistant", first.output_text], ["user", "two"]]
    assert second.conversation is not None
    assert second.conversation.id == conversation.id
    items = list(sdk.conversations.items.list(conversation.id, order="asc", limit=2))
    roles = [item.role for item in items if item.type == "message"]
    assert roles == ["user", "user", "assistant", "user", "assistant"]
    assert items[2].id == first.output[0].id


def test_items_of_a_conversation(sdk: OpenAI) -> None:
    conversation = sdk.conversations.create()
    added = sdk.conversations.items.create(
        conversation.id, items=[{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    )
    one, two = added.data
    assert one.id is not None
    assert sdk.conversations.items.retrieve(one.id, conversation_id=conversation.id) == one
    assert list(sdk.conversations.items.list(conversation.id)) == [two, one]
    assert sdk.conversations.items.delete(one.id, conversation_id=conversation.id).id == conversation.id
    assert list(sdk.conversations.items.list(conversation.id)) == [two]
    with pytest.raises(openai.NotFoundError) as raised:
        sdk.conversations.items.retrieve(one.id, conversation_id=conversation.id)
    assert raised.value.code == "item_not_found"


def test_a_conversation_is_changed_and_deleted(sdk: OpenAI) -> None:
    conversation = sdk.conversations.create(metadata={"a": "1"})
    assert sdk.conversations.retrieve(conversation.id) == conversation
    changed = sdk.conversations.update(conversation.id, metadata={"b": "2"})
    assert (changed.id, changed.metadata) == (conversation.id, {"b": "2"})
    assert sdk.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError) as raised:
        sdk.conversations.retrieve(conversation.id)
    assert raised.value.code == "conversation_not_found"


def test_a_conversation_in_use(sdk: OpenAI, running: Responsive) -> None:
    conversation = sdk.conversations.create()
    accepted = ask(sdk, "in use", model="gated", background=True, conversation=conversation.id)
    with pytest.raises(openai.ConflictError) as raised:
        ask(sdk, "two", conversation=conversation.id)
    assert raised.value.code == "conversation_locked"
    assert running.upstream.gate("in use").reached.wait(60)
    sdk.responses.cancel(accepted.id)
    assert sent(ask(sdk, "three", conversation=conversation.id)) == [["user", "three"]]


def test_a_tool_in_a_conversation(sdk: OpenAI) -> None:
    conversation = sdk.conversations.create()
    tools: Any = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]
    first = ask(sdk, "How warm?", model="weather", conversation=conversation.id, tools=tools)
    [call] = [item for item in first.output if item.type == "function_call"]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "warm"}
    second = ask(sdk, [output], model="weather", conversation=conversation.id, tools=tools)
    assert second.output_text == "In Paris: warm."
    kinds = [item.type for item in sdk.conversations.items.list(conversation.id, order="asc")]
    assert kinds == ["message", "message", "function_call", "function_call_output", "message"]


# How much is sent


CONTEXT_TOKENS = 384
"""Context of the real model."""

LONG: Any = [
    said(role, f"Message {number}: " + "one two three four " * 15)
    for number in range(6)
    for role in ("user", "assistant")
][:-1]
"""A conversation that is longer than that."""


def test_truncation(sdk: OpenAI) -> None:
    request: Any = {"model": DEFAULT_MODEL, "input": LONG, "max_output_tokens": 16}
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.responses.create(**request)
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "input")
    response = sdk.responses.create(**request, truncation="auto")
    assert response.truncation == "auto"
    assert response.usage is not None
    assert CONTEXT_TOKENS / 2 < response.usage.input_tokens <= CONTEXT_TOKENS
    assert len(list(sdk.responses.input_items.list(response.id))) == len(LONG), "what was sent is kept"
    with sdk.responses.create(**request, truncation="auto", stream=True) as stream:
        assert list(stream)[-1].type in ("response.completed", "response.incomplete")


def test_truncation_of_a_chain(sdk: OpenAI) -> None:
    request: Any = {"model": DEFAULT_MODEL, "max_output_tokens": 16, "truncation": "auto"}
    first = sdk.responses.create(**request, input=LONG[:4])
    second = sdk.responses.create(**request, input=LONG[4:], previous_response_id=first.id)
    assert second.usage is not None
    assert second.usage.input_tokens <= CONTEXT_TOKENS


def test_input_tokens(sdk: OpenAI) -> None:
    counted = sdk.responses.input_tokens.count(model=DEFAULT_MODEL, input="Hello there")
    response = sdk.responses.create(model=DEFAULT_MODEL, input="Hello there", max_output_tokens=16)
    assert counted.object == "response.input_tokens"
    assert response.usage is not None
    assert counted.input_tokens == response.usage.input_tokens
    longer = sdk.responses.input_tokens.count(
        model=DEFAULT_MODEL, input="Hello there", instructions="Be brief.", previous_response_id=response.id
    )
    assert longer.input_tokens > counted.input_tokens
    assert sdk.responses.input_tokens.count(model=DEFAULT_MODEL, input=LONG).input_tokens > CONTEXT_TOKENS


# The SDK reads users' messages in the output of a compaction as the model's own, and warns when it sends them again.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
def test_compact(sdk: OpenAI) -> None:
    first = ask(sdk, "one")
    compacted = sdk.responses.compact(model="thinker", input="two", previous_response_id=first.id)
    assert compacted.object == "response.compaction"
    assert [item.type for item in compacted.output] == ["message", "message", "compaction"]
    assert compacted.usage.total_tokens > 0
    items: Any = [*compacted.output, said("user", "three")]
    seen = sent(ask(sdk, items))
    assert [text for role, text in seen if role == "user"][-1] == "three"
    assert any("4" in text for _, text in seen), "the note is read"
    assert ["user", "one"] in seen
