"""``coterie doctor``: whether this machine and its configuration can serve, and what to do where not.

What it promises:

* Each check is a function from an :class:`Examination` to its findings, listed in :data:`CHECKS`; every ``FAIL`` has a
  remedy, and one failed check does not keep the others from being made.
* Nothing is changed, but that the state folder is made. The engine is asked in another process, so that its crash is a
  finding.
* ``FAIL`` means that serving fails, or that a request will; ``WARN`` that it may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from coterie.cli.client import RequestError, Server, own_server
from coterie.cli.common import AsJson, ConfigFile, load, print_json
from coterie.cli.machine import EngineFacts, Machine
from coterie.config import DEFAULT_MODEL, ConfigError, ModelSettings, ProviderSettings, Settings
from coterie.errors import ApiError
from coterie.models.catalogue import CATALOG, CatalogModel
from coterie.models.errors import ModelError
from coterie.models.gguf import kv_cache_bytes, read_gguf
from coterie.models.resolve import resolve
from coterie.models.store import ModelStore
from coterie.storage.database import StorageError

Level = Literal["PASS", "WARN", "FAIL"]

_OLDEST_PYTHON: Final = (3, 11)
_LITTLE_DISK_BYTES: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; ``remedy`` is empty where nothing is to be done."""

    check: str
    level: Level
    text: str
    remedy: str = ""


