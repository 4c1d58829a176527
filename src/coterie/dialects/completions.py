"""The text-completions dialect (OpenAI's legacy API): its request, its stream and its whole answer. Pure.

The provider sees raw prompts, without a chat template, and answers with chat chunks; these machines write them as
``text_completion`` objects, keeping the rules of :mod:`coterie.dialects.chunk_stream`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, Tag

from coterie.dialects.chat import DialectLimits, ParsedRequest, check_model, check_streaming, opened, passed_openly
from coterie.dialects.chat_models import Sampling
from coterie.dialects.chunk_stream import ChunkStream
from coterie.dialects.support import COMPLETIONS_UNSUPPORTED, refuse_unsupported
from coterie.dialects.validation import by_type, tag, validate, validate_openly
from coterie.errors import ApiError
from coterie.wire.choices import Choices
from coterie.wire.lingua import Chunk, Generation, Prompt

DEFAULT_MAX_TOKENS: Final = 16
"""``max_tokens`` where none is given: the specification's default."""

_EDGE_FIELDS: Final = frozenset({"model", "stream", "stream_options", "n", "user", "prompt", "logprobs"})

Tokens = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1, fail_fast=True)]


def _kind(value: Any) -> type | None:
    return type(value[0]) if isinstance(value, list) and value else None


PromptField = Annotated[
    Annotated[str, Tag(tag("string"))] | Annotated[list[Any], Tag(tag("array"))],
    by_type(string=str, array=list),
]


class CompletionRequest(Sampling):
    """The body of ``POST /v1/completions``."""

    prompt: PromptField
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None


class _Texts(Sampling):
    prompt: Annotated[list[str], Field(min_length=1, fail_fast=True)]


class _TokenIds(Sampling):
    prompt: Tokens


class _TokenLists(Sampling):
    prompt: Annotated[list[Tokens], Field(min_length=1, fail_fast=True)]


_BY_FIRST_ELEMENT: Final[Mapping[type | None, type[Sampling]]] = {str: _Texts, int: _TokenIds, list: _TokenLists}


def parse_completion(body: Mapping[str, Any], limits: DialectLimits) -> ParsedRequest:
    """Check a completions request. Raises ``ApiError``."""
    check_model(body)
    fields = refuse_unsupported(body, COMPLETIONS_UNSUPPORTED)
    request = validate(CompletionRequest, fields)
    check_streaming(fields, limits)
    n = request.n or 1
    prompts = _counted_prompts(fields["prompt"], n, limits)
    passed = {name: value for name, value in fields.items() if name not in _EDGE_FIELDS and value is not None}
    passed.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
    if request.logprobs is not None:
        passed.update(logprobs=True, top_logprobs=request.logprobs)
    return ParsedRequest(
        generation=Generation(request.model, passed, n, prompts, prompt_param="prompt"),
        stream=bool(request.stream),
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
        choices=len(prompts) * n,
    )


def parse_completion_openly(body: Mapping[str, Any], limits: DialectLimits) -> ParsedRequest:
    """Check what is known of a completions request, and pass everything. Raises ``ApiError``."""
    check_model(body)
    validate_openly(CompletionRequest, body)
    n = body.get("n") or 1
    prompts = _counted_prompts(body["prompt"], n, limits)
    generation = Generation(body["model"], passed_openly(body), n, prompts, prompt_param="prompt")
    return opened(body, limits, generation)


def _counted_prompts(value: Any, n: int, limits: DialectLimits) -> tuple[Prompt, ...]:
    prompts = parse_prompts(value, "prompt")
    if len(prompts) * n > limits.choices:
        raise ApiError("array_above_max_length", param="prompt", limit=limits.choices // n, actual=len(prompts))
    return prompts


def parse_prompts(value: Any, param: str) -> tuple[Prompt, ...]:
    """A string, strings, token ids or lists of token ids, as a tuple of prompts. Raises ``ApiError``."""
    if isinstance(value, str):
        prompts: tuple[Prompt, ...] = (value,)
    else:
        prompts = _checked_list(value, param)
    for place, prompt in enumerate(prompts):
        if prompt == "":
            where = param if len(prompts) == 1 else f"{param}[{place}]"
            raise ApiError("string_below_min_length", param=where, limit=1, actual=0)
    return prompts


def _checked_list(value: list[Any], param: str) -> tuple[Prompt, ...]:
    model = _BY_FIRST_ELEMENT.get(_kind(value), _Texts)
    try:
        validate(model, {"model": "-", "prompt": value})
    except ApiError as error:
        # The shapes are those of "prompt"; another dialect calls the same thing otherwise.
        raise error.at(param + (error.param or "").removeprefix("prompt")) from None
    return (value,) if model is _TokenIds else tuple(value)


class CompletionStream(ChunkStream):
    """The stream of one answer in ``text_completion`` objects."""

    kind = "text_completion"
    calls = False

    def __init__(self, answer_id: str, created: int, model: str, *, choices: int, include_usage: bool) -> None:
        super().__init__(answer_id, created, model, choices=choices, include_usage=include_usage)
        self._offsets = [0] * choices

    def wire_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A choice as the older API has it."""
        index, text = choice["index"], choice["delta"].get("content") or ""
        offset, self._offsets[index] = self._offsets[index], self._offsets[index] + len(text)
        return {
            "text": text,
            "index": index,
            "logprobs": _legacy_logprobs(_entries(choice), offset),
            "finish_reason": choice["finish_reason"],
        }


class CompletionFold:
    """Gathers one whole answer."""

    def __init__(self, answer_id: str, created: int, model: str, *, choices: int) -> None:
        self._choices = Choices(choices, calls=False)
        self._texts: list[list[str]] = [[] for _ in range(choices)]
        self._logprobs: list[list[dict[str, Any]]] = [[] for _ in range(choices)]
        self._finish: list[str | None] = [None] * choices
        self._head = {"id": answer_id, "object": "text_completion", "created": created, "model": model}

    def feed(self, chunk: Chunk) -> None:
        """Take ``chunk`` in. Raises ``ApiError``."""
        for choice in self._choices.admit(chunk):
            index = choice["index"]
            self._texts[index].append(choice["delta"].get("content") or "")
            self._logprobs[index] += _entries(choice)
            self._finish[index] = choice["finish_reason"] or self._finish[index]

    def text(self, index: int, text: str, extra: dict[str, Any] | None) -> bool:
        """Take in a piece of text with which a choice goes on; false, and nothing is done, where that needs a chunk."""
        goes_on = self._choices.goes_on(index)
        if goes_on:
            self._texts[index].append(text)
        return goes_on

    def end(self) -> dict[str, Any]:
        """The whole answer. Raises ``ApiError`` where it is not whole."""
        self._choices.check_whole()
        choices = [
            {
                "text": "".join(texts),
                "index": index,
                "logprobs": _legacy_logprobs(self._logprobs[index], 0),
                "finish_reason": self._finish[index],
            }
            for index, texts in enumerate(self._texts)
        ]
        answer = {**self._head, "choices": choices}
        return answer if self._choices.usage is None else {**answer, "usage": self._choices.usage}


def _entries(choice: dict[str, Any]) -> list[dict[str, Any]]:
    return (choice["logprobs"] or {}).get("content") or []


def _legacy_logprobs(entries: list[dict[str, Any]], offset: int) -> dict[str, Any] | None:
    """Chat's log-probabilities in the older form: parallel lists, with the place of each token in the text."""
    if not entries:
        return None
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in entries],
        "text_offset": offsets,
    }
