"""The ``coterie`` program.

What it promises:

* ``coterie --help`` answers at once: this module imports nothing beyond the standard library, and a command's module is
  imported when that command runs, never before.
* A mistake of the operator (a wrong setting, a model that is not there) is plain lines on stderr and exit status 1,
  never a traceback; an unknown command or option is exit status 2.

A command's module exports ``app``: a ``typer.Typer``, or a plain function with Typer's annotations, which becomes a
command of its own. Either raises ``ConfigError`` and ``ModelError`` freely.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from coterie.version import __version__


@dataclass(frozen=True, slots=True)
class _Command:
    module: str
    summary: str
    attribute: str = "app"


_COMMANDS: Final[Mapping[str, _Command]] = {
    "serve": _Command("coterie.cli.serve", "Serve models over HTTP"),
    "chat": _Command("coterie.cli.chat", "Talk to a model in the terminal"),
    "models": _Command("coterie.cli.models", "List, pull, check and remove models"),
    "status": _Command("coterie.cli.status", "Show what a running server is doing"),
    "providers": _Command("coterie.cli.providers", "List the providers of a running server"),
    "doctor": _Command("coterie.cli.doctor", "Check this machine and the configuration"),
    "errors": _Command("coterie.cli.errors", "Explain every error that the server can answer"),
    "conform": _Command("coterie.cli.conform", "Judge any OpenAI-compatible server from outside"),
    "testbed": _Command("coterie.cli.testbed", "Test a server: upstreams that fail, load, recordings"),
}


def run() -> None:
    """Run the program with this process's arguments; ends the process."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; a command may also end with ``SystemExit``."""
    if not arguments:
        sys.stderr.write(_help())
        return 2
    name, *rest = arguments
    if name in ("--help", "-h"):
        sys.stdout.write(_help())
        return 0
    if name == "--version":
        sys.stdout.write(f"coterie {__version__}\n")
        return 0
    if name not in _COMMANDS:
        return _unknown(name)
    return _execute(name, rest)


def _help() -> str:
    width = max(map(len, _COMMANDS))
    commands = "".join(f"  {name:<{width}}  {command.summary}\n" for name, command in _COMMANDS.items())
    return (
        "Usage: coterie COMMAND [OPTIONS]\n\n"
        "One OpenAI-compatible endpoint in front of machines you own or trust.\n\n"
        f"Commands:\n{commands}\n"
        "Options:\n  --version  Show the version\n  --help     Show this text\n\n"
        "'coterie COMMAND --help' explains a command.\n"
    )


def _unknown(name: str) -> int:
    from coterie.cli.common import nearest

    kind = "option" if name.startswith("-") else "command"
    sys.stderr.write(f"error: There is no {kind} '{name}'.{nearest(name, _COMMANDS)}\n")
    sys.stderr.write("  'coterie --help' shows the commands.\n")
    return 2


def _execute(name: str, arguments: Sequence[str]) -> int:
    from coterie.config import ConfigError
    from coterie.models.errors import ModelError

    try:
        _load(_COMMANDS[name])(args=list(arguments), prog_name=f"coterie {name}")
    except ConfigError as error:
        return _refused(error.problems, "'coterie COMMAND --help' and docs/configuration.md name the settings.")
    except ModelError as error:
        return _refused([str(error)], error.remedy)
    return 0


def _load(command: _Command) -> Callable[..., object]:
    import importlib

    import typer

    target = getattr(importlib.import_module(command.module), command.attribute)
    if isinstance(target, typer.Typer):
        return target
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=command.summary)(target)
    return app


def _refused(problems: Iterable[str], remedy: str) -> int:
    sys.stderr.writelines(f"error: {problem}\n" for problem in problems)
    sys.stderr.write(f"  {remedy}\n")
    return 1
