"""Coterie: one OpenAI-compatible endpoint in front of machines you own or trust. Its failures are exact."""

from coterie.version import __version__

__all__ = ["__version__"]
