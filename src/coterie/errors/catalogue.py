"""The one catalogue of failures.

What it promises:

* Every failure that leaves the process is an :class:`ApiError` whose ``entry`` stands in :data:`CATALOGUE`; no other
  module holds an error code, an error type, or builds an error body.
* Codes, types and the phrases inside messages are OpenAI's own where OpenAI has one, because clients match both: the
  official SDKs look at status and code, half of the field looks for words ("maximum context length is").
* A status steers the SDKs' retries: they send a request again after 408, 409, 429 and every status of 500 and more.
  A permanent fault therefore has another status, or its entry says ``Retry.NEVER`` and the rendered answer carries
  ``x-should-retry: false``.
* Text that a stranger sent enters a message clipped (:data:`QUOTE_LIMIT`); text of an exception never does. What the
  operator needs beyond the message goes into ``ApiError.detail``, logged under the request's id and never sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coterie.errors.entries import ENTRIES
from coterie.errors.entry import Entry, Retry

QUOTE_LIMIT = 200
"""Characters of a caller's own text that an error message repeats at most."""

CATALOGUE: Mapping[str, Entry] = {entry.code: entry for entry in ENTRIES}
"""Every failure there is, by code."""


def lookup(code: str) -> Entry:
    """Return the entry of ``code``; raises ``KeyError`` for a code that does not exist."""
    return CATALOGUE[code]


class ApiError(Exception):
    """A failure from the catalogue, on its way back to the client.

    ``code`` must stand in the catalogue; ``fields`` fill its message. ``retry_after_s`` is the computed delay in
    seconds, for entries that take one. ``detail`` is for the log alone. ``headers`` are extra response headers.
    ``said`` replaces the message: a provider's own words about the caller's fault, cleaned. ``retry`` replaces what
    the entry says of sending the same request again.
    """

    def __init__(
        self,
        code: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        detail: str | None = None,
        headers: Mapping[str, str] | None = None,
        said: str | None = None,
        retry: Retry | None = None,
        **fields: Any,
    ) -> None:
        self.entry = lookup(code)
        self.param = None if param is None else clip(param)
        self.retry_after_s = retry_after_s
        self.detail = detail
        self._fields: dict[str, Any] = fields
        self.headers: Mapping[str, str] = headers or {}
        self.retry = retry or self.entry.retry
        self._said = said
        self.message = said or _fill(self.entry.message, {"hint": "", **fields, "param": param})
        super().__init__(self.message)

    def at(self, param: str) -> ApiError:
        """The same failure of another parameter."""
        return ApiError(
            self.code, param=param, retry_after_s=self.retry_after_s, detail=self.detail, headers=self.headers,
            said=self._said, retry=self.retry, **self._fields,
        )  # fmt: skip

    @property
    def fields(self) -> Mapping[str, Any]:
        """What the message was filled with."""
        return self._fields

    @property
    def code(self) -> str:
        """The catalogue's code."""
        return self.entry.code

    @property
    def status(self) -> int:
        """The HTTP status, used while no byte of the answer was sent."""
        return self.entry.status


def _fill(template: str, fields: Mapping[str, object]) -> str:
    return template.format(**{name: clip(value) for name, value in fields.items()})


def clip(value: object) -> str:
    """Return ``value`` as text of at most :data:`QUOTE_LIMIT` characters, so that no message grows with its cause."""
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= QUOTE_LIMIT else f"{text[: QUOTE_LIMIT - 3]}..."
