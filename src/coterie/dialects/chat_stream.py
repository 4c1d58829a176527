"""Chunks of the lingua franca into the events of a chat stream. Pure.

Beside the rules of :mod:`coterie.dialects.chunk_stream`: the first delta of a choice, and no other, has the role.
"""

from __future__ import annotations

from typing import Any

from coterie.dialects.chunk_stream import ChunkStream


class ChatStream(ChunkStream):
    """The stream of one answer in ``chat.completion.chunk`` objects."""

    kind = "chat.completion.chunk"
    templated = True
    open = True

    def wire_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A choice of a chunk."""
        delta = choice["delta"]
        if choice["first"]:
            delta = {"role": "assistant", "content": None if "tool_calls" in delta else "", **delta}
        wire = {
            "index": choice["index"],
            "delta": delta,
            "logprobs": choice["logprobs"],
            "finish_reason": choice["finish_reason"],
        }
        extra = choice.get("extra")
        return {**extra, **wire} if extra else wire
