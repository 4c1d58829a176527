"""What is kept of turns: their beginning, their events, their end.

What it promises:

* A thing of another owner does not exist, in the same words as one that never did.
* :meth:`Keeping.recover`, called once before the first request, ends whatever an earlier process of this server left
  behind: its responses are failed, with all the events that anybody was sent; its conversations are free.
* A response that is deleted while it runs is stopped, and nothing of it stays.
* What the database did not take when it was time (the end of a response, the freedom of a conversation) is owed to it,
  and :meth:`Keeping.mend` tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from coterie.config import ResponsesSettings
from coterie.dialects.responses import ENCRYPTED_REASONING
from coterie.dialects.responses_fold import close, fold, whole_events
from coterie.dialects.responses_stream import ResponseStream
from coterie.errors import ApiError
from coterie.errors.render_responses import response_error
from coterie.storage.conversations import ConversationStore
from coterie.storage.journal import Journal
from coterie.storage.responses import ResponseStore, StoredResponse
from coterie.turns.live import Live
from coterie.turns.sealing import Sealer
from coterie.turns.turn import Item, Plan, Turn
from coterie.wire.ids import new_id

_log = logging.getLogger(__name__)

T = TypeVar("T")

_DAY_S: Final = 86_400

RUNNING: Final = frozenset({"queued", "in_progress"})
"""``status`` of a response that has not ended."""

_KEPT: Final = frozenset({"completed", "incomplete"})
"""``status`` of a response whose items its conversation gets."""


class Keeping:
    """See the module. ``instance`` is the name of this server among those that share the database."""

    def __init__(
        self,
        responses: ResponseStore,
        conversations: ConversationStore,
        journal: Journal,
        sealer: Sealer,
        settings: ResponsesSettings,
        instance: str,
    ) -> None:
        self.responses = responses
        self.conversations = conversations
        self.sealer = sealer
        self.settings = settings
        self.running: dict[str, Turn] = {}
        """Turns that are stored, and whose end is not, by id."""
        self._journal = journal
        self._instance = instance
        self._work: set[asyncio.Task[Any]] = set()
        self._owed: dict[str, Callable[[], Awaitable[None]]] = {}
        """What the database did not take, by response."""

    # The beginning of a turn

    async def plan(self, plan: Plan, context: Sequence[Item] | None = None) -> Plan:
        """``plan`` with the items before its input and those that it refers to, its conversation locked.

        ``context`` are the items of the response to go on from, where they are known.
        Raises ``ApiError``. From here on :meth:`withdraw` or :meth:`settle` frees the conversation.
        """
        parsed = plan.parsed
        if context is not None:
            plan = dataclasses.replace(plan, context=tuple(context))
        elif parsed.previous_response_id is not None:
            plan = dataclasses.replace(plan, context=await self._earlier(plan.owner, parsed.previous_response_id))
        if parsed.conversation_id is not None:
            plan = await self._in_conversation(plan, parsed.conversation_id)
        try:
            return await self._with_references(plan) if parsed.references else plan
        except BaseException:
            await self.withdraw(plan)
            raise

    async def _earlier(self, owner: str, response_id: str) -> tuple[Item, ...]:
        links = await self.responses.history(owner, response_id, self.settings.history)
        return tuple(item for link in links for item in (*link.input, *finished(link.response["output"])))

    async def _in_conversation(self, plan: Plan, conversation_id: str) -> Plan:
        try:
            if not plan.aside:
                await self.conversations.lock(plan.owner, conversation_id, plan.id, self._instance)
            items = await self.conversations.history(plan.owner, conversation_id, self.settings.history)
        except BaseException:
            await self.withdraw(plan)
            raise
        return dataclasses.replace(plan, context=tuple(finished(items)))

    async def _with_references(self, plan: Plan) -> Plan:
        known = {item["id"]: item for item in plan.context if "id" in item}
        missing = [name for name in plan.parsed.references if name not in known]
        stored = await self.responses.items(plan.owner, missing) if missing else {}
        return dataclasses.replace(plan, found=known | stored)

    def machine(self, plan: Plan) -> ResponseStream:
        """The stream of a turn's answer."""
        parsed = plan.parsed
        return ResponseStream(
            {**parsed.echo, "id": plan.id, "created_at": plan.created_at, "model": parsed.model},
            logprobs=parsed.logprobs,
            error_event=self.tells_errors(plan),
            queued=parsed.background,
            seal=self.sealer.of(plan.owner).seal if ENCRYPTED_REASONING in parsed.include else None,
            reasoning_events=self.settings.reasoning_events,
            silent=plan.silent,
        )

    def tells_errors(self, plan: Plan) -> bool:
        """Whether a failure has an event of its own before ``response.failed``."""
        return plan.error_event and self.settings.error_event

    async def open(self, turn: Turn, events: list[bytes]) -> Live | None:
        """A turn is known from here on, by its first ``events``. Raises ``ApiError`` where it cannot be stored."""
        if not turn.plan.parsed.store:
            return None
        live = Live(self._journal.open(turn.plan.id))
        try:
            live.say(events)
            await self.responses.create(self._row(turn))
        except BaseException:
            live.forget()
            live.end([])
            self._take_back(turn.plan)
            raise
        self.running[turn.plan.id] = turn
        return live

    async def started(self, turn: Turn) -> None:
        """A turn in the background is begun with."""
        await self.responses.set_response(turn.plan.id, "in_progress", turn.response)

    def _row(self, turn: Turn, events: bytes | None = None) -> StoredResponse:
        plan, response = turn.plan, turn.response
        return StoredResponse(
            id=plan.id,
            owner=plan.owner,
            status=response["status"],
            created_at=plan.created_at,
            expires_at=plan.created_at + int(self.settings.retention_days * _DAY_S),
            background=plan.parsed.background,
            model=plan.parsed.model,
            previous_response_id=plan.parsed.previous_response_id,
            conversation_id=plan.conversation_id,
            response=response,
            input=list(plan.input),
            events=events,
            instance=self._instance,
        )

    # Its end

    async def withdraw(self, plan: Plan) -> None:
        """A turn that nobody knows of will never be."""
        if plan.conversation_id is not None:
            await asyncio.shield(self.spawn(self._unlock(plan, plan.conversation_id)))

    async def settle(self, turn: Turn, tail: list[bytes]) -> None:
        """Store the end of a turn, whose last events are ``tail``. Raises ``ApiError``."""
        plan, response = turn.plan, turn.response
        added = [*plan.input, *finished(response["output"])] if response["status"] in _KEPT else []
        if turn.live is not None:
            try:
                await self._finish(turn, turn.live, turn.live.said() + b"".join(tail), added)
            except BaseException:
                turn.live.held = True
                self._owed[plan.id] = partial(self._finish_late, turn, turn.live)
                raise
        elif plan.parsed.store:
            await self._store_whole(self._row(turn, b"".join((*turn.kept, *tail))), plan, added)
        elif plan.conversation_id is not None:
            await self._leave(plan, plan.conversation_id, added)

    async def _finish(self, turn: Turn, live: Live, events: bytes, added: Sequence[Item]) -> None:
        response = turn.response
        stored = await self.responses.finish(
            turn.plan.id, status=response["status"], response=response, events=events, conversation_items=added
        )
        self.running.pop(turn.plan.id, None)
        live.forget()
        if not stored:
            _log.info("%s was deleted while it ran", turn.plan.id)

    async def _finish_late(self, turn: Turn, live: Live) -> None:
        await self._finish(turn, live, live.said(), ())
        live.release()

    async def _store_whole(self, row: StoredResponse, plan: Plan, added: Sequence[Item]) -> None:
        """Store a response of which nobody has known, and its items in its conversation: all of it, or nothing."""
        try:
            if plan.conversation_id is None:
                await self.responses.create(row)
                return
            await self.responses.create(dataclasses.replace(row, status="in_progress", events=None))
            await self.responses.finish(
                row.id, status=row.status, response=row.response, events=row.events, conversation_items=added
            )
        except BaseException:
            self._take_back(plan)
            raise

    async def _leave(self, plan: Plan, conversation_id: str, added: Sequence[Item]) -> None:
        """End a turn of which only its conversation is stored."""
        known = {item["id"] for item in plan.context}
        try:
            if new := [item for item in added if item["id"] not in known]:
                await self.conversations.append(plan.owner, conversation_id, new)
        finally:
            await self._unlock(plan, conversation_id)

    # What the database did not take

    async def _unlock(self, plan: Plan, conversation_id: str) -> None:
        await self._try(plan.id, partial(self.conversations.unlock, conversation_id, plan.id))

    def _take_back(self, plan: Plan) -> None:
        """A response whose storing failed, or was cancelled, may be stored all the same."""
        self.spawn(self._try(f"{plan.id} itself", partial(self._delete, plan)))

    async def _delete(self, plan: Plan) -> None:
        await self.responses.delete(plan.owner, plan.id)

    async def _try(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except ApiError as error:
            _log.error("%s was not stored, which is tried again: %s", name, error.detail)
            self._owed[name] = work

    async def mend(self) -> None:
        """Try again what the database did not take."""
        for name, work in tuple(self._owed.items()):
            with contextlib.suppress(ApiError):
                await work()
                del self._owed[name]

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do ``work`` to its end, whoever waits for it."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it knows

    # After the process that ran it

    async def recover(self) -> int:
        """End what an earlier process of this server left. Returns how many responses that were."""
        left = self._journal.left()
        unfinished = await self.responses.unfinished(self._instance)
        for row in unfinished:
            await self._end_for(row, left.get(row.id, b""))
        for response_id in left:
            self._journal.remove(response_id)
        await self.conversations.unlock_all(self._instance)
        return len(unfinished)

    async def _end_for(self, row: StoredResponse, journal: bytes) -> None:
        error = ApiError("response_interrupted")
        said = whole_events(journal)
        request_id = new_id("req")
        tail = close(
            said, error, request_id,
            error_event=self.settings.error_event, reasoning_events=self.settings.reasoning_events,
        )  # fmt: skip
        events = [*said, *tail]
        failed = {"status": "failed", "error": response_error(error, request_id)}
        response = fold(events) if events else {**row.response, **failed}
        _log.warning("%s was interrupted by the end of the server (%s)", row.id, request_id)
        await self.responses.finish(
            row.id, status=response["status"], response=response, events=b"".join(events), conversation_items=[]
        )

    async def stop(self) -> None:
        """Wait for what is being stored; what is owed then is tried once more, or left to :meth:`recover`."""
        while self._work:
            await asyncio.wait(self._work)
        await self.mend()


def finished(items: list[Item]) -> Iterator[Item]:
    """The items that a later turn can build on: a call that broke off was never made."""
    for item in items:
        if item.get("status") != "incomplete" or item["type"] == "message":
            yield item
