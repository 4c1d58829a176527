from __future__ import annotations

import re

import pytest

from coterie.config import DEFAULT_MODEL
from coterie.models.catalogue import CATALOG, CatalogModel, HuggingFace, PackageIndex
from coterie.models.store import check_name

MODELS = pytest.mark.parametrize("model", CATALOG.values(), ids=str)


def test_the_default_model_is_first_and_needs_no_account() -> None:
    first = next(iter(CATALOG.values()))
    assert first.name == DEFAULT_MODEL
    assert isinstance(first.source, PackageIndex)


def test_no_two_models_are_the_same_file() -> None:
    assert len({model.sha256 for model in CATALOG.values()}) == len(CATALOG)


@MODELS
def test_every_model_is_pinned(model: CatalogModel) -> None:
    assert re.fullmatch("[0-9a-f]{64}", model.sha256)
    assert model.size_bytes > 0
    assert model.context_tokens >= 256
    if isinstance(model.source, HuggingFace):
        assert re.fullmatch("[0-9a-f]{40}", model.source.revision)
    else:
        assert re.fullmatch("[0-9a-f]{64}", model.source.wheel_sha256)


@MODELS
def test_names_are_safe_path_parts(model: CatalogModel) -> None:
    assert CATALOG[model.name] is model
    assert check_name(model.name)
    assert check_name(model.file).endswith(".gguf")


@MODELS
def test_licences_are_permissive(model: CatalogModel) -> None:
    assert model.licence in {"Apache-2.0", "MIT"}
