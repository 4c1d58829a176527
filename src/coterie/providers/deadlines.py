"""The deadlines of one exchange with a provider: first token, idle between tokens, the whole answer.

They run on two timers for an exchange, none for a token; a reader who is slow stops the clock of the idle one, since
nobody is waiting for the provider then. Each ends the exchange with its own failure. (The connection's deadline is the
pool's.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coterie.engines.watchdog import Watchdog
from coterie.errors import ApiError


def late(limit_s: float, *, first: bool) -> ApiError:
    """A provider's failure to say the first thing, or the next one."""
    what = "No first token" if first else "Nothing after the last token"
    return ApiError("upstream_timeout", hint=f" {what} came within {limit_s:g} seconds.")


class Deadlines:
    """Calls ``fail`` when one of them (seconds) has passed, and once at most."""

    def __init__(self, first_s: float, idle_s: float, total_s: float, fail: Callable[[ApiError], None]) -> None:
        self.failure: ApiError | None = None
        """What ``fail`` was called with."""
        self._end = fail
        self._total_s = total_s
        self._watchdog = Watchdog(first_s, idle_s, self._fail, late=late)
        self._timer = asyncio.get_running_loop().call_later(total_s, self._is_over)
        self.hold = self._watchdog.hold
        self.touch = self._watchdog.touch

    def stop(self) -> None:
        """No more deadlines."""
        self._watchdog.stop()
        self._timer.cancel()

    def _fail(self, failure: ApiError) -> None:
        if self.failure is None:
            self.failure = failure
            self._end(failure)

    def _is_over(self) -> None:
        self._fail(ApiError("upstream_total_timeout", limit_s=f"{self._total_s:g}"))
