"""What a lowered schema asks of a parser that follows all alternatives at once. Pure.

llama.cpp keeps one state for every way in which the text so far can be read. A schema that reads the same text in many
ways costs it time and memory without bound: ten array alternatives that refer back to themselves took its process down
after a dozen tokens. :func:`problems` finds, in a schema of :class:`coterie.engines.schema_lowering.Lowering`:

* a reference that leads back to itself without a bracket in between (no value, or infinitely many readings);
* a definition that no finite value satisfies;
* alternatives that begin alike inside a recursion: their readings double with every level;
* more than :data:`MOST_READINGS` readings without one, or more than :data:`MOST_STATES` states;
* a ``oneOf`` whose alternatives are not visibly exclusive, because the engine enforces ``anyOf`` only.

Two alternatives begin alike where both are arrays, or both are objects that are not told apart by their first required
property (by its name, its type, or a value of ``const`` or ``enum``). Scalars end soon: they count as states only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Final, TypeVar

Node = Mapping[str, Any]
_Known = TypeVar("_Known")

MOST_READINGS: Final = 64
"""Alternatives that begin alike: they stay open for long."""

MOST_STATES: Final = 1_000
"""States at once, with those that end soon: each value of an ``enum`` and each optional property is one."""

_ENDLESS: Final = 1_000_000

_KIND_OF_VALUE: Final = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
_ANY: Final = frozenset({"object", "array", "string", "number", "boolean", "null"})
_CONTAINERS: Final = frozenset({"object", "array"})


@dataclass(frozen=True)
class _Edge:
    """One definition refers to another."""

    target: str
    doubled: bool
    """Through one of several alternatives that begin alike."""


class Graph:
    """The definitions of one lowered schema; the schema itself is the definition ``""``."""

    def __init__(self, definitions: Mapping[str, Node]) -> None:
        self._definitions = definitions
        self._kinds = _settle(definitions, dict.fromkeys(definitions, frozenset[str]()), _kinds)
        self._alike_of: dict[int, set[int]] = {}
        self._values_of: dict[int, frozenset[str]] = {}

    def problems(self) -> Iterator[tuple[str, str]]:
        """Name of the definition and reason, for each thing that must be refused. Stops where more cannot be asked."""
        bare_targets = {name: list(_bare_targets(node)) for name, node in self._definitions.items()}
        bare = [name for name in self._definitions if name in _reachable(bare_targets, name)]
        if bare:
            yield bare[0], "the reference only leads back to itself"
            return
        yield from self._not_exclusive()
        yield from self._endless()
        doubled = list(self._doubling())
        yield from doubled
        if not doubled:
            yield from self._too_wide()

    def _resolved(self, node: Node) -> Node:
        """``node``, or what it refers to."""
        while "$ref" in node:
            node = self._definitions[_target(node)]
        return node

    def _endless(self) -> Iterator[tuple[str, str]]:
        start = dict.fromkeys(self._definitions, False)
        finite = _settle(self._definitions, start, _finite)
        for name, ends in finite.items():
            if not ends:
                yield name, "no finite value can satisfy it"
                return

    def _doubling(self) -> Iterator[tuple[str, str]]:
        all_edges = {name: list(self._edges(node, doubled=False)) for name, node in self._definitions.items()}
        plain = {name: [edge.target for edge in edges] for name, edges in all_edges.items()}
        for name, edges in all_edges.items():
            for edge in edges:
                if edge.doubled and name in {edge.target, *_reachable(plain, edge.target)}:
                    yield name, "alternatives that begin alike refer back to themselves"
                    return

    def _edges(self, node: Node, *, doubled: bool) -> Iterator[_Edge]:
        if "$ref" in node:
            yield _Edge(_target(node), doubled)
            return
        alternatives = _alternatives(node)
        alike = self._alike(node)
        for index, child in enumerate(alternatives):
            yield from self._edges(child, doubled=doubled or index in alike)
        for child in _parts(node):
            yield from self._edges(child, doubled=doubled)

    def _too_wide(self) -> Iterator[tuple[str, str]]:
        ones = dict.fromkeys(self._definitions, 1)
        openings = _settle(self._definitions, dict(ones), _openings)
        for most, least_of in ((MOST_READINGS, _one), (MOST_STATES, lambda node: _states_within(node, openings))):
            judge = partial(self._states, least_of)
            for name, states in _settle(self._definitions, dict(ones), judge).items():
                if states > most:
                    yield name, f"more than {most} alternatives are open at once"
                    return

    def _states(self, least_of: Callable[[Node], int], node: Node, known: Mapping[str, int]) -> int:
        """States inside ``node`` at its worst place, counting at least ``least_of`` for each node."""
        if "$ref" in node:
            return known[_target(node)]
        alike = self._alike(node)
        counts = [self._states(least_of, child, known) for child in _alternatives(node)]
        together = sum(count for index, count in enumerate(counts) if index in alike)
        parts = (self._states(least_of, part, known) for part in _parts(node))
        return min(max([least_of(node), together, *counts, *parts]), _ENDLESS)

    def _alike(self, union: Node) -> set[int]:
        """Indexes of the alternatives that begin like another."""
        if id(union) not in self._alike_of:
            pairs = combinations(enumerate(_alternatives(union)), 2)
            self._alike_of[id(union)] = {
                index for (i, a), (j, b) in pairs if self._begin_alike(a, b) for index in (i, j)
            }
        return self._alike_of[id(union)]

    def _begin_alike(self, a: Node, b: Node) -> bool:
        shared = self._kinds_of(a) & self._kinds_of(b) & _CONTAINERS
        return bool(shared) and (
            "array" in shared or not self._told_apart_at_once(self._resolved(a), self._resolved(b))
        )

    def _told_apart_at_once(self, a: Node, b: Node) -> bool:
        first, second = _first_property(a), _first_property(b)
        if first is None or second is None:
            return False
        return first != second or self._exclusive(a["properties"][first], b["properties"][first])

    def _kinds_of(self, node: Node) -> frozenset[str]:
        return _kinds(node, self._kinds)

    def _exclusive(self, a: Node, b: Node) -> bool:
        """Whether it is plain that no value satisfies both."""
        kinds_a, kinds_b = self._kinds_of(a), self._kinds_of(b)
        if not kinds_a & kinds_b or self._values_differ(a, b):
            return True
        a, b = self._resolved(a), self._resolved(b)
        shared = set(a.get("required", ())) & set(b.get("required", ()))
        return kinds_a == kinds_b == {"object"} and any(
            self._values_differ(a["properties"][name], b["properties"][name]) for name in shared
        )

    def _values_differ(self, a: Node, b: Node) -> bool:
        first, second = self._listed(a), self._listed(b)
        return bool(first and second) and first.isdisjoint(second)

    def _listed(self, node: Node) -> frozenset[str]:
        """The values of ``const`` or ``enum``, comparable; empty where ``node`` has neither."""
        node = self._resolved(node)
        if id(node) not in self._values_of:
            self._values_of[id(node)] = frozenset(map(_canonical, _values(node)))
        return self._values_of[id(node)]

    def _not_exclusive(self) -> Iterator[tuple[str, str]]:
        for name, node in self._definitions.items():
            for union in _walk(node):
                if not all(self._exclusive(a, b) for a, b in combinations(union.get("oneOf", ()), 2)):
                    yield name, "the alternatives of 'oneOf' are not visibly exclusive; use 'anyOf'"
                    return


def _settle(
    definitions: Mapping[str, Node],
    known: dict[str, _Known],
    judge: Callable[[Node, Mapping[str, _Known]], _Known],
) -> dict[str, _Known]:
    """``judge`` every definition until nothing changes; inner ones were defined later, so they come first."""
    for _ in range(len(definitions) + 1):
        before = dict(known)
        for name in reversed(list(definitions)):
            known[name] = judge(definitions[name], known)
        if known == before:
            break
    return known


def _kinds(node: Node, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The JSON types of the values that ``node`` admits (``integer`` counts as ``number``)."""
    if "$ref" in node:
        return known[_target(node)]
    if values := _values(node):
        return frozenset(_KIND_OF_VALUE.get(type(value), "number") for value in values)
    if alternatives := _alternatives(node):
        return frozenset[str]().union(*(_kinds(child, known) for child in alternatives))
    types = node.get("type", ())
    types = [types] if isinstance(types, str) else types
    return frozenset("number" if kind == "integer" else kind for kind in types) or _ANY


