"""How a client provokes each failure of the catalogue that can be reached from outside, before a stream has begun.

The servers are those of ``tests/integration/conftest.py``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.models import chat, long_chat
from tests.support.server import RawStream, Server

from coterie.config import DEFAULT_MODEL

Body = Mapping[str, Any] | bytes

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"

NO_KEY = "no key"
"""An ``authorization`` that is left out."""


@contextlib.contextmanager
def _nothing(server: Server) -> Iterator[None]:
    yield


@dataclass(frozen=True)
class Case:
    """One way to fail: a request, and what its answer says."""

    name: str
    code: str
    body: Body | None = None
    param: str | None = None
    says: tuple[str, ...] = ()
    """Regular expressions for the message."""
    path: str = CHAT
    method: Literal["GET", "POST", "DELETE"] = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    server: Literal["server", "guarded"] = "server"
    situation: Callable[[Server], AbstractContextManager[None]] = _nothing
    """What is made of the server before."""
    rewrite: Callable[[bytes], bytes] | None = None
    """What becomes of the request's bytes on their way."""
    requests: int = 1
    """How many times an SDK sends it, with two retries."""

    @property
    def streams(self) -> tuple[bool, ...]:
        """With which values of ``stream`` it can be sent."""
        return (False, True) if self.path in (CHAT, COMPLETIONS) and self.method == "POST" else (False,)

    @property
    def own_words(self) -> tuple[str, ...]:
        """The caller's words that the message may repeat."""
        return (self.path, *self.headers.values())


def _bad(name: str, code: str, param: str | None, *says: str, **changes: Any) -> Case:
    """A chat request with something wrong in it."""
    return Case(name, code, chat(**changes), param, says)


def _raw(name: str, body: bytes, *says: str) -> Case:
    return Case(name, "invalid_json", body, None, ("could not parse the JSON body", *says))


def _without(name: str) -> dict[str, Any]:
    return {key: value for key, value in chat().items() if key != name}


def _user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def _picture(url: str) -> list[dict[str, Any]]:
    return _user([{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}])


def _tool(**function: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "look_up", **function}}]


def _schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def _with_member(member: bytes) -> bytes:
    return b'{"model": "%s", "messages": [{"role": "user", "content": "Hi"}], %s}' % (DEFAULT_MODEL.encode(), member)


@contextlib.contextmanager
def _slot_taken(server: Server, model: str) -> Iterator[None]:
    """The only slot of ``model`` is busy; short answers before make the delay that is computed a short one."""
    for _ in range(16):
        assert server.ask("POST", CHAT, chat(model, max_tokens=1)).status == 200
    with RawStream(server, CHAT, long_chat(model)) as stream:
        assert stream.events(1)
        yield
    server.wait_for(model, lambda engine: engine["running"] == 0)


def _never_complete(data: bytes) -> bytes:
    """The head announces a body that is a thousand times longer than it is."""
    return re.sub(rb"(?i)(content-length: *\d+)", rb"\g<1>000", data)


def _not_http(data: bytes) -> bytes:
    return data.replace(b" HTTP/1.1\r\n", b" HTTQ/1.1\r\n")


_BROKEN_BODIES = (
    _raw("empty", b""),
    _raw("cut off", b'{"model": "m", "messages": ['),
    _raw("no JSON", b"model=m"),
    _raw("single quotes", b"{'model': 'm'}"),
    _raw("trailing comma", b'{"model": "m",}'),
    _raw("two values", b'{"model": "m"} {}'),
    _raw("an array", b"[]", "expected an object, but got an array"),
    _raw("a string", b'"hi"', "expected an object, but got a string"),
    _raw("null", b"null", "expected an object, but got null"),
    _raw("NaN", _with_member(b'"temperature": NaN')),
    _raw("Infinity", _with_member(b'"temperature": Infinity')),
    _raw("1e400", _with_member(b'"temperature": 1e400')),
    _raw("lone surrogate", _with_member(rb'"user": "\ud800"')),
    _raw("not UTF-8", _with_member(b'"user": "\xff\xfe"')),
    _raw("NUL", _with_member(b'"user": "\x00"')),
    _raw("key twice", _with_member(b'"n": 1, "n": 2'), "the key 'n' is given twice"),
    _raw("key twice below", _with_member(b'"metadata": {"a": "1", "a": "2"}'), "the key 'a' is given twice"),
    _raw("arrays 1,000 deep", _with_member(b'"stop": ' + b"[" * 1000 + b"]" * 1000), "nesting deeper than 100"),
    _raw("objects 1,000 deep", _with_member(b'"metadata": ' + b'{"a":' * 1000 + b"1" + b"}" * 1000), "nesting"),
)

