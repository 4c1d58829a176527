"""A process that is killed while it stores the end of a response."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from tests.support.stored import message, stored_response

from coterie.storage import ConversationStore, ResponseStore, open_database

FINISHER = """
import asyncio, os, signal, sys
from coterie.storage import ResponseStore, open_database

url, statement = sys.argv[1], int(sys.argv[2])
item = {"type": "message", "id": "msg_2"}

async def finish() -> None:
    database = await open_database(url)
    left = statement

    def count(_sql: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    database._writer._connection.set_trace_callback(count)
    await ResponseStore(database, clock=lambda: 0).finish(
        "resp_1", status="completed", response={"output": [item]}, events=b"data: {}" * 10000, conversation_items=[item]
    )
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(finish())
"""
STATEMENTS = 8  # BEGIN, the six of finish(), COMMIT


@pytest.mark.parametrize("statement", [0, 1, 3, 5, 7, STATEMENTS])
async def test_a_kill_at_any_statement_leaves_the_old_state_or_the_new(tmp_path: Path, statement: int) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    database = await open_database(url)
    responses, conversations = ResponseStore(database, clock=lambda: 0), ConversationStore(database)
    try:
        conversation = await conversations.create("ann", {})
        await conversations.lock("ann", conversation.id, "resp_1", "here")
        before = stored_response(id="resp_1", conversation_id=conversation.id, input=[message("msg_1")])
        await responses.create(before)
    finally:
        await database.close()

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", FINISHER, url, str(statement), stderr=PIPE)
    _, complaints = await process.communicate()
    assert (process.returncode, complaints) == (-signal.SIGKILL, b"")

    database = await open_database(url)
    responses, conversations = ResponseStore(database, clock=lambda: 0), ConversationStore(database)
    try:
        after = await responses.get("ann", "resp_1")
        items = list(await responses.items("ann", ["msg_1", "msg_2"]))
        said = [item["id"] for item in await conversations.history("ann", conversation.id, 9)]
        holder = (await conversations.get("ann", conversation.id)).locked_by
    finally:
        await database.close()
    assert after is not None
    if statement < STATEMENTS:
        assert (after, items, said, holder) == (before, ["msg_1"], [], "resp_1")
    else:
        assert (after.status, after.events, items, said, holder) == (
            "completed", b"data: {}" * 10000, ["msg_1", "msg_2"], ["msg_2"], None,
        )  # fmt: skip
