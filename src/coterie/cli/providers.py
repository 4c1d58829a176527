"""``coterie providers``: who serves what, and how it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import typer

from coterie.cli.client import ApiKey, RequestError, Url, find_server, no_server, show_failure
from coterie.cli.common import AsJson, ConfigFile, print_json, print_table

_COLUMNS: Final = ("provider", "model", "state", "load", "first token", "answered", "failed")


def app(url: Url = None, api_key: ApiKey = None, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """List the providers of a running server: state, load, failures by code."""
    server = find_server(url, api_key, config)
    if server is None:
        raise no_server()
    try:
        rows = server.get("/status").get("providers") or []
    except RequestError as error:
        show_failure(error)
        raise typer.Exit(1) from None
    if as_json:
        print_json(rows)
    else:
        print_table(_COLUMNS, [_cells(row) for row in rows])


def _cells(row: Mapping[str, Any]) -> list[str]:
    first_ms = row["first_token_ms"]
    return [
        row["provider"],
        row["model"],
        _state(row),
        f"{row['running']}/{row['seats'] or '-'}",
        "-" if first_ms is None else f"{first_ms:g} ms",
        str(row["answered"]),
        ", ".join(f"{count} {code}" for code, count in row["failures"].items()) or "-",
    ]


def _state(row: Mapping[str, Any]) -> str:
    wait_s = row["available_in_s"]
    return f"{row['state']} ({wait_s:g} s)" if wait_s else str(row["state"])
