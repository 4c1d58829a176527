"""Items into a chat request. Pure.

What it promises:

* Items become messages in their order, with one exception: the output of a call stands right after the call's message,
  as chat requires, wherever it came. Calls that follow one another, and the message or the reasoning before them, are
  one assistant message.
* A tool's message in chat is text. What outputs show besides (images, files) follows the outputs of that assistant
  message, in one message of the user.
* Every call has its output and every output its call, or the request is refused in OpenAI's words. The exception is a
  call that was broken off and has no output: it was never made, and is left out. Ids and names that chat does not take
  are replaced (:mod:`coterie.dialects.responses_calls`).
* Reasoning is given back as ``reasoning_content`` of the message that it led to, never as text of a message: that of
  the current turn (after the last user message), or of all turns where ``reasoning.context`` says so. What is sealed
  must be ours; where nothing is sealed, the visible text is taken as it is, the reasoning's own before its summary.
* A compaction becomes a developer message that says what it is. ``instructions`` are the first message, those of
  earlier turns are not carried over.
* ``allowed_tools`` is translated into the tools that are allowed, which every server understands.
* What the result is checked for is left to the chat dialect; :meth:`Translation.relate` tells its failures in the
  caller's words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from coterie.dialects.responses import ParsedResponse
from coterie.dialects.responses_calls import ChatIds, chat_name, is_broken_off, pairs
from coterie.dialects.responses_input import Item
from coterie.dialects.responses_models import AllowedTools, FunctionTool, ResponsesRequest, SchemaFormat
from coterie.dialects.responses_relate import Source, relate
from coterie.errors import ApiError

Unseal = Callable[[str], str | None]

_SUMMARY_FOLLOWS: Final = "Summary of the conversation so far, whose messages are no longer shown:\n\n"

_SHOWN_NEXT: Final = "(see the next message of the user)"
"""The text of a tool's message whose output has none."""

_SAME_NAME: Final = (
    "temperature", "top_p", "presence_penalty", "frequency_penalty", "user", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "prompt_cache_options",
)  # fmt: skip
"""Parameters that chat calls the same."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A chat request, and where its parts come from: its messages, and its tools by their numbers."""

    body: dict[str, Any]
    sources: tuple[Source, ...]
    tools: tuple[int, ...]

    def relate(self, error: ApiError) -> ApiError:
        """The same failure in the words of the Responses API."""
        return relate(error, self.sources, self.tools)


def conversation(parsed: ParsedResponse, history: Sequence[Item], found: Mapping[str, Item]) -> tuple[Item, ...]:
    """All items that the model is to see, references replaced by what they refer to: what may be shortened.

    Raises ``ApiError`` for references that lead nowhere and for items that are there twice.
    """
    return tuple(entry.item for entry in _entries(parsed, history, found))


def translate(
    parsed: ParsedResponse,
    history: Sequence[Item],
    found: Mapping[str, Item],
    unseal: Unseal,
    kept: Sequence[Item] | None = None,
) -> Translation:
    """The chat request for ``parsed`` after ``history``, the items of all earlier turns in their order.

    ``found`` has the items that references name, by id. ``unseal`` opens ``encrypted_content``, ``None`` where it is
    not ours. ``kept``, where given, are those of :func:`conversation` that are not left out. Raises ``ApiError``.
    """
    entries = _entries(parsed, history, found)
    if kept is not None:
        identities = {id(item) for item in kept}
        entries = [entry for entry in entries if id(entry.item) in identities]
    calls = pairs([entry.item for entry in entries])
    messages = _Messages(unseal, _reasoned_from(parsed.request, entries), calls)
    if parsed.request.instructions:
        messages.add({"role": "system", "content": parsed.request.instructions}, Source("instructions"))
    for index, entry in enumerate(entries):
        messages.item(index, entry)
    messages.check()
    lines = [line for group in messages.groups for line in group.lines()]
    if not lines:
        raise ApiError("missing_required_parameter", param="input")
    tools, numbers = _tools(parsed.request)
    body = {"model": parsed.model, "messages": [message for message, _ in lines], **tools, **_options(parsed)}
    return Translation(body, tuple(source for _, source in lines), numbers)


