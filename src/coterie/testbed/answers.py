"""The answer that an upstream gives where nothing is wrong: OpenAI's chat completions and completions. Pure.

* The text is fixed: token ``i`` is :func:`token_text`, so two upstreams with the same settings say the same.
* A whole answer has as many tokens as the fault's name says (``tokens``), else as the request allows, else the default;
  what the request allows counts new tokens only.
* Where the last message is the assistant's and its text is the beginning of the answer, the answer goes on with exactly
  what comes next, as it does where a prompt of completions ends so.
* ``prompt_tokens`` are the words, by white space, of all messages or of the prompt; a token is a word.

An event is written from a prefix and a suffix that are encoded once for each answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import orjson

from coterie.testbed.faults import DEFAULT_TOKENS, MAX_TOKENS

Dialect: TypeAlias = Literal["chat", "completions"]

DONE_EVENT: Final = b"data: [DONE]\n\n"
MAX_CHOICES: Final = 16

_GAP: Final = "@gap@"
"""Stands for the text of a token where prefix and suffix are made."""


class AskError(ValueError):
    """A request that cannot be answered; ``param`` names the place."""

    def __init__(self, message: str, param: str | None) -> None:
        self.param = param
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for."""

    dialect: Dialect
    model: str
    stream: bool
    include_usage: bool
    choices: int
    limit: int | None
    """New tokens at most."""
    prompt_tokens: int
    prefill: str | None
    """The text to continue: the last message, where it is the assistant's, or the whole prompt."""
    flagged: bool
    """Whether a field says that the last message is to be continued."""
    tool: str
    """The name of the request's first tool."""

    @property
    def ends_with_assistant(self) -> bool:
        """Whether the last message is the assistant's."""
        return self.dialect == "chat" and self.prefill is not None


def token_text(index: int, seed: int = 0) -> str:
    """The words of the answer."""
    return f" w{index}" if seed == 0 else f" w{seed}.{index}"


def answer_text(count: int, seed: int = 0, first: int = 0) -> str:
    """``count`` tokens of the answer, from token ``first`` on."""
    return "".join(token_text(index, seed) for index in range(first, first + count))


def read_ask(dialect: Dialect, body: Mapping[str, Any]) -> Ask:
    """Read a request. Raises :class:`AskError`."""
    options = body.get("stream_options")
    words, prefill, flagged = _chat_input(body) if dialect == "chat" else _prompt_input(body)
    return Ask(
        dialect=dialect,
        model=str(body.get("model")),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        choices=_whole_number(body, "n", MAX_CHOICES) or 1,
        limit=_limit(body),
        prompt_tokens=words,
        prefill=prefill,
        flagged=flagged,
        tool=_first_tool(body.get("tools")),
    )


def _limit(body: Mapping[str, Any]) -> int | None:
    newer = _whole_number(body, "max_completion_tokens", None)
    return newer if newer is not None else _whole_number(body, "max_tokens", None)


