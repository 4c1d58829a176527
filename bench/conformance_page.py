"""The page of score cards, in Markdown. Pure, but for what it says of the machine."""

from __future__ import annotations

import os
import platform
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from coterie.config import DEFAULT_MODEL
from coterie.conform.check import CONTRACT, GROUPS

_VERDICTS: Final = ("pass", "fail", "skip")
_OURS: Final = ("contract", "SDK", "ending", "client", "suite")
"""With these words a rule says that it is this project's, and for whose sake."""

_STREAMED: Final = ".streamed"
_MOST_FOUND_CHARS: Final = 110


@dataclass(frozen=True, slots=True)
class Card:
    """A server, how it was started, and the reports of ``coterie conform --json``, one for each time it was judged."""

    name: str
    version: str
    how: str
    reports: Sequence[Mapping[str, Any]]

    @property
    def checks(self) -> Sequence[Mapping[str, Any]]:
        """The worst that came of each check, with ``times``: how often it came to that."""
        return [_worst(results) for results in zip(*(report["checks"] for report in self.reports), strict=True)]


def _worst(results: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    verdicts = [result["verdict"] for result in results]
    worst = next(verdict for verdict in ("fail", "skip", "pass") if verdict in verdicts)
    return {**results[verdicts.index(worst)], "times": verdicts.count(worst)}


def page(cards: Sequence[Card], absent: Mapping[str, str], command: str) -> str:
    """The whole page. ``command`` is what judged each of ``cards``; ``absent`` says why a server has none."""
    began = min(str(report["began_at"]) for card in cards for report in card.reports)[:16]
    rounds = len(cards[0].reports)
    lines = [
        "# Conformance",
        "",
        f"`make conformance` wrote this page on {began} UTC: Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, the model `{DEFAULT_MODEL}` for all. "
        f"Each server was judged from outside, {rounds} times, by what it answers to",
        "",
        "```sh",
        command,
        "```",
        "",
        *(f"- **{card.name}** ({card.version}): {card.how}." for card in cards),
        *(f"- **{name}** could not take part: {_cell(why)}." for name, why in absent.items()),
        "",
        *_table("group", cards, [(group, _group(group)) for group in GROUPS] + [("all", lambda check: True)]),
        "",
        "A check passes where every rule it looks at holds. One is skipped where the server has no such route, or "
        "refuses a parameter by its name, which is honest. By who asks for it:",
        "",
        *_table("who says it", cards, _BY_SOURCE),
        "",
        "A specification is OpenAI's OpenAPI description 2.3.0, Open Responses of 2026-04-24, or RFC 9110. The "
        "contract is this project's own: what the official SDKs and the clients in use need to tell one failure from "
        'another. Other servers never promised it, so below each rule says whose it is. "(+s)" stands for the same '
        f'request once more as a stream. What failed once counts as failed; "(1 of {rounds})" says how often, where it '
        "was not every time. (The model is tiny, and not all that it is asked for comes out alike.)",
        "",
        *(line for card in cards for line in _details(card)),
    ]
    return "\n".join(lines)


def _group(name: str) -> Any:
    return lambda check: check["group"] == name


_BY_SOURCE: Final = [
    ("a specification", lambda check: CONTRACT not in check["source"]),
    ("a specification and the contract", lambda check: CONTRACT in check["source"] and check["source"] != CONTRACT),
    ("the contract", lambda check: check["source"] == CONTRACT),
]


def _table(title: str, cards: Sequence[Card], rows: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Counts of passed / failed / skipped checks."""
    yield f"| {title} | " + " | ".join(f"{card.name}: passed / failed / skipped" for card in cards) + " |"
    yield "|---|" + "--:|" * len(cards)
    for name, wanted in rows:
        counts = [[sum(wanted(c) and c["verdict"] == v for c in card.checks) for v in _VERDICTS] for card in cards]
        yield f"| {name} | " + " | ".join(" / ".join(map(str, count)) for count in counts) + " |"


def _details(card: Card) -> Iterator[str]:
    """What failed, by rule, the one that most checks met first; and what was skipped, by reason."""
    yield f"## {card.name} {card.version}"
    yield ""
    broken = _by_rule(card)
    if not broken:
        yield "Nothing failed."
    for (rule, words), found in sorted(broken.items(), key=lambda item: -len(item[1])):
        yield f"- **{rule}** ({_whose(words)}): {_cell(words)}"
        yield f"  {_ids(found, card)}. First: {_cell(next(iter(found.values())))}."
    skipped = defaultdict(list)
    for check in card.checks:
        if check["verdict"] == "skip":
            skipped[_cell(check["reason"])].append(check["id"])
    if skipped:
        yield ""
        yield "Skipped:"
        yield ""
    for reason, ids in skipped.items():
        yield f"- {_ids(ids, card)}: {reason.rstrip('. ')}."
    yield ""


def _by_rule(card: Card) -> dict[tuple[str, str], dict[str, str]]:
    """For each rule and its words, what the checks that saw it broken found."""
    broken: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for check in card.checks:
        for failure in check["failures"]:
            broken[failure["rule"], failure["words"]].setdefault(check["id"], failure["found"])
    return broken


def _whose(words: str) -> str:
    """Who says a rule: the words end with that."""
    said = words.rpartition("(")[2]
    return "this project's contract" if said.startswith(_OURS) else "specification"


def _ids(ids: Iterable[str], card: Card) -> str:
    """Names of checks, and how often; a request that was made plain and streamed stands once."""
    rounds = len(card.reports)
    rare = {check["id"]: f" ({check['times']} of {rounds})" for check in card.checks if check["times"] < rounds}
    given = list(dict.fromkeys(ids))
    named = []
    for one in given:
        if one.endswith(_STREAMED) and one.removesuffix(_STREAMED) in given and one not in rare:
            continue
        again = "(+s)" if one + _STREAMED in given and one + _STREAMED not in rare else ""
        named.append(f"`{one}{again}`{rare.get(one, '')}")
    return f"{len(given)}: " + ", ".join(named)


def _cell(text: str) -> str:
    """A stranger's text as it can stand on the page."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    cut = printable if len(printable) <= _MOST_FOUND_CHARS * 2 else printable[: _MOST_FOUND_CHARS * 2] + " ..."
    return re.sub(r"([\\<|`*_])", r"\\\1", cut)
