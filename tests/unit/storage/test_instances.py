"""Servers that share a database."""

from __future__ import annotations

import time

import pytest
from tests.support.stored import NOW_S, response_object, stored_response

from coterie.storage import ConversationStore, Database, ResponseStore
from coterie.storage.instances import Instances

DAY_S = 86_400


@pytest.fixture
def instances(db: Database) -> Instances:
    return Instances(db)


async def listed(db: Database) -> set[str]:
    return {row["name"] for row in await db.fetch("SELECT name FROM instances")}


async def test_who_has_something_under_way_and_is_silent_is_gone(
    instances: Instances, responses: ResponseStore, conversations: ConversationStore
) -> None:
    for name in ("idle", "locks", "runs", "speaks"):
        await instances.beat(name, NOW_S)
    for name in ("runs", "speaks"):
        await responses.create(stored_response(instance=name))
    await responses.create(stored_response(instance="idle", status="completed"))
    conversation = await conversations.create("ann", {})
    await conversations.lock("ann", conversation.id, "resp_1", "locks")
    await instances.beat("speaks", NOW_S + 1.5)
    assert await instances.gone(NOW_S + 119, 120) == []
    assert await instances.gone(NOW_S + 120, 120) == ["locks", "runs"]
    assert await instances.gone(NOW_S + 121, 120) == ["locks", "runs", "speaks"]


async def test_who_has_nothing_left_is_not_gone_any_more(
    instances: Instances, responses: ResponseStore, conversations: ConversationStore
) -> None:
    await instances.beat("away", NOW_S)
    await responses.create(stored_response(id="resp_1", instance="away"))
    conversation = await conversations.create("ann", {})
    await conversations.lock("ann", conversation.id, "resp_2", "away")
    assert await instances.gone(NOW_S + 200, 120) == ["away"]
    await responses.finish("resp_1", status="failed", response=response_object("resp_1", "failed"))
    assert await instances.gone(NOW_S + 200, 120) == ["away"]
    await conversations.unlock_all("away")
    assert await instances.gone(NOW_S + 200, 120) == []


async def test_who_was_never_heard_of_is_counted_from_then_on(instances: Instances, responses: ResponseStore) -> None:
    await responses.create(stored_response(instance="older"))
    assert await instances.gone(NOW_S, 120) == []
    assert await instances.gone(NOW_S + 119, 120) == []
    assert await instances.gone(NOW_S + 120, 120) == ["older"]


async def test_who_is_silent_for_long_and_left_nothing_is_no_longer_listed(
    instances: Instances, responses: ResponseStore, db: Database
) -> None:
    for name in ("idle", "runs"):
        await instances.beat(name, NOW_S)
    await instances.beat("new", NOW_S + DAY_S)
    await responses.create(stored_response(instance="runs"))
    await instances.gone(NOW_S + 7 * DAY_S, 120)
    assert await listed(db) == {"runs", "new"}


async def test_the_time_is_unix_time_in_whole_seconds(instances: Instances) -> None:
    now_s = await instances.now_s()
    assert isinstance(now_s, int)
    assert abs(now_s - time.time()) < DAY_S
