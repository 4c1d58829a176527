"""Where a request's time went, for the ``X-Timing`` header and the log."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from coterie.wire.lingua import Attempt

_HEADER: Final = (
    b'{"parse_us":%d,"admit_us":%d,"route_us":%d,"queue_us":%d,"connect_us":%d,"provider_us":%d,"attempts":%d}'
)
_ROUNDED: Final = 0.5
"""To be added, as ``%d`` cuts off what is behind the point."""

_NO_ATTEMPT: Final = Attempt()


@dataclass(slots=True)
class Timing:
    """The phases of one request, in seconds; ``attempts`` in the order in which they were made.

    ``parse_s``: reading and checking the body; ``admit_s``: key and capacity of the server; ``route_s``: choosing
    providers; ``queue_s``: waiting for one with room, and between attempts.
    """

    started_s: float = field(default_factory=time.perf_counter)
    parse_s: float = 0.0
    admit_s: float = 0.0
    route_s: float = 0.0
    queue_s: float = 0.0
    attempts: list[Attempt] = field(default_factory=list)
    continuations: int = 0

    @property
    def provider(self) -> str:
        """The provider of the newest attempt."""
        return self.attempts[-1].provider if self.attempts else ""

    def header(self) -> bytes:
        """``X-Timing``: a JSON object of whole microseconds, and the number of attempts.

        ``provider_us`` runs from the request that the provider received to its first token; what it said of its own
        queue is part of ``queue_us``.
        """
        last = self.attempts[-1] if self.attempts else _NO_ATTEMPT
        connect_s, queue_s = last.connect_s or 0.0, last.queue_s or 0.0
        provider_s = max(0.0, (last.first_token_s or 0.0) - connect_s - queue_s)
        return _HEADER % (
            self.parse_s * 1e6 + _ROUNDED,
            self.admit_s * 1e6 + _ROUNDED,
            self.route_s * 1e6 + _ROUNDED,
            (self.queue_s + queue_s) * 1e6 + _ROUNDED,
            connect_s * 1e6 + _ROUNDED,
            provider_s * 1e6 + _ROUNDED,
            len(self.attempts),
        )
