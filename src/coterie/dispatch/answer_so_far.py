"""What has been said of an answer, and how another provider can go on with it. Pure.

An answer can be continued where all that was said is one choice's text, so that the text, as the beginning of the
assistant's message, or behind a raw prompt, is the whole state of the generation:

===================================  ====================================================================
not continued                        because
===================================  ====================================================================
several choices                      there is no one text to continue
a prompt of token ids                text cannot be added to it
``echo``, ``suffix``, ``best_of``    what is said is more, or less, than what the model goes on with
a raw prompt without a limit of      providers then have limits of their own, which would begin anew
tokens
a tool call, a refusal, reasoning    they are not text of the message
``logprobs``                         those of the seam would be missing
``response_format`` other than text  a constraint begins anew with each request, in the middle of the JSON
``tools`` that must be called        the same
the caller's own last message is     only he knows how it is to be continued
the assistant's
a finish reason was given            the answer had said that it was whole, and then was not
as many tokens as were asked for     there is nothing to ask for
a limit of tokens, and pieces that   nobody knows how many are left
look like several each
the text ends as a ``stop`` string   the other would not see the beginning of the string
begins
more than a mebi of characters       it is too long to be kept and to be handed over
===================================  ====================================================================

What goes out of a continued answer is one stream: what the second provider repeats at the seam is left out, and usage
is that of one answer: the prompt's tokens once, the completion's of every part, and nothing that only one part knows
(of cached tokens, say). Where a part was cut before its provider counted, the usage that came with its choices says how
many tokens it had (:mod:`coterie.wire.lingua` does not know such usage, so it goes no further), else its pieces are
counted as tokens, which is what most providers send. ``usage_so_far``, which a chunk may have as well
(:mod:`coterie.providers.foreign_stream`), goes out as that of one answer too.

A message that ends in white space is often trimmed by a chat template. So the text is handed over without it, and the
same white space is taken away from the beginning of what comes back. Text that is only white space is not handed over.
Behind a raw prompt the text stands as it is.

The text is kept only as long as somebody could go on with it.
"""

from __future__ import annotations

import dataclasses
import io
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
_BEYOND_THE_TEXT: Final = ("best_of", "echo", "suffix")

_MOST_CHARACTERS: Final = 1024 * 1024
_LONGEST_TOKEN: Final = 24
"""Characters; a longer piece is taken for several tokens."""
_MOST_STOPS: Final = 16
_LONGEST_STOP: Final = 256


