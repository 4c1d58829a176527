"""How an upstream can misbehave: the table of faults, and the names by which one is asked for. Pure.

A model's name chooses the fault: ``NAME[@NUMBER][:KEY=VALUE...]``, for example ``ok``, ``cut@40``,
``stall@5:seconds=3:tokens=20``. What ``NUMBER`` means is the fault's to say; every fault knows the options of
:data:`COMMON_OPTIONS` besides its own.

A number of tokens counts those of the answer at hand, also where that one continues another; where the answer has
fewer, the fault comes after the last one. So a fault that is asked for always happens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

MAX_NAME_CHARS: Final = 256
"""A longer model name is none."""

DEFAULT_TOKENS: Final = 60
"""Tokens of an answer for which nothing else was asked."""

MAX_TOKENS: Final = 1_000_000
"""Tokens of an answer at most, whatever was asked for."""

Value: TypeAlias = int | float | str | None
Applies: TypeAlias = Literal["any", "answer", "stream", "plain"]


@dataclass(frozen=True, slots=True)
class Option:
    """A setting of a fault. The type of ``default`` is the type of its values; ``None`` stands for text."""

    default: Value
    about: str
    choices: tuple[str, ...] = ()
    most: float = 86_400
    """The greatest number."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to misbehave.

    ``applies`` says where: ``any`` endpoint, in place of an answer; to the ``answer`` of chat and completions; or only
    to their ``stream`` or ``plain`` answers, and the others are good. ``alone`` and ``with_second`` say what a perfect
    gateway makes of it where this is its only provider, and where it has a healthy second one.
    """

    name: str
    applies: Applies
    summary: str
    alone: str
    with_second: str
    number: Option | None = None
    options: Mapping[str, Option] = field(default_factory=dict)

    @property
    def pattern(self) -> str:
        """The fault's name with everything that it knows, filled with the defaults."""
        number = "" if self.number is None else f"@{self.number.default}"
        return self.name + number + "".join(f":{name}={option.default}" for name, option in self.options.items())


COMMON_OPTIONS: Final[Mapping[str, Option]] = {
    "tokens": Option(
        0, f"tokens of a whole answer; 0: what the request allows, else {DEFAULT_TOKENS}", most=MAX_TOKENS
    ),
    "rate": Option(0.0, "tokens a second; 0: the server's setting", most=100_000),
    "seed": Option(0, "changes the words of the answer", most=1_000_000_000),
    "id": Option(None, "sets apart what is counted for each name"),
    "marker": Option(None, "stands in every body of a failure like a secret that must not leak"),
}
"""What every fault knows."""

_SAME: Final = "the other answers; the client sees a success"
_GOOD: Final = "the answer, as if nothing were odd"
_CONTINUED: Final = "the other continues: one unbroken answer"
_BROKEN: Final = "what came, then one error event; plain: an error 502"
_BEFORE: Final = "an error 502"
_CALLERS: Final = "the client's error 400 at once; the other is not asked"

_TOKEN: Final = Option(40, "tokens before it", most=MAX_TOKENS)
_FIRST: Final = Option(0, "tokens before it", most=MAX_TOKENS)

OVERFLOW_STYLES: Final = ("openai", "vllm", "llamacpp", "sglang", "ollama", "tgi")
ERROR_STYLES: Final = ("openai", "vllm", "sglang", "llamacpp", "tgi", "openrouter", "text")


def _style(styles: tuple[str, ...]) -> Mapping[str, Option]:
    return {"style": Option(styles[0], "whose words", choices=styles)}


