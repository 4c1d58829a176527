"""The settings of a server, and where each came from.

Sources, weakest first: defaults, one TOML file, the environment, command-line flags. They are merged by key and checked
once, so a wrong value is always named with the place it came from: the file and its key, the variable, or the flag.

The environment spells a key in capitals with two underscores between table and key: ``COTERIE_SERVER__PORT=9000``.
A value there is read as TOML where it can be (``8``, ``true``, ``["a", "b"]``) and as plain text where not.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from coterie.wire.origin import Origin

DEFAULT_MODEL = "smollm2-135m-instruct"
"""The catalogue's model that is served where none is configured."""

EMBEDDED = "embedded"
"""The name of the provider that runs models in this machine's own engines."""

ENV_PREFIX = "COTERIE_"

_NOT_SETTINGS = frozenset({"config", "url", "api_key"})
"""Variables with our prefix that are options of commands."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]
Seconds = Annotated[float, Field(ge=0, le=86_400 * 365, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400 * 365, allow_inf_nan=False)]


class ConfigError(Exception):
    """The configuration cannot be used. ``problems`` has one line each, naming source and key."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Table):
    """Where to listen and whom to answer."""

    host: str = Field("127.0.0.1", min_length=1, description="the address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="0 takes a free port")
    api_keys: tuple[Annotated[str, StringConstraints(min_length=8, max_length=512)], ...] = Field(
        (), description="keys that clients must send; none: everybody who can connect is served"
    )
    cors_origins: tuple[str, ...] = Field((), description="origins that browsers may call from; '*' for all")
    shutdown_grace_s: Seconds = Field(30.0, description="seconds that running answers have to finish at a stop")


class LimitSettings(_Table):
    """Bounds on what a stranger controls."""

    body_bytes: int = Field(32 * 1024 * 1024, ge=1024, description="a request's body")
    body_timeout_s: PositiveSeconds = Field(60.0, description="for the whole body")
    header_bytes: int = Field(64 * 1024, ge=1024, description="request line and headers together")
    header_timeout_s: PositiveSeconds = Field(20.0, description="for request line and headers")
    write_timeout_s: PositiveSeconds = Field(60.0, description="for a client that does not read its answer")
    json_depth: int = Field(100, ge=8, le=500, description="levels of nesting in a body")
    messages: int = Field(2048, ge=1, description="messages of one request")
    connections: int = Field(2048, ge=8, description="open connections; one more is closed at once")
    choices: int = Field(8, ge=1, le=128, description="the greatest 'n', and prompts times 'n'")


class EngineSettings(_Table):
    """How a model is run. Every model can have its own (``[[models]]``)."""

    slots: int = Field(4, ge=1, le=256, description="answers generated at once")
    context_tokens: int = Field(4096, ge=256, description="context of each slot; at most what the model was made for")
    queue: int = Field(64, ge=0, le=100_000, description="requests that may wait for a slot")
    queue_timeout_s: PositiveSeconds = Field(120.0, description="for a slot to come free")
    threads: int = Field(
        0, ge=0, le=1024, description="0: one for each core; models that are busy at once should share the cores out"
    )
    prompt_cache: Literal["auto", "always", "never"] = Field(
        "auto", description="use the computed beginning of earlier prompts; auto: not with a seed or temperature 0"
    )
    gpu_layers: int = Field(-1, ge=-1, description="layers on a GPU; -1: all, where the engine has a GPU")
    load_timeout_s: PositiveSeconds = Field(300.0, description="for the model to load")
    first_token_timeout_s: PositiveSeconds = Field(300.0, description="from the slot to the first token")
    idle_timeout_s: PositiveSeconds = Field(60.0, description="between two tokens")
    unload_after_s: Seconds = Field(3600.0, description="seconds without a request; 0: never")
    preload: bool = Field(False, description="load at start rather than with the first request")


class ModelSettings(_Table):
    """One served model: a catalogue entry by name, or any local GGUF file by ``path``."""

    name: Name = Field(description="what clients call it")
    path: Path | None = Field(None, description="a local GGUF file; else 'name' or 'catalog' is a catalogue entry")
    catalog: str | None = Field(None, description="the catalogue entry, where 'name' is another")
    chat_template: Path | None = Field(None, description="a Jinja file that replaces the model's own template")
    engine: EngineSettings = Field(default_factory=EngineSettings)

    @model_validator(mode="after")
    def _one_source(self) -> ModelSettings:
        if self.path is not None and self.catalog is not None:
            raise ValueError("a model has either 'path' or 'catalog'")
        return self


class ProviderModel(_Table):
    """One model of a provider."""

    name: Name = Field(description="what clients call it")
    upstream: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = Field(
        None, description="what the provider calls it, where that is another name"
    )
    context_tokens: int = Field(0, ge=0, description="its context there; 0: as the provider says, if it does")

    @property
    def upstream_name(self) -> str:
        """What the provider calls it."""
        return self.upstream or self.name


_HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")]
_HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{0,4096}$")]
_OWN_HEADERS = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "content-type", "accept-encoding"}
)


