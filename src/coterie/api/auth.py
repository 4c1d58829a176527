"""API keys from the configuration."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from starlette.types import Scope

from coterie.errors import ApiError

_OWNER_DIGITS = 32


class KeyRing:
    """The keys that are let in; with none, everybody is.

    Only digests are kept, and a key is compared with every one of them in constant time, so neither the length nor the
    place nor the beginning of a right key can be measured.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key.encode("utf-8", "surrogateescape")) for key in keys)

    def check(self, authorization: str | None) -> str:
        """Whose request it is, told apart by key. Raises ``ApiError`` ``invalid_api_key``, where it has none.

        The name of an owner says nothing of the key. Where there are no keys, everybody is the same one.
        """
        if not self._digests:
            return ""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            reason = (
                "You didn't provide an API key. You need to provide your API key in an Authorization header using "
                "Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
            )
            raise ApiError("invalid_api_key", reason=reason)
        # The header was read as Latin-1; its bytes are what the client sent.
        given = _digest(key.strip().encode("latin-1", "replace"))
        if not any([hmac.compare_digest(given, digest) for digest in self._digests]):  # noqa: C419 - never stop early
            raise ApiError("invalid_api_key", reason="Incorrect API key provided.")
        return _owner(given)

    def lets_in(self, owner: str) -> bool:
        """Whether somebody who was let in as ``owner`` still would be."""
        return owner in {_owner(digest) for digest in self._digests} if self._digests else owner == ""


def authorization(scope: Scope) -> str | None:
    """The header of that name, as :meth:`KeyRing.check` takes it."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            text: str = value.decode("latin-1")
            return text
    return None


def _owner(digest: bytes) -> str:
    return _digest(digest).hex()[:_OWNER_DIGITS]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
