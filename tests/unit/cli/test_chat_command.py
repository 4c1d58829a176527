from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from rich.console import Console
from tests.support.canned import REQUEST_ID, CannedServer, answer, error_answer, said, stream_answer

from coterie.cli import chat as command
from coterie.cli.chat import Conversation
from coterie.cli.client import RequestError, Server

Coterie = Callable[..., Any]

CHAT = "/v1/chat/completions"
HELLO = stream_answer(said("Hel"), said("lo"), said("", "stop"), "[DONE]")
OVERLOADED = error_answer(503, "server_is_overloaded", "Busy.")


class Keyboard(io.StringIO):
    """A terminal to read from."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> Iterator[CannedServer]:
    with CannedServer() as server:
        server.answers["/v1/models"] = answer({"data": [{"id": "first"}, {"id": "second"}]})
        server.answers["/v1/models/second"] = answer({"id": "second"})
        server.answers[CHAT] = HELLO
        monkeypatch.setenv("COTERIE_URL", server.url)
        yield server


@pytest.fixture
def type_lines(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def type_(*lines: str) -> None:
        monkeypatch.setattr(sys, "stdin", Keyboard("".join(f"{line}\n" for line in lines)))

    return type_


def requests_of(canned: CannedServer) -> list[Any]:
    return [asked.json for asked in canned.asked if asked.path == CHAT]


def test_one_question(coterie: Coterie, canned: CannedServer) -> None:
    ran = coterie("chat", "Say hello", "--system", "Be brief.", "--temperature", "0.5", "--max-tokens", "9")
    assert (ran.status, ran.out, ran.err) == (0, "Hello\n", "")
    assert requests_of(canned) == [
        {
            "model": "first",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello"}],
            "temperature": 0.5,
            "max_completion_tokens": 9,
            "stream": True,
        }
    ]


def test_a_question_on_stdin(coterie: Coterie, canned: CannedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("What\nis this?\n"))
    assert coterie("chat", "--model", "second").out == "Hello\n"
    (request,) = requests_of(canned)
    assert request["model"] == "second"
    assert request["messages"] == [{"role": "user", "content": "What\nis this?"}]
    assert "temperature" not in request


def test_the_key_comes_from_the_environment(
    coterie: Coterie, canned: CannedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COTERIE_API_KEY", "secret-key")
    assert coterie("chat", "Hi").status == 0
    assert {asked.headers["authorization"] for asked in canned.asked} == {"Bearer secret-key"}


def test_an_answer_that_ends_its_line_gets_no_other(coterie: Coterie, canned: CannedServer) -> None:
    canned.answers[CHAT] = stream_answer(said("Hello\n"), said("", "stop"), "[DONE]")
    assert coterie("chat", "Hi").out == "Hello\n"


def test_a_pipe_gets_what_the_model_wrote(coterie: Coterie, canned: CannedServer) -> None:
    text = "[bold]a[/bold] \x1b[31m:smile: " + "long " * 100
    canned.answers[CHAT] = stream_answer(said(text), said("", "stop"), "[DONE]")
    assert coterie("chat", "Hi").out == f"{text}\n"


def test_reasoning_is_no_part_of_the_answer(coterie: Coterie, canned: CannedServer) -> None:
    canned.answers[CHAT] = stream_answer(said("", reasoning_content="hm"), said("Yes"), said("", "stop"), "[DONE]")
    ran = coterie("chat", "Hi")
    assert (ran.out, ran.err) == ("Yes\n", "")


def test_a_terminal_shows_reasoning_and_obeys_nothing(
    coterie: Coterie, canned: CannedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, color_system=None, width=80)
    monkeypatch.setattr(command, "stdout", lambda: terminal)
    monkeypatch.setattr(command, "stderr", lambda: terminal)
    canned.answers[CHAT] = stream_answer(
        said("", reasoning_content="h\x07m "), said("a\x1b]0;x\x07b\x9b\n"), said("", "stop"), "[DONE]"
    )
    assert coterie("chat", "Hi").status == 0
    assert shown.getvalue() == "hm a]0;xb\n"


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_cut_answer_is_called_cut(coterie: Coterie, canned: CannedServer, reason: str) -> None:
    canned.answers[CHAT] = stream_answer(said("Hel"), said("", reason), "[DONE]")
    ran = coterie("chat", "Hi")
    assert (ran.status, ran.out) == (0, "Hel\n")
    assert ran.err.startswith("(the answer was cut")


def test_a_refusal_is_shown_with_its_remedy(coterie: Coterie, canned: CannedServer) -> None:
    canned.answers[CHAT] = OVERLOADED
    ran = coterie("chat", "Hi")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.splitlines()[:2] == ["error: Busy.", f"  server_is_overloaded, request id {REQUEST_ID}"]
    assert "not the whole answer" not in ran.err


@pytest.mark.parametrize(
    "raw",
    [
        stream_answer(said("Hel"), {"error": {"message": "Gone.", "code": "engine_failed"}}, "[DONE]"),
        stream_answer(said("Hel")),
        stream_answer(said("Hel"), whole=False),
    ],
    ids=["error frame", "no end mark", "cut"],
)
def test_a_broken_answer_is_never_shown_as_whole(coterie: Coterie, canned: CannedServer, raw: bytes) -> None:
    canned.answers[CHAT] = raw
    ran = coterie("chat", "Hi")
    assert (ran.status, ran.out) == (1, "Hel\n")
    assert ran.err.startswith("error: ")
    assert ran.err.endswith("What stands above is not the whole answer.\n")


def test_a_stopped_question_has_its_status(
    coterie: Coterie, canned: CannedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, "Hel")
    ran = coterie("chat", "Hi")
    assert ran.status == 130
    assert "(stopped)" in ran.err


def test_no_server_is_said(coterie: Coterie) -> None:
    ran = coterie("chat", "Hi")
    assert ran.status == 1
    assert "No server runs" in ran.err


def test_a_server_that_does_not_answer_is_said(coterie: Coterie, canned: CannedServer) -> None:
    canned.answers["/v1/models"] = error_answer(401, "invalid_api_key", "Incorrect API key provided.")
    ran = coterie("chat", "Hi")
    assert ran.status == 1
    assert "invalid_api_key" in ran.err


def test_a_server_without_models_is_said(coterie: Coterie, canned: CannedServer) -> None:
    canned.answers["/v1/models"] = answer({"data": []})
    ran = coterie("chat", "Hi")
    assert ran.status == 1
    assert "serves no model" in ran.err


def test_a_conversation_is_sent_as_a_whole(
    coterie: Coterie, canned: CannedServer, type_lines: Callable[..., None]
) -> None:
    type_lines("One", "", "  Two  ")
    ran = coterie("chat")
    assert ran.status == 0
    assert ran.out.count("Hello\n") == 2
    assert [message["content"] for message in requests_of(canned)[1]["messages"]] == ["One", "Hello", "Two"]


def test_a_failed_turn_is_not_kept_and_the_conversation_goes_on(
    coterie: Coterie, canned: CannedServer, type_lines: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines("One", "Two", "Three")
    answer_in_turn(monkeypatch, canned, [HELLO, stream_answer(said("Hel")), HELLO])
    ran = coterie("chat")
    assert ran.status == 0
    assert "What stands above is not the whole answer." in ran.err
    assert [message["content"] for message in requests_of(canned)[2]["messages"]] == ["One", "Hello", "Three"]


def test_a_stopped_answer_is_kept_as_far_as_it_came(
    coterie: Coterie, canned: CannedServer, type_lines: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines("One", "Two")
    interrupt_after(monkeypatch, "Hel")
    ran = coterie("chat")
    assert ran.status == 0
    assert "(stopped)" in ran.err
    assert [message["content"] for message in requests_of(canned)[1]["messages"]] == ["One", "Hel", "Two"]


def test_the_commands(coterie: Coterie, canned: CannedServer, type_lines: Callable[..., None]) -> None:
    type_lines("/help", "/model", "/model second", "One", "/model third", "/clear", "Two", "/unknown", "/exit", "Three")
    ran = coterie("chat")
    first, second = requests_of(canned)
    assert (first["model"], second["model"]) == ("second", "second")
    assert [message["content"] for message in second["messages"]] == ["Two"]
    for shown in ("/clear ", "first\nsecond", "Talking to second.", "not_found", "There is no command '/unknown'"):
        assert shown in ran.err


def test_ctrl_c_at_the_prompt_gives_up_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    typed: list[Any] = [KeyboardInterrupt(), " word ", EOFError()]

    def type_(_prompt: str) -> str:
        item = typed.pop(0)
        if isinstance(item, BaseException):
            raise item
        return str(item)

    monkeypatch.setattr("builtins.input", type_)
    assert [command._read_line() for _ in range(3)] == ["", "word", None]


def test_bytes_that_are_no_text_can_be_sent() -> None:
    request = Conversation("m").request("a\udcffb")
    assert request["messages"] == [{"role": "user", "content": "a?b"}]


def test_nothing_said_is_nothing_to_keep() -> None:
    conversation = Conversation("m")
    conversation.keep("question", "")
    assert conversation.turns == []


def answer_in_turn(monkeypatch: pytest.MonkeyPatch, canned: CannedServer, answers: Iterable[bytes]) -> None:
    """Each question gets the next of ``answers``."""
    ask, left = Server.chat, list(answers)

    def chat(self: Server, body: Any) -> Any:
        canned.answers[CHAT] = left.pop(0)
        return ask(self, body)

    monkeypatch.setattr(Server, "chat", chat)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Press Ctrl-C once, when ``text`` has been shown."""
    show = command._shown
    pressed: list[bool] = []

    def shown(piece: str) -> str:
        if not pressed and piece != text:
            pressed.append(True)
            raise KeyboardInterrupt
        return show(piece)

    monkeypatch.setattr(command, "_shown", shown)


def test_the_first_model_needs_a_server(canned: CannedServer) -> None:
    assert command._first_model(Server(canned.url)) == "first"
    with pytest.raises(RequestError):
        command._first_model(Server(f"{canned.url}0"))
