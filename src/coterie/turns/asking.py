"""A turn's request in the lingua franca, asked; and asked again with less, where the caller allows that.

With ``truncation: auto`` a conversation that does not fit the model's context is shortened
(:mod:`coterie.dialects.responses_truncation`) and asked anew, as often as it takes, before anything was said. How much
to leave out is told by the failure itself, which names both numbers where its provider does; so this works with any
provider, and costs nothing where the conversation fits.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from coterie.dialects.responses_translate import Translation, translate
from coterie.dialects.responses_truncation import shorten
from coterie.errors import ApiError
from coterie.turns.turn import Item, Plan
from coterie.wire.lingua import Chunks

Ask = Callable[[dict[str, Any]], Chunks]
"""Asks for an answer to a chat request. Raises ``ApiError`` where it is not good."""

_TRIES: Final = 24
"""Times that a conversation is shortened at most."""

_TOKENS_PER_CHAR: Final = 0.25
"""Where the failure does not say how many tokens were sent."""

_SHARE: Final = 0.25
"""Of a conversation that is left out where the failure does not say how much too long it is."""


class Asking:
    """Asks what ``plan`` says, by ``ask``. Raises ``ApiError`` for a plan that cannot be asked."""

    def __init__(self, plan: Plan, unseal: Callable[[str], str | None], ask: Ask) -> None:
        self._plan = plan
        self._unseal = unseal
        self._ask = ask
        self._translation = self._translate(plan.context, plan.parsed.input)

    def relate(self, error: ApiError) -> ApiError:
        """``error`` in the words of the request."""
        return self._translation.relate(error)

    def chunks(self) -> Chunks:
        """The chunks of the answer. Raises ``ApiError``, and so does the iterator."""
        if self._plan.parsed.truncate:
            return self._shortened()
        try:
            return self._ask(self._translation.body)
        except ApiError as error:
            raise self.relate(error) from None

    def check(self) -> None:
        """Raise the ``ApiError`` that asking would raise for what is wrong with the request."""
        try:
            self._ask(self._translation.body)
        except ApiError as error:
            raise self.relate(error) from None

    async def _shortened(self) -> Chunks:
        items: tuple[Item, ...] = (*self._plan.context, *self._plan.parsed.input)
        for _ in range(_TRIES):
            said = False
            try:
                async with contextlib.aclosing(self._ask(self._translation.body)) as chunks:
                    async for chunk in chunks:
                        said = True
                        yield chunk
                return
            except ApiError as error:
                fewer = None if said or error.code != "context_length_exceeded" else self._fewer(items, error)
                if fewer is None:
                    raise
            items = fewer
            own = {id(item) for item in self._plan.parsed.input}
            split = next((place for place, item in enumerate(items) if id(item) in own), len(items))
            self._translation = self._translate(items[:split], items[split:])
        raise ApiError("internal_error", detail="a conversation could not be shortened enough")

    def _fewer(self, items: Sequence[Item], error: ApiError) -> tuple[Item, ...] | None:
        limit, actual = error.fields.get("limit"), error.fields.get("actual")
        chars = max(1, len(orjson.dumps(self._translation.body["messages"])))
        if isinstance(limit, int) and isinstance(actual, int) and actual > limit:
            return shorten(items, actual - limit, actual / chars)
        return shorten(items, max(1, int(chars * _TOKENS_PER_CHAR * _SHARE)), _TOKENS_PER_CHAR)

    def _translate(self, context: Sequence[Item], own: Sequence[Item]) -> Translation:
        parsed = dataclasses.replace(self._plan.parsed, input=tuple(own))
        return translate(parsed, context, self._plan.found, self._unseal)
