"""What is sent to another server for a request. Pure.

A generation is always asked for as a stream, whatever the client wants: a stream shows when a server stalls, so its
deadlines can be short, and it can be cut off at any token. ``include_usage`` is always asked for, since the usage of an
answer is part of it. Usage with every token is asked for where the provider is known to take the option, of an answer
that could be continued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from coterie.wire.lingua import Embedding, Generation

CHAT_PATH: Final = "/chat/completions"
COMPLETIONS_PATH: Final = "/completions"
EMBEDDINGS_PATH: Final = "/embeddings"
MODELS_PATH: Final = "/models"


def generation_request(
    generation: Generation, model: str, continuation: str, *, continuous_usage: bool = False
) -> tuple[str, bytes]:
    """The path and the body that ask for ``generation`` from the model that is called ``model`` there."""
    body: dict[str, Any] = {**generation.body, "model": model}
    if generation.prompts is not None:
        prompts = generation.prompts
        body["prompt"] = prompts[0] if len(prompts) == 1 else list(prompts)
    elif generation.partial:
        body = _CONTINUATIONS[continuation](body)
    if generation.n != 1:
        body["n"] = generation.n
    body["stream"] = True
    body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    if continuous_usage and generation.streamed and generation.choices == 1:
        body["stream_options"]["continuous_usage_stats"] = True
    return (CHAT_PATH if generation.prompts is None else COMPLETIONS_PATH), orjson.dumps(body)


def embedding_request(embedding: Embedding, model: str) -> tuple[str, bytes]:
    """The path and the body that ask for vectors."""
    inputs = embedding.inputs
    body = {
        **embedding.extra,
        "model": model,
        "input": inputs[0] if len(inputs) == 1 else list(inputs),
        "encoding_format": "float",
    }
    return EMBEDDINGS_PATH, orjson.dumps(body)


def request_headers(key: str | None, extra: Mapping[str, str]) -> dict[str, str]:
    """The headers of every request; ``extra`` ones replace those of the same name."""
    headers = {"content-type": "application/json", "accept": "text/event-stream, application/json"}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return {**headers, **{name.lower(): value for name, value in extra.items()}}


def _as_assistant(body: dict[str, Any]) -> dict[str, Any]:
    """llama.cpp, Ollama and OpenRouter go on with an assistant message at the end, unasked."""
    return body


def _as_vllm(body: dict[str, Any]) -> dict[str, Any]:
    """vLLM and SGLang do when told."""
    return {**body, "continue_final_message": True, "add_generation_prompt": False}


def _as_prefix(body: dict[str, Any]) -> dict[str, Any]:
    """Mistral and DeepSeek do for a message that is marked."""
    *messages, last = body["messages"]
    return {**body, "messages": [*messages, {**last, "prefix": True}]}


_CONTINUATIONS: Final[Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "assistant": _as_assistant,
    "vllm": _as_vllm,
    "prefix": _as_prefix,
}
