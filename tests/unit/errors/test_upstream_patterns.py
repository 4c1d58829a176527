"""The tables are sound: every phrase has its source, every stem could occur, no pattern matches nothing."""

from __future__ import annotations

import re

import pytest

from coterie.dialects.responses_relate import CODES
from coterie.errors import CATALOGUE
from coterie.errors import upstream_patterns as known

PHRASES = {name: value for name, value in vars(known).items() if name.endswith("_PHRASES")}
STEMS = {name: value for name, value in vars(known).items() if name.endswith("_STEMS")}


@pytest.mark.parametrize("table", PHRASES.values(), ids=PHRASES.keys())
def test_phrases(table: tuple[known.Phrase, ...]) -> None:
    for phrase in table:
        assert phrase.source
        assert phrase.pattern.flags & re.IGNORECASE
        assert phrase.pattern.search("") is None
        assert phrase.pattern.search("The request was refused.") is None
        assert not phrase.code or phrase.code in CATALOGUE


@pytest.mark.parametrize("stems", STEMS.values(), ids=STEMS.keys())
def test_stems(stems: tuple[str, ...]) -> None:
    assert len(set(stems)) == len(stems)
    for stem in stems:
        assert re.fullmatch(r"[a-z0-9]{6,}", stem)


def test_other_names_lead_to_codes_of_the_catalogue() -> None:
    assert set(known.IMAGE_ALIASES.values()) <= CATALOGUE.keys()
    assert not (known.IMAGE_ALIASES.keys() - set(CODES.values())) & CATALOGUE.keys()


def test_a_stem_is_found_inside_of_a_name() -> None:
    assert known.has_stem({"ratelimiterror"}, known.RATE_STEMS)
    assert not known.has_stem({"invalidrequesterror"}, known.RATE_STEMS)


def test_the_first_phrase_wins() -> None:
    phrase = known.first_phrase(known.IMAGE_PHRASES, "Failed to load image: invalid base64")
    assert phrase is not None
    assert phrase.code == "invalid_base64"
    assert known.first_phrase(known.IMAGE_PHRASES, "fine") is None
