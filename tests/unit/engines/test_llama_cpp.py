"""The engine, with the real model in a real process: it loads, generates, dies, is replaced, and unloads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.support.engine import gone, hello, is_running, spec, story, text_of, tokenize
from tests.support.models import damaged_copy
from tests.support.waiting import until

from coterie.engines import llama_cpp
from coterie.engines.llama_cpp import LlamaCppEngine
from coterie.engines.llama_request import Job, text_job
from coterie.engines.process import start_worker
from coterie.engines.slots import Ticket
from coterie.engines.spec import EngineState
from coterie.engines.watchdog import Watchdog
from coterie.errors import ApiError
from coterie.wire.http1 import Exchange, open_unix
from coterie.wire.lingua import Chunks

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(name="engine", scope="module", loop_scope="module")
async def _engine() -> AsyncIterator[LlamaCppEngine]:
    """One engine for all tests that leave it in order."""
    engine = LlamaCppEngine(spec())
    yield engine
    await engine.stop()


@contextlib.asynccontextmanager
async def fresh(**changes: Any) -> AsyncIterator[LlamaCppEngine]:
    """An engine for a test alone."""
    engine = LlamaCppEngine(spec(**changes))
    try:
        yield engine
    finally:
        await engine.stop()


@contextlib.contextmanager
def ticket_of(engine: LlamaCppEngine) -> Iterator[Ticket]:
    tickets = engine.enter(1)
    try:
        yield tickets[0]
    finally:
        engine.leave(tickets)


@contextlib.asynccontextmanager
async def generating(engine: LlamaCppEngine, job: Job) -> AsyncIterator[Chunks]:
    """A generation that has said its first word."""
    with ticket_of(engine) as ticket:
        async with contextlib.aclosing(engine.generate(ticket, job, "messages", 60)) as chunks:
            await anext(chunks)
            yield chunks


async def failure_of(engine: LlamaCppEngine, job: Job) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await text_of(engine, job)
    return caught.value


async def pid_of(engine: LlamaCppEngine) -> int:
    await engine.facts()
    assert engine.worker_pid is not None
    return engine.worker_pid


# Generating.


async def test_a_chat(engine: LlamaCppEngine) -> None:
    assert await text_of(engine, hello()) == await text_of(engine, hello())
    assert engine.queue.idle


async def test_what_the_model_says_of_itself(engine: LlamaCppEngine) -> None:
    facts = await engine.facts()
    assert (facts.context_tokens, facts.vision) == (256, False)
    assert facts.vocabulary > 40_000


async def test_tokens_go_in_as_they_come_out(engine: LlamaCppEngine) -> None:
    tokens = await tokenize(engine, "Once upon a time")
    body: dict[str, Any] = {"max_tokens": 4, "temperature": 0}
    by_text = await text_of(engine, text_job(body, "Once upon a time", 0))
    assert by_text == await text_of(engine, text_job(body, tokens, 0)) != ""


async def test_usage_and_log_probabilities(engine: LlamaCppEngine) -> None:
    job = hello(max_tokens=3, logprobs=True, top_logprobs=2)
    with ticket_of(engine) as ticket:
        chunks = [chunk async for chunk in engine.generate(ticket, job, "messages", None)]
    *said, usage = chunks
    assert usage["usage"]["completion_tokens"] == 3
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + 3
    entries = [entry for chunk in said for entry in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert len(entries) == 3
    assert all(len(entry["top_logprobs"]) == 2 and entry["logprob"] <= 0 for entry in entries)
    assert said[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    "body",
    [
        {"frequency_penalty": 2, "presence_penalty": -2},
        {"temperature": 2, "top_p": 0.5, "seed": 2**63 - 1},
        {"seed": 0, "stop": ["\n", "x"]},
        {"logit_bias": {"5": 100, "6": -100}},
        {"response_format": {"type": "json_object"}},
    ],
    ids=str,
)
async def test_parameters_that_the_engine_takes(body: dict[str, Any], engine: LlamaCppEngine) -> None:
    await text_of(engine, hello(**body))


async def test_a_seed_repeats_an_answer(engine: LlamaCppEngine) -> None:
    job = hello(max_tokens=12, temperature=1.5, seed=7)
    assert await text_of(engine, job) == await text_of(engine, job)


async def test_a_full_context_is_the_callers_fault(engine: LlamaCppEngine) -> None:
    failure = await failure_of(engine, text_job({}, "word " * 400, 0))
    assert (failure.code, failure.param) == ("context_length_exceeded", "messages")
    assert "maximum context length is 256 tokens" in failure.message
    assert await text_of(engine, hello())


async def test_a_schema_that_cannot_be_enforced_is_the_callers_fault(engine: LlamaCppEngine) -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    failure = await failure_of(engine, hello(response_format=form))
    assert (failure.code, failure.param) == ("invalid_json_schema", "response_format")


async def test_a_request_that_finds_no_slot_in_time(engine: LlamaCppEngine) -> None:
    tickets = engine.enter(3)
    try:
        with pytest.raises(ApiError) as caught:
            await anext(engine.generate(tickets[2], hello(), "messages", 0.001))
        assert caught.value.code == "server_is_overloaded"
    finally:
        engine.leave(tickets)
    assert await text_of(engine, hello())


async def test_more_requests_than_slots_are_served_in_turn(engine: LlamaCppEngine) -> None:
    texts = await asyncio.gather(*(text_of(engine, hello()) for _ in range(6)))
    assert len(set(texts)) == 1


async def test_closing_a_generation_frees_its_slot(engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    exchanges: list[Exchange] = []

    async def connect(path: str, request: bytes) -> Exchange:
        exchanges.append(await open_unix(path, request))
        return exchanges[-1]

    monkeypatch.setattr(llama_cpp, "open_unix", connect)
    async with generating(engine, story()) as stays:
        async with generating(engine, story()):
            *_, first, second = (exchange._transport for exchange in exchanges)
            assert first is not None
            assert second is not None
            assert not second.is_closing()
        assert (first.is_closing(), second.is_closing()) == (False, True)
        while await engine.busy_slots() > 1:
            pass
        assert await engine.busy_slots() == 1
        await anext(stays)
    while await engine.busy_slots():
        pass


async def test_a_prompt_waits_for_the_one_before_it_and_no_longer_than_it_may(engine: LlamaCppEngine) -> None:
    await engine.facts()
    while await engine.busy_slots():  # with what a test before has left
        pass
    async with engine._prompts.place(None, lambda: ApiError("internal_error")):
        waits = asyncio.create_task(text_of(engine, hello()))
        await until(lambda: engine.queue.running == 1)
        with ticket_of(engine) as ticket, pytest.raises(ApiError) as late:
            await anext(engine.generate(ticket, hello(), "messages", 0.0))
        assert late.value.code == "server_is_overloaded"
        assert late.value.retry_after_s
        assert await engine.busy_slots() == 0
        assert not waits.done()
    assert await waits == await text_of(engine, hello())


async def test_prompts_that_come_together_are_computed_in_order(engine: LlamaCppEngine) -> None:
    begun: list[int] = []

    async def read(number: int) -> None:
        async with generating(engine, story()):
            begun.append(number)

    await asyncio.gather(*(read(number) for number in range(4)))
    assert begun == [0, 1, 2, 3]


async def test_a_reader_that_is_cancelled_frees_its_slot(engine: LlamaCppEngine) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async with generating(engine, story()) as chunks:
            begun.set()
            async for _ in chunks:
                pass

    reading = asyncio.create_task(read())
    await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    while await engine.busy_slots():
        pass
    assert engine.queue.idle


class RecordingWatchdog(Watchdog):
    """Notes when its clock is stopped and started."""

    def __init__(self, *limits: Any, **since: Any) -> None:
        super().__init__(*limits, **since)
        self.log: list[str] = []

    def hold(self) -> None:
        self.log.append("hold")
        super().hold()

    def touch(self) -> None:
        self.log.append("touch")
        super().touch()


async def test_a_slow_reader_is_no_slow_engine(engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    dogs: list[RecordingWatchdog] = []

    def watchdog(*limits: Any, **since: Any) -> Watchdog:
        dogs.append(RecordingWatchdog(*limits, **since))
        return dogs[-1]

    await engine.facts()
    monkeypatch.setattr(llama_cpp, "Watchdog", watchdog)
    async with generating(engine, story(max_tokens=5)) as chunks:
        [dog] = dogs
        assert dog.log == ["hold"]
        await anext(chunks)
        assert dog.log == ["hold", "touch", "hold"]


# Dying.


async def test_a_worker_that_dies_while_idle_is_replaced(engine: LlamaCppEngine) -> None:
    pid = await pid_of(engine)
    loads = engine.loads
    os.kill(pid, signal.SIGKILL)
    assert await text_of(engine, hello())
    assert engine.loads == loads + 1
    assert not is_running(pid)


async def test_a_worker_that_dies_at_work_takes_its_generations_along(engine: LlamaCppEngine) -> None:
    pid = await pid_of(engine)
    async with generating(engine, story()) as first, generating(engine, story()) as second:
        os.kill(pid, signal.SIGKILL)
        for chunks in (first, second):
            with pytest.raises(ApiError) as caught:
                async for _ in chunks:
                    pass
            assert caught.value.code == "engine_failed"
            assert str(pid) in str(caught.value.detail)
            assert str(pid) not in caught.value.message
    assert await text_of(engine, hello())


async def test_an_engine_that_stands_still_is_given_up(engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = await pid_of(engine)
    monkeypatch.setattr(engine, "spec", spec(idle_timeout_s=0.3))
    async with generating(engine, story()) as chunks:
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(ApiError) as caught:
                async for _ in chunks:
                    pass
        finally:
            os.kill(pid, signal.SIGCONT)
    assert (caught.value.code, "0.3 seconds" in caught.value.message) == ("engine_timeout", True)
    monkeypatch.undo()
    assert await text_of(engine, hello())


async def test_an_engine_that_never_begins_is_given_up(engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = await pid_of(engine)
    monkeypatch.setattr(engine, "spec", spec(first_token_timeout_s=0.3))
    os.kill(pid, signal.SIGSTOP)
    try:
        failure = await failure_of(engine, hello())
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (failure.code, "0.3 seconds" in failure.message) == ("engine_timeout", True)
    monkeypatch.undo()
    assert await text_of(engine, hello())


async def test_an_engine_that_hangs_is_ended_and_the_next_request_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "PROBE_S", 0.2)
    async with fresh(idle_timeout_s=0.3) as engine:
        async with generating(engine, story()) as chunks:
            stuck = await pid_of(engine)
            os.kill(stuck, signal.SIGSTOP)
            with pytest.raises(ApiError) as caught:
                async for _ in chunks:
                    pass
        assert caught.value.code == "engine_timeout"
        await gone(stuck)
        monkeypatch.setattr(engine, "spec", spec())
        assert await text_of(engine, hello())
        assert engine.loads == 2


# Loading.


async def test_one_load_for_all_and_an_unload_when_idle() -> None:
    async with fresh(unload_after_s=0.05) as engine:
        assert (engine.state, engine.worker_pid) == (EngineState.UNLOADED, None)
        assert await engine.busy_slots() == 0
        await asyncio.gather(*(text_of(engine, hello(max_tokens=1)) for _ in range(8)))
        assert (engine.loads, engine.state) == (1, EngineState.READY)
        first = await pid_of(engine)
        await gone(first)
        assert (engine.state, engine.worker_pid) == (EngineState.UNLOADED, None)
        async with generating(engine, story()):
            assert engine.loads == 2
            second = await pid_of(engine)
            engine._unload_if_idle()  # the time is up, but somebody is here
            assert engine.worker_pid == second
        await gone(second)
        assert engine.state is EngineState.UNLOADED


async def test_a_request_that_comes_with_the_unload_gets_another_worker() -> None:
    async with fresh(unload_after_s=3600) as engine:
        pid = await pid_of(engine)
        engine._unload_if_idle()
        assert engine.worker_pid is None
        assert await text_of(engine, hello())
        assert engine.worker_pid != pid
        await gone(pid)


async def test_a_load_that_everybody_left_is_unloaded_in_time() -> None:
    async with fresh(unload_after_s=0.05) as engine:
        waiting = asyncio.create_task(text_of(engine, hello()))
        await until(lambda: engine.state is EngineState.LOADING)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: engine.loads == 1 and engine.state is EngineState.UNLOADED)
        assert engine.worker_pid is None


async def test_preloading() -> None:
    async with fresh() as engine:
        await engine.preload()
        assert (engine.state, engine.loads) == (EngineState.READY, 1)


@pytest.mark.parametrize("kind", ["no model", "a cut one"])
async def test_a_file_that_cannot_be_loaded(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = damaged_copy(tmp_path)
    if kind == "no model":
        path.write_bytes(b"SECRET" * 1000)
    starts: list[object] = []
    real_start = start_worker

    async def start(given: Any) -> Any:
        starts.append(given)
        return await real_start(given)

    monkeypatch.setattr(llama_cpp, "start_worker", start)
    async with fresh(path=str(path)) as engine:
        failures = await asyncio.gather(*(failure_of(engine, hello()) for _ in range(3)))
        failures.append(await failure_of(engine, hello()))
        assert {failure.code for failure in failures} == {"model_load_failed"}
        assert (len(starts), engine.state, engine.worker_pid) == (1, EngineState.FAILED, None)
        assert not any(str(tmp_path) in failure.message for failure in failures)
        assert engine.queue.idle
        monkeypatch.setattr(engine, "spec", spec())
        monkeypatch.setattr(llama_cpp, "RETRY_LOAD_AFTER_S", 0)
        assert await text_of(engine, hello())
        assert (len(starts), engine.state) == (2, EngineState.READY)


async def test_a_load_that_takes_too_long_fails_alike_for_a_while() -> None:
    async with fresh(load_timeout_s=0.01) as engine:
        for _ in range(2):
            failure = await failure_of(engine, hello())
            assert (failure.code, failure.message) == (
                "engine_timeout",
                "The engine did not answer within 0.01 seconds.",
            )
        assert engine.state is EngineState.FAILED


async def test_a_worker_that_cannot_say_what_it_loaded_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    async def ask(engine: LlamaCppEngine, worker: Any) -> Any:
        pids.append(worker.pid)
        raise ApiError("engine_failed")

    monkeypatch.setattr(LlamaCppEngine, "_ask_facts", ask)
    async with fresh() as engine:
        assert (await failure_of(engine, hello())).code == "engine_failed"
        assert not is_running(pids[0])
        assert (engine.state, engine.worker_pid) == (EngineState.FAILED, None)


async def test_a_stop_during_a_load_tells_those_who_wait() -> None:
    engine = LlamaCppEngine(spec())
    waiting = [asyncio.create_task(failure_of(engine, hello())) for _ in range(2)]
    await until(lambda: engine.state is EngineState.LOADING)
    await engine.stop()
    assert [(await task).code for task in waiting] == ["server_shutting_down"] * 2
    assert (engine.state, engine.worker_pid) == (EngineState.UNLOADED, None)


async def test_a_stop_during_an_answer_ends_it() -> None:
    engine = LlamaCppEngine(spec())
    async with generating(engine, story()) as chunks:
        pid = await pid_of(engine)
        await engine.stop()
        assert not is_running(pid)
        with pytest.raises(ApiError) as caught:
            async for _ in chunks:
                pass
        assert caught.value.code == "engine_failed"
    await engine.stop()


# Embedding.


async def test_embeddings() -> None:
    async with fresh(task="embed", pooling="mean", slots=1) as engine:
        embedded = await engine.embed(("cat", "tax law", "cat"))
        cat, law, again = embedded.vectors
        assert len(cat) == len(law) > 100
        assert again == pytest.approx(cat, abs=1e-3)
        assert law != pytest.approx(cat, abs=1e-2)
        assert embedded.prompt_tokens == 2 * len(await tokenize(engine, "cat")) + len(await tokenize(engine, "tax law"))
        assert (await engine.embed((await tokenize(engine, "cat"),))).vectors[0] == pytest.approx(cat, abs=1e-3)
        with pytest.raises(ApiError) as caught:
            await engine.embed(("word " * 400,))
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
