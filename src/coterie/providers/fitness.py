"""Whether a loaded model can honour a request: the checks that need facts of the model. Pure."""

from __future__ import annotations

from typing import Final

import orjson

from coterie.engines.spec import ModelFacts
from coterie.errors import ApiError
from coterie.wire.lingua import Embedding, Generation, Prompt


def check_room(generation: Generation, room: int) -> None:
    """Raise ``ApiError`` for more choices than ``room``: they could never enter, however long their caller waited."""
    prompts = len(generation.prompts or (None,))
    if prompts > room:
        raise ApiError("array_above_max_length", param=generation.prompt_param, limit=room, actual=prompts)
    if prompts * generation.n > room:
        raise ApiError("integer_above_max_value", param="n", limit=room // prompts, actual=generation.n)


LONGEST_TOKEN_BYTES: Final = 256
"""More than any token of a known vocabulary stands for."""


def check_fitness(generation: Generation, facts: ModelFacts) -> None:
    """Raise ``ApiError`` for what this model cannot do."""
    _check_length(generation, facts)
    _check_limits(generation, facts)
    _check_tokens(generation, facts)
    if not facts.vision:
        _check_no_images(generation)


def check_inputs(embedding: Embedding, facts: ModelFacts) -> None:
    """Raise ``ApiError`` for token ids that the model does not have."""
    _check_prompts("input", embedding.inputs, facts)


def _check_length(generation: Generation, facts: ModelFacts) -> None:
    """Refuse a prompt that cannot fit, before the engine spends many seconds on counting its tokens."""
    for prompt in generation.prompts or (orjson.dumps(generation.body.get("messages", ())),):
        size = len(prompt) if isinstance(prompt, (list, bytes)) else len(prompt.encode())
        least = size if isinstance(prompt, list) else size // LONGEST_TOKEN_BYTES
        if least > facts.context_tokens:
            raise ApiError(
                "context_length_exceeded", param=generation.prompt_param, limit=facts.context_tokens,
                actual=f"at least {least}",
            )  # fmt: skip


def _check_limits(generation: Generation, facts: ModelFacts) -> None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = generation.body.get(name)
        if value is not None and value > facts.context_tokens:
            raise ApiError("integer_above_max_value", param=name, limit=facts.context_tokens, actual=value)


def _check_tokens(generation: Generation, facts: ModelFacts) -> None:
    for token in generation.body.get("logit_bias") or {}:
        if int(token) >= facts.vocabulary:
            reason = f"{token} is not a token id of this model, which has {facts.vocabulary}"
            raise ApiError("invalid_value", param=f"logit_bias.{token}", reason=reason)
    _check_prompts("prompt", generation.prompts or (), facts)


def _check_prompts(name: str, prompts: tuple[Prompt, ...], facts: ModelFacts) -> None:
    for place, prompt in enumerate(prompts):
        if isinstance(prompt, list) and any(token >= facts.vocabulary for token in prompt):
            param = name if len(prompts) == 1 else f"{name}[{place}]"
            raise ApiError("invalid_value", param=param, reason=f"this model has {facts.vocabulary} token ids")


def _check_no_images(generation: Generation) -> None:
    for i, message in enumerate(generation.body.get("messages", ())):
        content = message.get("content")
        for j, part in enumerate(content if isinstance(content, list) else ()):
            if part["type"] == "image_url":
                raise ApiError(
                    "unsupported_value",
                    param=f"messages[{i}].content[{j}].type",
                    value="'image_url'",
                    hint=" Image input is only supported by models with vision.",
                )
