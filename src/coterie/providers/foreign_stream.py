"""What another server streams, into chunks of the lingua franca. Pure.

What it promises, whatever comes in:

* What comes out keeps the rules of :mod:`coterie.wire.lingua`, or it raises ``ApiError``: an error object in a stream
  is classified (:mod:`coterie.errors.upstream`); what cannot be read is ``upstream_protocol_error``; an end without
  every finish reason is ``upstream_stream_interrupted``, and one without anything ``upstream_empty_response``.
  ``[DONE]`` alone may be missing.
* Habits of real servers that change nothing in the answer are put right: other names of finish reasons, a finish reason
  said twice, tool calls without index or id, arguments as an object, usage in every chunk or under a name of its own, a
  whole message where deltas were asked for. Usage that does not add up is put right by its total.
* Fields that are not known pass through. The server's own name of the model does not: the dialect writes the client's.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from coterie.errors import ApiError
from coterie.errors.upstream import from_payload
from coterie.wire.choices import FINISH_REASONS, Choices
from coterie.wire.lingua import Chunk, Generation
from coterie.wire.sse import DONE

_CHUNK_FIELDS: Final = frozenset({"id", "object", "created", "model", "choices", "usage", "error", "x_groq"})
_CHOICE_FIELDS: Final = frozenset({"index", "delta", "finish_reason", "logprobs", "message", "text"})

_FINISHES: Final[Mapping[str, str | None]] = {
    **{reason: reason for reason in FINISH_REASONS},
    "": None,
    "null": None,
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "stop_token": "stop",
    "complete": "stop",
    "completed": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_length": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "safety": "content_filter",
    "recitation": "content_filter",
    "refusal": "content_filter",
    "sensitive": "content_filter",
}
"""Other servers' names, in lower case: Hugging Face's, Anthropic's, Cohere's, Gemini's, Zhipu's."""


class ForeignStream:
    """Reads the answer to ``generation``, event by event."""

    def __init__(self, generation: Generation) -> None:
        self._prompt_param = generation.prompt_param
        self._choices = Choices(generation.choices)
        self._single = generation.choices == 1
        self._finished: dict[int, str] = {}
        self._calls: dict[int, int] = {}
        """How many tool calls each choice has."""
        self._usage: dict[str, Any] | None = None
        self._said = False
        self.done = False
        """Whether ``[DONE]`` came."""

    def feed(self, data: bytes) -> Chunk | None:
        """The chunk of one event's data, if it says anything. Raises ``ApiError``."""
        if data == DONE or data.strip() == DONE:
            self.done = True
            return None
        try:
            payload = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise ApiError("upstream_protocol_error", detail=f"an event that is no JSON: {data[:200]!r}") from None
        return self.take(payload)

    def take(self, payload: Any) -> Chunk | None:
        """The chunk of one parsed event, or of a whole answer. Raises ``ApiError``."""
        failure = from_payload(payload, prompt_param=self._prompt_param)
        if failure is not None:
            raise failure
        if not isinstance(payload, dict):
            raise ApiError("upstream_protocol_error", detail=f"an event that is no object: {payload!r:.200}")
        self._note_usage(payload)
        entries = payload.get("choices") or ()
        chunk: Chunk = {}
        if entries:
            chunk["choices"] = said = self._choices.admit({"choices": [*self._entries(entries)]})
            self._said = self._said or bool(said)
        extra = payload.keys() - _CHUNK_FIELDS
        if extra:
            chunk["extra"] = {name: payload[name] for name in extra}
        if not chunk.get("choices") and not extra:
            return None
        chunk.setdefault("choices", [])
        return chunk

    @property
    def finished(self) -> bool:
        """Whether every choice has its finish reason."""
        return self._choices.finished

    def end(self) -> Chunk:
        """The last chunk, with the usage. Raises ``ApiError`` where the answer is not whole."""
        if not self._said:
            raise ApiError("upstream_empty_response")
        if not self._choices.finished:
            raise ApiError("upstream_stream_interrupted", detail="the stream ended without a finish reason")
        return {"choices": [], "usage": self._usage}

    def _entries(self, entries: Any) -> Iterator[dict[str, Any]]:
        if not isinstance(entries, list):
            raise ApiError("upstream_protocol_error", detail="'choices' is no list")
        for entry in entries:
            if not isinstance(entry, dict):
                raise ApiError("upstream_protocol_error", detail="a choice that is no object")
            fixed = self._entry(entry)
            if fixed is not None:
                yield fixed

    def _entry(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        index = entry.get("index")
        if index is None and self._single:
            index = 0
        finish = _finish_reason(entry.get("finish_reason"))
        delta = self._delta(index, entry)
        if finish is not None and isinstance(index, int):
            if self._finished.get(index) == finish and not any(v for k, v in delta.items() if k != "role"):
                return None  # said twice
            self._finished[index] = finish
        fixed = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": entry.get("logprobs")}
        extra = entry.keys() - _CHOICE_FIELDS
        if extra:
            fixed["extra"] = {name: entry[name] for name in extra}
        if "text" in entry and fixed["logprobs"]:
            fixed["logprobs"] = _chat_logprobs(fixed["logprobs"])
        return fixed

    def _delta(self, index: Any, entry: dict[str, Any]) -> dict[str, Any]:
        delta = entry.get("delta")
        if delta is None:
            delta = entry.get("message")
        if delta is None:
            return {"content": entry["text"]} if entry.get("text") else {}
        if not isinstance(delta, dict):
            raise ApiError("upstream_protocol_error", detail="a delta that is no object")
        if delta.get("tool_calls"):
            return {**delta, "tool_calls": self._fragments(index, delta["tool_calls"])}
        return delta

    def _fragments(self, index: Any, fragments: Any) -> list[Any]:
        if not isinstance(fragments, list):
            raise ApiError("upstream_protocol_error", detail="'tool_calls' is no list")
        return [self._fragment(index, part) if isinstance(part, dict) else part for part in fragments]

    def _fragment(self, index: Any, fragment: dict[str, Any]) -> dict[str, Any]:
        calls = self._calls.get(index, 0)
        function = fragment.get("function")
        function = dict(function) if isinstance(function, dict) else {}
        place = fragment.get("index")
        if place is None:
            place = calls if function.get("name") or fragment.get("id") or not calls else calls - 1
        identity = fragment.get("id")
        if place == calls:
            self._calls[index] = calls + 1
            identity = identity or f"call_{uuid.uuid4().hex[:24]}"
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            function["arguments"] = orjson.dumps(arguments).decode()
        return {"index": place, "id": identity, "type": fragment.get("type"), "function": function}

    def _note_usage(self, payload: dict[str, Any]) -> None:
        usage = payload.get("usage")
        if usage is None and "x_groq" in payload and isinstance(payload["x_groq"], dict):
            usage = payload["x_groq"].get("usage")
        if usage:
            self._usage = _usage(usage)


def _finish_reason(reason: Any) -> str | None:
    if reason is None:
        return None
    if not isinstance(reason, str) or reason.lower() not in _FINISHES:
        raise ApiError("upstream_protocol_error", detail=f"finish reason {reason!r:.100}")
    return _FINISHES[reason.lower()]


def _usage(usage: Any) -> dict[str, Any] | None:
    """A usage that adds up; ``None`` for one that cannot be read."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    total = _count(usage.get("total_tokens")) or 0
    if total > prompt + completion:
        completion = total - prompt  # thoughts that were counted in the total alone
    return {
        **usage,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _chat_logprobs(legacy: Any) -> Any:
    """Text completions' parallel lists as chat's entries."""
    if not isinstance(legacy, dict) or not isinstance(legacy.get("tokens"), list):
        return None
    tokens, logprobs = legacy["tokens"], legacy.get("token_logprobs") or []
    tops = legacy.get("top_logprobs") or []
    entries = []
    for place, (token, logprob) in enumerate(zip(tokens, logprobs, strict=False)):
        top = tops[place] if place < len(tops) and isinstance(tops[place], dict) else {}
        others = [{"token": name, "logprob": value, "bytes": None} for name, value in top.items()]
        entries.append({"token": token, "logprob": logprob, "bytes": None, "top_logprobs": others})
    return {"content": entries}
