"""What is deleted is not to be found in the database's files either."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.support.stored import NOW_S, Clock, message, response_object, stored_response

from coterie.storage import ConversationStore, ResponseStore, open_database

SECRET = b"a-secret-that-nobody-may-find"
TEXT = f"{SECRET.decode()} " * 300

Deletion = Callable[[ResponseStore, ConversationStore, str], Awaitable[object]]
DELETIONS: dict[str, Deletion] = {
    "response": lambda responses, _, __: responses.delete("ann", "resp_1"),
    "purge": lambda responses, _, __: responses.purge(NOW_S + 60),
    "conversation": lambda _, conversations, one: conversations.delete("ann", one),
    "item": lambda _, conversations, one: conversations.delete_item("ann", one, SECRET.decode()),
}


@pytest.mark.parametrize("what", DELETIONS)
async def test_nothing_is_left_on_the_disk(tmp_path: Path, what: str) -> None:
    def found() -> bool:
        return any(SECRET in file.read_bytes() for file in tmp_path.iterdir())

    database = await open_database(f"sqlite:///{tmp_path}/a.db")
    responses, conversations = ResponseStore(database, clock=Clock()), ConversationStore(database)
    item = message(SECRET.decode(), TEXT)
    try:
        holds_items = what in ("conversation", "item")
        conversation = await conversations.create("ann", {}, [item] if holds_items else [])
        if not holds_items:
            await responses.create(stored_response(id="resp_1", input=[item]))
            end = response_object("resp_1", "completed", item)
            await responses.finish("resp_1", status="completed", response=end, events=SECRET)
        assert found()
        assert await DELETIONS[what](responses, conversations, conversation.id)
        assert not found()
    finally:
        await database.close()
