"""What the routes share: one value for each running application."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from coterie.api.active import ActiveRequests
from coterie.api.auth import KeyRing
from coterie.config import Settings
from coterie.dialects.chat import DialectLimits
from coterie.dispatch.router import Router
from coterie.observe.metrics import Metrics


@dataclass
class AppState:
    """Made once at start."""

    settings: Settings
    router: Router
    metrics: Metrics
    keys: KeyRing
    active: ActiveRequests = field(default_factory=ActiveRequests)
    started_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def dialect_limits(self) -> DialectLimits:
        """Bounds that the dialects need."""
        return DialectLimits(messages=self.settings.limits.messages, choices=self.settings.limits.choices)
