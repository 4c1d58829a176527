"""What another server streams, into chunks of the lingua franca. Pure.

What it promises, whatever comes in:

* What comes out keeps the rules of :mod:`coterie.wire.lingua`, or it raises ``ApiError``: an error object in a stream
  is classified (:mod:`coterie.errors.upstream`); what cannot be read is ``upstream_protocol_error``; an end without
  every finish reason is ``upstream_stream_interrupted``, and one without anything ``upstream_empty_response``.
  ``[DONE]`` alone may be missing. An answer that is complete but has fewer choices than were asked for comes from a
  server that ignores ``n``, or takes one prompt alone: the same failure, but one that asking it again cannot mend.
* Habits of real servers that change nothing in the answer are put right: other names of finish reasons, a finish reason
  said twice, tool calls without index or id, or numbered otherwise, arguments as an object, content in parts, usage in
  every chunk or under a name of its own, a whole message where deltas were asked for, log-probabilities in the older
  form or with fields left out. Usage that does not add up is put right by its total.
* Fields that are not known pass through, those of a choice after its finish reason too. The server's own name of the
  model does not: the dialect writes the client's.
* What comes out can be written as JSON again: what is nested too deep for that is refused.

It stands on the path of every relayed token, so an event that has nothing but text or a finish reason takes a short way
here, and one that differs from the last in its text alone does not come here at all: see
:mod:`coterie.providers.short_text`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from coterie.errors import ApiError, Retry
from coterie.errors.upstream import from_payload
from coterie.wire.choices import FINISH_REASONS, Choices
from coterie.wire.lingua import Chunk, Generation
from coterie.wire.sse import DONE

_CHUNK_FIELDS: Final = frozenset({"id", "object", "created", "model", "choices", "usage", "error", "x_groq"})
_BARE_FIELDS: Final = _CHUNK_FIELDS - {"error", "x_groq"}
_LINGUA_FIELDS: Final = frozenset({"index", "delta", "finish_reason", "logprobs"})
_CHOICE_FIELDS: Final = _LINGUA_FIELDS | {"message", "text", "error"}

_ROOM: Final = 16
"""Levels in which the dialects wrap what passes through."""
_SHALLOW: Final = 254 - _ROOM
"""Levels that orjson can write in that room. It reads 1024."""
_MOST_TOKENS: Final = 2**53
_LONGEST_DONE: Final = 32

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
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "safety": "content_filter",
    "recitation": "content_filter",
    "refusal": "content_filter",
    "sensitive": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
    "error_toxic": "content_filter",
}
"""Other servers' names, in lower case: Hugging Face's, Anthropic's, Cohere's, Gemini's, Mistral's, Zhipu's."""

_BROKEN: Final = frozenset(
    {"abort", "aborted", "cancelled", "canceled", "error", "error_limit", "network_error", "timeout"}
    | {"insufficient_system_resource"}
)
"""Finish reasons of an answer that its server gave up."""


@dataclass(slots=True)
class _Calls:
    """The tool calls of a choice: their ids, and where each is by the number that the server gives it."""

    ids: list[Any] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)

    def begins(self, number: int | None, identity: Any, name: Any) -> bool:
        """Whether a fragment is the first of another call."""
        if not self.ids:
            return True
        if number is None:
            return bool(identity or name) and identity != self.ids[-1]
        place = self.places.get(number)
        # Some number all calls 0; some give every fragment an id of its own, but not a name.
        return place is None or bool(identity and name and identity != self.ids[place])

    def begin(self, number: int | None, identity: Any) -> int:
        """Note another call. Returns its place."""
        place = len(self.ids)
        self.ids.append(identity)
        if number is not None:
            self.places[number] = place
        return place


