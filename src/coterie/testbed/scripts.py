"""What a misbehaving upstream writes, and when: one script for each fault. Pure.

See :mod:`coterie.testbed.steps` for what a script is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Final

import orjson

from coterie.testbed import bodies
from coterie.testbed.answers import DONE_EVENT, sse
from coterie.testbed.bodies import Failure, failure_bytes, response, secrets, with_secrets
from coterie.testbed.faults import FAULTS
from coterie.testbed.steps import (
    PACE,
    Call,
    Ending,
    Events,
    Steps,
    Wait,
    begun,
    ended,
    good,
    json_answer,
    open_stream,
    plain_answer,
    plain_body,
    token_events,
    whole_events,
    whole_stream,
)


def play(call: Call) -> Steps:
    """The steps of the fault that was asked for, or of the good answer where it does not apply."""
    applies = call.plan.fault.applies
    streamed = call.answer is not None and call.answer.ask.stream
    fits = applies == "any" or (
        call.answer is not None and (applies == "answer" or streamed == (applies == "stream"))
    )  # fmt: skip
    return SCRIPTS[call.plan.fault.name](call) if fits else good(call)


# In place of an answer


def _failing(choose: Callable[[Call], Failure]) -> Callable[[Call], Steps]:
    def script(call: Call) -> Steps:
        yield failure_bytes(choose(call), call.marker)

    return script


def _always(failure: Failure) -> Callable[[Call], Steps]:
    return _failing(lambda call: failure)


def _reset(call: Call) -> Steps:
    yield Ending.RESET


def _silent(call: Call) -> Steps:
    yield Ending.SILENCE


def _error_once(call: Call) -> Steps:
    yield from good(call) if call.earlier else _always(bodies.SERVER_ERROR)(call)


def _flap(call: Call) -> Steps:
    run, every = int(call.plan.amount("run")), max(1, call.plan.count)
    fails = call.earlier % (2 * run) < run if run else call.earlier % every == every - 1
    yield from _always(bodies.UNAVAILABLE)(call) if fails else good(call)


REDIRECT_PATH: Final = "/testbed/redirected"
"""Where a redirect leads: a request for it stands in the log, if anybody follows."""


def _redirect(call: Call) -> Steps:
    query = f"?token=sk-{call.marker}" if call.marker else ""
    yield response(302, secrets(call.marker).encode(), {"location": REDIRECT_PATH + query}, "text/plain")


_MOST_HEADERS: Final = 65_536


def _endless_headers(call: Call) -> Steps:
    yield b"HTTP/1.1 200 OK\r\n"
    for index in range(_MOST_HEADERS):  # a megabyte a second: a client without a limit is to be seen, not to be killed
        yield b"x-header-%d: %b\r\n" % (index, b"h" * 1000)
        yield Wait(0.001)
    yield Ending.SILENCE


def _blank(call: Call) -> Steps:
    yield response(200, b"")


# Late, and broken off


def _at_token(stream: Callable[[Call], Steps], plain: Callable[[Call, bytes, int], Steps]) -> Callable[[Call], Steps]:
    """A fault at a token; of a plain answer, at the same part of its body."""

    def script(call: Call) -> Steps:
        if call.text.ask.stream:
            yield from stream(call)
            return
        whole = plain_answer(call, call.point)
        body_at = whole.index(b"\r\n\r\n") + 4
        part = (len(whole) - body_at) * call.point // (call.text.count + 1)
        yield from plain(call, whole, body_at + part)

    return script


def _breaking(ending: Ending) -> Callable[[Call], Steps]:
    def stream(call: Call) -> Steps:
        yield from open_stream(begun(call, call.point))
        yield ending

    def broken(call: Call, whole: bytes, at: int) -> Steps:
        yield whole[:at]
        yield ending

    return _at_token(stream, broken)


def _end(call: Call) -> Steps:
    if call.text.ask.stream:
        yield from whole_stream(begun(call, call.point))
    else:
        yield _unfinished(call, call.point)


def _unfinished(call: Call, tokens: int) -> bytes:
    """A plain answer without a finish reason."""
    body = plain_body(call, tokens)
    body["choices"] = [{**choice, "finish_reason": None} for choice in body["choices"]]
    return json_answer(body)


def _stall_stream(call: Call) -> Steps:
    yield from whole_stream(_with_event(call, Wait(call.plan.amount("seconds"))))


def _stall_plain(call: Call, whole: bytes, at: int) -> Steps:
    whole = plain_answer(call)
    yield whole[:at]
    yield Wait(call.plan.amount("seconds"))
    yield whole[at:]


def _with_event(call: Call, odd: bytes | Wait) -> Events:
    """The good stream with ``odd`` at the fault's token."""
    point, count = call.point, call.text.count
    return chain(begun(call, point), [odd], token_events(call, point, count), ended(call, count))


def _slow_first(call: Call) -> Steps:
    pause = Wait(call.plan.number)
    if call.plan.text("before") == "headers" or not call.text.ask.stream:
        yield pause
        yield from good(call)
        return
    count = call.text.count
    yield from whole_stream(chain(call.text.opening(), [pause], token_events(call, 0, count), ended(call, count)))


