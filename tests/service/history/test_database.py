"""A place that no database can be kept in is an outage like any other: told, and no bug."""

import asyncio
import threading
from pathlib import Path

import pytest

from headrace.service.history.database import Database, HistoryUnavailable
from tests.service.shell import PATIENCE_S


@pytest.mark.parametrize("where", ["file/below.sqlite", "folder", "garbage"])
async def test_a_file_that_cannot_be_had_is_told_as_unavailable(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage").write_text("no database at all, but long enough to be looked at " * 10)
    before = set(threading.enumerate())
    database = Database(f"sqlite:///{tmp_path / where}")
    try:
        with pytest.raises(HistoryUnavailable, match=where):
            await database.open("shop")
    finally:
        await database.close()
    new = [each for each in set(threading.enumerate()) - before if "_connection_worker_thread" in each.name]
    for thread in new:
        await asyncio.to_thread(thread.join, PATIENCE_S)
    assert not any(thread.is_alive() for thread in new)
