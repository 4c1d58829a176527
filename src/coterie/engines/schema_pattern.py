r"""A schema's ``pattern``, written so that llama.cpp enforces it. Pure.

llama.cpp turns a pattern into a grammar for the JSON *text* of a string, by rules of its own: what it cannot translate
it replaces by "any string" without an error, ``.`` and ``[^a]`` admit a bare quote (the answer is then no JSON at all),
and a quantifier after an escape binds the literals before it too (``a\.+`` becomes ``(a.)+``).

So a pattern is read here, and written again with every character as a class of its own:

* what is written admits only strings that the pattern admits; it may admit fewer: no quote, no backslash and no control
  character, which the text of a JSON string has to escape, and only ASCII for ``\w`` and only a blank for ``\s``;
* the pattern must be anchored at both ends;
* what cannot be written so is refused: lookaround, named groups, back-references, lazy quantifiers, other escapes;
* repetitions are counted, nested ones multiplied, because the engine expands them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

LONGEST_PATTERN: Final = 512
"""Characters of a pattern."""

MOST_REPETITIONS: Final = 2000
"""Characters that the bounded parts of a pattern may stand for; llama.cpp refuses a repetition of more."""

DEEPEST_GROUP: Final = 16

_PIECE: Final = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\(\?:|\{\d{1,9}(?:,\d{0,9})?\}|.", re.DOTALL)
_REPEAT: Final = re.compile(r"\{(\d+)(,?)(\d*)\}")
_CLASS_ITEM: Final = re.compile(r"\\(?P<escape>.)|(?P<first>[^\\])-(?P<last>[^\\])|(?P<char>.)", re.DOTALL)

_SETS: Final = {"d": "0-9", "w": "A-Za-z0-9_", "s": " "}
_LITERAL_ESCAPES: Final = frozenset(".^$|()[]{}*+?/-")
_UNBOUNDED: Final = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_NOT_BARE_IN_JSON: Final = '\\"\\\\\\x00-\\x1F'
"""Class members that JSON escapes, as a class spells them: excluded wherever a pattern says "anything but"."""


@dataclass
class _Group:
    """What was written since an opening parenthesis."""

    opened_by: str
    parts: list[str] = field(default_factory=list)
    size: int = 0
    """Characters that the finished alternatives and this one stand for."""
    atom_size: int = 0
    """Of them, those of the last atom."""
    quantifiable: bool = False
    empty_alternative: bool = True
    nullable: bool = False
    """Whether a finished alternative can be the empty string."""
    sequence_nullable: bool = True
    before_atom_nullable: bool = True
    atom_nullable: bool = False


def lower_pattern(pattern: str) -> str:
    """``pattern`` for llama.cpp. Raises ``ValueError`` with the reason, for a person, where it cannot be enforced."""
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"the pattern is longer than {LONGEST_PATTERN} characters")
    pieces: list[str] = _PIECE.findall(pattern)
    if len(pieces) < 2 or pieces[0] != "^" or pieces[-1] != "$":
        raise ValueError("a pattern must begin with '^' and end with '$'")
    stack = [_Group("^")]
    for piece in pieces[1:-1]:
        _take(stack, piece)
    if len(stack) > 1:
        raise ValueError("the pattern has an unclosed group")
    _end_alternative(stack[0], may_be_empty=len(pieces) == 2)
    return "^" + "".join(stack[0].parts) + "$"


def _take(stack: list[_Group], piece: str) -> None:
    if piece in ("(", "(?:"):
        _open(stack, piece)
    elif piece == ")":
        _close(stack)
    elif piece == "|":
        _end_alternative(stack[-1])
        stack[-1].parts.append("|")
    elif piece in _UNBOUNDED or _REPEAT.fullmatch(piece):
        _repeat(stack[-1], piece)
    else:
        _add_atom(stack[-1], _atom(piece), size=1, nullable=False)


def _open(stack: list[_Group], piece: str) -> None:
    if len(stack) > DEEPEST_GROUP:
        raise ValueError("the pattern's groups are nested too deeply")
    stack.append(_Group(piece))


def _close(stack: list[_Group]) -> None:
    if len(stack) == 1:
        raise ValueError("the pattern has an unbalanced ')'")
    group = stack.pop()
    _end_alternative(group)
    _add_atom(stack[-1], f"({''.join(group.parts)})", size=group.size, nullable=group.nullable)


def _add_atom(group: _Group, text: str, *, size: int, nullable: bool) -> None:
    group.parts.append(text)
    group.size += size
    group.atom_size = size
    group.quantifiable = True
    group.empty_alternative = False
    group.before_atom_nullable = group.sequence_nullable
    group.atom_nullable = nullable
    group.sequence_nullable = group.sequence_nullable and nullable


def _end_alternative(group: _Group, *, may_be_empty: bool = False) -> None:
    if group.empty_alternative and not may_be_empty:
        raise ValueError("the pattern has an empty group or alternative")
    group.nullable = group.nullable or group.sequence_nullable
    group.empty_alternative = group.sequence_nullable = True
    group.quantifiable = False


def _repeat(group: _Group, piece: str) -> None:
    if not group.quantifiable:
        raise ValueError("the pattern has a lazy quantifier, or a quantifier with nothing to repeat")
    low, high = _UNBOUNDED[piece] if piece in _UNBOUNDED else _bounds(piece)
    if group.atom_nullable:
        raise ValueError("the pattern repeats something that can be empty")
    times = low if high is None else high
    group.size += group.atom_size * (max(times, 1) - 1)
    if group.size > MOST_REPETITIONS:
        raise ValueError(f"the pattern's repetitions stand for more than {MOST_REPETITIONS} characters")
    group.parts.append(piece)
    group.quantifiable = False
    group.sequence_nullable = group.before_atom_nullable and low == 0


def _bounds(piece: str) -> tuple[int, int | None]:
    match = _REPEAT.fullmatch(piece)
    low_text, comma, high_text = match.groups() if match else ("", "", "")
    low = int(low_text)
    high = (int(high_text) if high_text else None) if comma else low
    if high is not None and (high < low or high == 0):
        raise ValueError(f"the pattern's repetition '{piece}' cannot be satisfied")
    return low, high


def _atom(piece: str) -> str:
    """A class that stands for one character of the pattern."""
    if piece == ".":
        return f"[^{_NOT_BARE_IN_JSON}]"
    if piece[0] == "[" and len(piece) > 1:
        return _class(piece[1:-1])
    if piece[0] == "\\" and len(piece) == 2:
        return f"[{_escaped(piece[1])}]"
    if piece in "^$()[]{}?\\":
        raise ValueError(f"the pattern has '{piece}' where the engine cannot enforce it")
    return f"[{_member(piece)}]"


def _class(body: str) -> str:
    negated = body.startswith("^")
    items = [_class_item(match) for match in _CLASS_ITEM.finditer(body[1:] if negated else body)]
    if not items:
        raise ValueError("the pattern has an empty character class")
    return f"[^{''.join(items)}{_NOT_BARE_IN_JSON}]" if negated else f"[{''.join(items)}]"


def _class_item(match: re.Match[str]) -> str:
    if match["escape"]:
        return _escaped(match["escape"])
    if match["char"]:
        return _member(match["char"])
    first, last = match["first"], match["last"]
    if not (first.isalnum() and last.isalnum() and first <= last and first.isascii() == last.isascii()):
        raise ValueError(f"the pattern's range '{first}-{last}' is not one of letters or digits")
    if first.isascii() and any(bad in "\\[]^" for bad in map(chr, range(ord(first), ord(last)))):
        raise ValueError(f"the pattern's range '{first}-{last}' mixes capital and small letters")
    return f"{first}-{last}"


def _escaped(char: str) -> str:
    if char in _SETS:
        return _SETS[char]
    if char in _LITERAL_ESCAPES:
        return _member(char)
    raise ValueError(f"the pattern's escape '\\{char}' cannot be enforced")


def _member(char: str) -> str:
    """``char`` as a member of a grammar's class, which knows no escapes but these and takes ``^`` and ``-`` amiss."""
    if char in '"\\' or ord(char) < 0x20:
        raise ValueError("the pattern asks for a quote, a backslash or a control character")
    return char if char.isalnum() or char in " _" or ord(char) > 0x7F else f"\\x{ord(char):02X}"
