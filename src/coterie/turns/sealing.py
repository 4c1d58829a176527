"""Text that a client keeps for us and cannot read: ``encrypted_content`` of reasoning and of compactions.

What it promises:

* what a seal closes, only the same owner's seal of a sealer with the same key opens; changed by a byte, nobody does;
* the key is made once, with the state folder's first server, and is readable by its owner alone. Several servers that
  share a database open each other's seals where they share the key's file.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Final

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.utils import random as random_bytes

from coterie.storage.database import StorageError
from coterie.storage.files import write_whole

_PREFIX: Final = "coterie1."


class Sealer:
    """Makes seals with ``key``, which has 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._box = SecretBox(key)

    def of(self, owner: str) -> Seal:
        """The seal of one owner."""
        return Seal(self._box, owner)


class Seal:
    """Closes and opens for one owner."""

    def __init__(self, box: SecretBox, owner: str) -> None:
        self._box = box
        self._owner = f"{owner}\0"

    def seal(self, text: str) -> str:
        """``text``, unreadable."""
        sealed = self._box.encrypt((self._owner + text).encode("utf-8", "surrogatepass"))
        return _PREFIX + base64.urlsafe_b64encode(bytes(sealed)).decode()

    def unseal(self, sealed: str) -> str | None:
        """The text again; ``None`` for what was not sealed with this key for this owner."""
        if not sealed.startswith(_PREFIX):
            return None
        try:
            packed = base64.b64decode(sealed[len(_PREFIX) :], altchars=b"-_", validate=True)
            text = bytes(self._box.decrypt(packed)).decode("utf-8", "surrogatepass")
        except (binascii.Error, CryptoError, ValueError):
            return None
        return text[len(self._owner) :] if text.startswith(self._owner) else None


def key_of(folder: Path) -> bytes:
    """The key of a state folder, made where there is none.

    Raises :class:`StorageError` where the file holds no key, and ``OSError``.
    """
    path = folder / "sealing.key"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_whole(path, random_bytes(SecretBox.KEY_SIZE))
    key = path.read_bytes()
    if len(key) != SecretBox.KEY_SIZE:
        raise StorageError(
            f"The file {path} is not a key: it has {len(key)} bytes instead of {SecretBox.KEY_SIZE}. Put back the one "
            "that was there, or delete it, and what was sealed with it cannot be opened any more."
        )
    return key
