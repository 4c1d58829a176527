"""A turn's request in the lingua franca, asked; and asked again with less, where the caller allows that.

With ``truncation: auto`` a conversation that does not fit the model's context is shortened
(:mod:`coterie.dialects.responses_truncation`) and asked anew, as often as it takes, before anything was said. How much
to leave out is told by the failure itself, which names both numbers where its provider does; so this works with any
provider, and costs nothing where the conversation fits.

An answer that the server bounds itself (the note of a compaction) may take a quarter of that context at most: what it
asks for beyond is spared before anything of the conversation is left out.
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


_ANSWERS_SHARE: Final = 4
"""The context is at least so many times as long as an answer that the server bounds."""


class Asking:
    """Asks what ``plan`` says, by ``ask``, for ``most_tokens`` of an answer where they are given.

    Raises ``ApiError`` for a plan that cannot be asked.
    """

    def __init__(
        self, plan: Plan, unseal: Callable[[str], str | None], ask: Ask, *, most_tokens: int | None = None
    ) -> None:
        self._plan = plan
        self._unseal = unseal
        self._most_tokens = most_tokens
        self._do_ask = ask
        self._translation = self._translate()

    def relate(self, error: ApiError) -> ApiError:
        """``error`` in the words of the request."""
        return self._translation.relate(error)

    def chunks(self) -> Chunks:
        """The chunks of the answer. Raises ``ApiError``, and so does the iterator."""
        if self._plan.parsed.truncate:
            return self._shortened()
        try:
            return self._ask()
        except ApiError as error:
            raise self.relate(error) from None

    def check(self) -> None:
        """Raise the ``ApiError`` that asking would raise for what is wrong with the request."""
        try:
            self._ask()
        except ApiError as error:
            raise self.relate(error) from None

    def _ask(self) -> Chunks:
        body = self._translation.body
        return self._do_ask(body if self._most_tokens is None else {**body, "max_completion_tokens": self._most_tokens})

    async def _shortened(self) -> Chunks:
        plan = self._plan
        items = conversation(plan.parsed, plan.context, plan.found)
        said = False
        for left in reversed(range(_TRIES + 1)):
            try:
                async with contextlib.aclosing(self._ask()) as chunks:
                    async for chunk in chunks:
                        said = said or (plan.told and is_semantic(chunk))
                        yield chunk
                return
            except ApiError as error:
                too_long = error.code == "context_length_exceeded" and left and not said
                fewer = self._less(items, error) if too_long else None
                if fewer is None:
                    raise
            if fewer is not items:
                items = fewer
                self._translation = self._translate(items)
            if not plan.told:
                yield RESTART

    def _less(self, items: tuple[Item, ...], error: ApiError) -> tuple[Item, ...] | None:
        """``items``, or fewer, to ask with now; ``None`` where nothing is left to leave out."""
        return items if self._spares_enough(error) else self._fewer(items, error)

    def _spares_enough(self, error: ApiError) -> bool:
        """Bound the answer by its share of the context, and say whether that may do."""
        limit, actual = error.fields.get("limit"), error.fields.get("actual")
        if self._most_tokens is None or not isinstance(limit, int):
            return False
        bounded = max(1, min(self._most_tokens, limit // _ANSWERS_SHARE))
        spared, self._most_tokens = self._most_tokens - bounded, bounded
        return spared > 0 and (not isinstance(actual, int) or actual - limit <= spared)

    def _fewer(self, items: Sequence[Item], error: ApiError) -> tuple[Item, ...] | None:
        limit, actual = error.fields.get("limit"), error.fields.get("actual")
        chars = max(1, characters(items))
        if isinstance(limit, int) and isinstance(actual, int) and actual > limit:
            return shorten(items, actual - limit, actual / chars)
        return shorten(items, max(1, int(chars * _TOKENS_PER_CHAR * _SHARE)), _TOKENS_PER_CHAR)

    def _translate(self, kept: Sequence[Item] | None = None) -> Translation:
        plan = self._plan
        return translate(plan.parsed, plan.context, plan.found, self._unseal, kept)
