"""What this server itself refuses of a request for a response: at once, as an HTTP error, without a trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from tests.support.leaks import MARKER, assert_clean
from tests.support.response_client import (
    CONVERSATIONS,
    RESPONSES,
    begins,
    begun,
    configured,
    create,
    ended,
    get,
    nothing_stored,
    respond,
    stream,
)
from tests.support.server import Answer, Server, serving

from coterie.testbed.upstream import FaultyUpstream

ONE, TWO = ({"authorization": f"Bearer {MARKER}-key-of-{who}"} for who in ("one", "two"))
MODELS: Final = {"ok": "ok", "slow": "ok:tokens=100000:rate=50"}
CALLER: Final = "invalid_request_error"

_TOP: Final = f"""
[server]
api_keys = ["{MARKER}-key-of-one", "{MARKER}-key-of-two"]
"""
_TABLES: Final = """
[responses]
background = 1
background_queue = 1
"""


@pytest.fixture(scope="module", name="keyed")
def _keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two keys, where one response runs in the background and one waits."""
    with FaultyUpstream(models=MODELS) as upstream:
        config = configured((upstream.base_url, MODELS), top=_TOP, tables=_TABLES)
        with serving(tmp_path_factory.mktemp(f"{MARKER}-keyed"), config) as running:
            yield running


@dataclass(frozen=True)
class Case:
    """A body with something wrong in it, and what is said of it."""

    name: str
    code: str
    param: str | None
    changes: Mapping[str, Any] = field(default_factory=dict)
    status: int = 400
    without: str = ""


_NOBODY: Final = "resp_" + "0" * 48
_NOWHERE: Final = "conv_" + "0" * 48
_OUTPUT: Final = {"type": "function_call_output", "call_id": "call_1", "output": "1"}
_MESSAGES: Final = [{"role": "user", "content": "Hi"}]

CASES: Final = (
    Case("unknown model", "model_not_found", "model", {"model": "no-such"}, 404),
    Case("no model", "missing_required_parameter", "model", without="model"),
    Case("empty model", "missing_required_parameter", "model", {"model": ""}),
    Case("null model", "missing_required_parameter", "model", {"model": None}),
    Case("model is no text", "invalid_type", "model", {"model": 7}),
    Case("unknown earlier response", "previous_response_not_found", "previous_response_id",
         {"previous_response_id": _NOBODY}, 404),
    Case("earlier response that cannot be", "previous_response_not_found", "previous_response_id",
         {"previous_response_id": "x\u0000'; --"}, 404),
    Case("unknown conversation", "conversation_not_found", "conversation", {"conversation": _NOWHERE}, 404),
    Case("unknown conversation as an object", "conversation_not_found", "conversation",
         {"conversation": {"id": _NOWHERE}}, 404),
    Case("both", "invalid_value", "previous_response_id", {"previous_response_id": _NOBODY, "conversation": _NOWHERE}),
    Case("empty input", "invalid_value", "input", {"input": []}),
    Case("no input", "missing_required_parameter", "input", without="input"),
    Case("orphan output", "invalid_value", "input[0].call_id", {"input": [_OUTPUT]}),
    Case("unknown reference", "item_reference_not_found", "input[0].id",
         {"input": [{"type": "item_reference", "id": "msg_0"}]}, 404),
    Case("chat's messages", "unknown_parameter", "messages", {"messages": _MESSAGES}),
    Case("chat's format", "unknown_parameter", "response_format", {"response_format": {"type": "json_object"}}),
    Case("chat's limit", "unknown_parameter", "max_tokens", {"max_tokens": 8}),
    Case("unknown field", "unknown_parameter", "temprature", {"temprature": 1}),
    Case("hosted tool", "unsupported_value", "tools[0].type", {"tools": [{"type": "web_search"}]}),
    Case("stored prompt", "unsupported_parameter", "prompt", {"prompt": {"id": "pmpt_1"}}),
    Case("too hot", "decimal_above_max_value", "temperature", {"temperature": 2.5}),
    Case("no token", "integer_below_min_value", "max_output_tokens", {"max_output_tokens": 0}),
    Case("schema that is none", "invalid_type", "text.format.schema",
         {"text": {"format": {"type": "json_schema", "name": "a", "schema": "object"}}}),
)  # fmt: skip

WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "plain": {}, "stream": {"stream": True}, "background": {"background": True},
    "background stream": {"background": True, "stream": True}, "not stored": {"store": False},
}  # fmt: skip


