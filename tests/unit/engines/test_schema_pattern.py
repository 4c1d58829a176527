import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.engines.schema_pattern import LONGEST_PATTERN, lower_pattern

LOWERED = {
    "^$": "^$",
    "^abc$": "^[a][b][c]$",
    r"^a\.+$": r"^[a][\x2E]+$",
    r"^\d{4}-\d{2}$": r"^[0-9]{4}[\x2D][0-9]{2}$",
    r"^\w\s$": "^[A-Za-z0-9_][ ]$",
    "^.*$": r"^[^\"\\\x00-\x1F]*$",
    "^[^a]?$": r"^[^a\"\\\x00-\x1F]?$",
    r"^[\w.-]{1,}$": r"^[A-Za-z0-9_\x2E\x2D]{1,}$",
    r"^[\^\]]$": r"^[\x5E\x5D]$",
    "^(?:ab|c){2,3}$": "^([a][b]|[c]){2,3}$",
    "^é+$": "^[é]+$",
    "^/x$": r"^[\x2F][x]$",
}


@pytest.mark.parametrize(("pattern", "lowered"), LOWERED.items())
def test_a_pattern_is_written_again_in_classes(pattern: str, lowered: str) -> None:
    assert lower_pattern(pattern) == lowered


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("abc", "begin with"),
        ("^abc", "end with"),
        (r"^abc\$", "end with"),
        ("(((", "begin with"),
        ("^(a$", "unclosed"),
        ("^a)$", "unbalanced"),
        ("^()$", "empty group"),
        ("^(a|)$", "empty group or alternative"),
        ("^a||b$", "empty group or alternative"),
        ("^*a$", "nothing to repeat"),
        ("^a+?$", "lazy"),
        ("^a{2}{3}$", "lazy"),
        ("^(?=a)b$", "nothing to repeat"),
        ("^(?P<x>a)$", "nothing to repeat"),
        ("^a^b$", "cannot enforce"),
        ("^a]$", "cannot enforce"),
        ("^a{,3}$", "cannot enforce"),
        ("^[]$", "empty character class"),
        (r"^\bx$", "escape"),
        (r"^(a)\1$", "escape"),
        (r"^\D$", "escape"),
        ('^"$', "quote"),
        (r"^\\$", "escape"),
        ("^\n$", "control"),
        ("^[\t]$", "control"),
        ("^[z-a]$", "range"),
        ("^[A-z]$", "mixes"),
        ("^[ -~]$", "range"),
        ("^a{5,3}$", "cannot be satisfied"),
        ("^a{0}$", "cannot be satisfied"),
        ("^a{2001}$", "repetitions"),
        ("^(a{100}){100}$", "repetitions"),
        ("^(a*)*$", "can be empty"),
        ("^((a?)(b?)){3}$", "can be empty"),
        ("^" + "(" * 20 + "a" + ")" * 20 + "$", "too deeply"),
        ("^" + "a" * LONGEST_PATTERN + "$", "longer"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_its_reason(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        lower_pattern(pattern)


@pytest.mark.parametrize("pattern", ["^a*b*$", "^(a*b)*$", "^(a|b*c)+$", "^(a{40}){50}$", "^(x(a|b)?)*$"])
def test_a_repetition_of_what_is_never_empty_is_kept(pattern: str) -> None:
    assert lower_pattern(pattern)


_FRAGMENTS = st.sampled_from(
    ["a", "b", ".", r"\d", r"\w", "[ab]", "[^a]", "(a|b)", "(?:ab)", "+", "*", "?", "{2}", "|", "-", r"\."]
)


@given(st.lists(_FRAGMENTS, max_size=6), st.text(alphabet='ab.-0"\\\n', max_size=5))
def test_the_lowered_pattern_admits_only_what_the_pattern_admits_and_json_can_say(parts: list[str], text: str) -> None:
    pattern = f"^{''.join(parts)}$"
    try:
        lowered = lower_pattern(pattern)
    except ValueError:
        return
    if re.fullmatch(lowered[1:-1], text):
        assert re.search(pattern, text)
        assert json.loads(f'"{text}"') == text