class ProviderSettings(_Table):
    """Another server that generates: anything that speaks OpenAI's API over HTTP."""

    name: Name = Field(description="what logs, metrics and 'x-coterie-provider' call it")
    base_url: str = Field(description="its address, as an OpenAI SDK takes it: 'http://10.0.0.2:8000/v1'")
    api_key_env: str | None = Field(None, min_length=1, description="the environment variable that holds its key")
    headers: dict[_HeaderName, _HeaderValue] = Field({}, description="further headers for each request")
    ca_file: Path | None = Field(None, description="certificates to trust beside the system's")
    models: tuple[ProviderModel | Name, ...] = Field(
        (), description="what it serves: names, or tables with 'name' and 'upstream'; empty: whatever it lists"
    )
    discovery_interval_s: PositiveSeconds = Field(60.0, description="how often its list of models is read")
    priority: int = Field(0, ge=-1000, le=1000, description="lower is asked first; equals share the load")
    weight: float = Field(1.0, gt=0, le=1000, description="share of the load among equals")
    concurrency: int = Field(256, ge=1, le=100_000, description="requests at once; others wait or go elsewhere")
    connect_timeout_s: PositiveSeconds = Field(5.0, description="for the connection, TLS included")
    first_token_timeout_s: PositiveSeconds = Field(60.0, description="from the request to the first token")
    idle_timeout_s: PositiveSeconds = Field(60.0, description="between two tokens")
    total_timeout_s: PositiveSeconds = Field(900.0, description="for the whole answer")
    continuation: Literal["none", "assistant", "vllm", "prefix"] = Field(
        "assistant",
        description="how to ask it to go on with a broken answer: an assistant message at the end (llama.cpp, Ollama, "
        "OpenRouter), the same with 'continue_final_message' (vLLM, SGLang), with 'prefix' (Mistral, DeepSeek), or not",
    )
    continuous_usage: bool = Field(
        False,
        description="ask it to count with every token ('continuous_usage_stats': vLLM, SGLang; others refuse it), so "
        "that a broken answer can go on with exactly the tokens that are left",
    )

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        Origin.parse(url)
        return url

    @field_validator("headers")
    @classmethod
    def _not_ours(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"the header '{name}' is written by the server itself")
        return headers

    @property
    def served(self) -> tuple[ProviderModel, ...]:
        """The configured models."""
        return tuple(ProviderModel(name=model) if isinstance(model, str) else model for model in self.models)

    def key(self, environ: Mapping[str, str]) -> str | None:
        """Its key. Raises :class:`ConfigError` where the variable is not set."""
        if self.api_key_env is None:
            return None
        key = environ.get(self.api_key_env, "").strip()
        if not key:
            problem = f"the environment variable {self.api_key_env} is not set"
            raise ConfigError([f"provider {self.name}: api_key_env: {problem}"])
        return key


