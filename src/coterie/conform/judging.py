"""The rules that answers outside of streams are judged by. Pure: replies in, failures out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from coterie.conform.check import Failure, Rules, Skip
from coterie.conform.exchange import Reply, parsed
from coterie.dialects import chat_validator, responses_validator
from coterie.dialects.chat_validator import _FILLED_TEXT, _TEXT, _TEXT_OR_NULL, _Shape
from coterie.dialects.responses_rules import response_findings

RULES: Final = Rules({
    "answered": "A request gets a whole HTTP answer, in time (contract).",
    "in-time": "The check ends in time (contract).",
    "readable": "An answer has the shape that its specification gives it (both).",
    "success": "What the specification allows succeeds, with status 200 (both).",
    "status": "An error's status is the one of its cause (contract; SDK: it decides the exception and the retries).",
    "json": "An answer that is no stream is one JSON object, with content-type application/json (OpenAI).",
    "stream": "A stream has content-type text/event-stream (both).",
    "request-id": "Every answer has an x-request-id (contract; SDK: it is what an error is looked up by).",
    "error-shape": "An error is {\"error\": {message, type, param, code}}: message filled, type a string, param and "
    "code strings or null, never numbers, all four there (OpenAI: Error).",
    "error-param": "param names what is at fault, as a path (contract; OpenAI's practice).",
    "error-code": "code names the cause (contract; OpenAI's practice).",
    "no-leak": "An error shows nothing of the server's inside: no traceback, no HTML, no file, no object (contract).",
    "refused": "What cannot be is refused, not ignored (contract).",
    "allow": "A 405 names the allowed methods in Allow (RFC 9110, 15.5.6).",
    "echo": "The response says the parameters it was made with (both).",
    "equal": "What is stored, streamed and sent is the same (contract).",
    "shape": "The object has the specification's fields (OpenAI).",
    "effect": "A parameter does what the specification says (both).",
    "gone": "What was deleted is gone (OpenAI).",
})  # fmt: skip
"""The rules of this checker beside those of the validators."""

CHAT_RULES: Final = Rules(chat_validator.RULES)
RESPONSE_RULES: Final = Rules(responses_validator.RULES)

_ERROR: Final = _Shape(
    "error-shape", {"message": _FILLED_TEXT, "type": _TEXT, "param": _TEXT_OR_NULL, "code": _TEXT_OR_NULL}
)
_LEAKS: Final = re.compile(
    r"Traceback \(most recent call last\)|File \\?\"/|<!doctype|<html|site-packages|dist-packages|errors\.pydantic\.dev"
    r"|<class '|<[\w.]+ object at 0x|\bat 0x[0-9a-f]{6,}|/home/\w|/usr/(?:lib|local)|/root/"
    r"|\.py\b, line \d|\b\w+\.(?-i:[A-Z])\w*(?:Error|Exception)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The error that a request should get. ``params`` holds what its ``param`` may begin with, if that is known."""

    statuses: Collection[int]
    params: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()


def whole(reply: Reply) -> Iterator[Failure]:
    """Whether there is a whole answer."""
    if reply.broken is not None:
        yield RULES.broken("answered", reply.broken, reply)


def ok(reply: Reply, status: int = 200) -> Iterator[Failure]:
    """Whether a request that is not for a stream succeeded."""
    yield from whole(reply)
    if reply.broken is not None:
        return
    if reply.status != status:
        yield RULES.broken("success", f"the status is {reply.status}, not {status}", reply)
    elif reply.content_type != "application/json" or not isinstance(reply.json, dict):
        yield RULES.broken("json", f"the content-type is {reply.content_type!r}, or the body no object", reply)


def ok_stream(reply: Reply) -> Iterator[Failure]:
    """Whether a request for a stream was answered with one."""
    if reply.status != 200:
        yield RULES.broken("success", f"the status is {reply.status}, not 200", reply)
    elif reply.content_type != "text/event-stream":
        yield RULES.broken("stream", f"the content-type is {reply.content_type!r}", reply)


def refused(reply: Reply, wanted: Wanted) -> Iterator[Failure]:
    """Whether a request got the error that it should get."""
    yield from whole(reply)
    if reply.broken is not None:
        return
    if 200 <= reply.status < 300:
        yield RULES.broken("refused", f"the status is {reply.status}", reply)
        return
    if reply.status not in wanted.statuses:
        expected = " or ".join(map(str, sorted(wanted.statuses)))
        yield RULES.broken("status", f"the status is {reply.status}, not {expected}", reply)
    yield from error_shape(reply)
    yield from _named(reply, wanted)
    if reply.status == 405 and not reply.headers.get("allow"):
        yield RULES.broken("allow", "there is no Allow header", reply)


