"""``coterie conform``: judge an OpenAI-compatible server from outside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from coterie.cli.common import AsJson, nearest, print_json, print_table, stdout

if TYPE_CHECKING:
    from coterie.conform.check import Group
    from coterie.conform.run import Plan, Report


def conform(
    url: Annotated[str, typer.Argument(help="The base URL of an OpenAI-compatible API")],
    model: Annotated[str, typer.Option(help="The model to ask for")],
    key_env: Annotated[
        str | None, typer.Option("--key-env", metavar="NAME", help="The environment variable that has the key")
    ] = None,
    json: AsJson = False,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as Markdown too")] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="GROUPS", help="Of errors, chat, responses, storage, websocket; with commas between"),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, metavar="S", help="The longest of one exchange")] = 60.0,
    limit: Annotated[float, typer.Option(min=1, max=86400, metavar="S", help="The longest of all checks")] = 1800.0,
) -> None:
    """Judge a server by what it answers: errors, streams, parameters, storage. Exit status 1 where something fails.

    It makes some two hundred short requests, a few of them in the background, and stores a few responses.
    """
    import uvloop

    from coterie.conform.report import as_json, as_markdown
    from coterie.conform.run import NoServer, run

    plan = _plan(url, model, key_env, only, timeout, limit)
    try:
        report = uvloop.run(run(plan))
    except NoServer as error:
        typer.echo(f"error: Nothing answers at {url}: {error}.", err=True)
        typer.echo("  Start the server, or correct the URL.", err=True)
        raise typer.Exit(1) from None
    if markdown is not None:
        _write(markdown, as_markdown(report))
    if json:
        print_json(as_json(report))
    else:
        _print(report)
    if report.count("fail"):
        raise typer.Exit(1)


app = conform
"""The command."""


def _plan(url: str, model: str, key_env: str | None, only: str | None, timeout_s: float, limit_s: float) -> Plan:
    """Raises ``typer.BadParameter``."""
    from coterie.conform.exchange import Target
    from coterie.conform.run import Plan

    groups = _groups(only)
    try:
        target = Target(url, model, _key(key_env))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return Plan(target, groups, timeout_s, limit_s)


def _groups(only: str | None) -> tuple[Group, ...]:
    from coterie.conform.check import GROUPS

    if only is None:
        return GROUPS
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in GROUPS:
            raise typer.BadParameter(f"there is no group '{name}'.{nearest(name, GROUPS)}", param_hint="--only")
    return tuple(cast("Group", name) for name in names)


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise typer.BadParameter(f"the environment has no {name}", param_hint="--key-env")
    return key


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be written: {error.strerror}", param_hint="--markdown") from None


def _print(report: Report) -> None:
    from coterie.conform.report import TITLES, rows, summary

    found = list(rows(report))
    if found:
        print_table(TITLES, found)
    stdout().print(summary(report))
