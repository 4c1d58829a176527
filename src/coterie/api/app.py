"""The application: providers from the settings, routes, and the edge around them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from coterie.api.auth import KeyRing
from coterie.api.edge import Edge
from coterie.api.routes import make_router
from coterie.api.state import AppState
from coterie.config import EngineSettings, ModelSettings, Settings
from coterie.dispatch.router import Router
from coterie.engines.llama_cpp import LlamaCppEngine
from coterie.engines.spec import EngineSpec
from coterie.models.gguf import read_gguf
from coterie.models.resolve import resolve
from coterie.models.store import ModelStore
from coterie.observe.metrics import Metrics
from coterie.providers.base import ModelCard, Provider
from coterie.providers.embedded import EmbeddedModel, EmbeddedProvider
from coterie.providers.http import provider_from


def make_state(settings: Settings, providers: Sequence[Provider]) -> AppState:
    """What the routes share, for ``providers``."""
    router = Router(providers, settings.dispatch)
    metrics = Metrics(router.status)
    metrics.watch(router)
    return AppState(settings, router, metrics, KeyRing(settings.server.api_keys))


def make_app(state: AppState) -> Edge:
    """The ASGI application."""
    return Edge(make_router(state), state.metrics, state.settings.server.cors_origins)


def make_providers(settings: Settings) -> list[Provider]:
    """Every configured provider; the embedded one where there are models for it.

    Raises ``ModelError`` for a model's file that is not there or no model, ``ConfigError`` for a key that is not set.
    """
    embedded: list[Provider] = [make_embedded(settings)] if settings.models else []
    return [*embedded, *(provider_from(provider) for provider in settings.providers)]


def make_embedded(settings: Settings) -> EmbeddedProvider:
    """The provider of the configured models. Raises ``ModelError`` for a file that is not there or no model."""
    store = ModelStore(settings.models_dir)
    created = int(time.time())
    return EmbeddedProvider([_model(model, resolve(model, store), created) for model in settings.models])


def _model(model: ModelSettings, path: Path, created: int) -> EmbeddedModel:
    info = read_gguf(path)
    spec = _spec(model, path, info.context_tokens)
    return EmbeddedModel(
        card=ModelCard(model.name, created, "coterie"),
        generator=LlamaCppEngine(spec),
        embedder=LlamaCppEngine(embedding_spec(spec, pooled=info.pooling_type is not None)),
        preload=model.engine.preload,
    )


def _spec(model: ModelSettings, path: Path, trained_tokens: int) -> EngineSpec:
    engine: EngineSettings = model.engine
    template = model.chat_template
    return EngineSpec(
        model=model.name,
        path=str(path),
        slots=engine.slots,
        context_tokens=min(engine.context_tokens, trained_tokens),
        queue=engine.queue,
        queue_timeout_s=engine.queue_timeout_s,
        threads=engine.threads,
        gpu_layers=engine.gpu_layers,
        load_timeout_s=engine.load_timeout_s,
        first_token_timeout_s=engine.first_token_timeout_s,
        idle_timeout_s=engine.idle_timeout_s,
        unload_after_s=engine.unload_after_s,
        prompt_cache=engine.prompt_cache,
        chat_template=None if template is None else template.read_text(encoding="utf-8"),
    )


def embedding_spec(spec: EngineSpec, *, pooled: bool) -> EngineSpec:
    """The engine that computes embeddings with the same model: one slot, as each input fills a step of its own."""
    return dataclasses.replace(spec, task="embed", pooling="model" if pooled else "mean", slots=1)
