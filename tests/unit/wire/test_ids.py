"""Names of things."""

from __future__ import annotations

import re

from coterie.wire.ids import new_id


def test_an_id_has_its_prefix_and_is_never_the_same() -> None:
    ids = {new_id("resp") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"resp_[0-9a-f]{48}", name) for name in ids)
