"""``coterie testbed load``, ``record`` and ``replay``: their options."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from coterie.cli.client import ApiKey
from coterie.config import ConfigError

if TYPE_CHECKING:
    from coterie.testbed.integrity import VerifierFactory
    from coterie.testbed.recorder import Recorder
    from coterie.testbed.replayer import Replayer

_MAX_TEXT_BYTES = 16 * 1024 * 1024
_SPARE_FILES = 64
"""Open files beside the streams."""

Port = Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 for a free one")]
Folder = Annotated[Path, typer.Option(metavar="FOLDER", help="Where the recorded exchanges are")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(load)
    app.command()(record)
    app.command()(replay)


def load(
    url: Annotated[str, typer.Argument(help="The base URL of an OpenAI-compatible API")],
    model: Annotated[str, typer.Option(help="The model to ask for")],
    streams: Annotated[int, typer.Option(min=1, help="How many at the same time")] = 1,
    requests: Annotated[int | None, typer.Option(min=1, help="How many altogether; else as many as streams")] = None,
    duration: Annotated[float | None, typer.Option(metavar="S", help="Stop after so many seconds")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Tokens per second that the server keeps: lateness is measured against it")
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="max_tokens of each request")] = None,
    prompt: Annotated[str, typer.Option(help="What to say")] = "Count.",
    plain: Annotated[bool, typer.Option("--plain", help="Ask for whole answers, not for streams")] = False,
    ramp: Annotated[float, typer.Option(metavar="S", help="Begin the first streams over so many seconds")] = 1.0,
    timeout: Annotated[float, typer.Option(metavar="S", help="The longest that an answer may take")] = 300.0,
    verify: Annotated[
        str, typer.Option(metavar="none|sequence|FILE", help="The text to expect: any, ' w0 w1 ...', or a file's")
    ] = "none",
    api_key: ApiKey = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Allow a target that is not local")] = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result as JSON")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result as Markdown")] = None,
    max_p99_ttft_ms: Annotated[float | None, typer.Option(help="Fail above this")] = None,
    max_p99_lateness_ms: Annotated[float | None, typer.Option(help="Fail above this")] = None,
    max_failures: Annotated[int, typer.Option(help="Fail above so many answers that are not complete")] = 0,
    max_broken: Annotated[int, typer.Option(help="Fail above so many answers that break a rule")] = 0,
) -> None:
    """Load a server with concurrent streams, and measure and judge each. Exit status 1 where a limit is passed."""
    import uvloop

    from coterie.testbed.load import LoadPlan, LoadPlanError, run_load
    from coterie.testbed.load_report import Thresholds, as_json, as_markdown

    thresholds = Thresholds(max_p99_ttft_ms, max_p99_lateness_ms, max_failures, max_broken)
    try:
        plan = LoadPlan(
            url, model, streams=streams, requests=requests, duration_s=duration, tokens=tokens, rate=rate,
            prompt=prompt, streamed=not plain, ramp_s=ramp, timeout_s=timeout, api_key=api_key,
            allow_remote=allow_remote, verifier=_verifier(verify, tokens),
        )  # fmt: skip
        _allow_files(streams + _SPARE_FILES)
        report = uvloop.run(run_load(plan))
    except LoadPlanError as error:
        raise ConfigError([str(error)]) from None
    passed = thresholds.passed(report)
    text = as_markdown(report, passed)
    _write(markdown, text.encode())
    _write(json, orjson.dumps(as_json(report, passed), option=orjson.OPT_INDENT_2) + b"\n")
    typer.echo(text, nl=False)
    if passed:
        raise typer.Exit(1)


def record(
    upstream: Annotated[str, typer.Option(metavar="URL", help="Where to pass on to; without a path")],
    folder: Folder,
    port: Port = 9101,
) -> None:
    """Pass on to an upstream, and write each exchange to a file, without its secrets."""
    from coterie.testbed.recorder import Recorder

    try:
        recorder = Recorder(upstream, folder, port=port)
    except ValueError as error:
        raise ConfigError([str(error)]) from None
    _serve(recorder)
    typer.echo(f"{len(recorder.recorded)} exchanges recorded in {folder}")
    for reason, count in recorder.skipped.items():
        typer.echo(f"{count} not recorded: {reason}")


def replay(
    folder: Folder,
    port: Port = 9102,
    speed: Annotated[float, typer.Option(min=0, help="2 is twice as fast; 0 is without waiting")] = 1.0,
) -> None:
    """Serve recorded exchanges, failures included."""
    from coterie.testbed.exchange_file import ExchangeFileError
    from coterie.testbed.replayer import Replayer

    try:
        replayer = Replayer(folder, port=port, speed=speed)
    except ExchangeFileError as error:
        raise ConfigError([str(error)]) from None
    _serve(replayer)


def _verifier(name: str, tokens: int | None) -> VerifierFactory:
    from coterie.testbed.integrity import Anything, KnownText, Sequence

    if name == "none":
        return Anything
    if name == "sequence":
        return lambda: Sequence(tokens)
    text = _text(Path(name))
    return lambda: KnownText(text)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_TEXT_BYTES:
            raise ConfigError([f"{path}: more than {_MAX_TEXT_BYTES} bytes"])
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: no UTF-8"]) from None


def _allow_files(count: int) -> None:
    """Ask the system for as many open files, as far as it gives them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft not in (resource.RLIM_INFINITY,) and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _write(path: Path | None, data: bytes) -> None:
    if path is None:
        return
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None


def _serve(server: Recorder | Replayer) -> None:
    try:
        asyncio.run(_until_stopped(server, _stop_signal))
    except OSError as error:
        raise ConfigError([f"cannot listen or write: {error.strerror}"]) from None


async def _until_stopped(server: Recorder | Replayer, stopped: Callable[[], Awaitable[Any]]) -> None:
    async with server:
        typer.echo(f"Listening on {server.url}")
        await stopped()


async def _stop_signal() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # an event loop without signals
            loop.add_signal_handler(number, stop.set)
    await stop.wait()
