"""What several commands share: settings, consoles, JSON."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from coterie.config import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Console

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", envvar="COTERIE_CONFIG", help="A TOML file; else ./coterie.toml, if any"),
]
"""The ``--config`` option of every command that loads settings."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]
"""The ``--json`` option of every command that lists something."""


_PIPE_WIDTH = 250
"""Columns of output that is no terminal: whoever reads it with a program wants one line for each row."""


def load(config: Path | None, flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings for a command: ``flags`` maps dotted keys to values, ``None`` for a flag that was not given.

    Raises ``ConfigError``, which the program prints.
    """
    return load_settings(config, flags=flags)


@cache
def stdout() -> Console:
    """The console for results."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, emoji=False, width=_PIPE_WIDTH)


@cache
def stderr() -> Console:
    """The console for progress and complaints."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns on stdout; only the last one is broken into lines where the terminal is narrow."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, no_wrap=title != titles[-1], overflow="fold")
    for row in rows:
        table.add_row(*row)
    stdout().print(table)


def print_json(value: object) -> None:
    """Print ``value`` (dataclasses included) as indented JSON on stdout."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def nearest(word: str, known: Iterable[str]) -> str:
    """`` Did you mean ...?`` with the known words that look like ``word``; empty where none does."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