class DispatchSettings(_Table):
    """How requests are spread over providers, and what is done when one fails."""

    attempts: int = Field(3, ge=1, le=20, description="tries of one request in all, on whatever providers")
    retry_window_s: Seconds = Field(120.0, description="no new try begins later than this after the first")
    retry_wait_s: Seconds = Field(5.0, description="waiting before tries in all, where a provider asks for a delay")
    continuation: bool = Field(True, description="go on elsewhere with an answer that broke off")
    queue: int = Field(1024, ge=0, le=1_000_000, description="requests that may wait for a provider with room")
    queue_timeout_s: PositiveSeconds = Field(60.0, description="for a provider with room")
    open_after: int = Field(3, ge=1, le=1000, description="failures in a row after which a provider is left alone")
    open_s: PositiveSeconds = Field(5.0, description="for how long at first; doubles with each failed probe")
    open_max_s: PositiveSeconds = Field(60.0, description="for how long at most")


class ResponsesSettings(_Table):
    """The Responses API: what is kept, and what runs in the background."""

    retention_days: float = Field(30.0, gt=0, le=36_500, description="days that a stored response is kept")
    history: int = Field(1000, ge=1, le=100_000, description="earlier responses that one may stand on")
    background: int = Field(256, ge=1, le=10_000, description="responses generated in the background at once")
    background_queue: int = Field(1024, ge=0, le=1_000_000, description="responses that may wait for that")
    background_timeout_s: PositiveSeconds = Field(3600.0, description="for a response in the background, in all")
    error_event: bool = Field(True, description="an 'error' event before 'response.failed', as OpenAI sends it")
    reasoning_events: Literal["openai", "open_responses"] = Field(
        "openai", description="names of the events of reasoning: 'response.reasoning_text.*' or 'response.reasoning.*'"
    )


class StorageSettings(_Table):
    """Where responses and conversations are stored."""

    url: Annotated[str, StringConstraints(pattern=r"^($|sqlite:///.|postgres(ql)?://)")] = Field(
        "", description="'sqlite:///FILE' or 'postgresql://USER:PASSWORD@HOST/DATABASE'; empty: a file in 'state_dir'"
    )


