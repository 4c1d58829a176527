"""What ``/metrics`` shows, for Prometheus.

Labels are bounded: routes, dialects, served models, providers, catalogue codes. What a stranger sends is never one.
What a provider lists makes no row before it is asked for, and models that nobody serves any more lose theirs: those of
dispatch at the next look, all others where there are many rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coterie.observe.counts import Counts, Level
from coterie.observe.distribution import Distributions

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_GAPS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10)
_LAGS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

_ROWS: Final = 4096
"""From so many rows of requests on, those of models that nobody serves any more are dropped."""


class Metrics:
    """One server's metrics, in a registry of their own. ``status`` gives the engines' rows at each look."""

    def __init__(self, status: Callable[[], list[dict[str, Any]]]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counts(
            "coterie_requests", "Requests by route, dialect, model, outcome and error code.",
            ["route", "dialect", "model", "outcome", "code"],
        )  # fmt: skip
        self.active = Level("coterie_requests_active", "Requests being answered.")
        self.first_token = Distributions(
            "coterie_time_to_first_token_seconds", "From the request's arrival to the first semantic event.",
            _SECONDS, "model",
        )  # fmt: skip
        self.latency = Distributions(
            "coterie_e2e_request_latency_seconds", "From the request's arrival to the end of its answer.",
            _SECONDS, "model",
        )  # fmt: skip
        self.queue_wait = Distributions(
            "coterie_request_queue_time_seconds", "Waiting for a provider with room, and between attempts.",
            _SECONDS, "model",
        )  # fmt: skip
        self.prompt_tokens = Counts("coterie_prompt_tokens", "Tokens of prompts.", ["model"])
        self.generation_tokens = Counts("coterie_generation_tokens", "Generated tokens.", ["model"])
        self.inter_token = Distributions(
            "coterie_inter_token_latency_seconds", "Between two events of a stream.", _GAPS_S, "model"
        )
        self.loop_lag = Distributions("coterie_event_loop_lag_seconds", "How late the event loop runs.", _LAGS_S)
        self._rows = _ROWS
        self._is_served: Callable[[str], bool] = lambda model: True
        self._by_model = (self.first_token, self.latency, self.queue_wait, self.inter_token)
        counted = (self.requests, self.active, self.prompt_tokens, self.generation_tokens)
        for collector in (*counted, _Engines(status), *self._by_model, self.loop_lag):
            self._registry.register(collector)

    def count_request(self, route: str, dialect: str, model: str, outcome: str, code: str) -> None:
        """One request was answered."""
        labels = (route, dialect, model, outcome, code)
        if len(self.requests) >= self._rows and labels not in self.requests:
            self._forget_unserved()
        self.requests.add(labels)

    def watch(self, dispatch: DispatchSource) -> None:
        """Show what ``dispatch`` counts, too."""
        self._registry.register(_Dispatch(dispatch))
        self._is_served = dispatch.serves

    def count_usage(self, model: str, usage: dict[str, Any] | None) -> None:
        """Add an answer's usage up, where it was counted."""
        if usage is None:
            return
        self.prompt_tokens.add((model,), usage["prompt_tokens"])
        self.generation_tokens.add((model,), usage.get("completion_tokens", 0))

    def render(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)

    def _forget_unserved(self) -> None:
        """Models that a provider lists may come and go without end."""
        models = {model for _, _, model, *_ in self.requests if model}
        gone = {model for model in models if not self._is_served(model)}
        self.requests.keep(lambda labels: labels[2] not in gone)
        for distributions in self._by_model:
            distributions.keep(lambda model: model not in gone)
        for counts in (self.prompt_tokens, self.generation_tokens):
            counts.keep(lambda labels: labels[0] not in gone)
        self._rows = max(_ROWS, 2 * len(self.requests))


class DispatchSource(Protocol):
    """What dispatch tells of itself, at each look."""

    def serves(self, model: str) -> bool:
        """Whether anybody serves ``model`` now."""
        ...

    def asked(self) -> list[dict[str, Any]]:
        """One row for each provider and model of it that was asked for."""
        ...

    def counts(self) -> dict[str, Any]:
        """``attempts`` by (provider, model, outcome); ``failovers`` and ``continuations`` by model; ``running`` by
        provider; ``waiting``.
        """
        ...


class _Dispatch(Collector):
    """Attempts, and the providers' state."""

    _STATES = ("closed", "open", "probing", "resting")

    def __init__(self, source: DispatchSource) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        counts = self._source.counts()
        attempts = CounterMetricFamily(
            "coterie_attempts", "Attempts by provider, model and outcome.", labels=["provider", "model", "outcome"]
        )
        for labels, count in counts["attempts"].items():
            attempts.add_metric(labels, count)
        yield attempts
        for name, text in (
            ("failovers", "Requests that went on to another attempt before anything was said."),
            ("continuations", "Answers that went on in another attempt."),
        ):
            family = CounterMetricFamily(f"coterie_{name}", text, labels=["model"])
            for model, count in counts[name].items():
                family.add_metric([model], count)
            yield family
        yield GaugeMetricFamily(
            "coterie_requests_waiting", "Requests that wait for a provider with room.", value=counts["waiting"]
        )
        running = GaugeMetricFamily(
            "coterie_provider_requests_running", "Requests that a provider has now.", labels=["provider"]
        )
        for provider, count in counts["running"].items():
            running.add_metric([provider], count)
        yield from (running, self._states())

    def _states(self) -> Metric:
        state = GaugeMetricFamily(
            "coterie_provider_state", "1 for the state that a provider is in, for models that were asked for.",
            labels=["provider", "model", "state"],
        )  # fmt: skip
        for row in self._source.asked():
            for name in self._STATES:
                state.add_metric([row["provider"], row["model"], name], float(row["state"] == name))
        return state


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