def error_shape(reply: Reply) -> Iterator[Failure]:
    """Whether an error has the form that every error has."""
    if reply.content_type != "application/json" or not isinstance(reply.json, dict):
        yield RULES.broken("json", f"the content-type is {reply.content_type!r}, or the body no object", reply)
    elif "error" not in reply.object:
        yield RULES.broken("error-shape", "the body has no 'error'", reply)
    else:
        yield from RULES.found(_ERROR.misfits(reply.object["error"], "error"), reply)
    leak = _LEAKS.search(reply.body.decode("utf-8", "replace"))
    if leak is not None:
        yield RULES.broken("no-leak", f"the body has {leak[0]!r}", reply)


def has_request_id(reply: Reply) -> Iterator[Failure]:
    """Whether an answer, of whatever kind, can be found again in the server's log."""
    yield from whole(reply)
    if reply.broken is None and not reply.headers.get("x-request-id"):
        yield RULES.broken("request-id", "there is no x-request-id", reply)


def response_of(reply: Reply, *statuses: str) -> Iterator[Failure]:
    """Whether an answer is a Response object, in one of ``statuses`` where any are given."""
    failures = list(ok(reply))
    yield from failures
    if failures:
        return
    yield from RESPONSE_RULES.found(response_findings(reply.object), reply)
    status = reply.object.get("status")
    if statuses and status not in statuses:
        yield RESPONSE_RULES.broken("status", f"the status is {status!r}, not {' or '.join(statuses)}", reply)


def chat_stream(reply: Reply, *, include_usage: bool = False, choices: int = 1) -> Iterator[Failure]:
    """Whether an answer is a chat stream that keeps every rule."""
    yield from ok_stream(reply)
    yield from whole(reply)
    if reply.status == 200:
        violations = chat_validator.judge(reply.body, include_usage=include_usage, choices=choices)
        yield from CHAT_RULES.judged(violations, reply)


def responses_stream(reply: Reply) -> Iterator[Failure]:
    """Whether an answer is a Responses stream that keeps every rule."""
    yield from ok_stream(reply)
    yield from whole(reply)
    if reply.status == 200:
        yield from RESPONSE_RULES.judged(responses_validator.judge(reply.body), reply)


def need(reply: Reply, status: int = 200, *, what: str) -> Reply:
    """``reply``, where it has ``status``; else the check cannot go on, and another one says why. Raises ``Skip``."""
    if reply.broken is not None or reply.status != status:
        raise Skip(f"it needs {what}, which got {reply.broken or f'status {reply.status}'}")
    return reply


def declined(reply: Reply, params: Iterable[str]) -> bool:
    """Whether a request was refused in so many words: a 400 that names one of ``params``.

    Where it names it, in ``param`` or in its message, is not looked at here: the checks of errors do that.
    """
    if reply.status not in (400, 422):
        return False
    param, message = (str(find(reply.object, "error", name)) for name in ("param", "message"))
    return any(param.startswith(name) or name in message for name in params)


def contains(value: Any, part: Any) -> bool:
    """Whether ``value`` says all that ``part`` says: an object may say more, an array not."""
    if isinstance(part, dict):
        return isinstance(value, dict) and all(name in value and contains(value[name], part[name]) for name in part)
    if isinstance(part, list):
        return isinstance(value, list) and len(value) == len(part) and all(map(contains, value, part))
    return type(value) is type(part) and bool(value == part) if isinstance(part, bool) else bool(value == part)


def find(value: Any, *path: str | int) -> Any:
    """What stands at ``path`` in a JSON value; ``None`` where nothing does."""
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream, as far as they can be read."""
    datas = [line[5:].strip() for line in body.splitlines() if line.startswith(b"data:")]
    return [value for value in map(parsed, datas) if isinstance(value, dict)]


def _named(reply: Reply, wanted: Wanted) -> Iterator[Failure]:
    param, code = (find(reply.object, "error", name) for name in ("param", "code"))
    if wanted.params and not (isinstance(param, str) and param.startswith(wanted.params)):
        yield RULES.broken("error-param", f"param is {param!r}, not {' or '.join(map(repr, wanted.params))}", reply)
    if wanted.codes and code not in wanted.codes:
        yield RULES.broken("error-code", f"code is {code!r}, not {' or '.join(map(repr, wanted.codes))}", reply)
