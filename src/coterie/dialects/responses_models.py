"""The Responses request as both specifications have it (OpenAI's ``CreateResponse``, ``CreateResponseBody`` of Open
Responses), less what is refused by name. Its items are in :mod:`coterie.dialects.responses_item_models`.

What it promises: each parameter is refused by a name from :data:`RESPONSES_UNSUPPORTED`, or it is honoured by the
translation, or it is told in the answer, or it stands in :data:`RESPONSES_WITHOUT_EFFECT` with the reason why accepting
it deceives nobody. Schemas are left to the chat dialect, which reads the translated request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, Tag

from coterie.dialects.chat_models import FunctionName, Identifier, Metadata, ModelName, Penalty
from coterie.dialects.responses_item_models import ItemId, Items, Text
from coterie.dialects.support import Unsupported
from coterie.dialects.validation import Off, Strict, at_most, by_field, by_type, tag

ShortKey = Annotated[str, StringConstraints(max_length=64)]
ClientMetadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=256)], Annotated[str, StringConstraints(max_length=65_536)]],
    at_most(64),
]
Description = Annotated[str, StringConstraints(max_length=16_384)]


# What is known by name, and not here.

RESPONSES_UNSUPPORTED: Final[Mapping[str, Unsupported]] = {
    "access_programs": Unsupported(),
    "context_management": Unsupported(hint=" Use 'truncation', or 'POST /v1/responses/compact'."),
    "image": Unsupported(),
    "moderation": Unsupported(),
    "prompt": Unsupported(hint=" Send 'instructions' and 'input' instead."),
    "service_tier": Unsupported(("auto", "default"), " There is one tier."),
}
"""Parameters that OpenAI's API has and that no answer from here could honour."""

RESPONSES_WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "client_metadata": "what a client such as Codex says of itself, for whoever operates the service; it is neither "
    "evaluated nor kept",
    "input[].phase": "a label for models that know it; the message is given to the model whichever it says",
    "input[].content[].annotations": "where a text came from; the text itself is given to the model",
    "input[].content[].logprobs": "how likely a text was; the text itself is given to the model",
    "input[].content[].prompt_cache_breakpoint": "a hint for caching; prompts are cached without it",
    "input[].name": "which tool an output is of; its 'call_id' says so already",
    "include[] of other tools": "such a tool's items cannot occur here, so there is nothing to add to them",
    "max_tool_calls": "bounds the calls of built-in tools; there are none, and functions are called by the client",
    "metadata": "labels of the stored response; kept with it and never shown to a model",
    "reasoning.mode": "only 'standard' is accepted, which is all there is",
    "reasoning.summary": "only 'auto' is accepted: the model chooses whether to summarise; what its provider sends as "
    "a summary is passed on, and so is the reasoning itself",
    "service_tier": "only 'auto' and 'default' are accepted; there is one tier",
    "stream_options.include_obfuscation": "only 'false' is accepted, which is all there is: nothing is padded",
}
"""What is accepted and changes nothing about what is generated, and why. Types are checked all the same."""

TOOLS_ELSEWHERE: Final = frozenset(
    {
        "apply_patch", "code_interpreter", "computer", "computer_use_preview", "custom", "file_search",
        "image_generation", "local_shell", "mcp", "namespace", "programmatic_tool_calling", "shell", "tool_search",
        "web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11",
    }
)  # fmt: skip
"""Kinds of tools, and of choices of one, that do not exist here."""


# Tools


class FunctionTool(Strict):
    """A function that the model may call. What only OpenAI's other tools could use may be said only to be unused."""

    type: Literal["function"]
    name: FunctionName
    description: Description | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    output_schema: None = None
    defer_loading: Off | None = None
    async_: Off | None = Field(None, alias="async")
    allowed_callers: Annotated[list[Literal["direct"]], Field(max_length=8, fail_fast=True)] | None = None


_Tool = Annotated[Annotated[FunctionTool, Tag(tag("function"))], by_field("type", ("function",))]


class ChosenFunction(Strict):
    """A function by its name."""

    type: Literal["function"]
    name: FunctionName


_Chosen = Annotated[Annotated[ChosenFunction, Tag(tag("function"))], by_field("type", ("function",))]


class AllowedTools(Strict):
    """``tool_choice`` that narrows the tools."""

    type: Literal["allowed_tools"]
    mode: Literal["none", "auto", "required"] = "auto"
    tools: Annotated[list[_Chosen], Field(min_length=1, max_length=128, fail_fast=True)]


_ChoiceObject = Annotated[
    Annotated[ChosenFunction, Tag(tag("function"))] | Annotated[AllowedTools, Tag(tag("allowed_tools"))],
    by_field("type", ("function", "allowed_tools")),
]
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag(tag("string"))] | Annotated[_ChoiceObject, Tag(tag("object"))],
    by_type(string=str, object=dict),
]


# What the answer is to be


class PlainFormat(Strict):
    """Any text, or some JSON object."""

    type: Literal["text", "json_object"]


class SchemaFormat(Strict):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    name: FunctionName
    schema_: dict[str, Any] = Field(alias="schema")
    description: Description | None = None
    strict: bool | None = None


TextFormat = Annotated[
    Annotated[PlainFormat, Tag(tag("text"))]
    | Annotated[PlainFormat, Tag(tag("json_object"))]
    | Annotated[SchemaFormat, Tag(tag("json_schema"))],
    by_field("type", ("text", "json_object", "json_schema")),
]


class TextOptions(Strict):
    """``text``."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(Strict):
    """``reasoning``. Which values of the last three can be honoured is told after validation."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    mode: Literal["standard", "pro"] | None = None


class StreamOptions(Strict):
    """``stream_options``. That nothing is padded is told after validation."""

    include_obfuscation: bool | None = None


class ConversationName(Strict):
    """A conversation by its id."""

    id: ItemId


_Conversation = Annotated[
    Annotated[ItemId, Tag(tag("string"))] | Annotated[ConversationName, Tag(tag("object"))],
    by_type(string=str, object=dict),
]
Include = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]


class Prompted(Strict):
    """What says what the model reads: creating, counting and compacting have it in common."""

    model: ModelName
    input: (
        Annotated[
            Annotated[Text, Tag(tag("string"))] | Annotated[Items, Tag(tag("array"))],
            by_type(string=str, array=list),
        ]
        | None
    ) = None
    instructions: Text | None = None
    previous_response_id: ItemId | None = None


class ResponsesRequest(Prompted):
    """The body of ``POST /v1/responses``."""

    conversation: _Conversation | None = None
    include: Annotated[list[Include], Field(max_length=64, fail_fast=True)] | None = None
    tools: Annotated[list[_Tool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_output_tokens: Annotated[int, Field(ge=16)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    client_metadata: ClientMetadata | None = None
    user: Identifier | None = None
    safety_identifier: ShortKey | None = None
    prompt_cache_key: ShortKey | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    prompt_cache_options: Annotated[dict[str, Any], at_most(16)] | None = None
