"""From settings to an application."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.engine import spec
from tests.support.models import model_file
from tests.support.provider import ScriptedProvider
from tests.support.web import AsgiClient, settings

from coterie.api.app import embedding_spec, make_app, make_embedded, make_state
from coterie.config import ModelSettings, Settings
from coterie.engines.spec import EngineState
from coterie.models.errors import ModelError


def with_model(**model: object) -> Settings:
    return settings(models=[{"name": "little", "path": str(model_file()), **model}])


def test_a_model_becomes_two_engines_that_are_not_loaded() -> None:
    provider = make_embedded(with_model(engine={"slots": 3, "context_tokens": 512, "queue": 7, "unload_after_s": 5}))
    generator, embedder = provider.engines()
    assert [card.id for card in provider.models()] == ["little"]
    assert (generator.spec.model, generator.spec.path, generator.spec.task) == ("little", str(model_file()), "generate")
    assert (generator.spec.slots, generator.spec.context_tokens, generator.spec.queue) == (3, 512, 7)
    assert (embedder.spec.slots, embedder.spec.task, embedder.spec.unload_after_s) == (1, "embed", 5)
    assert {engine.state for engine in provider.engines()} == {EngineState.UNLOADED}


@pytest.mark.parametrize(("asked", "given"), [(512, 512), (1_000_000, 8192)])
def test_the_context_is_at_most_what_the_model_was_made_for(asked: int, given: int) -> None:
    provider = make_embedded(with_model(engine={"context_tokens": asked}))
    assert provider.engines()[0].spec.context_tokens == given


def test_a_template_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ 'ö' }}", encoding="utf-8")
    provider = make_embedded(with_model(chat_template=str(tmp_path / "t.jinja")))
    assert provider.engines()[0].spec.chat_template == "{{ 'ö' }}"


@pytest.mark.parametrize("model", [{"path": "/nowhere/x.gguf"}, {"path": None, "name": "no-such-entry"}])
def test_a_model_that_is_not_there(model: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        make_embedded(with_model(**model))


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"hello")
    with pytest.raises(ModelError):
        make_embedded(with_model(path=str(path)))


@pytest.mark.parametrize(("pooled", "pooling"), [(True, "model"), (False, "mean")])
def test_the_pooling_of_embeddings(pooled: bool, pooling: str) -> None:
    assert embedding_spec(spec(slots=4), pooled=pooled) == spec(slots=1, task="embed", pooling=pooling)


async def test_each_application_is_for_itself() -> None:
    first, second = (AsgiClient(make_app(make_state(settings(), [ScriptedProvider()]))) for _ in range(2))
    await first.get("/nothing")
    assert "not_found" not in (await second.get("/metrics")).body.decode()


def test_a_served_name_need_not_be_the_files() -> None:
    assert ModelSettings(name="a/b:c").name == "a/b:c"
