"""What is kept of turns: their beginning, their events, their end.

What it promises:

* A thing of another owner does not exist, in the same words as one that never did.
* :meth:`Keeping.recover`, called once before the first request, ends whatever an earlier process of this server left
  behind: its responses are failed, with all the events that anybody was sent; its conversations are free.
* A response that is deleted while it runs is stopped, and nothing of it stays.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final

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
        """Turns that are stored and have not ended, by id."""
        self._journal = journal
        self._instance = instance
        self._work: set[asyncio.Task[None]] = set()

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
        if not plan.aside:
            await self.conversations.lock(plan.owner, conversation_id, plan.id, self._instance)
        try:
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
            seal=self.sealer.seal if ENCRYPTED_REASONING in parsed.include else None,
            reasoning_events=self.settings.reasoning_events,
            silent=plan.silent,
        )

    def tells_errors(self, plan: Plan) -> bool:
        """Whether a failure has an event of its own before ``response.failed``."""
        return plan.error_event and self.settings.error_event

    async def open(self, turn: Turn) -> Live | None:
        """A turn is known from here on. Raises ``ApiError`` where it cannot be stored."""
        if not turn.plan.parsed.store:
            return None
        live = Live(self._journal.open(turn.plan.id))
        try:
            await self.responses.create(self._row(turn))
        except BaseException:
            live.forget()
            live.end()
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
            input=list(plan.parsed.input),
            events=events,
            instance=self._instance,
        )

    # Its end

    async def withdraw(self, plan: Plan) -> None:
        """A turn that nobody knows of will never be. Raises ``ApiError``."""
        if plan.conversation_id is not None:
            await self.conversations.unlock(plan.conversation_id, plan.id)

    async def settle(self, turn: Turn, tail: list[bytes]) -> None:
        """Store the end of a turn, whose last events are ``tail``. Raises ``ApiError``."""
        plan, response = turn.plan, turn.response
        added = [*plan.parsed.input, *finished(response["output"])] if response["status"] in _KEPT else []
        if turn.live is not None:
            try:
                events = turn.live.said() + b"".join(tail)
                stored = await self.responses.finish(
                    plan.id, status=response["status"], response=response, events=events, conversation_items=added
                )
            finally:
                self.running.pop(plan.id, None)
            turn.live.forget()
            if not stored:
                _log.info("%s was deleted while it ran", plan.id)
            return
        if plan.parsed.store and not plan.told:
            await self.responses.create(self._row(turn, b"".join((*turn.kept, *tail))))
        if plan.conversation_id is not None:
            known = {item["id"] for item in plan.context}
            new = [item for item in added if item["id"] not in known]
            await self.conversations.append(plan.owner, plan.conversation_id, new)
            await self.conversations.unlock(plan.conversation_id, plan.id)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do ``work`` to its end, whoever waits for it."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

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
        """Wait for what is being stored."""
        while self._work:
            await asyncio.wait(self._work)


def finished(items: list[Item]) -> Iterator[Item]:
    """The items that a later turn can build on: a call that broke off was never made."""
    for item in items:
        if item.get("status") != "incomplete" or item["type"] == "message":
            yield item
