"""``coterie serve``: bring the model, listen, say how to ask, serve until told to stop."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.cli.common import ConfigFile, load
from coterie.cli.state_lock import StateLock, StateTakenError
from coterie.config import DEFAULT_MODEL, ConfigError, ModelSettings, Settings


def app(
    config: ConfigFile = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A catalogue model, or NAME=PATH for a local GGUF file; can be given again"),
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one")] = None,
    api_key: Annotated[list[str] | None, typer.Option(help="A key that clients must send; can be given again")] = None,
    slots: Annotated[int | None, typer.Option(help="Answers generated at once")] = None,
    context_tokens: Annotated[int | None, typer.Option(help="Context of each slot")] = None,
    preload: Annotated[bool | None, typer.Option("--preload", help="Load at start")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where models lie")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error")] = None,
) -> None:
    """Serve models over HTTP."""
    flags = {
        "server.host": host,
        "server.port": port,
        "server.api_keys": api_key or None,
        "engine.slots": slots,
        "engine.context_tokens": context_tokens,
        "engine.preload": preload,
        "models": [_model_flag(text) for text in model] if model else None,
        "state_dir": state_dir,
        "log_level": log_level,
    }

    def read() -> Settings:
        return _with_default_model(load(config, flags))

    settings = read()
    try:
        with _locked(settings.state_dir) as lock:
            _serve(settings, lock, read)
    except StateTakenError as error:
        where = f" (process {error.running.pid}, {error.running.url})" if error.running else ""
        _refuse(
            f"another server already runs on the state folder {error.folder}{where}",
            "Stop it, or give this one another folder: --state-dir",
        )


@contextmanager
def _locked(folder: Path) -> Iterator[StateLock]:
    lock = StateLock(folder)
    try:
        lock.__enter__()
    except OSError as error:
        _refuse(f"the state folder {folder} cannot be used: {error.strerror}", "Give another one: --state-dir")
    try:
        yield lock
    finally:
        lock.__exit__(None, None, None)


def _serve(settings: Settings, lock: StateLock, read: Callable[[], Settings]) -> None:
    from coterie.api.app import make_providers, make_state
    from coterie.api.server import PortTakenError, listen, run
    from coterie.observe import log
    from coterie.storage.database import StorageError

    log.configure(settings.log_level)
    try:
        listener = listen(settings.server)
    except PortTakenError as error:
        _refuse(f"another program already listens on {error}", "Stop it, or take another port: --port")
    except OSError as error:
        _refuse(
            f"cannot listen on {settings.server.host}:{settings.server.port}: {error.strerror}", "See --host, --port"
        )
    with listener:
        # Only now: nothing is downloaded for a server that cannot run.
        _bring_models(settings)
        state = make_state(settings, make_providers(settings))
        url = _url(settings, listener)
        lock.tell(url)
        try:
            run(state, listener, lambda: _greet(settings, url), read)
        except StorageError as error:
            _refuse(str(error), "See 'storage.url' and 'state_dir'; 'coterie doctor' looks at both")


def _model_flag(text: str) -> dict[str, Any]:
    name, equals, path = text.partition("=")
    return {"name": name, "path": path} if equals else {"name": text}


def _with_default_model(settings: Settings) -> Settings:
    if settings.models or settings.providers:
        return settings
    model = ModelSettings(name=DEFAULT_MODEL, engine=settings.engine)
    return settings.model_copy(update={"models": (model,)})


def _bring_models(settings: Settings) -> None:
    """Pull the catalogue models that are not there yet."""
    from coterie.cli.models import telling
    from coterie.models.catalogue import CATALOG
    from coterie.models.pull import pull
    from coterie.models.store import ModelStore

    store = ModelStore(settings.models_dir)
    for model in settings.models:
        name = model.catalog or model.name
        if model.path is None and name in CATALOG and not store.installed(name):
            with telling(name, quiet=False) as progress:
                pull(CATALOG[name], store, progress)
        elif model.path is None and name not in CATALOG:
            reason = f"'{name}' is not in the catalogue ('coterie models catalog'), and it has no path"
            raise ConfigError([f"model {model.name}: {reason}"])


def _url(settings: Settings, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host  # noqa: S104
    return f"http://{shown}:{port}"


def _greet(settings: Settings, url: str) -> None:
    """What a newcomer needs: the address, the key, and a request that works as it stands."""
    keys = settings.server.api_keys
    model, served = _what_is_served(settings)
    lines = ["", f"Coterie serves {served} at {url}/v1"]
    lines.append(f"API key: {keys[0]}" if keys else "API key: none needed (any text will do)")
    if not keys and settings.server.host not in ("127.0.0.1", "::1", "localhost"):
        lines.append("WARNING: everybody who reaches this address is served; set 'server.api_keys'.")
    key = [f"  -H 'Authorization: Bearer {keys[0]}' \\"] if keys else []
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Say hello!"}}]}}'
    lines += [
        "Try it:",
        "",
        f"curl {url}/v1/chat/completions \\",
        *key,
        "  -H 'Content-Type: application/json' \\",
        f"  -d '{body}'",
        "",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _what_is_served(settings: Settings) -> tuple[str, str]:
    """A model to try, and what to say of all of them."""
    names = [model.name for model in settings.models]
    for provider in settings.providers:
        names += [model.name for model in provider.served]
    discovered = [provider.name for provider in settings.providers if not provider.models]
    parts = [", ".join(names)] if names else []
    if discovered:
        parts.append(f"what {', '.join(discovered)} {'lists' if len(discovered) == 1 else 'list'}")
    return (names[0] if names else "MODEL"), " and ".join(parts)


def _refuse(problem: str, remedy: str) -> None:
    sys.stderr.write(f"error: {problem}\n  {remedy}\n")
    sys.stderr.flush()
    raise typer.Exit(1)


__all__ = ["app"]