_TABLE: Final = (
    Fault("ok", "any", "no fault", _GOOD, "the answer of either"),
    # In place of an answer
    Fault(
        "rate-limit", "any", "429 with Retry-After", "an error 429 with that delay", _SAME,
        Option(2.0, "seconds to wait"),
    ),
    Fault("rate-limit-bare", "any", "429 without Retry-After", "an error 429 with a delay of its own", _SAME),
    Fault("error-once", "any", "500 to the first request of this name", "tries again; a success", "a success"),
    Fault("unavailable", "any", "503, always", "an error 503", _SAME),
    Fault("reset", "any", "the connection is reset before any header", _BEFORE, _SAME),
    Fault("silent", "any", "takes the request and never answers", "an error 504 at its deadline", _SAME),
    Fault("unauthorized", "any", "401: the upstream's key is wrong", "an error 502, never 401", _SAME),
    Fault("no-model", "any", "404: the model does not exist", "an error 502, or 404 for the client's name", _SAME),
    Fault(
        "no-credit", "any", "the account is empty: 402, or 429 insufficient_quota",
        "an error 503 without a delay to retry after", _SAME, options=_style(("openrouter", "openai", "deepseek")),
    ),
    Fault("overflow", "any", "400: the context is full", _CALLERS, _CALLERS, options=_style(OVERFLOW_STYLES)),
    Fault("filter", "any", "400: the prompt was filtered", _CALLERS, _CALLERS),
    Fault("html", "any", "502 with a proxy's HTML page", "an error 502 without the page", _SAME),
    Fault("redirect", "any", "302 to another address", "an error 502; the address is not asked", _SAME),
    Fault("endless-headers", "any", "200, then headers without end", _BEFORE, _SAME),
    Fault("blank", "any", "200 with an empty body", _BEFORE, _SAME),
    Fault(
        "flap", "any", "503 to every n-th request, or by turns to 'run' and to none",
        "tries again, or an error 503", _SAME, Option(2, "every how many-th fails", most=1_000_000),
        {"run": Option(0, "requests that fail in a row, if not 0", most=1_000_000)},
    ),
    # Late, and broken off
    Fault(
        "slow-first", "answer", "a pause before the first token", "the answer, or an error 504 at its deadline", _SAME,
        Option(20.0, "seconds"), {"before": Option("token", "what waits", choices=("token", "headers"))},
    ),
    Fault("cut", "answer", "the connection is reset at a token", _BROKEN, _CONTINUED, _TOKEN),
    Fault("close", "answer", "the connection is closed at a token, the body unfinished", _BROKEN, _CONTINUED, _TOKEN),
    Fault("end", "answer", "the body ends at a token: no finish reason, no [DONE]", _BROKEN, _CONTINUED, _TOKEN),
    Fault(
        "stall", "answer", "a pause at a token, then the rest", "the whole answer, or an error at its deadline",
        "waits, or the other continues", _TOKEN, {"seconds": Option(30.0, "length of the pause")},
    ),
    Fault(
        "role-only", "stream", "a first chunk with a role alone, then a failure", _BEFORE, _SAME,
        options={"then": Option("reset", "the failure", choices=("reset", "close", "end", "error"))},
    ),
    Fault("empty", "stream", "nothing but [DONE]", _BEFORE, _SAME),
    # Content that is wrong
    Fault("malformed", "answer", "JSON that is none at a token, then the rest", _BROKEN, _CONTINUED, _TOKEN),
    Fault("bad-utf8", "answer", "bytes that are not UTF-8 at a token, then the rest", _BROKEN, _CONTINUED, _TOKEN),
    Fault("truncated", "plain", "half of the JSON, with the length of that half", _BEFORE, _SAME),
    Fault("no-done", "stream", "all but [DONE]", _GOOD, _GOOD),
    Fault("no-finish", "answer", "all but the finish reason", _BROKEN, "an error, or the other continues"),
    Fault("double-finish", "stream", "the finish reason twice", "one finish reason, or an error", _GOOD),
    Fault(
        "after-finish", "stream", "tokens after the finish reason", "the answer up to it, or an error",
        "the answer up to it, or an error; plain: the answer",
    ),
    Fault("finish-error", "answer", "finish reason 'error' at a token", _BROKEN, _CONTINUED, _TOKEN),
    Fault("filter-finish", "answer", "finish reason content_filter at a token", _GOOD, _GOOD, _TOKEN),
    Fault("error-event", "stream", "an error event in the stream", _BROKEN, _CONTINUED, _FIRST, _style(ERROR_STYLES)),
    Fault("error-body", "plain", "200 with an error object", _BEFORE, _SAME, options=_style(ERROR_STYLES)),
    Fault(
        "wrong-type", "answer", "200 with a page of HTML, or (to a stream) with plain JSON", _BEFORE, _SAME,
        options={"as": Option("html", "what comes", choices=("html", "json"))},
    ),
    Fault("no-usage", "answer", "no usage, though asked for", _GOOD + ", or an error", _GOOD),
    Fault(
        "no-continue", "answer", "400 where the last message is the assistant's, else good", _GOOD,
        "as second: what came of the first, then one error event",
    ),
    # Odd on the wire, but right
    Fault("split", "answer", "each byte of the body a write of its own", _GOOD, _GOOD),
    Fault(
        "coalesce", "stream", "several events in one write", _GOOD, _GOOD,
        Option(0, "events in a write; 0: all", most=MAX_TOKENS),
    ),
    Fault("crlf", "stream", "lines end with CRLF", _GOOD, _GOOD),
    Fault("comments", "stream", "comments and blank lines between the events", _GOOD, _GOOD),
    Fault("bom", "stream", "a byte order mark first", _GOOD, _GOOD),
    Fault(
        "huge", "stream", "one event of many megabytes after the first token", "the answer, or an error; no crash",
        "the same", Option(10, "megabytes", most=100),
    ),
    # Tools
    Fault("tool-call", "answer", "a call of the request's first tool", _GOOD, _GOOD),
    Fault("tool-cut", "stream", "a reset amid a tool call's arguments", _BROKEN, "an error: a call is not continued"),
)  # fmt: skip

FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _TABLE}
"""Every fault by name."""


class UnknownFaultError(ValueError):
    """No fault has this name."""


class FaultSyntaxError(ValueError):
    """The fault exists, but not with this number or option. The text says what would be right."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A fault with its number and all its options."""

    fault: Fault
    number: float
    options: Mapping[str, Value]

    @property
    def count(self) -> int:
        """The number, where it counts something."""
        return int(self.number)

    def text(self, option: str) -> str:
        """An option's value; empty for none."""
        return str(self.options[option] or "")

    def amount(self, option: str) -> float:
        """An option's value as a number."""
        return float(self.options[option] or 0)


_GRAMMAR: Final = re.compile(r"(?P<name>[a-z0-9-]+)(?:@(?P<number>[^:]*))?(?P<options>(?::[^:]*)*)")


def parse(model: str) -> Plan:
    """What the name of a model asks for.

    Raises :class:`UnknownFaultError`, or :class:`FaultSyntaxError` where the fault has no such number or option.
    """
    parts = _GRAMMAR.fullmatch(model) if len(model) <= MAX_NAME_CHARS else None
    fault = FAULTS.get(parts["name"]) if parts else None
    if fault is None or parts is None:
        raise UnknownFaultError(model[:MAX_NAME_CHARS])
    return Plan(fault, _number(fault, parts["number"]), _options(fault, parts["options"]))


def _number(fault: Fault, written: str | None) -> float:
    if fault.number is None:
        if written is not None:
            raise FaultSyntaxError(f"'{fault.name}' takes no number")
        return 0
    if written is None:
        return float(fault.number.default or 0)
    return float(_value(fault.number, written, f"the number of '{fault.name}'") or 0)


def _options(fault: Fault, written: str) -> Mapping[str, Value]:
    known = {**COMMON_OPTIONS, **fault.options}
    values: dict[str, Value] = {name: option.default for name, option in known.items()}
    for part in written.split(":")[1:]:
        name, equals, value = part.partition("=")
        if name not in known or not equals:
            raise FaultSyntaxError(f"'{fault.name}' has no option '{part}'; it has {', '.join(known)}")
        values[name] = _value(known[name], value, f"'{name}' of '{fault.name}'")
    return values


def _value(option: Option, written: str, name: str) -> Value:
    if option.choices:
        if written not in option.choices:
            raise FaultSyntaxError(f"{name} is one of {', '.join(option.choices)}")
        return written
    if option.default is None:
        return written
    whole = isinstance(option.default, int)
    if not re.fullmatch(r"[0-9]{1,12}" if whole else r"[0-9]{1,12}(\.[0-9]{1,12})?", written):
        raise FaultSyntaxError(f"{name} is {'a whole' if whole else 'a'} number, not '{written[:40]}'")
    value = int(written) if whole else float(written)
    if value > option.most:
        raise FaultSyntaxError(f"{name} is at most {option.most:g}")
    return value
