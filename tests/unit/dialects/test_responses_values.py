"""Values of a chat answer in the Responses API's shape; what is wrong beside a good answer is left out."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.chunks import USAGE, logprob

from coterie.dialects.responses_values import (
    response_annotations,
    response_logprobs,
    response_thoughts,
    response_usage,
    tier_of,
)


@pytest.mark.parametrize(
    ("details", "cached", "reasoning"),
    [
        ({}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": 3}}, 3, 0),
        ({"completion_tokens_details": {"reasoning_tokens": 2}}, 0, 2),
        ({"prompt_tokens_details": None, "completion_tokens_details": []}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": -1}}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": True}}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": 2**60}}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": "3"}}, 0, 0),
    ],
)
def test_usage(details: dict[str, Any], cached: int, reasoning: int) -> None:
    assert response_usage({**USAGE, **details}) == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": 7,
    }


def test_no_usage() -> None:
    assert response_usage(None) is None


@pytest.mark.parametrize(
    ("sent", "told"),
    [(sent, [195, 188]) for sent in (None, [195, 188], [256], "ü", [True])] + [([], [])],
)  # fmt: skip
def test_the_bytes_of_a_token_are_always_there(sent: Any, told: list[int]) -> None:
    (entry,) = response_logprobs({"content": [logprob("ü", bytes=sent, top_logprobs=[logprob("ü", bytes=sent)])]})
    assert entry == {
        "token": "ü", "logprob": -0.5, "bytes": told,
        "top_logprobs": [{"token": "ü", "logprob": -0.5, "bytes": told}],
    }  # fmt: skip


@pytest.mark.parametrize("content", [None, []])
def test_no_log_probabilities(content: Any) -> None:
    assert response_logprobs({"content": content, "refusal": [logprob("a")]}) == []


WHOLE = {"url": "https://a.b", "start_index": 1, "end_index": 2, "title": "T"}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"type": "url_citation", "url_citation": WHOLE}, WHOLE),
        ({"type": "url_citation", "url_citation": {**WHOLE, "content": "x"}}, WHOLE),
        ({"type": "url_citation", **WHOLE}, WHOLE),
        ({"type": "url_citation", "url_citation": {"url": "u"}},
         {"url": "u", "start_index": 0, "end_index": 0, "title": ""}),
        ({"type": "url_citation", "url_citation": {**WHOLE, "title": "\ud800", "end_index": -1}},
         {**WHOLE, "title": "", "end_index": 0}),
        ({"type": "url_citation", "url_citation": {"title": "T"}}, None),
        ({"type": "url_citation", "url_citation": {**WHOLE, "url": "\ud800"}}, None),
        ({"type": "url_citation", "url_citation": []}, None),
        ({"type": "file_citation", "file_id": "f"}, None),
        (None, None),
    ],
)  # fmt: skip
def test_annotations(entry: Any, told: dict[str, Any] | None) -> None:
    assert response_annotations([entry]) == ([] if told is None else [{"type": "url_citation", **told}])


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "url", "url_citation", "title", "start_index", "extra", "service_tier"]),
            children | st.just("url_citation"),
        )
    ),
    max_leaves=8,
)


@given(_json)
def test_whatever_is_sent_can_be_written(value: Any) -> None:
    orjson.dumps(response_annotations(value))
    orjson.dumps(response_annotations([value]))
    orjson.dumps(response_thoughts(value))
    orjson.dumps(response_thoughts([value]))
    orjson.dumps(tier_of(value if isinstance(value, dict) else {"extra": value}))


@pytest.mark.parametrize(
    ("chunk", "tier"),
    [
        ({"service_tier": "flex"}, "flex"),
        ({"extra": {"service_tier": "flex"}}, "flex"),
        ({"extra": {"service_tier": ""}}, None),
        ({"extra": {"service_tier": "x" * 65}}, None),
        ({"service_tier": None, "extra": None}, None),
    ],
)
def test_service_tier(chunk: dict[str, Any], tier: str | None) -> None:
    assert tier_of(chunk) == ({} if tier is None else {"service_tier": tier})


@pytest.mark.parametrize(
    ("details", "told"),
    [
        ([{"type": "reasoning.summary", "summary": "S"}, {"type": "reasoning.text", "text": "T"}],
         [("summary_text", "S"), ("reasoning_text", "T")]),
        ([{"type": "reasoning.text", "text": "T", "signature": "x", "id": 1, "index": {}}], [("reasoning_text", "T")]),
        ([{"type": "reasoning.text", "signature": "x"}, {"type": "reasoning.text", "text": None}], []),
        ([{"type": "reasoning.text", "text": ""}, {"type": "reasoning.summary", "text": "T"}], []),
        ([{"type": "reasoning.encrypted", "data": "x", "text": "T"}, {"type": []}, {"text": "T"}, {}, 7, None], []),
        ([{"type": "reasoning.text", "text": "\ud800"}, {"type": "reasoning.text", "text": ["T"]}], []),
        ({"type": "reasoning.text", "text": "T"}, []),
        ("T", []),
        (None, []),
    ],
)  # fmt: skip
def test_thoughts(details: Any, told: list[tuple[str, str]]) -> None:
    assert response_thoughts(details) == told
