"""The WebSocket mode of the Responses API: turns over one connection, and errors that leave it standing.

Messages are judged as the stream that they would be over HTTP: one event each, numbered from 0 in each turn. A turn
ends with its terminal event or with an error message, and no "[DONE]" is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from coterie.conform.check import BOTH, CONTRACT, OPEN, Check, Failure, Rules, Site, Skip
from coterie.conform.exchange import MAX_REPLY_BYTES, Reply, parsed
from coterie.conform.judging import RESPONSE_RULES, find, ok
from coterie.conform.responses import TOOL, body_of
from coterie.dialects import responses_validator
from coterie.dialects.chat_validator import _FILLED_TEXT, _OBJECT, _TEXT_OR_NULL, _WHOLE, _Shape

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

_PATH: Final = "/responses"
_TERMINAL: Final = ("response.completed", "response.incomplete", "response.failed")
_CREATE: Final = "response.create"

RULES: Final = Rules({
    "socket": "GET /responses with Upgrade: websocket opens a WebSocket (Open Responses).",
    "socket-message": "A message is one JSON object in a text frame, and never '[DONE]' (Open Responses).",
    "socket-open": "The connection stays open after a turn, also after an error (Open Responses).",
    "socket-error": "An error is {type: 'error', status, error: {code, message}}, param a string or null "
    "(Open Responses: WebSocketErrorEvent).",
    "socket-refused": "What cannot be is answered by an error message or response.failed (Open Responses).",
    "socket-code": "error.code names the cause (Open Responses).",
})  # fmt: skip

_ERROR: Final = _Shape("socket-error", {"status": _WHOLE, "error": _OBJECT})
_ERROR_OBJECT: Final = _Shape(
    "socket-error", {"code": _FILLED_TEXT, "message": _FILLED_TEXT}, {"type": _TEXT_OR_NULL, "param": _TEXT_OR_NULL}
)


@dataclass(frozen=True, slots=True)
class _Turn:
    """The messages of one turn, as a reply whose body is the stream that they make."""

    reply: Reply
    last: Mapping[str, Any]
    failures: tuple[Failure, ...] = ()

    @property
    def response(self) -> Any:
        return self.last.get("response")


class _Socket:
    """A connection to the server, for turns one after the other."""

    def __init__(self, connection: ClientConnection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    async def turn(self, message: Mapping[str, Any] | str) -> _Turn:
        """Send a message and read until its turn has ended."""
        from websockets.exceptions import ConnectionClosed

        text = message if isinstance(message, str) else orjson.dumps(message).decode()
        events: list[bytes] = []
        broken = None
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connection.send(text)
                while not events or not _ends(events[-1]):
                    events.append(_bytes(await self._connection.recv()))
                    if sum(map(len, events)) > MAX_REPLY_BYTES:
                        broken = f"more than {MAX_REPLY_BYTES} bytes"
                        break
        except ConnectionClosed as closed:
            broken = f"closed: {closed}"
        except TimeoutError:
            broken = f"the turn did not end within {self._timeout_s:g} s"
        body = b"".join(map(_as_event, events))
        reply = Reply("WS", _PATH, text.encode(), 101, body=body, broken=broken)
        last = parsed(events[-1]) if events else None
        return _Turn(reply, last if isinstance(last, dict) else {}, tuple(_faults(events, reply)))


def _bytes(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message


def _ends(message: bytes) -> bool:
    """Whether a message ends its turn; one that cannot be read does too, since nobody knows what would follow."""
    value = parsed(message)
    return not isinstance(value, dict) or value.get("type") in (*_TERMINAL, "error")


def _as_event(message: bytes) -> bytes:
    kind = find(parsed(message), "type")
    return b"event: %s\ndata: %s\n\n" % (str(kind).encode(), message.replace(b"\n", b" "))


def _faults(events: list[bytes], reply: Reply) -> Iterator[Failure]:
    if reply.broken is not None:
        yield RULES.broken("socket-open", reply.broken, reply)
    for message in events:
        if not isinstance(parsed(message), dict):
            yield RULES.broken("socket-message", f"a message is {message[:40]!r}", reply)


@contextlib.asynccontextmanager
async def _opened(site: Site, *, keyed: bool = True) -> AsyncIterator[_Socket]:
    """A connection. Raises ``Skip`` where none can be had."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake

    target = site.client.target
    scheme = "wss" if target.origin.tls else "ws"
    connecting = connect(
        f"{scheme}://{target.origin.authority}{target.base}{_PATH}",
        additional_headers=target.authorization(target.key if keyed else None),
        open_timeout=site.client.timeout_s,
        close_timeout=1,
        max_size=MAX_REPLY_BYTES,
        compression=None,
        proxy=None,
    )
    try:
        connection = await connecting
    except (OSError, InvalidHandshake, EOFError) as error:
        raise Skip(f"no WebSocket: {error}") from None
    async with connection:
        yield _Socket(connection, site.client.timeout_s)


