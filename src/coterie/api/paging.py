"""Pages of lists, as the API cuts them: a limit, an order, and the id after which a page begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from coterie.errors import ApiError

_DEFAULT: Final = 20
_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    limit: int = _DEFAULT
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


def asked_page(query: Mapping[str, str]) -> Page:
    """What ``query`` asks for. Raises ``ApiError``."""
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise ApiError("invalid_value", param="order", reason=f"'{order}' is neither 'asc' nor 'desc'")
    limit = number(query, "limit", _DEFAULT)
    if limit < 1:
        raise ApiError("integer_below_min_value", param="limit", limit=1, actual=limit)
    if limit > _MOST:
        raise ApiError("integer_above_max_value", param="limit", limit=_MOST, actual=limit)
    return Page(limit, "asc" if order == "asc" else "desc", query.get("after"))


def page_of(items: Sequence[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """The page of ``items``, which stand in the order in which they came. Raises ``ApiError``."""
    page = asked_page(query)
    ordered = list(items) if page.order == "asc" else list(reversed(items))
    if page.after is not None:
        places = [place for place, item in enumerate(ordered) if item["id"] == page.after]
        if not places:
            raise ApiError("invalid_value", param="after", reason=f"no item of this list has the id '{page.after}'")
        ordered = ordered[places[0] + 1 :]
    return listed(ordered[: page.limit], has_more=len(ordered) > page.limit)


def listed(items: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A list object. ``first_id`` and ``last_id`` are strings by the specification, also of an empty list."""
    return {
        "object": "list",
        "data": list(items),
        "first_id": items[0]["id"] if items else "",
        "last_id": items[-1]["id"] if items else "",
        "has_more": has_more,
    }


def number(query: Mapping[str, str], name: str, default: int) -> int:
    """A whole number of the query. Raises ``ApiError``."""
    text = query.get(name)
    if text is None:
        return default
    try:
        return int(text) if len(text) < 20 else int("x")
    except ValueError:
        raise ApiError("invalid_type", param=name, expected="an integer", actual="something else") from None


def flag(query: Mapping[str, str], name: str) -> bool:
    """A truth value of the query. Raises ``ApiError``."""
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise ApiError("invalid_type", param=name, expected="a boolean", actual="something else")
    return text == "true"
