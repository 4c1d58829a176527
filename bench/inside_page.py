"""The page of what a request costs inside, in Markdown; and where the profiler saw calls and time go, by module and by
room. Pure, but for what it says of Python and for the names of the modules that are loaded."""

from __future__ import annotations

import cProfile
import platform
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Final

from bench.load_client import Order

DEAREST: Final = 10
"""How many modules the page names."""

_FAKES: Final = "this benchmark"
_REST: Final = "the rest of Python's library"
_NAMED: Final = frozenset({"asyncio", "contextlib"})
"""What is a room of its own in Python's library."""
_ALIASES: Final = {"pydantic_core": "pydantic", "bench": _FAKES}

_FROZEN: Final = re.compile(r"<frozen ([\w.]+)>")
_COMPILED: Final = re.compile(r" of '(\w+)\.[\w.]+' objects>|\b(\w+)\.[\w.]+>$")
"""Names the package of a function that is not written in Python, if it has one."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds, as the profiler counts them, and calls."""

    seconds: float = 0.0
    calls: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.calls + other.calls)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.seconds - other.seconds, self.calls - other.calls)

    def __mul__(self, factor: float) -> Cost:
        return Cost(self.seconds * factor, self.calls * factor)


@dataclass(frozen=True, slots=True)
class Spent:
    """What one answer, or one part of it, cost by module. ``python_calls``: those of functions written in Python."""

    modules: Mapping[str, Cost]
    python_calls: float

    @classmethod
    def of(cls, profile: cProfile.Profile, times: int) -> Spent:
        """What the profiler saw of so many answers, for one. A function without a module of its own (those of Python
        that are not written in Python, and those that are made at run time) counts with the module that calls it."""
        files = _files()
        modules: defaultdict[str, Cost] = defaultdict(Cost)
        python_calls = 0
        for entry in profile.getstats():
            python_calls += entry.callcount * isinstance(entry.code, CodeType)
            own = _module(entry.code, files)
            if own is not None:
                modules[own] += Cost(entry.inlinetime, entry.callcount)
            for callee in entry.calls or ():
                if _module(callee.code, files) is None:
                    modules[own or _REST] += Cost(callee.inlinetime, callee.callcount)
        return cls(modules, python_calls) * (1 / times)

    @property
    def calls(self) -> float:
        return sum(cost.calls for cost in self.modules.values())

    def __sub__(self, other: Spent) -> Spent:
        names = self.modules.keys() | other.modules.keys()
        costs = {name: self.modules.get(name, Cost()) - other.modules.get(name, Cost()) for name in names}
        return Spent(costs, self.python_calls - other.python_calls)

    def __mul__(self, factor: float) -> Spent:
        costs = {name: cost * factor for name, cost in self.modules.items()}
        return Spent(costs, self.python_calls * factor)

    def least(self, other: Spent) -> Spent:
        """The better of two measurements of the same, module by module: whatever came in between hit one of them."""
        names = self.modules.keys() & other.modules.keys()
        modules = {name: min(self.modules[name], other.modules[name], key=lambda cost: cost.seconds) for name in names}
        return Spent(modules, min(self.python_calls, other.python_calls))

    def rooms(self) -> Mapping[str, Cost]:
        """The same by room."""
        rooms: defaultdict[str, Cost] = defaultdict(Cost)
        for name, cost in self.modules.items():
            rooms[_room(name)] += cost
        return rooms


@dataclass(frozen=True, slots=True)
class Findings:
    """Microseconds of processor time in the best try of each order's answers, and the least that the profiler saw."""

    best_us: Mapping[Order, float]
    spent: Mapping[Order, Spent]
    plain_one: Order
    plain: Order
    short: Order
    long: Order
    tries: int

    @property
    def chunks(self) -> int:
        """By how many chunks the long stream is longer."""
        return self.long.tokens - self.short.tokens

    @property
    def chunk_us(self) -> float:
        return (self.best_us[self.long] - self.best_us[self.short]) / self.chunks

    @property
    def chunk_spent(self) -> Spent:
        return (self.spent[self.long] - self.spent[self.short]) * (1 / self.chunks)

    @property
    def stream_us(self) -> float:
        """A stream, beside its chunks."""
        return self.best_us[self.short] - self.short.tokens * self.chunk_us

    @property
    def stream_spent(self) -> Spent:
        return self.spent[self.short] - self.chunk_spent * self.short.tokens


