"""What a client of both APIs sees of every failure, through the real server, and what is stored of it.

In four columns: chat and responses, plain and streamed. Before the first event a failure is an HTTP answer, and leaves
no trace; after it a stream ends with the exact error of its protocol, what was said until then is kept, and what is
stored says the same as what was streamed.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from tests.support.behind import TOKENS, WHOLE
from tests.support.failures import CHAT
from tests.support.leaks import MARKER, assert_clean
from tests.support.response_client import (
    RESPONSES,
    RUNNING,
    check_kept,
    configured,
    create,
    ended,
    get,
    journals,
    nothing_stored,
    parsed,
    replayed,
    rows,
    stream,
    text_of,
)
from tests.support.scripted import SO_FAR, ScriptedUpstream, after_tokens, chunk, refusal, streamed
from tests.support.server import Answer, Server, eventually, serving
from tests.support.upstream_failures import (
    BREAKS_AFTER,
    BREAKS_BEFORE,
    CHAT_INPUT,
    LEAK,
    OUTCOMES,
    REFUSALS,
    RESPONSES_INPUT,
    Break,
    Refusal,
)

from coterie.dialects.chat_validator import judge as judge_chat
from coterie.errors.render_responses import RESPONSE_ERROR_CODES
from coterie.testbed.upstream import FaultyUpstream

COLUMNS: Final = ("chat plain", "chat stream", "responses plain", "responses stream")
BACKGROUND: Final = "background"
FORMS: Final[dict[str, Callable[[Refusal], bytes]]] = {
    "status": lambda case: refusal(case.status, case.body),
    "first event": lambda case: streamed(case.body),
    "body": lambda case: refusal(200, case.body),
    "after": lambda case: after_tokens(case.body),
}
"""The ways in which an upstream says what is wrong."""

SPOKEN: Final = [case for case in REFUSALS if case.in_stream]
AFTER: Final = [case for case in SPOKEN if case.code != "content_policy_violation"]
FILTERED: Final = [case for case in SPOKEN if case.code == "content_policy_violation"]

TOOL: Final = {"name": "look", "parameters": {"type": "object", "properties": {}}}
BAD_ARGUMENTS: Final = '{"city": Par'


def _id(case: Break | Refusal) -> str:
    return case.fault if isinstance(case, Break) else case.name


def _name(what: str, column: str) -> str:
    """Each column has its own name of a model: a failure may make a model rest for those who come after."""
    return re.sub(r"[^a-z0-9.]+", "-", f"{what}.{column}".lower())


def _chunks_of_call(arguments: str) -> tuple[dict[str, Any], ...]:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": arguments}}
    return chunk({"tool_calls": [call]}), chunk({}, "tool_calls")


@pytest.fixture(scope="module", name="failing")
def _failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server behind which everything fails, each failure under a name of its own."""
    columns = (*COLUMNS, BACKGROUND, "quiet")
    answers = {
        _name(f"{form}.{case.name}", column): make(case)
        for form, make in FORMS.items() for case in REFUSALS for column in columns
    }  # fmt: skip
    answers["bad-arguments"] = streamed(*_chunks_of_call(BAD_ARGUMENTS))
    faults = {
        _name(case.fault, column): case.fault for case in (*BREAKS_BEFORE, *BREAKS_AFTER) for column in columns
    } | {
        "ok": "ok",
        "no-done": "no-done",
        "filter-finish": "filter-finish@20",
    }
    with socket.socket() as closed, contextlib.ExitStack() as stack:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        scripted = stack.enter_context(ScriptedUpstream(answers))
        faulty = stack.enter_context(FaultyUpstream(models=faults, marker=LEAK))
        config = configured(
            (scripted.base_url, answers),
            (faulty.base_url, faults),
            (f"http://127.0.0.1:{closed.getsockname()[1]}/v1", [_name("refused", column) for column in columns]),
            (scripted.base_url.replace("http:", "https:"), [_name("tls", column) for column in columns]),
        )
        server = stack.enter_context(serving(tmp_path_factory.mktemp(f"{MARKER}-failing"), config))
        yield server
        eventually(lambda: journals(server.folder), lambda left: left == [])
        assert not set(rows(server.folder).values()) & set(RUNNING)


