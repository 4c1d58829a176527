"""The SQL of this room, which lies in ``sql/*.sql``.

A file holds statements, each under a line ``-- name: what``. All are for every database (see
:mod:`coterie.storage.database`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_LIST: Final = "$LIST"


@cache
def queries(file: str) -> Mapping[str, str]:
    """The statements of ``sql/<file>.sql`` by their names; read once."""
    text = (resources.files("coterie.storage") / "sql" / f"{file}.sql").read_text(encoding="utf-8")
    _, *pieces = _NAME.split(text)
    return dict(zip(pieces[::2], (piece.strip() for piece in pieces[1::2]), strict=True))


def with_list(sql: str, values: Sequence[object], *, after: int) -> str:
    """``sql`` with ``$LIST`` replaced by a placeholder for each of ``values``, numbered from ``after`` + 1."""
    return sql.replace(_LIST, ", ".join(f"${after + number}" for number in range(1, len(values) + 1)))