def _message(site: Site, **changes: Any) -> dict[str, Any]:
    return {"type": _CREATE, **body_of(site, **changes)}


def _completed(turn: _Turn) -> Iterator[Failure]:
    """Whether a turn is a whole stream that ended well."""
    yield from turn.failures
    if turn.failures:
        return
    yield from RESPONSE_RULES.judged(responses_validator.judge(turn.reply.body, done=False), turn.reply)
    if turn.last.get("type") not in ("response.completed", "response.incomplete"):
        yield RESPONSE_RULES.broken("status", f"the turn ends with {turn.last.get('type')!r}", turn.reply)


def _failed(turn: _Turn, *codes: str) -> Iterator[Failure]:
    """Whether a turn was refused in the right form, for one of ``codes`` where any are given."""
    yield from turn.failures
    if turn.failures:
        return
    if turn.last.get("type") == "error":
        yield from RULES.found(_ERROR.misfits(turn.last, ""), turn.reply)
        yield from RULES.found(_ERROR_OBJECT.misfits(turn.last.get("error"), "error"), turn.reply)
        code = find(turn.last, "error", "code")
    elif turn.last.get("type") == "response.failed":
        yield from RESPONSE_RULES.judged(responses_validator.judge(turn.reply.body, done=False), turn.reply)
        code = find(turn.response, "error", "code")
    else:
        yield RULES.broken("socket-refused", f"the turn ends with {turn.last.get('type')!r}", turn.reply)
        return
    if codes and code not in codes:
        yield RULES.broken("socket-code", f"code is {code!r}, not {' or '.join(map(repr, codes))}", turn.reply)


async def _open(site: Site) -> Iterable[Failure]:
    try:
        async with _opened(site):
            return ()
    except Skip as skip:
        return [RULES.broken("socket", str(skip))]


async def _one(site: Site) -> Iterable[Failure]:
    async with _opened(site) as socket:
        return list(_completed(await socket.turn(_message(site))))


async def _several(site: Site) -> Iterable[Failure]:
    async with _opened(site) as socket:
        return [failure for _ in range(3) for failure in _completed(await socket.turn(_message(site)))]


async def _memory(site: Site) -> Iterable[Failure]:
    async with _opened(site) as socket:
        first = await socket.turn(_message(site, input="My name is Ann. " * 10))
        failures = list(_completed(first))
        if failures:
            return failures
        second = await socket.turn(_message(site, input="Who am I?", previous_response_id=first.response["id"]))
        return list(_completed(second))


async def _forgotten(site: Site) -> Iterable[Failure]:
    async with _opened(site) as socket:
        first = await socket.turn(_message(site))
    given = find(first.response, "id")
    if not given:
        raise Skip("it needs a turn that ends well")
    async with _opened(site) as socket:
        second = await socket.turn(_message(site, previous_response_id=given))
        return [*_failed(second, "previous_response_not_found"), *_completed(await socket.turn(_message(site)))]


