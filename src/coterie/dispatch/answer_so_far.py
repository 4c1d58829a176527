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
the caller's own last message is     only he knows how it is to be continued
the assistant's
a finish reason was given            the answer had said that it was whole, and then was not
as many tokens as were asked for     there is nothing to ask for
===================================  ====================================================================

What goes out of a continued answer is one stream: what the second provider repeats at the seam is left out, and usage
is that of one answer: the prompt's tokens once, the completion's of every part, and nothing that only one part knows
(of cached tokens, say). Where a part was cut before its provider counted, its pieces are counted as tokens, which is
what providers send.

A prompt that ends in white space is often trimmed by a chat template. So the text is handed over without it, and the
same white space is taken away from the beginning of what comes back. Text that is only white space is not handed over.

The text is kept only as long as somebody could go on with it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from coterie.wire.lingua import Chunk, Generation

_CALLED: Final = ("required",)
_LIMITS: Final = ("max_completion_tokens", "max_tokens")
_CONSTRAINTS: Final = frozenset(
    {
        "ebnf", "grammar", "guided_choice", "guided_grammar", "guided_json", "guided_regex", "json_schema", "regex",
        "structured_outputs",
    }
)  # fmt: skip
"""Other servers' parameters that do what ``response_format`` does."""


class AnswerSoFar:
    """Follows the chunks of ``generation``'s answer over every attempt. ``followed``: whether to continue it at all."""

    def __init__(self, generation: Generation, *, followed: bool = True) -> None:
        self._generation = generation
        self._followed = followed and _is_eligible(generation)
        self._text: list[str] = []
        self._is_finished = False
        self._pieces = 0
        """Pieces of text from the attempts before the present one."""
        self._present = 0
        self._handed_over = 0
        """Pieces that the present attempt was given as part of its prompt."""
        self._seam = ""
        self.parts = 1
        """Attempts that contributed."""
        self.started = False
        """Whether something semantic went out to the client."""

    @property
    def continuable(self) -> bool:
        """Whether another provider could go on now."""
        return self._followed and not self._is_finished and not self._is_exhausted()

    @property
    def pieces(self) -> int:
        """Pieces of text so far."""
        return self._pieces + self._present

    def continued(self) -> Generation:
        """The request for the rest; what is fed from now on is its answer."""
        self._pieces, self._present = self.pieces, 0
        self.parts += 1
        text = "".join(self._text)
        kept = text.rstrip()
        self._seam = text[len(kept) :]
        self._handed_over = self._pieces if kept else 0
        known = self._generation.known
        return dataclasses.replace(
            _rest(self._generation, kept, self._pieces),
            known=_rest(known, kept, self._pieces) if isinstance(known, Generation) else known,
        )

    def feed(self, chunk: Chunk) -> Chunk:
        """Note what ``chunk`` says. Returns what goes out of it."""
        if self._followed:
            for choice in chunk["choices"]:
                chunk = self._noted(chunk, choice)
        if self.parts > 1 and chunk.get("usage"):
            return {**chunk, "usage": self._whole_usage(chunk["usage"])}
        return chunk

    def _noted(self, chunk: Chunk, choice: dict[str, Any]) -> Chunk:
        delta = choice["delta"]
        text = delta.get("content")
        if text:
            if self._seam:
                text = self._past_the_seam(text)
                chunk = {**chunk, "choices": [{**choice, "delta": {**delta, "content": text}}]}
            if text:
                self._present += 1
                self._text.append(text)
        if len(delta) > (1 if text else 0) and any(v for name, v in delta.items() if name not in ("content", "role")):
            self._followed = False
            self._text.clear()
        if choice["finish_reason"] is not None:
            self._is_finished = True
        return chunk

    def _past_the_seam(self, text: str) -> str:
        """``text`` without the white space that the client has already."""
        same = 0
        while same < min(len(text), len(self._seam)) and text[same] == self._seam[same]:
            same += 1
        self._seam = self._seam[same:] if same == len(text) else ""
        return text[same:]

    def _is_exhausted(self) -> bool:
        limits = [self._generation.body.get(name) for name in _LIMITS]
        return any(limit is not None and limit <= self.pieces for limit in limits)

    def _whole_usage(self, usage: dict[str, Any]) -> dict[str, Any]:
        prompt = max(0, usage["prompt_tokens"] - self._handed_over)
        completion = self._pieces + usage["completion_tokens"]
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _rest(generation: Generation, kept: str, pieces: int) -> Generation:
    """What is left of ``generation`` after ``pieces`` tokens, of which ``kept`` is the text."""
    body = dict(generation.body)
    if kept:
        body["messages"] = [*body["messages"], {"role": "assistant", "content": kept}]
    for name in _LIMITS:
        if body.get(name) is not None:
            body[name] -= pieces
    return dataclasses.replace(generation, body=body, partial=bool(kept))


def _is_eligible(generation: Generation) -> bool:
    body = generation.body
    form = body.get("response_format") or {"type": "text"}
    return (
        generation.choices == 1
        and generation.prompts is None
        and not body.get("logprobs")
        and _CONSTRAINTS.isdisjoint(body)
        and isinstance(form, dict)
        and form.get("type") == "text"
        and not isinstance(body.get("tool_choice"), dict)
        and body.get("tool_choice") not in _CALLED
        and not _begins_already(body)
    )


def _begins_already(body: dict[str, Any]) -> bool:
    """Whether the caller's own messages end with the assistant's."""
    messages = body.get("messages")
    return not isinstance(messages, list) or not messages or messages[-1].get("role") == "assistant"
