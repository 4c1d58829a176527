"""``coterie testbed``: put any OpenAI-compatible gateway to the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli.common import AsJson, print_json, print_table
from coterie.cli.testbed_commands import register
from coterie.config import ConfigError

if TYPE_CHECKING:
    from coterie.testbed.faults import Fault
    from coterie.testbed.upstream import FaultyUpstream

app = typer.Typer(
    help="Put any OpenAI-compatible gateway to the test.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

register(app)

LEAK_MARKER = "zq7leak"
"""Stands in every failure's body where ``--leak`` asks for it."""


@app.command()
def upstream(
    host: Annotated[str, typer.Option(help="The address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for a free one")] = 9100,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FAULT", help="A further model name, and its fault; may be given often"),
    ] = None,
    tokens: Annotated[int, typer.Option(min=0, max=1_000_000, help="Tokens of an answer; 0: what is asked for")] = 0,
    rate: Annotated[float, typer.Option(min=0, max=100_000, help="Tokens a second of each answer; 0: at once")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Changes the words of the answers")] = 0,
    api_key: Annotated[str, typer.Option(metavar="KEY", help="Accept this key alone")] = "",
    leak: Annotated[bool, typer.Option("--leak", help=f"Put secrets with '{LEAK_MARKER}' into every failure")] = False,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="Append each request as a line of JSON")] = None,
) -> None:
    """Serve as an upstream that misbehaves on demand: the name of a request's model chooses the fault."""
    from coterie.testbed.upstream import FaultyUpstream

    models = _models(model or [])
    try:
        made = FaultyUpstream(
            host, port, models=models, tokens=tokens, rate=rate, seed=seed,
            marker=LEAK_MARKER if leak else "", api_key=api_key, log_file=log,
        )  # fmt: skip
    except OSError as error:
        raise ConfigError([f"{error.filename or f'{host}:{port}'}: {error.strerror}"]) from None
    _serve(made)


@app.command()
def faults(as_json: AsJson = False) -> None:
    """List the faults, and what a perfect gateway makes of each."""
    from coterie.testbed.faults import COMMON_OPTIONS, FAULTS
    from coterie.testbed.site import described_faults

    if as_json:
        print_json(described_faults())
        return
    rows = [(_pattern(fault), fault.summary, fault.alone, fault.with_second) for fault in FAULTS.values()]
    print_table(("model", "what happens", "alone, a gateway sends", "with a healthy second"), rows)
    typer.echo("\nEvery fault also takes:")
    print_table(("option", "what it is"), [(f":{name}=", option.about) for name, option in COMMON_OPTIONS.items()])


def _pattern(fault: Fault) -> str:
    """How a model with this fault is named: choices where there are some, else the default."""
    number = "" if fault.number is None else f"@{fault.number.default}"
    options = (f":{name}={'|'.join(option.choices) or option.default}" for name, option in fault.options.items())
    return fault.name + number + "".join(options)


def _models(given: Sequence[str]) -> dict[str, str]:
    """``NAME=FAULT`` options. Raises ``ConfigError`` with every mistake."""
    from coterie.testbed.faults import FAULTS, FaultSyntaxError, UnknownFaultError, parse

    models: dict[str, str] = {}
    problems: list[str] = []
    for option in given:
        name, _, fault = option.partition("=")
        try:
            parse(fault)
            models[name] = fault
        except UnknownFaultError:
            problems.append(f"--model {option}: after the name comes '=' and one of {', '.join(FAULTS)}.")
        except FaultSyntaxError as error:
            problems.append(f"--model {option}: {error}.")
    if problems:
        raise ConfigError(problems)
    return models


def _serve(made: FaultyUpstream) -> None:
    import uvloop

    typer.echo(f"Serving {made.base_url}, log at {made.url}/testbed/log")
    typer.echo(f"Models: {', '.join(made.models)}")
    typer.echo("'coterie testbed faults' explains them. Ctrl-C stops.")
    uvloop.run(_until_stopped(made))


async def _until_stopped(made: FaultyUpstream) -> None:
    import asyncio
    import signal

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with made:
        await stop.wait()
