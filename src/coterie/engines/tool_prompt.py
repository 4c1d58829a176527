"""Tool calling that needs nothing of a model's chat template. Pure.

llama.cpp drops ``tools`` and ``tool_choice`` in silence where the template does not speak of them. Here the model is
told of the functions in a system message, and a grammar holds it to one JSON object, an *envelope*:

* ``{"tool_calls": [{"name": "...", "arguments": {...}}]}``, each function's arguments held to its own schema;
* with ``tool_choice`` "auto" also ``{"content": "text"}``, or ``{"json": ...}`` where ``response_format`` asks for JSON
  (its schema then holds what stands there, which becomes the content as it was written). With "required" or a named
  function there is no content, so ``response_format`` has nothing to govern.

:mod:`coterie.engines.tool_reader` reads the envelope back. What is promised of :func:`emulate_tools`:

* the body it returns has no ``tools``, ``tool_choice``, ``parallel_tool_calls``, no ``tool`` messages and no
  ``tool_calls``: earlier calls are told as the envelope that the model would have written, results as user messages;
* a named function is called exactly once; without ``parallel_tool_calls`` there is at most one call, else at most
  :data:`MOST_CALLS`;
* ``stop`` is refused, because the engine would apply it to the envelope and cut a call in two;
* with ``tool_choice`` "none", or without tools, the model is neither told of functions nor held to an envelope.

The body's schemas have passed :func:`coterie.dialects.json_schema.check_schema`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

import orjson

from coterie.engines.schema_lowering import Lowering, json_schema_format, lower_schemas, response_schema
from coterie.errors import ApiError

Body = dict[str, Any]
Message = dict[str, Any]

MOST_CALLS: Final = 8
"""Calls in one answer."""

_OF_TOOLS: Final = ("tools", "tool_choice", "parallel_tool_calls")
_NO_PARAMETERS: Final = {"type": "object", "properties": {}}

_FUNCTIONS: Final = "Functions that you can call, described in JSON, one on each line:"
_CALL: Final = (
    'If one of the functions helps, call it, with JSON: {"tool_calls": [{"name": "NAME", "arguments": {...}}]}'
)
_MUST_CALL: Final = 'Call one of the functions, with JSON: {"tool_calls": [{"name": "NAME", "arguments": {...}}]}'
_SAY: Final = 'Otherwise answer the user yourself, with JSON: {"content": "TEXT"}'
_SAY_JSON: Final = 'Otherwise answer the user yourself, with JSON: {"json": VALUE}, where VALUE follows the schema '


def emulate_tools(body: Body) -> Body:
    """``body`` for a model without tools. Raises ``ApiError`` where something of it cannot be kept."""
    plain = {name: value for name, value in body.items() if name not in _OF_TOOLS}
    plain["messages"] = list(_messages(body["messages"]))
    functions, mode = _callable(body)
    if not body.get("tools") or mode == "none":
        return lower_schemas(plain)
    if not functions:
        raise ApiError("invalid_value", param="tool_choice", reason="it names no function of 'tools'")
    if body.get("stop"):
        raise ApiError(
            "unsupported_parameter", param="stop", hint=" It cannot stop at a text while 'tools' are offered."
        )
    plain["messages"] = _told(plain["messages"], _instructions(body, functions, mode))
    plain["response_format"] = json_schema_format(_envelope(body, functions, mode))
    return plain


def _callable(body: Body) -> tuple[list[dict[str, Any]], str]:
    """The functions that may be called, and how: "none", "auto", "required" or "one"."""
    functions = [tool["function"] for tool in body.get("tools") or ()]
    choice = body.get("tool_choice") or "auto"
    if isinstance(choice, str):
        return functions, choice
    if choice["type"] == "function":
        names, mode = {choice["function"]["name"]}, "one"
    else:
        allowed = choice["allowed_tools"]
        names, mode = {tool["function"]["name"] for tool in allowed["tools"]}, allowed["mode"]
    return [function for function in functions if function["name"] in names], mode


def _envelope(body: Body, functions: list[dict[str, Any]], mode: str) -> dict[str, Any]:
    """The schema of what the model may write."""
    lowering = Lowering()
    calls = [_call_schema(function, lowering) for function in functions]
    one = mode == "one" or body.get("parallel_tool_calls") is False
    most = 1 if one else MOST_CALLS
    listed = {"type": "array", "items": {"anyOf": calls}, "minItems": 1, "maxItems": most}
    envelope = _record(tool_calls=listed)
    if mode == "auto":
        envelope = {"anyOf": [envelope, _answer_schema(body, lowering)]}
    return {**envelope, "$defs": lowering.definitions} if lowering.definitions else envelope


def _call_schema(function: dict[str, Any], lowering: Lowering) -> dict[str, Any]:
    parameters = function.get("parameters")
    if function.get("strict") is False:
        # Not enforceable, as whoever checked the request has found: the model is told of them, and any object goes.
        parameters = {"type": "object"}
    arguments = lowering.lower(_NO_PARAMETERS if parameters is None else parameters)
    return _record(name={"const": function["name"]}, arguments=arguments)


def _answer_schema(body: Body, lowering: Lowering) -> dict[str, Any]:
    schema = response_schema(body)
    return _record(content={"type": "string"}) if schema is None else _record(json=lowering.lower(schema))


def _record(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


def _instructions(body: Body, functions: list[dict[str, Any]], mode: str) -> str:
    described = [_described(function) for function in functions]
    if mode != "auto":
        return "\n".join([_FUNCTIONS, *described, _MUST_CALL])
    schema = response_schema(body)
    say = _SAY if schema is None else f"{_SAY_JSON}{_compact(schema)}"
    return "\n".join([_FUNCTIONS, *described, _CALL, say])


def _described(function: dict[str, Any]) -> str:
    told = {name: function[name] for name in ("name", "description", "parameters") if function.get(name) is not None}
    return _compact(told)


def _told(messages: list[Message], instructions: str) -> list[Message]:
    """``messages`` with the instructions at the end of the first system message, or before everything."""
    for index, message in enumerate(messages):
        if message["role"] in ("system", "developer"):
            told = {**message, "content": _appended(message["content"], instructions)}
            return [*messages[:index], told, *messages[index + 1 :]]
    return [{"role": "system", "content": instructions}, *messages]


def _appended(content: str | list[dict[str, Any]], text: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return f"{content}\n\n{text}"
    return [*content, {"type": "text", "text": f"\n\n{text}"}]


def _messages(messages: list[Message]) -> Iterator[Message]:
    """Every message in roles that any template knows; results that follow each other become one message."""
    names: dict[str, str] = {}
    for is_result, group in groupby(messages, key=lambda message: message["role"] == "tool"):
        if is_result:
            yield {"role": "user", "content": _results(list(group), names)}
            continue
        for message in group:
            names.update({call["id"]: call["function"]["name"] for call in message.get("tool_calls") or ()})
            yield _without_calls(message)


def _without_calls(message: Message) -> Message:
    calls = message.get("tool_calls")
    rest = {name: value for name, value in message.items() if name != "tool_calls"}
    if not calls:
        return rest
    listed = ", ".join(_call_text(call["function"]) for call in calls)
    said = _text(message.get("content"))
    envelope = f'{{"tool_calls": [{listed}]}}'
    return {**rest, "content": f"{said}\n{envelope}" if said else envelope}


def _call_text(function: dict[str, Any]) -> str:
    return f'{{"name": {_compact(function["name"])}, "arguments": {_json_or_string(function["arguments"])}}}'


def _results(messages: list[Message], names: dict[str, str]) -> str:
    results = [_result(message, names.get(message["tool_call_id"])) for message in messages]
    return f'{{"tool_results": [{", ".join(results)}]}}'


def _result(message: Message, name: str | None) -> str:
    caller = f'"name": {_compact(name)}' if name else f'"tool_call_id": {_compact(message["tool_call_id"])}'
    return f'{{{caller}, "result": {_json_or_string(_text(message["content"]))}}}'


def _json_or_string(text: str) -> str:
    """``text`` as it is where it is a JSON object or array, else as a JSON string."""
    try:
        container = isinstance(orjson.loads(text), dict | list)
    except orjson.JSONDecodeError:
        container = False
    return text if container else _compact(text)


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text") or part.get("refusal") or "" for part in content)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
