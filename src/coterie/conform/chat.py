"""Chat completions and the list of models: whole answers and streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from coterie.conform.check import CONTRACT, OPENAI, Check, Failure, Site, Skip
from coterie.conform.exchange import Reply, parsed
from coterie.conform.judging import CHAT_RULES, RULES, chat_stream, declined, find, has_request_id, ok
from coterie.dialects.chat_validator import (
    _ARRAY,
    _FILLED_TEXT,
    _OBJECT,
    _TEXT,
    _TEXT_OR_NULL,
    _WHOLE,
    _constant,
    _Shape,
)

_PATH: Final = "/chat/completions"
_HELLO: Final = [{"role": "user", "content": "Say hello."}]
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
_FORCED: Final = {
    "messages": [{"role": "user", "content": "How is the weather in Rome?"}],
    "tools": [_TOOL],
    "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    "max_tokens": 64,
}
_SCHEMA: Final = {
    "messages": [{"role": "user", "content": "Is Rome a city? Answer as JSON."}],
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "verdict",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
                "required": ["answer"],
                "additionalProperties": False,
            },
        },
    },
    "max_tokens": 64,
}

_COMPLETION: Final = _Shape(
    "shape",
    {
        "id": _FILLED_TEXT,
        "object": _constant("chat.completion"),
        "created": _WHOLE,
        "model": _TEXT,
        "choices": _ARRAY,
        "usage": _OBJECT,
    },
)
_CHOICE: Final = _Shape("shape", {"index": _WHOLE, "message": _OBJECT, "finish_reason": _FILLED_TEXT})
_MESSAGE: Final = _Shape("shape", {"role": _constant("assistant"), "content": _TEXT_OR_NULL})
_USAGE: Final = _Shape("shape", {"prompt_tokens": _WHOLE, "completion_tokens": _WHOLE, "total_tokens": _WHOLE})
_CARD: Final = _Shape("shape", {"id": _FILLED_TEXT, "object": _constant("model"), "created": _WHOLE, "owned_by": _TEXT})
_LIST: Final = _Shape("shape", {"object": _constant("list"), "data": _ARRAY})


def _body(site: Site, **changes: Any) -> dict[str, Any]:
    return {"model": site.model, "messages": _HELLO, "max_tokens": 16, **changes}


async def _ask(site: Site, params: Iterable[str] = (), **changes: Any) -> Reply:
    """A chat request; one that is refused by the name of one of ``params`` is skipped."""
    reply = await site.ask("POST", _PATH, _body(site, **changes))
    if params and declined(reply, params):
        raise Skip(f"refused by name: {find(reply.object, 'error', 'message')}")
    return reply


def _completion(reply: Reply) -> Iterator[Failure]:
    failures = list(ok(reply))
    yield from failures
    if failures:
        return
    value = reply.object
    yield from RULES.found(_COMPLETION.misfits(value, ""), reply)
    yield from RULES.found(_USAGE.misfits(value.get("usage"), "usage"), reply)
    choices = value.get("choices")
    for position, choice in enumerate(choices if isinstance(choices, list) else ()):
        path = f"choices[{position}]"
        yield from RULES.found(_CHOICE.misfits(choice, path), reply)
        yield from RULES.found(_MESSAGE.misfits(find(choice, "message"), f"{path}.message"), reply)
    if not choices:
        yield RULES.broken("shape", "choices is empty", reply)


async def _models(site: Site) -> Iterable[Failure]:
    reply = await site.ask("GET", "/models")
    failures = list(ok(reply)) or list(RULES.found(_LIST.misfits(reply.object, ""), reply))
    cards = reply.object.get("data")
    for position, card in enumerate(cards if isinstance(cards, list) else ()):
        failures += RULES.found(_CARD.misfits(card, f"data[{position}]"), reply)
    return failures


async def _model(site: Site) -> Iterable[Failure]:
    reply = await site.ask("GET", f"/models/{site.model}")
    return list(ok(reply)) or RULES.found(_CARD.misfits(reply.object, ""), reply)


async def _plain(site: Site) -> Iterable[Failure]:
    return _completion(await _ask(site))


async def _request_ids(site: Site) -> Iterable[Failure]:
    return [failure for stream in (False, True) for failure in has_request_id(await _ask(site, stream=stream))]


async def _two(site: Site) -> Iterable[Failure]:
    reply = await _ask(site, ["n"], n=2)
    failures = list(_completion(reply))
    indexes = [find(choice, "index") for choice in reply.object.get("choices") or ()]
    if not failures and sorted(map(str, indexes)) != ["0", "1"]:
        failures.append(RULES.broken("effect", f"n is 2, the choices are {indexes}", reply))
    return failures


async def _limit(site: Site) -> Iterable[Failure]:
    reply = await _ask(site, messages=[{"role": "user", "content": "Count from 1 to 100."}], max_tokens=3)
    failures = list(_completion(reply))
    reason, tokens = find(reply.object, "choices", 0, "finish_reason"), find(reply.object, "usage", "completion_tokens")
    if not failures and (reason not in ("length", "stop") or not isinstance(tokens, int) or tokens > 3):
        failures.append(RULES.broken("effect", f"max_tokens is 3: {tokens} tokens, finish_reason {reason!r}", reply))
    return failures


async def _stop(site: Site) -> Iterable[Failure]:
    reply = await _ask(site, ["stop"], messages=[{"role": "user", "content": "Say: one two three"}], stop=[" ", "\n"])
    failures = list(_completion(reply))
    text = find(reply.object, "choices", 0, "message", "content")
    if isinstance(text, str) and (" " in text or "\n" in text):
        failures.append(RULES.broken("effect", "the text has a stop sequence in it", reply))
    return failures


async def _call(site: Site) -> Iterable[Failure]:
    reply = await _ask(site, ["tool"], **_FORCED)
    failures = list(_completion(reply))
    if not failures:
        failures += _called(find(reply.object, "choices", 0, "message", "tool_calls", 0), reply)
    return failures


def _called(call: object, reply: Reply) -> Iterator[Failure]:
    name, arguments = find(call, "function", "name"), find(call, "function", "arguments")
    if name != "get_weather" or not find(call, "id") or find(call, "type") != "function":
        yield RULES.broken("effect", "the call of the forced function is not there", reply)
    elif not isinstance(arguments, str) or not isinstance(parsed(arguments.encode()), dict):
        yield RULES.broken("effect", "the arguments are no JSON object in a string", reply)


async def _schema(site: Site) -> Iterable[Failure]:
    reply = await _ask(site, ["response_format"], **_SCHEMA)
    failures = list(_completion(reply))
    text = find(reply.object, "choices", 0, "message", "content")
    answer = find(parsed(text.encode()), "answer") if isinstance(text, str) else None
    if not failures and answer not in ("yes", "no"):
        failures.append(RULES.broken("effect", "the text does not keep the schema", reply))
    return failures


async def _stream(site: Site) -> Iterable[Failure]:
    return chat_stream(await _ask(site, stream=True))


async def _stream_usage(site: Site) -> Iterable[Failure]:
    options: Mapping[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    return chat_stream(await _ask(site, ["stream_options"], **options), include_usage=True)


async def _stream_two(site: Site) -> Iterable[Failure]:
    return chat_stream(await _ask(site, ["n"], stream=True, n=2), choices=2)


async def _stream_call(site: Site) -> Iterable[Failure]:
    reply = await _ask(site, ["tool"], stream=True, **_FORCED)
    failures = list(chat_stream(reply))
    if not failures and b'"get_weather"' not in reply.body:
        failures.append(RULES.broken("effect", "the call of the forced function is not there", reply))
    return failures


async def _stream_limit(site: Site) -> Iterable[Failure]:
    messages = [{"role": "user", "content": "Count from 1 to 100."}]
    reply = await _ask(site, stream=True, messages=messages, max_tokens=3)
    failures = list(chat_stream(reply))
    if not failures and not any(reason in reply.body for reason in (b'"length"', b'"stop"')):
        failures.append(CHAT_RULES.broken("finish-reason", "a stream cut at its limit ends otherwise", reply))
    return failures


CHECKS: Final = (
    Check("chat.models", "chat", "the models are listed", OPENAI, _models),
    Check("chat.model", "chat", "a model is told by its name", OPENAI, _model),
    Check("chat.plain", "chat", "an answer is a chat.completion", OPENAI, _plain),
    Check("chat.n", "chat", "n: 'how many chat completion choices to generate'", OPENAI, _two),
    Check("chat.limit", "chat", "max_tokens bounds the answer, finish_reason says it", OPENAI, _limit),
    Check("chat.stop", "chat", "stop: the text 'will not contain the stop sequence'", OPENAI, _stop),
    Check("chat.tool", "chat", "tool_choice with a name 'forces the model to call that tool'", OPENAI, _call),
    Check("chat.schema", "chat", "response_format json_schema: the text keeps the schema", OPENAI, _schema),
    Check("chat.stream", "chat", "a stream of chunks, whole", f"{OPENAI}; {CONTRACT}", _stream),
    Check("chat.stream.usage", "chat", "include_usage: usage in a last chunk", OPENAI, _stream_usage),
    Check("chat.stream.n", "chat", "two choices in one stream", OPENAI, _stream_two),
    Check("chat.stream.tool", "chat", "a forced call, streamed", OPENAI, _stream_call),
    Check("chat.stream.limit", "chat", "a stream that is cut at its limit", OPENAI, _stream_limit),
    Check("chat.request-id", "chat", "answers and streams have an x-request-id", CONTRACT, _request_ids),
)
"""The group."""
