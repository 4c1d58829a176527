"""What the routes share: one value for each running application."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field

from coterie.api.active import ActiveRequests
from coterie.api.auth import KeyRing
from coterie.api.background import Background
from coterie.config import Settings
from coterie.dialects.chat import DialectLimits
from coterie.dispatch.router import Router
from coterie.observe.metrics import Metrics
from coterie.turns.keeping import Keeping


class Budget:
    """Adds up what each of many holds."""

    def __init__(self) -> None:
        self._held: dict[object, int] = {}

    def add(self, holder: object, held: int) -> int:
        """``holder`` holds ``held`` now; returns what all hold."""
        self._held[holder] = held
        return sum(self._held.values())

    def drop(self, holder: object) -> None:
        """``holder`` holds nothing any more."""
        self._held.pop(holder, None)


@dataclass
class AppState:
    """Made once at start."""

    settings: Settings
    router: Router
    metrics: Metrics
    keys: KeyRing
    active: ActiveRequests = field(default_factory=ActiveRequests)
    remembered: Budget = field(default_factory=Budget)
    """Bytes that sockets remember."""
    kept: Keeping | None = None
    """What is kept of responses; there once the storage is open."""
    started_at: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.background = Background(self.settings.responses, self.active, self.metrics)

    @property
    def keeping(self) -> Keeping:
        """What is kept of responses."""
        assert self.kept is not None, "the storage is opened before the first request"
        return self.kept

    @functools.cached_property
    def dialect_limits(self) -> DialectLimits:
        """Bounds that the dialects need. (A change of the settings takes a restart.)"""
        return DialectLimits(messages=self.settings.limits.messages, choices=self.settings.limits.choices)