# Items


@dataclass(frozen=True, slots=True)
class _Entry:
    """An item with its source; ``stored``: it comes from an earlier turn."""

    item: Item
    source: Source
    stored: bool = False


_Line = tuple[dict[str, Any], Source]
_Part = tuple[Mapping[str, Any], Source]


@dataclass(slots=True, eq=False)
class _Group:
    """A message with the sources of its calls, and behind it their outputs: texts, and then the parts they show."""

    message: dict[str, Any]
    source: Source
    calls: list[Source] = field(default_factory=list)
    outputs: list[_Line] = field(default_factory=list)
    shown: list[_Part] = field(default_factory=list)
    ids: ChatIds = field(default_factory=ChatIds)

    def lines(self) -> list[_Line]:
        lines = [(self.message, replace(self.source, calls=tuple(self.calls))), *self.outputs]
        if self.shown:
            content = [_PARTS[part["type"]](part) for part, _ in self.shown]
            source = Source(self.shown[0][1].place)
            lines.append(({"role": "user", "content": content}, _of_parts(source, self.shown)))
        return lines


def _of_parts(source: Source, parts: Sequence[_Part]) -> Source:
    """``source`` of a message that is made of ``parts``."""
    kinds, inner = tuple(part["type"] for part, _ in parts), tuple(inner for _, inner in parts)
    return replace(source, kinds=kinds, parts=inner)


def _entries(parsed: ParsedResponse, history: Sequence[Item], found: Mapping[str, Item]) -> list[_Entry]:
    back = Source("previous_response_id" if parsed.conversation_id is None else "conversation")
    listed = not isinstance(parsed.request.input, str)
    entries = [_resolved(_Entry(item, back, stored=True), found) for item in history]
    for i, item in enumerate(parsed.input):
        source = Source(f"input[{i}]", inside=True) if listed else Source("input")
        entries.append(_resolved(_Entry(item, source), found))
    seen: set[str] = set()
    for entry in entries:
        name = entry.item.get("id")
        if name in seen and not entry.stored:
            reason = f"Duplicate item found with id {name}"
            raise ApiError("invalid_value", param=f"{entry.source.place}.id", reason=reason)
        if isinstance(name, str):
            seen.add(name)
    return entries


def _resolved(entry: _Entry, found: Mapping[str, Item]) -> _Entry:
    if entry.item.get("type") != "item_reference":
        return entry
    name = entry.item["id"]
    if name not in found:
        raise ApiError("item_reference_not_found", param=entry.source.below(".id"), id=name)
    return replace(entry, item=found[name], source=replace(entry.source, inside=False))


def _reasoned_from(request: ResponsesRequest, entries: Sequence[_Entry]) -> int:
    """The first entry whose reasoning the model is given again."""
    if request.reasoning is not None and request.reasoning.context == "all_turns":
        return 0
    return max((i + 1 for i, entry in enumerate(entries) if entry.item.get("role") == "user"), default=0)


