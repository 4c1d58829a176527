"""Pages of lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.api.paging import Page, asked_page, flag, listed, number, page_of
from coterie.errors import ApiError

ITEMS = [{"id": f"msg_{i}"} for i in range(5)]


def ids(page: dict[str, Any]) -> list[str]:
    return [item["id"] for item in page["data"]]


def test_a_page_without_wishes_begins_with_the_newest() -> None:
    assert asked_page({}) == Page(20, "desc", None)
    page = page_of(ITEMS, {})
    assert ids(page) == ["msg_4", "msg_3", "msg_2", "msg_1", "msg_0"]
    assert page["has_more"] is False


def test_what_was_asked_for() -> None:
    assert asked_page({"limit": "7", "order": "asc", "after": "msg_1"}) == Page(7, "asc", "msg_1")


@pytest.mark.parametrize("limit", ["1", "100"])
def test_limits_at_their_bounds(limit: str) -> None:
    assert asked_page({"limit": limit}).limit == int(limit)


WRONG = [
    ({"limit": "0"}, "integer_below_min_value", "limit"),
    ({"limit": "-1"}, "integer_below_min_value", "limit"),
    ({"limit": "101"}, "integer_above_max_value", "limit"),
    ({"limit": "x"}, "invalid_type", "limit"),
    ({"limit": ""}, "invalid_type", "limit"),
    ({"limit": "1.5"}, "invalid_type", "limit"),
    ({"limit": "9" * 5000}, "invalid_type", "limit"),
    ({"order": "up"}, "invalid_value", "order"),
    ({"order": ""}, "invalid_value", "order"),
    ({"after": "msg_9"}, "invalid_value", "after"),
]


@pytest.mark.parametrize(("query", "code", "param"), WRONG)
def test_what_is_wrong_is_told_by_its_name(query: dict[str, str], code: str, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        page_of(ITEMS, query)
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize("order", ["asc", "desc"])
@given(count=st.integers(0, 12), limit=st.integers(1, 5))
def test_pages_one_after_the_other_are_the_list(order: str, count: int, limit: int) -> None:
    items = [{"id": f"msg_{i}"} for i in range(count)]
    seen: list[str] = []
    query = {"limit": str(limit), "order": order}
    while True:
        page = page_of(items, query)
        seen += ids(page)
        if not page["has_more"]:
            break
        assert len(page["data"]) == limit
        query["after"] = page["last_id"]
    assert seen == [item["id"] for item in (items if order == "asc" else reversed(items))]


def test_a_list_object() -> None:
    assert listed(ITEMS[:2], has_more=True) == {
        "object": "list", "data": ITEMS[:2], "first_id": "msg_0", "last_id": "msg_1", "has_more": True,
    }  # fmt: skip
    assert listed([], has_more=False) == {
        "object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False,
    }  # fmt: skip


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("-1", -1), (None, 7)])
def test_numbers(text: str | None, value: int) -> None:
    assert number({} if text is None else {"n": text}, "n", 7) == value


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), (None, False)])
def test_flags(text: str | None, value: bool) -> None:
    assert flag({} if text is None else {"f": text}, "f") is value


@pytest.mark.parametrize("text", ["", "1", "True", "yes"])
def test_a_flag_that_is_none(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        flag({"f": text}, "f")
    assert (caught.value.code, caught.value.param) == ("invalid_type", "f")