def _whole_number(body: Mapping[str, Any], name: str, most: int | None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or value < 1 or (most is not None and value > most):
        raise AskError(f"Invalid '{name}': a whole number of at least 1 is expected.", name)
    return min(value, MAX_TOKENS)


def _chat_input(body: Mapping[str, Any]) -> tuple[int, str | None, bool]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise AskError("Missing required parameter: 'messages'.", "messages")
    texts = [_text(message.get("content")) for message in messages]
    last = messages[-1]
    flagged = body.get("continue_final_message") is True or last.get("prefix") is True
    return sum(len(text.split()) for text in texts), texts[-1] if last.get("role") == "assistant" else None, flagged


def _prompt_input(body: Mapping[str, Any]) -> tuple[int, str | None, bool]:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise AskError("'prompt' must be one string.", "prompt")
    return len(prompt.split()), prompt, False


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return ""


def _first_tool(tools: Any) -> str:
    tool = tools[0] if isinstance(tools, list) and tools else None
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else "get_weather"


def position(text: str, seed: int = 0) -> tuple[int, int] | None:
    """Where the answer goes on after ``text``: a token, and how many of its characters were said already.

    ``None`` where ``text`` is not how the answer begins.
    """
    said = 0
    for index in range(MAX_TOKENS):
        token = token_text(index, seed)
        if not text.startswith(token, said):
            rest = text[said:]
            return (index, len(rest)) if token.startswith(rest) else None
        said += len(token)
    return None


def prompt_position(prompt: str, seed: int = 0) -> tuple[int, int] | None:
    """The same for a prompt that may end with the beginning of the answer; ``None`` where it does not."""
    start = prompt.find(token_text(0, seed))
    found = position(prompt[start:], seed) if start >= 0 else None
    return found if found != (0, 0) else None


class Answer:
    """The events, or the body, of the good answer to one request."""

    def __init__(self, ask: Ask, *, tokens: int, seed: int, identity: str, created: int) -> None:
        """``tokens`` of the whole answer; 0 for what the request allows."""
        found = None
        if ask.prefill is not None:
            found = (position if ask.dialect == "chat" else prompt_position)(ask.prefill, seed)
        self.ask = ask
        self.continued_from = found[0] if found else None
        """The token with which the answer goes on, where it continues another."""
        self._first, self._said_chars = found or (0, 0)
        self._seed = seed
        left = max(0, (tokens or ask.limit or DEFAULT_TOKENS) - (self._first if tokens or not ask.limit else 0))
        self.count = left if ask.limit is None else min(left, ask.limit)
        """New tokens."""
        self.finish = "length" if ask.limit is not None and (not tokens or ask.limit < left) else "stop"
        """The finish reason."""
        self._chat = ask.dialect == "chat"
        self._facts = {
            "id": f"{'chatcmpl' if self._chat else 'cmpl'}-{identity}",
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": created,
            "model": ask.model,
            "system_fingerprint": "fp_testbed",
        }
        self._frames: list[tuple[bytes, bytes]] = []

    def text(self, count: int) -> str:
        """The first ``count`` tokens of this answer."""
        return answer_text(count, self._seed, self._first)[self._said_chars :]

    # A stream

    def opening(self) -> list[bytes]:
        """The events before the first token."""
        if not self._chat:
            return []
        return [self.event(choice, {"role": "assistant", "content": "", "refusal": None}) for choice in self._choices()]

    def token(self, index: int) -> list[bytes]:
        """The events of token ``index`` of this answer: one for each choice."""
        text = token_text(self._first + index, self._seed)
        data = (text if index else text[self._said_chars :]).encode()
        return [prefix + data + suffix for prefix, suffix in self._framed()]

    def said(self, text: str, choice: int = 0) -> bytes:
        """An event with ``text``."""
        return self.event(choice, {"content": text}) if self._chat else self._completion_event(choice, text, None)

    def closing(self, finish: str | None = None) -> list[bytes]:
        """The events with the finish reason."""
        reason = finish or self.finish
        if not self._chat:
            return [self._completion_event(choice, "", reason) for choice in self._choices()]
        return [self.event(choice, {}, reason) for choice in self._choices()]

    def usage_event(self, count: int) -> list[bytes]:
        """The event with the usage, where the request asks for it."""
        if not self.ask.include_usage:
            return []
        return [sse({**self._facts, "choices": [], "usage": self.usage(count)})]

    def event(self, choice: int, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        """One event of chat with one choice."""
        return self._choice_event({"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish})

    def _completion_event(self, choice: int, text: str, finish: str | None) -> bytes:
        return self._choice_event({"index": choice, "text": text, "logprobs": None, "finish_reason": finish})

    def _choice_event(self, choice: Mapping[str, Any]) -> bytes:
        usage = {"usage": None} if self.ask.include_usage else {}
        return sse({**self._facts, "choices": [choice], **usage})

    def _framed(self) -> list[tuple[bytes, bytes]]:
        if not self._frames:
            for choice in self._choices():
                prefix, _, suffix = self.said(_GAP, choice).rpartition(_GAP.encode())
                self._frames.append((prefix, suffix))
        return self._frames

    def _choices(self) -> Iterator[int]:
        return iter(range(self.ask.choices))

    # One body

    def usage(self, count: int) -> dict[str, int]:
        """The usage after ``count`` tokens of each choice."""
        completion = count * self.ask.choices
        prompt = self.ask.prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def body(self, count: int, finish: str | None, *, usage: bool = True) -> dict[str, Any]:
        """The plain answer with ``count`` tokens."""
        text = self.text(count)
        choices = [self._whole_choice(choice, text, finish) for choice in self._choices()]
        return {**self.facts(), "choices": choices, **({"usage": self.usage(count)} if usage else {})}

    def facts(self) -> dict[str, Any]:
        """What stands beside the choices of a plain answer."""
        return {**self._facts, "object": "chat.completion" if self._chat else "text_completion"}

    def _whole_choice(self, index: int, text: str, finish: str | None) -> dict[str, Any]:
        said: dict[str, Any] = (
            {"message": {"role": "assistant", "content": text, "refusal": None}} if self._chat else {"text": text}
        )
        return {"index": index, **said, "logprobs": None, "finish_reason": finish}


def sse(value: object) -> bytes:
    """One event with ``value`` as JSON."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def embeddings_body(model: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Vectors of eight numbers that depend on the text alone. Raises :class:`AskError`."""
    given = body.get("input")
    inputs = [given] if isinstance(given, str) else given
    if not isinstance(inputs, list) or not inputs or not all(isinstance(text, str) for text in inputs):
        raise AskError("'input' must be a string or a list of strings.", "input")
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(text)} for index, text in enumerate(inputs)
    ]  # fmt: skip
    tokens = sum(len(text.split()) for text in inputs)
    return {
        "object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }  # fmt: skip


def _vector(text: str) -> list[float]:
    sums = [1] * 8
    for place, byte in enumerate(text.encode("utf-8", "replace")):
        sums[place % 8] += byte
    length = sum(value * value for value in sums) ** 0.5
    return [value / length for value in sums]