def _ask(server: Server, column: str, model: str, **fields: Any) -> Answer:
    tool = {"type": "function", **(TOOL if "responses" in column else {"function": TOOL})}
    body: dict[str, Any] = {"model": model, "stream": column.endswith("stream"), "tools": [tool], **fields}
    if column.startswith("chat"):
        return server.ask("POST", CHAT, {"messages": CHAT_INPUT, **body})
    return server.ask("POST", RESPONSES, {"input": RESPONSES_INPUT, **body})


def _code(code: str, column: str) -> str:
    """What a failure is called in a column."""
    return "invalid_base64_image" if code == "invalid_base64" and column.startswith("responses") else code


def _param(params: tuple[str | None, str | None], column: str) -> str | None:
    return params[0] if column.startswith("chat") else params[1]


# What every failure has


def _check_message(message: str, code: str, says: str) -> None:
    assert re.search(says, message)
    assert_clean(message)
    assert LEAK not in message
    assert ("(request id: req_" in message) == (OUTCOMES[code].status != 400)


def _check_http(
    answer: Answer, code: str, param: str | None, says: str = "", delay_s: int | None = None, hopeless: bool = False
) -> None:
    outcome, headers = OUTCOMES[code], answer.headers
    assert answer.json.keys() == {"error"}
    error = answer.json["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (answer.status, error["type"], error["code"], error["param"]) == (outcome.status, outcome.type, code, param)
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")
    assert LEAK not in f"{headers} {answer.body!r}"
    _check_message(error["message"], code, says)
    assert headers.get("retry-after") == (None if delay_s is None else str(delay_s))
    in_vain = hopeless or outcome.hopeless or (delay_s or 0) > 60
    assert headers.get("x-should-retry") == ("false" if in_vain else None)


def _check_chat_stream(answer: Answer, code: str, param: str | None, says: str) -> str:
    """Chunks, one error frame, ``[DONE]``. Returns the text."""
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert judge_chat(answer.body, include_usage=False, choices=1) == []
    *chunks, last = [json.loads(event.removeprefix(b"data: ")) for event in answer.body.split(b"\n\n")[:-2]]
    assert last.keys() == {"error"}
    error = last["error"]
    assert (error["type"], error["code"], error["param"]) == (OUTCOMES[code].type, code, param)
    _check_message(error["message"], code, says)
    assert LEAK.encode() not in answer.body
    choices = [choice for each in chunks for choice in each["choices"]]
    assert {choice["finish_reason"] for choice in choices} == {None}
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def _check_failed(response: dict[str, Any], code: str, says: str) -> None:
    """A response that failed says why; what was not finished says that too."""
    assert (response["status"], response["incomplete_details"], response["completed_at"]) == ("failed", None, None)
    error = response["error"]
    assert error.keys() == {"code", "message"}
    assert error["code"] == OUTCOMES[code].response_code
    assert error["code"] in RESPONSE_ERROR_CODES
    _check_message(error["message"], code, says)
    assert [item["status"] for item in response["output"][-1:]] in ([], ["incomplete"])


def _check_responses_stream(server: Server, answer: Answer, code: str, param: str | None, says: str) -> str:
    """The items closed, an error event, response.failed, ``[DONE]``, and the same is stored. Returns the text."""
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    response = check_kept(server, answer.body)
    _check_failed(response, code, says)
    error, failed = parsed(answer.body)[-2:]
    assert (error["type"], failed["type"]) == ("error", "response.failed")
    told = {**response["error"], "param": param}
    assert {name: error[name] for name in ("code", "message", "param")} == told
    assert error["error"] == {**told, "type": OUTCOMES[code].type}
    assert LEAK.encode() not in answer.body
    if OUTCOMES[code].status != 400:
        assert f"(request id: {answer.headers['x-request-id']})" in error["message"]
    return text_of(response)


# Before the first event


REFUSED: Final = [("status", case) for case in REFUSALS] + [
    (form, case) for form in ("first event", "body") for case in SPOKEN
]


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(("form", "case"), REFUSED, ids=lambda value: value if isinstance(value, str) else _id(value))
def test_a_refusal_is_an_http_error(failing: Server, case: Refusal, form: str, column: str) -> None:
    with nothing_stored(failing):
        answer = _ask(failing, column, _name(f"{form}.{case.name}", column))
    _check_http(answer, _code(case.code, column), _param(case.params, column), case.says, case.delay_s)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("case", BREAKS_BEFORE, ids=_id)
def test_an_answer_that_does_not_begin_is_an_http_error(failing: Server, case: Break, column: str) -> None:
    with nothing_stored(failing):
        answer = _ask(failing, column, _name(case.fault, column))
    _check_http(answer, case.code, None, case.says, case.delay_s, case.hopeless)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("how", ["refused", "tls"])
def test_a_provider_that_cannot_be_reached(failing: Server, how: str, column: str) -> None:
    with nothing_stored(failing):
        answer = _ask(failing, column, _name(how, column))
    _check_http(answer, "upstream_unreachable", None)


@pytest.mark.parametrize("column", ["chat plain", "responses plain"])
@pytest.mark.parametrize("case", [*BREAKS_AFTER, *SPOKEN], ids=_id)
def test_who_does_not_stream_gets_no_half_answer(failing: Server, case: Break | Refusal, column: str) -> None:
    name, params = (case.fault, (None, None)) if isinstance(case, Break) else (f"after.{case.name}", case.params)
    with nothing_stored(failing):
        answer = _ask(failing, column, _name(name, column))
    _check_http(answer, _code(case.code, column), _param(params, column), case.says, case.delay_s)


# After it


@pytest.mark.parametrize("column", ["chat stream", "responses stream"])
@pytest.mark.parametrize("case", BREAKS_AFTER, ids=_id)
def test_an_answer_that_breaks_off(failing: Server, case: Break, column: str) -> None:
    answer = _ask(failing, column, _name(case.fault, column))
    if column == "chat stream":
        text = _check_chat_stream(answer, case.code, None, case.says)
    else:
        text = _check_responses_stream(failing, answer, case.code, None, case.says)
    assert WHOLE.startswith(text)
    assert text or case.fault == "tool-cut"


@pytest.mark.parametrize("column", ["chat stream", "responses stream"])
@pytest.mark.parametrize("case", AFTER, ids=_id)
def test_an_error_amid_an_answer(failing: Server, case: Refusal, column: str) -> None:
    answer, param = _ask(failing, column, _name(f"after.{case.name}", column)), _param(case.params, column)
    if column == "chat stream":
        text = _check_chat_stream(answer, case.code, param, case.says)
    else:
        text = _check_responses_stream(failing, answer, case.code, param, case.says)
    assert text == "".join(SO_FAR)


@pytest.mark.parametrize("case", FILTERED, ids=_id)
def test_a_filter_amid_an_answer(failing: Server, case: Refusal) -> None:
    chat = _ask(failing, "chat stream", _name(f"after.{case.name}", "chat stream"))
    assert _check_chat_stream(chat, case.code, case.params[0], case.says) == "".join(SO_FAR)
    answer = _ask(failing, "responses stream", _name(f"after.{case.name}", "responses stream"))
    response = check_kept(failing, answer.body)
    assert (response["status"], response["error"]) == ("incomplete", None)
    assert response["incomplete_details"] == {"reason": "content_filter"}
    assert text_of(response) == "".join(SO_FAR)
    assert parsed(answer.body)[-1]["type"] == "response.incomplete"


# Ends that are no failures


@dataclass(frozen=True)
class Ending:
    """How a good answer ends, in both APIs."""

    model: str
    tokens: int
    finish_reason: str
    status: str
    reason: str | None = None
    limit: int | None = None


ENDINGS: Final = (
    Ending("ok", TOKENS, "stop", "completed"),
    Ending("no-done", TOKENS, "stop", "completed"),
    Ending("ok", 16, "length", "incomplete", "max_output_tokens", 16),
    Ending("filter-finish", 20, "content_filter", "incomplete", "content_filter"),
)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("case", ENDINGS, ids=lambda case: f"{case.model} {case.finish_reason}")
def test_an_ending_that_is_none_of_failure(failing: Server, case: Ending, column: str) -> None:
    limit = {} if case.limit is None else {f"max_{'completion' if 'chat' in column else 'output'}_tokens": case.limit}
    answer = _ask(failing, column, case.model, **limit)
    text = "".join(f" w{number}" for number in range(case.tokens))
    assert answer.status == 200
    if column == "chat plain":
        [choice] = answer.json["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (text, case.finish_reason)
    elif column == "chat stream":
        assert judge_chat(answer.body, include_usage=False, choices=1) == []
        assert f'"finish_reason":"{case.finish_reason}"'.encode() in answer.body
    else:
        response = answer.json if column == "responses plain" else check_kept(failing, answer.body)
        assert get(failing, response["id"]).json == response
        assert (response["status"], response["error"], text_of(response)) == (case.status, None, text)
        assert response["incomplete_details"] == (case.reason and {"reason": case.reason})
        assert response["usage"]["output_tokens"] == case.tokens


@pytest.mark.parametrize("column", COLUMNS)
def test_arguments_that_are_no_json_pass(failing: Server, column: str) -> None:
    answer = _ask(failing, column, "bad-arguments")
    assert answer.status == 200
    if column == "chat plain":
        [call] = answer.json["choices"][0]["message"]["tool_calls"]
        assert call["function"]["arguments"] == BAD_ARGUMENTS
    elif column == "chat stream":
        assert judge_chat(answer.body, include_usage=False, choices=1) == []
        assert json.dumps(BAD_ARGUMENTS).encode() in answer.body
    else:
        response = answer.json if column == "responses plain" else check_kept(failing, answer.body)
        [call] = response["output"]
        assert (response["status"], call["status"], call["arguments"]) == ("completed", "completed", BAD_ARGUMENTS)


# In the background


def _accepted(server: Server, model: str, **fields: Any) -> str:
    answer = create(server, model, background=True, **fields)
    assert (answer.status, answer.json["status"], answer.json["background"]) == (200, "queued", True)
    return str(answer.json["id"])


def _background_failure(server: Server, model: str, code: str, says: str) -> dict[str, Any]:
    response_id = _accepted(server, model, input=RESPONSES_INPUT)
    response = ended(server, response_id)
    _check_failed(response, code, says)
    assert check_kept(server, replayed(server, response_id)) == response
    error = parsed(replayed(server, response_id))[-2]
    assert error["error"]["type"] == OUTCOMES[code].type
    return response


@pytest.mark.parametrize("form", ["status", "after"])
@pytest.mark.parametrize("case", AFTER, ids=_id)
def test_a_refusal_in_the_background(failing: Server, case: Refusal, form: str) -> None:
    response = _background_failure(failing, _name(f"{form}.{case.name}", BACKGROUND), case.code, case.says)
    assert text_of(response) == ("" if form == "status" else "".join(SO_FAR))


@pytest.mark.parametrize("case", [*BREAKS_BEFORE, *BREAKS_AFTER], ids=_id)
def test_a_break_in_the_background(failing: Server, case: Break) -> None:
    response = _background_failure(failing, _name(case.fault, BACKGROUND), case.code, case.says)
    assert WHOLE.startswith(text_of(response))
    assert bool(text_of(response)) == (case in BREAKS_AFTER and case.fault != "tool-cut")


def test_a_stream_of_a_failure_in_the_background(failing: Server) -> None:
    """Whoever follows from the beginning sees what is stored in the end."""
    with stream(failing, _name("close@20", "quiet"), background=True) as raw:
        assert raw.status == 200
        body = raw.rest()
    response = check_kept(failing, body)
    _check_failed(response, "upstream_stream_interrupted", "")
    assert [event["type"] for event in parsed(body)][:3] == [
        "response.created", "response.queued", "response.in_progress"
    ]  # fmt: skip
