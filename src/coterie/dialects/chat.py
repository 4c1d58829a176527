"""The chat dialect: a body into a :class:`Generation`. Pure.

``parse_chat`` checks in this order: parameters that cannot be honoured, shape and bounds of every field, then what no
single field shows (tools, pairs of calls and results, pictures, combinations). The first thing that is wrong is the
answer.

``parse_chat_openly`` is for models that other servers serve. They honour more than is known here (samplers, kinds of
content, tools of their own), so only what is known is checked, everything passes as it came, and the rest is theirs to
judge: their refusals are relayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from coterie.dialects.chat_models import ChatRequest
from coterie.dialects.conversation import check_conversation
from coterie.dialects.json_schema import check_schema, check_schemas
from coterie.dialects.schema_shape import check_shape
from coterie.dialects.support import CHAT_UNSUPPORTED, WITHOUT_EFFECT, refuse_unsupported
from coterie.dialects.validation import validate, validate_openly
from coterie.errors import ApiError
from coterie.wire.lingua import Generation

_OPEN_EDGE_FIELDS: Final = frozenset({"model", "stream", "stream_options", "n", "prompt"})

_EDGE_FIELDS: Final = frozenset({"model", "stream", "stream_options", "n", *WITHOUT_EFFECT})
"""Fields that are the edge's, not the provider's."""


@dataclass(frozen=True, slots=True)
class DialectLimits:
    """Bounds that the operator sets."""

    messages: int
    choices: int


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """What the edge needs: the generation, and how to answer."""

    generation: Generation
    stream: bool
    include_usage: bool
    choices: int


def parse_chat(body: Mapping[str, Any], limits: DialectLimits) -> ParsedRequest:
    """Check a chat request. Raises ``ApiError``."""
    check_model(body)
    _check_count(body, limits)
    fields = refuse_unsupported(body, CHAT_UNSUPPORTED)
    request = validate(ChatRequest, fields)
    check_streaming(fields, limits)
    _check_combinations(request)
    loose = _check_tools(request)
    _check_format(request)
    check_conversation(request.messages)
    n = request.n or 1
    passed = {name: value for name, value in fields.items() if name not in _EDGE_FIELDS and value is not None}
    if loose:
        passed["tools"] = [_told_apart(tool, loose) for tool in passed["tools"]]
    return ParsedRequest(
        generation=Generation(request.model, passed, n),
        stream=bool(request.stream),
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
        choices=n,
    )


def parse_chat_openly(body: Mapping[str, Any], limits: DialectLimits) -> ParsedRequest:
    """Check what is known of a chat request, and pass everything. Raises ``ApiError``."""
    check_model(body)
    _check_count(body, limits)
    validate_openly(ChatRequest, body)
    return opened(body, limits, Generation(body["model"], passed_openly(body), body.get("n") or 1))


def passed_openly(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a provider is given of a body that was read openly."""
    passed = {name: value for name, value in body.items() if name not in _OPEN_EDGE_FIELDS}
    options = body.get("stream_options")
    if options:
        options = {name: value for name, value in options.items() if name != "include_usage"}
    return {**passed, "stream_options": options} if options else passed


def opened(body: Mapping[str, Any], limits: DialectLimits, generation: Generation) -> ParsedRequest:
    """How to answer a request that was read openly. Raises ``ApiError``."""
    check_streaming(body, limits)
    options = body.get("stream_options") or {}
    return ParsedRequest(
        generation=generation,
        stream=bool(body.get("stream")),
        include_usage=bool(options.get("include_usage")),
        choices=generation.choices,
    )


def check_model(body: Mapping[str, Any]) -> None:
    """An absent or empty model is the same mistake, and the first to be told."""
    if body.get("model") in (None, ""):
        raise ApiError("missing_required_parameter", param="model")


def check_streaming(body: Mapping[str, Any], limits: DialectLimits) -> None:
    """What chat and text completions have in common beyond their fields."""
    if body.get("stream_options") is not None and not body.get("stream"):
        reason = "the 'stream_options' parameter is only allowed when 'stream' is enabled"
        raise ApiError("invalid_value", param="stream_options", reason=reason)
    if (body.get("n") or 1) > limits.choices:
        raise ApiError("integer_above_max_value", param="n", limit=limits.choices, actual=body["n"])


