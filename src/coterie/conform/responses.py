"""The Responses API without storage: whole answers, streams, items, and what a response says of its request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from coterie.conform.check import BOTH, CONTRACT, OPEN, OPENAI, Check, Failure, Run, Site, Skip
from coterie.conform.exchange import Reply, parsed
from coterie.conform.judging import (
    RESPONSE_RULES,
    RULES,
    contains,
    declined,
    events_of,
    find,
    has_request_id,
    need,
    ok,
    response_of,
    responses_stream,
)
from coterie.dialects.chat_validator import _ARRAY, _COUNT, _FILLED_TEXT, _constant, _Shape

PATH: Final = "/responses"
ENDED: Final = ("completed", "incomplete")
TOOL: Final = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
_SCHEMA: Final = {
    "type": "json_schema",
    "name": "verdict",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
        "required": ["answer"],
        "additionalProperties": False,
    },
}
_FORCED: Final = {
    "input": "How is the weather in Rome?",
    "tools": [TOOL],
    "tool_choice": {"type": "function", "name": "get_weather"},
    "max_output_tokens": 64,
}
_COUNT_UP: Final = {"input": "Count from 1 to 100.", "max_output_tokens": 16}

_COMPACTION: Final = _Shape(
    "shape", {"id": _FILLED_TEXT, "object": _constant("response.compaction"), "output": _ARRAY, "created_at": _COUNT}
)
_TOKENS: Final = _Shape("shape", {"object": _constant("response.input_tokens"), "input_tokens": _COUNT})


def body_of(site: Site, **changes: Any) -> dict[str, Any]:
    """A short request that nothing is to be kept of, with ``changes``."""
    return {"model": site.model, "input": "Say hello.", "max_output_tokens": 16, "store": False, **changes}


async def create(site: Site, **changes: Any) -> Reply:
    """``POST /responses``."""
    return await site.ask("POST", PATH, body_of(site, **changes))


async def plain(site: Site) -> Reply:
    """A plain answer, the same for every check."""
    return await site.once("response", lambda: create(site))


async def needed(site: Site) -> Reply:
    """The plain answer, where there is one. Raises ``Skip``."""
    return need(await plain(site), what="POST /responses")


def texts_of(response: Any) -> str:
    """All that the output's messages say."""
    output = response.get("output") if isinstance(response, dict) else None
    parts = [part for item in output or () for part in find(item, "content") or () if find(item, "type") == "message"]
    return "".join(text for part in parts if isinstance(text := find(part, "text"), str))


def calls_of(response: Any) -> list[Any]:
    """The function calls of the output."""
    output = find(response, "output")
    return [item for item in output if find(item, "type") == "function_call"] if isinstance(output, list) else []


async def _plain(site: Site) -> Iterable[Failure]:
    reply = await plain(site)
    failures = list(response_of(reply, *ENDED))
    if not failures and not find(reply.object, "usage"):
        failures.append(RESPONSE_RULES.broken("usage-shape", "there is no usage", reply))
    return failures


async def _stream(site: Site) -> Iterable[Failure]:
    await needed(site)
    return responses_stream(await create(site, stream=True))


async def _request_ids(site: Site) -> Iterable[Failure]:
    return [
        failure for reply in (await needed(site), await create(site, stream=True)) for failure in has_request_id(reply)
    ]


async def _limit(site: Site) -> Iterable[Failure]:
    await needed(site)
    reply = await create(site, **_COUNT_UP)
    failures = list(response_of(reply, *ENDED))
    tokens = find(reply.object, "usage", "output_tokens")
    if not failures and (not isinstance(tokens, int) or tokens > 16):
        failures.append(RULES.broken("effect", f"max_output_tokens is 16, output_tokens {tokens}", reply))
    if not failures and tokens == 16 and reply.object["status"] != "incomplete":
        failures.append(RESPONSE_RULES.broken("status", "a response cut at its limit is not incomplete", reply))
    return failures


async def _stream_limit(site: Site) -> Iterable[Failure]:
    await needed(site)
    return responses_stream(await create(site, stream=True, **_COUNT_UP))


def _forced(response: Any, reply: Reply) -> Iterator[Failure]:
    calls = calls_of(response)
    arguments = find(calls, 0, "arguments")
    if len(calls) != 1 or find(calls, 0, "name") != "get_weather":
        yield RULES.broken("effect", "the call of the forced function is not there", reply)
    elif not isinstance(arguments, str) or not isinstance(parsed(arguments.encode()), dict):
        yield RULES.broken("effect", "the arguments are no JSON object in a string", reply)


