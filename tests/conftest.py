"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No verdict depends on how busy the machine is.
settings.register_profile("coterie", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("coterie")
