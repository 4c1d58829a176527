"""``coterie status``: what a running server is doing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import typer

from coterie.cli.client import ApiKey, RequestError, Url, find_server, no_server, show_failure
from coterie.cli.common import AsJson, ConfigFile, print_json, print_table

_COLUMNS: Final = ("model", "task", "state", "slots", "running", "waiting", "loads", "pid")


def app(url: Url = None, api_key: ApiKey = None, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """Show what a running server is doing."""
    server = find_server(url, api_key, config)
    if server is None:
        raise no_server()
    try:
        status = server.get("/status")
    except RequestError as error:
        show_failure(error)
        raise typer.Exit(1) from None
    if as_json:
        print_json({"url": server.url, **status})
    else:
        _show(server.url, status, time.time())


def _show(url: str, status: Mapping[str, Any], now: float) -> None:
    facts = {
        "version": status.get("version"),
        "up for": uptime(now - float(status.get("started_at", now))),
        "ready": "yes" if status.get("ready") else "no",
        "requests": f"{status.get('active_requests')} being answered",
    }
    print_table(("server", url), [(name, str(value)) for name, value in facts.items()])
    typer.echo()
    engines = status.get("engines") or []
    print_table(_COLUMNS, [[_cell(engine.get(column)) for column in _COLUMNS] for engine in engines])


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def uptime(seconds: float) -> str:
    """``seconds`` in the two largest units that count: ``3 d 4 h``."""
    parts: list[str] = []
    left = max(0, int(seconds))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
