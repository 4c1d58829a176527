"""What is kept of turns: their beginning, their events, their end.

What it promises:

* A thing of another owner does not exist, in the same words as one that never did.
* :meth:`Keeping.recover`, called once before the first request, ends whatever an earlier process of this server left
  behind: its responses are failed, with all the events that anybody was sent; its conversations are free. What cannot
  be ended keeps nothing else from it. It does the same, without the events, for a server that does not come back.
* A response that is deleted while it runs is stopped, and nothing of it stays.
* A failure to store an end is no proof that it was not stored: what the database has decides what is told.
* What the database did not take when it was time (the end of a response, the freedom of a conversation) is owed to it,
  and :meth:`Keeping.mend` tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from coterie.config import ResponsesSettings
from coterie.dialects.responses import ENCRYPTED_REASONING
from coterie.dialects.responses_stream import ResponseStream
from coterie.errors import ApiError
from coterie.storage.conversations import ConversationStore
from coterie.storage.journal import Journal
from coterie.storage.responses import ResponseStore, StoredResponse
from coterie.storage.rows import as_text, from_text
from coterie.turns.live import Live
from coterie.turns.recovery import ended
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

_CONVERSATION_ITEMS: Final = 100_000
"""Items of a conversation at most that a turn stands on."""

_HISTORY_BYTES: Final = 32 * 1024 * 1024
"""Bytes at most of what a turn stands on."""


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
        async with self.withdrawn_on_failure(plan):
            return await self._with_references(plan) if parsed.references else plan

    async def _earlier(self, owner: str, response_id: str) -> tuple[Item, ...]:
        links = await self.responses.history(owner, response_id, self.settings.history, _HISTORY_BYTES)
        return tuple(item for link in links for item in (*link.input, *finished(link.response["output"])))

    async def _in_conversation(self, plan: Plan, conversation_id: str) -> Plan:
        try:
            if not plan.aside:
                await self.conversations.lock(plan.owner, conversation_id, plan.id, self._instance)
            items = await self.conversations.history(plan.owner, conversation_id, _CONVERSATION_ITEMS, _HISTORY_BYTES)
        except BaseException as error:
            await self.withdraw(plan)
            if isinstance(error, ApiError) and error.code == "conversation_not_found":
                raise error.at("conversation") from None
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
            self._take_back(turn.plan, ())
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

    @contextlib.asynccontextmanager
    async def withdrawn_on_failure(self, plan: Plan) -> AsyncIterator[None]:
        """Whatever goes wrong inside, or cancels it, leaves nothing of ``plan`` behind."""
        try:
            yield
        except BaseException:
            await self.withdraw(plan)
            raise

    async def withdraw(self, plan: Plan) -> None:
        """A turn that nobody knows of will never be."""
        if plan.conversation_id is not None:
            await asyncio.shield(self.spawn(self._unlock(plan, plan.conversation_id)))

    async def settle(self, turn: Turn, tail: list[bytes]) -> None:
        """Store the end of a turn, whose last events are ``tail``. Raises ``ApiError``."""
        plan, response = turn.plan, turn.response
        added = [*plan.input, *finished(response["output"])] if response["status"] in _KEPT else []
        if turn.live is not None:
            await self._finish_or_owe(turn, turn.live, tail, added)
        elif plan.parsed.store:
            await self._store_whole(self._row(turn, b"".join((*turn.kept, *tail))), plan, added)
        elif plan.conversation_id is not None:
            await self._leave(plan, plan.conversation_id, added)

    async def _finish_or_owe(self, turn: Turn, live: Live, tail: list[bytes], added: Sequence[Item]) -> None:
        try:
            stored = await self._finish(turn, live.said() + b"".join(tail), added)
        except BaseException:
            stored = await self._has(turn.plan.id, turn.response)
            if not stored:
                live.held = True
                self._owed[turn.plan.id] = partial(self._finish_late, turn, live)
                raise
        self._forget(turn, live)
        if not stored and await self.responses.load(turn.plan.id) is not None:
            raise ApiError("response_interrupted", detail="another server has ended it")

    async def _finish_late(self, turn: Turn, live: Live) -> None:
        await self._finish(turn, live.said(), ())
        self._forget(turn, live)
        live.release()

    async def _finish(self, turn: Turn, events: bytes, added: Sequence[Item]) -> bool:
        response = turn.response
        stored = await self.responses.finish(
            turn.plan.id, status=response["status"], response=response, events=events, conversation_items=added
        )
        if not stored:
            _log.info("%s was deleted while it ran, or has an end already", turn.plan.id)
        return stored

    def _forget(self, turn: Turn, live: Live) -> None:
        self.running.pop(turn.plan.id, None)
        live.forget()

    async def _has(self, response_id: str, response: dict[str, Any]) -> bool:
        """Whether a response is stored as ``response``, as far as can be told."""
        try:
            row = await self.responses.load(response_id)
        except Exception as error:  # noqa: BLE001 - whatever it was, there is a failure to be told already
            _log.error("whether %s was stored is not known: %s", response_id, _why(error))
            return False
        return row is not None and row.response == from_text(as_text(response))

    async def _store_whole(self, row: StoredResponse, plan: Plan, added: Sequence[Item]) -> None:
        """Store a response of which nobody has known, and its items in its conversation: all of it, or nothing."""
        try:
            if plan.conversation_id is None:
                await self.responses.create(row)
                return
            begun = {**row.response, "status": "in_progress"}
            await self.responses.create(dataclasses.replace(row, status="in_progress", response=begun, events=None))
            await self.responses.finish(
                row.id, status=row.status, response=row.response, events=row.events, conversation_items=added
            )
        except BaseException:
            if not await self._has(row.id, row.response):
                self._take_back(plan, added)
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

    def _take_back(self, plan: Plan, added: Sequence[Item]) -> None:
        """A response whose storing failed, or was cancelled, may be stored all the same, with the items ``added``."""
        self.spawn(self._try(f"{plan.id} itself", partial(self._delete, plan, added)))

    async def _delete(self, plan: Plan, added: Sequence[Item]) -> None:
        """Delete a response, without which no item is added any more, and then those that were."""
        await self.responses.delete(plan.owner, plan.id)
        if plan.conversation_id is None:
            return
        known = {item["id"] for item in plan.context}
        for item_id in dict.fromkeys(item["id"] for item in added):
            if item_id not in known:
                await self._delete_item(plan.owner, plan.conversation_id, item_id)

    async def _delete_item(self, owner: str, conversation_id: str, item_id: str) -> None:
        try:
            await self.conversations.delete_item(owner, conversation_id, item_id)
        except ApiError as error:
            if error.code not in ("item_not_found", "conversation_not_found"):
                raise

    async def _try(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whatever it was, it is still to be done
            _log.error("%s was not stored, which is tried again: %s", name, _why(error))
            self._owed[name] = work

    async def mend(self) -> None:
        """Try again what the database did not take."""
        for name, work in tuple(self._owed.items()):
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - whatever it was, the others are to be tried
                _log.error("%s is still not stored: %s", name, _why(error))
            else:
                self._owed.pop(name, None)

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

    async def recover(self, instance: str | None = None) -> int:
        """End what an earlier process of this server left. Returns how many responses that were.

        With ``instance``: what that server left, which does not come back; its journals are not here. What cannot be
        ended is left for the next time. Raises ``ApiError`` where it is not known what was left.
        """
        if instance == self._instance:
            return 0  # what it has is running
        name = self._instance if instance is None else instance
        ids = await self.responses.unfinished_ids(name)
        done = [response_id for response_id in ids if await self._end_left(response_id, instance is None)]
        if instance is None:
            self._remove_journals(set(ids).difference(done))
        await self.conversations.unlock_all(name)
        return len(done)

    async def _end_left(self, response_id: str, has_journal: bool) -> bool:
        """End a response that was left; ``False`` where that failed, or it has ended."""
        try:
            row = await self.responses.load(response_id)
            journal = self._journal.read(response_id) if has_journal else b""
            return row is not None and row.status in RUNNING and await self._end_for(row, journal)
        except Exception as error:  # noqa: BLE001 - however damaged it is, the others are to be ended
            _log.error("%s was interrupted, and cannot be ended: %s", response_id, _why(error))
            return False

    def _remove_journals(self, needed: Collection[str]) -> None:
        for response_id in self._journal.ids():
            if response_id not in needed:
                try:
                    self._journal.remove(response_id)
                except OSError as error:
                    _log.error("a journal was not deleted: %s", error)

    async def _end_for(self, row: StoredResponse, journal: bytes) -> bool:
        request_id = new_id("req")
        response, events = ended(
            row.response, journal, ApiError("response_interrupted"), request_id,
            error_event=self.settings.error_event, reasoning_events=self.settings.reasoning_events,
        )  # fmt: skip
        _log.warning("%s was interrupted by the end of the server (%s)", row.id, request_id)
        return await self.responses.finish(
            row.id, status=response["status"], response=response, events=events, conversation_items=[]
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


def _why(error: Exception) -> str:
    """What the log says of a failure."""
    return str(error.detail) if isinstance(error, ApiError) else repr(error)
