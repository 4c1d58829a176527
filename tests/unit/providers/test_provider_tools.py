"""Tools, for any model."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from tests.support.provider import ScriptedProvider, delta, finish, usage

from coterie.errors import ApiError
from coterie.providers.tools import with_tools
from coterie.wire.lingua import Chunk, Generation


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


HI = {"messages": [{"role": "user", "content": "Hi"}]}
TOOLS = {**HI, "tools": [tool("a"), tool("b")]}


@pytest.mark.parametrize("body", [HI, {"temperature": 1}, {**HI, "tools": []}], ids=str)
async def test_without_tools_nothing_changes(body: dict[str, Any]) -> None:
    sent, wrap = with_tools(body)
    stream = ScriptedProvider().generate(Generation("m", {}))
    assert sent == body
    assert wrap(stream) is stream
    await stream.aclose()


@pytest.mark.parametrize("body", [TOOLS, {**TOOLS, "tool_choice": "none"}], ids=["tools", "none of them"])
def test_a_model_is_told_of_them_in_words(body: dict[str, Any]) -> None:
    sent, _ = with_tools(body)
    assert not sent.get("tools")
    assert ("response_format" in sent) is (body is TOOLS)


def test_earlier_calls_are_told_in_words_too() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "a", "arguments": "{}"}}
    messages = [
        *HI["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    sent, _ = with_tools({"messages": messages})
    assert not any(message["role"] == "tool" or message.get("tool_calls") for message in sent["messages"])
    assert "42" in json.dumps(sent["messages"])


def test_log_probabilities_of_an_emulation_are_refused() -> None:
    with pytest.raises(ApiError) as caught:
        with_tools({**TOOLS, "logprobs": True})
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "logprobs")
    with_tools({**TOOLS, "logprobs": True, "tool_choice": "none"})


async def read(body: dict[str, Any], *texts: str, reason: str = "stop") -> list[Chunk]:
    """What a client is told when the model writes ``texts``."""
    _, wrap = with_tools(body)
    script = (*(delta(text, 3) for text in texts), finish(reason, 3), usage())
    return [chunk async for chunk in wrap(ScriptedProvider(script).generate(Generation("m", {})))]


def calls_of(chunks: list[Chunk]) -> dict[int, tuple[str, str]]:
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            for call in choice["delta"].get("tool_calls", ()):
                names.setdefault(call["index"], call["function"].get("name", ""))
                arguments[call["index"]] = arguments.get(call["index"], "") + call["function"].get("arguments", "")
    return {index: (names[index], arguments[index]) for index in names}


async def test_a_named_function_is_called() -> None:
    body = {**TOOLS, "tool_choice": {"type": "function", "function": {"name": "b"}}}
    sent, _ = with_tools(body)
    assert "response_format" in sent
    chunks = await read(body, '{"tool_calls": [{"name": "b", ', '"arguments": {"x": 1}}]}')
    [(name, arguments)] = calls_of(chunks).values()
    assert (name, json.loads(arguments)) == ("b", {"x": 1})
    assert chunks[-1] == usage()
    assert all(choice["index"] == 3 for chunk in chunks for choice in chunk["choices"])
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert [reason for reason in reasons if reason] == ["stop"]


async def test_a_required_call_ends_with_its_own_reason() -> None:
    chunks = await read({**TOOLS, "tool_choice": "required"}, '{"tool_calls": [{"name": "a", "arguments": {}}]}')
    assert calls_of(chunks) == {0: ("a", "{}")}
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_call_that_is_cut_is_cut() -> None:
    chunks = await read({**TOOLS, "tool_choice": "required"}, '{"tool_calls": [{"name": "a", "argu', reason="length")
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"


async def test_closing_what_is_read_closes_the_stream() -> None:
    provider = ScriptedProvider(
        (delta('{"tool_calls": [{"name": "a", "arguments": {"x": "'), delta("y"), *[delta("z")] * 9)
    )
    _, wrap = with_tools({**TOOLS, "tool_choice": "required"})
    async with contextlib.aclosing(wrap(provider.generate(Generation("m", {})))) as chunks:
        await anext(chunks)
    assert provider.closed.is_set()