def _check(answer: Answer, status: int, code: str, param: str | None, *own_words: str) -> None:
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    error = answer.json["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (answer.status, error["type"], error["code"], error["param"]) == (status, CALLER, code, param)
    assert_clean(error["message"], own_words)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_request(keyed: Server, case: Case, way: str) -> None:
    body: dict[str, Any] = {key: value for key, value in respond("ok").items() if key != case.without}
    with nothing_stored(keyed):
        answer = keyed.ask("POST", RESPONSES, {**body, **case.changes, **WAYS[way]}, ONE)
    _check(answer, case.status, case.code, case.param)


@pytest.mark.parametrize(
    ("raw", "kind", "status", "code"),
    [
        (b"", "application/json", 400, "invalid_json"),
        (b'{"model": "ok", "input": ', "application/json", 400, "invalid_json"),
        (b"[]", "application/json", 400, "invalid_json"),
        (b"null", "application/json", 400, "invalid_json"),
        (b'{"input": ' + b"[" * 1000 + b"]" * 1000 + b"}", "application/json", 400, "invalid_json"),
        (b'{"model": "ok", "input": "' + b"a" * 9_000_000 + b'"}', "application/json", 413, "request_too_large"),
        (b'{"model": "ok", "input": "Hi"}', "text/plain", 415, "unsupported_media_type"),
    ],
    ids=["empty", "cut", "array", "null", "deep", "large", "text"],
)
def test_a_body_that_is_none(keyed: Server, raw: bytes, kind: str, status: int, code: str) -> None:
    with nothing_stored(keyed):
        answer = keyed.ask("POST", RESPONSES, raw, {**ONE, "content-type": kind})
    _check(answer, status, code, None, kind)


ROUTES: Final = (
    ("POST", RESPONSES), ("GET", f"{RESPONSES}/{_NOBODY}"), ("DELETE", f"{RESPONSES}/{_NOBODY}"),
    ("POST", f"{RESPONSES}/{_NOBODY}/cancel"), ("GET", f"{RESPONSES}/{_NOBODY}/input_items"),
    ("POST", f"{RESPONSES}/compact"), ("POST", f"{RESPONSES}/input_tokens"), ("POST", CONVERSATIONS),
    ("GET", f"{CONVERSATIONS}/{_NOWHERE}"), ("GET", f"{CONVERSATIONS}/{_NOWHERE}/items"),
)  # fmt: skip


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong-key"}], ids=["no key", "wrong key"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_key(keyed: Server, method: str, path: str, headers: Mapping[str, str]) -> None:
    answer = keyed.ask(method, path, respond("ok") if method == "POST" else None, headers)
    _check(answer, 401, "invalid_api_key", None)
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", RESPONSES, 405, "method_not_allowed"),
        ("PATCH", f"{RESPONSES}/{_NOBODY}", 405, "method_not_allowed"),
        ("GET", f"{RESPONSES}/{_NOBODY}/cancel", 405, "method_not_allowed"),
        ("POST", f"{RESPONSES}/{_NOBODY}/input_items", 405, "method_not_allowed"),
        ("POST", f"{RESPONSES}/{_NOBODY}/resume", 404, "not_found"),
        ("GET", f"{RESPONSES}/", 404, "not_found"),
    ],
)
def test_a_wrong_route(keyed: Server, method: str, path: str, status: int, code: str) -> None:
    answer = keyed.ask(method, path, None, ONE)
    _check(answer, status, code, None, path)
    assert ("allow" in answer.headers) == (status == 405)


# What belongs to another key


@dataclass(frozen=True)
class Theirs:
    """What the key ONE has."""

    response: str
    conversation: str
    item: str


@pytest.fixture(scope="module", name="theirs")
def _theirs(keyed: Server) -> Theirs:
    conversation = keyed.ask("POST", CONVERSATIONS, {}, ONE).json["id"]
    response = create(keyed, "ok", ONE, conversation=conversation).json
    assert response["status"] == "completed"
    return Theirs(response["id"], conversation, response["output"][0]["id"])


_FOREIGN: Final = (
    ("GET", RESPONSES + "/{response}"), ("GET", RESPONSES + "/{response}?stream=true"),
    ("DELETE", RESPONSES + "/{response}"), ("POST", RESPONSES + "/{response}/cancel"),
    ("GET", RESPONSES + "/{response}/input_items"), ("GET", CONVERSATIONS + "/{conversation}"),
    ("POST", CONVERSATIONS + "/{conversation}"), ("DELETE", CONVERSATIONS + "/{conversation}"),
    ("GET", CONVERSATIONS + "/{conversation}/items"), ("GET", CONVERSATIONS + "/{conversation}/items/{item}"),
    ("DELETE", CONVERSATIONS + "/{conversation}/items/{item}"),
)  # fmt: skip