_BODIES = (
    Case("plain text", "unsupported_media_type", b"{}", None, ("'text/plain'",),
         headers={"content-type": "text/plain"}),
    Case("gzip", "unsupported_media_type", b"{}", None, ("gzip",), headers={"content-encoding": "gzip"}),
    Case("9 MB", "request_too_large", chat(messages=_user("a" * 9_000_000)), None, ("8388608 bytes",)),
    Case("body never complete", "request_timeout", chat(), None, (r"within 0\.5 seconds",), server="guarded",
         rewrite=_never_complete, requests=3),
    Case("not HTTP", "invalid_http_request", chat(), None, ("not valid HTTP",), server="guarded", rewrite=_not_http),
    Case("long header", "headers_too_large", chat(), None, ("8192 bytes",), server="guarded",
         headers={"x-long": "a" * 200_000}),
)  # fmt: skip

_PARAMETERS = (
    Case("no model", "missing_required_parameter", _without("model"), "model", ("parameter: 'model'",)),
    _bad("empty model", "missing_required_parameter", "model", model=""),
    _bad("null model", "missing_required_parameter", "model", model=None),
    Case("no messages", "missing_required_parameter", _without("messages"), "messages"),
    _bad("no content", "missing_required_parameter", "messages[0].content", messages=[{"role": "user"}]),
    _bad("no role", "missing_required_parameter", "messages[0].role", messages=[{"content": "Hi"}]),
    _bad("unknown field", "unknown_parameter", "temprature", "'temprature'", temprature=1),
    _bad("unknown field below", "unknown_parameter", "messages[0].txt", messages=[{**_user("Hi")[0], "txt": "Hi"}]),
    _bad("functions", "unsupported_parameter", "functions", "Use 'tools' instead", functions=[{"name": "f"}]),
    _bad("audio", "unsupported_parameter", "audio", audio={"voice": "alloy", "format": "wav"}),
    Case("dimensions", "unsupported_parameter", {"model": DEFAULT_MODEL, "input": "Hi", "dimensions": 64}, "dimensions",
         path=EMBEDDINGS),
    _bad("store", "unsupported_value", "store", store=True),
    _bad("custom tool", "unsupported_value", "tools[0].type", "'custom'",
         tools=[{"type": "custom", "custom": {"name": "f"}}]),
    _bad("sound", "unsupported_value", "messages[0].content[0].type", "'input_audio'",
         messages=_user([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}])),
    _bad("temperature as text", "invalid_type", "temperature", "expected a decimal, but got a string", temperature="1"),
    _bad("messages as text", "invalid_type", "messages", "expected an array, but got a string", messages="Hi"),
    _bad("content as number", "invalid_type", "messages[0].content", "but got an integer", messages=_user(1)),
    _bad("stream as text", "invalid_type", "max_tokens", "expected an integer, but got a boolean", max_tokens=True),
    _bad("wrong role", "invalid_value", "messages[0].role", "Supported values are: 'system'",
         messages=[{"role": "robot", "content": "Hi"}]),
    _bad("result without call", "invalid_value", "messages[0].role", "'tool_calls'",
         messages=[{"role": "tool", "tool_call_id": "call_1", "content": "1"}]),
    _bad("choice without tools", "invalid_value", "tool_choice", tool_choice="required"),
    _bad("token id too great", "invalid_value", "logit_bias.999999", logit_bias={"999999": 1}),
    _bad("both limits", "invalid_value", "max_tokens", max_completion_tokens=8),
    _bad("model of 5 MB", "string_above_max_length", "model", "length 5000000", model="m" * 5_000_000),
    _bad("empty function name", "string_below_min_length", "tools[0].function.name", tools=_tool(name="")),
    Case("empty prompt", "string_below_min_length", {"model": DEFAULT_MODEL, "prompt": ""}, "prompt", path=COMPLETIONS),
    Case("empty input", "string_below_min_length", {"model": DEFAULT_MODEL, "input": ["a", ""]}, "input[1]",
         path=EMBEDDINGS),
    _bad("10,000 messages", "array_above_max_length", "messages", "length 2048", "length 10000",
         messages=_user("Hi") * 10_000),
    _bad("five stops", "array_above_max_length", "stop", stop=["a", "b", "c", "d", "e"]),
    _bad("no message", "empty_array", "messages", messages=[]),
    _bad("17 labels", "object_above_max_properties", "metadata", metadata={f"k{i}": "v" for i in range(17)}),
    _bad("too many choices", "integer_above_max_value", "n", "<= 8", n=9),
    _bad("more than the context", "integer_above_max_value", "max_tokens", "<= 1024", max_tokens=1025),
    _bad("no choice", "integer_below_min_value", "n", n=0),
    _bad("no token", "integer_below_min_value", "max_tokens", max_tokens=0),
    _bad("too hot", "decimal_above_max_value", "temperature", "<= 2", temperature=2.5),
    _bad("too cold", "decimal_below_min_value", "temperature", ">= 0", temperature=-0.5),
    _bad("unknown keyword", "invalid_json_schema", "response_format.json_schema.schema.contains",
         response_format=_schema({"type": "array", "contains": {"type": "string"}})),
    _bad("no schema of an object", "invalid_function_parameters", "tools[0].function.parameters", "object",
         tools=_tool(parameters={"type": "string"})),
    _bad("long conversation", "context_length_exceeded", "messages", "maximum context length is 1024 tokens",
         r"resulted in [1-9]\d{3} tokens", messages=_user("one two three " * 700)),
    Case("long prompt", "context_length_exceeded", {"model": DEFAULT_MODEL, "prompt": "one two three " * 700}, "prompt",
         ("maximum context length is 1024 tokens",), COMPLETIONS),
    Case("long input", "context_length_exceeded", {"model": DEFAULT_MODEL, "input": "one two three " * 700}, "input",
         ("maximum context length is 1024 tokens",), EMBEDDINGS),
)  # fmt: skip

