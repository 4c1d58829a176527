"""The items of the Responses API and their parts, as requests and conversations bring them.

What it promises:

* A field that neither OpenAI's specification nor Open Responses has is refused, and so is a kind of item or part that
  nothing here can take: the first as unknown, the second by its name (:data:`ITEMS_ELSEWHERE`,
  :data:`PARTS_ELSEWHERE`).
* Where the two draw a bound differently, the wider one holds. What was sent out must come in again: the ``call_id`` and
  the ``name`` of a call are what some model and its server wrote, so only their length is bounded, and generously.
* Members that SDKs have of their own, and write as null where they dump what they received (``parsed_arguments``), say
  nothing and are passed over.
* URLs of images and the like are left to the chat dialect, which reads the translated request.

Items and references without a ``type`` are given the one they mean before they come here.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, Tag, model_validator

from coterie.dialects.validation import Off, Strict, by_field, by_type, tag

MAX_TEXT: Final = 10_485_760
"""Characters of one text."""

MAX_PARTS: Final = 2048
"""Parts of one item, entries of one list inside of it."""

Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
Sealed = Annotated[str, StringConstraints(min_length=1, max_length=2 * MAX_TEXT)]
ItemId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
CallId = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
CalledName = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Status = Literal["in_progress", "completed", "incomplete"]
_Parts = Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)
_Entries = Field(max_length=MAX_PARTS, fail_fast=True)

ITEM_KINDS: Final = ("message", "function_call", "function_call_output", "reasoning", "item_reference", "compaction")
ITEMS_ELSEWHERE: Final = frozenset(
    {
        "additional_tools", "apply_patch_call", "apply_patch_call_output", "code_interpreter_call", "computer_call",
        "compaction_trigger", "computer_call_output", "configuration_update", "custom_tool_call",
        "custom_tool_call_output", "file_search_call", "image_generation_call", "local_shell_call",
        "local_shell_call_output", "mcp_approval_request", "mcp_approval_response", "mcp_call", "mcp_list_tools",
        "program", "program_output", "shell_call", "shell_call_output", "tool_search_call", "tool_search_output",
        "web_search_call",
    }
)  # fmt: skip
"""Kinds of items that belong to tools which do not exist here."""

INPUT_PARTS: Final = ("input_text", "input_image", "input_file")
OUTPUT_PARTS: Final = ("output_text", "refusal")
PARTS_ELSEWHERE: Final = frozenset({"input_audio", "input_video", "output_audio", "computer_screenshot"})


class Dumped(Strict):
    """What SDKs dump and send back: a member that is not known says nothing where it is null."""

    @model_validator(mode="before")
    @classmethod
    def _without_unknown_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict) or None not in value.values():
            return value
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {name: inner for name, inner in value.items() if inner is not None or name in known}


# Parts


class CacheBreakpoint(Strict):
    """A hint for caching."""

    mode: Literal["explicit"]
    ttl: Literal["30m", "12h"] | None = None


class DirectCaller(Strict):
    """Who made a call: the model, and not a program of its own."""

    type: Literal["direct"]


class _InputPart(Dumped):
    """What parts that go to the model share."""

    prompt_cache_breakpoint: CacheBreakpoint | None = None


class InputText(_InputPart):
    """Text for the model."""

    type: Literal["input_text"]
    text: Text


class InputImage(_InputPart):
    """An image by its URL. ``file_id`` and some details are refused by name after validation."""

    type: Literal["input_image"]
    image_url: str | None = None
    file_id: str | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None


class InputFile(_InputPart):
    """A file by its content. The other ways to name one, and details, are refused by name after validation."""

    type: Literal["input_file"]
    file_data: str | None = None
    filename: Annotated[str, StringConstraints(max_length=512)] | None = None
    file_id: str | None = None
    file_url: str | None = None
    detail: Literal["auto", "low", "high"] | None = None


class OutputText(Dumped):
    """Text that the model wrote."""

    type: Literal["output_text"]
    text: Text
    annotations: Annotated[list[dict[str, Any]], _Entries] | None = None
    logprobs: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None


class Refusal(Dumped):
    """What the model said instead of an answer."""

    type: Literal["refusal"]
    refusal: Text


class SummaryText(Dumped):
    """A summary of reasoning."""

    type: Literal["summary_text"]
    text: Text


class ReasoningText(Dumped):
    """Reasoning."""

    type: Literal["reasoning_text"]
    text: Text


_InputList = Annotated[
    list[
        Annotated[
            Annotated[InputText, Tag(tag("input_text"))]
            | Annotated[InputImage, Tag(tag("input_image"))]
            | Annotated[InputFile, Tag(tag("input_file"))],
            by_field("type", INPUT_PARTS),
        ]
    ],
    _Parts,
]
_InputContent = Annotated[
    Annotated[Text, Tag(tag("string"))] | Annotated[_InputList, Tag(tag("array"))], by_type(string=str, array=list)
]
_OutputList = Annotated[
    list[
        Annotated[
            Annotated[OutputText, Tag(tag("output_text"))] | Annotated[Refusal, Tag(tag("refusal"))],
            by_field("type", OUTPUT_PARTS),
        ]
    ],
    _Entries,
]
_OutputContent = Annotated[
    Annotated[Text, Tag(tag("string"))] | Annotated[_OutputList, Tag(tag("array"))], by_type(string=str, array=list)
]


# Items


class _Item(Dumped):
    """What items share."""

    id: ItemId | None = None
    status: Status | None = None


class InputMessage(_Item):
    """What somebody told the model."""

    type: Literal["message"]
    role: Literal["user", "system", "developer"]
    content: _InputContent
    phase: Literal["commentary", "final_answer"] | None = None


class AssistantMessage(_Item):
    """What the model said. An answer that was broken off may have no parts."""

    type: Literal["message"]
    role: Literal["assistant"]
    content: _OutputContent
    phase: Literal["commentary", "final_answer"] | None = None


class FunctionCall(_Item):
    """A call that the model made; ``arguments`` is what it wrote, JSON or not. No call goes on beside an answer."""

    type: Literal["function_call"]
    call_id: CallId
    name: CalledName
    arguments: Text
    async_: Off | None = Field(None, alias="async")
    namespace: None = None
    caller: DirectCaller | None = None


class FunctionCallOutput(_Item):
    """What came of a call."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: _InputContent
    name: CalledName | None = None
    namespace: None = None
    caller: DirectCaller | None = None


