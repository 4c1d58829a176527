"""Lists of models: as real servers write them, and as they should not."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import ApiError
from coterie.providers.listing import MAX_MODELS, ListedModel, pauses_s, read_listing


def rows(*listed: Any) -> dict[str, Any]:
    return {"object": "list", "data": list(listed)}


@pytest.mark.parametrize(
    ("answer", "contexts"),
    [
        (rows({"id": "a", "max_model_len": 4096}, {"id": "lora", "max_model_len": None, "parent": "a"}),
         {"a": 4096, "lora": 0}),  # vLLM
        (rows({"id": "a/b:free", "context_length": 8192}), {"a/b:free": 8192}),  # OpenRouter
        ([{"id": "a", "context_length": 8192}], {"a": 8192}),  # Together
        (rows({"id": "a", "context_window": 8192}), {"a": 8192}),  # Groq
        (rows({"id": "a", "max_context_length": 32768}), {"a": 32768}),  # Mistral
        ({"models": [{"name": "x"}], **rows({"id": "/m/a b.gguf"}, {"id": "c.gguf"})}, {"c.gguf": 0}),  # llama.cpp
        ({"models": [{"name": "a:latest"}]}, {"a:latest": 0}),  # Ollama
        (rows({"id": "a", "max_model_len": -1, "context_length": True, "context_window": "9", "max_context_length": 7}),
         {"a": 7}),
        (rows({"id": "a", "max_model_len": 5, "context_length": 9}), {"a": 5}),
        (rows({"id": "a", "max_model_len": 1}, {"id": "a", "max_model_len": 2}), {"a": 2}),
        (rows(), {}),
        ([], {}),
        (rows(None, 5, "a", [], {}, {"id": None}, {"id": 5}, {"id": ""}, {"id": "a b"}, {"id": "a\n"}, {"id": "a\x00"},
              {"id": "m" * 201}, {"id": "m" * 200}), {"m" * 200: 0}),
    ],
)  # fmt: skip
def test_lists(answer: Any, contexts: dict[str, int]) -> None:
    listed = read_listing(answer)
    assert {name: model.context_tokens for name, model in listed.items()} == contexts
    assert all(model.name == model.upstream_name == name for name, model in listed.items())


@pytest.mark.parametrize("answer", [None, 5, "x", {}, {"data": None}, {"data": {"id": "a"}}, {"data": "x"}])
def test_what_is_no_list(answer: Any) -> None:
    with pytest.raises(ApiError) as caught:
        read_listing(answer)
    assert caught.value.code == "upstream_protocol_error"


@pytest.mark.parametrize(
    ("row", "created", "owner"),
    [
        ({"created": 7, "owned_by": "vllm"}, 7, "vllm"),
        ({"created": 0, "owned_by": ""}, 0, "provider"),
        ({"created": -1, "owned_by": "a\nb"}, None, "provider"),
        ({"created": True, "owned_by": 5}, None, "provider"),
        ({"created": "7"}, None, "provider"),
        ({}, None, "provider"),
    ],
)
def test_since_when_and_whose(row: dict[str, Any], created: int | None, owner: str) -> None:
    model = read_listing(rows({"id": "a", **row}))["a"]
    assert model.owned_by == owner
    assert model.created == created if created is not None else model.created > 1_700_000_000


def test_a_list_is_bounded() -> None:
    assert len(read_listing(rows(*({"id": f"m{n}"} for n in range(MAX_MODELS + 10))))) == MAX_MODELS


def test_with_context() -> None:
    here, there = ListedModel("a", "b", 0, 1, "p"), ListedModel("b", "b", 9, 2, "q")
    assert here.with_context(there) == ListedModel("a", "b", 9, 1, "p")
    assert here.with_context(None) is here


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "models", "id", "name", "created", "owned_by", "max_model_len"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)


@given(_json | _json.map(lambda value: {"data": [value]}))
def test_whatever_comes_is_read_or_a_failure_of_the_catalogue(answer: Any) -> None:
    try:
        listed = read_listing(answer)
    except ApiError as error:
        assert error.code == "upstream_protocol_error"  # noqa: PT017 - what else is raised fails the test
        return
    assert all(type(model.created) is int and type(model.context_tokens) is int for model in listed.values())


@pytest.mark.parametrize(
    ("most_s", "pauses"),
    [(60.0, [1, 2, 4, 8, 16, 32, 60, 60]), (3.0, [1, 2, 3, 3, 3, 3, 3, 3]), (0.5, [0.5] * 8)],
)
def test_a_list_that_was_never_read_is_asked_for_soon_and_ever_less_often(most_s: float, pauses: list[float]) -> None:
    assert list(islice(pauses_s(most_s), 8)) == pauses