_URL = "messages[0].content[1].image_url.url"
_IMAGES = (
    _bad("broken base64", "invalid_base64", _URL, messages=_picture("data:image/png;base64,****")),
    _bad("no image", "invalid_base64", _URL, messages=_picture("data:image/png;base64,")),
    _bad("no URL", "invalid_image_url", _URL, messages=_picture("picture one")),
    _bad("a file's URL", "invalid_image_url", _URL, messages=_picture("file:///picture.png")),
    _bad("no picture", "invalid_image_format", _URL, messages=_picture("data:text/html;base64,AAAA")),
    _bad("no vision", "unsupported_value", "messages[0].content[1].type", "'image_url'",
         messages=_picture("data:image/png;base64,iVBORw0KGgo=")),
)  # fmt: skip

_ACCESS = (
    _bad("unknown model", "model_not_found", "model", "`no-such-model` does not exist", model="no-such-model"),
    Case("no such model", "model_not_found", None, "model", path="/v1/models/no-such-model", method="GET"),
    Case("no such model to embed", "model_not_found", {"model": "none", "input": "Hi"}, "model", path=EMBEDDINGS),
    Case("wrong key", "invalid_api_key", chat(), None, ("Incorrect API key",), server="guarded",
         headers={"authorization": "Bearer wrong-key"}),
    Case("no key", "invalid_api_key", chat(), None, ("didn't provide an API key",), server="guarded",
         headers={"authorization": NO_KEY}),
    Case("other scheme", "invalid_api_key", chat(), None, ("didn't provide an API key",), server="guarded",
         headers={"authorization": "Basic YTpi"}),
    Case("unknown path", "not_found", chat(), None, (r"Invalid URL \(POST ",), path="/v1/chat/completion"),
    Case("GET", "method_not_allowed", None, None, ("Not allowed to GET",), method="GET"),
    Case("DELETE", "method_not_allowed", None, None, ("Not allowed to DELETE",), path="/v1/models", method="DELETE"),
)  # fmt: skip

_SERVICE = (
    Case("damaged model", "model_load_failed", chat("damaged"), None, ("`damaged` could not be loaded",)),
    Case("late first token", "engine_timeout", chat("late"), None, (r"within 0\.001 seconds",), requests=3),
    Case("queue full", "server_is_overloaded", chat("single"), None, (r"try again in \d+s",),
         situation=lambda server: _slot_taken(server, "single"), requests=3),
    Case("waited too long", "server_is_overloaded", chat("impatient"), None, (r"try again in \d+s",),
         situation=lambda server: _slot_taken(server, "impatient"), requests=3),
)  # fmt: skip

CASES = (*_BROKEN_BODIES, *_BODIES, *_PARAMETERS, *_IMAGES, *_ACCESS, *_SERVICE)
"""All of them; names differ."""