async def _call(site: Site) -> Iterable[Failure]:
    await needed(site)
    reply = await create(site, **_FORCED)
    if declined(reply, ["tool"]):
        raise Skip(f"refused by name: {find(reply.object, 'error', 'message')}")
    return list(response_of(reply, *ENDED)) or _forced(reply.object, reply)


async def _stream_call(site: Site) -> Iterable[Failure]:
    await needed(site)
    reply = await create(site, stream=True, **_FORCED)
    if declined(reply, ["tool"]):
        raise Skip(f"refused by name: {find(reply.object, 'error', 'message')}")
    return list(responses_stream(reply)) or _forced(find(events_of(reply.body), -1, "response"), reply)


async def _schema(site: Site) -> Iterable[Failure]:
    await needed(site)
    changes = {"input": "Is Rome a city? Answer as JSON.", "text": {"format": _SCHEMA}, "max_output_tokens": 64}
    reply = await create(site, **changes)
    if declined(reply, ["text"]):
        raise Skip(f"refused by name: {find(reply.object, 'error', 'message')}")
    failures = list(response_of(reply, "completed"))
    if not failures and find(parsed(texts_of(reply.object).encode()), "answer") not in ("yes", "no"):
        failures.append(RULES.broken("effect", "the text does not keep the schema", reply))
    return failures


async def _unstored(site: Site) -> Iterable[Failure]:
    reply = await needed(site)
    if find(reply.object, "store") is not False:
        return [RULES.broken("echo", f"store is {find(reply.object, 'store')!r}, not False", reply)]
    return ()


# Items of the input

_CALL: Final = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city":"Rome"}'}
_OUTPUT: Final = {"type": "function_call_output", "call_id": "call_1", "output": "Sunny, 20 degrees"}
_INPUTS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "messages": ("roles user, assistant, system and developer", {"input": [
        {"role": "system", "content": "Be brief."}, {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"},
        {"type": "message", "role": "user", "content": "Bye"},
    ]}),
    "parts": ("a message of parts: input_text and output_text", {"input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi", "annotations": []}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Bye"}]},
    ]}),
    "loop": ("a function call and its output", {"tools": [TOOL], "input": [
        {"role": "user", "content": "How is the weather in Rome?"}, _CALL, _OUTPUT,
    ]}),
    "reasoning": ("a reasoning item of an earlier turn", {"input": [
        {"role": "user", "content": "Hello"}, {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"},
    ]}),
    "instructions": ("instructions, as a developer message", {"instructions": "Be brief."}),
}  # fmt: skip


def _input(changes: Mapping[str, Any]) -> Run:
    async def run(site: Site) -> Iterable[Failure]:
        await needed(site)
        return response_of(await create(site, **changes), *ENDED)

    return run


# Parameters, echoed


@dataclass(frozen=True, slots=True)
class _Echo:
    """Parameters of a request, and what its response says of them (by default the same)."""

    changes: Mapping[str, Any]
    says: Mapping[str, Any] | None = None
    source: str = BOTH


_ECHOES: Final[Mapping[str, _Echo]] = {
    "instructions": _Echo({"instructions": "Be brief."}),
    "temperature": _Echo({"temperature": 0.5}),
    "top_p": _Echo({"top_p": 0.5}),
    "presence_penalty": _Echo({"presence_penalty": 0.5}, source=OPEN),
    "frequency_penalty": _Echo({"frequency_penalty": 0.5}, source=OPEN),
    "top_logprobs": _Echo({"top_logprobs": 2}),
    "metadata": _Echo({"metadata": {"purpose": "check", "empty": ""}}),
    "max_output_tokens": _Echo({"max_output_tokens": 24}),
    "max_tool_calls": _Echo({"max_tool_calls": 3}),
    "parallel_tool_calls": _Echo({"parallel_tool_calls": False}),
    "tools": _Echo({"tools": [TOOL]}),
    "tool_choice.none": _Echo({"tools": [TOOL], "tool_choice": "none"}),
    "tool_choice.function": _Echo({"tools": [TOOL], "tool_choice": _FORCED["tool_choice"]}),
    "tool_choice.allowed": _Echo({
        "tools": [TOOL],
        "tool_choice": {
            "type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "get_weather"}],
        },
    }),
    "text.format": _Echo({"text": {"format": _SCHEMA}, "max_output_tokens": 64}),
    "text.verbosity": _Echo({"text": {"verbosity": "low"}}),
    "truncation": _Echo({"truncation": "auto"}),
    "store": _Echo({"store": False}),
    "reasoning": _Echo({"reasoning": {"effort": "low"}}),
    "safety_identifier": _Echo({"safety_identifier": "user-1"}),
    "prompt_cache_key": _Echo({"prompt_cache_key": "key-1"}),
    "defaults": _Echo({}, {
        "temperature": 1, "top_p": 1, "truncation": "disabled", "parallel_tool_calls": True, "tool_choice": "auto",
        "tools": [], "background": False, "previous_response_id": None, "instructions": None,
        "text": {"format": {"type": "text"}},
    }),
}  # fmt: skip
"""By name. A parameter that is refused by name is honest: the check is skipped."""


