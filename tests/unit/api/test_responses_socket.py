"""Turns over a WebSocket: their order, their ends, and what a lane remembers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.provider import SECRET, WHOLE, ScriptedProvider, delta, finish, usage
from tests.support.responding import FAILURE, failing, responding, text_of
from tests.support.talking import Talk, talking

from coterie.api import responses_socket
from coterie.api.auth import KeyRing
from coterie.errors import ApiError

UNSTORED = {"store": False}


def seen(provider: ScriptedProvider) -> list[str]:
    """The texts that the model was last asked with."""
    return [message["content"] for message in provider.generations[-1].body["messages"]]


# Turns


async def test_a_turn_is_its_events_without_an_end_mark(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app, talking(app) as talk:
        talk.say()
        said = await talk.hear_turn()
        assert said[0]["type"] == "response.created"
        assert said[-1]["type"] == "response.completed"
        assert text_of(said[-1]["response"]) == "Hello"
        assert not any("stream_id" in one for one in said)
        assert (await app.row(said[0]["response"]["id"])).response == said[-1]["response"]
        await talk.ask()
        assert talk.unheard == 0
        texts = [message["text"] for message in talk.sent if message["type"] == "websocket.send"]
        assert all(json.loads(text)["type"] for text in texts)
        assert "[DONE]" not in "".join(texts)


async def test_turns_are_taken_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider()
    provider.scripts = [(delta("Hel"), gate, delta("lo"), finish(), usage())]
    async with responding(provider, tmp_path) as app, talking(app) as talk:
        for i in range(4):
            talk.say(input=f"number {i}", stream_id=f"lane{i}")
        while (await talk.hear())["type"] != "response.output_text.delta":
            pass
        assert len(provider.generations) == 1
        gate.set()
        while (await talk.hear())["type"] != "response.completed":
            pass
        for i in range(1, 4):
            said = await talk.hear_turn()
            assert {one["stream_id"] for one in said} == {f"lane{i}"}
            assert said[-1]["type"] == "response.completed"
        asked = [generation.body["messages"][-1]["content"] for generation in provider.generations]
        assert asked == [f"number {i}" for i in range(4)]


@pytest.mark.parametrize("lane", ["a", "A-Z_0.9", "x" * 256])
async def test_every_message_of_a_lane_names_it(tmp_path: Path, lane: str) -> None:
    provider = ScriptedProvider()
    provider.scripts = [WHOLE, (ApiError("engine_failed"),), (delta("a"), ApiError("engine_failed"))]
    async with responding(provider, tmp_path) as app, talking(app) as talk:
        for _ in range(3):
            talk.say(stream_id=lane)
            assert {one["stream_id"] for one in await talk.hear_turn()} == {lane}


@pytest.mark.parametrize("stream", [True, None])
async def test_what_goes_without_saying_may_be_said(tmp_path: Path, stream: bool | None) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app, talking(app) as talk:
        response = await talk.ask(stream=stream, background=False, stream_id=None, generate=True)
        assert response["status"] == "completed"
        assert not {"generate", "stream_id", "type"} & response.keys()


# Failures


REFUSED: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "no type": ({"type": ...}, 400, "websocket_message_invalid", None),
    "another type": ({"type": "response.steer"}, 400, "websocket_message_invalid", None),
    "not streamed": ({"stream": False}, 400, "unsupported_value", "stream"),
    "in the background": ({"background": True}, 400, "unsupported_value", "background"),
    "generate is no boolean": ({"generate": "no"}, 400, "invalid_type", "generate"),
    "an empty lane": ({"stream_id": ""}, 400, "invalid_stream_id", "stream_id"),
    "a long lane": ({"stream_id": "x" * 257}, 400, "invalid_stream_id", "stream_id"),
    "a lane with a blank": ({"stream_id": "a b"}, 400, "invalid_stream_id", "stream_id"),
    "a lane with a line": ({"stream_id": "a\n"}, 400, "invalid_stream_id", "stream_id"),
    "a lane that is a number": ({"stream_id": 1}, 400, "invalid_stream_id", "stream_id"),
    "an unknown field": ({"nonsense": 1}, 400, "unknown_parameter", "nonsense"),
    "no such model": ({"model": "other"}, 404, "model_not_found", "model"),
    "no input": ({"input": ...}, 400, "missing_required_parameter", "input"),
    "an unknown response": (
        {"previous_response_id": "resp_missing_1"},
        404,
        "previous_response_not_found",
        "previous_response_id",
    ),
}


@pytest.mark.parametrize(("fields", "status", "code", "param"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_wrong_is_one_message_and_the_connection_goes_on(
    tmp_path: Path, fields: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app, talking(app) as talk:
        said = await talk.refused(**fields)
        assert said.keys() <= {"type", "status", "error", "stream_id"}
        assert said["status"] == status
        assert said["error"].keys() == {"message", "type", "param", "code"}
        assert (said["error"]["code"], said["error"]["param"]) == (code, param)
        assert (await talk.ask())["status"] == "completed"
        assert talk.unheard == 0
        await app.stored(1)


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", '"x"', "{} {}", "[" * 1000, '{"a":' * 500])
async def test_what_is_no_object_is_one_message(tmp_path: Path, text: str) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app, talking(app) as talk:
        talk.say_text(text)
        (said,) = await talk.hear_turn()
        assert (said["type"], said["status"]) == ("error", 400)
        assert isinstance(said["error"]["code"], str)
        assert (await talk.ask())["status"] == "completed"


@pytest.mark.parametrize("fields", [{}, UNSTORED])
async def test_a_failure_before_anything_was_said_carries_the_status_of_http(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    provider = ScriptedProvider()
    provider.scripts = [(ApiError("engine_failed", detail=SECRET),)]
    async with responding(provider, tmp_path) as app, talking(app) as talk:
        said = await talk.refused(**fields)
        assert (said["status"], said["error"]["code"]) == (500, "engine_failed")
        assert SECRET not in str(said)
        await app.stored(0)
        assert (await talk.ask())["status"] == "completed"
        assert 'code="engine_failed"' in app.state.metrics.render().decode()


async def test_a_failure_in_mid_turn_is_its_terminal_event_alone(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    provider.scripts = [(delta("Hel"), ApiError("engine_failed"))]
    async with responding(provider, tmp_path) as app, talking(app) as talk:
        talk.say()
        said = await talk.hear_turn()
        assert said[-1]["type"] == "response.failed"
        assert "error" not in [one["type"] for one in said]
        assert text_of(said[-1]["response"]) == "Hel"
        assert (await talk.ask())["status"] == "completed"
        assert talk.unheard == 0


async def test_an_end_that_cannot_be_stored_is_a_failed_turn(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app, talking(app) as talk:
        with failing(app.keeping.responses, "finish"):
            talk.say()
            said = await talk.hear_turn()
        assert said[-1]["type"] == "response.failed"
        assert "error" not in [one["type"] for one in said]
        with failing(app.keeping.responses, "create", error=FAILURE):
            assert (await talk.refused())["status"] == 503


# Memory


@pytest.mark.parametrize("fields", [{}, UNSTORED], ids=["stored", "not stored"])
async def test_a_turn_goes_on_from_the_last(tmp_path: Path, fields: dict[str, Any]) -> None:
    provider = ScriptedProvider()
    async with responding(provider, tmp_path) as app, talking(app) as talk:
        first = await talk.ask(input="one", **fields)
        second = await talk.ask(input="two", previous_response_id=first["id"], **fields)
        assert seen(provider) == ["one", "Hello", "two"]
        await talk.ask(input="three", previous_response_id=second["id"], **fields)
        assert seen(provider) == ["one", "Hello", "two", "Hello", "three"]
        await app.stored(0 if fields else 3)


async def test_a_lane_remembers_its_last_response_alone(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app, talking(app) as talk:
        first = await talk.ask(**UNSTORED)
        await talk.ask(**UNSTORED)
        said = await talk.refused(previous_response_id=first["id"], **UNSTORED)
        assert said["error"]["code"] == "previous_response_not_found"


async def test_what_is_not_stored_is_gone_with_its_connection(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        async with talking(app) as talk:
            unstored = await talk.ask(**UNSTORED)
            stored = await talk.ask(stream_id="b")
        async with talking(app) as talk:
            said = await talk.refused(previous_response_id=unstored["id"])
            assert said["error"]["code"] == "previous_response_not_found"
            assert (await talk.ask(previous_response_id=stored["id"]))["status"] == "completed"


FAILING: dict[str, dict[str, Any]] = {
    "an output without a call": {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
    "an unknown field": {"nonsense": 1},
    "no such model": {"model": "other"},
    "before anything was said": {"input": "fail early"},
    "in mid-turn": {"input": "fail late"},
}


class Moody(ScriptedProvider):
    """Fails where it is asked to."""

    def generate(self, generation: Any) -> Any:
        text = generation.body["messages"][-1]["content"]
        if text == "fail early":
            self.scripts = [(ApiError("engine_failed"),)]
        elif text == "fail late":
            self.scripts = [(delta("Hel"), ApiError("engine_failed"))]
        return super().generate(generation)


@pytest.mark.parametrize("wrong", FAILING)
async def test_a_turn_that_fails_makes_what_it_went_on_from_forgotten(tmp_path: Path, wrong: str) -> None:
    async with responding(Moody(), tmp_path) as app, talking(app) as talk:
        first = await talk.ask(**UNSTORED)
        talk.say(**FAILING[wrong], previous_response_id=first["id"], **UNSTORED)
        assert (await talk.hear_turn())[-1]["type"] in ("error", "response.failed")
        said = await talk.refused(previous_response_id=first["id"], **UNSTORED)
        assert said["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize("wrong", FAILING)
async def test_a_turn_of_another_lane_that_fails_leaves_it(tmp_path: Path, wrong: str) -> None:
    async with responding(Moody(), tmp_path) as app, talking(app) as talk:
        first = await talk.ask(**UNSTORED)
        talk.say(**FAILING[wrong], previous_response_id=first["id"], stream_id="fork", **UNSTORED)
        assert (await talk.hear_turn())[-1]["type"] in ("error", "response.failed")
        assert (await talk.ask(previous_response_id=first["id"], **UNSTORED))["status"] == "completed"


async def test_a_failure_that_did_not_go_on_from_it_leaves_it(tmp_path: Path) -> None:
    async with responding(Moody(), tmp_path) as app, talking(app) as talk:
        first = await talk.ask(**UNSTORED)
        await talk.refused(input="fail early", **UNSTORED)
        assert (await talk.ask(previous_response_id=first["id"], **UNSTORED))["status"] == "completed"


async def test_a_new_lane_forks(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    async with responding(provider, tmp_path) as app, talking(app) as talk:
        root = await talk.ask(input="root", **UNSTORED)
        for lane in ("a", "b"):
            await talk.ask(input=lane, previous_response_id=root["id"], stream_id=lane, **UNSTORED)
            assert seen(provider) == ["root", "Hello", lane]
        await talk.ask(input="go on", previous_response_id=root["id"], **UNSTORED)
        assert seen(provider) == ["root", "Hello", "go on"]


async def test_only_so_many_lanes_are_remembered_those_that_were_used_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses_socket, "_LANES", 2)
    async with responding(ScriptedProvider(), tmp_path) as app, talking(app) as talk:
        ids = {lane: (await talk.ask(stream_id=lane, **UNSTORED))["id"] for lane in "ab"}
        ids["a"] = (await talk.ask(stream_id="a", previous_response_id=ids["a"], **UNSTORED))["id"]
        ids["c"] = (await talk.ask(stream_id="c", **UNSTORED))["id"]
        said = await talk.refused(stream_id="b", previous_response_id=ids["b"], **UNSTORED)
        assert said["error"]["code"] == "previous_response_not_found"
        for lane in "ac":
            await talk.ask(stream_id=lane, previous_response_id=ids[lane], **UNSTORED)


@pytest.mark.parametrize("bound", ["_SOCKET_BYTES", "_ALL_BYTES"])
async def test_only_so_many_bytes_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(responses_socket, bound, 4000)
    async with responding(ScriptedProvider(), tmp_path) as app, talking(app) as talk:
        long = await talk.ask(input="x" * 3000, stream_id="a", **UNSTORED)
        await talk.ask(input="x" * 3000, stream_id="b", **UNSTORED)
        said = await talk.refused(stream_id="a", previous_response_id=long["id"], **UNSTORED)
        assert said["error"]["code"] == "previous_response_not_found"


async def test_what_one_socket_remembers_another_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses_socket, "_ALL_BYTES", 4000)
    async with responding(ScriptedProvider(), tmp_path) as app:
        async with talking(app) as first, talking(app) as second:
            kept = await first.ask(input="x" * 3000, **UNSTORED)
            lost = await second.ask(input="x" * 3000, **UNSTORED)
            said = await second.refused(previous_response_id=lost["id"], **UNSTORED)
            assert said["error"]["code"] == "previous_response_not_found"
            await first.ask(previous_response_id=kept["id"], **UNSTORED)
        async with talking(app) as third:
            kept = await third.ask(input="x" * 3000, **UNSTORED)
            await third.ask(previous_response_id=kept["id"], **UNSTORED)


# generate: false


@pytest.mark.parametrize("fields", [{}, UNSTORED], ids=["stored", "not stored"])
async def test_a_response_that_says_nothing_can_be_gone_on_from(tmp_path: Path, fields: dict[str, Any]) -> None:
    provider = ScriptedProvider()
    async with responding(provider, tmp_path) as app, talking(app) as talk:
        talk.say(input="one", generate=False, **fields)
        said = await talk.hear_turn()
        kinds = [one["type"] for one in said]
        assert kinds == ["response.created", "response.in_progress", "response.completed"]
        response = said[-1]["response"]
        assert (response["status"], response["output"]) == ("completed", [])
        assert response["usage"]["total_tokens"] == 0
        assert provider.generations == []
        await talk.ask(input="two", previous_response_id=response["id"], **fields)
        assert seen(provider) == ["one", "two"]
        await app.stored(0 if fields else 2)


async def test_what_is_wrong_with_it_is_told_all_the_same(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app, talking(app) as talk:
        assert (await talk.refused(generate=False, model="other"))["error"]["code"] == "model_not_found"


# The connection's end


async def test_a_connection_that_is_too_old_is_told_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses_socket, "LIFETIME_S", 0.05)
    async with responding(ScriptedProvider(), tmp_path) as app:
        talk = Talk(app)
        said = await talk.hear()
        await talk.task
        assert (said["type"], said["status"]) == ("error", 400)
        assert said["error"]["code"] == "websocket_connection_limit_reached"
        assert talk.closed == (1001, "websocket_connection_limit_reached")


async def test_a_turn_is_not_cut_by_age_and_what_waits_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider((delta("Hel"), gate, delta("lo"), finish(), usage()))
    now_s = [0.0]
    monkeypatch.setattr(responses_socket, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    async with responding(provider, tmp_path) as app:
        talk = Talk(app)
        talk.say()
        while (await talk.hear())["type"] != "response.output_text.delta":
            pass
        talk.say()
        now_s[0] = 3601.0
        gate.set()
        while (last := await talk.hear())["type"] != "response.completed":
            pass
        assert text_of(last["response"]) == "Hello"
        assert (await talk.hear())["error"]["code"] == "websocket_connection_limit_reached"
        await talk.task
        assert talk.closed is not None
        assert len(provider.generations) == 1


@pytest.mark.parametrize("fields", [{}, UNSTORED], ids=["stored", "not stored"])
async def test_a_client_that_leaves_in_mid_turn_cancels_it(tmp_path: Path, fields: dict[str, Any]) -> None:
    provider = ScriptedProvider((delta("Hel"), asyncio.Event()))
    async with responding(provider, tmp_path) as app:
        name = await app.conversation()
        talk = Talk(app)
        talk.say(conversation=name, **fields)
        created = await talk.hear()
        while (await talk.hear())["type"] != "response.output_text.delta":
            pass
        talk.leave()
        await talk.task
        assert provider.closed.is_set()
        assert await app.is_free(name)
        assert len(app.state.active) == 0
        if not fields:
            assert (await app.row(created["response"]["id"])).status == "cancelled"


async def test_the_servers_stop_ends_a_turn_with_its_failure_and_then_the_connection(tmp_path: Path) -> None:
    provider = ScriptedProvider((delta("Hel"), asyncio.Event()))
    async with responding(provider, tmp_path) as app:
        talk = Talk(app)
        talk.say()
        talk.say()
        while (await talk.hear())["type"] != "response.output_text.delta":
            pass
        await app.state.active.drain(0)
        while (last := await talk.hear())["type"] not in ("response.failed", "error"):
            pass
        assert last["type"] == "response.failed"
        await talk.task
        assert talk.closed is not None
        assert talk.closed[0] == 1001
        assert talk.unheard == 0


async def test_the_servers_stop_before_anything_was_said_is_an_error(tmp_path: Path) -> None:
    provider = ScriptedProvider((asyncio.Event(),))
    async with responding(provider, tmp_path) as app:
        talk = Talk(app)
        talk.say()
        await provider.asked.wait()
        await app.state.active.drain(0)
        said = await talk.hear()
        assert (said["type"], said["status"]) == ("error", 503)
        assert said["error"]["code"] == "server_shutting_down"
        await talk.task


async def test_a_socket_has_its_keys_owner(tmp_path: Path) -> None:
    keys = ["sk-ann-key", "sk-bob-key"]
    async with responding(ScriptedProvider(), tmp_path, server={"api_keys": keys}) as app:
        async with talking(app, authorization=f"Bearer {keys[0]}") as talk:
            mine = await talk.ask()
            assert (await talk.ask(previous_response_id=mine["id"]))["status"] == "completed"
        async with talking(app, authorization=f"Bearer {keys[1]}") as talk:
            said = await talk.refused(previous_response_id=mine["id"])
            assert said["error"]["code"] == "previous_response_not_found"


async def test_a_key_that_was_withdrawn_ends_the_connection(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path, server={"api_keys": ["sk-ann-key"]}) as app:
        talk = Talk(app, authorization="Bearer sk-ann-key")
        await talk.ask()
        app.state.keys = KeyRing(["sk-other-key"])
        said = await talk.refused()
        assert (said["status"], said["error"]["code"]) == (401, "invalid_api_key")
        await talk.task
        assert talk.closed is not None
        assert talk.closed[0] == 1008
