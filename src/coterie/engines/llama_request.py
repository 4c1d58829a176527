"""Requests and answers between the lingua franca and llama.cpp's server. Pure.

What llama.cpp does otherwise than OpenAI's specification, and what is done about it here:

* penalties look at the last 64 tokens: the window is set to all of them;
* a seed has 32 bits, and the greatest means "random": seeds are folded into the rest;
* ``top_logprobs`` of 0 switches log-probabilities off: one is asked for and taken out again;
* ``max_completion_tokens`` is unknown: it becomes ``max_tokens``;
* ``developer`` messages are unknown to most templates: they become ``system`` messages; refusals become text;
* the computed beginning of an earlier prompt is used again, at the price of exact reproducibility: not where the caller
  asks for that;
* a client that leaves is noticed only when something is written to it, so every request streams and asks for progress
  during the prompt: the generation is cancelled between two steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from coterie.engines.spec import PromptCache
from coterie.wire.lingua import Chunk, Prompt

_PASSED: Final = (
    "temperature", "top_p", "top_k", "min_p", "stop", "frequency_penalty", "presence_penalty", "logit_bias",
    "response_format", "tools", "tool_choice", "parallel_tool_calls",
)  # fmt: skip
"""Parameters that mean the same to llama.cpp."""

_ALWAYS: Final[dict[str, Any]] = {
    "stream": True,
    "stream_options": {"include_usage": True},
    "return_progress": True,
}

_PENALTY_WINDOW: Final = 65_536
"""Tokens; more than the context of one slot ever is here."""

_RANDOM_SEED: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Job:
    """One choice to generate: a path of llama.cpp's server and the body for it."""

    path: str
    body: dict[str, Any]
    index: int
    """The choice's index in the whole answer."""
    top_logprobs: int
    """Alternatives that the caller asked for."""


def chat_job(body: dict[str, Any], index: int, prompt_cache: PromptCache = "auto") -> Job:
    """The job for choice ``index`` of a chat request."""
    native = {**_common(body, index, prompt_cache), "messages": [_message(message) for message in body["messages"]]}
    if body.get("logprobs"):
        native["logprobs"] = True
        native["top_logprobs"] = max(1, body.get("top_logprobs") or 0)
    return Job("/v1/chat/completions", native, index, body.get("top_logprobs") or 0)


def text_job(body: dict[str, Any], prompt: Prompt, index: int, prompt_cache: PromptCache = "auto") -> Job:
    """The job for choice ``index`` that continues ``prompt`` as it is."""
    native = {**_common(body, index, prompt_cache), "prompt": prompt}
    if body.get("logprobs"):
        native["logprobs"] = max(1, body.get("top_logprobs") or 0)
    return Job("/v1/completions", native, index, body.get("top_logprobs") or 0)


def to_chunks(job: Job, event: dict[str, Any]) -> list[Chunk]:
    """The chunks of the lingua franca for what llama.cpp sent; none where it says nothing new.

    Its chat stream has the usage in an event of its own, its text stream beside the last choice.
    """
    chunks: list[Chunk] = []
    for choice in event.get("choices") or ():
        delta, finish = _delta(choice), choice.get("finish_reason")
        if delta or finish is not None:
            logprobs = _logprobs(choice.get("logprobs"), job.top_logprobs)
            said = {"index": job.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
            chunks.append({"choices": [said]})
    if event.get("usage"):
        chunks.append({"choices": [], "usage": _usage(event["usage"])})
    return chunks


def _common(body: dict[str, Any], index: int, prompt_cache: PromptCache) -> dict[str, Any]:
    native = {name: body[name] for name in _PASSED if body.get(name) is not None}
    native.update(_ALWAYS)
    native["cache_prompt"] = prompt_cache == "always" or (prompt_cache == "auto" and not _reproducible(body))
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is not None:
        native["max_tokens"] = limit
    if body.get("frequency_penalty") or body.get("presence_penalty"):
        native["repeat_last_n"] = _PENALTY_WINDOW
    if body.get("seed") is not None:
        native["seed"] = (body["seed"] + index) % _RANDOM_SEED
    return native


def _reproducible(body: dict[str, Any]) -> bool:
    """Whether the caller asks for the same answer to the same request: by a seed, or by sampling nothing.

    A cached beginning was computed in steps of other sizes, and its numbers differ in the last places: now and
    then that turns a near tie between two tokens.
    """
    return body.get("seed") is not None or body.get("temperature") == 0


_MESSAGE_FIELDS: Final = ("role", "content", "tool_calls", "tool_call_id", "reasoning_content")
"""What llama.cpp reads of a message; a null where it expects text makes it fail."""


def _message(message: dict[str, Any]) -> dict[str, Any]:
    native = {name: message[name] for name in _MESSAGE_FIELDS if message.get(name) is not None}
    if native["role"] == "developer":
        native["role"] = "system"
    if "content" not in native and message.get("refusal") is not None:
        native["content"] = message["refusal"]
    if isinstance(native.get("content"), list):
        native["content"] = [_part(part) for part in native["content"]]
    return native


def _part(part: dict[str, Any]) -> dict[str, Any]:
    """A refusal that the assistant gave earlier is text to the model."""
    return {"type": "text", "text": part["refusal"]} if part["type"] == "refusal" else part


def _delta(choice: dict[str, Any]) -> dict[str, Any]:
    """What the choice adds: without the role, which is the dialect's to send, and without nulls."""
    if "text" in choice:
        return {"content": choice["text"]} if choice["text"] else {}
    return {name: value for name, value in choice.get("delta", {}).items() if name != "role" and value is not None}


def _logprobs(logprobs: dict[str, Any] | None, top: int) -> dict[str, Any] | None:
    if not logprobs:
        return None
    return {"content": [_token(entry, top) for entry in logprobs.get("content") or []], "refusal": None}


def _token(entry: dict[str, Any], top: int) -> dict[str, Any]:
    return {**_plain(entry), "top_logprobs": [_plain(other) for other in entry.get("top_logprobs", [])[:top]]}


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("token", "logprob", "bytes")}


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
        "prompt_tokens_details": {"cached_tokens": cached},
    }
