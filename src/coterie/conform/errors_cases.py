"""Requests that must fail, as data: what each sends, and the error that it should get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from coterie.conform.check import CONTRACT, HTTP, OPENAI
from coterie.conform.judging import Wanted

_CHAT: Final = "/chat/completions"
_RESPONSES: Final = "/responses"

_BAD: Final = (400, 422)
"""A request that is wrong in itself; the SDKs do not repeat either."""
_UNKNOWN_ID: Final = (404,)
_UNKNOWN_IN_BODY: Final = (400, 404)
"""OpenAI has answered both for an id in a body."""
_NO_METHOD: Final = (404, 405)
"""RFC 9110 asks no server to tell a path that it has not from one that it has for other methods."""

GOOD: Final[Mapping[str, Mapping[str, Any]]] = {
    _CHAT: {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8},
    _RESPONSES: {"input": "Say hello.", "max_output_tokens": 16, "store": False},
    "/completions": {"prompt": "Hello", "max_tokens": 8},
    "/embeddings": {"input": "Hello"},
}
"""A good request to each route, without its model."""


@dataclass(frozen=True, slots=True)
class Case:
    """A request that must fail. ``changes`` are made to the route's good body; ``raw`` is sent as it is instead.

    ``optional``: a server may just as well read it, so an answer of 200 is no failure.
    """

    id: str
    says: str
    path: str
    wanted: Wanted
    changes: Mapping[str, Any] | None = None
    raw: bytes | None = None
    method: str = "POST"
    source: str = OPENAI
    content_type: str | None = None
    optional: bool = False
    streamed: bool = False

    def body(self, model: str) -> bytes | Mapping[str, Any] | None:
        """What is sent. A change to ``...`` leaves a field out."""
        if self.raw is not None or self.changes is None:
            return self.raw
        streamed = {"stream": True} if self.streamed else {}
        merged = {"model": model, **GOOD.get(self.path, {}), **streamed, **self.changes}
        return {name: value for name, value in merged.items() if value is not ...}


def _routes() -> Iterator[Case]:
    """What is wrong with the path or the method."""
    unknown = Wanted(_UNKNOWN_ID)
    source = f"{HTTP}; {CONTRACT}"
    yield Case("path.get", "an unknown path is 404", "/no/such/path", unknown, method="GET", source=source)
    yield Case("path.post", "an unknown path is 404", "/no/such/path", unknown, changes={}, source=source)
    for method, path in (("PUT", _CHAT), ("PUT", _RESPONSES), ("GET", "/embeddings"), ("POST", "/models")):
        name = f"method.{method.lower()}{path.replace('/', '-')}"
        yield Case(name, f"{method} {path} is 405 or 404", path, Wanted(_NO_METHOD), method=method, source=source)
    yield Case(
        "model.retrieve", "an unknown model is 404", "/models/no-such-model", unknown, method="GET", source=source
    )
    for method, path in (
        ("GET", "/responses/resp_nosuchresponse"), ("DELETE", "/responses/resp_nosuchresponse"),
        ("POST", "/responses/resp_nosuchresponse/cancel"), ("GET", "/responses/resp_nosuchresponse/input_items"),
        ("GET", "/responses/resp_nosuchresponse?stream=true"), ("GET", "/conversations/conv_nosuchconversation"),
        ("DELETE", "/conversations/conv_nosuchconversation"), ("GET", "/conversations/conv_nosuchconversation/items"),
    ):  # fmt: skip
        name = f"id.{method.lower()}{path.replace('/', '-').replace('?', '-').replace('=', '-')}"
        yield Case(name, "an id that nothing has is 404", path, unknown, method=method, source=source)


def _bodies() -> Iterator[Case]:
    """What is no JSON object."""
    for path in (_CHAT, _RESPONSES, "/embeddings"):
        end = path.replace("/", "-")
        for name, raw in (
            ("broken", b'{"model": '), ("empty", b""), ("array", b"[]"), ("number", b"1"), ("null", b"null"),
            ("encoding", b'{"model": "\xff"}'), ("text", b"hello"),
        ):  # fmt: skip
            yield Case(f"json.{name}{end}", "a body that is no JSON object is 400", path, Wanted(_BAD), raw=raw)
        yield Case(
            f"content-type{end}", "a body of another type than JSON is refused, or read as JSON", path,
            Wanted((400, 415, 422)), changes={}, content_type="text/plain", optional=True, source=CONTRACT,
        )  # fmt: skip


def _models() -> Iterator[Case]:
    for path in (_CHAT, _RESPONSES, "/completions", "/embeddings"):
        end = path.replace("/", "-")
        named = Wanted(_BAD, ("model",))
        needed = CONTRACT if path == _RESPONSES else OPENAI  # a prompt template may bring one
        yield Case(f"model.missing{end}", "'model' is required", path, named, changes={"model": ...}, source=needed)
        yield Case(f"model.type{end}", "'model' is a string", path, named, changes={"model": 7})
        statuses = _UNKNOWN_IN_BODY if path == _RESPONSES else _UNKNOWN_ID
        wanted = Wanted(statuses, codes=("model_not_found",))
        yield Case(
            f"model.unknown{end}", "an unknown model is named so", path, wanted, changes={"model": "no-such"},
            source=CONTRACT,
        )  # fmt: skip


_WRONG_CHAT: Final[tuple[tuple[str, str, str, Mapping[str, Any]], ...]] = (
    ("messages.missing", "'messages' is required", "messages", {"messages": ...}),
    ("messages.empty", "'messages' has at least one", "messages", {"messages": []}),
    ("messages.type", "'messages' is an array", "messages", {"messages": "Hello"}),
    ("messages.item", "a message is an object", "messages[0]", {"messages": ["Hello"]}),
    ("role.enum", "a role is one of the six", "messages[0]", {"messages": [{"role": "tooool", "content": "a"}]}),
    ("content.type", "content is a string or parts", "messages[0].content",
     {"messages": [{"role": "user", "content": 7}]}),
    ("part.enum", "a part has a known type", "messages[0].content[0]",
     {"messages": [{"role": "user", "content": [{"type": "smell", "smell": "x"}]}]}),
    ("temperature.above", "temperature is at most 2", "temperature", {"temperature": 9}),
    ("temperature.below", "temperature is at least 0", "temperature", {"temperature": -1}),
    ("temperature.type", "temperature is a number", "temperature", {"temperature": "hot"}),
    ("top_p.above", "top_p is at most 1", "top_p", {"top_p": 7}),
    ("max_tokens.below", "max_tokens is not negative", "max_tokens", {"max_tokens": -1}),
    ("n.below", "n is at least 1", "n", {"n": 0}),
    ("n.type", "n is an integer", "n", {"n": "two"}),
    ("top_logprobs.above", "top_logprobs is at most 20", "top_logprobs", {"logprobs": True, "top_logprobs": 99}),
    ("stop.type", "stop is a string or an array", "stop", {"stop": {"a": 1}}),
    ("tools.type", "tools is an array", "tools", {"tools": "look"}),
    ("tools.name", "a function has a name", "tools[0]", {"tools": [{"type": "function", "function": {}}]}),
    ("tool_choice.enum", "tool_choice is none, auto, required or a tool", "tool_choice", {"tool_choice": "maybe"}),
    ("response_format.enum", "response_format has a known type", "response_format",
     {"response_format": {"type": "yaml"}}),
    ("response_format.schema", "json_schema has a name and a schema", "response_format",
     {"response_format": {"type": "json_schema"}}),
)  # fmt: skip
"""Name, words, param, changes."""

_WRONG_RESPONSES: Final[tuple[tuple[str, str, str, Mapping[str, Any]], ...]] = (
    ("input.type", "input is a string or items", "input", {"input": 7}),
    ("input.item", "an item is an object", "input[0]", {"input": ["Hello"]}),
    ("item.enum", "an item has a known type", "input[0]", {"input": [{"type": "smell"}]}),
    ("role.enum", "a role is a known one", "input[0]", {"input": [{"role": "tooool", "content": "a"}]}),
    ("content.type", "content is a string or parts", "input[0].content", {"input": [{"role": "user", "content": 7}]}),
    ("part.enum", "a part has a known type", "input[0].content[0]",
     {"input": [{"role": "user", "content": [{"type": "smell"}]}]}),
    ("temperature.above", "temperature is at most 2", "temperature", {"temperature": 9}),
    ("temperature.type", "temperature is a number", "temperature", {"temperature": "hot"}),
    ("top_p.above", "top_p is at most 1", "top_p", {"top_p": 7}),
    ("max_output_tokens.below", "max_output_tokens is not negative", "max_output_tokens", {"max_output_tokens": -1}),
    ("max_output_tokens.type", "max_output_tokens is an integer", "max_output_tokens", {"max_output_tokens": "ten"}),
    ("top_logprobs.above", "top_logprobs is at most 20", "top_logprobs", {"top_logprobs": 99}),
    ("truncation.enum", "truncation is auto or disabled", "truncation", {"truncation": "sometimes"}),
    ("metadata.type", "metadata is an object", "metadata", {"metadata": "x"}),
    ("metadata.value", "metadata's values are strings", "metadata", {"metadata": {"a": {"b": 1}}}),
    ("tools.type", "a tool has a known type", "tools[0]", {"tools": [{"type": "smell"}]}),
    ("tools.name", "a function has a name", "tools[0]", {"tools": [{"type": "function"}]}),
    ("tool_choice.enum", "tool_choice is none, auto, required or a tool", "tool_choice", {"tool_choice": "maybe"}),
    ("text.format", "text.format has a known type", "text.format", {"text": {"format": {"type": "yaml"}}}),
    ("response_format", "response_format is the chat API's: here it is text.format", "response_format",
     {"response_format": {"type": "json_object"}}),
    ("messages", "messages is the chat API's: here it is input", "messages",
     {"messages": [{"role": "user", "content": "Hello"}]}),
    ("orphan", "a function_call_output has its function_call", "input",
     {"input": [{"type": "function_call_output", "call_id": "call_nosuchcall", "output": "1"}]}),
    ("both", "previous_response_id goes without conversation", "",
     {"previous_response_id": "resp_nosuchresponse", "conversation": "conv_nosuchconversation"}),
    ("background", "a background response is stored", "", {"background": True, "store": False}),
    ("include.enum", "include has known values", "include", {"include": ["smell"]}),
)  # fmt: skip


_PRACTICE: Final = frozenset({
    "chat.max_tokens.below", "responses.response_format", "responses.messages", "responses.orphan",
    "responses.background",
})  # fmt: skip
"""What the specification's schemas allow, and OpenAI refuses."""


