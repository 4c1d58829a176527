"""Which of one request's failures count against the providers that it met. Pure: every method is told the time.

What a stranger sends must not close a provider to everybody else. So a failure that may be the request's counts only
when something speaks against that:

=========================================  =============================================================
a failure                                  counts
=========================================  =============================================================
that is the caller's fault                 as an answer: the provider works
of a request too large for a limit         not: others are not
of a full queue of the provider's own      not: asking again costs nothing, a rest would leave it run empty
of an answer cut off that should have had  not: there are servers that ignore ``n``
several choices
that asks for a rest                       at once
of the transport, or a deadline            at once
any other that may do better elsewhere     once another provider has answered the request, or failed otherwise; at the
                                           request's end where no other was tried, or one that would have been asked
                                           was left out; not where all failed alike
=========================================  =============================================================

(While one is left out they count, so that it is asked: else those before it could fail for ever.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from coterie.dispatch.choice import Candidate
from coterie.dispatch.health import RESTS
from coterie.errors import ApiError, Retry

DEADLINES: Final = frozenset(
    {"upstream_timeout", "upstream_connect_timeout", "upstream_total_timeout", "engine_timeout"}
)
"""Failures that took a deadline to find out."""

_AT_ONCE: Final = RESTS | DEADLINES | {"upstream_unreachable"}


class Blame:
    """The failures of one request, which asks for ``choices`` choices."""

    def __init__(self, choices: int = 1) -> None:
        self._choices = choices
        self._open: list[tuple[Candidate, ApiError]] = []
        """Those that count if something speaks for the request; all have one code."""

    def note(self, candidate: Candidate, error: ApiError, now_s: float) -> None:
        """A provider failed."""
        if error.entry.fault == "caller":
            candidate.health.succeed(now_s, None)
        elif not error.entry.elsewhere or self._is_nobodys(candidate, error):
            return
        elif error.code in _AT_ONCE:
            candidate.health.fail(now_s, error.code, error.retry_after_s)
        else:
            if self._open and self._open[0][1].code != error.code:
                self.settle(now_s)
            self._open.append((candidate, error))

    def settle(self, now_s: float) -> None:
        """Something speaks for the request: count what is open."""
        for candidate, error in self._open:
            candidate.health.fail(now_s, error.code, error.retry_after_s)
        self._open.clear()

    def end(self, untried: Sequence[Candidate], now_s: float) -> None:
        """The request is over; ``untried`` were not asked."""
        met = {candidate.provider.name for candidate, _ in self._open}
        if len(met) == 1 or any(candidate.health.admits(now_s) for candidate in untried):
            self.settle(now_s)
        self._open.clear()

    @property
    def is_open(self) -> bool:
        """Whether a failure waits for being counted."""
        return bool(self._open)

    def _is_nobodys(self, candidate: Candidate, error: ApiError) -> bool:
        if error.code == "rate_limit_exceeded":
            return error.retry is Retry.NEVER
        if error.code == "server_is_overloaded":
            return not candidate.offer.seats
        return error.code == "upstream_stream_interrupted" and self._choices > 1
