"""How a turn is run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.provider import WHOLE, ScriptedProvider, delta, finish
from tests.support.responding import App, failing, last, plan, responding, text_of
from tests.support.turning import Sink
from tests.support.waiting import until

from coterie.api import errand as errand_module
from coterie.api.active import ActiveRequest
from coterie.api.errand import Errand, Meter
from coterie.errors import ApiError
from coterie.observe.metrics import Metrics
from coterie.observe.timing import Timing
from coterie.turns.compaction import MOST_NOTE_TOKENS, asked_for_note
from coterie.wire.lingua import Chunk, Chunks


def errand(app: App) -> Errand:
    task = asyncio.current_task()
    assert task is not None
    return Errand(app.state, Timing(0.0), ActiveRequest(task))


async def test_a_turn_is_planned_asked_and_told(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = await app.conversation(items=[{"role": "user", "content": "before"}])
        sink = Sink()
        turn = await errand(app).run(plan(conversation=name), sink)
        assert last(sink.stream) == turn.response
        provider = app.state.router.providers[0]
        assert isinstance(provider, ScriptedProvider)
        assert [message["content"] for message in provider.generations[0].body["messages"]] == ["before", "Hi"]
        page = app.state.metrics.render().decode()
        assert 'coterie_prompt_tokens_total{model="m"} 3.0' in page
        assert 'coterie_generation_tokens_total{model="m"} 2.0' in page


@pytest.mark.parametrize("told", [True, False])
async def test_only_what_is_told_as_it_comes_cannot_be_taken_back(tmp_path: Path, told: bool) -> None:
    provider = ScriptedProvider()
    async with responding(provider, tmp_path) as app:
        await errand(app).run(plan(told=told))
        assert provider.generations[0].streamed is told


async def test_the_number_of_tokens_can_be_bounded(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    async with responding(provider, tmp_path) as app:
        await errand(app).run(plan(told=False, max_output_tokens=100), most_tokens=1)
        assert provider.generations[0].body["max_completion_tokens"] == 1


async def test_a_note_of_a_conversation_that_is_too_long_is_made_from_what_is_left_of_it(tmp_path: Path) -> None:
    refused = ApiError("context_length_exceeded", param="messages", limit=2000, actual=9000)
    provider = ScriptedProvider()
    provider.scripts = [(refused,), (refused,)]
    items = [{"role": role, "content": f"{role} {i}" * 100} for i in range(20) for role in ("user", "assistant")]
    async with responding(provider, tmp_path) as app:
        asked = asked_for_note(plan(told=False, input=items))
        turn = await errand(app).run_planned(asked, most_tokens=MOST_NOTE_TOKENS)
        assert text_of(turn.response) == "Hello"
        bodies = [generation.body for generation in provider.generations]
        assert [body["max_completion_tokens"] for body in bodies] == [MOST_NOTE_TOKENS, 500, 500]
        assert len(bodies[0]["messages"]) == 41
        assert len(bodies[2]["messages"]) < 15
        assert bodies[2]["messages"][-1]["content"].startswith("Write a note")


async def test_an_answer_in_the_models_place(tmp_path: Path) -> None:
    async def answer() -> Chunks:
        for chunk in WHOLE:
            yield chunk

    provider = ScriptedProvider()
    async with responding(provider, tmp_path) as app:
        turn = await errand(app).run_planned(plan(), answer=answer)
        assert text_of(turn.response) == "Hello"
        assert provider.generations == []


async def test_a_provider_that_does_not_count_is_no_failure(tmp_path: Path) -> None:
    script: tuple[Chunk, ...] = (delta("Hel"), finish(), {"choices": [], "usage": None})
    async with responding(ScriptedProvider(script), tmp_path) as app:
        turn = await errand(app).run(plan())
        assert turn.response["status"] == "completed"
        assert turn.response["usage"] is None


WAYS_OUT: dict[str, dict[str, Any]] = {
    "cannot be asked": {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
    "is refused": {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "nonsense"}}}},
    "names nothing": {"input": [{"type": "item_reference", "id": "msg_0"}]},
}


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("way", WAYS_OUT)
async def test_whatever_keeps_a_turn_from_being_run_frees_its_conversation(
    tmp_path: Path, way: str, background: bool
) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = await app.conversation()
        asked = plan(conversation=name, background=background, **WAYS_OUT[way])
        with pytest.raises(ApiError):
            await (errand(app).accept if background else errand(app).run)(asked)
        assert await app.is_free(name)
        assert app.state.background.count == 0


async def test_so_does_an_answer_in_the_models_place_that_cannot_be_had(tmp_path: Path) -> None:
    def refuse() -> Chunks:
        raise ApiError("engine_failed")

    async with responding(ScriptedProvider(), tmp_path) as app:
        name = await app.conversation()
        asked = await app.keeping.plan(plan(conversation=name))
        with pytest.raises(ApiError):
            await errand(app).run_planned(asked, answer=refuse)
        assert await app.is_free(name)


async def test_a_failure_to_free_it_does_not_hide_why(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = await app.conversation()
        with failing(app.keeping.conversations, "unlock"), pytest.raises(ApiError) as caught:
            await errand(app).run(plan(conversation=name, **WAYS_OUT["is refused"]))
        assert caught.value.code != "storage_failed"
        await app.keeping.mend()
        assert await app.is_free(name)


async def test_a_turn_in_the_background_is_run_without_whoever_asked(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        turn = await errand(app).accept(plan(background=True))
        assert turn.response["status"] == "queued"
        await turn.settled.wait()
        assert text_of((await app.row(turn.plan.id)).response) == "Hello"
        await until(lambda: app.state.background.count == 0)


# The times between events


def event(kind: str) -> bytes:
    return b"event: response." + kind.encode() + b'\ndata: {"delta":"a.delta\\n"}\n\n'


def test_a_meter_measures_the_deltas(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(errand_module, "time", SimpleNamespace(perf_counter=lambda: now_s))
    metrics = Metrics(list)
    meter = Meter(metrics, "m", 99.0)
    for kind, now_s in (  # noqa: B007 - the meter's clock
        ("created", 100.0),
        ("output_text.delta", 101.0),
        ("output_text.done", 150.0),
        ("reasoning_text.delta", 103.0),
        ("function_call_arguments.delta", 106.0),
    ):
        meter.look(event(kind))
    page = metrics.render().decode()
    assert 'coterie_time_to_first_token_seconds_sum{model="m"} 2.0' in page
    assert 'coterie_time_to_first_token_seconds_count{model="m"} 1.0' in page
    gaps = [
        line for line in page.splitlines() if line.startswith("coterie_") and 'model="m"' in line and "_sum" in line
    ]
    assert any(line.endswith(" 5.0") for line in gaps)