class AnswerSoFar:
    """Follows the chunks of ``generation``'s answer over every attempt. ``followed``: whether to continue it at all."""

    def __init__(self, generation: Generation, *, followed: bool = True) -> None:
        self._generation = generation
        self._followed = followed and _is_eligible(generation)
        self._text = io.StringIO()
        self._length = 0
        self._is_finished = False
        self._is_limited = any(generation.body.get(name) is not None for name in _LIMITS)
        self._is_uncounted = False
        """Whether a piece of the present attempt may have been several tokens."""
        self._before = 0
        """Tokens from the attempts before the present one."""
        self._present = 0
        self._handed_over = 0
        """Tokens that the present attempt was given as part of its prompt."""
        self.seam = ""
        """White space with which the next text may begin, and that the client has already."""
        self.parts = 1
        """Attempts that contributed."""
        self.started = False
        """Whether something semantic went out to the client."""

    @property
    def continuable(self) -> bool:
        """Whether another provider could go on now."""
        may = self._followed and not self._is_finished and not self._is_exhausted()
        return may and not self._is_within_a_stop()

    @property
    def tokens(self) -> int:
        """Tokens so far, as far as they could be counted."""
        return self._before + self._present

    def continued(self) -> Generation:
        """The request for the rest; what is fed from now on is its answer."""
        self._before, self._present = self.tokens, 0
        self.parts += 1
        text = self._text.getvalue()
        kept = text if self._generation.prompts else text.rstrip()
        self.seam = text[len(kept) :]
        self._handed_over = self._before if kept else 0
        known = self._generation.known
        return dataclasses.replace(
            _rest(self._generation, kept, self._before),
            known=_rest(known, kept, self._before) if isinstance(known, Generation) else known,
        )

    def feed(self, chunk: Chunk) -> Chunk:
        """Note what ``chunk`` says. Returns what goes out of it."""
        if self._followed:
            for choice in chunk["choices"]:
                chunk = self._noted(chunk, choice)
        if self.parts > 1 and "usage_so_far" in chunk:
            chunk = {**chunk, "usage_so_far": self._whole_usage(chunk["usage_so_far"])}
        usage = chunk.get("usage")
        if usage and chunk["choices"]:
            self._count(usage["completion_tokens"])
            return {name: value for name, value in chunk.items() if name != "usage"}
        if usage and self.parts > 1:
            return {**chunk, "usage": self._whole_usage(usage)}
        return chunk

    def add(self, text: str) -> None:
        """Note a piece of text with which the answer goes on, away from a seam. It goes out as it is."""
        if self._followed:
            self._add(text)

    def _noted(self, chunk: Chunk, choice: dict[str, Any]) -> Chunk:
        delta = choice["delta"]
        text = delta.get("content")
        if text:
            if self.seam:
                text = self._past_the_seam(text)
                chunk = {**chunk, "choices": [{**choice, "delta": {**delta, "content": text}}]}
            if text:
                self._add(text)
        if len(delta) > (1 if text else 0) and any(v for name, v in delta.items() if name not in ("content", "role")):
            self._forget()
        if choice["finish_reason"] is not None:
            self._is_finished = True
        return chunk

    def _add(self, text: str) -> None:
        self._present += 1
        self._length += self._text.write(text)
        if self._is_limited and not self._is_uncounted:
            self._is_uncounted = len(text) > _LONGEST_TOKEN or len(text.split(None, 1)) > 1
        if self._length > _MOST_CHARACTERS:
            self._forget()

    def _count(self, tokens: int) -> None:
        """The provider counted. (Each piece is a token at least, so a smaller number is no count.)"""
        if tokens >= self._present:
            self._present, self._is_uncounted = tokens, False

    def _forget(self) -> None:
        self._followed = False
        self._text = io.StringIO()

    def _past_the_seam(self, text: str) -> str:
        """``text`` without the white space that the client has already."""
        same = 0
        while same < min(len(text), len(self.seam)) and text[same] == self.seam[same]:
            same += 1
        self.seam = self.seam[same:] if same == len(text) else ""
        return text[same:]

    def _is_exhausted(self) -> bool:
        """Whether no more tokens may come, as far as is known."""
        limits = [self._generation.body.get(name) for name in _LIMITS]
        return self._is_uncounted or any(limit is not None and limit <= self.tokens for limit in limits)

    def _is_within_a_stop(self) -> bool:
        """Whether the text, with or without the white space at its end, ends as a stop string begins."""
        stops = _stops(self._generation.body)
        if not stops:
            return False
        text = self._text.getvalue()
        ends = [end[-_LONGEST_STOP:] for end in (text, text.rstrip())]
        return any(end.endswith(stop[:size]) for end in ends for stop in stops for size in range(1, len(stop)))

    def _whole_usage(self, usage: dict[str, Any]) -> dict[str, Any]:
        prompt = max(0, usage["prompt_tokens"] - self._handed_over)
        completion = self._before + usage["completion_tokens"]
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _rest(generation: Generation, kept: str, tokens: int) -> Generation:
    """What is left of ``generation`` after ``tokens`` tokens, of which ``kept`` is the text."""
    body = dict(generation.body)
    for name in _LIMITS:
        if body.get(name) is not None:
            body[name] -= tokens
    if generation.prompts is not None:
        prompts = tuple(prompt + kept for prompt in generation.prompts if isinstance(prompt, str))
        return dataclasses.replace(generation, body=body, prompts=prompts)
    if kept:
        body["messages"] = [*body["messages"], {"role": "assistant", "content": kept}]
    return dataclasses.replace(generation, body=body, partial=bool(kept))


def _is_eligible(generation: Generation) -> bool:
    body = generation.body
    return (
        generation.choices == 1
        and (_is_plain_prompt(generation) if generation.prompts is not None else not _begins_already(body))
        and _is_text_alone(body)
        and len(_stops(body)) <= _MOST_STOPS
        and all(isinstance(stop, str) and len(stop) <= _LONGEST_STOP for stop in _stops(body))
    )


def _is_plain_prompt(generation: Generation) -> bool:
    """Whether a raw prompt goes on with whatever is added to it, and for a number of tokens that is known."""
    body, prompts = generation.body, generation.prompts or ()
    return (
        all(isinstance(prompt, str) for prompt in prompts)
        and not any(body.get(name) for name in _BEYOND_THE_TEXT)
        and any(body.get(name) is not None for name in _LIMITS)
    )


def _is_text_alone(body: dict[str, Any]) -> bool:
    """Whether text without constraints is asked for, and nothing beside it."""
    form = body.get("response_format") or {"type": "text"}
    logprobs = body.get("logprobs")
    return (
        (logprobs is None or logprobs is False)  # (0 asks for those of the tokens themselves)
        and _CONSTRAINTS.isdisjoint(body)
        and isinstance(form, dict)
        and form.get("type") == "text"
        and not isinstance(body.get("tool_choice"), dict)
        and body.get("tool_choice") not in _CALLED
    )


def _stops(body: dict[str, Any]) -> list[Any]:
    """The strings at which the answer is to end."""
    stop = body.get("stop")
    return stop if isinstance(stop, list) else [stop] if stop is not None else []


def _begins_already(body: dict[str, Any]) -> bool:
    """Whether the caller's own messages end with the assistant's."""
    messages = body.get("messages")
    return not isinstance(messages, list) or not messages or messages[-1].get("role") == "assistant"
