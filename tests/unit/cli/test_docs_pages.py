from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from coterie.cli import docs_api, docs_configuration, serve
from coterie.cli.docs_schema import in_words, table_row
from coterie.config import Settings, load_settings
from coterie.dialects.chat_models import ChatRequest
from coterie.dialects.json_schema import ANNOTATIONS, DEFAULT, ENFORCED_KEYWORDS
from coterie.dialects.support import (
    CHAT_UNSUPPORTED,
    COMPLETIONS_UNSUPPORTED,
    EMBEDDINGS_UNSUPPORTED,
    WITHOUT_EFFECT,
)

API = docs_api.api_page()
CONFIGURATION = docs_configuration.configuration_page()


def keys(model: type[BaseModel] = Settings, table: str = "") -> Iterator[str]:
    """Every setting with a value of its own that the environment can spell."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{name}.")
        elif name not in ("models", "providers"):
            yield f"{table}{name}"


@pytest.mark.parametrize("key", list(keys()))
def test_every_setting_stands_with_its_variable(key: str) -> None:
    (row,) = (line for line in CONFIGURATION.splitlines() if f"`{docs_configuration.variable(key)}`" in line)
    assert row.startswith(f"| `{key.rpartition('.')[2]}` |")


def test_a_variable_is_the_one_that_is_read() -> None:
    name = docs_configuration.variable("limits.json_depth")
    assert load_settings(environ={name: "99"}).limits.json_depth == 99


def test_every_flag_of_serve_is_told_once() -> None:
    flags = {f"--{name.replace('_', '-')}" for name in inspect.signature(serve.app).parameters} - {"--config"}
    told = [flag for key in (*keys(), "models") if (flag := docs_configuration.flag_of(key)) is not None]
    assert sorted(told) == sorted(flags)


def test_defaults_are_those_of_the_classes_and_of_no_machine() -> None:
    assert "| `port` | integer, 0 to 65535 | `8000` |" in CONFIGURATION
    assert "| `preload` | boolean | `false` |" in CONFIGURATION
    assert "| `name` | string, 1 to 128 characters, matching" in CONFIGURATION
    assert "must be given" in CONFIGURATION
    assert str(Settings().state_dir) not in CONFIGURATION


def test_the_example_of_the_page_is_a_configuration(tmp_path: Any) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", CONFIGURATION, re.DOTALL)
    file = tmp_path / "example.toml"
    file.write_text(example)
    settings = load_settings(file, environ={})
    assert [model.engine.slots for model in settings.models] == [8, 8]
    assert settings.models[1].engine.context_tokens == 16384


def section(title: str) -> str:
    """What stands under a heading of the API's page, up to the next one."""
    return re.split(r"^#+ ", API.split(f"# {title}\n")[1], flags=re.MULTILINE)[0]


@pytest.mark.parametrize("name", list(ChatRequest.model_fields))
def test_every_parameter_is_honoured_or_without_effect(name: str) -> None:
    told = f"| `{name}` |"
    assert (told in section("Honoured")) == (name not in WITHOUT_EFFECT)
    assert (told in section("Without effect")) == (name in WITHOUT_EFFECT)


@pytest.mark.parametrize(
    ("title", "names"),
    [("Refused", CHAT_UNSUPPORTED), ("Completions", COMPLETIONS_UNSUPPORTED), ("Embeddings", EMBEDDINGS_UNSUPPORTED)],
)
def test_what_is_refused_is_told(title: str, names: Any) -> None:
    for name in names:
        assert f"| `{name}` |" in section(title)
    assert "| `store` | `false` | Chat completions are not stored. |" in section("Refused")


def test_schema_keywords_and_limits_are_told() -> None:
    told = section("JSON Schema")
    for name, how in ENFORCED_KEYWORDS.items():
        assert table_row((f"`{name}`", how)) in told
    for name in ANNOTATIONS:
        assert f"`{name}`" in told
    assert f"| {DEFAULT.nodes:,} | subschemas |" in told


def test_every_limit_of_a_schema_has_words() -> None:
    assert set(docs_api._SCHEMA_LIMITS) == set(DEFAULT.__dataclass_fields__)


def test_every_table_is_used() -> None:
    assert "{{" not in API
    words = docs_api._WORDS.read_text()
    assert sorted(docs_api._PLACE.findall(words)) == sorted(docs_api.TABLES)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "boolean"}, "boolean"),
        ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, "integer, at least 1"),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, "integer"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 31_536_000}, "number, more than 0"),
        ({"type": "number", "exclusiveMaximum": 2}, "number, less than 2"),
        ({"type": "number", "minimum": -2.0, "maximum": 0.5}, "number, -2 to 0.5"),
        ({"type": "string", "minLength": 1}, "string, at least 1 character"),
        ({"type": "string", "pattern": "^a|b$"}, "string, matching `^a|b$`"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 4}, "array, each string, at most 4 elements"),
        ({"type": "array", "items": {}}, "array"),
        ({"oneOf": [{"$ref": "#/a"}, {"$ref": "#/b"}]}, "object"),
        ({"enum": ["a", 1]}, "`a`, `1`"),
        ({"const": "a"}, "`a`"),
        ({}, "any value"),
    ],
)
def test_a_schema_in_words(schema: dict[str, Any], words: str) -> None:
    assert in_words(schema) == words


def test_a_bar_does_not_end_its_cell() -> None:
    assert table_row(("a|b", "c")) == r"| a\|b | c |"
