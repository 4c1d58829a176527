"""A provider's failure, laid out for the rules that judge it. Pure.

What it promises:

* What a provider says by structure is kept apart from what it says in words. An answer that blames the request may
  repeat anything that the caller sent, so of such an answer only names of fields, headers and whole sentences of the
  provider's own count against the provider; its words count for the caller's fault alone.
* No delay is read from words that a caller may have written.
* A failure that the provider calls its own (a 5xx) may mention anything, so its words alone, a status among them, make
  it nobody else's: not the account's, nor the key's, nor the model's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from coterie.errors import upstream_patterns as known
from coterie.errors.cleaning import clean, mask_secrets
from coterie.errors.delays import stated_delay_s
from coterie.errors.foreign import ECHOING, Foreign
from coterie.errors.params import from_message, from_steps, from_text


@dataclass(frozen=True, slots=True)
class Case:
    """A failure with all that the rules look at."""

    foreign: Foreign
    ids: frozenset[str]
    """What the failure is called anywhere, sentences included: enough to tell one caller's fault from another."""
    sure_ids: frozenset[str]
    """What the failure is called by the provider; where :attr:`echoes` is false, the same as ``ids``."""
    text: str
    said: str
    """The provider's sentence, cleaned; ``""`` where it says nothing."""
    prompt_param: str
    param: str | None
    """The caller's parameter that the provider names, if it names one."""
    delay_s: float | None
    """What the provider says; ``None`` where it says nothing."""
    detail: str
    echoes: bool
    """The request is blamed, so that the sentences may repeat any of the caller's words."""

    @property
    def status(self) -> int:
        """HTTP's status, or the more telling one of the body."""
        foreign = self.foreign
        if (
            self.is_its_own
            and not (foreign.status_sure or foreign.holds_answer)
            and foreign.status in known.STATUSES_OF_OTHERS
        ):
            return max(foreign.sure_status or 0, 502)  # (a 500 may still be the request's fault, by its names)
        return foreign.status

    @property
    def words(self) -> str:
        """The sentences, where they may speak of the provider; ``""`` where they may repeat the caller."""
        return "" if self.echoes else self.text

    @property
    def is_its_own(self) -> bool:
        """HTTP or a field says that the provider failed."""
        return (self.foreign.sure_status or 0) >= 500

    @property
    def is_told_by_words(self) -> bool:
        """Words alone may tell of the account, the key or the model."""
        return self.is_open and not self.is_its_own

    @property
    def is_open(self) -> bool:
        """The status tells little: words may tell more."""
        return not self.foreign.status_known or self.status in (400, 422, 424, 500, 502)

    @classmethod
    def of(
        cls, foreign: Foreign, status: int, headers: Mapping[str, str], prompt_param: str, now: float | None, raw: bytes
    ) -> Case:
        """Lay out ``foreign``, which came with ``status`` and ``headers``; ``raw`` is the start of its body."""
        lower = {name.lower(): value for name, value in list(headers.items())[:200]}
        if kind := lower.get("x-amzn-errortype"):  # Bedrock: the only name that its errors have
            foreign.names.append(kind.partition(":")[0][:64])
            foreign.sure_names.append(foreign.names[-1])
        text, ids, sure_ids = foreign.text, foreign.ids, foreign.sure_ids
        echoes = _echoes(foreign, ids)
        names = ", ".join(foreign.names)
        told = text.strip() or raw.decode("utf-8", "replace")
        return cls(
            foreign,
            ids,
            sure_ids if echoes else ids,
            text,
            _sentence(foreign, prompt_param),
            prompt_param,
            _param(foreign, prompt_param),
            stated_delay_s(
                {**foreign.headers, **lower},
                foreign.delay,
                text if not echoes and _is_certain(foreign, sure_ids) else "",
                time.time() if now is None else now,
            ),
            mask_secrets(f"HTTP {status} [{names}] {foreign.param or ''}: {told}"),
            echoes,
        )


def _echoes(foreign: Foreign, ids: frozenset[str]) -> bool:
    if foreign.status_known and foreign.status != 500:
        return foreign.status in ECHOING
    return known.has_stem(ids, known.INVALID_STEMS) and not known.has_stem(ids, known.FAILED_STEMS)


def _is_certain(foreign: Foreign, sure_ids: frozenset[str]) -> bool:
    """The failure is told by more than words: its sentence may say how long it lasts."""
    if foreign.status_known and foreign.status_sure and foreign.status not in (424, 500, 502):
        return True
    return known.has_stem(sure_ids, (*known.RATE_STEMS, *known.OVERLOAD_STEMS, *known.QUOTA_WEAK_STEMS))


def _sentence(foreign: Foreign, prompt_param: str) -> str:
    """The most telling sentence, cleaned."""
    for issue in foreign.issues[:3]:
        if issue.text:
            place = from_steps(issue.place, prompt_param)
            return clean(f"{place}: {issue.text}" if place else issue.text)
    return next((said for text in foreign.texts[:6] if (said := clean(text))), "")


def _param(foreign: Foreign, prompt_param: str) -> str | None:
    found = from_text(foreign.param, prompt_param)
    for issue in foreign.issues:
        found = found or from_steps(issue.place, prompt_param)
    if found is None and foreign.texts and foreign.param is None:
        found = from_message(foreign.texts[0], prompt_param)
    return found if found is None or clean(f"The place is {found}").endswith(found) else None
