"""What a check is, and what comes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from coterie.conform.exchange import Client, Reply
from coterie.dialects.chat_validator import Violation

OPENAI: Final = "OpenAI OpenAPI 2.3.0"
OPEN: Final = "Open Responses 2026-04-24"
BOTH: Final = f"{OPENAI}; {OPEN}"
CONTRACT: Final = "contract"
"""What the official SDKs and the clients in use need to tell one failure from another; no specification says it, though
it is mostly OpenAI's practice."""
HTTP: Final = "RFC 9110"

Group = Literal["errors", "chat", "responses", "storage", "websocket"]
GROUPS: Final[tuple[Group, ...]] = ("errors", "chat", "responses", "storage", "websocket")

Verdict = Literal["pass", "fail", "skip"]

_MAX_RECEIVED_CHARS: Final = 1000


@dataclass(frozen=True, slots=True)
class Failure:
    """A rule that an answer breaks: its name and words, what was found, the request, and the bytes received."""

    rule: str
    words: str
    found: str
    asked: str = ""
    received: str = ""


class Skip(Exception):  # noqa: N818 - it is no error
    """A check that cannot be made of this server; the text says why."""


class Site:
    """What a check has at hand: the client, the model, and what other checks have got already."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.model = client.target.model
        self.kept: dict[str, Any] = {}
        """Answers that several checks look at, by a name that they agree on."""

    async def ask(self, method: str, path: str, body: bytes | Mapping[str, Any] | None = None, **how: Any) -> Reply:
        """One exchange; see :meth:`Client.ask`."""
        return await self.client.ask(method, path, body, **how)

    async def once(self, name: str, make: Callable[[], Awaitable[Reply]]) -> Reply:
        """The answer that is kept under ``name``; asked for once."""
        if name not in self.kept:
            self.kept[name] = await make()
        reply: Reply = self.kept[name]
        return reply


Run = Callable[[Site], Awaitable[Iterable[Failure]]]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at. ``says`` is what should hold, in short, and ``source`` who says it.

    ``run`` returns what is wrong, nothing where all is well, and raises :class:`Skip`.
    """

    id: str
    group: Group
    says: str
    source: str
    run: Run


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a check. ``reason`` says why it was skipped."""

    check: Check
    verdict: Verdict
    failures: tuple[Failure, ...] = ()
    reason: str = ""
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Rules:
    """Names of rules and their words, and failures made of them."""

    words: Mapping[str, str] = field(default_factory=dict)

    def broken(self, rule: str, found: str, reply: Reply | None = None) -> Failure:
        """The failure of ``rule``, seen in ``reply``."""
        return Failure(rule, self.words[rule], found, reply.asked if reply else "", received(reply) if reply else "")

    def judged(self, violations: Iterable[Violation], reply: Reply) -> Iterator[Failure]:
        """What a validator found in a stream."""
        for violation in violations:
            yield Failure(violation.rule, self.words[violation.rule], violation.message, reply.asked, violation.excerpt)

    def found(self, findings: Iterable[tuple[str, str]], reply: Reply) -> Iterator[Failure]:
        """What rules about a value found in an answer."""
        for rule, message in findings:
            yield self.broken(rule, message, reply)


def received(reply: Reply) -> str:
    """What came, in short."""
    head = f"HTTP {reply.status} {reply.headers.get('content-type', '')}".rstrip() if reply.status else "(no answer)"
    text = reply.body[: _MAX_RECEIVED_CHARS * 4].decode("utf-8", "replace")
    cut = text[:_MAX_RECEIVED_CHARS] + (" ..." if len(text) > _MAX_RECEIVED_CHARS else "")
    broken = f"\n({reply.broken})" if reply.broken else ""
    return f"{head}\n{cut}{broken}"
