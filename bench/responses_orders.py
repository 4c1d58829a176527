"""What the Responses benchmark asks for: the same answer as a chat completion, and as a response, stored or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.load_client import AnswerError, Order, Result, get, post

_PATH: Final = "/v1/responses"

_SAYINGS: Final = 5
"""How often a stream of events says the text: in the deltas, and whole at the end of the text, of the part, of the item
and of the response."""


@dataclass(frozen=True, slots=True)
class ResponseOrder(Order):
    """A response."""

    @property
    def is_stored(self) -> bool:
        return False

    @property
    def marks(self) -> int:
        return self.tokens * _SAYINGS if self.streamed else self.tokens

    def request(self, port: int) -> bytes:
        content = {"model": "bench", "input": self.prompt, "stream": self.streamed, "store": self.is_stored}
        return post(port, _PATH, content)


@dataclass(frozen=True, slots=True)
class StoredOrder(ResponseOrder):
    """A response that is stored."""

    @property
    def is_stored(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class BackgroundOrder(Order):
    """A response in the background, whose answer says nothing yet but its id (:func:`id_in`)."""

    @property
    def marks(self) -> int:
        return 0

    @property
    def is_kept(self) -> bool:
        return True

    def request(self, port: int) -> bytes:
        content = {"model": "bench", "input": self.prompt, "background": True, "store": True}
        return post(port, _PATH, content)


@dataclass(frozen=True, slots=True)
class EventsOrder(ResponseOrder):
    """The events of a stored response, up to its end."""

    response_id: str = ""

    @property
    def is_kept(self) -> bool:
        return True

    def request(self, port: int) -> bytes:
        return get(port, f"{_PATH}/{self.response_id}?stream=true")


def id_in(result: Result) -> str:
    """The id of the response that was asked for in the background."""
    response_id: str = json.loads(result.body or b"{}")["id"]
    return response_id


def check_completed(result: Result) -> None:
    """Raise :class:`AnswerError` where the events of ``result`` do not end with a response that is completed."""
    if b"event: response.completed\n" not in (result.body or b""):
        raise AnswerError("a response in the background did not complete")


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to ask. ``order`` takes the tokens, whether to stream them, and the seconds between two."""

    name: str
    order: Callable[[int, bool, float], Order]


CHAT: Final = Kind("chat", Order)
UNSTORED: Final = Kind("store: false", ResponseOrder)
STORED: Final = Kind("store: true", StoredOrder)
KINDS: Final = (CHAT, UNSTORED, STORED)
