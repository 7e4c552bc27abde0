"""A log of its own for each test of the shell."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.service.shell import Place, place_at


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with place_at(tmp_path) as made:
        yield made
