"""What turns need: an open storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.web import settings

from coterie.turns.keeping import Keeping
from coterie.turns.opening import opened_keeping


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest_asyncio.fixture
async def keeping(folder: Path) -> AsyncIterator[Keeping]:
    async with opened_keeping(settings(state_dir=folder)) as keeping:
        yield keeping
