"""Every place where providers say how long to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors.delays import LONGEST_S, stated_delay_s

NOW = 1_750_000_000.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "86400"}, 86400.0),
        ({"retry-after": "9", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Sun, 15 Jun 2025 15:07:20 GMT"}, 40.0),
        ({"retry-after": "2025-06-15T15:07:20Z"}, 40.0),
        ({"x-ratelimit-reset": "1750000012"}, 12.0),
        ({"x-ratelimit-reset": "1750000012500"}, 12.5),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "3",
          "x-ratelimit-reset-tokens": "2m52.8s", "x-ratelimit-remaining-tokens": "0"}, 172.8),
        ({"x-ratelimit-reset-requests": "120ms", "x-ratelimit-reset-tokens": "66ms"}, 0.066),
        ({"anthropic-ratelimit-tokens-reset": "2025-06-15T15:06:50Z",
          "anthropic-ratelimit-tokens-remaining": "0"}, 10.0),
        ({"retry-after": "1e999999"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Sun, 15 Jun 2015 15:07:20 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "4\x1f"}, 4.0),
        ({"retry-after": "86401"}, None),
        ({"retry-after": "999999999"}, None),
        ({"retry-after": "Fri, 01 Jan 2099 00:00:00 GMT"}, None),
        ({"retry-after": "Fri, 01 Jan 2099 00:00:00 GMT", "x-ratelimit-reset": "1750000012500"}, 12.5),
    ],
)  # fmt: skip
def test_headers(headers: dict[str, str], expected: float | None) -> None:
    assert stated_delay_s(headers, None, "", NOW) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Please try again in 1.2s.", 1.2),
        ("Please try again in 1m2s. Visit", 62.0),
        ("try again in 1m2.5s", 62.5),
        ("Please try again in 20ms.", 0.02),
        ("Please try again in 7h12m0s", 25920.0),
        ("Please retry after 86400 seconds.", 86400.0),
        ("Please retry in 34.07s.", 34.07),
        ("Try again in 2 minutes and 5 seconds", 125.0),
        ("Limit 3, used 3 s, please slow down", None),
        ("try again later", None),
    ],
)
def test_sentences(text: str, expected: float | None) -> None:
    assert stated_delay_s({}, None, text, NOW) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("field", "expected"), [("34s", 34.0), ("1.5s", 1.5), (20.5, 20.5), ("12", 12.0), ("?", None)])
def test_fields(field: float | str, expected: float | None) -> None:
    assert stated_delay_s({}, field, "", NOW) == expected


@given(
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset"]), st.text(max_size=60)),
    st.one_of(st.none(), st.floats(), st.text(max_size=60)),
    st.text(max_size=200),
)
def test_a_delay_is_positive_and_bounded(headers: dict[str, str], field: float | str | None, text: str) -> None:
    delay_s = stated_delay_s(headers, field, text, NOW)
    assert delay_s is None or 0 < delay_s <= LONGEST_S
