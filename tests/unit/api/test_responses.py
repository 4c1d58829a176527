"""The routes of responses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.support.provider import SECRET, WHOLE, ScriptedProvider, delta, finish, role, usage
from tests.support.responding import (
    ASK,
    BACKGROUND,
    PATH,
    STREAM,
    App,
    Call,
    Gate,
    failing,
    last,
    read,
    responding,
    said_by,
    text_of,
)
from tests.support.waiting import until

from coterie.errors import ApiError
from coterie.wire.lingua import Chunk

ANN, BOB = "sk-ann-key", "sk-bob-key"


def key(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


async def background(app: App, **fields: Any) -> str:
    name: str = (await app.created(background=True, **fields))["id"]
    return name


# Creating


async def test_a_whole_answer_is_what_is_stored(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        response = await app.created()
        assert response["status"] == "completed"
        assert text_of(response) == "Hello"
        assert (await app.answered(f"{PATH}/{response['id']}")).json == response
        assert last(await said_by(app, response["id"])) == response


async def test_a_stream_is_what_is_stored(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        stream = await app.answered(PATH, STREAM)
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        response = last(stream.body)
        assert (await app.answered(f"{PATH}/{response['id']}")).json == response
        assert (await app.answered(f"{PATH}/{response['id']}?stream=true")).body == stream.body


@pytest.mark.parametrize("body", [STREAM, ASK, {**BACKGROUND, "model": "other"}], ids=["stream", "plain", "background"])
@pytest.mark.parametrize("failure", [ApiError("engine_failed", detail=SECRET), RuntimeError(SECRET)])
async def test_a_failure_before_anything_was_said_is_an_http_error(
    tmp_path: Path, body: dict[str, Any], failure: Exception
) -> None:
    async with responding(ScriptedProvider((role(), failure)), tmp_path) as app:
        answer = await app.answered(PATH, body)
        assert answer.status in (404, 500)
        assert answer.error["code"] in ("engine_failed", "internal_error", "model_not_found")
        assert SECRET not in answer.body.decode()
        await app.stored(0)


async def test_a_failure_in_mid_stream_is_its_end_and_is_stored(tmp_path: Path) -> None:
    async with responding(ScriptedProvider((delta("Hel"), ApiError("engine_failed"))), tmp_path) as app:
        stream = await app.answered(PATH, STREAM)
        assert stream.status == 200
        response = last(stream.body)
        assert response["status"] == "failed"
        assert (await app.answered(f"{PATH}/{response['id']}")).json == response
        assert 'code="engine_failed"' in app.state.metrics.render().decode()


@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_not_to_be_stored_is_not_there(tmp_path: Path, stream: bool) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        answer = await app.answered(PATH, {**ASK, "store": False, "stream": stream})
        response = last(answer.body) if stream else answer.json
        assert response["store"] is False
        gone = await app.answered(f"{PATH}/{response['id']}")
        assert (gone.status, gone.error["code"]) == (404, "response_not_found")
        await app.stored(0)


async def test_turns_of_one_conversation_exclude_each_other(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider()
    provider.scripts = [(gate, *WHOLE)]
    async with responding(provider, tmp_path) as app:
        name = await app.conversation()
        first = app.call(PATH, {**ASK, "conversation": name})
        await provider.asked.wait()
        second = await app.answered(PATH, {**ASK, "conversation": name})
        assert (second.status, second.error["code"]) == (409, "conversation_locked")
        gate.set()
        await first.task
        assert (await app.answered(PATH, {**ASK, "conversation": name})).status == 200
        assert await app.items(name) == ["Hi", "Hello"] * 2


WRONG: dict[str, dict[str, Any]] = {
    "a reference to nothing": {"input": [{"type": "item_reference", "id": "msg_0"}]},
    "an output without a call": {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
    "a schema that is none": {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "nonsense"}}}},
}


@pytest.mark.parametrize("kind", [{}, {"stream": True}, {"background": True}], ids=["plain", "stream", "background"])
@pytest.mark.parametrize("truncation", ["auto", "disabled"])
@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_wrong_with_a_turn_frees_its_conversation(
    tmp_path: Path, wrong: str, truncation: str, kind: dict[str, Any]
) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = await app.conversation()
        answer = await app.answered(
            PATH, {**ASK, **kind, **WRONG[wrong], "truncation": truncation, "conversation": name}
        )
        assert 400 <= answer.status < 500
        assert await app.is_free(name)
        assert await app.items(name) == []
        await app.stored(0)


@pytest.mark.parametrize("body", [STREAM, ASK], ids=["stream", "plain"])
async def test_a_client_that_leaves_frees_the_conversation(tmp_path: Path, body: dict[str, Any]) -> None:
    provider = ScriptedProvider((asyncio.Event(),))
    async with responding(provider, tmp_path) as app:
        name = await app.conversation()
        call = app.call(PATH, {**body, "conversation": name})
        await provider.asked.wait()
        call.leave()
        await call.task
        assert call.sent == []
        assert provider.closed.is_set()
        assert await app.is_free(name)
        assert len(app.state.active) == 0


async def test_a_client_that_leaves_in_mid_stream_cancels_its_response(tmp_path: Path) -> None:
    async with responding(ScriptedProvider((delta("Hel"), asyncio.Event())), tmp_path) as app:
        call = app.call(PATH, STREAM)
        await call.head.wait()
        (name,) = app.keeping.running
        call.leave()
        await call.task
        row = await app.row(name)
        assert row.status == row.response["status"] == "cancelled"
        assert (await app.answered(f"{PATH}/{name}?stream=true")).body.startswith(call.body_so_far)


async def test_a_conversation_too_long_for_the_model_is_shortened_where_that_is_allowed(tmp_path: Path) -> None:
    refusal = ApiError("context_length_exceeded", param="messages", limit=30, actual=60)
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = await app.conversation(
            items=[{"role": role, "content": f"{role} {i}"} for i in range(5) for role in ("user", "assistant")]
        )
        provider = app.state.router.providers[0]
        assert isinstance(provider, ScriptedProvider)
        for body in (ASK, STREAM):
            provider.scripts = [(refusal,)]
            answer = await app.answered(PATH, {**body, "conversation": name})
            assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
            provider.scripts = [(role(), refusal), (refusal,)]
            answer = await app.answered(PATH, {**body, "conversation": name, "truncation": "auto", "store": False})
            assert answer.status == 200
            assert len(provider.generations[-1].body["messages"]) < 11
            assert await app.is_free(name)


# Reading


async def test_a_running_response_is_shown_as_it_is_now(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with responding(ScriptedProvider((delta("Hel"), gate, delta("lo"), finish(), usage())), tmp_path) as app:
        call = app.call(PATH, STREAM)
        await call.head.wait()
        (name,) = app.keeping.running
        shown = (await app.answered(f"{PATH}/{name}")).json
        assert (shown["status"], text_of(shown)) == ("in_progress", "Hel")
        gate.set()
        await call.task
        assert text_of((await app.answered(f"{PATH}/{name}")).json) == "Hello"


async def test_a_running_response_is_followed_from_any_event_on(tmp_path: Path) -> None:
    gates = [asyncio.Event() for _ in range(4)]
    script = [step for i, gate in enumerate(gates) for step in (delta(f"word {i} "), gate)]
    async with responding(ScriptedProvider((*script, finish(), usage())), tmp_path) as app:
        call = app.call(PATH, STREAM)
        await call.head.wait()
        (name,) = app.keeping.running
        followers: dict[tuple[int, int | None], Call] = {}
        for i, gate in enumerate(gates):
            for after in range(-1, 12):
                followers[i, after] = app.call(f"{PATH}/{name}?stream=true&starting_after={after}")
            followers[i, None] = app.call(f"{PATH}/{name}?stream=true")
            await asyncio.sleep(0)
            gate.set()
        await call.task
        events = [event + b"\n\n" for event in call.answer.body.split(b"\n\n")[:-1]]
        for (_, start), follower in followers.items():
            await follower.task
            assert follower.answer.body == b"".join(events[0 if start is None else start + 1 :])
        assert len(app.state.active) == 0


@pytest.mark.parametrize("after", range(-1, 14))
async def test_an_ended_response_is_replayed_from_any_event_on(tmp_path: Path, after: int) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        body = (await app.answered(PATH, STREAM)).body
        events = [event + b"\n\n" for event in body.split(b"\n\n")[:-1]]
        name = last(body)["id"]
        answer = await app.answered(f"{PATH}/{name}?stream=true&starting_after={after}")
        assert answer.body == (b"".join(events[after + 1 :]) or b"data: [DONE]\n\n")


async def test_one_that_ends_while_a_follower_comes_is_heard_to_its_end(tmp_path: Path) -> None:
    """At whatever step of the event loop the follower comes."""
    async with responding(ScriptedProvider(), tmp_path) as app:
        for steps in range(40):
            gate = Gate(app.keeping.responses, "finish", done_first=True)
            call = app.call(PATH, STREAM)
            await gate.reached.wait()
            (name,) = app.keeping.running
            follower = app.call(f"{PATH}/{name}?stream=true")
            for _ in range(steps):
                await asyncio.sleep(0)
            gate.opened.set()
            await asyncio.gather(call.task, follower.task)
            assert follower.answer.body == call.answer.body
            gate.remove()


async def test_a_row_that_was_read_before_its_response_ended_is_read_again(tmp_path: Path) -> None:
    async with responding(ScriptedProvider((delta("a"), asyncio.Event())), tmp_path) as app:
        name = await background(app)
        gate = Gate(app.keeping.responses, "get", done_first=True)
        asking = [
            app.call(f"{PATH}/{name}"),
            app.call(f"{PATH}/{name}?stream=true"),
            app.call(f"{PATH}/{name}/cancel", {}),
        ]
        await gate.reached.wait()
        for _ in range(20):
            await asyncio.sleep(0.001)
        app.keeping.running[name].cancel()
        await until(lambda: name not in app.keeping.running)
        gate.opened.set()
        await asyncio.gather(*(call.task for call in asking))
        shown, stream, cancelled = (call.answer for call in asking)
        assert shown.json == cancelled.json == last(stream.body)
        assert shown.json["status"] == "cancelled"


async def test_a_follower_that_leaves_disturbs_nobody(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with responding(ScriptedProvider((delta("Hel"), gate, delta("lo"), finish(), usage())), tmp_path) as app:
        call = app.call(PATH, STREAM)
        await call.head.wait()
        (name,) = app.keeping.running
        live = app.keeping.running[name].live
        stays = app.call(f"{PATH}/{name}?stream=true")
        await stays.head.wait()
        before = asyncio.all_tasks()
        leaves = app.call(f"{PATH}/{name}?stream=true")
        await leaves.head.wait()
        leaves.leave()
        await leaves.task
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
        gate.set()
        await asyncio.gather(call.task, stays.task)
        assert stays.answer.body == call.answer.body
        assert live is not None
        assert live._journal._descriptor < 0
        assert app.journals() == []


async def test_a_follower_hears_that_the_client_has_gone(tmp_path: Path) -> None:
    async with responding(ScriptedProvider((delta("Hel"), asyncio.Event())), tmp_path) as app:
        call = app.call(PATH, STREAM)
        await call.head.wait()
        (name,) = app.keeping.running
        follower = app.call(f"{PATH}/{name}?stream=true")
        await follower.head.wait()
        call.leave()
        await asyncio.gather(call.task, follower.task)
        assert last(follower.answer.body)["status"] == "cancelled"


async def test_the_servers_stop_ends_a_follower_with_its_response(tmp_path: Path) -> None:
    async with responding(ScriptedProvider((delta("Hel"), asyncio.Event())), tmp_path) as app:
        call = app.call(PATH, STREAM)
        await call.head.wait()
        (name,) = app.keeping.running
        follower = app.call(f"{PATH}/{name}?stream=true")
        await follower.head.wait()
        await app.state.active.drain(0)
        await asyncio.gather(call.task, follower.task)
        assert follower.answer.body == call.answer.body
        assert last(call.answer.body)["status"] == "failed"


@pytest.mark.parametrize("query", ["stream=1", "stream=true&starting_after=x", "stream=true&starting_after=1.5"])
async def test_a_wrong_query(tmp_path: Path, query: str) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = (await app.created())["id"]
        answer = await app.answered(f"{PATH}/{name}?{query}")
        assert (answer.status, answer.error["code"]) == (400, "invalid_type")


async def test_what_another_server_generates_cannot_be_followed_or_cancelled_here(tmp_path: Path) -> None:
    async with responding(ScriptedProvider((delta("Hel"), asyncio.Event())), tmp_path) as app:
        name = await background(app)
        turn = app.keeping.running.pop(name)
        stream = await app.answered(f"{PATH}/{name}?stream=true")
        assert (stream.status, stream.error["code"]) == (400, "response_not_streamable")
        cancel = await app.answered(f"{PATH}/{name}/cancel", {})
        assert (cancel.status, cancel.error["code"]) == (400, "response_not_cancellable")
        assert (await app.answered(f"{PATH}/{name}")).json["status"] in ("queued", "in_progress")
        app.keeping.running[name] = turn


# Deleting, cancelling


@pytest.mark.parametrize("body", [STREAM, BACKGROUND], ids=["stream", "background"])
async def test_a_running_response_is_stopped_and_deleted(tmp_path: Path, body: dict[str, Any]) -> None:
    provider = ScriptedProvider((delta("Hel"), asyncio.Event()))
    async with responding(provider, tmp_path) as app:
        conversation = await app.conversation()
        call = app.call(PATH, {**body, "conversation": conversation})
        await call.head.wait()
        await provider.asked.wait()
        (name,) = app.keeping.running
        follower = app.call(f"{PATH}/{name}?stream=true")
        await follower.head.wait()
        deleted = (await app.answered(f"{PATH}/{name}", None, "DELETE")).json
        assert deleted == {"id": name, "object": "response", "deleted": True}
        await asyncio.gather(call.task, follower.task)
        assert last(follower.answer.body)["status"] == "cancelled"
        assert provider.closed.is_set()
        await app.stored(0)
        assert app.journals() == []
        assert await app.is_free(conversation)
        assert (await app.answered(f"{PATH}/{name}")).status == 404


async def test_one_that_is_deleted_while_its_end_is_stored(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        gate = Gate(app.keeping.responses, "finish")
        call = app.call(PATH, STREAM)
        await gate.reached.wait()
        (name,) = app.keeping.running
        deleting = asyncio.create_task(app.answered(f"{PATH}/{name}", None, "DELETE"))
        for _ in range(20):
            await asyncio.sleep(0.001)
        gate.opened.set()
        assert (await deleting).status == 200
        await call.task
        assert last(call.answer.body)["status"] == "completed"
        await app.stored(0)


async def test_deleting_twice(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = (await app.created())["id"]
        answers = [await app.answered(f"{PATH}/{name}", None, "DELETE") for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 404]


async def test_only_a_response_in_the_background_can_be_cancelled(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = (await app.created())["id"]
        answer = await app.answered(f"{PATH}/{name}/cancel", {})
        assert (answer.status, answer.error["code"]) == (400, "response_not_cancellable")
        assert "background" in answer.error["message"]


ROUTES = [("GET", ""), ("GET", "?stream=true"), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_what_is_anothers_is_as_if_it_never_was(tmp_path: Path, method: str, path: str) -> None:
    async with responding(
        ScriptedProvider((delta("a"), asyncio.Event())), tmp_path, server={"api_keys": [ANN, BOB]}
    ) as app:
        name = (await app.answered(PATH, BACKGROUND, "", **key(ANN))).json["id"]
        body: Any = {} if method == "POST" else None
        foreign = await app.answered(f"{PATH}/{name}{path}", body, method, **key(BOB))
        absent = await app.answered(f"{PATH}/resp_0{path}", body, method, **key(BOB))
        assert foreign.status == absent.status == 404
        assert foreign.error["code"] == absent.error["code"] == "response_not_found"
        assert foreign.error["message"].replace(name, "resp_0") == absent.error["message"]
        assert name in app.keeping.running


# Input


async def test_the_input_is_listed_the_newest_first(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        items = [{"role": "user", "content": text} for text in "abc"]
        name = (await app.created(input=items))["id"]
        page = (await app.answered(f"{PATH}/{name}/input_items")).json
        assert [item["content"][0]["text"] for item in page["data"]] == ["c", "b", "a"]
        first = (await app.answered(f"{PATH}/{name}/input_items?limit=1&order=asc")).json
        assert (first["data"], first["has_more"]) == ([page["data"][2]], True)
        rest = await app.answered(f"{PATH}/{name}/input_items?order=asc&after={first['last_id']}")
        assert rest.json["data"] == page["data"][1::-1]


# Counting, compacting


async def test_input_tokens_are_those_that_the_model_counts(tmp_path: Path) -> None:
    provider = ScriptedProvider((delta("x"), finish("length"), usage(17, 1)))
    async with responding(provider, tmp_path) as app:
        answer = await app.answered(f"{PATH}/input_tokens", ASK)
        assert answer.json == {"object": "response.input_tokens", "input_tokens": 17}
        assert provider.generations[0].body["max_completion_tokens"] == 1
        await app.stored(0)


async def test_input_tokens_of_what_is_too_long_are_those_that_the_refusal_names(tmp_path: Path) -> None:
    refusal = ApiError("context_length_exceeded", param="messages", limit=8, actual=99)
    async with responding(ScriptedProvider((refusal,)), tmp_path) as app:
        assert (await app.answered(f"{PATH}/input_tokens", ASK)).json["input_tokens"] == 99


async def test_another_failure_of_counting_is_told(tmp_path: Path) -> None:
    refusal = ApiError("context_length_exceeded", param="messages", said="It is too long.")
    for failure in (refusal, ApiError("engine_failed")):
        async with responding(ScriptedProvider((failure,)), tmp_path) as app:
            assert (await app.answered(f"{PATH}/input_tokens", ASK)).error["code"] == failure.code


async def test_a_provider_that_does_not_count_is_told(tmp_path: Path) -> None:
    uncounted: Chunk = {"choices": [], "usage": None}
    async with responding(ScriptedProvider((delta("x"), finish(), uncounted)), tmp_path) as app:
        answer = await app.answered(f"{PATH}/input_tokens", ASK)
        assert (answer.status, answer.error["code"]) == (400, "unsupported_parameter")


async def test_counting_leaves_a_conversation_as_it_is(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = await app.conversation(items=[{"role": "user", "content": "before"}])
        assert (await app.answered(f"{PATH}/input_tokens", {**ASK, "conversation": name})).status == 200
        assert await app.items(name) == ["before"]
        assert await app.is_free(name)


async def test_a_conversation_is_compacted_and_gone_on_with(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    provider.scripts = [(delta("The note."), finish(), usage())]
    async with responding(provider, tmp_path) as app:
        items = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "answer"}]
        answer = (await app.answered(f"{PATH}/compact", {"model": "m", "input": items})).json
        assert answer["object"] == "response.compaction"
        assert [item["type"] for item in answer["output"]] == ["message", "compaction"]
        assert "The note." not in str(answer)
        await app.created(input=[*answer["output"], {"role": "user", "content": "two"}])
        seen = [message["content"] for message in provider.generations[-1].body["messages"]]
        assert seen[0] == "one"
        assert seen[1].endswith("The note.")
        assert seen[2] == "two"


async def test_a_note_that_was_filtered_is_no_compaction(tmp_path: Path) -> None:
    async with responding(ScriptedProvider((delta("The no"), finish("content_filter"), usage())), tmp_path) as app:
        answer = await app.answered(f"{PATH}/compact", ASK)
        assert (answer.status, answer.error["code"]) == (502, "upstream_stream_interrupted")


@pytest.mark.parametrize(("path", "field"), [("compact", "tools"), ("input_tokens", "store")])
async def test_what_has_no_meaning_there_is_refused(tmp_path: Path, path: str, field: str) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        answer = await app.answered(f"{PATH}/{path}", {**ASK, field: None})
        assert (answer.status, answer.error["param"]) == (400, field)


async def test_a_personality_is_known_and_cannot_be_had(tmp_path: Path) -> None:
    for path, code in (("input_tokens", "unsupported_parameter"), ("compact", "unknown_parameter")):
        async with responding(ScriptedProvider(), tmp_path / path) as app:
            answer = await app.answered(f"{PATH}/{path}", {**ASK, "personality": "pragmatic"})
            assert (answer.status, answer.error["code"], answer.error["param"]) == (400, code, "personality")
    async with responding(ScriptedProvider((delta("x"), finish("length"), usage(17, 1))), tmp_path) as app:
        assert (await app.answered(f"{PATH}/input_tokens", {**ASK, "personality": None})).status == 200


# Storage that fails


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_storage_that_fails_is_told(tmp_path: Path, method: str, path: str) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = (await app.created())["id"]
        with failing(app.keeping.responses, "get"):
            answer = await app.answered(f"{PATH}/{name}{path}", {} if method == "POST" else None, method)
        assert (answer.status, answer.error["code"]) == (503, "storage_failed")
        assert "disk" not in answer.body.decode()


@pytest.mark.parametrize("body", [STREAM, ASK], ids=["stream", "plain"])
async def test_a_creation_that_fails_is_an_http_error(tmp_path: Path, body: dict[str, Any]) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        with failing(app.keeping.responses, "create"):
            answer = await app.answered(PATH, body)
        assert (answer.status, answer.error["code"]) == (503, "storage_failed")
        assert app.journals() == []


async def test_an_end_that_cannot_be_stored_is_told_in_the_stream(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        with failing(app.keeping.responses, "finish"):
            stream = await app.answered(PATH, STREAM)
        assert [said["type"] for said in read(stream.body)[-2:]] == ["error", "response.failed"]
        assert 'code="storage_failed"' in app.state.metrics.render().decode()


@pytest.mark.parametrize("path", ["compact", "input_tokens"])
async def test_a_parameter_without_a_name_is_named(tmp_path: Path, path: str) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        answer = await app.answered(f"{PATH}/{path}", {**ASK, "": 1})
        assert (answer.status, answer.error["code"]) == (400, "unknown_parameter")
        assert answer.error["param"]