class Settings(_Table):
    """Everything that can be configured."""

    state_dir: Path = Field(
        default_factory=lambda: _default_state_dir(),
        description="models, stored responses, and the lock of the running server",
    )
    server: ServerSettings = Field(default_factory=ServerSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    models: tuple[ModelSettings, ...] = Field((), description="empty: the default model, if there are no providers")
    providers: tuple[ProviderSettings, ...] = Field((), description="other servers that generate")
    dispatch: DispatchSettings = Field(default_factory=DispatchSettings)
    responses: ResponsesSettings = Field(default_factory=ResponsesSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="from which level on to log")

    @field_validator("models")
    @classmethod
    def _distinct_names(cls, models: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
        names = [model.name for model in models]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two models are called '{name}'")
        return models

    @field_validator("providers")
    @classmethod
    def _distinct_providers(cls, providers: tuple[ProviderSettings, ...]) -> tuple[ProviderSettings, ...]:
        names = [provider.name for provider in providers]
        for name in names:
            if names.count(name) > 1 or name == EMBEDDED:
                raise ValueError(f"two providers are called '{name}'")
        return providers

    @property
    def models_dir(self) -> Path:
        """Where pulled models lie."""
        return self.state_dir / "models"

    @property
    def storage_url(self) -> str:
        """The database, wherever it is."""
        return self.storage.url or f"sqlite:///{quote(str(self.state_dir / 'coterie.db'))}"


_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    tree: dict[str, Any]
    place_of: Callable[[_Path], tuple[str, _Path]]
    """How a person finds the key at a path: the file, the variable or the flag, and what of the key is left to say."""


def load_settings(
    file: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Merge and check every source.

    ``file`` must exist if given; else ``coterie.toml`` in the working folder is read if it is there. ``flags`` maps
    dotted keys (``server.port``) to values; ``None`` means not given. Raises :class:`ConfigError`.
    """
    sources = [*_file_source(file), _env_source(os.environ if environ is None else environ), _flag_source(flags or {})]
    merged: dict[str, Any] = {}
    for source in sources:
        _merge(merged, source.tree)
    _inherit_engine(merged)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        problems = (_problem(detail, sources) for detail in error.errors())
        raise ConfigError([problem for problem in problems if problem is not None]) from None


def _default_state_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "coterie"


def _file_source(file: Path | None) -> Iterator[_Source]:
    path = file or Path("coterie.toml")
    if file is None and not path.exists():
        return
    try:
        yield _Source(tomllib.loads(path.read_text(encoding="utf-8")), lambda key: (str(path), key))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: is not TOML: {error}"]) from None


def _env_source(environ: Mapping[str, str]) -> _Source:
    given: dict[_Path, tuple[str, Any]] = {}
    for name, text in sorted(environ.items()):
        key = name.removeprefix(ENV_PREFIX).lower()
        if name.startswith(ENV_PREFIX) and key not in _NOT_SETTINGS:
            given[tuple(key.split("__"))] = (f"environment: {name}", _toml_value(text))
    return _given_source(given)


def _flag_source(flags: Mapping[str, Any]) -> _Source:
    given: dict[_Path, tuple[str, Any]] = {}
    for key, value in flags.items():
        if value is not None:
            path = tuple(key.split("."))
            given[path] = (f"flag --{path[-1].replace('_', '-')}", value)
    return _given_source(given)


def _given_source(given: Mapping[_Path, tuple[str, Any]]) -> _Source:
    """A source of single values, each with the place it came from."""
    tree: dict[str, Any] = {}
    for path, (place, value) in given.items():
        _set(tree, path, value, place)

    def place_of(path: _Path) -> tuple[str, _Path]:
        length = next((n for n in range(len(path), 0, -1) if path[:n] in given), None)
        if length is None:
            # Nothing was given there: it is above what was, which is then all to blame.
            below = (place for other, (place, _) in given.items() if other[: len(path)] == path)
            return ", ".join(below), path
        return given[path[:length]][0], path[length:]

    return _Source(tree, place_of)


def _toml_value(text: str) -> Any:
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return document["value"] if len(document) == 1 else text


def _set(tree: dict[str, Any], path: _Path, value: Any, place: str) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError([f"{place}: '{part}' was given as a whole already"])
    tree[path[-1]] = value


def _merge(into: dict[str, Any], tree: Mapping[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, dict) else value


def _inherit_engine(merged: dict[str, Any]) -> None:
    """Give each model the shared ``[engine]`` table under its own."""
    shared = merged.get("engine")
    models = merged.get("models")
    if not isinstance(shared, dict) or not isinstance(models, list):
        return
    merged["models"] = [
        {**model, "engine": {**shared, **own}}
        if isinstance(model, dict) and isinstance(own := model.get("engine", {}), dict)
        else model
        for model in models
    ]


def _problem(detail: Any, sources: list[_Source]) -> str | None:
    """One line; ``None`` for what a model inherited, which is told where it stands."""
    path = tuple(str(part) for part in detail["loc"])
    reason = detail["msg"].removeprefix("Value error, ")
    for length in range(len(path), 0, -1):
        for source in reversed(sources):
            if _has(source.tree, path[:length]):
                inherited = path[0] == "models" and path[2:3] == ("engine",) and length < 4 <= len(path)
                place, rest = source.place_of(path)
                return None if inherited else ": ".join(filter(None, (place, ".".join(rest), reason)))
    return f"{'.'.join(path) or 'configuration'}: {reason}"


def _has(tree: Any, path: _Path) -> bool:
    for part in path:
        if isinstance(tree, dict) and part in tree:
            tree = tree[part]
        elif isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return False
    return True