class _Messages:
    """Makes messages of items, one after the other. ``calls``: for the place of each output, that of its call."""

    def __init__(self, unseal: Unseal, reasoned_from: int, calls: Mapping[int, int]) -> None:
        self.groups: list[_Group] = []
        self._unseal = unseal
        self._reasoned_from = reasoned_from
        self._caller: _Group | None = None
        """The assistant message that a call, coming next, would be part of."""
        self._thoughts: list[str] = []
        """Reasoning that belongs to what comes next."""
        self._call_of = calls
        self._answered = frozenset(calls.values())
        self._made: dict[int, tuple[_Group, str]] = {}
        """Calls by their places: where they are, and their ids there."""
        self._unanswered: str | None = None
        """The id of the first call without an output."""

    def item(self, index: int, entry: _Entry) -> None:
        """Take the next item, whose place is ``index``. Raises ``ApiError``."""
        kind = entry.item.get("type")
        if kind == "reasoning":
            self._reasoning(entry, wanted=index >= self._reasoned_from)
            return
        if kind == "function_call" and index not in self._answered and is_broken_off(entry.item):
            return
        add = self._BY_KIND.get(kind) if isinstance(kind, str) else None
        if add is None:
            raise ApiError("unsupported_value", param=entry.source.below(".type"), value=f"'{kind}'")
        add(self, index, entry)
        if kind != "function_call" and entry.item.get("role") != "assistant":
            self._caller = None
        self._thoughts = []

    def add(self, message: dict[str, Any], source: Source) -> _Group:
        """Begin a message."""
        group = _Group(message, source)
        self.groups.append(group)
        return group

    def check(self) -> None:
        """Refuse calls without an output."""
        if self._unanswered is not None:
            reason = f"No tool output found for function call {self._unanswered}"
            raise ApiError("invalid_value", param="input", reason=reason)

    def _message(self, index: int, entry: _Entry) -> None:
        role, parts = entry.item["role"], entry.item["content"]
        source = replace(entry.source, kinds=tuple(part["type"] for part in parts))
        group = self.add({"role": role, "content": _content(parts)}, source)
        if role == "assistant":
            self._think(group)
            self._caller = group

    def _call(self, index: int, entry: _Entry) -> None:
        item, group = entry.item, self._caller
        if group is None:
            group = self._caller = self.add({"role": "assistant", "content": None}, entry.source)
        self._think(group)
        name = group.ids.take(item["call_id"])
        function = {"name": chat_name(item["name"]), "arguments": item["arguments"]}
        group.message.setdefault("tool_calls", []).append({"id": name, "type": "function", "function": function})
        group.calls.append(entry.source)
        self._made[index] = (group, name)
        if index not in self._answered and self._unanswered is None:
            self._unanswered = item["call_id"]

    def _output(self, index: int, entry: _Entry) -> None:
        if index not in self._call_of:
            reason = f"No tool call found for function call output with call_id {entry.item['call_id']}"
            raise ApiError("invalid_value", param=entry.source.below(".call_id"), reason=reason)
        group, name = self._made[self._call_of[index]]
        content, source, shown = _result(entry)
        group.outputs.append(({"role": "tool", "tool_call_id": name, "content": content}, source))
        group.shown += shown

    def _compaction(self, index: int, entry: _Entry) -> None:
        summary = self._opened(entry)
        self.add({"role": "developer", "content": f"{_SUMMARY_FOLLOWS}{summary}"}, replace(entry.source, inside=False))

    def _reasoning(self, entry: _Entry, *, wanted: bool) -> None:
        sealed = entry.item.get("encrypted_content")
        text = "\n\n".join(part["text"] for part in entry.item.get("content") or entry.item.get("summary") or ())
        if sealed is not None and not entry.stored:
            text = self._opened(entry)
        elif sealed is not None and wanted and not text:
            # What was kept here may be sealed with a key that is gone: thoughts can be done without.
            text = self._unseal(sealed) or ""
        if wanted and text:
            self._thoughts.append(text)

    def _think(self, group: _Group) -> None:
        if self._thoughts:
            earlier = [group.message["reasoning_content"]] if "reasoning_content" in group.message else []
            group.message["reasoning_content"] = "\n\n".join([*earlier, *self._thoughts])
        self._thoughts = []

    def _opened(self, entry: _Entry) -> str:
        text = self._unseal(entry.item["encrypted_content"])
        if text is None:
            reason = "the encrypted content could not be verified: it was not made here, or it was changed"
            raise ApiError("invalid_value", param=entry.source.below(".encrypted_content"), reason=reason)
        return text

    _BY_KIND: Final[Mapping[str, Callable[[_Messages, int, _Entry], None]]] = {
        "message": _message,
        "function_call": _call,
        "function_call_output": _output,
        "compaction": _compaction,
    }


