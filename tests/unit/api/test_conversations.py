"""The routes of conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.provider import ScriptedProvider
from tests.support.responding import App, failing, responding

PATH = "/v1/conversations"
HI = {"type": "message", "role": "user", "content": "Hi"}
KEYS = ["sk-ann-key", "sk-bob-key"]


def say(text: str) -> dict[str, Any]:
    return {**HI, "content": text}


def texts(page: dict[str, Any]) -> list[str]:
    return [item["content"][0]["text"] for item in page["data"]]


async def test_a_conversation_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        made = (await app.answered(PATH, {"metadata": {"a": "b"}, "items": [HI]})).json
        assert made.keys() == {"id", "object", "created_at", "metadata"}
        assert (made["object"], made["metadata"]) == ("conversation", {"a": "b"})
        assert made["id"].startswith("conv_")
        one = f"{PATH}/{made['id']}"
        assert (await app.answered(one)).json == made
        changed = (await app.answered(one, {"metadata": {"c": "d"}})).json
        assert changed == {**made, "metadata": {"c": "d"}}
        assert (await app.answered(one)).json == changed
        deleted = (await app.answered(one, None, "DELETE")).json
        assert deleted == {"id": made["id"], "object": "conversation.deleted", "deleted": True}
        gone = await app.answered(one)
        assert (gone.status, gone.error["code"]) == (404, "conversation_not_found")


async def test_an_empty_body_makes_an_empty_conversation(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = await app.conversation()
        page = (await app.answered(f"{PATH}/{name}/items")).json
        assert page == {"object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False}


async def test_items_are_added_listed_read_and_deleted(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = await app.conversation(items=[say("one")])
        items = f"{PATH}/{name}/items"
        added = (await app.answered(items, {"items": [say("two"), say("three")]})).json
        assert texts(added) == ["two", "three"]
        assert added["has_more"] is False
        assert texts((await app.answered(items)).json) == ["three", "two", "one"]
        page = (await app.answered(f"{items}?order=asc&limit=2")).json
        assert (texts(page), page["has_more"]) == (["one", "two"], True)
        rest = (await app.answered(f"{items}?order=asc&after={page['last_id']}")).json
        assert (texts(rest), rest["has_more"]) == (["three"], False)
        item = added["data"][0]
        assert (await app.answered(f"{items}/{item['id']}")).json == item
        left = (await app.answered(f"{items}/{item['id']}", None, "DELETE")).json
        assert (left["object"], left["id"]) == ("conversation", name)
        assert texts((await app.answered(items)).json) == ["three", "one"]
        gone = await app.answered(f"{items}/{item['id']}")
        assert (gone.status, gone.error["code"]) == (404, "item_not_found")


@pytest.mark.parametrize(("query", "param"), [("limit=0", "limit"), ("order=x", "order"), ("after=msg_0", "after")])
async def test_a_wrong_page(tmp_path: Path, query: str, param: str) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        answer = await app.answered(f"{PATH}/{await app.conversation()}/items?{query}")
        assert (answer.status, answer.error["param"]) == (400, param)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("", {"metadata": 1}, "invalid_type"),
        ("", {"items": [{"type": "item_reference", "id": "msg_1"}]}, "unsupported_value"),
        ("/ID", {}, "missing_required_parameter"),
        ("/ID", {"metadata": {"a": 1}}, "invalid_type"),
        ("/ID/items", {}, "missing_required_parameter"),
        ("/ID/items", {"items": []}, "empty_array"),
    ],
)
async def test_a_wrong_body(tmp_path: Path, path: str, body: Any, code: str) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        answer = await app.answered(PATH + path.replace("ID", await app.conversation()), body)
        assert (answer.status, answer.error["code"]) == (400, code)


ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("POST", "", {"metadata": {}}),
    ("DELETE", "", None),
    ("GET", "/items", None),
    ("POST", "/items", {"items": [HI]}),
    ("GET", "/items/ITEM", None),
    ("DELETE", "/items/ITEM", None),
]


async def owned(app: App) -> str:
    """The path of a conversation of Ann's, and of its item."""
    key = {"authorization": "Bearer sk-ann-key"}
    made = (await app.answered(PATH, {"items": [HI]}, "", **key)).json["id"]
    item = (await app.answered(f"{PATH}/{made}/items", None, "", **key)).json["first_id"]
    return f"{made} {item}"


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_what_is_anothers_is_as_if_it_never_was(tmp_path: Path, method: str, path: str, body: Any) -> None:
    async with responding(ScriptedProvider(), tmp_path, server={"api_keys": KEYS}) as app:
        name, item = (await owned(app)).split()
        target = path.replace("ITEM", item)
        bob, ann = ({"authorization": f"Bearer {key}"} for key in reversed(KEYS))
        foreign = await app.answered(f"{PATH}/{name}{target}", body, method, **bob)
        absent = await app.answered(f"{PATH}/conv_0{target}", body, method, **bob)
        assert foreign.status == absent.status == 404
        assert foreign.error["code"] == absent.error["code"] == "conversation_not_found"
        assert foreign.error["message"].replace(name, "conv_0") == absent.error["message"]
        assert (await app.answered(f"{PATH}/{name}{target}", body, method, **ann)).status == 200


async def test_storage_that_fails_is_told(tmp_path: Path) -> None:
    async with responding(ScriptedProvider(), tmp_path) as app:
        name = await app.conversation()
        with failing(app.keeping.conversations, "get"):
            answer = await app.answered(f"{PATH}/{name}")
        assert (answer.status, answer.error["code"]) == (503, "storage_failed")
        assert "disk" not in answer.body.decode()
