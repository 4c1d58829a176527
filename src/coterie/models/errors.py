"""The one failure of this room."""

from __future__ import annotations


class ModelError(Exception):
    """A model file cannot be had, or cannot be used.

    The text says what is wrong, ``remedy`` what to do about it; both are meant for the operator, never for a client.
    """

    def __init__(self, message: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(message)
