"""The numbers of a context overflow, in the words of many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors.overflow import Overflow, read_overflow, sentence


@pytest.mark.parametrize(
    ("text", "limit", "actual", "completion"),
    [
        ("This model's maximum context length is 4097 tokens. However, your messages resulted in 4294 tokens.",
         4097, 4294, None),
        ("maximum context length is 100 tokens. However, you requested 120 tokens (90 in the messages, 30 in the "
         "completion).", 100, 120, 30),
        ("maximum context length is 100 tokens and your request has 80 input tokens ('max_tokens' is too large: 30).",
         100, 110, 30),
        ("prompt is too long: 2134 tokens > 2000 maximum", 2000, 2134, None),
        ("input length and `max_tokens` exceed context limit: 1990 + 80 > 2000, decrease", 2000, 2070, 80),
        ("request (900 tokens) exceeds the available context size (512 tokens), try increasing it", 512, 900, None),
        ("The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
         1048575, 1196265, None),
        ("exceeded model token limit: 2621 (requested: 3000)", 2621, 3000, None),
        ("Prompt contains 40960 tokens, too large for model with 32768 maximum context length", 32768, 40960, None),
        ("This model's maximum prompt length is 1310 but the request contains 5378 tokens", 1310, 5378, None),
        ("`inputs` tokens + `max_new_tokens` must be <= 100. Given: 90 `inputs` tokens and 20 `max_new_tokens`",
         100, 110, 20),
        ("The context window of 131,072 tokens is smaller than the 140,001 sent", 131072, 140001, None),
        ("Range of input length should be [1, 30720]", 30720, None, None),
        ("maximum context length is 64 tokens. Your prompt contains 9000 characters (value=9000)", 64, None, None),
        ("gpt-4-0613 takes less than what you sent", None, None, None),
        ("Too long.", None, None, None),
    ],
)  # fmt: skip
def test_numbers(text: str, limit: int | None, actual: int | None, completion: int | None) -> None:
    assert read_overflow(text) == Overflow(limit, actual, completion)


def test_fields_come_before_words() -> None:
    assert read_overflow("1 of 2000 and 3000", 512, 900) == Overflow(512, 900)


@pytest.mark.parametrize(
    "overflow", [Overflow(None, None), Overflow(None, 9), Overflow(9, None), Overflow(90, 100, 20)]
)
def test_a_sentence_without_all_numbers_has_the_phrase_and_no_invented_number(overflow: Overflow) -> None:
    said = sentence(overflow)
    assert said is not None
    assert "maximum context length" in said
    assert "None" not in said


def test_both_numbers_are_the_catalogue_s_own_sentence() -> None:
    assert sentence(Overflow(10, 20)) is None


@given(st.text(alphabet="0123456789,._ ><+()[]tokensmaxlimit'`", max_size=300))
def test_what_was_sent_is_more_than_what_fits(text: str) -> None:
    found = read_overflow(text)
    assert found.limit is None or found.actual is None or found.actual > found.limit
    assert found.completion is None or found.actual is None or found.actual > found.completion
