"""What a Response object says of its request, as data. Pure.

Every field that either specification requires is there: as the request has it, or as OpenAI's default. ``user`` and the
like are no field of an answer unless they were given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from coterie.dialects.responses_models import AllowedTools, FunctionTool, ResponsesRequest, SchemaFormat

_DEFAULTS: Final[Mapping[str, Any]] = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
}
"""Fields that are told as they are, and what they are where nothing, or null, was said."""

_WHERE_GIVEN: Final = ("prompt_cache_retention", "user")


def echo(request: ResponsesRequest) -> dict[str, Any]:
    """The fields of the answer that repeat its request; a fresh dict."""
    fields: dict[str, Any] = {"model": request.model}
    for name, default in _DEFAULTS.items():
        value = getattr(request, name)
        fields[name] = default if value is None else value
    fields |= {name: getattr(request, name) for name in _WHERE_GIVEN if getattr(request, name) is not None}
    if request.conversation is not None:
        fields["conversation"] = {"id": conversation_id(request)}
    return fields | {
        "metadata": dict(request.metadata or {}),
        "reasoning": _reasoning(request),
        "service_tier": "default",
        "text": _text(request),
        "tool_choice": _tool_choice(request),
        "tools": [_tool(tool) for tool in request.tools or ()],
    }


def conversation_id(request: ResponsesRequest) -> str | None:
    """The conversation's id, however it was said."""
    named = request.conversation
    return named if named is None or isinstance(named, str) else named.id


def _reasoning(request: ResponsesRequest) -> dict[str, Any]:
    options = request.reasoning
    told: dict[str, Any] = {"effort": None, "summary": None}
    if options is None:
        return told
    told |= {"effort": options.effort, "summary": options.summary or options.generate_summary}
    return told | {name: value for name in ("context", "mode") if (value := getattr(options, name)) is not None}


def _text(request: ResponsesRequest) -> dict[str, Any]:
    told: dict[str, Any] = {"format": {"type": "text"}}
    options = request.text
    if options is None:
        return told
    if options.verbosity is not None:
        told["verbosity"] = options.verbosity
    form = options.format
    if isinstance(form, SchemaFormat):
        told["format"] = {
            "type": "json_schema",
            "name": form.name,
            "description": form.description,
            "schema": form.schema_,
            "strict": bool(form.strict),
        }
    elif form is not None:
        told["format"] = {"type": form.type}
    return told


def _tool_choice(request: ResponsesRequest) -> str | dict[str, Any]:
    choice = request.tool_choice
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        return choice
    if isinstance(choice, AllowedTools):
        tools = [{"type": "function", "name": tool.name} for tool in choice.tools]
        return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}
    return {"type": "function", "name": choice.name}


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
