"""Takes secrets out of recorded exchanges before they touch the disk. Pure.

What is taken out, each replaced by :data:`REDACTED`:

* The value of a header whose name has a word of :data:`SECRET_WORDS` (``authorization``, ``x-api-key``,
  ``openai-organization``, ``set-cookie``), and of a query parameter of such a name.
* The string under a JSON key of such a name, at any depth.
* What looks like a secret anywhere else (:data:`_SECRETS`): keys of the known providers, bearer tokens, JSON Web
  Tokens, ids of organisations, projects and users, users and passwords in URLs, and mail addresses.

A body that is JSON, and each event of a stream that is, is read as JSON, so escapes hide nothing. A body is looked at
as a whole, so it does not matter how it was cut into chunks; and of a stream's events the texts that belong together
(one field of one choice) are put together first, so a secret that was generated in several pieces is found as well.
Chunks and their times stay: what replaces a secret stands in the chunk in which that began. What has no secret keeps
its bytes.

To scrub twice changes nothing more. Rather too much is taken out than too little; but a secret that looks like an
ordinary word, under a name that says nothing, is not found, nor one of which the last generated piece stands in an
event that was cut off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

_Text = TypeVar("_Text", str, bytes)

REDACTED: Final = "[redacted]"

SECRET_WORDS: Final = frozenset({
    "auth", "authorization", "authentication", "key", "apikey", "token", "secret", "password", "passwd", "credential",
    "credentials", "cookie", "cookie2", "session", "signature", "sig", "org", "organization", "organisation", "project",
    "user", "username", "email", "safety",
})  # fmt: skip
"""Words of a name (cut at ``-``, ``_``, ``.`` and before capitals) whose value is secret."""

_JSON_EXCEPT: Final = frozenset({"token", "key"})
"""JSON keys that name ordinary things: a token of ``logprobs``, the key of a pair."""

_SECRETS: Final = re.compile(
    r"""(?xa)
    (?<= :// ) [^\s/@"'<>\\]+ (?= @ )                                      # user and password of a URL
    | (?<![A-Za-z0-9]) (?: (?:
        (?: sk | pk | rk ) [-_] [A-Za-z0-9_-]{6,}                       # OpenAI, Anthropic and most others
      | (?: hf | gsk | r8 | ghp | gho | ghs | glpat | xai | pplx | nvapi | tgp ) [-_] [A-Za-z0-9_-]{8,}
      | github_pat_ [A-Za-z0-9_]{8,}
      | AIza [A-Za-z0-9_-]{20,}
      | A[KS]IA [A-Z0-9]{12,}
      | eyJ [A-Za-z0-9_-]{5,} \. [A-Za-z0-9_-]{5,} (?: \. [A-Za-z0-9_-]* )?   # a JSON Web Token
      | (?: org | proj | user ) [-_] [A-Za-z0-9]{8,}
      | [A-Za-z0-9._%+-]{1,64} @ [A-Za-z0-9-]{1,64} (?: \. [A-Za-z0-9-]{1,64} ){1,8}    # a mail address
    ) [A-Za-z0-9_-]* )
    | (?i: (?<= bearer ) | (?<= basic ) ) [ ]+ (?: (?= [a-z]* [0-9A-Z_~+/=] ) [\w.~+/=-]{6,} | [\w.~+/=-]{16,} )
    """
)
_WITH_TEXT: Final = (str, dict, list)
_MAX_DEPTH: Final = 64
_WORD_CUT: Final = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_EVENT: Final = re.compile(rb"(?m)^data:[ ]?([^\r\n]*)(?=\r|\n|\Z)")
_NAMED: Final = re.compile(r'"([A-Za-z0-9_.-]{1,64})"\s*:\s*"((?:[^"\\]|\\.)+)')
_QUERY: Final = re.compile(r"(?<=[?&])([^=&#]+)=([^&#]+)")


def is_secret_name(name: str) -> bool:
    """Whether what stands under ``name`` is secret."""
    return any(word.lower() in SECRET_WORDS for word in _WORD_CUT.split(name))


def scrub_text(text: str) -> str:
    """``text`` without what looks like a secret."""
    spans = _spans(text)
    return _spread([text], [_Edit(*span, REDACTED) for span in spans])[0] if spans else text


def scrub_headers(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers without secrets, in the same order."""
    return [
        (name, REDACTED if name.lower() != "user-agent" and is_secret_name(name) else scrub_text(value))
        for name, value in headers
    ]


def scrub_target(target: str) -> str:
    """A request's path and query without secrets."""
    return scrub_text(_QUERY.sub(_parameter, target))


def scrub_json(value: Any) -> Any:
    """A JSON value without secrets; the very same object where it has none."""
    event = _Event(0, 0, value)
    _scrub_events([event])
    return _replaced(value, (), event.changed) if event.changed else value


def scrub_chunks(chunks: Sequence[bytes]) -> list[bytes]:
    """A body without secrets, in as many chunks, some of which may be empty now."""
    edited = _spread(chunks, _json_edits(b"".join(chunks)))
    # What is no JSON, or lies outside of it: JSON that was written anew has no more secrets.
    rest = b"".join(edited).decode("latin-1")
    named = (match.span(2) for match in _NAMED.finditer(rest) if _is_secret_key(match[1]))
    spans = _merged([*_spans(rest), *named])
    return _spread(edited, [_Edit(*span, REDACTED.encode()) for span in spans])


@dataclass(frozen=True, slots=True)
class _Edit(Generic[_Text]):
    """What stands from ``start`` to ``end`` becomes ``new``."""

    start: int
    end: int
    new: _Text


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A string in a JSON value. ``group``: the path with a choice's index for its place in the list."""

    path: tuple[str | int, ...]
    group: tuple[str | int, ...]
    text: str


@dataclass(slots=True)
class _Event:
    """The JSON of one event of a stream, and where it stands."""

    start: int
    end: int
    value: Any
    changed: dict[tuple[str | int, ...], str] = field(default_factory=dict)


def _spans(text: str) -> list[tuple[int, int]]:
    """Where ``text`` looks like a secret, in order."""
    return [(match.end() - len(match[0].lstrip(" ")), match.end()) for match in _SECRETS.finditer(text)]


def _is_secret_key(name: str) -> bool:
    return name not in _JSON_EXCEPT and is_secret_name(name)


def _parameter(match: re.Match[str]) -> str:
    return f"{match[1]}={REDACTED}" if is_secret_name(match[1]) else match[0]


def _leaves(value: Any) -> Iterator[_Leaf]:
    """The strings of ``value``, without recursion: a stranger says how deep it is."""
    open_values: list[tuple[Any, tuple[str | int, ...], tuple[str | int, ...]]] = [(value, (), ())]
    while open_values:
        value, path, group = open_values.pop()
        if isinstance(value, str):
            yield _Leaf(path, group, value)
        elif isinstance(value, dict):
            open_values += [
                (child, (*path, key), (*group, key)) for key, child in value.items() if isinstance(child, _WITH_TEXT)
            ]
        elif isinstance(value, list):
            open_values += [
                (child, (*path, place), (*group, _index(child, place)))
                for place, child in enumerate(value)
                if isinstance(child, _WITH_TEXT)
            ]


def _index(value: Any, place: int) -> int:
    index = value.get("index") if isinstance(value, dict) else None
    return index if type(index) is int else place


def _leaf_spans(leaf: _Leaf) -> list[tuple[int, int]]:
    name = leaf.path[-1] if leaf.path else ""
    if isinstance(name, str) and leaf.text and _is_secret_key(name):
        return [(0, len(leaf.text))]
    return _spans(leaf.text)


def _replaced(value: Any, path: tuple[str | int, ...], changed: dict[tuple[str | int, ...], str]) -> Any:
    if isinstance(value, str):
        return changed.get(path, value)
    if isinstance(value, dict):
        return {key: _replaced(child, (*path, key), changed) for key, child in value.items()}
    if isinstance(value, list):
        return [_replaced(child, (*path, place), changed) for place, child in enumerate(value)]
    return value


def _json_edits(body: bytes) -> list[_Edit[bytes]]:
    """What to change in the JSON of a body, or of the events of a stream."""
    whole = _parsed(body)
    if whole is not None:
        events = [_Event(0, len(body), whole)]
    else:
        found = ((match, _parsed(match[1])) for match in _EVENT.finditer(body))
        events = [_Event(match.start(1), match.end(1), value) for match, value in found if value is not None]
    _scrub_events(events)
    return [
        _Edit(event.start, event.end, _written(_replaced(event.value, (), event.changed)))
        for event in events
        if event.changed
    ]


def _scrub_events(events: list[_Event]) -> None:
    """Mark what changes in each event: what is secret alone, and what is only together with other events."""
    groups: dict[tuple[str | int, ...], list[tuple[_Event, _Leaf]]] = {}
    for event in events:
        for leaf in _leaves(event.value):
            groups.setdefault(leaf.group, []).append((event, leaf))
    for members in groups.values():
        texts = _scrub_pieces([leaf for _, leaf in members])
        for (event, leaf), text in zip(members, texts, strict=True):
            if text != leaf.text:
                event.changed[leaf.path] = text


def _scrub_pieces(leaves: Sequence[_Leaf]) -> list[str]:
    """Pieces of one text without secrets; what replaces one stands in the piece in which it began."""
    texts = [leaf.text for leaf in leaves]
    spans = _spans("".join(texts))
    start = 0
    for leaf in leaves:
        spans += [(start + first, start + end) for first, end in _leaf_spans(leaf)]
        start += len(leaf.text)
    return _spread(texts, [_Edit(*span, REDACTED) for span in _merged(spans)])


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """``spans`` in order, those that overlap as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _spread(pieces: Sequence[_Text], edits: Sequence[_Edit[_Text]]) -> list[_Text]:
    """Apply ``edits`` (in order, apart from each other) to what ``pieces`` are together, and cut it as it was."""
    result: list[_Text] = []
    start, number = 0, 0
    for piece in pieces:
        end, position, edited = start + len(piece), start, piece[:0]
        while number < len(edits) and edits[number].start < end:
            edit = edits[number]
            if edit.start >= start:
                edited += piece[position - start : edit.start - start] + edit.new
            position = min(edit.end, end)
            if edit.end > end:
                break  # it goes on in the next piece
            number += 1
        result.append(edited + piece[position - start :])
        start = end
    return result


def _parsed(data: bytes) -> Any:
    """The JSON object or list that ``data`` is; ``None`` for anything else, and for what is nested too deep."""
    if not data.lstrip().startswith((b"{", b"[")):
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if _is_flat(value) else None


def _is_flat(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        children = (child.values() if isinstance(child, dict) else child for child in level)
        level = [child for values in children for child in values if isinstance(child, dict | list)]
        if not level:
            return True
    return False


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()