def _check_count(body: Mapping[str, Any], limits: DialectLimits) -> None:
    """Before anything looks at each of them."""
    messages = body.get("messages")
    if isinstance(messages, list) and len(messages) > limits.messages:
        raise ApiError("array_above_max_length", param="messages", limit=limits.messages, actual=len(messages))


def _check_combinations(request: ChatRequest) -> None:
    if request.top_logprobs is not None and not request.logprobs:
        reason = "the 'top_logprobs' parameter is only allowed when 'logprobs' is enabled"
        raise ApiError("invalid_value", param="top_logprobs", reason=reason)
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        reason = "'max_tokens' and 'max_completion_tokens' cannot both be set"
        raise ApiError("invalid_value", param="max_tokens", reason=reason)


def _told_apart(tool: dict[str, Any], loose: set[str]) -> dict[str, Any]:
    """A tool whose ``strict`` is false where its parameters cannot be enforced, and absent where they are."""
    function = {name: value for name, value in tool["function"].items() if name != "strict"}
    if function["name"] in loose:
        function["strict"] = False
    return {**tool, "function": function}


def _check_tools(request: ChatRequest) -> set[str]:
    """Check the tools. Returns the names of those whose parameters the engine cannot enforce, and need not."""
    names: set[str] = set()
    schemas: dict[str, Any] = {}
    lenient: dict[str, Any] = {}
    for i, tool in enumerate(request.tools or ()):
        if tool.type == "custom":
            raise ApiError(
                "unsupported_value", param=f"tools[{i}].type", value="'custom'", hint=" Only 'function' is supported."
            )
        if tool.function.name in names:
            reason = f"the name '{tool.function.name}' is given twice"
            raise ApiError("invalid_value", param=f"tools[{i}].function.name", reason=reason)
        names.add(tool.function.name)
        if tool.function.parameters:
            param = f"tools[{i}].function.parameters"
            schemas[param] = tool.function.parameters
            if not tool.function.strict:
                check_shape(tool.function.parameters, param)
                lenient[param] = tool.function.name
    _check_tool_choice(request, names)
    return _enforceable(schemas, lenient)


def _enforceable(schemas: dict[str, Any], lenient: dict[str, str]) -> set[str]:
    """Check what must be enforced; the names of ``lenient`` ones (by param) that cannot be."""
    try:
        check_schemas(schemas, code="invalid_function_parameters", root_object=True)
    except ApiError as error:
        if not lenient:
            raise
        first = next((param for param in lenient if (error.param or "").startswith(param)), None)
        # The one that does not fit is told apart; with it goes the next, until the rest fits together.
        loose = first if first is not None else next(iter(lenient))
        rest = {param: schema for param, schema in schemas.items() if param != loose}
        return {lenient[loose]} | _enforceable(rest, {param: name for param, name in lenient.items() if param != loose})
    return set()


def _check_tool_choice(request: ChatRequest, names: set[str]) -> None:
    for field in ("tool_choice", "parallel_tool_calls"):
        if getattr(request, field) not in (None, "none") and not names:
            reason = f"'{field}' is only allowed when 'tools' are specified"
            raise ApiError("invalid_value", param=field, reason=reason)
    choice = request.tool_choice
    if choice is None or isinstance(choice, str):
        return
    if choice.type == "function":
        _check_named("tool_choice.function.name", choice.function.name, names)
        return
    for i, tool in enumerate(choice.allowed_tools.tools):
        _check_named(f"tool_choice.allowed_tools.tools[{i}].function.name", tool.function.name, names)


def _check_named(param: str, name: str, names: set[str]) -> None:
    if name not in names:
        raise ApiError("invalid_value", param=param, reason=f"'{name}' is not the name of one of the 'tools'")


def _check_format(request: ChatRequest) -> None:
    form = request.response_format
    if form is not None and form.type == "json_schema" and form.json_schema.schema_ is not None:
        param = "response_format.json_schema.schema"
        check_schema(form.json_schema.schema_, param=param, code="invalid_json_schema")
