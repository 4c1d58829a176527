"""Settings: which source wins, and that every problem names where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coterie.config import ConfigError, Settings, load_settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(text: str) -> Path:
    Path("other.toml").write_text(text, encoding="utf-8")
    return Path("other.toml")


def load(text: str = "", environ: Mapping[str, str] | None = None, **flags: Any) -> Settings:
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    return load_settings(written(text), environ=environ or {}, flags=dotted)


def problems(text: str = "", environ: Mapping[str, str] | None = None, **flags: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, environ, **flags)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_defaults() -> None:
    settings = load_settings(environ={})
    assert (settings.server.host, settings.server.port, settings.server.api_keys) == ("127.0.0.1", 8000, ())
    assert settings.models == ()
    assert settings.models_dir == settings.state_dir / "models"


def test_each_source_wins_over_the_weaker_ones() -> None:
    file = "[server]\nhost = 'file'\nport = 1\n[engine]\nslots = 1\nqueue = 1"
    environ = {"COTERIE_SERVER__PORT": "2", "COTERIE_ENGINE__SLOTS": "2", "COTERIE_ENGINE__QUEUE": "2"}
    settings = load(file, environ, server__host=None, engine__queue=3)
    assert settings.server.host == "file"
    assert settings.server.port == 2
    assert (settings.engine.slots, settings.engine.queue) == (2, 3)
    assert settings.limits.json_depth == 100


def test_the_file_of_the_working_folder_is_read_where_none_is_named() -> None:
    Path("coterie.toml").write_text("log_level = 'debug'", encoding="utf-8")
    assert load_settings(environ={}).log_level == "debug"
    assert load_settings(written(""), environ={}).log_level == "info"


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTERIE_SERVER__PORT", "1234")
    assert load_settings().server.port == 1234


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("COTERIE_SERVER__PORT", "9000", "server.port", 9000),
        ("COTERIE_SERVER__HOST", "0.0.0.0", "server.host", "0.0.0.0"),
        ("COTERIE_SERVER__HOST", "'::'", "server.host", "::"),
        ("COTERIE_SERVER__API_KEYS", '["key-one-1", "key-two-2"]', "server.api_keys", ("key-one-1", "key-two-2")),
        ("COTERIE_ENGINE__PRELOAD", "true", "engine.preload", True),
        ("COTERIE_ENGINE__IDLE_TIMEOUT_S", "1.5", "engine.idle_timeout_s", 1.5),
        ("COTERIE_LOG_LEVEL", "warning", "log_level", "warning"),
        ("COTERIE_STATE_DIR", "/srv/x y", "state_dir", Path("/srv/x y")),
        ("COTERIE_ENGINE", "{slots = 7}", "engine.slots", 7),
        ("COTERIE_CONFIG", "x.toml", "server.port", 8000),
        ("COTERIE_URL", "http://127.0.0.1:1", "server.port", 8000),
        ("COTERIE_API_KEY", "x", "server.port", 8000),
        ("OTHER_SERVER__PORT", "9", "server.port", 8000),
        ("coterie_server__port", "9", "server.port", 8000),
    ],
)
def test_values_of_the_environment(name: str, text: str, path: str, value: object) -> None:
    found: Any = load(environ={name: text})
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


def test_a_variable_for_one_key_wins_over_one_for_its_table() -> None:
    environ = {"COTERIE_ENGINE__SLOTS": "5", "COTERIE_ENGINE": "{slots = 7, queue = 8}"}
    engine = load(environ=environ).engine
    assert (engine.slots, engine.queue) == (5, 8)


def test_a_variable_holds_one_value() -> None:
    assert load(environ={"COTERIE_SERVER__HOST": "1\nport = 2"}).server.host == "1\nport = 2"


PROBLEMS: dict[str, tuple[str, dict[str, str], dict[str, Any], list[str]]] = {
    "a wrong value in the file": ("[server]\nport = 'x'", {}, {}, ["other.toml: server.port: "]),
    "an unknown key in the file": ("[server]\nprt = 1", {}, {}, ["other.toml: server.prt: "]),
    "an unknown table in the file": ("[sever]\nport = 1", {}, {}, ["other.toml: sever: "]),
    "a table that is none": ("server = 5", {}, {}, ["other.toml: server: "]),
    "an unknown variable": ("", {"COTERIE_SERVER__PRT": "1"}, {}, ["environment: COTERIE_SERVER__PRT: "]),
    "a wrong variable": ("", {"COTERIE_SERVER__PORT": "x"}, {}, ["environment: COTERIE_SERVER__PORT: "]),
    "the stronger of two wrong ones": (
        "[server]\nport = 'x'", {"COTERIE_SERVER__PORT": "y"}, {}, ["environment: COTERIE_SERVER__PORT: "],
    ),
    "a variable over a wrong file": ("[server]\nport = -1", {}, {"server__port": -2}, ["flag --port: "]),
    "a wrong flag": ("", {}, {"engine__context_tokens": 1}, ["flag --context-tokens: "]),
    "several, each with its place": (
        "[engine]\nslots = 0", {"COTERIE_LOG_LEVEL": "loud"}, {"server__port": 99_999},
        ["flag --port: ", "other.toml: engine.slots: ", "environment: COTERIE_LOG_LEVEL: "],
    ),
    "below a variable": (
        "", {"COTERIE_MODELS": "[{name = 'a', foo = 1}]"}, {}, ["environment: COTERIE_MODELS: 0.foo: "],
    ),
    "below a flag": ("", {}, {"models": [{"name": "a b"}]}, ["flag --models: 0.name: "]),
    "a variable for a value and one for a key below": (
        "", {"COTERIE_SERVER": "5", "COTERIE_SERVER__PORT": "9"}, {}, ["environment: COTERIE_SERVER__PORT: "],
    ),
    "a variable for a table": ("", {"COTERIE_SERVER": "5"}, {}, ["environment: COTERIE_SERVER: "]),
    "a model without its name": ("[[models]]\npath = '/x'", {}, {}, ["other.toml: models.0.name: "]),
    "a second model": ("[[models]]\nname = 'a'\n[[models]]\nname = ''", {}, {}, ["other.toml: models.1.name: "]),
    "a model of two sources": (
        "[[models]]\nname = 'a'\npath = '/x'\ncatalog = 'b'", {}, {},
        ["other.toml: models.0: a model has either 'path' or 'catalog'"],
    ),
    "two models of one name in the file": (
        "[[models]]\nname = 'a'\n[[models]]\nname = 'a'", {}, {}, ["other.toml: models: two models are called 'a'"],
    ),
    "two models of one name by flags": (
        "", {}, {"models": [{"name": "a"}, {"name": "a"}]}, ["flag --models: two models are called 'a'"],
    ),
    "what models inherit is told once": (
        "[engine]\nslots = 0\n[[models]]\nname = 'a'\n[[models]]\nname = 'b'", {}, {}, ["other.toml: engine.slots: "],
    ),
    "what a model has itself is told there": (
        "[[models]]\nname = 'a'\n[models.engine]\nslots = 0", {}, {}, ["other.toml: models.0.engine.slots: "],
    ),
    "a model's engine that is no table": (
        "[engine]\nslots = 1\n[[models]]\nname = 'a'\nengine = 5", {}, {}, ["other.toml: models.0.engine: "],
    ),
    "models that are no list": ("models = 5\n[engine]\nslots = 1", {}, {}, ["other.toml: models: "]),
    "a model that is no table": ("models = [5]\n[engine]\nslots = 1", {}, {}, ["other.toml: models.0: "]),
    "an infinite time": ("[engine]\nidle_timeout_s = inf", {}, {}, ["other.toml: engine.idle_timeout_s: "]),
    "no time at all": ("[limits]\nbody_timeout_s = 0", {}, {}, ["other.toml: limits.body_timeout_s: "]),
    "a short key": ("[server]\napi_keys = ['short']", {}, {}, ["other.toml: server.api_keys.0: "]),
    "not TOML": ("[server\nport = 1", {}, {}, ["other.toml: is not TOML: "]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "environ", "flags", "expected"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_every_problem_names_its_place(
    text: str, environ: dict[str, str], flags: dict[str, Any], expected: list[str]
) -> None:
    found = problems(text, environ, **flags)
    assert len(found) == len(expected)
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(start)
        assert len(problem) > len(start) or not start.endswith(": ")


def test_a_named_file_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"^missing\.toml: cannot be read: No such file"):
        load_settings(Path("missing.toml"), environ={})


def test_a_folder_is_no_file() -> None:
    Path("coterie.toml").mkdir()
    with pytest.raises(ConfigError, match=r"^coterie\.toml: cannot be read: "):
        load_settings(environ={})


def test_a_file_that_is_not_utf8() -> None:
    Path("x.toml").write_bytes(b"log_level = '\xff'")
    with pytest.raises(ConfigError, match=r"^x\.toml: is not TOML: "):
        load_settings(Path("x.toml"), environ={})


def test_a_model_inherits_the_shared_engine_under_its_own() -> None:
    text = "[engine]\nslots = 2\nqueue = 3\n[[models]]\nname = 'a'\n[[models]]\nname = 'b'\n[models.engine]\nslots = 9"
    a, b = load(text, {"COTERIE_ENGINE__THREADS": "5"}, engine__queue=4).models
    assert (a.engine.slots, a.engine.queue, a.engine.threads) == (2, 4, 5)
    assert (b.engine.slots, b.engine.queue, b.engine.threads) == (9, 4, 5)


def test_models_of_a_flag_replace_those_of_the_file_and_inherit() -> None:
    settings = load("[engine]\nslots = 2\n[[models]]\nname = 'a'", models=[{"name": "b", "path": "/x.gguf"}])
    assert [(model.name, model.path, model.engine.slots) for model in settings.models] == [("b", Path("/x.gguf"), 2)]


def test_the_state_folder_follows_the_desktop_standard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert load_settings(environ={}).state_dir == tmp_path / "coterie"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings(environ={}).state_dir == tmp_path / ".local" / "share" / "coterie"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().server.port = 1  # type: ignore[misc]


PROVIDER = {"name": "p", "base_url": "http://10.0.0.2:8000/v1"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"base_url": "10.0.0.2:8000"}, "http"),
        ({"base_url": "https://user:secret@x/v1"}, "user name"),
        ({"base_url": "http://x/v1?key=1"}, "query"),
        ({"headers": {"Host": "x"}}, "written by the server itself"),
        ({"headers": {"x-a": "b\r\nc"}}, "pattern"),
        ({"concurrency": 0}, "greater than or equal to 1"),
        ({"idle_timeout_s": 0}, "greater than 0"),
        ({"name": "embedded"}, "two providers are called 'embedded'"),
        ({"continuation": "magic"}, "'none', 'assistant', 'vllm' or 'prefix'"),
        ({"models": [{"upstream": "x"}]}, "required"),
    ],
)
def test_a_provider_that_cannot_be(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(environ={}, flags={"providers": [{**PROVIDER, **fields}]})
    assert reason in str(raised.value)
    assert "secret" not in str(raised.value)


def test_two_providers_of_one_name() -> None:
    with pytest.raises(ConfigError, match="two providers are called 'p'"):
        load_settings(environ={}, flags={"providers": [PROVIDER, PROVIDER]})


def test_the_models_of_a_provider() -> None:
    models = ["a", {"name": "b", "upstream": "org/b", "context_tokens": 9}]
    (provider,) = load_settings(environ={}, flags={"providers": [{**PROVIDER, "models": models}]}).providers
    assert [(each.name, each.upstream_name, each.context_tokens) for each in provider.served] == [
        ("a", "a", 0),
        ("b", "org/b", 9),
    ]


def test_a_provider_s_key_comes_from_the_environment() -> None:
    (provider,) = load_settings(environ={}, flags={"providers": [{**PROVIDER, "api_key_env": "KEY"}]}).providers
    assert provider.key({"KEY": " abc\n"}) == "abc"
    with pytest.raises(ConfigError, match="KEY is not set"):
        provider.key({"KEY": " "})
