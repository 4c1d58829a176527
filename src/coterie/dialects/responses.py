"""The Responses dialect: a body into what is to be done. Pure, and without knowledge of the model's server.

``parse_response`` checks in this order: the model, parameters and kinds of things that do not exist here, shape and
bounds of every field, then what no single field shows. The first thing that is wrong is the answer. What takes earlier
items to judge, such as outputs without their calls, is the translation's; schemas and images are the chat dialect's.

``input`` may be absent where something else says what to answer: ``previous_response_id``, ``conversation`` or
``instructions``. Neither specification requires it. Where it is there it is not empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from coterie.dialects.chat import DialectLimits, check_model
from coterie.dialects.responses_echo import conversation_id, echo
from coterie.dialects.responses_input import Item, finished, message_of, with_types
from coterie.dialects.responses_models import (
    RESPONSES_UNSUPPORTED,
    TOOLS_ELSEWHERE,
    AllowedTools,
    ChosenFunction,
    ResponsesRequest,
)
from coterie.dialects.support import refuse_unsupported
from coterie.dialects.validation import validate
from coterie.errors import ApiError

ENCRYPTED_REASONING: Final = "reasoning.encrypted_content"
LOGPROBS: Final = "message.output_text.logprobs"
"""Members of ``include`` that add something to answers from here."""

_ONLY_FUNCTIONS: Final = " Only 'function' is supported."


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """What a request asks for.

    ``input`` holds its items as they are kept (see :mod:`coterie.dialects.responses_input`), ``references`` the ids of
    those among them that are references. ``echo`` is what the Response object says of the request. ``truncate``: items
    may be left out where they are too many for the model.
    """

    model: str
    input: tuple[Item, ...]
    echo: dict[str, Any]
    stream: bool
    background: bool
    store: bool
    previous_response_id: str | None
    conversation_id: str | None
    truncate: bool
    include: frozenset[str]
    references: tuple[str, ...]
    request: ResponsesRequest

    @property
    def logprobs(self) -> bool:
        """Whether the text is to come with log probabilities: ``include`` names them, or ``top_logprobs`` is not 0."""
        return LOGPROBS in self.include or bool(self.request.top_logprobs)


def parse_response(body: Mapping[str, Any], limits: DialectLimits) -> ParsedResponse:
    """Check a Responses request. Raises ``ApiError``."""
    check_model(body)
    fields = refuse_unsupported(body, RESPONSES_UNSUPPORTED)
    _refuse_tools(fields)
    if "input" in fields:
        fields["input"] = with_types(fields["input"], "input", limits.messages)
    request = validate(ResponsesRequest, fields)
    _check_input(request)
    _check_combinations(request)
    _check_reasoning(request)
    _check_tools(request)
    items = _items(fields.get("input"))
    return ParsedResponse(
        model=request.model,
        input=items,
        echo=echo(request),
        stream=bool(request.stream),
        background=bool(request.background),
        store=request.store is not False,
        previous_response_id=request.previous_response_id,
        conversation_id=conversation_id(request),
        truncate=request.truncation == "auto",
        include=frozenset(request.include or ()),
        references=tuple(item["id"] for item in items if item["type"] == "item_reference"),
        request=request,
    )


def _items(given: str | Sequence[Mapping[str, Any]] | None) -> tuple[Item, ...]:
    if isinstance(given, str):
        return (message_of(given),)
    return finished(given or (), "input")


def _refuse_tools(fields: Mapping[str, Any]) -> None:
    """Refuse, by their names, tools that do not exist here."""
    _refuse_kinds(fields.get("tools"), "tools")
    choice = fields.get("tool_choice")
    if not isinstance(choice, dict):
        return
    _refuse_kinds([choice], "tool_choice", one=True)
    if choice.get("type") == "allowed_tools":
        _refuse_kinds(choice.get("tools"), "tool_choice.tools")


def _refuse_kinds(tools: Any, param: str, *, one: bool = False) -> None:
    for i, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and kind in TOOLS_ELSEWHERE:
            path = f"{param}.type" if one else f"{param}[{i}].type"
            raise ApiError("unsupported_value", param=path, value=f"'{kind}'", hint=_ONLY_FUNCTIONS)


def _check_input(request: ResponsesRequest) -> None:
    if request.input is not None and not request.input:
        raise ApiError("invalid_value", param="input", reason="it must not be empty")
    others = (request.previous_response_id, request.conversation, request.instructions)
    if request.input is None and not any(others):
        raise ApiError("missing_required_parameter", param="input")


def _check_combinations(request: ResponsesRequest) -> None:
    for param, wrong, reason in (
        (
            "previous_response_id",
            request.previous_response_id is not None and request.conversation is not None,
            "it cannot be used together with 'conversation'",
        ),
        (
            "background",
            request.background and request.store is False,
            "a response in the background is stored, so 'store' cannot be false",
        ),
        (
            "stream_options",
            request.stream_options is not None and not request.stream,
            "the 'stream_options' parameter is only allowed when 'stream' is enabled",
        ),
    ):
        if wrong:
            raise ApiError("invalid_value", param=param, reason=reason)
    if request.stream_options is not None and request.stream_options.include_obfuscation:
        param = "stream_options.include_obfuscation"
        raise ApiError("unsupported_value", param=param, value="true", hint=" Nothing is padded.")


def _check_reasoning(request: ResponsesRequest) -> None:
    """Refuse, by their names, what reasoning cannot be asked for here."""
    options = request.reasoning
    if options is None:
        return
    for name in ("summary", "generate_summary"):
        if (asked := getattr(options, name)) not in (None, "auto"):
            hint = " Reasoning is sent as it is, without a summary."
            raise ApiError("unsupported_value", param=f"reasoning.{name}", value=f"'{asked}'", hint=hint)
    if options.mode == "pro":
        raise ApiError("unsupported_value", param="reasoning.mode", value="'pro'")


def _check_tools(request: ResponsesRequest) -> None:
    """What chat requires of tools and of the choice among them, for whichever server the request may go to."""
    names: set[str] = set()
    for i, tool in enumerate(request.tools or ()):
        if tool.name in names:
            raise ApiError("invalid_value", param=f"tools[{i}].name", reason=f"the name '{tool.name}' is given twice")
        names.add(tool.name)
    choice = request.tool_choice
    if isinstance(choice, AllowedTools):
        for i, allowed in enumerate(choice.tools):
            _check_named(f"tool_choice.tools[{i}].name", allowed.name, names)
    elif choice not in (None, "none", "auto") and not names:
        reason = "'tool_choice' is only allowed when 'tools' are specified"
        raise ApiError("invalid_value", param="tool_choice", reason=reason)
    elif isinstance(choice, ChosenFunction):
        _check_named("tool_choice.name", choice.name, names)


def _check_named(param: str, name: str, names: set[str]) -> None:
    if name not in names:
        raise ApiError("invalid_value", param=param, reason=f"'{name}' is not the name of one of the 'tools'")