def _parameters() -> Iterator[Case]:
    """What is wrong with a field."""
    for path, prefix, rows in ((_CHAT, "chat", _WRONG_CHAT), (_RESPONSES, "responses", _WRONG_RESPONSES)):
        for name, says, param, changes in rows:
            wanted = Wanted((*_BAD, *_UNKNOWN_ID) if name == "both" else _BAD, (param,) if param else ())
            source = CONTRACT if f"{prefix}.{name}" in _PRACTICE else OPENAI
            yield Case(f"{prefix}.{name}", says, path, wanted, changes=changes, source=source)
        # Whoever waits for the answer in one piece must not be answered in events, nor the other way round.
        yield Case(
            f"{prefix}.stream.type", "stream is true or false", path, Wanted(_BAD, ("stream",)),
            changes={"stream": "perhaps"},
        )  # fmt: skip
    unknown_response = Wanted(_UNKNOWN_IN_BODY, ("previous_response_id",), ("previous_response_not_found",))
    yield Case(
        "responses.previous_response_id", "an unknown previous_response_id is named so", _RESPONSES, unknown_response,
        changes={"previous_response_id": "resp_nosuchresponse"}, source=CONTRACT,
    )  # fmt: skip
    yield Case(
        "responses.conversation", "an unknown conversation is refused", _RESPONSES, Wanted(_UNKNOWN_IN_BODY),
        changes={"conversation": "conv_nosuchconversation"}, source=CONTRACT,
    )  # fmt: skip
    yield Case(
        "conversations.items", "items is an array", "/conversations", Wanted(_BAD, ("items",)),
        raw=b'{"items": "x"}',
    )  # fmt: skip


def _cases() -> Iterator[Case]:
    yield from _routes()
    yield from _bodies()
    for case in (*_models(), *_parameters()):
        yield case
        if case.path in (_CHAT, _RESPONSES) and ".stream." not in case.id:
            says = f"{case.says}; a stream's failure before its first event is an HTTP error too"
            source = case.source if CONTRACT in case.source else f"{case.source}; {CONTRACT}"
            yield replace(case, id=f"{case.id}.streamed", says=says, streamed=True, source=source)


CASES: Final = tuple(_cases())
"""Every one."""
