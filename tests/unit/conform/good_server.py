"""A server that keeps every rule of the chat, Responses and conversation APIs, small and without a socket.

It says the same to everybody, remembers what it is told to, and can be asked through :class:`GoodSite`, whose ``spoil``
changes answers on their way, so that exactly one rule is broken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import orjson

from coterie.conform.check import GROUPS, Site
from coterie.conform.exchange import Client, Reply, Target
from coterie.conform.run import checks_of

HEADERS = {"content-type": "application/json", "x-request-id": "req_1"}
Spoil = Callable[[Reply], Reply]
Json = dict[str, Any]


class Refusal(Exception):  # noqa: N818 - it is an answer
    """An error to answer."""

    def __init__(self, status: int, param: str | None = None, code: str = "invalid_value") -> None:
        self.status = status
        self.error = {"message": "No.", "type": "invalid_request_error", "param": param, "code": code}
        super().__init__(code)


def error_body(status: int, param: str | None, code: str) -> bytes:
    return orjson.dumps({"error": Refusal(status, param, code).error})


def frame(event: Json) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event["type"].encode(), orjson.dumps(event))


def usage_of(tokens: int, out: int) -> Json:
    return {
        "input_tokens": tokens, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": out, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": tokens + out,
    }  # fmt: skip


def item_events(item: Json, index: int) -> Iterator[Json]:
    """The events of one item, from added to done."""
    place = {"item_id": item["id"], "output_index": index}
    empty: Json = {"content": []} if item["type"] == "message" else {"arguments": ""}
    yield {"type": "response.output_item.added", "output_index": index,
           "item": {**item, **empty, "status": "in_progress"}}  # fmt: skip
    if item["type"] == "message":
        part = item["content"][0]
        at = {**place, "content_index": 0}
        yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
        for letter in part["text"]:
            yield {"type": "response.output_text.delta", **at, "delta": letter, "logprobs": []}
        yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **at, "part": part}
    else:
        fields = {"name": item["name"], "arguments": item["arguments"]}
        yield {"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]}
        yield {"type": "response.function_call_arguments.done", **place, **fields}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def events_of(response: Json) -> list[Json]:
    """The stream that ends with ``response``."""
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None,
             "completed_at": None}  # fmt: skip
    events: list[Json] = [{"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")]
    for index, item in enumerate(response["output"]):
        events += item_events(item, index)
    events.append({"type": f"response.{response['status']}", "response": response})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


@dataclass
class Kept:
    """A stored response."""

    response: Json
    items: list[Json]
    cancelled: bool = False


@dataclass
class GoodServer:
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    kept: dict[str, Kept] = field(default_factory=dict)
    conversations: dict[str, Json] = field(default_factory=dict)
    items: dict[str, list[Json]] = field(default_factory=dict)

    def new(self, prefix: str) -> str:
        return f"{prefix}_{next(self.numbers)}"

    def answer(self, method: str, path: str, body: Json) -> tuple[int, str, bytes]:
        """Status, content-type and body."""
        try:
            value = self.route(method, path, body)
        except Refusal as refusal:
            return refusal.status, "application/json", orjson.dumps({"error": refusal.error})
        if isinstance(value, bytes):
            return 200, "text/event-stream", value
        return 200, "application/json", orjson.dumps(value)

    def route(self, method: str, path: str, body: Json) -> Json | bytes:
        path, _, query = path.partition("?")
        for pattern, handler in ROUTES.items():
            match = re.fullmatch(pattern, f"{method} {path}")
            if match:
                return handler(self, match.groups(), query, body)
        raise Refusal(404)

    # Chat

    def models(self, at: tuple[str, ...], query: str, body: Json) -> Json:
        card = {"id": "m", "object": "model", "created": 1, "owned_by": "us"}
        return card if at else {"object": "list", "data": [card]}

    def chat(self, at: tuple[str, ...], query: str, body: Json) -> Json | bytes:
        reason = "stop"
        delta: Json = {"content": "Hello"}
        if "tools" in body:
            call = {"id": "call_1", "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'}}  # fmt: skip
            delta, reason = {"content": None, "tool_calls": [call]}, "tool_calls"
        elif "response_format" in body:
            delta = {"content": '{"answer":"yes"}'}
        elif body["max_tokens"] == 3:
            reason = "length"
        head = {"id": "chatcmpl-1", "created": 1, "model": "m"}
        usage = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
        numbers = range(body.get("n", 1))
        if not body.get("stream"):
            choices = [
                {"index": i, "message": {"role": "assistant", **delta}, "finish_reason": reason} for i in numbers
            ]
            return {**head, "object": "chat.completion", "choices": choices, "usage": usage}
        if "tool_calls" in delta:
            delta = {"tool_calls": [{"index": 0, **delta["tool_calls"][0]}]}
        chunks: list[Json] = []
        for i in numbers:
            chunks += [
                {"choices": [{"index": i, "delta": {"role": "assistant", **delta}, "finish_reason": None}]},
                {"choices": [{"index": i, "delta": {}, "finish_reason": reason}]},
            ]
        if body.get("stream_options"):
            chunks.append({"choices": [], "usage": usage})
        made = [{**head, "object": "chat.completion.chunk", **chunk} for chunk in chunks]
        return b"".join(b"data: %s\n\n" % orjson.dumps(chunk) for chunk in made) + b"data: [DONE]\n\n"

    # Responses

    def create(self, at: tuple[str, ...], query: str, body: Json) -> Json | bytes:
        said = self.items_in(body["input"])
        history = self.history(body)
        response = self.response(body, len(orjson.dumps([*history, *said])) // 4)
        if body.get("store", True):
            self.kept[response["id"]] = Kept(response, said)
        if body.get("conversation"):
            self.items[body["conversation"]] += [*said, *response["output"]]
        if body.get("stream"):
            return b"".join(map(frame, events_of(response))) + b"data: [DONE]\n\n"
        if body.get("background"):
            return self.begun(response)
        return response

    def begun(self, response: Json) -> Json:
        return {**response, "status": "queued", "output": [], "usage": None, "completed_at": None,
                "incomplete_details": None}  # fmt: skip

    def items_in(self, given: Any) -> list[Json]:
        if isinstance(given, str):
            given = [{"role": "user", "content": given}]
        items = []
        for item in given:
            content = item.get("content")
            parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
            fields = {"content": parts} if content is not None else {}
            items.append({"id": self.new("msg"), "type": "message", "status": "completed", **item, **fields})
        return items

    def history(self, body: Json) -> list[Json]:
        if body.get("conversation"):
            return self.items[self.found(self.conversations, body["conversation"])]
        given = body.get("previous_response_id")
        if given is None:
            return []
        if given not in self.kept:
            raise Refusal(404, "previous_response_id", "previous_response_not_found")
        return [*self.kept[given].items, *self.kept[given].response["output"]]

    def response(self, body: Json, tokens: int) -> Json:
        cut = body["max_output_tokens"] == 16 and str(body["input"]).startswith("Count")
        forced = isinstance(body.get("tool_choice"), dict) and body["tool_choice"]["type"] == "function"
        text = '{"answer":"yes"}' if body.get("text", {}).get("format") else "Hello"
        status = "incomplete" if cut else "completed"
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        item: Json = {
            "type": "message",
            "id": self.new("msg"),
            "status": status,
            "role": "assistant",
            "content": [part],
        }
        if forced:
            item = {"type": "function_call", "id": self.new("fc"), "call_id": "call_1", "name": "get_weather",
                    "arguments": '{"city":"Rome"}', "status": status}  # fmt: skip
        given = body.get("conversation")
        return {
            "id": self.new("resp"), "object": "response", "created_at": 1, "completed_at": None if cut else 2,
            "status": status, "incomplete_details": {"reason": "max_output_tokens"} if cut else None, "error": None,
            "model": "m", "output": [item], "usage": usage_of(tokens, 16 if cut else 2),
            **{name: body.get(name, default) for name, default in DEFAULTS.items()},
            **({"conversation": {"id": given}} if given else {}),
        }  # fmt: skip

    def found(self, among: Mapping[str, Any], given: str) -> str:
        if given not in among:
            raise Refusal(404)
        return given

    def get(self, at: tuple[str, ...], query: str, body: Json) -> Json | bytes:
        kept = self.kept[self.found(self.kept, at[0])]
        after = re.search(r"starting_after=(-?\d+)", query)
        if "stream=true" in query:
            events = events_of(kept.response)[int(after[1]) + 1 if after else 0 :]
            return b"".join(map(frame, events)) + b"data: [DONE]\n\n"
        return {**kept.response, "status": "cancelled", "incomplete_details": None} if kept.cancelled else kept.response

    def delete(self, at: tuple[str, ...], query: str, body: Json) -> Json:
        del self.kept[self.found(self.kept, at[0])]
        return {"id": at[0], "object": "response", "deleted": True}

    def cancel(self, at: tuple[str, ...], query: str, body: Json) -> Json:
        kept = self.kept[self.found(self.kept, at[0])]
        if not kept.response["background"]:
            raise Refusal(400)
        kept.cancelled = True
        return {**kept.response, "status": "cancelled", "incomplete_details": None}

    def input_items(self, at: tuple[str, ...], query: str, body: Json) -> Json:
        return page(self.kept[self.found(self.kept, at[0])].items)

    def input_tokens(self, at: tuple[str, ...], query: str, body: Json) -> Json:
        return {"object": "response.input_tokens", "input_tokens": len(body["input"])}

    def compact(self, at: tuple[str, ...], query: str, body: Json) -> Json:
        item = {"type": "compaction", "id": self.new("cmp"), "encrypted_content": "x"}
        return {"id": self.new("resp"), "object": "response.compaction", "created_at": 1, "output": [item],
                "usage": usage_of(4, 2)}  # fmt: skip

    # Conversations

    def new_conversation(self, at: tuple[str, ...], query: str, body: Json) -> Json:
        given = self.new("conv")
        self.conversations[given] = {"id": given, "object": "conversation", "created_at": 1,
                                     "metadata": body["metadata"]}  # fmt: skip
        self.items[given] = self.items_in(body["items"])
        return self.conversations[given]

    def conversation(self, at: tuple[str, ...], query: str, body: Json) -> Json:
        known = self.conversations[self.found(self.conversations, at[0])]
        known.update(body)
        return known

    def end_conversation(self, at: tuple[str, ...], query: str, body: Json) -> Json:
        del self.conversations[self.found(self.conversations, at[0])]
        return {"id": at[0], "object": "conversation.deleted", "deleted": True}

    def conversation_items(self, at: tuple[str, ...], query: str, body: Json) -> Json:
        known = self.items[self.found(self.conversations, at[0])]
        added = self.items_in(body.get("items", []))
        known += added
        shown = added or known
        return page(shown[:1], more=len(shown) > 1) if "limit=1" in query.split("&") else page(shown)

    def conversation_item(self, at: tuple[str, ...], query: str, body: Json) -> Json:
        known = {item["id"]: item for item in self.items[self.found(self.conversations, at[0])]}
        found: Json = known[self.found(known, at[1])]
        return found

    def end_item(self, at: tuple[str, ...], query: str, body: Json) -> Json:
        item = self.conversation_item(at, query, body)
        self.items[at[0]].remove(item)
        return self.conversations[at[0]]


def page(items: list[Json], *, more: bool = False) -> Json:
    ends = {"first_id": items[0]["id"] if items else None, "last_id": items[-1]["id"] if items else None}
    return {"object": "list", "data": items, "has_more": more, **ends}


Handler = Callable[[GoodServer, tuple[str, ...], str, Json], Json | bytes]
ROUTES: dict[str, Handler] = {
    r"GET /models": GoodServer.models,
    r"GET /models/(m)": GoodServer.models,
    r"POST /chat/completions": GoodServer.chat,
    r"POST /responses": GoodServer.create,
    r"POST /responses/input_tokens": GoodServer.input_tokens,
    r"POST /responses/compact": GoodServer.compact,
    r"GET /responses/(\w+)": GoodServer.get,
    r"DELETE /responses/(\w+)": GoodServer.delete,
    r"POST /responses/(\w+)/cancel": GoodServer.cancel,
    r"GET /responses/(\w+)/input_items": GoodServer.input_items,
    r"POST /conversations": GoodServer.new_conversation,
    r"(?:GET|POST) /conversations/(\w+)": GoodServer.conversation,
    r"DELETE /conversations/(\w+)": GoodServer.end_conversation,
    r"(?:GET|POST) /conversations/(\w+)/items": GoodServer.conversation_items,
    r"GET /conversations/(\w+)/items/(\w+)": GoodServer.conversation_item,
    r"DELETE /conversations/(\w+)/items/(\w+)": GoodServer.end_item,
}
DEFAULTS: Json = {
    "previous_response_id": None, "instructions": None, "tools": [], "tool_choice": "auto", "truncation": "disabled",
    "parallel_tool_calls": True, "text": {"format": {"type": "text"}}, "top_p": 1, "presence_penalty": 0,
    "frequency_penalty": 0, "top_logprobs": 0, "temperature": 1, "reasoning": None, "max_output_tokens": None,
    "max_tool_calls": None, "store": True, "background": False, "service_tier": "default", "metadata": {},
    "safety_identifier": None, "prompt_cache_key": None,
}  # fmt: skip


class GoodSite(Site):
    """Asks a good server, and lets ``spoil`` change what it answers."""

    def __init__(self, spoil: Spoil = lambda reply: reply, key: str | None = None) -> None:
        super().__init__(Client(Target("http://127.0.0.1:1", "m", key), timeout_s=1))
        self.server = GoodServer()
        self.spoil = spoil

    async def ask(self, method: str, path: str, body: bytes | Mapping[str, Any] | None = None, **how: Any) -> Reply:
        assert not isinstance(body, bytes)
        status, content_type, data = self.server.answer(method, path, dict(body or {}))
        until = how.get("until")
        while until is not None and until(data[: data.rfind(b"\n\n", 0, -2) + 2]):
            data = data[: data.rfind(b"\n\n", 0, -2) + 2]
        sent = orjson.dumps(body) if body is not None else b""
        headers = {**HEADERS, "content-type": content_type}
        return self.spoil(Reply(method, path, sent, status, headers, data))


def edited(reply: Reply, change: Callable[[Any], Any]) -> Reply:
    """A reply whose JSON body is changed."""
    value = reply.json
    changed = change(value)
    return replace(reply, body=orjson.dumps(value if changed is None else changed))


async def found_by(name: str, spoil: Spoil = lambda reply: reply) -> set[str]:
    """The rules that the check ``name`` finds broken at a good server whose answers are spoilt. Raises ``Skip``."""
    [check] = [check for check in checks_of(GROUPS) if check.id == name]
    return {failure.rule for failure in await check.run(GoodSite(spoil))}


def spoilt(method: str, path: str, change: Callable[[Any], Any]) -> Spoil:
    """Changes the JSON of the answers to ``method`` and a path that matches the pattern ``path``."""

    def spoil(reply: Reply) -> Reply:
        asked = reply.method == method and re.fullmatch(path, reply.path) and reply.status == 200
        return edited(reply, change) if asked else reply

    return spoil


def replaced(old: bytes, new: bytes, times: int = -1) -> Spoil:
    """Changes bytes of every stream."""

    def spoil(reply: Reply) -> Reply:
        stream = reply.content_type == "text/event-stream"
        return replace(reply, body=reply.body.replace(old, new, times)) if stream else reply

    return spoil


def put(*path: str | int, value: Any = ...) -> Callable[[Any], None]:
    """Sets what stands at ``path`` in a JSON value; without a value, takes it away."""

    def change(holder: Any) -> None:
        for step in path[:-1]:
            holder = holder[step]
        if value is ...:
            del holder[path[-1]]
        else:
            holder[path[-1]] = value

    return change