def page(found: Findings) -> str:
    """The whole page."""
    plain, chunk = found.spent[found.plain_one], found.chunk_spent
    lines = [
        "# What a request costs inside",
        "",
        f"`make bench-inside` wrote this page: Python {platform.python_version()}. Coterie's server, dispatch and HTTP "
        "client ran in one process, between a client and an upstream that are played without sockets. These are costs "
        "without the kernel, with warm caches and one request at a time, and so smaller than those of "
        "[gateway.md](gateway.md): they tell how much of a request is the program's own, and where it goes.",
        "",
        "| | CPU, µs | calls | of them written in Python |",
        "|---|--:|--:|--:|",
        *(_answer(text, us, spent) for text, us, spent in _answers(found)),
        "",
        "## By room",
        "",
        "| | plain request of 1 token, time | calls | streamed chunk, time | calls |",
        "|---|--:|--:|--:|--:|",
        *_both(plain.rooms(), chunk.rooms()),
        "",
        f"## The {DEAREST} dearest modules",
        "",
        *_modules("plain request of 1 token", plain),
        "",
        *_modules("streamed chunk", chunk),
        "",
        "## How it was measured",
        "",
        f"- CPU is the process's, in the best of {found.tries} tries in which all kinds took turns. The played client "
        f"and upstream are in it; what they take is the row *{_FAKES}*. Each try begins with nothing for the garbage "
        "collector to do, so what it does later for objects that outlive their request is not in it.",
        f"- A chunk is a stream of {found.long.tokens} tokens less one of {found.short.tokens}, by the token. Each "
        "token is a read of its own from the upstream, also for a plain request, and in a stream a write of its own to "
        "the client.",
        "- Every answer was checked: status 200, complete, and with as many tokens as were asked for.",
        "- Calls and shares of time are the profiler's, which watched as many tries more; the least of each module "
        "counts. It slows calls down and compiled code not, so the shares lean towards what calls much. Each time that "
        "a coroutine goes on is a call. Functions of Python itself that are not written in Python count with the "
        "module that calls them; so do httptools and most of uvloop, which the profiler does not see.",
        "",
    ]
    return "\n".join(lines)


def _answers(found: Findings) -> Iterator[tuple[str, float, Spent]]:
    for text, order in (("plain request", found.plain_one), ("plain request", found.plain), ("stream", found.short)):
        plural = "s" if order.tokens > 1 else ""
        yield f"{text} of {order.tokens} token{plural}", found.best_us[order], found.spent[order]
    yield "stream, beside its chunks", found.stream_us, found.stream_spent
    yield "streamed chunk", found.chunk_us, found.chunk_spent


def _answer(text: str, us: float, spent: Spent) -> str:
    return f"| {text} | {_number(us)} | {_number(spent.calls)} | {_number(spent.python_calls)} |"


def _both(plain: Mapping[str, Cost], chunk: Mapping[str, Cost]) -> Iterator[str]:
    of_plain, of_chunk = _shares(plain), _shares(chunk)
    for name in sorted(plain.keys() | chunk.keys(), key=lambda name: -of_plain(name)):
        if max(of_plain(name), of_chunk(name)) >= 0.0005:
            one, other = plain.get(name, Cost()), chunk.get(name, Cost())
            yield f"| {name} | {_cells(of_plain(name), one)} | {_cells(of_chunk(name), other)} |"


def _modules(title: str, spent: Spent) -> Iterable[str]:
    share = _shares(spent.modules)
    dearest = sorted(spent.modules, key=share, reverse=True)[:DEAREST]
    rows = (f"| {name} | {_cells(share(name), spent.modules[name])} |" for name in dearest)
    return (f"| {title} | time | calls |", "|---|--:|--:|", *rows)


def _shares(costs: Mapping[str, Cost]) -> Callable[[str], float]:
    """The share of time of each name. (A difference of two runs can be a little less than nothing: that is nothing.)"""
    total_s = sum(max(0.0, cost.seconds) for cost in costs.values())
    return lambda name: max(0.0, costs[name].seconds) / total_s if name in costs else 0.0


def _cells(share: float, cost: Cost) -> str:
    return f"{share:.1%} | {_number(max(0.0, cost.calls))}"


def _number(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _files() -> dict[str, str]:
    """The loaded module of each file."""
    files: dict[str, str] = {}
    for name, module in list(sys.modules.items()):
        file, spec = getattr(module, "__file__", None), getattr(module, "__spec__", None)
        if file is not None:
            files[file] = name if spec is None else spec.name  # the program's own name is not __main__
    return files


def _module(code: CodeType | str, files: Mapping[str, str]) -> str | None:
    """The module of a function, if it has one."""
    if isinstance(code, CodeType):
        frozen = _FROZEN.fullmatch(code.co_filename)
        return frozen[1] if frozen else files.get(code.co_filename)
    found = _COMPILED.search(code)
    package = found and (found[1] or found[2])
    return None if package in sys.stdlib_module_names else package


def _room(module: str) -> str:
    """Of Coterie a package, else the whole package that the module is of."""
    package, _, rest = module.partition(".")
    if package == "coterie":
        return f"coterie.{rest.partition('.')[0]}"
    if package in sys.stdlib_module_names and package not in _NAMED:
        return _REST
    return _ALIASES.get(package, package)
