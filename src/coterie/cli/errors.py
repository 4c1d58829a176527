"""``coterie errors``: the catalogue of failures, for people and (``--json``) for programs."""

from __future__ import annotations

from typing import Annotated

import typer

from coterie.cli.common import AsJson, nearest, print_json, print_table
from coterie.errors import CATALOGUE, Entry, Retry

_RETRY = {
    Retry.NEVER: "no: the same request fails again",
    Retry.BACKOFF: "yes, after a while",
    Retry.AFTER: "yes, after the delay that the answer names",
}


def app(
    code: Annotated[str | None, typer.Argument(help="An error's code; else all of them")] = None,
    as_json: AsJson = False,
) -> None:
    """Explain one error, or list every error that the server can answer."""
    if code is None:
        _show_all(as_json)
        return
    entry = CATALOGUE.get(code)
    if entry is None:
        typer.echo(f"error: There is no error '{code}'.{nearest(code, CATALOGUE)}", err=True)
        typer.echo("  'coterie errors' lists them all.", err=True)
        raise typer.Exit(1)
    if as_json:
        print_json(entry)
    else:
        _show(entry)


def _show_all(as_json: bool) -> None:
    if as_json:
        print_json(list(CATALOGUE.values()))
        return
    rows = [
        (entry.code, str(entry.status), entry.fault, entry.retry.value, entry.cause) for entry in CATALOGUE.values()
    ]
    print_table(("code", "status", "fault", "retry", "cause"), rows)


def _show(entry: Entry) -> None:
    facts = {
        "message": entry.message,
        "cause": entry.cause,
        "remedy": entry.remedy,
        "fault": entry.fault,
        "retry helps": _RETRY[entry.retry],
        "HTTP status": str(entry.status),
        "type": entry.type,
        "param": "names the place in the request" if entry.takes_param else "null",
        "Responses code": entry.responses_code,
        "Anthropic type": entry.anthropic_type,
    }
    print_table(("code", entry.code), list(facts.items()))
