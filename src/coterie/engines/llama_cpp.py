"""The llama.cpp engine: loads on demand, generates, cancels, unloads when idle.

What it promises:

* Generations run side by side in the model's slots (continuous batching); those that find none wait in a bounded queue
  (:mod:`coterie.engines.slots`).
* The model is loaded once for however many requests wait for it. A load that fails is the failure of those requests;
  for :data:`RETRY_LOAD_AFTER_S` the same failure answers at once, then a request tries again.
* A worker that dies takes its running generations with it (each raises ``engine_failed``), nothing else: the next
  request starts another.
* Closing a generation's iterator closes its connection, and the worker frees the slot between two steps.
* Prompts are computed in the order in which they came (:mod:`coterie.engines.prompts`).
* There is no thread: a token goes from the worker's socket through one callback of the event loop to its consumer.
* Deadlines: loading, first token (counted from when its prompt is computed), and idle between tokens, each
  ``engine_timeout``. They run only while somebody waits for the engine. A worker that was late and then does not
  answer at all is ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson

from coterie.engines.llama_errors import classify
from coterie.engines.llama_request import Job, to_chunks
from coterie.engines.process import Worker, WorkerError, prompts_at_once, start_worker
from coterie.engines.prompts import PromptLine
from coterie.engines.slots import SlotQueue, Ticket
from coterie.engines.spec import EngineSpec, EngineState, ModelFacts
from coterie.engines.watchdog import Watchdog
from coterie.errors import ApiError
from coterie.wire.http1 import Exchange, ExchangeError, open_unix, request_bytes
from coterie.wire.lingua import Chunks, Embedded, Prompt
from coterie.wire.sse import SseError, SseParser

_log = logging.getLogger(__name__)

RETRY_LOAD_AFTER_S = 5.0
"""Seconds during which a failed load is not tried again."""

PROBE_S = 30.0
"""Seconds in which a worker that was too slow must show that it still computes; one step may be long."""

_ANSWER_BYTES = 64 * 1024 * 1024
_EVENT_BYTES = 4 * 1024 * 1024


class LlamaCppEngine:
    """One model, run by one worker process at a time."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.queue = SlotQueue(spec.slots, spec.queue)
        self.state = EngineState.UNLOADED
        self.loads = 0
        """Loads so far, successful ones."""
        self._worker: Worker | None = None
        self._facts: ModelFacts | None = None
        self._loading: asyncio.Task[None] | None = None
        self._load_failed_at_s = float("-inf")
        self._load_failure: ApiError | None = None
        self._unload_timer: asyncio.TimerHandle | None = None
        self._unloading: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._prompts = PromptLine(prompts_at_once(spec))

    @property
    def worker_pid(self) -> int | None:
        """The process that runs the model, where one does."""
        return self._worker.pid if self._worker is not None and self._worker.alive else None

    @property
    def refuses(self) -> bool:
        """Whether a load failed a moment ago, and requests get the same failure without another try."""
        failed_s = time.monotonic() - self._load_failed_at_s
        return self._load_failure is not None and failed_s < RETRY_LOAD_AFTER_S

    def enter(self, count: int) -> list[Ticket]:
        """Take ``count`` places in the queue. Raises ``server_is_overloaded``. Release each ticket."""
        self._stay()
        return self.queue.enter(count)

    def leave(self, tickets: list[Ticket]) -> None:
        """Release ``tickets``; the last one out starts the idle time."""
        for ticket in tickets:
            ticket.release()
        if self.queue.idle:
            self._schedule_unload()

    async def facts(self) -> ModelFacts:
        """What the model says of itself; loads it where needed. Raises ``ApiError``."""
        await self._loaded()
        assert self._facts is not None
        return self._facts

    async def generate(self, ticket: Ticket, job: Job, prompt_param: str, wait_s: float | None) -> Chunks:
        """Wait at most ``wait_s`` for the ticket's turn, then generate one choice. Raises ``ApiError``.

        The slot is given back at the end of the choice: another of the same request may be waiting for it.
        """
        with ticket:
            worker, exchange = await self._computed(ticket, job, wait_s)
            watchdog = self._watch(exchange)
            try:
                async for event in self._events(worker, exchange, prompt_param):
                    for chunk in to_chunks(job, event):
                        watchdog.hold()  # a slow reader is not a slow engine
                        yield chunk
                        watchdog.touch()
            except ApiError as error:
                if error.code == "engine_timeout":
                    self._suspect(worker)
                raise
            finally:
                watchdog.stop()
                exchange.close()

    async def _computed(self, ticket: Ticket, job: Job, wait_s: float | None) -> tuple[Worker, Exchange]:
        """Wait for a slot and for the prompts before this one; then for its own, whose end the head's coming is."""
        await ticket.turn(wait_s)
        await self._loaded()
        left_s = None if wait_s is None else max(0.0, wait_s - (ticket.waited_s or 0.0))
        async with self._prompts.place(left_s, lambda: self.queue.overloaded(1)):
            return await self._open(job.path, job.body)

    async def embed(self, inputs: tuple[Prompt, ...]) -> Embedded:
        """The vectors of ``inputs``, in order. Raises ``ApiError``."""
        answer = await self._post("/v1/embeddings", {"input": list(inputs), "encoding_format": "float"})
        rows = sorted(answer["data"], key=lambda row: row["index"])
        return Embedded([row["embedding"] for row in rows], answer["usage"]["prompt_tokens"])

    async def busy_slots(self) -> int:
        """How many of the worker's slots compute right now, as it says itself; 0 where no model is loaded."""
        if self._worker is None or not self._worker.alive or self._facts is None:
            return 0
        slots = await self._get(self._worker, "/slots")
        return sum(1 for slot in slots if slot["is_processing"])

    async def preload(self) -> None:
        """Load now. Raises ``ApiError``."""
        await self._loaded()
        if self.queue.idle:
            self._schedule_unload()

    async def stop(self) -> None:
        """Cancel a load, end the worker, and wait for both."""
        self._stay()
        if self._probing is not None:
            self._probing.cancel()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        if self._unloading is not None:
            await asyncio.wait([self._unloading])
        await self._unload()

    # Loading

    async def _loaded(self) -> Worker:
        if self._worker is not None and self._worker.alive and self.state is EngineState.READY:
            return self._worker
        if self._load_failure is not None and self.refuses:
            raise self._load_failure.with_traceback(None)
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
            self._loading.add_done_callback(self._load_ended)
        loading = self._loading
        # One caller that leaves must not end the load for the others.
        await asyncio.wait([loading])
        if loading.cancelled():
            raise ApiError("server_shutting_down", retry_after_s=1.0)
        loading.result()
        assert self._worker is not None
        return self._worker

    async def _load(self) -> None:
        if self._unloading is not None:
            await asyncio.wait([self._unloading])
        if self._worker is not None:
            _log.error("%s: %s", self.spec.model, self._worker.epitaph())
            await self._unload()
        self.state = EngineState.LOADING
        started_s = time.monotonic()
        try:
            worker = await start_worker(self.spec)
        except WorkerError as error:
            raise ApiError("model_load_failed", model=self.spec.model, detail=str(error)) from None
        except TimeoutError:
            raise ApiError("engine_timeout", limit_s=f"{self.spec.load_timeout_s:g}", detail="loading") from None
        self._worker = worker
        try:
            self._facts = await self._ask_facts(worker)
        except BaseException:
            await self._unload()
            raise
        self.state = EngineState.READY
        self.loads += 1
        _log.info("%s: loaded in %.1f s by process %d", self.spec.model, time.monotonic() - started_s, worker.pid)

    def _load_ended(self, task: asyncio.Task[None]) -> None:
        self._loading = None
        if task.cancelled():
            self.state = EngineState.UNLOADED
        elif (error := task.exception()) is not None:
            self.state = EngineState.FAILED
            self._load_failed_at_s = time.monotonic()
            self._load_failure = error if isinstance(error, ApiError) else None
            _log.error("%s: not loaded: %s", self.spec.model, getattr(error, "detail", error))
        elif self.queue.idle:  # everybody who waited for it has left
            self._schedule_unload()

    async def _ask_facts(self, worker: Worker) -> ModelFacts:
        props = await self._get(worker, "/props")
        models = await self._get(worker, "/v1/models")
        return ModelFacts(
            context_tokens=props["default_generation_settings"]["n_ctx"],
            vocabulary=models["data"][0]["meta"]["n_vocab"],
            vision=bool(props.get("modalities", {}).get("vision")),
        )

    # A worker that hangs

    def _suspect(self, worker: Worker) -> None:
        """Find out whether a worker that was too slow is stuck; one that is makes room for another."""
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe(worker))
            self._probing.add_done_callback(self._probed)

    async def _probe(self, worker: Worker) -> None:
        try:
            async with asyncio.timeout(PROBE_S):
                # Answered by the thread that computes, between two steps.
                await self._get(worker, "/slots")
        except (TimeoutError, ApiError):
            _log.error("%s: process %d does not answer, and is ended", self.spec.model, worker.pid)
            worker.kill()

    def _probed(self, _: asyncio.Task[None]) -> None:
        self._probing = None

    # Unloading

    def _stay(self) -> None:
        if self._unload_timer is not None:
            self._unload_timer.cancel()
            self._unload_timer = None

    def _schedule_unload(self) -> None:
        self._stay()
        if self.spec.unload_after_s and self._worker is not None:
            loop = asyncio.get_running_loop()
            self._unload_timer = loop.call_later(self.spec.unload_after_s, self._unload_if_idle)

    def _unload_if_idle(self) -> None:
        if self.queue.idle and self._loading is None:
            _log.info("%s: unloaded after %g s without a request", self.spec.model, self.spec.unload_after_s)
            self._unloading = asyncio.create_task(_end(self._let_go()))

    async def _unload(self) -> None:
        await _end(self._let_go())

    def _let_go(self) -> Worker | None:
        """Forget the worker, at once: nobody may be given one that is about to end."""
        worker, self._worker, self._facts = self._worker, None, None
        self.state = EngineState.UNLOADED
        return worker

    # Talking to the worker

    async def _open(self, path: str, body: dict[str, Any]) -> tuple[Worker, Exchange]:
        """Send a request to a loaded worker, up to the head of its answer.

        A worker that dies before it took the request is replaced, once: it may have been dead for long, unseen.
        """
        worker = await self._loaded()
        try:
            return worker, await self._head(worker, path, body)
        except ExchangeError as error:
            failure = await self._failed(worker, error)
        if worker.alive:
            raise failure
        worker = await self._loaded()
        try:
            return worker, await self._head(worker, path, body)
        except ExchangeError as error:
            raise await self._failed(worker, error) from None

    async def _head(self, worker: Worker, path: str, body: dict[str, Any]) -> Exchange:
        exchange = await _connect(worker, path, body)
        try:
            async with asyncio.timeout(self.spec.first_token_timeout_s):
                await exchange.head()
        except TimeoutError:
            exchange.close()
            self._suspect(worker)
            raise ApiError("engine_timeout", limit_s=f"{self.spec.first_token_timeout_s:g}") from None
        except BaseException:
            exchange.close()
            raise
        return exchange

    def _watch(self, exchange: Exchange) -> Watchdog:
        spec = self.spec
        return Watchdog(spec.first_token_timeout_s, spec.idle_timeout_s, exchange.fail, since_s=exchange.begun_at_s)

    async def _events(self, worker: Worker, exchange: Exchange, prompt_param: str) -> AsyncIterator[dict[str, Any]]:
        """The JSON events of a streamed answer, up to its ``[DONE]``."""
        parser = SseParser(max_event_bytes=_EVENT_BYTES)
        try:
            head = await exchange.head()
            if head.status != 200:
                raise classify(_error_of(await exchange.read(_ANSWER_BYTES)), prompt_param)
            async for data in exchange.chunks():
                for event in parser.feed(data):
                    if event.data == b"[DONE]":
                        return
                    yield _checked(orjson.loads(event.data), prompt_param)
        except (ExchangeError, SseError, orjson.JSONDecodeError) as error:
            raise await self._failed(worker, error) from None
        raise await self._failed(worker, ExchangeError("the stream ended without its end mark"))

    async def _get(self, worker: Worker, path: str) -> Any:
        try:
            return await self._answer(worker, await _connect(worker, path, None))
        except ExchangeError as error:
            raise await self._failed(worker, error) from None

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        return await self._answer(*await self._open(path, body))

    async def _answer(self, worker: Worker, exchange: Exchange) -> Any:
        """The JSON of an answer that is not streamed."""
        watchdog = self._watch(exchange)
        try:
            head = await exchange.head()
            answer = await exchange.read(_ANSWER_BYTES)
        except ExchangeError as error:
            raise await self._failed(worker, error) from None
        finally:
            watchdog.stop()
            exchange.close()
        if head.status != 200:
            raise classify(_error_of(answer), "input")
        return orjson.loads(answer)

    async def _failed(self, worker: Worker, error: Exception) -> ApiError:
        """The failure of a generation whose worker broke off; a dead one is given a moment to be seen as dead."""
        try:
            async with asyncio.timeout(1.0):
                await worker.wait()
        except TimeoutError:
            return ApiError("engine_failed", detail=str(error))
        return ApiError("engine_failed", detail=f"{error}; {worker.epitaph()}")


async def _end(worker: Worker | None) -> None:
    if worker is not None:
        await worker.stop()


async def _connect(worker: Worker, path: str, body: dict[str, Any] | None) -> Exchange:
    headers = {"authorization": f"Bearer {worker.key}", "content-type": "application/json"}
    method, data = ("GET", b"") if body is None else ("POST", orjson.dumps(body))
    return await open_unix(worker.socket, request_bytes(method, path, headers, data))


def _checked(event: Any, prompt_param: str) -> dict[str, Any]:
    """An event that is not an error. llama.cpp's first event of a completion can be ``null``."""
    if not isinstance(event, dict):
        return {}
    if "error" in event:
        raise classify(event["error"], prompt_param)
    return event


def _error_of(body: bytes) -> dict[str, Any]:
    try:
        error = orjson.loads(body)["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}