async def _evicted(site: Site) -> Iterable[Failure]:
    orphan = [{"type": "function_call_output", "call_id": "call_nosuchcall", "output": "1"}]
    async with _opened(site) as socket:
        first = await socket.turn(_message(site, tools=[TOOL]))
        given = find(first.response, "id")
        if not given:
            raise Skip("it needs a turn that ends well")
        second = await socket.turn(_message(site, input=orphan, previous_response_id=given))
        third = await socket.turn(_message(site, previous_response_id=given))
        return [*_failed(second), *_failed(third, "previous_response_not_found")]


_WRONG: Final[Mapping[str, tuple[str, str | Mapping[str, Any], tuple[str, ...]]]] = {
    "json": ("a message that is no JSON is refused", "{", ()),
    "array": ("a message that is no object is refused", "[]", ()),
    "type": ("a message of an unknown type is refused", {"type": "response.smell"}, ()),
    "untyped": ("a message without a type is refused", {"input": "Hello"}, ()),
    "model": (
        "an unknown model is named so",
        {"type": _CREATE, "model": "no-such", "input": "a"},
        ("model_not_found",),
    ),
    "parameter": ("a wrong parameter is refused", {"type": _CREATE, "temperature": 9}, ()),
    "previous": (
        "an unknown previous_response_id is named so",
        {"type": _CREATE, "previous_response_id": "resp_nosuchresponse"},
        ("previous_response_not_found",),
    ),
}


def _wrong(message: str | Mapping[str, Any], codes: tuple[str, ...]) -> Any:
    async def run(site: Site) -> Iterable[Failure]:
        said = message
        if isinstance(message, Mapping) and message.get("type") == _CREATE:
            said = {**body_of(site), **message}
        async with _opened(site) as socket:
            turn = await socket.turn(said)
            return [*_failed(turn, *codes), *_completed(await socket.turn(_message(site)))]

    return run


async def _key(site: Site) -> Iterable[Failure]:
    if site.client.target.key is None:
        raise Skip("no key was given")
    async with _opened(site):
        pass
    try:
        async with _opened(site, keyed=False):
            return [RULES.broken("socket-refused", "the socket opens without a key")]
    except Skip as skip:
        named = any(status in str(skip) for status in ("401", "403"))  # few frameworks let a handshake end with 401
        return () if named else [RULES.broken("socket-refused", str(skip))]


async def _compacted(site: Site) -> Iterable[Failure]:
    items = [
        {"type": "message", "role": "user", "content": "My name is Ann."},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello Ann."}]},
    ]
    reply = await site.ask("POST", "/responses/compact", {"model": site.model, "input": items})
    output = reply.object.get("output")
    if list(ok(reply)) or not isinstance(output, list):
        raise Skip("it needs POST /responses/compact")
    async with _opened(site) as socket:
        after = [*output, {"type": "message", "role": "user", "content": "Who am I?"}]
        return list(_completed(await socket.turn(_message(site, input=after))))


CHECKS: Final = (
    Check("websocket.open", "websocket", "a WebSocket is opened", OPEN, _open),
    Check("websocket.turn", "websocket", "a turn is a whole stream", BOTH, _one),
    Check("websocket.turns", "websocket", "several turns over one connection, each whole", OPEN, _several),
    Check("websocket.memory", "websocket", "a connection remembers what is not stored", OPEN, _memory),
    Check("websocket.forgotten", "websocket", "another connection does not", OPEN, _forgotten),
    Check("websocket.evicted", "websocket", "a turn that goes on and fails makes its response forgotten", OPEN,
          _evicted),
    Check("websocket.compacted", "websocket", "a compacted conversation goes on over a socket", OPEN, _compacted),
    *(Check(f"websocket.error.{name}", "websocket", f"{says}, and the connection stays", f"{OPEN}; {CONTRACT}",
            _wrong(message, codes)) for name, (says, message, codes) in _WRONG.items()),
    Check("websocket.key", "websocket", "without a key there is none", CONTRACT, _key),
)  # fmt: skip
"""The group."""
