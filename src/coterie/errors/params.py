"""Which parameter of the caller's request a provider means. Pure.

Providers spell one place in many ways (``body.prompt``, ``$.messages[0]``, ``messages.0.content``, ``/messages/0``,
``["body", "messages", 0, "ChatCompletionUserMessageParam", "content"]``); the caller knows ``messages[0].content``.
What cannot be a place in the caller's request is no parameter: it would send the caller looking for it in vain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from coterie.errors.cleaning import clean

_PROMPTS: Final = frozenset(
    {"messages", "input", "inputs", "prompt", "contents", "input_tokens", "input_text", "prompt_tokens"}
)
"""What providers call the prompt."""

_FIELDS: Final = frozenset(
    {
        "audio", "background", "best_of", "conversation", "dimensions", "echo", "encoding_format", "frequency_penalty",
        "function_call", "functions", "guided_json", "include", "instructions", "logit_bias", "logprobs",
        "max_completion_tokens", "max_output_tokens", "max_tokens", "max_tool_calls", "metadata", "min_p", "modalities",
        "model", "n", "parallel_tool_calls", "prediction", "presence_penalty", "previous_response_id",
        "prompt_cache_key", "reasoning", "reasoning_effort", "repetition_penalty", "response_format",
        "safety_identifier", "seed", "service_tier", "stop", "store", "stream", "stream_options", "suffix",
        "temperature", "text", "tool_choice", "tools", "top_k", "top_logprobs", "top_p", "truncation", "user",
        "verbosity", "web_search_options",
    }
)  # fmt: skip
"""The fields of a request that a caller can have sent."""

_INSIDE_PROMPT: Final = frozenset(
    {
        "role", "content", "name", "tool_calls", "tool_call_id", "function", "function_call", "arguments", "type",
        "text", "image_url", "url", "detail", "input_audio", "audio", "data", "format", "file", "file_id", "file_data",
        "filename", "id", "refusal", "output", "call_id", "summary", "encrypted_content", "status", "file_url",
    }
)  # fmt: skip
"""The names below the prompt; a provider of another dialect goes on with names of its own, which the caller lacks."""

_WRAPPERS: Final = frozenset({"body", "request", "params", "json", "$", "data", "payload"})
_BRANCHES: Final = frozenset(
    {"str", "int", "float", "bool", "list", "dict", "tuple", "union", "function-wrap", "constrained-str", "any", "none"}
)
"""What validators add to a path for the branch of a union that they tried."""

_STEP: Final = re.compile(r"[A-Za-z_$][\w$-]{0,63}|\d{1,6}")
_NAME: Final = re.compile(r"[a-z_][A-Za-z0-9_]{0,63}")
_PATH: Final = re.compile(r"[\w$.\[\]/'\"-]{1,200}")
_QUOTED: Final = re.compile(r"['`\"]([a-z_][\w.\[\]]{0,120})['`\"]")
_PREFIX: Final = re.compile(r"^([a-z_]+(?:\.(?:\d{1,6}|[a-z_][a-z0-9_]{0,63})|\[\d{1,6}\]){0,10}):")
_MAX_STEPS: Final = 12


def from_text(value: str | None, prompt_param: str) -> str | None:
    """The caller's path for a path that a provider wrote."""
    if value is None or _PATH.fullmatch(value.strip()) is None:
        return None
    return from_steps((int(step) if step.isdigit() else step for step in _STEP.findall(value)), prompt_param)


def from_steps(steps: Iterable[str | int], prompt_param: str) -> str | None:
    """The caller's path for the steps of a validator's ``loc``."""
    path = [step for step in steps if isinstance(step, int) or _is_name(step)][:_MAX_STEPS]
    while path and path[0] in _WRAPPERS:
        path.pop(0)
    if not path or not isinstance(path[0], str):
        return None
    if path[0] in _PROMPTS and path[0] != prompt_param:
        return prompt_param
    if path[0] not in _FIELDS and path[0] != prompt_param:
        return None
    if path[0] == prompt_param:
        foreign = (at for at, step in enumerate(path) if at and isinstance(step, str) and step not in _INSIDE_PROMPT)
        path = path[: next(foreign, None)]
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[1:]


def unknown_field(steps: Iterable[str | int]) -> str | None:
    """The name of a request's own field that a validator's ``loc`` means, whatever the name is."""
    path = [step for step in steps if step not in _WRAPPERS]
    if len(path) != 1 or not isinstance(path[0], str) or not _is_name(path[0]):
        return None
    return path[0] if clean(f"Unknown parameter: '{path[0]}'.").endswith(f"'{path[0]}'.") else None


def from_message(message: str, prompt_param: str) -> str | None:
    """The path that a sentence begins with ("messages.1: Expected ...") or puts in quotes."""
    start = _PREFIX.match(message[:400])
    found = from_text(start[1], prompt_param) if start else None
    if found is not None:
        return found
    for quoted in _QUOTED.findall(message[:400]):
        if (found := from_text(quoted, prompt_param)) is not None:
            return found
    return None


def _is_name(step: str) -> bool:
    return step == "$" or (_NAME.fullmatch(step) is not None and step not in _BRANCHES)