# Parts


def _result(entry: _Entry) -> tuple[str | list[dict[str, Any]], Source, list[_Part]]:
    """An output's text, where it comes from, and the parts that are no text."""
    output, source = entry.item["output"], replace(entry.source, field="output")
    if isinstance(output, str):
        return output, source, []
    parts = [(part, replace(entry.source, place=source.below(f".output[{j}]"))) for j, part in enumerate(output)]
    texts = [(part, inner) for part, inner in parts if part["type"] == "input_text"]
    shown = [(part, inner) for part, inner in parts if part["type"] != "input_text"]
    content = _content([part for part, _ in texts]) if texts or not shown else _SHOWN_NEXT
    return content, _of_parts(source, texts), shown


def _content(parts: Sequence[Mapping[str, Any]]) -> str | list[dict[str, Any]]:
    """Parts as chat has them; one text by itself is a string, which every server takes."""
    made = [_PARTS[part["type"]](part) for part in parts]
    if not made:
        return ""
    return str(made[0]["text"]) if len(made) == 1 and made[0]["type"] == "text" else made


def _text(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": part["text"]}


def _refusal(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "refusal", "refusal": part["refusal"]}


def _image(part: Mapping[str, Any]) -> dict[str, Any]:
    detail = {} if part["detail"] == "auto" else {"detail": part["detail"]}
    return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}


def _file(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "file", "file": {name: part[name] for name in ("filename", "file_data") if name in part}}


_PARTS: Final[Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "input_text": _text, "output_text": _text, "refusal": _refusal, "input_image": _image, "input_file": _file,
}  # fmt: skip


# Parameters


def _options(parsed: ParsedResponse) -> dict[str, Any]:
    request = parsed.request
    options = {name: value for name in _SAME_NAME if (value := getattr(request, name)) is not None}
    if request.max_output_tokens is not None:
        options["max_completion_tokens"] = request.max_output_tokens
    if parsed.logprobs:
        options |= {"logprobs": True} | ({"top_logprobs": request.top_logprobs} if request.top_logprobs else {})
    if request.reasoning is not None and request.reasoning.effort is not None:
        options["reasoning_effort"] = request.reasoning.effort
    if request.text is not None and request.text.verbosity is not None:
        options["verbosity"] = request.text.verbosity
    if request.text is not None and request.text.format is not None:
        options["response_format"] = _format(request.text.format)
    return options


def _format(form: Any) -> dict[str, Any]:
    if not isinstance(form, SchemaFormat):
        return {"type": form.type}
    told = {"name": form.name, "description": form.description, "schema": form.schema_, "strict": form.strict}
    return {"type": "json_schema", "json_schema": {name: value for name, value in told.items() if value is not None}}


def _tools(request: ResponsesRequest) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The parameters about tools, and the numbers of the tools that are left."""
    choice = request.tool_choice
    tools = list(enumerate(request.tools or ()))
    if isinstance(choice, AllowedTools):
        allowed = {tool.name for tool in choice.tools}
        tools = [(number, tool) for number, tool in tools if tool.name in allowed]
    made: dict[str, Any] = {"tools": [_tool(tool) for _, tool in tools]} if tools else {}
    if isinstance(choice, str | AllowedTools):
        mode = choice if isinstance(choice, str) else choice.mode
        # What is said of no tools is said of nothing, and chat would refuse it.
        if tools or mode == "required":
            made["tool_choice"] = mode
    elif choice is not None:
        made["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    if tools and request.parallel_tool_calls is not None:
        made["parallel_tool_calls"] = request.parallel_tool_calls
    return made, tuple(number for number, _ in tools)


def _tool(tool: FunctionTool) -> dict[str, Any]:
    told = {"name": tool.name, "description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
    return {"type": "function", "function": {name: value for name, value in told.items() if value is not None}}
