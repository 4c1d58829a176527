"""``coterie models``: what can be pulled, what is here, and bringing, checking and removing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from coterie.cli.common import AsJson, ConfigFile, load, nearest, print_json, print_table, stderr
from coterie.config import DEFAULT_MODEL
from coterie.models.catalogue import CATALOG, CatalogModel
from coterie.models.errors import ModelError
from coterie.models.progress import Phase, Progress, silent
from coterie.models.pull import pull, up_to_date
from coterie.models.store import ModelStore, Verification

app = typer.Typer(
    help="List, pull, check and remove models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors")]

_DOING: dict[Phase, str] = {
    "wait": "another process is at this model, waiting",
    "download": "downloading",
    "unpack": "unpacking",
    "verify": "checking",
}


@app.command()
def catalog(as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Show the models that can be pulled by name."""
    store = _store(config)
    if as_json:
        print_json([_described(model, store) for model in CATALOG.values()])
        return
    rows = [
        (
            model.name,
            _size(model.size_bytes),
            str(model.context_tokens),
            model.licence,
            _here(model, store),
            model.summary,
        )
        for model in CATALOG.values()
    ]
    print_table(("name", "size", "context", "licence", "here", "what it is"), rows)


@app.command("list")
def list_models(as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Show the models that are installed."""
    store = _store(config)
    installed = store.list()
    if as_json:
        print_json([{**asdict(model), "path": str(store.path_of(model.name))} for model in installed])
    elif not installed:
        typer.echo(f"No models in {store.folder}. 'coterie models pull' brings the default one.")
    else:
        rows = [(model.name, _size(model.size_bytes), model.source, model.pulled_at) for model in installed]
        print_table(("name", "size", "source", "pulled at"), rows)


@app.command("pull")
def pull_model(
    name: Annotated[str, typer.Argument(help="A name from 'coterie models catalog'")] = DEFAULT_MODEL,
    quiet: Quiet = False,
    config: ConfigFile = None,
) -> None:
    """Download, check and install a model; continues a download that broke off."""
    say: Callable[[str], None] = (lambda line: None) if quiet else typer.echo
    model = _known(name)
    store = _store(config)
    if up_to_date(model, store) is not None:
        say(f"{name} is already installed: {store.path_of(name)}")
        return
    with telling(name, quiet) as progress:
        pull(model, store, progress)
    say(f"Installed {name}: {store.path_of(name)}")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="An installed model")], config: ConfigFile = None) -> None:
    """Delete an installed model and what is left of an unfinished pull of it."""
    _store(config).remove(name, lambda: typer.echo(f"{name}: {_DOING['wait']}", err=True))
    typer.echo(f"Removed {name}.")


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="An installed model; else all of them")] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Read installed models again and compare every byte's hash; exit status 1 where one has changed."""
    store = _store(config)
    names = [name] if name is not None else [model.name for model in store.list()]
    if not names:
        typer.echo(f"No models in {store.folder}.", err=True)
    results = [_verified(store, each, as_json) for each in names]
    if as_json:
        print_json([{"name": result.name, "ok": result.ok, "problem": result.problem} for result in results])
    else:
        for result in results:
            typer.echo(_verdict(result))
    if not all(result.ok for result in results):
        raise typer.Exit(1)


def _store(config: ConfigFile) -> ModelStore:
    return ModelStore(load(config).models_dir)


def _known(name: str) -> CatalogModel:
    model = CATALOG.get(name)
    if model is None:
        raise ModelError(
            f"The model '{name}' is not in the catalogue.{nearest(name, CATALOG)}",
            "'coterie models catalog' shows those that are.",
        )
    return model


def _verified(store: ModelStore, name: str, quiet: bool) -> Verification:
    with telling(name, quiet) as progress:
        return store.verify(name, progress)


def _verdict(result: Verification) -> str:
    if result.ok:
        return f"{result.name}: ok"
    again = f"'coterie models remove {result.name}', then pull it again."
    return f"{result.name}: {result.problem}\n  {again}"


def _described(model: CatalogModel, store: ModelStore) -> dict[str, object]:
    return {**asdict(model), "source": str(model.source), "installed": store.installed(model.name)}


def _here(model: CatalogModel, store: ModelStore) -> str:
    return "yes" if store.installed(model.name) else ""


def _size(count_bytes: int) -> str:
    return f"{count_bytes / 1e9:.2f} GB" if count_bytes >= 1e9 else f"{count_bytes / 1e6:.0f} MB"


@contextmanager
def telling(name: str, quiet: bool) -> Iterator[Progress]:
    """How progress is told: a bar on a terminal, else a line now and then; on stderr."""
    if quiet:
        yield silent
    elif stderr().is_terminal:
        with _bar(name) as progress:
            yield progress
    else:
        yield _Lines(name).tell


@contextmanager
def _bar(name: str) -> Iterator[Progress]:
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=stderr(), transient=True) as bars:
        task = bars.add_task(name, total=None)
        shown: list[Phase] = []

        def tell(done_bytes: int, total_bytes: int, phase: Phase) -> None:
            if shown[-1:] != [phase]:
                shown.append(phase)
                bars.reset(task, total=total_bytes, description=f"{name}: {_DOING[phase]}")
            bars.update(task, completed=done_bytes, total=total_bytes)

        yield tell


class _Lines:
    """Progress as plain lines: one for each phase, and one for each tenth of a download."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: tuple[Phase, int] | None = None

    def tell(self, done_bytes: int, total_bytes: int, phase: Phase) -> None:
        """A :data:`~coterie.models.progress.Progress`."""
        tenths = done_bytes * 10 // total_bytes if total_bytes and phase == "download" else 0
        if (phase, tenths) == self._last:
            return
        self._last = phase, tenths
        amount = f" {tenths * 10}% of {_size(total_bytes)}" if phase == "download" else ""
        typer.echo(f"{self._name}: {_DOING[phase]}{amount}", err=True)