def _role_only(call: Call) -> Steps:
    then = call.plan.text("then")
    if then == "error":
        error = sse(with_secrets(bodies.ERRORS["openai"], call.marker))
        yield from whole_stream([*call.text.opening(), error, DONE_EVENT])
    elif then == "end":
        yield from whole_stream(call.text.opening())
    else:
        yield from open_stream(call.text.opening())
        yield Ending.RESET if then == "reset" else Ending.CLOSE


def _empty(call: Call) -> Steps:
    yield from whole_stream([DONE_EVENT])


# Content that is wrong


def _malformed(call: Call) -> Steps:
    if call.text.ask.stream:
        yield from whole_stream(
            _with_event(call, b'data: {"id":"x","choices":[{"delta":{"cont' + _told(call) + b"\n\n")
        )
    else:
        yield response(200, b'{"id":"x","choices":[{"message":{"cont' + _told(call))


def _told(call: Call) -> bytes:
    return secrets(call.marker).replace("\n", " ").encode()


def _bad_utf8(call: Call) -> Steps:
    if call.text.ask.stream:
        event = call.text.said("@gap@").replace(b"@gap@", b" \xff\xfe\xc3(" + _told(call).replace(b'"', b"'"))
        yield from whole_stream(_with_event(call, event))
    else:
        body = orjson.dumps(plain_body(call)).replace(b'"created"', b'"\xff\xfe\xc3(":0,"created"', 1)
        yield response(200, body)


