"""The page for Prometheus."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.provider import ScriptedProvider

from coterie.dispatch.router import Router
from coterie.observe.metrics import _ROWS, CONTENT_TYPE, Metrics
from coterie.providers.base import ModelCard

ROW: dict[str, Any] = {
    "model": "m", "task": "generate", "state": "ready", "pid": 1, "slots": 4, "running": 1, "waiting": 2, "loads": 3
}  # fmt: skip


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


def test_usage_adds_up() -> None:
    metrics = Metrics(list)
    metrics.count_usage("m", {"prompt_tokens": 3, "completion_tokens": 2})
    metrics.count_usage("m", {"prompt_tokens": 4})
    metrics.count_usage("other", {"prompt_tokens": 100, "completion_tokens": 1})
    assert value(metrics, "coterie_prompt_tokens_total", model="m") == 7
    assert value(metrics, "coterie_generation_tokens_total", model="m") == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("coterie_engine_slots", 4),
        ("coterie_engine_requests_running", 1),
        ("coterie_engine_requests_waiting", 2),
        ("coterie_engine_loads", 3),
        ("coterie_engine_loaded", 1),
    ],
)
def test_an_engine(name: str, expected: float) -> None:
    assert value(Metrics(lambda: [ROW]), name, model="m", task="generate") == expected


@pytest.mark.parametrize("state", ["unloaded", "loading", "failed"])
def test_an_engine_that_is_not_loaded(state: str) -> None:
    metrics = Metrics(lambda: [{**ROW, "state": state}])
    assert value(metrics, "coterie_engine_loaded", model="m", task="generate") == 0


def test_engines_are_read_at_each_look() -> None:
    rows: list[dict[str, Any]] = []
    metrics = Metrics(lambda: rows)
    assert not any(name == "coterie_engine_slots" for name, _ in samples(metrics))
    rows.append(ROW)
    rows.append({**ROW, "task": "embed", "slots": 1})
    assert value(metrics, "coterie_engine_slots", model="m", task="embed") == 1


def test_two_servers_do_not_share_numbers() -> None:
    first, second = Metrics(list), Metrics(list)
    first.active.inc()
    assert value(second, "coterie_requests_active") == 0


def test_the_type_is_that_of_the_text_format() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


# What dispatch tells

PROVIDERS = ("p-0", "p-1")


class Source:
    """Providers of many models."""

    def __init__(self, *rows: tuple[str, str, str]) -> None:
        self.rows = rows
        self.served: set[str] = set()

    def serves(self, model: str) -> bool:
        return model in self.served

    def asked(self) -> list[dict[str, Any]]:
        return [{"provider": provider, "model": model, "state": state} for provider, model, state in self.rows]

    def counts(self) -> dict[str, Any]:
        return {
            "attempts": {("p-0", "m", "ok"): 5}, "failovers": {"m": 1}, "continuations": {"m": 2},
            "running": dict.fromkeys(PROVIDERS, 3), "waiting": 4,
        }  # fmt: skip


def watching(source: Source) -> Metrics:
    metrics = Metrics(list)
    metrics.watch(source)
    return metrics


def test_what_dispatch_counts() -> None:
    metrics = watching(Source())
    assert value(metrics, "coterie_attempts_total", provider="p-0", model="m", outcome="ok") == 5
    assert value(metrics, "coterie_failovers_total", model="m") == 1
    assert value(metrics, "coterie_continuations_total", model="m") == 2
    assert value(metrics, "coterie_requests_waiting") == 4


def test_the_states_of_what_was_asked_for() -> None:
    metrics = watching(Source(("p-1", "m", "resting")))
    states = {labels: found for (name, labels), found in samples(metrics).items() if name == "coterie_provider_state"}
    assert len(states) == 4
    assert value(metrics, "coterie_provider_state", provider="p-1", model="m", state="resting") == 1
    assert sum(states.values()) == 1


def test_every_provider_has_its_load_whatever_was_asked_for() -> None:
    metrics = watching(Source())
    assert [value(metrics, "coterie_provider_requests_running", provider=name) for name in PROVIDERS] == [3, 3]


def test_many_models_that_nobody_asks_for_make_no_rows() -> None:
    listing = ScriptedProvider()
    listing.models = lambda: [ModelCard(f"m-{number}", 0, "") for number in range(2000)]  # type: ignore[method-assign]
    router = Router([listing])
    metrics = Metrics(list)
    metrics.watch(router)
    router.health("scripted", "m").fail(0, "upstream_error", None)
    page = metrics.render().decode()
    assert page.count("coterie_provider_state{") == 4
    assert page.count("coterie_provider_requests_running{") == 1


def _count(metrics: Metrics, model: str) -> None:
    metrics.count_request("/v1/chat/completions", "chat", model, "ok", "")
    metrics.count_usage(model, {"prompt_tokens": 1})
    metrics.first_token.of(model).add(1)


def test_models_that_come_and_go_leave_no_rows() -> None:
    source = Source()
    metrics = watching(source)
    source.served.add("kept")
    for model in ("kept", ""):
        _count(metrics, model)
    for number in range(3 * _ROWS):
        _count(metrics, f"model-{number}")
    models = [dict(labels)["model"] for name, labels in samples(metrics) if name == "coterie_requests_total"]
    assert len(models) <= _ROWS
    assert {"kept", "", f"model-{number}"} <= set(models)
    for name in ("coterie_prompt_tokens_total", "coterie_time_to_first_token_seconds_count"):
        assert {dict(labels)["model"] for found, labels in samples(metrics) if found == name} == set(models)


def test_rows_of_what_is_served_are_kept() -> None:
    source = Source()
    metrics = watching(source)
    source.served.update(f"model-{number}" for number in range(_ROWS + 9))
    for model in source.served:
        metrics.count_request("/v1/chat/completions", "chat", model, "ok", "")
    assert len([name for name, _ in samples(metrics) if name == "coterie_requests_total"]) == _ROWS + 9
