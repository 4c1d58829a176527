from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import typer

from coterie.cli import main as program
from coterie.config import ConfigError
from coterie.models.errors import ModelError
from coterie.version import __version__

Coterie = Callable[..., Any]

LOADED = """
import json, sys
from coterie.cli.main import main
main(["--help"])
json.dump(sorted(sys.modules), sys.stderr)
"""


def plug_in(monkeypatch: pytest.MonkeyPatch, app: object) -> None:
    module = ModuleType("coterie_test_command")
    monkeypatch.setattr(module, "app", app, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(program, "_COMMANDS", {"try": program._Command(module.__name__, "Try something")})


def test_help_names_every_command(coterie: Coterie) -> None:
    ran = coterie("--help")
    assert ran.status == 0
    assert ran.err == ""
    for name in ("serve", "chat", "models", "status", "doctor", "errors"):
        assert f"\n  {name}" in ran.out


def test_help_imports_nothing_but_this_package() -> None:
    ran = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    loaded = set(json.loads(ran.stderr))
    assert "Usage: coterie" in ran.stdout
    assert loaded.isdisjoint({"typer", "rich", "pydantic", "orjson", "uvicorn", "starlette", "xllamacpp", "asyncio"})
    assert {name for name in loaded if name.split(".")[0] == "coterie"} == {
        "coterie",
        "coterie.cli",
        "coterie.cli.main",
        "coterie.version",
    }


def test_the_version(coterie: Coterie) -> None:
    assert coterie("--version").out == f"coterie {__version__}\n"


def test_no_command_is_a_wrong_use(coterie: Coterie) -> None:
    ran = coterie()
    assert ran.status == 2
    assert ran.out == ""
    assert "Usage: coterie" in ran.err


def test_an_unknown_command_is_named_with_its_neighbour(coterie: Coterie) -> None:
    ran = coterie("modles")
    assert ran.status == 2
    assert "There is no command 'modles'. Did you mean 'models'" in ran.err


def test_an_unknown_option(coterie: Coterie) -> None:
    ran = coterie("--verbose")
    assert ran.status == 2
    assert "There is no option '--verbose'." in ran.err


def test_the_entry_point_ends_the_process_with_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["coterie", "nothing"])
    with pytest.raises(SystemExit) as ended:
        program.run()
    assert ended.value.code == 2


def test_a_wrong_setting_is_a_line(coterie: Coterie, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTERIE_SERVER__PORT", "many")
    ran = coterie("models", "list")
    assert ran.status == 1
    assert ran.err.startswith("error: environment: COTERIE_SERVER__PORT: ")
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_a_function_is_a_command(coterie: Coterie, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(word: str, loud: bool = False) -> None:
        typer.echo(word.upper() if loud else word)

    plug_in(monkeypatch, act)
    assert coterie("try", "hello", "--loud").out == "HELLO\n"
    assert "Usage: coterie try" in coterie("try", "--help").out
    assert coterie("try", "--unknown").status == 2


def test_an_app_is_a_group_of_commands(coterie: Coterie, monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer(add_completion=False)
    app.command("one")(lambda: typer.echo("first"))
    app.command("two")(lambda: typer.echo("second"))
    plug_in(monkeypatch, app)
    assert coterie("try", "two").out == "second\n"


def test_a_status_of_its_own(coterie: Coterie, monkeypatch: pytest.MonkeyPatch) -> None:
    def act() -> None:
        raise typer.Exit(7)

    plug_in(monkeypatch, act)
    assert coterie("try").status == 7


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (ModelError("It is gone.", "Bring it back."), ["error: It is gone.", "  Bring it back."]),
        (ConfigError(["a: wrong", "b: wrong"]), ["error: a: wrong", "error: b: wrong"]),
    ],
)
def test_a_mistake_of_the_operator_is_lines(
    coterie: Coterie, monkeypatch: pytest.MonkeyPatch, error: Exception, lines: list[str]
) -> None:
    def act() -> None:
        raise error

    plug_in(monkeypatch, act)
    ran = coterie("try")
    assert ran.status == 1
    assert ran.err.splitlines()[:2] == lines


def test_a_bug_is_not_hidden(coterie: Coterie, monkeypatch: pytest.MonkeyPatch) -> None:
    def act() -> None:
        raise ZeroDivisionError

    plug_in(monkeypatch, act)
    with pytest.raises(ZeroDivisionError):
        coterie("try")
