"""What has been said of an answer, and how another provider can go on with it. Pure.

An answer can be continued where all that was said is one choice's text, so that the text, as the beginning of the
assistant's message, is the whole state of the generation:

===================================  ====================================================================
not continued                        because
===================================  ====================================================================
several choices, raw prompts         there is no one message to continue
a tool call, a refusal, reasoning    they are not text of the message
``logprobs``                         those of the seam would be missing
``response_format`` other than text  a constraint begins anew with each request, in the middle of the JSON
``tools`` that must be called        the same
a finish reason was given            the answer had said that it was whole, and then was not
===================================  ====================================================================

What goes out of a continued answer is one stream: roles and what the second provider repeats at the seam are left out,
and usage is that of one answer: the prompt's tokens once, the completion's of every part. Where a part was cut before
its provider counted, its pieces are counted as tokens, which is what providers send.

A prompt that ends in white space is often trimmed by a chat template. So the text is handed over without it, and the
same white space is taken away from the beginning of what comes back.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from coterie.wire.lingua import Chunk, Generation

_CALLED: Final = ("required",)
_LIMITS: Final = ("max_completion_tokens", "max_tokens")


class AnswerSoFar:
    """Follows the chunks of ``generation``'s answer over every attempt."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._eligible = _is_eligible(generation)
        self._text: list[str] = []
        self._plain = True
        self._finished = False
        self._pieces = 0
        """Pieces of text from the attempts before the present one."""
        self._present = 0
        self._seam = ""
        self._prompt_tokens: int | None = None
        self.parts = 1
        """Attempts that contributed."""
        self.started = False
        """Whether something semantic went out to the client."""

    @property
    def continuable(self) -> bool:
        """Whether another provider could go on now."""
        return self._eligible and self._plain and not self._finished and not self._exhausted()

    @property
    def pieces(self) -> int:
        """Pieces of text so far."""
        return self._pieces + self._present

    def continued(self) -> Generation:
        """The request that asks for the rest, and the beginning of its answer as this answer's continuation."""
        self._pieces, self._present = self.pieces, 0
        self.parts += 1
        text = "".join(self._text)
        kept = text.rstrip()
        self._seam = text[len(kept) :]
        body = dict(self._generation.body)
        if kept:
            body["messages"] = [*body["messages"], {"role": "assistant", "content": kept}]
        for name in _LIMITS:
            if body.get(name) is not None:
                body[name] -= self._pieces
        return dataclasses.replace(self._generation, body=body, known=None, partial=bool(kept))

    def feed(self, chunk: Chunk) -> Chunk:
        """Note what ``chunk`` says. Returns what goes out of it."""
        if "usage" in chunk and not chunk["choices"]:
            return {**chunk, "usage": self._whole_usage(chunk["usage"])} if self.parts > 1 else chunk
        for choice in chunk["choices"]:
            self._note(choice)
        return chunk

    def _note(self, choice: dict[str, Any]) -> None:
        delta = choice["delta"]
        text = delta.get("content")
        if text:
            self._present += 1
            if self._seam:
                text = delta["content"] = self._past_the_seam(text)
            self._text.append(text)
        if self._plain and len(delta) > (1 if "content" in delta else 0) + ("role" in delta):
            self._plain = not any(value for name, value in delta.items() if name not in ("content", "role"))
        if choice["finish_reason"] is not None:
            self._finished = True

    def _past_the_seam(self, text: str) -> str:
        """``text`` without the white space that the client has already."""
        same = 0
        while same < min(len(text), len(self._seam)) and text[same] == self._seam[same]:
            same += 1
        self._seam = self._seam[same:] if same == len(text) else ""
        return text[same:]

    def _exhausted(self) -> bool:
        """Whether the limit of tokens is reached, so that there is nothing to ask for."""
        limits = [self._generation.body.get(name) for name in _LIMITS]
        return any(limit is not None and limit <= self.pieces for limit in limits)

    def _whole_usage(self, usage: dict[str, Any] | None) -> dict[str, Any] | None:
        if usage is None:
            return None
        completion = self._pieces + usage["completion_tokens"]
        prompt = max(0, usage["prompt_tokens"] - self._pieces)
        return {
            **usage, "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion
        }  # fmt: skip


def _is_eligible(generation: Generation) -> bool:
    body = generation.body
    form = body.get("response_format") or {"type": "text"}
    return (
        generation.choices == 1
        and generation.prompts is None
        and not body.get("logprobs")
        and isinstance(form, dict)
        and form.get("type") == "text"
        and not isinstance(body.get("tool_choice"), dict)
        and body.get("tool_choice") not in _CALLED
        and not _begins_already(body)
    )


def _begins_already(body: dict[str, Any]) -> bool:
    """Whether the caller's own messages end with the assistant's, which only he knows how to continue."""
    messages = body.get("messages")
    return isinstance(messages, list) and bool(messages) and messages[-1].get("role") == "assistant"
