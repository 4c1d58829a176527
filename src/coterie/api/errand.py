"""How a turn is run for somebody who waits for it, or for nobody."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from coterie.api.active import ActiveRequest
from coterie.api.edge import Exchange
from coterie.api.reading import read
from coterie.api.state import AppState
from coterie.api.writer import StreamWriter
from coterie.dialects.chat import parse_chat, parse_chat_openly
from coterie.observe.metrics import Metrics
from coterie.observe.timing import Timing
from coterie.turns.asking import Asking
from coterie.turns.turn import Plan, Sink, Turn
from coterie.wire.lingua import Chunks, Shortcut

_DELTA: Final = b".delta\n"
_TYPE_BYTES: Final = 64
"""Within so many bytes an event has said its type."""


@dataclass(frozen=True, slots=True)
class Errand:
    """Runs turns for the request ``active``."""

    state: AppState
    timing: Timing
    active: ActiveRequest

    async def run(self, plan: Plan, sink: Sink | None = None, *, most_tokens: int | None = None) -> Turn:
        """Generate what ``plan`` says, with what came before it. Raises ``ApiError`` where nothing was said yet."""
        return await self.run_planned(await self.state.keeping.plan(plan), sink, most_tokens=most_tokens)

    async def run_planned(
        self,
        plan: Plan,
        sink: Sink | None = None,
        *,
        most_tokens: int | None = None,
        answer: Callable[[], Chunks] | None = None,
    ) -> Turn:
        """The same, where what came before is in the plan. ``answer`` gives it in a model's place."""
        async with self.state.keeping.withdrawn_on_failure(plan):
            asking, turn = self._prepared(plan, most_tokens)
            chunks = answer() if answer is not None else asking.chunks()
        async with contextlib.aclosing(chunks):
            await turn.run(chunks, sink, lambda: self.active.failure)
        self.state.metrics.count_usage(plan.parsed.model, _chat_usage(turn))
        return turn

    async def accept(self, plan: Plan) -> Turn:
        """Take a turn into the background. Raises ``ApiError`` for what is wrong now, or without room."""
        with self.state.background.room():
            plan = await self.state.keeping.plan(plan)
            async with self.state.keeping.withdrawn_on_failure(plan):
                asking, turn = self._prepared(plan, None)
                asking.check()
                await turn.accept()
            self.state.background.begin(turn, asking)
        return turn

    def _prepared(self, plan: Plan, most_tokens: int | None) -> tuple[Asking, Turn]:
        keeping = self.state.keeping
        unseal = keeping.sealer.of(plan.owner).unseal
        shortcut = Shortcut()
        asking = Asking(plan, unseal, partial(self._ask, plan, shortcut), most_tokens=most_tokens)
        return asking, Turn(plan, keeping, asking.relate, shortcut)

    def _ask(self, plan: Plan, shortcut: Shortcut, body: dict[str, Any]) -> Chunks:
        state = self.state
        parsed = read(state.router, body, state.dialect_limits, parse_chat, parse_chat_openly)
        generation = dataclasses.replace(parsed.generation, streamed=plan.told, shortcut=shortcut)
        return state.router.generate(generation, self.timing)


class Meter:
    """Measures when the deltas of a stream come. ``started_s`` is when its request did, of the performance counter."""

    def __init__(self, metrics: Metrics, model: str, started_s: float) -> None:
        self._first = metrics.first_token.of(model)
        self._gaps = metrics.inter_token.of(model)
        self._started_s = started_s
        self._last_s = 0.0

    def look(self, event: bytes) -> None:
        """An event comes now."""
        if _DELTA in event[:_TYPE_BYTES]:
            now_s = time.perf_counter()
            if self._last_s:
                self._gaps.add(now_s - self._last_s)
            else:
                self._first.add(now_s - self._started_s)
            self._last_s = now_s


class MeteredSink:
    """Writes the events of a stream, and measures when they come."""

    def __init__(self, state: AppState, exchange: Exchange, model: str) -> None:
        self.writer = StreamWriter(exchange)
        self._meter = Meter(state.metrics, model, exchange.started_s)

    @property
    def ready(self) -> bool:
        """Whether the client reads what is written."""
        return self.writer.ready

    def put(self, event: bytes) -> bool:
        """Send one event where that need not wait."""
        is_sent = self.writer.put(event)
        if is_sent:
            self._meter.look(event)
        return is_sent

    async def write(self, event: bytes) -> None:
        """Send one event."""
        self._meter.look(event)
        await self.writer.write(event)


def _chat_usage(turn: Turn) -> dict[str, Any] | None:
    usage = turn.response["usage"]
    return usage and {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"]}
