"""The page for Prometheus."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coterie.observe.metrics import CONTENT_TYPE, Metrics

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