class ReasoningItem(_Item):
    """What the model thought."""

    type: Literal["reasoning"]
    summary: Annotated[list[SummaryText], _Entries]
    content: Annotated[list[ReasoningText], _Entries] | None = None
    encrypted_content: Sealed | None = None


class ItemReference(Dumped):
    """An item that is stored here."""

    type: Literal["item_reference"]
    id: ItemId


class Compaction(_Item):
    """What stands for items that were compacted."""

    type: Literal["compaction"]
    encrypted_content: Sealed
    created_by: str | None = None


_Message = Annotated[
    Annotated[InputMessage, Tag(tag("user"))]
    | Annotated[InputMessage, Tag(tag("system"))]
    | Annotated[InputMessage, Tag(tag("developer"))]
    | Annotated[AssistantMessage, Tag(tag("assistant"))],
    by_field("role", ("user", "system", "developer", "assistant")),
]
ItemModel = Annotated[
    Annotated[_Message, Tag(tag("message"))]
    | Annotated[FunctionCall, Tag(tag("function_call"))]
    | Annotated[FunctionCallOutput, Tag(tag("function_call_output"))]
    | Annotated[ReasoningItem, Tag(tag("reasoning"))]
    | Annotated[ItemReference, Tag(tag("item_reference"))]
    | Annotated[Compaction, Tag(tag("compaction"))],
    by_field("type", ITEM_KINDS),
]
Items = Annotated[list[ItemModel], Field(fail_fast=True)]
