"""Whether a model can honour a request."""

from __future__ import annotations

from typing import Any

import pytest

from coterie.engines.spec import ModelFacts
from coterie.errors import ApiError
from coterie.providers.fitness import check_fitness, check_inputs, check_room
from coterie.wire.lingua import Embedding, Generation, Prompt

FACTS = ModelFacts(context_tokens=256, vocabulary=1000, vision=False)
SEEING = ModelFacts(context_tokens=256, vocabulary=1000, vision=True)

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TEXT = {"type": "text", "text": "a"}
PICTURE: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": [TEXT, IMAGE]}]}

FIT: dict[str, Generation] = {
    "nothing": Generation("m", {"messages": []}),
    "no content": Generation("m", {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]}),
    "the whole context": Generation("m", {"max_tokens": 256}),
    "no limit": Generation("m", {"max_tokens": None, "max_completion_tokens": None}),
    "the last token": Generation("m", {"logit_bias": {"0": 1, "999": 1}}, prompts=([0, 999],)),
    "no bias": Generation("m", {"logit_bias": None}),
    "parts of text": Generation("m", {"messages": [{"role": "user", "content": [TEXT]}]}),
    "texts": Generation("m", {}, prompts=("1000", "b")),
}

UNFIT: dict[str, tuple[Generation, str, str]] = {
    "a long answer": (Generation("m", {"max_tokens": 257}), "integer_above_max_value", "max_tokens"),
    "a long answer by its newer name": (
        Generation("m", {"max_completion_tokens": 257}),
        "integer_above_max_value",
        "max_completion_tokens",
    ),
    "a bias": (Generation("m", {"logit_bias": {"1000": 1}}), "invalid_value", "logit_bias.1000"),
    "a token": (Generation("m", {}, prompts=([1, 1000],)), "invalid_value", "prompt"),
    "a token of the second": (Generation("m", {}, prompts=([1], [1000])), "invalid_value", "prompt[1]"),
    "a picture": (Generation("m", PICTURE), "unsupported_value", "messages[1].content[1].type"),
}


@pytest.mark.parametrize("generation", FIT.values(), ids=FIT.keys())
def test_what_fits(generation: Generation) -> None:
    check_fitness(generation, FACTS)


@pytest.mark.parametrize(("generation", "code", "param"), UNFIT.values(), ids=UNFIT.keys())
def test_what_does_not(generation: Generation, code: str, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_fitness(generation, FACTS)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_a_model_with_vision_sees() -> None:
    check_fitness(Generation("m", PICTURE), SEEING)


@pytest.mark.parametrize(
    ("inputs", "param"), [(("x",), None), (([999],), None), (([1000],), "input"), (("a", [1, 1000]), "input[1]")]
)
def test_inputs(inputs: tuple[Prompt, ...], param: str | None) -> None:
    if param is None:
        check_inputs(Embedding("m", inputs), FACTS)
        return
    with pytest.raises(ApiError) as caught:
        check_inputs(Embedding("m", inputs), FACTS)
    assert (caught.value.code, caught.value.param) == ("invalid_value", param)


ROOM: dict[str, tuple[Generation, tuple[str, str, str] | None]] = {
    "one": (Generation("m", {}), None),
    "all of it": (Generation("m", {}, 6), None),
    "prompts by choices": (Generation("m", {}, 2, ("a", "b", "c")), None),
    "too many choices": (Generation("m", {}, 7), ("integer_above_max_value", "n", "<= 6")),
    "too many of each": (Generation("m", {}, 4, ("a", "b")), ("integer_above_max_value", "n", "<= 3")),
    "too many prompts": (
        Generation("m", {}, 1, ("a",) * 7, prompt_param="prompt"),
        ("array_above_max_length", "prompt", "maximum length 6"),
    ),
}


@pytest.mark.parametrize(("generation", "expected"), ROOM.values(), ids=ROOM.keys())
def test_more_choices_than_could_ever_enter(generation: Generation, expected: tuple[str, str, str] | None) -> None:
    if expected is None:
        check_room(generation, 6)
        return
    with pytest.raises(ApiError) as caught:
        check_room(generation, 6)
    code, param, words = expected
    assert (caught.value.code, caught.value.param) == (code, param)
    assert words in caught.value.message


@pytest.mark.parametrize(
    "generation",
    [
        Generation("m", {"messages": [{"role": "user", "content": "word " * 100_000}]}),
        Generation("m", {}, prompts=("word " * 100_000,), prompt_param="prompt"),
        Generation("m", {}, prompts=([1] * 300,), prompt_param="prompt"),
    ],
    ids=["messages", "text", "tokens"],
)
def test_a_prompt_that_cannot_fit_is_refused_before_it_is_counted(generation: Generation) -> None:
    with pytest.raises(ApiError) as caught:
        check_fitness(generation, FACTS)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", generation.prompt_param)
    assert "maximum context length is 256 tokens" in caught.value.message
