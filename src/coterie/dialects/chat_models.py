"""The chat request as OpenAI's specification (``CreateChatCompletionRequest``) has it, less what is refused by name.

Extra fields are refused, as OpenAI refuses them, with two exceptions that clients of self-hosted servers send:
``top_k`` and ``min_p``, samplers that every open engine has.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, Tag

from coterie.dialects.validation import Strict, at_most, by_field, by_type, tag

MAX_MODEL_NAME = 256
"""Characters of a model's name."""

ModelName = Annotated[str, StringConstraints(max_length=MAX_MODEL_NAME)]
FunctionName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]
Identifier = Annotated[str, StringConstraints(max_length=512)]
ParticipantName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\s<|\\/>]+$")]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100.0, le=100.0)]
Metadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
    at_most(16),
]
LogitBias = Annotated[dict[TokenId, Bias], at_most(1024)]
Stop = Annotated[
    Annotated[StopText, Tag(tag("string"))]
    | Annotated[Annotated[list[StopText], Field(max_length=4)], Tag(tag("array"))],
    by_type(string=str, array=list),
]


class StreamOptions(Strict):
    """``stream_options``. Obfuscation is padding that OpenAI adds; nothing is added here, whichever is asked for."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Sampling(Strict):
    """What chat and text completions share."""

    model: ModelName
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    user: Identifier | None = None


class TextPart(Strict):
    """Text."""

    type: Literal["text"]
    text: str


class RefusalPart(Strict):
    """A refusal that the assistant gave earlier."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(Strict):
    """Where an image is: a data URL or an http(s) URL."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Strict):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


class OtherPart(Strict):
    """A kind of part that the API has and nothing here can take; refused by name after validation."""

    type: Literal["input_audio", "file"]
    input_audio: Any = None
    file: Any = None


_UserPart = Annotated[
    Annotated[TextPart, Tag(tag("text"))]
    | Annotated[ImagePart, Tag(tag("image_url"))]
    | Annotated[OtherPart, Tag(tag("input_audio"))]
    | Annotated[OtherPart, Tag(tag("file"))],
    by_field("type", ("text", "image_url", "input_audio", "file")),
]
_AssistantPart = Annotated[
    Annotated[TextPart, Tag(tag("text"))] | Annotated[RefusalPart, Tag(tag("refusal"))],
    by_field("type", ("text", "refusal")),
]
_Parts = Field(min_length=1, max_length=2048, fail_fast=True)
_TextContent = Annotated[
    Annotated[str, Tag(tag("string"))] | Annotated[Annotated[list[TextPart], _Parts], Tag(tag("array"))],
    by_type(string=str, array=list),
]
_UserContent = Annotated[
    Annotated[str, Tag(tag("string"))] | Annotated[Annotated[list[_UserPart], _Parts], Tag(tag("array"))],
    by_type(string=str, array=list),
]
_AssistantContent = Annotated[
    Annotated[str, Tag(tag("string"))] | Annotated[Annotated[list[_AssistantPart], _Parts], Tag(tag("array"))],
    by_type(string=str, array=list),
]


class SystemMessage(Strict):
    """Instructions."""

    role: Literal["system", "developer"]
    content: _TextContent
    name: ParticipantName | None = None


class UserMessage(Strict):
    """What a user said."""

    role: Literal["user"]
    content: _UserContent
    name: ParticipantName | None = None


class CalledFunction(Strict):
    """The function of a tool call; ``arguments`` is what the model wrote, JSON or not."""

    name: FunctionName
    arguments: str


class ToolCall(Strict):
    """A call that the assistant made earlier."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(Strict):
    """What the assistant said earlier. ``audio`` and ``function_call`` may only be null."""

    role: Literal["assistant"]
    content: _AssistantContent | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    name: ParticipantName | None = None
    tool_calls: Annotated[list[ToolCall], Field(min_length=1, max_length=128, fail_fast=True)] | None = None
    function_call: None = None
    audio: None = None
    annotations: list[Any] | None = None


class ToolMessage(Strict):
    """The result of a tool call."""

    role: Literal["tool"]
    content: _TextContent
    tool_call_id: Annotated[str, StringConstraints(min_length=1, max_length=128)]


ROLES = ("system", "developer", "user", "assistant", "tool")

Message = Annotated[
    Annotated[SystemMessage, Tag(tag("system"))]
    | Annotated[SystemMessage, Tag(tag("developer"))]
    | Annotated[UserMessage, Tag(tag("user"))]
    | Annotated[AssistantMessage, Tag(tag("assistant"))]
    | Annotated[ToolMessage, Tag(tag("tool"))],
    by_field("role", ROLES),
]


class Function(Strict):
    """A function that the model may call."""

    name: FunctionName
    description: Annotated[str, StringConstraints(max_length=16_384)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Strict):
    """A tool of the kind that is supported."""

    type: Literal["function"]
    function: Function


class CustomTool(Strict):
    """A tool of a kind that the API has and nothing here can honour; refused by name after validation."""

    type: Literal["custom"]
    custom: Any = None


Tool = Annotated[
    Annotated[FunctionTool, Tag(tag("function"))] | Annotated[CustomTool, Tag(tag("custom"))],
    by_field("type", ("function", "custom")),
]


class ChosenName(Strict):
    """A function's name."""

    name: FunctionName


class ChosenFunction(Strict):
    """``tool_choice`` that names one function."""

    type: Literal["function"]
    function: ChosenName


class AllowedTools(Strict):
    """The inner object of ``allowed_tools``."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[ChosenFunction], Field(min_length=1, max_length=128, fail_fast=True)]


class AllowedToolsChoice(Strict):
    """``tool_choice`` that narrows the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


_ChoiceObject = Annotated[
    Annotated[ChosenFunction, Tag(tag("function"))] | Annotated[AllowedToolsChoice, Tag(tag("allowed_tools"))],
    by_field("type", ("function", "allowed_tools")),
]
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag(tag("string"))] | Annotated[_ChoiceObject, Tag(tag("object"))],
    by_type(string=str, object=dict),
]


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Strict):
    """Some JSON object."""

    type: Literal["json_object"]


class JsonSchema(Strict):
    """A schema for the answer. It is enforced whether or not ``strict`` is said."""

    name: FunctionName
    description: Annotated[str, StringConstraints(max_length=16_384)] | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Strict):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag(tag("text"))]
    | Annotated[JsonObjectFormat, Tag(tag("json_object"))]
    | Annotated[JsonSchemaFormat, Tag(tag("json_schema"))],
    by_field("type", ("text", "json_object", "json_schema")),
]


class ChatRequest(Sampling):
    """The body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    metadata: Metadata | None = None
    safety_identifier: Annotated[str, StringConstraints(max_length=64)] | None = None
    prompt_cache_key: Identifier | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    prompt_cache_options: dict[str, Any] | None = None