class ForeignStream:
    """Reads the answer to ``generation``, event by event.

    ``continuous_usage``: usage beside choices says how many tokens came up to there, and stays beside them, for
    :mod:`coterie.dispatch.answer_so_far` alone.

    Whatever usage comes before the answer is whole stands in its chunk as ``usage_so_far``, for whoever tells what an
    answer took that broke off: :mod:`coterie.dialects.responses_stream`. It may be the only thing that a chunk has.
    """

    def __init__(self, generation: Generation, *, continuous_usage: bool = False) -> None:
        self._prompt_param = generation.prompt_param
        self._choices = Choices(generation.choices)
        self._count = generation.choices
        self._continuous_usage = continuous_usage
        self._seen: set[int] = set()
        self._finished: dict[int, str] = {}
        self._calls: dict[int, _Calls] = {}
        self._usage: dict[str, Any] | None = None
        self._said = False
        self.goes_on = False
        """Whether the newest event has nothing but text of the only choice, which may go on, and what passes."""
        self.done = False
        """Whether ``[DONE]`` came, or a whole answer at once."""

    def feed_whole(self, data: bytes) -> Chunk | None:
        """The chunk of an answer that is no stream but one JSON document. Raises ``ApiError``."""
        chunk = self.feed(data)
        self.done = True
        return chunk

    def feed(self, data: bytes) -> Chunk | None:
        """The chunk of one event's data, if it says anything. Raises ``ApiError``."""
        self.goes_on = False
        if len(data) < _LONGEST_DONE and data.strip() == DONE:
            self.done = True
            return None
        try:
            payload = orjson.loads(data)
        except orjson.JSONDecodeError:
            if not data.strip():
                return None
            raise ApiError("upstream_protocol_error", detail=f"an event that is no JSON: {data[:200]!r}") from None
        if len(data) > 2 * _SHALLOW and data.count(b"[") + data.count(b"{") > _SHALLOW:
            _check_depth(payload)
        return self._take(payload)

    @property
    def finished(self) -> bool:
        """Whether every choice has its finish reason."""
        return self._choices.finished

    def end(self) -> Chunk:
        """The last chunk, with the usage. Raises ``ApiError`` where the answer is not whole."""
        if not self._said:
            raise ApiError("upstream_empty_response")
        if self.done and self._seen == self._finished.keys() and len(self._seen) < self._count:
            few = f"The provider of this model gives {len(self._seen)} of {self._count} choices that were asked for."
            raise ApiError("upstream_stream_interrupted", said=few, retry=Retry.NEVER, detail="it ignores 'n'")
        if not self._choices.finished:
            raise ApiError("upstream_stream_interrupted", detail="the stream ended without a finish reason")
        return {"choices": [], "usage": self._usage}

    def _take(self, payload: Any) -> Chunk | None:
        said = self._plain(payload)
        if said is None:
            payload = self._checked(payload)
            usage = self._noted_usage(payload)
            said = self._said_in(payload.get("choices"))
            if usage and (said or not self._choices.finished):
                beside = {"usage": usage} if said and self._continuous_usage else {}
                return {**self._chunk(said, payload), **beside, "usage_so_far": usage}
        return self._chunk(said, payload) if said or not _CHUNK_FIELDS.issuperset(payload) else None

    def _chunk(self, said: list[dict[str, Any]], payload: dict[str, Any]) -> Chunk:
        if _CHUNK_FIELDS.issuperset(payload):
            return {"choices": said}
        return {"choices": said, "extra": {name: payload[name] for name in payload if name not in _CHUNK_FIELDS}}

    def _plain(self, payload: Any) -> list[dict[str, Any]] | None:
        """What an event says that has nothing but one choice's text and finish reason; ``None`` for any other event."""
        if type(payload) is not dict or payload.get("usage") or payload.get("error") or "x_groq" in payload:
            return None
        entries = payload.get("choices")
        if type(entries) is not list or len(entries) != 1:
            return None
        entry = entries[0]
        if type(entry) is not dict or not _LINGUA_FIELDS.issuperset(entry):
            return None
        said = self._choices.plainly(entry)
        if said is not None:
            self._note(entry["index"], said)
        return said

    def _note(self, index: int, said: list[dict[str, Any]]) -> None:
        """Remember what an event said in the plain way."""
        self._seen.add(index)
        if said:
            (choice,) = said
            self._said = True
            if choice["finish_reason"] is not None:
                self._finished[index] = choice["finish_reason"]
            else:
                self.goes_on = self._count == 1

    def _checked(self, payload: Any) -> dict[str, Any]:
        """An event that is no failure."""
        if isinstance(payload, dict) and _is_usage(payload):
            return payload
        if isinstance(payload, list) and len(payload) == 1:
            payload = payload[0]
        failure = from_payload(payload, prompt_param=self._prompt_param)
        if failure is not None:
            raise failure
        if not isinstance(payload, dict):
            raise ApiError("upstream_protocol_error", detail=f"an event that is no object: {payload!r:.200}")
        groq = payload.get("x_groq")
        if isinstance(groq, dict) and groq.get("error"):
            failure = from_payload({"error": groq["error"]}, prompt_param=self._prompt_param)
            raise failure or ApiError("upstream_error", detail="'x_groq' has an error")
        return payload

    def _said_in(self, entries: Any) -> list[dict[str, Any]]:
        if not entries:
            return []
        late: list[dict[str, Any]] = []
        said = self._choices.admit({"choices": [*self._entries(entries, late)]})
        self._said = self._said or bool(said)
        return [*said, *late]

    def _entries(self, entries: Any, late: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if not isinstance(entries, list):
            raise ApiError("upstream_protocol_error", detail="'choices' is no list")
        for entry in entries:
            if not isinstance(entry, dict):
                raise ApiError("upstream_protocol_error", detail="a choice that is no object")
            fixed = self._entry(entry)
            if not self._is_after_the_end(fixed):
                yield fixed
            elif extra := {name: value for name, value in fixed.get("extra", {}).items() if value is not None}:
                late.append({"index": fixed["index"], "delta": {}, "finish_reason": None, "extra": extra})

    def _is_after_the_end(self, entry: dict[str, Any]) -> bool:
        """Whether a choice that is finished says nothing more, or its finish reason again."""
        index, finish = entry["index"], entry["finish_reason"]
        if type(index) is not int:
            return False
        self._seen.add(index)
        before = self._finished.get(index)
        if finish is not None:
            self._finished[index] = finish
        elif entry["logprobs"]:
            return False
        is_silent = not any(value for name, value in entry["delta"].items() if name != "role")
        return before is not None and is_silent and finish in (None, before)

    def _entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        index = entry.get("index")
        if index is None and self._count == 1:
            index = 0
        finish = _finish_reason(entry.get("finish_reason"))
        delta = self._delta(index, entry)
        fixed = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": entry.get("logprobs")}
        if fixed["logprobs"]:
            fixed["logprobs"] = _logprobs(fixed["logprobs"])
        if not _CHOICE_FIELDS.issuperset(entry):
            fixed["extra"] = {name: entry[name] for name in entry if name not in _CHOICE_FIELDS}
        return fixed

    def _delta(self, index: Any, entry: dict[str, Any]) -> dict[str, Any]:
        delta = entry.get("delta")
        if delta is None:
            delta = entry.get("message")
        if delta is None:
            return {"content": entry["text"]} if entry.get("text") else {}
        if not isinstance(delta, dict):
            raise ApiError("upstream_protocol_error", detail="a delta that is no object")
        if isinstance(delta.get("content"), list):
            delta = {**delta, **_joined(delta["content"])}
        if delta.get("tool_calls"):
            return {**delta, "tool_calls": self._fragments(index, delta["tool_calls"])}
        return delta

    def _fragments(self, index: Any, fragments: Any) -> list[Any]:
        if not isinstance(fragments, list):
            raise ApiError("upstream_protocol_error", detail="'tool_calls' is no list")
        if type(index) is not int:
            return fragments  # nobody's
        calls = self._calls.setdefault(index, _Calls())
        return [_fragment(calls, part) if isinstance(part, dict) else part for part in fragments]

    def _noted_usage(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        """The usage of an event, which replaces an earlier one."""
        usage = payload.get("usage")
        if usage is None and "x_groq" in payload and isinstance(payload["x_groq"], dict):
            usage = payload["x_groq"].get("usage")
        if not usage:
            return None
        self._usage = _usage(usage)
        return self._usage


def _is_usage(payload: dict[str, Any]) -> bool:
    """Whether an event has usage, as most servers send it, and can have no failure."""
    is_bare = payload.get("choices") == [] and _BARE_FIELDS.issuperset(payload)
    return is_bare and payload.get("object") != "error"


def _check_depth(payload: Any) -> None:
    """Raise ``ApiError`` for what is nested deeper than can be written."""
    for _ in range(_ROOM):
        payload = [payload]
    try:
        orjson.dumps(payload)
    except TypeError:
        raise ApiError("upstream_protocol_error", detail="JSON that is nested too deep") from None


def _finish_reason(reason: Any) -> str | None:
    if reason is None:
        return None
    name = reason.partition(":")[0].lower() if isinstance(reason, str) else "?"  # Gemini: "content_filter: ..."
    if name in _FINISHES:
        return _FINISHES[name]
    code = "upstream_stream_interrupted" if name in _BROKEN else "upstream_protocol_error"
    raise ApiError(code, detail=f"finish reason {reason!r:.100}")


def _fragment(calls: _Calls, fragment: dict[str, Any]) -> dict[str, Any]:
    """A fragment of a tool call with the number and the id that it should have had."""
    number, identity, function = fragment.get("index"), fragment.get("id"), fragment.get("function")
    if function is not None and not isinstance(function, dict):
        return fragment
    function = dict(function or {})
    if number is not None and type(number) is not int:
        return fragment
    if calls.begins(number, identity, function.get("name")):
        identity = identity or f"call_{uuid.uuid4().hex[:24]}"
        place = calls.begin(number, identity)
    else:
        place, identity = len(calls.ids) - 1 if number is None else calls.places[number], None
    if isinstance(function.get("arguments"), dict):
        function["arguments"] = orjson.dumps(function["arguments"]).decode()
    return {**fragment, "index": place, "id": identity, "type": fragment.get("type") or None, "function": function}


def _joined(parts: list[Any]) -> dict[str, Any]:
    """Mistral's content in parts as text, with its thoughts apart; as it is where there are other parts."""
    texts: dict[str, list[str]] = {"content": [], "reasoning_content": []}
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts["content"].append(part["text"])
        elif kind == "thinking" and isinstance(part.get("thinking"), list):
            thought = _joined(part["thinking"])
            if not isinstance(thought["content"], str) or "reasoning_content" in thought:
                return {"content": parts}
            texts["reasoning_content"].append(thought["content"])
        else:
            return {"content": parts}
    said = {name: "".join(words) for name, words in texts.items()}
    return {
        "content": said["content"],
        **({"reasoning_content": said["reasoning_content"]} if said["reasoning_content"] else {}),
    }


def _usage(usage: Any) -> dict[str, Any] | None:
    """A usage that adds up; ``None`` for one that cannot be read."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    total = _count(usage.get("total_tokens"))
    if completion is None and "completion_tokens" not in usage and prompt is not None and total is not None:
        completion = max(0, total - prompt)  # Gemini leaves out a count of 0
    if prompt is None or completion is None:
        return None
    if total is not None and total > prompt + completion:
        completion = total - prompt  # thoughts that were counted in the total alone
    return {
        **usage,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def _logprobs(logprobs: Any) -> Any:
    """Chat's log-probabilities, whatever form they have."""
    if not isinstance(logprobs, dict):
        return logprobs
    if "tokens" in logprobs and "content" not in logprobs:
        return {"content": _chat_entries(logprobs)}
    return {name: _entries(logprobs[name]) for name in ("content", "refusal") if name in logprobs}


def _entries(entries: Any) -> Any:
    if not isinstance(entries, list):
        return entries
    return [_entry(entry) if isinstance(entry, dict) else entry for entry in entries]


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    tops = entry.get("top_logprobs")
    return {"bytes": None, **entry, "top_logprobs": [] if tops is None else tops}


def _chat_entries(legacy: dict[str, Any]) -> Any:
    """Text completions' parallel lists as chat's entries."""
    lists = [legacy.get(name) or [] for name in ("tokens", "token_logprobs", "top_logprobs")]
    if not all(isinstance(each, list) for each in lists) or len(lists[0]) != len(lists[1]):
        raise ApiError("upstream_protocol_error", detail="the lists of 'logprobs' do not fit")
    tokens, logprobs, tops = lists
    entries = []
    for place, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
        top = tops[place] if place < len(tops) and isinstance(tops[place], dict) else {}
        others = [{"token": name, "logprob": value, "bytes": None} for name, value in top.items()]
        entries.append({"token": token, "logprob": logprob, "bytes": None, "top_logprobs": others})
    return entries
