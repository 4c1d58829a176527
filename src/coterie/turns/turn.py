"""One turn: a response from its request to its terminal event, and what is kept of it.

What it promises:

* Nothing is stored, and nobody knows its id, before it says something: what fails until then is an HTTP error and
  leaves no trace. (A response in the background is known from the moment when it was accepted.)
* What is said is in the journal before it is said, and its end is stored before it is told. So whoever reads the
  stored response reads what the stream said, event by event, also after the process was killed.
* It ends in exactly one way: completed, incomplete, failed, or cancelled (its client has gone, or it was told to stop);
  whichever it is, it is stored as that, and its conversation is free again. An end that cannot be stored is told as a
  failure.
* A conversation gets the items of a turn that completed or is incomplete, all of them at once; a turn that failed or
  was cancelled leaves it as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from coterie.dialects.responses import ParsedResponse
from coterie.dialects.responses_ending import fail_instead
from coterie.errors import ApiError
from coterie.turns.live import Live
from coterie.wire.ids import new_id
from coterie.wire.lingua import RESTART, Chunks

if TYPE_CHECKING:
    from coterie.turns.keeping import Keeping

_log = logging.getLogger(__name__)

Item = dict[str, Any]


class Sink(Protocol):
    """Whoever is told each event."""

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
    def conversation_id(self) -> str | None:
        """The conversation that it is a part of."""
        return None if self.aside else self.parsed.conversation_id


class Turn:
    """See the module. ``relate`` puts a provider's failure into the words of the request."""

    def __init__(self, plan: Plan, keeping: Keeping, relate: Callable[[ApiError], ApiError]) -> None:
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
        self._machine = keeping.machine(plan)
        self._task: asyncio.Task[Any] | None = None

    @property
    def response(self) -> dict[str, Any]:
        """The Response object as of now."""
        return self._machine.response

    async def accept(self) -> None:
        """Take a response into the background: from now on it is known. Raises ``ApiError``."""
        events = self._machine.begin()
        await self._open()
        await self._tell(events, None)

    async def start(self) -> None:
        """A response in the background is begun with. Raises ``ApiError``."""
        await self._tell(self._machine.start(), None)
        await self._keeping.started(self)

    def cancel(self) -> None:
        """Stop it; it ends as cancelled."""
        if not self.cancelled:
            self.cancelled = True
            if self._task is not None:
                self._task.cancel()

    async def run(self, chunks: Chunks, sink: Sink | None, interruption: Callable[[], ApiError | None]) -> None:
        """Generate, tell ``sink`` and keep what it says, to the end. Raises ``ApiError`` where it said nothing yet.

        A cancellation of the task ends it as the failure that ``interruption`` gives; where there is none, its client
        has gone: it ends as cancelled, and the cancellation goes on.
        """
        self._task = asyncio.current_task()
        try:
            tail = await self._generate(chunks, sink, interruption)
        except BaseException:
            if not self.settled.is_set():
                await self._undisturbed(self._keeping.withdraw(self.plan))
            raise
        finally:
            self._task = None
        if sink is not None:
            for event in tail:
                await sink.write(event)

    async def _generate(
        self, chunks: Chunks, sink: Sink | None, interruption: Callable[[], ApiError | None]
    ) -> list[bytes]:
        """All but the last events, which it returns, with the end stored."""
        try:
            await self._relay(chunks, sink)
            tail = self._machine.end()
            if self.plan.told and not self.opened:  # it says nothing before its end
                await self._open()
        except ApiError as error:
            if not self.opened:
                raise self._relate(error) from None
            tail = self._fail(self._relate(error))
        except asyncio.CancelledError:
            failure = interruption()
            if not self.opened:
                raise
            if failure is None and not self.cancelled:
                await self._settle(self._machine.cancel())
                raise
            _uncancel()
            tail = self._machine.cancel() if failure is None else self._fail(failure)
        except Exception:  # before anything was said the edge tells the client; afterwards nobody else can
            if not self.opened:
                raise
            _log.exception("unexpected exception in a response")
            tail = self._fail(ApiError("internal_error"))
        return await self._settle(tail)

    async def _relay(self, chunks: Chunks, sink: Sink | None) -> None:
        async for chunk in chunks:
            if chunk is RESTART:
                self._machine = self._keeping.machine(self.plan)
                self.kept.clear()
            elif events := self._machine.feed(chunk):
                if self.plan.told:
                    if not self.opened:
                        await self._open()
                    await self._tell(events, sink)
                elif self.plan.parsed.store:
                    self.kept += events

    async def _open(self) -> None:
        self.live = await self._keeping.open(self)
        self.opened = True

    async def _tell(self, events: list[bytes], sink: Sink | None) -> None:
        if self.live is not None:
            self.live.say(events)
        if sink is not None:
            for event in events:
                await sink.write(event)

    def _fail(self, error: ApiError) -> list[bytes]:
        self.failure = error
        return self._machine.fail(error, self.plan.request_id)

    async def _settle(self, tail: list[bytes]) -> list[bytes]:
        """Store the end. Returns the events that tell it: of a failure, where it could not be stored."""
        try:
            await self._undisturbed(self._keeping.settle(self, tail))
        except ApiError as error:
            if not self.opened:
                raise
            self.failure = error
            tail = fail_instead(tail, error, self.plan.request_id, error_event=self._keeping.tells_errors(self.plan))
        self.settled.set()
        if self.live is not None:
            with contextlib.suppress(ApiError):  # a journal that cannot be written has failed the turn already
                self.live.say(tail)
            self.live.end()
        return tail

    async def _undisturbed(self, work: Coroutine[Any, Any, None]) -> None:
        """Finish ``work``, whoever cancels the request meanwhile."""
        await asyncio.shield(self._keeping.spawn(work))


def _uncancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
