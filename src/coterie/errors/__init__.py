"""Every failure there is, and how each dialect says it. Knows no other room."""

from coterie.errors.catalogue import CATALOGUE, ApiError, lookup
from coterie.errors.entry import Entry, Fault, Retry

__all__ = ["CATALOGUE", "ApiError", "Entry", "Fault", "Retry", "lookup"]
