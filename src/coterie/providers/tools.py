"""Tools for any model: it is told of them, and what it writes is held to a JSON schema and read back into calls.

llama.cpp has a way of its own, through the chat template, which is not used: it drops ``tools`` in silence where the
template does not know them, and with templates that do, ``tool_choice: "required"`` was measured to have no effect.
A constraint on the output holds for every model, and for every form of ``tool_choice``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from coterie.engines.schema_lowering import lower_schemas
from coterie.engines.tool_prompt import emulate_tools
from coterie.engines.tool_reader import ToolReader
from coterie.errors import ApiError
from coterie.wire.lingua import Chunks

Wrap = Callable[[Chunks], Chunks]


def with_tools(body: dict[str, Any]) -> tuple[dict[str, Any], Wrap]:
    """The body to send, and what to do with each stream that comes back. Raises ``ApiError``."""
    if not body.get("tools") and not _speaks_of_tools(body):
        return lower_schemas(body), _unchanged
    if not body.get("tools") or body.get("tool_choice") == "none":
        return emulate_tools(body), _unchanged
    if body.get("logprobs"):
        # They would be those of the JSON around the answer.
        raise ApiError("unsupported_value", param="logprobs", value="true", hint=" It cannot be combined with 'tools'.")
    return emulate_tools(body), _reader(body.get("tool_choice"))


def _speaks_of_tools(body: dict[str, Any]) -> bool:
    return any(message["role"] == "tool" or message.get("tool_calls") for message in body.get("messages", ()))


def _unchanged(stream: Chunks) -> Chunks:
    return stream


def _reader(tool_choice: Any) -> Wrap:
    named = isinstance(tool_choice, dict) and tool_choice.get("type") == "function"
    return lambda stream: _read(stream, named=named)


async def _read(stream: Chunks, *, named: bool) -> Chunks:
    """The chunks of ``stream``, their text read as tool calls or content."""
    reader = ToolReader(named=named)
    async with contextlib.aclosing(stream) as chunks:
        async for chunk in chunks:
            if not chunk["choices"]:
                yield chunk
                continue
            choice = chunk["choices"][0]
            for delta in reader.feed(choice["delta"].get("content") or ""):
                yield {"choices": [{**choice, "delta": delta, "finish_reason": None}]}
            if choice["finish_reason"] is not None:
                yield {"choices": [{**choice, "delta": {}, "finish_reason": reader.finish(choice["finish_reason"])}]}
