"""What an entry of the catalogue says about one kind of failure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

Fault = Literal["caller", "service", "upstream"]


class Retry(enum.Enum):
    """Whether sending the same request again can help."""

    NEVER = "never"
    """The same request fails in the same way."""
    BACKOFF = "backoff"
    """It may succeed; nobody knows when."""
    AFTER = "after"
    """It is likely to succeed after a delay that the answer names (``retry-after``)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of failure.

    ``responses_code`` is one of the Responses API's ``ResponseErrorCode`` values, ``anthropic_type`` one of the
    Messages API's error types. ``message`` is a ``str.format`` template over the fields given to :class:`ApiError`
    (``param`` included). ``takes_param`` says that ``param`` is always set. ``elsewhere`` says that another provider of
    the same model may well succeed.
    """

    code: str
    type: str
    status: int
    fault: Fault
    retry: Retry
    message: str
    cause: str
    remedy: str
    takes_param: bool = False
    elsewhere: bool = False
    responses_code: str = "server_error"
    anthropic_type: str = "api_error"
