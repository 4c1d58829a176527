"""What a provider's recent past says about asking it again. Pure: every method is told the time (seconds, any clock).

A record belongs to one model at one provider and goes through these states:

=========  ==================================================  =====================================================
state      means                                               leaves it
=========  ==================================================  =====================================================
CLOSED     it is asked                                         OPEN after ``open_after`` failures in a row, or when
                                                               half of the last :data:`WINDOW` answers were failures
OPEN       it is left alone                                    PROBING after the open time; CLOSED by a success
PROBING    one request at a time may try                       CLOSED by a success; OPEN by a failure, for twice as long
RESTING    it asked to be left alone (``Retry-After``, or it   the state before, when that time is over,
           said that it has no room)                           or :data:`_LONGEST_REST_S`
=========  ==================================================  =====================================================

An answer that was under way when the state changed counts, but bends no time: a failure while OPEN does not prolong
it, a success while RESTING does not end it. A refusal that is the caller's fault is no failure: the provider works. An
answer that nobody waited for says nothing. Failures are forgotten over time, so that a provider that nobody asks
because of its past is asked again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

WINDOW: Final = 10
"""Answers that are looked at for a provider that fails every now and then."""

_HALF_LIFE_S: Final = 30.0
"""Seconds in which half of the blame is forgotten."""

_NEWEST: Final = 0.2
"""Weight of the newest measurement in a running mean."""

_LONGEST_REST_S: Final = 300.0
"""Who asked for more (a quota of a day) is asked again after that: it may have been topped up, and a delay may have
been read where none was meant. So the failure of one request costs the others minutes, not hours."""

RESTS: Final = frozenset({"rate_limit_exceeded", "server_is_overloaded"})
"""Failures with which a provider asks to be left alone."""

_LASTING: Final = frozenset({"upstream_auth_failed", "upstream_model_unavailable", "upstream_quota_exhausted"})
"""Nothing but an operator ends these, so the first is enough. It opens for no longer than any other."""


class HealthState(Enum):
    """See the module's table."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"
    RESTING = "resting"


@dataclass(frozen=True, slots=True)
class HealthRules:
    """Failures in a row that open, and for how many seconds at first and at most."""

    open_after: int = 3
    open_s: float = 5.0
    open_max_s: float = 60.0


@dataclass(eq=False, slots=True)
class Health:
    """One record. See the module."""

    rules: HealthRules
    failures_in_row: int = 0
    first_token_s: float | None = None
    """Running mean of the time to the first token."""
    rest_code: str = ""
    """The catalogue code with which it last asked to be left alone."""
    _recent: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _blame: float = 0.0
    _blame_at_s: float = 0.0
    _is_open: bool = False
    _opened_for_s: float = 0.0
    _open_until_s: float = float("-inf")
    _rest_until_s: float = float("-inf")
    _probe_is_out: bool = False

    def state(self, now_s: float) -> HealthState:
        """Which it is in."""
        if now_s < self._rest_until_s:
            return HealthState.RESTING
        if not self._is_open:
            return HealthState.CLOSED
        return HealthState.OPEN if now_s < self._open_until_s else HealthState.PROBING

    def admits(self, now_s: float) -> bool:
        """Whether a request should go there at that time."""
        state = self.state(now_s)
        return state is HealthState.CLOSED or (state is HealthState.PROBING and not self._probe_is_out)

    def rest_s(self, now_s: float) -> float:
        """Seconds for which it asked to be left alone."""
        return max(0.0, self._rest_until_s - now_s)

    def available_in_s(self, now_s: float) -> float:
        """Seconds until it may be asked again."""
        return max(self.rest_s(now_s), self._open_until_s - now_s if self._is_open else 0.0)

    def opens_in_s(self, now_s: float) -> float:
        """Seconds until a request should go there: 0 now, infinite while a probe is out, whose end decides."""
        return 0.0 if self.admits(now_s) else self.available_in_s(now_s) or float("inf")

    def blame(self, now_s: float) -> float:
        """From 0 (it works) to 1 (it fails), the past counting less and less."""
        return float(self._blame * 0.5 ** ((now_s - self._blame_at_s) / _HALF_LIFE_S))

    def begin(self, now_s: float) -> bool:
        """A request goes there. Returns whether it is the probe, which :meth:`end` must be told."""
        is_probe = not self._probe_is_out and self.state(now_s) is HealthState.PROBING
        self._probe_is_out = self._probe_is_out or is_probe
        return is_probe

    def end(self, *, is_probe: bool) -> None:
        """A request is over, whatever became of it."""
        if is_probe:
            self._probe_is_out = False

    def succeed(self, now_s: float, first_token_s: float | None) -> None:
        """It answered, or refused what was the caller's fault."""
        self._note(now_s, failed=False)
        self.failures_in_row, self._opened_for_s, self._is_open = 0, 0.0, False
        if first_token_s is not None:
            before = self.first_token_s
            self.first_token_s = first_token_s if before is None else before + _NEWEST * (first_token_s - before)

    def fail(self, now_s: float, code: str, retry_after_s: float | None) -> None:
        """It failed, with a catalogue code and the delay that it asked for."""
        if code in RESTS:
            rest_s = min(_LONGEST_REST_S, retry_after_s or self.rules.open_s)
            self.rest_code, self._rest_until_s = code, max(self._rest_until_s, now_s + rest_s)
            return
        self._note(now_s, failed=True)
        self.failures_in_row += 1
        if now_s >= self._open_until_s if self._is_open else self._has_enough(code):
            self._open(now_s)

    def _note(self, now_s: float, *, failed: bool) -> None:
        self._recent.append(failed)
        blame = self.blame(now_s)
        self._blame, self._blame_at_s = blame + _NEWEST * (failed - blame), now_s

    def _has_enough(self, code: str) -> bool:
        in_row = self.failures_in_row >= self.rules.open_after or code in _LASTING
        return in_row or (len(self._recent) == WINDOW and sum(self._recent) * 2 >= WINDOW)

    def _open(self, now_s: float) -> None:
        self._is_open = True
        self._opened_for_s = min(self.rules.open_max_s, max(self.rules.open_s, self._opened_for_s * 2))
        self._open_until_s = now_s + self._opened_for_s
        self._recent.clear()
