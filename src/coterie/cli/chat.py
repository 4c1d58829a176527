"""``coterie chat``: a conversation with a running server in the terminal, or one question for a script.

What it promises:

* An answer is shown as it comes, and never as complete where it is not: a failure, a stop or a limit that cut it is
  said after it, on stderr. Only the model's text goes to stdout.
* A question whose answer failed is not kept, so the next request is the conversation as it was before. An answer that
  the user stopped (Ctrl-C) is kept as far as it came.
* What a model writes cannot steer the terminal: its control characters are left out there. A pipe gets every byte.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from coterie.cli.client import (
    Answer,
    ApiKey,
    Piece,
    RequestError,
    Server,
    Url,
    find_server,
    no_server,
    show_failure,
)
from coterie.cli.common import ConfigFile, stderr, stdout

_STOPPED: Final = 130
"""Exit status of a program that Ctrl-C ended."""

_CUT: Final = {
    "length": "the answer was cut: it reached the limit of tokens",
    "content_filter": "the answer was cut: a content filter stopped it",
}
"""What is said after an answer with this finish reason."""

_HELP: Final = """\
/model NAME  talk to another model; /model alone lists them
/clear       forget the conversation
/exit        end, as Ctrl-D does
/help        show this
Ctrl-C stops an answer."""


@dataclass
class Conversation:
    """What has been said, and how the model is asked."""

    model: str
    system: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    turns: list[dict[str, str]] = field(default_factory=list)

    def request(self, question: str) -> dict[str, Any]:
        """The chat request that asks ``question`` next."""
        opening = [_message("system", self.system)] if self.system else []
        return {
            "model": self.model,
            "messages": [*opening, *self.turns, _message("user", question)],
            **{name: value for name, value in self.options.items() if value is not None},
        }

    def keep(self, question: str, answer: str) -> None:
        """Remember a question with its answer; without a single word of an answer there is nothing to remember."""
        if answer:
            self.turns += [_message("user", question), _message("assistant", answer)]


def app(
    question: Annotated[str | None, typer.Argument(help="One question; else stdin, or a conversation")] = None,
    model: Annotated[str | None, typer.Option(help="A served model; else the first")] = None,
    system: Annotated[str | None, typer.Option(help="Instructions for the model")] = None,
    temperature: Annotated[float | None, typer.Option(help="0: always the likeliest word; up to 2")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The longest answer")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    config: ConfigFile = None,
) -> None:
    """Talk to a model in the terminal."""
    server = find_server(url, api_key, config)
    if server is None:
        raise no_server()
    options = {"temperature": temperature, "max_completion_tokens": max_tokens}
    try:
        conversation = Conversation(model or _first_model(server), system, options)
    except RequestError as error:
        show_failure(error)
        raise typer.Exit(1) from None
    if question is None and not sys.stdin.isatty():
        question = sys.stdin.read()
    if question is None:
        _converse(server, conversation)
    else:
        raise typer.Exit(_ask_once(server, conversation, question))


def _first_model(server: Server) -> str:
    models = server.models()
    if not models:
        raise RequestError("The server serves no model.", "Start it with one: 'coterie serve --model'.")
    return models[0]


def _ask_once(server: Server, conversation: Conversation, question: str) -> int:
    return _ask(server, conversation, question.strip())


def _converse(server: Server, conversation: Conversation) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() its editing and history
    stderr().print(f"{conversation.model} at {server.url}. Ctrl-D ends, /help explains.", style="dim", soft_wrap=True)
    while (line := _read_line()) is not None:
        if line.startswith("/"):
            if not _command(server, conversation, line):
                return
        elif line:
            _ask(server, conversation, line)


def _read_line() -> str | None:
    """What the user typed, ``None`` at the end; Ctrl-C gives up the line."""
    try:
        return input("> ").strip()
    except EOFError:
        stdout().out()
        return None
    except KeyboardInterrupt:
        stdout().out()
        return ""


def _command(server: Server, conversation: Conversation, line: str) -> bool:
    """Obey ``line``; whether the conversation goes on."""
    name, _, argument = line.partition(" ")
    if name == "/exit":
        return False
    obey = _COMMANDS.get(name)
    if obey is None:
        typer.echo(f"There is no command '{name}'. /help shows those that there are.", err=True)
        return True
    try:
        obey(server, conversation, argument.strip())
    except RequestError as error:
        show_failure(error)
    return True


def _clear(_server: Server, conversation: Conversation, _argument: str) -> None:
    conversation.turns.clear()
    typer.echo("The conversation begins anew.", err=True)


def _change_model(server: Server, conversation: Conversation, name: str) -> None:
    if not name:
        typer.echo("\n".join(server.models()), err=True)
        return
    server.check_model(name)
    conversation.model = name
    typer.echo(f"Talking to {name}.", err=True)


def _help(_server: Server, _conversation: Conversation, _argument: str) -> None:
    typer.echo(_HELP, err=True)


_COMMANDS: Final[Mapping[str, Callable[[Server, Conversation, str], None]]] = {
    "/clear": _clear,
    "/model": _change_model,
    "/help": _help,
}


def _ask(server: Server, conversation: Conversation, question: str) -> int:
    """Ask, show the answer, keep what is to be kept; the exit status of it."""
    answer = server.chat(conversation.request(question))
    said: list[str] = []
    try:
        _show(answer, said)
    except RequestError as error:
        _end_line(said)
        show_failure(error)
        if said:
            typer.echo("  What stands above is not the whole answer.", err=True)
        return 1
    except KeyboardInterrupt:
        _end_line(said)
        typer.echo("(stopped)", err=True)
        conversation.keep(question, "".join(said))
        return _STOPPED
    _end_line(said)
    if answer.finish_reason in _CUT:
        typer.echo(f"({_CUT[answer.finish_reason]})", err=True)
    conversation.keep(question, "".join(said))
    return 0


def _show(answer: Answer, said: list[str]) -> None:
    """Print the pieces as they come, and put what belongs to the answer into ``said``."""
    with contextlib.closing(answer.pieces()) as pieces:
        for piece in pieces:
            if piece.reasoning:
                _think_aloud(piece)
                continue
            stdout().out(_shown(piece.text), end="", highlight=False)
            said.append(piece.text)


def _think_aloud(piece: Piece) -> None:
    """A model's reasoning is no part of the answer: a reader sees it pale, a program not at all."""
    if stderr().is_terminal:
        stderr().out(_printable(piece.text), end="", style="dim", highlight=False)


def _end_line(said: list[str]) -> None:
    if said and not said[-1].endswith("\n"):
        stdout().out()


def _shown(text: str) -> str:
    return _printable(text) if stdout().is_terminal else text


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter in "\n\t" or letter.isprintable())


def _message(role: str, text: str) -> dict[str, str]:
    """A message; bytes of the terminal that are no UTF-8 cannot be sent and become question marks."""
    return {"role": role, "content": text.encode("utf-8", "replace").decode("utf-8")}