def _truncated(call: Call) -> Steps:
    body = orjson.dumps(plain_body(call))
    yield response(200, body[: len(body) // 2])


def _no_done(call: Call) -> Steps:
    return whole_stream(event for event in whole_events(call) if event is not DONE_EVENT)


def _no_finish(call: Call) -> Steps:
    count = call.text.count
    if call.text.ask.stream:
        yield from whole_stream(chain(begun(call, count), call.text.usage_event(count), [DONE_EVENT]))
    else:
        yield _unfinished(call, count)


def _double_finish(call: Call) -> Steps:
    count = call.text.count
    return whole_stream(chain(begun(call, count), call.text.closing(), ended(call, count)))


def _after_finish(call: Call) -> Steps:
    count = call.text.count
    after = [call.text.said(" after"), call.text.said(" that"), *call.text.usage_event(count), DONE_EVENT]
    return whole_stream(chain(begun(call, count), call.text.closing(), after))


def _finishing(reason: str) -> Callable[[Call], Steps]:
    def script(call: Call) -> Steps:
        if call.text.ask.stream:
            yield from whole_stream(chain(begun(call, call.point), ended(call, call.point, reason)))
        else:
            yield plain_answer(call, call.point, reason)

    return script


def _error_event(call: Call) -> Steps:
    style = call.plan.text("style")
    ends = [
        sse(with_secrets(bodies.ERRORS[style], call.marker)),
        *([] if style in _STYLES_WITHOUT_DONE else [DONE_EVENT]),
    ]
    return whole_stream(chain(begun(call, call.point) if call.point else (), ends))


_STYLES_WITHOUT_DONE: Final = frozenset({"llamacpp", "tgi", "openrouter", "text"})
"""Servers that end a stream with the error itself."""


def _error_body(call: Call) -> Steps:
    yield json_answer(with_secrets(bodies.ERRORS[call.plan.text("style")], call.marker))


def _wrong_type(call: Call) -> Steps:
    if call.plan.text("as") == "html" or not call.text.ask.stream:
        yield failure_bytes(bodies.PAGE, call.marker)
    else:
        yield plain_answer(call)


def _no_usage(call: Call) -> Steps:
    if not call.text.ask.stream:
        call.entry.tokens_sent = call.text.count
        yield json_answer(call.text.body(call.text.count, call.text.finish, usage=False))
        return
    yield from whole_stream(chain(begun(call, call.text.count), call.text.closing(), [DONE_EVENT]))


def _no_continue(call: Call) -> Steps:
    refused = call.entry.asked_to_continue
    yield from _always(bodies.NO_CONTINUATION)(call) if refused else good(call)


# Odd on the wire, but right


def _split(call: Call) -> Steps:
    for step in good(call):
        if isinstance(step, bytes):
            body_at = step.find(b"\r\n\r\n") + 4 if step.startswith(b"HTTP/") else 0
            if body_at:
                yield step[:body_at]
            yield from (step[place : place + 1] for place in range(body_at, len(step)))
        else:
            yield step


def _coalesce(call: Call) -> Steps:
    together = call.plan.count
    held: list[bytes] = []
    for step in good(call):
        if not isinstance(step, bytes):
            yield step
            continue
        held.append(step)
        if len(held) == together:
            yield b"".join(held)
            held.clear()
    if held:
        yield b"".join(held)


def _rewritten(change: Callable[[bytes], bytes], first: bytes = b"") -> Callable[[Call], Steps]:
    """A good stream of which each event was changed, and the first begins with ``first``."""

    def events(call: Call) -> Events:
        opening = first
        for event in whole_events(call):
            if isinstance(event, bytes):
                event = opening + change(event)
                opening = b""
            yield event

    return lambda call: whole_stream(events(call))


def _huge(call: Call) -> Steps:
    first, count = min(1, call.text.count), call.text.count
    huge = call.text.said("x" * (call.plan.count * 1_000_000))
    return whole_stream(chain(begun(call, first), [huge], token_events(call, first, count), ended(call, count)))


# Tools


TOOL_ARGUMENTS: Final = ('{"', "city", '":', ' "', "Par", "is", '"}')
"""The arguments of a tool call, as they come; put together they are JSON."""

_CALL_ID: Final = "call_testbed_0"


def _tool_events(call: Call, fragments: Iterable[str]) -> Events:
    def event(fragment: Mapping[str, Any]) -> bytes:
        return call.text.event(0, {"tool_calls": [{"index": 0, **fragment}]})

    function = {"name": call.text.ask.tool, "arguments": ""}
    yield call.text.event(0, {"role": "assistant", "content": None})
    yield event({"id": _CALL_ID, "type": "function", "function": function})
    for number, arguments in enumerate(fragments):
        if call.rate and number:
            yield PACE
        call.entry.tokens_sent = number + 1
        yield event({"function": {"arguments": arguments}})


def _tool_call(call: Call) -> Steps:
    if call.text.ask.dialect != "chat":
        yield from good(call)
    elif call.text.ask.stream:
        ends = [call.text.event(0, {}, "tool_calls"), *call.text.usage_event(len(TOOL_ARGUMENTS)), DONE_EVENT]
        yield from whole_stream(chain(_tool_events(call, TOOL_ARGUMENTS), ends))
    else:
        call.entry.tokens_sent = len(TOOL_ARGUMENTS)
        yield json_answer(_tool_body(call))


def _tool_body(call: Call) -> dict[str, Any]:
    function = {"name": call.text.ask.tool, "arguments": "".join(TOOL_ARGUMENTS)}
    tool_calls = [{"id": _CALL_ID, "type": "function", "function": function}]
    body = call.text.body(len(TOOL_ARGUMENTS), "tool_calls")
    for choice in body["choices"]:
        choice["message"] = {"role": "assistant", "content": None, "refusal": None, "tool_calls": tool_calls}
    return body


def _tool_cut(call: Call) -> Steps:
    if call.text.ask.dialect != "chat":
        yield from _breaking(Ending.RESET)(call)
        return
    yield from open_stream(_tool_events(call, TOOL_ARGUMENTS[: len(TOOL_ARGUMENTS) // 2]))
    yield Ending.RESET


def _between(event: bytes) -> bytes:
    return b": keep-alive\n\n:\n\n\n" + event


SCRIPTS: Final[Mapping[str, Callable[[Call], Steps]]] = {
    "ok": good,
    "rate-limit": _failing(lambda call: bodies.rate_limit(call.plan.number)),
    "rate-limit-bare": _always(bodies.RATE_LIMIT),
    "error-once": _error_once,
    "unavailable": _always(bodies.UNAVAILABLE),
    "reset": _reset,
    "silent": _silent,
    "unauthorized": _always(bodies.UNAUTHORIZED),
    "no-model": _failing(lambda call: bodies.unknown_model(call.entry.model or "")),
    "no-credit": _failing(lambda call: bodies.NO_CREDIT[call.plan.text("style")]),
    "overflow": _failing(lambda call: bodies.OVERFLOWS[call.plan.text("style")]),
    "filter": _always(bodies.FILTERED),
    "html": _always(bodies.BAD_GATEWAY),
    "redirect": _redirect,
    "endless-headers": _endless_headers,
    "blank": _blank,
    "flap": _flap,
    "slow-first": _slow_first,
    "cut": _breaking(Ending.RESET),
    "close": _breaking(Ending.CLOSE),
    "end": _end,
    "stall": _at_token(_stall_stream, _stall_plain),
    "role-only": _role_only,
    "empty": _empty,
    "malformed": _malformed,
    "bad-utf8": _bad_utf8,
    "truncated": _truncated,
    "no-done": _no_done,
    "no-finish": _no_finish,
    "double-finish": _double_finish,
    "after-finish": _after_finish,
    "finish-error": _finishing("error"),
    "filter-finish": _finishing("content_filter"),
    "error-event": _error_event,
    "error-body": _error_body,
    "wrong-type": _wrong_type,
    "no-usage": _no_usage,
    "no-continue": _no_continue,
    "split": _split,
    "coalesce": _coalesce,
    "crlf": _rewritten(lambda event: event.replace(b"\n", b"\r\n")),
    "comments": _rewritten(_between),
    "bom": _rewritten(lambda event: event, first=b"\xef\xbb\xbf"),
    "huge": _huge,
    "tool-call": _tool_call,
    "tool-cut": _tool_cut,
}
"""The script of each fault."""

assert SCRIPTS.keys() == FAULTS.keys()