def _finite(node: Node, known: Mapping[str, bool]) -> bool:
    if "$ref" in node:
        return known[_target(node)]
    if alternatives := _alternatives(node):
        return any(_finite(child, known) for child in alternatives)
    if isinstance(node.get("type"), list):
        return True
    properties = node.get("properties", {})
    if not all(_finite(properties[name], known) for name in node.get("required", ())):
        return False
    needed = [*node.get("prefixItems", ()), *([node["items"]] if node.get("minItems", 0) and "items" in node else [])]
    return all(_finite(child, known) for child in needed)


def _one(_node: Node) -> int:
    return 1


def _openings(node: Node, known: Mapping[str, int]) -> int:
    """States before the first character of ``node``."""
    if "$ref" in node:
        return known[_target(node)]
    if alternatives := _alternatives(node):
        return min(sum(_openings(child, known) for child in alternatives), _ENDLESS)
    types = node.get("type")
    return max(1, len(_values(node)), len(types) if isinstance(types, list) else 1)


def _states_within(node: Node, openings: Mapping[str, int]) -> int:
    """States at the first character of ``node``, or at the first name of an object."""
    return max(_openings(node, openings), len(node.get("properties", ())))


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in (*_alternatives(node), *_parts(node)):
        yield from _walk(child)


def _bare_targets(node: Node) -> Iterator[str]:
    """The definitions that ``node`` refers to without a bracket in between."""
    if "$ref" in node:
        yield _target(node)
    for child in _alternatives(node):
        yield from _bare_targets(child)


def _reachable(edges: Mapping[str, list[str]], start: str) -> set[str]:
    """Everything that ``start`` leads to; itself only where it leads back."""
    seen: set[str] = set()
    waiting = list(edges[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(edges[name])
    return seen


def _target(node: Node) -> str:
    return str(node["$ref"]).removeprefix("#/$defs/")


def _alternatives(node: Node) -> Sequence[Node]:
    found: Sequence[Node] = node.get("anyOf") or node.get("oneOf") or ()
    return found


def _parts(node: Node) -> Iterator[Node]:
    yield from node.get("properties", {}).values()
    if isinstance(node.get("additionalProperties"), dict):
        yield node["additionalProperties"]
    if "items" in node:
        yield node["items"]
    yield from node.get("prefixItems", ())


def _values(node: Node) -> list[Any]:
    return [node["const"]] if "const" in node else list(node.get("enum", ()))


def _first_property(node: Node) -> str | None:
    """The property that the engine writes first, where that is settled."""
    required = set(node.get("required", ()))
    return next((name for name in node.get("properties", {}) if name in required), None)


def _canonical(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)