class Examination:
    """What the checks look at. ``problems`` are those of a configuration that cannot be used; then it has no settings.

    ``quick``: no file is read from end to end.
    """

    def __init__(
        self, settings: Settings | None, problems: tuple[str, ...] = (), *, quick: bool = False,
        machine: Machine | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.problems = problems
        self.quick = quick
        self.machine = machine or Machine()

    @property
    def models(self) -> tuple[ModelSettings, ...]:
        """The models that would be served."""
        if self.settings is None:
            return ()
        if self.settings.providers:
            return self.settings.models
        return self.settings.models or (ModelSettings(name=DEFAULT_MODEL, engine=self.settings.engine),)

    @cached_property
    def engine(self) -> EngineFacts:
        """The engine's own words, asked once."""
        return self.machine.engine()

    @cached_property
    def server(self) -> Server | None:
        """The server that runs on the state folder."""
        return None if self.settings is None else own_server(self.settings)


Check = Callable[[Examination], Iterator[Finding]]


def app(
    quick: Annotated[bool, typer.Option("--quick", help="Do not read models from end to end for their hash")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Check this machine and the configuration."""
    found = []
    for finding in findings(_examination(config, quick)):
        found.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        print_json([asdict(finding) for finding in found])
    if any(finding.level == "FAIL" for finding in found):
        raise typer.Exit(1)


def findings(examination: Examination) -> Iterator[Finding]:
    """What every check finds, in order."""
    for check in CHECKS:
        yield from check(examination)


def _examination(config: Path | None, quick: bool) -> Examination:
    try:
        return Examination(load(config), quick=quick)
    except ConfigError as error:
        return Examination(None, tuple(error.problems), quick=quick)


def _show(finding: Finding) -> None:
    typer.echo(f"[{finding.level}] {finding.check}: {finding.text}")
    if finding.remedy:
        typer.echo(f"       {finding.remedy}")


def check_python(examination: Examination) -> Iterator[Finding]:
    """The interpreter is new enough."""
    version = examination.machine.python_version()
    shown = ".".join(map(str, version))
    if version >= _OLDEST_PYTHON:
        yield Finding("python", "PASS", shown)
    else:
        yield Finding("python", "FAIL", f"{shown} is too old", "Install Python 3.11 or newer.")


def check_engine(examination: Examination) -> Iterator[Finding]:
    """The engine can be imported, and on what it computes."""
    engine = examination.engine
    if engine.problem is not None:
        remedy = "Install the packages again ('make clean serve'); the engine needs a 64-bit x86 or ARM processor."
        yield Finding("engine", "FAIL", f"xllamacpp cannot be used: {engine.problem}", remedy)
        return
    devices = ", ".join(f"{device.name} ({device.description.strip()})" for device in engine.devices)
    yield Finding("engine", "PASS", f"xllamacpp {engine.version} on {devices or 'no device that it names'}")


def check_configuration(examination: Examination) -> Iterator[Finding]:
    """The configuration can be used."""
    for problem in examination.problems:
        yield Finding("configuration", "FAIL", problem, "Correct it; docs/configuration.md has every setting.")
    if examination.settings is not None:
        yield Finding("configuration", "PASS", f"valid, state folder {examination.settings.state_dir}")


def check_state_folder(examination: Examination) -> Iterator[Finding]:
    """The state folder can be written, and has room for the models that are still to come."""
    if examination.settings is None:
        return
    folder = examination.settings.state_dir
    try:
        examination.machine.try_to_write(folder)
        free = examination.machine.free_disk_bytes(folder)
    except OSError as error:
        remedy = "Check its owner and permissions, or set another 'state_dir'."
        yield Finding("state folder", "FAIL", f"{folder} cannot be written: {error.strerror}", remedy)
        return
    needed = sum(2 * model.size_bytes for model in _models_to_pull(examination))
    text = f"{folder} can be written, {_size(free)} are free"
    if free < needed:
        remedy = f"Free {_size(needed - free)}, or set another 'state_dir'."
        yield Finding("state folder", "FAIL", f"{text}, pulling the models needs {_size(needed)}", remedy)
    elif free < _LITTLE_DISK_BYTES:
        yield Finding("state folder", "WARN", text, "Free some space before a model is pulled.")
    else:
        yield Finding("state folder", "PASS", text)


def check_storage(examination: Examination) -> Iterator[Finding]:
    """The database of responses and conversations can be opened."""
    if examination.settings is None:
        return
    try:
        found = examination.machine.storage_at(examination.settings.storage_url)
    except StorageError as error:
        yield Finding("storage", "FAIL", str(error), "Correct 'storage.url', or make the database reachable.")
    else:
        yield Finding("storage", "PASS", found)


def check_models(examination: Examination) -> Iterator[Finding]:
    """Every model's file is there, is a model, and has the bytes of the catalogue."""
    for model in examination.models:
        yield _model_finding(model, examination)


def _model_finding(model: ModelSettings, examination: Examination) -> Finding:
    check = f"model {model.name}"
    if model in _not_installed(examination):
        return Finding(check, "WARN", "not pulled yet", "'coterie serve' pulls it at its start; that needs a network.")
    store = _store(examination)
    try:
        path = resolve(model, store)
        if model.chat_template is not None:
            model.chat_template.read_text(encoding="utf-8")
        if model.path is None and not examination.quick:
            problem = store.verify(model.catalog or model.name).problem
            if problem is not None:
                remedy = f"'coterie models remove {model.catalog or model.name}', then pull it again."
                return Finding(check, "FAIL", problem, remedy)
    except ModelError as error:
        return Finding(check, "FAIL", str(error), error.remedy)
    except (OSError, UnicodeDecodeError):
        return Finding(check, "FAIL", f"{model.chat_template} cannot be read", "Correct 'chat_template'.")
    return Finding(check, "PASS", f"{path} is {_size(path.stat().st_size)}{_hashed(model, examination)}")


def _hashed(model: ModelSettings, examination: Examination) -> str:
    return "" if model.path is not None or examination.quick else ", every byte as it was pulled"


def check_memory(examination: Examination) -> Iterator[Finding]:
    """The models with the caches of all their slots fit the memory."""
    needed = sum(_needed_bytes(model, examination) for model in examination.models)
    where, available = _memory(examination)
    if not needed or available is None:
        return
    text = f"all models loaded take about {_size(needed)}, {_size(available)} {where} are available"
    remedy = "Serve a smaller model, or fewer 'slots' or 'context_tokens'."
    if needed <= available:
        yield Finding("memory", "PASS", text)
    elif examination.server is not None or where != _SYSTEM:
        yield Finding("memory", "WARN", f"{text}, less what is loaded already", remedy)
    else:
        yield Finding("memory", "FAIL", text, remedy)


_SYSTEM: Final = "of memory"


def _memory(examination: Examination) -> tuple[str, int | None]:
    """Where the models are loaded, and how much is left there."""
    gpus = [device.free_bytes for device in examination.engine.devices if device.gpu]
    if gpus and any(model.engine.gpu_layers != 0 for model in examination.models):
        return "on GPUs", sum(gpus)
    return _SYSTEM, examination.machine.available_memory_bytes()


def _needed_bytes(model: ModelSettings, examination: Examination) -> int:
    """A model with its cache; nothing for one that :func:`check_models` complains about."""
    try:
        path = resolve(model, _store(examination))
        info = read_gguf(path)
        size = path.stat().st_size
    except (ModelError, OSError):
        return 0
    tokens = min(model.engine.context_tokens, info.context_tokens) * model.engine.slots
    return size + kv_cache_bytes(info, tokens)


def check_port(examination: Examination) -> Iterator[Finding]:
    """The address can be listened on, or our own server does."""
    if examination.settings is None:
        return
    from coterie.api.server import PortTakenError, listen

    server = examination.settings.server
    address = f"{server.host}:{server.port}"
    try:
        listen(server).close()
    except PortTakenError:
        yield _taken(address, server.port, examination.server)
    except OSError as error:
        remedy = "Correct 'server.host' and 'server.port'; ports below 1024 need a privilege."
        yield Finding("port", "FAIL", f"{address} cannot be listened on: {error.strerror}", remedy)
    else:
        yield Finding("port", "PASS", f"{address} is free")


def _taken(address: str, port: int, running: Server | None) -> Finding:
    if running is not None and running.url.endswith(f":{port}"):
        return Finding("port", "PASS", f"{address} is held by this configuration's own server")
    return Finding("port", "FAIL", f"{address} is taken by another program", "Stop it, or set another 'server.port'.")


def check_server(examination: Examination) -> Iterator[Finding]:
    """The server that runs, if one does, is well."""
    server = examination.server
    if server is None:
        return
    try:
        server.get("/health")
        server.get("/ready")
        status = server.get("/status")
    except RequestError as error:
        yield Finding("server", "FAIL", f"{server.url}: {error.message}", _server_remedy(error))
        return
    failed = [str(engine.get("model")) for engine in status.get("engines", ()) if engine.get("state") == "failed"]
    if failed:
        remedy = "The server's log says why; 'coterie serve --log-level debug' says more."
        yield Finding("server", "FAIL", f"{server.url} could not load {', '.join(failed)}", remedy)
    else:
        yield Finding("server", "PASS", f"{server.url} is ready")


def _server_remedy(error: RequestError) -> str:
    if error.code == "not_ready":
        return "It is loading a model, or could not: its log says which. Ask again a little later."
    return error.remedy


def check_providers(examination: Examination) -> Iterator[Finding]:
    """Each other server answers, takes the key, and has the models that are asked of it."""
    for provider in examination.settings.providers if examination.settings else ():
        yield _check_provider(provider, examination.machine)


def _check_provider(provider: ProviderSettings, machine: Machine) -> Finding:
    name = f"provider {provider.name}"
    try:
        listed = machine.models_listed_by(provider)
    except ConfigError as error:
        return Finding(name, "FAIL", error.problems[0], "Set the variable, or take 'api_key_env' out.")
    except ApiError as error:
        level: Level = "WARN" if provider.models else "FAIL"
        return Finding(name, level, f"its list of models cannot be read: {error.message}", error.entry.remedy)
    missing = [model.upstream_name for model in provider.served if model.upstream_name not in listed]
    if missing:
        text = f"it does not list {', '.join(missing)}"
        return Finding(name, "WARN", text, "Correct 'upstream' of these models, or load them there.")
    served = len(provider.models) or len(listed)
    return Finding(name, "PASS", f"answers; {served} model{'s' if served != 1 else ''}")


CHECKS: Final[tuple[Check, ...]] = (
    check_python,
    check_engine,
    check_configuration,
    check_state_folder,
    check_storage,
    check_models,
    check_providers,
    check_memory,
    check_port,
    check_server,
)
"""Every check, in the order in which they are told."""


def _store(examination: Examination) -> ModelStore:
    assert examination.settings is not None
    return ModelStore(examination.settings.models_dir)


def _not_installed(examination: Examination) -> list[ModelSettings]:
    """The models of the catalogue that ``coterie serve`` would pull."""
    return [
        model
        for model in examination.models
        if model.path is None
        and (model.catalog or model.name) in CATALOG
        and not _store(examination).installed(model.catalog or model.name)
    ]


def _models_to_pull(examination: Examination) -> list[CatalogModel]:
    return [CATALOG[model.catalog or model.name] for model in _not_installed(examination)]


def _size(count_bytes: int) -> str:
    return f"{count_bytes / 1e9:.1f} GB" if count_bytes >= 1e9 else f"{count_bytes / 1e6:.0f} MB"
