"""What ``/metrics`` shows, for Prometheus. Labels are bounded: routes, served models, catalogue codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """One server's metrics, in a registry of their own. ``status`` gives the engines' rows at each look."""

    def __init__(self, status: Callable[[], list[dict[str, Any]]]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "coterie_requests", "Requests by route, outcome and error code.", ["route", "outcome", "code"],
            registry=self._registry,
        )  # fmt: skip
        self.active = Gauge("coterie_requests_active", "Requests being answered.", registry=self._registry)
        self.first_token = Histogram(
            "coterie_time_to_first_token_seconds", "From the request's arrival to the first semantic event.",
            ["model"], buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self.latency = Histogram(
            "coterie_e2e_request_latency_seconds", "From the request's arrival to the end of its answer.",
            ["model"], buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self.queue_wait = Histogram(
            "coterie_request_queue_time_seconds", "Waiting for a provider with room, and between attempts.",
            ["model"], buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self.prompt_tokens = Counter("coterie_prompt_tokens", "Tokens of prompts.", ["model"], registry=self._registry)
        self.generation_tokens = Counter(
            "coterie_generation_tokens", "Generated tokens.", ["model"], registry=self._registry
        )
        self._registry.register(_Engines(status))

    def count_usage(self, model: str, usage: dict[str, Any] | None) -> None:
        """Add an answer's usage up, where it was counted."""
        if usage is None:
            return
        self.prompt_tokens.labels(model).inc(usage["prompt_tokens"])
        self.generation_tokens.labels(model).inc(usage.get("completion_tokens", 0))

    def render(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)


class _Engines(Collector):
    """Engines' gauges, read when somebody looks."""

    _ROWS = (
        ("slots", "coterie_engine_slots", "Slots of an engine."),
        ("running", "coterie_engine_requests_running", "Slots in use."),
        ("waiting", "coterie_engine_requests_waiting", "Requests that wait for a slot."),
        ("loads", "coterie_engine_loads", "Times that the model was loaded."),
    )

    def __init__(self, status: Callable[[], list[dict[str, Any]]]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        rows = self._status()
        for key, name, text in self._ROWS:
            family = GaugeMetricFamily(name, text, labels=["model", "task"])
            for row in rows:
                family.add_metric([row["model"], row["task"]], row[key])
            yield family
        loaded = GaugeMetricFamily("coterie_engine_loaded", "1 where the model is in memory.", labels=["model", "task"])
        for row in rows:
            loaded.add_metric([row["model"], row["task"]], float(row["state"] == "ready"))
        yield loaded
