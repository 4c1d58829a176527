"""Things to store, for tests."""

from __future__ import annotations

from typing import Any

from coterie.storage import StoredResponse
from coterie.wire.ids import new_id

NOW_S = 1_000_000


class Clock:
    """A time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_s: float = NOW_S

    def __call__(self) -> float:
        return self.now_s


def message(item_id: str, text: str = "hello", role: str = "user") -> dict[str, Any]:
    """An item as the API shows it."""
    content = [{"type": "output_text" if role == "assistant" else "input_text", "text": text}]
    return {"type": "message", "id": item_id, "status": "completed", "role": role, "content": content}


def response_object(response_id: str, status: str = "completed", *output: dict[str, Any]) -> dict[str, Any]:
    """A Response object, as much of one as storage looks at."""
    return {"id": response_id, "object": "response", "status": status, "output": list(output)}


def stored_response(**fields: Any) -> StoredResponse:
    """A response of the owner ``ann`` in progress; ``fields`` change what is to be different."""
    response_id = fields.pop("id", None) or new_id("resp")
    status = fields.setdefault("status", "in_progress")
    given: dict[str, Any] = {
        "id": response_id, "owner": "ann", "created_at": NOW_S, "expires_at": NOW_S + 60, "background": False,
        "model": "m", "previous_response_id": None, "conversation_id": None,
        "response": response_object(response_id, status), "input": [], "events": None, "instance": "here",
    }  # fmt: skip
    return StoredResponse(**{**given, **fields})