@pytest.mark.parametrize(("method", "path"), _FOREIGN)
def test_what_is_another_s_does_not_exist(keyed: Server, theirs: Theirs, method: str, path: str) -> None:
    """In the same words as what nobody has."""
    never = Theirs(_NOBODY, _NOWHERE, "msg_" + "0" * 48)
    body: dict[str, Any] | None = (
        {"metadata": {}} if (method, path) == ("POST", CONVERSATIONS + "/{conversation}") else None
    )
    foreign, absent = (keyed.ask(method, path.format(**vars(of)), body, TWO) for of in (theirs, never))
    _check(foreign, 404, "conversation_not_found" if CONVERSATIONS in path else "response_not_found", None)
    said, known = foreign.json["error"], absent.json["error"]
    assert {**said, "message": ""} == {**known, "message": ""}
    for mine, other in zip(vars(theirs).values(), vars(never).values(), strict=True):
        said["message"] = said["message"].replace(mine, other)
    assert said["message"] == known["message"]
    assert get(keyed, theirs.response, ONE).status == 200
    assert keyed.ask("GET", f"{CONVERSATIONS}/{theirs.conversation}/items/{theirs.item}", None, ONE).status == 200


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("by", ["previous_response_id", "conversation", "reference"])
def test_nobody_goes_on_from_what_is_another_s(keyed: Server, theirs: Theirs, by: str, way: str) -> None:
    how: dict[str, tuple[dict[str, Any], str, str | None]] = {
        "previous_response_id": (
            {"previous_response_id": theirs.response}, "previous_response_not_found", "previous_response_id"
        ),
        "conversation": ({"conversation": theirs.conversation}, "conversation_not_found", "conversation"),
        "reference": (
            {"input": [{"type": "item_reference", "id": theirs.item}]}, "item_reference_not_found", "input[0].id",
        ),
    }  # fmt: skip
    changes, code, param = how[by]
    with nothing_stored(keyed):
        answer = keyed.ask("POST", RESPONSES, {**respond("ok"), **changes, **WAYS[way]}, TWO)
    _check(answer, 404, code, param)
    assert keyed.ask("POST", RESPONSES, {**respond("ok"), **changes}, ONE).status == 200, "it is theirs, and free"


def test_a_model_can_be_gone_on_from(keyed: Server, theirs: Theirs) -> None:
    answer = create(keyed, "ok", ONE, previous_response_id=theirs.response)
    assert (answer.status, answer.json["previous_response_id"]) == (200, theirs.response)


# What runs


@contextlib.contextmanager
def _in_background(server: Server, count: int) -> Iterator[list[str]]:
    """So many responses run, or wait, in the background."""
    ids = [create(server, "slow", ONE, background=True).json["id"] for _ in range(count)]
    try:
        begins(server, ids[0], ONE)
        yield ids
    finally:
        for response_id in ids:
            server.ask("POST", f"{RESPONSES}/{response_id}/cancel", None, ONE)


def test_the_background_is_full(keyed: Server) -> None:
    with _in_background(keyed, 2) as [_, waiting]:
        with nothing_stored(keyed):
            answers = [
                create(keyed, "ok", ONE, background=True),
                create(keyed, "ok", ONE, background=True, stream=True),
            ]
        for answer in answers:
            assert (answer.status, answer.json["error"]["code"]) == (503, "server_is_overloaded")
            assert int(answer.headers["retry-after"]) >= 1
        assert get(keyed, waiting, ONE).json["status"] == "queued"
        cancelled = keyed.ask("POST", f"{RESPONSES}/{waiting}/cancel", None, ONE)
        assert (cancelled.status, cancelled.json["status"], cancelled.json["output"]) == (200, "cancelled", [])
        assert create(keyed, "ok", ONE, background=True).status == 200, "there is room again"


def test_what_is_not_finished_cannot_be_gone_on_from(keyed: Server) -> None:
    with _in_background(keyed, 1) as [running]:
        answer = create(keyed, "ok", ONE, previous_response_id=running)
        _check(answer, 400, "previous_response_not_finished", "previous_response_id")


def test_what_does_not_run_in_the_background_cannot_be_cancelled(keyed: Server, theirs: Theirs) -> None:
    with stream(keyed, "slow", ONE) as raw:
        running = begun(raw, 3)
        for response_id in (running, theirs.response):
            answer = keyed.ask("POST", f"{RESPONSES}/{response_id}/cancel", None, ONE)
            _check(answer, 400, "response_not_cancellable", None)
        assert raw.events(1), "it runs on"
    assert ended(keyed, running, ONE)["status"] == "cancelled", "its client has gone"
