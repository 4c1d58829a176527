"""One turn: a response from its request to its terminal event, and what is kept of it.

What it promises:

* Nothing is stored, and nobody knows its id, before it says something: what fails until then is an HTTP error and
  leaves no trace. (A response in the background is known from the moment when it was accepted.)
* What is said is in the journal before it is said, and its end is stored before it is told. So whoever reads the
  stored response reads what the stream said, event by event, also after the process was killed.
* It ends in exactly one way: completed, incomplete, failed, or cancelled (its client has gone, or it was told to stop);
  whichever it is, it is stored as that, and its conversation is free again. An end that cannot be stored is told as a
  failure, and stored as that when it can be.
* Once its end is being stored nothing changes it any more: whoever cancels it then is too late.
* A conversation gets the items of a turn that completed or is incomplete, all of them at once; a turn that failed or
  was cancelled leaves it as it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from coterie.dialects.responses import ParsedResponse
from coterie.dialects.responses_ending import fail_instead
from coterie.errors import ApiError
from coterie.turns.live import Live
from coterie.wire.ids import new_id
from coterie.wire.lingua import RESTART, Chunks, Shortcut

if TYPE_CHECKING:
    from coterie.turns.keeping import Keeping

_log = logging.getLogger(__name__)

Item = dict[str, Any]


class Sink(Protocol):
    """Whoever is told each event."""

    @property
    def ready(self) -> bool:
        """Whether :meth:`put` would take an event."""
        ...

    def put(self, event: bytes) -> bool:
        """Take one event where that need not wait; else nothing is done."""
        ...

    async def write(self, event: bytes) -> None:
        """Take one event."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What a turn is to do. ``context`` are the items before its input, ``found`` those that it refers to by id.

    ``told`` says that somebody is told while it is generated: a client that streams, or whoever asks for a response in
    the background. Else it is told when it is whole. ``error_event``: a failure may have an event of its own.
    ``aside``: it reads its conversation and is no part of it. ``silent``: it is to say nothing.
    """

    owner: str
    request_id: str
    parsed: ParsedResponse
    told: bool
    error_event: bool = True
    aside: bool = False
    silent: bool = False
    context: tuple[Item, ...] = ()
    found: dict[str, Item] = field(default_factory=dict)
    id: str = field(default_factory=lambda: new_id("resp"))
    created_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def input(self) -> tuple[Item, ...]:
        """Its own items, with those that it refers to in the place of references."""
        if not self.parsed.references:
            return self.parsed.input
        return tuple(self.found.get(item["id"], item) if _is_reference(item) else item for item in self.parsed.input)

    @property
    def conversation_id(self) -> str | None:
        """The conversation that it is a part of."""
        return None if self.aside else self.parsed.conversation_id


def _is_reference(item: Item) -> bool:
    return bool(item["type"] == "item_reference")


class Turn:
    """See the module. ``relate`` puts a provider's failure into the words of the request.

    ``shortcut`` is that of its chunks.
    """

    def __init__(
        self, plan: Plan, keeping: Keeping, relate: Callable[[ApiError], ApiError], shortcut: Shortcut | None = None
    ) -> None:
        self.plan = plan
        self.cancelled = False
        """Whether it was told to stop."""
        self.failure: ApiError | None = None
        """Why it failed, once it has."""
        self.live: Live | None = None
        """Its events, where others may listen."""
        self.kept: list[bytes] = []
        """Its events, where it is stored without having been told."""
        self.opened = False
        """Whether anybody knows of it."""
        self.settled = asyncio.Event()
        """Set when its end is stored."""
        self._keeping = keeping
        self._relate = relate
        self._shortcut = shortcut or Shortcut()
        self._broken: ApiError | None = None
        """What went wrong on the short way: to raise it there would make it the provider's failure."""
        self._machine = keeping.machine(plan)
        self._task: asyncio.Task[Any] | None = None
        self._untold: list[bytes] = []
        """Events that the journal did not take; they are told with the end."""
        self._unsent: deque[bytes] = deque()
        """Events that were said, and that the sink has not taken yet."""
        self._ending: asyncio.Task[list[bytes]] | None = None
        """Stores the end."""
        self._failed_as: dict[str, Any] | None = None
        """The Response object, where its end could not be stored."""

    @property
    def response(self) -> dict[str, Any]:
        """The Response object as of now."""
        return self._failed_as or self._machine.response

    async def accept(self) -> None:
        """Take a response into the background: from now on it is known. Raises ``ApiError``."""
        await self._open(self._machine.begin())

    async def start(self) -> None:
        """A response in the background is begun with. Raises ``ApiError``."""
        await self._tell(self._machine.start(), None)
        await self._keeping.started(self)

    def cancel(self) -> None:
        """Stop it; it ends as cancelled."""
        if not self.cancelled and self._ending is None:
            self.cancelled = True
            if self._task is not None:
                self._task.cancel()

    def abandon(self, failure: ApiError) -> bool:
        """Nobody will run it any more: end it with ``failure``, or as cancelled where it was told to stop.

        ``False``, and nothing, where it has come to its end, or was never known.
        """
        if self._ending is not None or not self.opened:
            return False
        tail = self._machine.cancel() if self.cancelled else self._fail(failure)
        self._ending = self._keeping.spawn(self._settle(tail))
        return True

    async def run(self, chunks: Chunks, sink: Sink | None, interruption: Callable[[], ApiError | None]) -> None:
        """Generate, tell ``sink`` and keep what it says, to the end. Raises ``ApiError`` where it said nothing yet.

        A cancellation of the task ends it as the failure that ``interruption`` gives; where there is none, its client
        has gone: it ends as cancelled, and the cancellation goes on.
        """
        self._task = _this_task()
        if self.cancelled:
            self._task.cancel()
        try:
            tail = await self._generate(chunks, sink, interruption)
        except BaseException:
            if self._ending is None:
                await self._keeping.withdraw(self.plan)
            raise
        finally:
            self._task = None
        await self._send(tail, sink)

    async def _generate(
        self, chunks: Chunks, sink: Sink | None, interruption: Callable[[], ApiError | None]
    ) -> list[bytes]:
        """All but the last events, which it returns, with the end stored."""
        try:
            await self._relay(chunks, sink)
            tail = self._machine.end()
        except ApiError as error:
            if not self.opened:
                raise self._relate(error) from None
            tail = self._fail(self._relate(error))
        except asyncio.CancelledError:
            failure = self._broken or interruption()
            if not self.opened:
                raise
            if failure is None and not self.cancelled:
                await self._end(self._machine.cancel(), interruption)
                raise
            _this_task().uncancel()
            tail = self._machine.cancel() if failure is None else self._fail(failure)
        except Exception:  # before anything was said the edge tells the client; afterwards nobody else can
            if not self.opened:
                raise
            _log.exception("unexpected exception in a response")
            tail = self._fail(ApiError("internal_error"))
        return await self._end(tail, interruption)

    async def _relay(self, chunks: Chunks, sink: Sink | None) -> None:
        self._shortcut.take = partial(self._take, sink)
        try:
            async for chunk in chunks:
                self._check_short_way()
                if chunk is RESTART:
                    self._machine = self._keeping.machine(self.plan)
                    self.kept.clear()
                elif events := self._machine.feed(chunk):
                    if self.plan.told:
                        await self._tell(events, sink)
                    elif self.plan.parsed.store:
                        self.kept += events
            self._check_short_way()
        finally:
            self._shortcut.take = None

    def _take(self, sink: Sink | None, index: int, text: str, extra: dict[str, Any] | None) -> bool:
        """The short way of :meth:`_relay`. What goes wrong on it ends the turn, as it would there."""
        if self._broken is not None or self._unsent or not (sink is None or sink.ready):
            return False
        event = self._machine.text(index, text, extra)
        if event is None:
            return False
        if not self.plan.told:
            if self.plan.parsed.store:
                self.kept.append(event)
        elif self._is_kept(event) and sink is not None:
            is_told = sink.put(event)
            assert is_told, "it was ready"
        return True

    def _is_kept(self, event: bytes) -> bool:
        """Write ``event`` into the journal, where there is one; where that fails it is told with the end."""
        try:
            if self.live is not None:
                self.live.say([event])
        except ApiError as error:
            self._untold, self._broken = [event], error
            asyncio.get_running_loop().call_soon(self._break)
        return self._broken is None

    def _break(self) -> None:
        """End what waits for more, where it has not seen by itself that it is broken."""
        if self._ending is None and self._task is not None:
            self._task.cancel()

    def _check_short_way(self) -> None:
        if self._broken is not None:
            raise self._broken

    async def _open(self, events: list[bytes]) -> None:
        self.live = await self._keeping.open(self, events)
        self.opened = True

    async def _tell(self, events: list[bytes], sink: Sink | None) -> None:
        if not self.opened:
            await self._open(events)
        elif self.live is not None:
            try:
                self.live.say(events)
            except ApiError:
                self._untold = events
                raise
        await self._send(events, sink)

    async def _send(self, events: list[bytes], sink: Sink | None) -> None:
        """Give ``events`` to ``sink``, after those that it did not take when it was interrupted."""
        if sink is None:
            return
        self._unsent.extend(events)
        while self._unsent:
            await sink.write(self._unsent[0])
            self._unsent.popleft()

    def _fail(self, error: ApiError) -> list[bytes]:
        self.failure = error
        return [*self._untold, *self._machine.fail(error, self.plan.request_id)]

    async def _end(self, tail: list[bytes], interruption: Callable[[], ApiError | None]) -> list[bytes]:
        """Store the end, whoever cancels the request. Returns the events that tell it. Raises ``ApiError``."""
        self._ending = self._keeping.spawn(self._settle(tail))
        while True:
            try:
                return await asyncio.shield(self._ending)
            except asyncio.CancelledError:
                if self._ending.cancelled() or interruption() is None:
                    raise
                _this_task().uncancel()  # the server stops, and this one has come to its end in time

    async def _settle(self, tail: list[bytes]) -> list[bytes]:
        """Store the end. Returns the events that tell it: of a failure, where it could not be stored."""
        try:
            await self._keeping.settle(self, tail)
        except Exception as error:  # whatever it was: who follows must be told an end
            if not self.opened:
                await self._keeping.withdraw(self.plan)
                raise
            tail = self._fail_instead(tail, error)
        self.settled.set()
        if self.live is not None:
            self.live.end(tail)
        return tail

    def _fail_instead(self, tail: list[bytes], error: Exception) -> list[bytes]:
        if not isinstance(error, ApiError):
            _log.exception("unexpected exception while a response was stored")
            error = ApiError("internal_error")
        self.failure = error
        tail = fail_instead(tail, error, self.plan.request_id, error_event=self._keeping.tells_errors(self.plan))
        self._failed_as = orjson.loads(tail[-2].partition(b"\ndata: ")[2])["response"]
        return tail


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