def _echoed(echo: _Echo) -> Run:
    async def run(site: Site) -> Iterable[Failure]:
        await needed(site)
        reply = await create(site, **echo.changes)
        if echo.changes and declined(reply, echo.changes):
            raise Skip(f"refused by name: {find(reply.object, 'error', 'message')}")
        return list(ok(reply)) or _differs(reply, echo.says if echo.says is not None else echo.changes)

    return run


def _differs(reply: Reply, says: Mapping[str, Any]) -> Iterator[Failure]:
    for name, value in says.items():
        got = reply.object.get(name)
        if name not in reply.object:
            yield RULES.broken("echo", f"{name} is missing", reply)
        elif not contains(got, value):
            yield RULES.broken("echo", f"{name} is {str(got)[:200]}, not {str(value)[:200]}", reply)


# The routes beside


async def _input_tokens(site: Site) -> Iterable[Failure]:
    short = await site.ask("POST", "/responses/input_tokens", {"model": site.model, "input": "Hello"})
    long = await site.ask("POST", "/responses/input_tokens", {"model": site.model, "input": "Hello " * 50})
    failures = [*ok(short), *ok(long)] or [*RULES.found(_TOKENS.misfits(short.object, ""), short)]
    if not failures and not short.object["input_tokens"] < find(long.object, "input_tokens"):
        failures.append(RULES.broken("effect", "a longer input has no more tokens", long))
    return failures


async def _compact(site: Site) -> Iterable[Failure]:
    items = [{"role": "user", "content": "My name is Ann."}, {"role": "assistant", "content": "Hello Ann."}]
    reply = await site.ask("POST", "/responses/compact", {"model": site.model, "input": items})
    failures = [*ok(reply)] or [*RULES.found(_COMPACTION.misfits(reply.object, ""), reply)]
    if failures:
        return failures
    after = [*reply.object["output"], {"role": "user", "content": "Bye"}]
    return response_of(await create(site, input=after), *ENDED)


CHECKS: Final = (
    Check("responses.create", "responses", "an answer is a whole Response object", BOTH, _plain),
    Check("responses.stream", "responses", "a stream of events, whole", f"{BOTH}; {CONTRACT}", _stream),
    Check("responses.limit", "responses", "max_output_tokens: 'an upper bound'; the status says it", BOTH, _limit),
    Check("responses.stream.limit", "responses", "a stream that is cut at its limit", BOTH, _stream_limit),
    Check("responses.tool", "responses", "tool_choice with a name forces that function", BOTH, _call),
    Check("responses.stream.tool", "responses", "a forced call, streamed", BOTH, _stream_call),
    Check("responses.schema", "responses", "text.format json_schema: the text keeps the schema", BOTH, _schema),
    Check("responses.store", "responses", "store false is said", BOTH, _unstored),
    *(Check(f"responses.input.{name}", "responses", f"input: {says}", BOTH, _input(changes))
      for name, (says, changes) in _INPUTS.items()),
    *(Check(f"responses.echo.{name}", "responses", f"the response says '{name}' as it was asked", echo.source,
            _echoed(echo)) for name, echo in _ECHOES.items()),
    Check("responses.input_tokens", "responses", "the tokens of an input are counted", OPENAI, _input_tokens),
    Check("responses.compact", "responses", "a conversation is compacted, and goes on from there", BOTH, _compact),
    Check("responses.request-id", "responses", "answers and streams have an x-request-id", CONTRACT, _request_ids),
)  # fmt: skip
"""The group."""
