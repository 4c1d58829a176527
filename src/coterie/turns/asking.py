"""A turn's request in the lingua franca, asked; and asked again with less, where the caller allows that.

With ``truncation: auto`` a conversation that does not fit the model's context is shortened
(:mod:`coterie.dialects.responses_truncation`) and asked anew, as often as it takes, before anything was said. How much
to leave out is told by the failure itself, which names both numbers where its provider does; so this works with any
provider, and costs nothing where the conversation fits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from coterie.dialects.responses_translate import Translation, conversation, translate
from coterie.dialects.responses_truncation import characters, shorten
from coterie.dispatch.failover import is_semantic
from coterie.errors import ApiError
from coterie.turns.turn import Item, Plan
from coterie.wire.lingua import RESTART, Chunks

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
        self._translation = self._translate()

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
        plan = self._plan
        items = conversation(plan.parsed, plan.context, plan.found)
        said = False
        for left in reversed(range(_TRIES + 1)):
            try:
                async with contextlib.aclosing(self._ask(self._translation.body)) as chunks:
                    async for chunk in chunks:
                        said = said or (plan.told and is_semantic(chunk))
                        yield chunk
                return
            except ApiError as error:
                too_long = error.code == "context_length_exceeded" and left and not said
                fewer = self._fewer(items, error) if too_long else None
                if fewer is None:
                    raise
            items = fewer
            self._translation = self._translate(items)
            if not plan.told:
                yield RESTART

    def _fewer(self, items: Sequence[Item], error: ApiError) -> tuple[Item, ...] | None:
        limit, actual = error.fields.get("limit"), error.fields.get("actual")
        chars = max(1, characters(items))
        if isinstance(limit, int) and isinstance(actual, int) and actual > limit:
            return shorten(items, actual - limit, actual / chars)
        return shorten(items, max(1, int(chars * _TOKENS_PER_CHAR * _SHARE)), _TOKENS_PER_CHAR)

    def _translate(self, kept: Sequence[Item] | None = None) -> Translation:
        plan = self._plan
        return translate(plan.parsed, plan.context, plan.found, self._unseal, kept)
