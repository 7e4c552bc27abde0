"""Long work lets others have their turn."""

import asyncio

import pytest

from headrace.service import loop_turn
from headrace.service.loop_turn import in_turns


async def test_others_work_between_slices_and_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_turn, "SLICE_S", -1.0)  # each piece is a slice
    seen: list[str] = []

    async def other() -> None:
        for _ in range(3):
            seen.append("other")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(other())
        async for piece in in_turns(["a", "b", "c"]):
            seen.append(piece)  # noqa: PERF401 - others append, too
    assert seen == ["a", "other", "b", "other", "c", "other"]


async def test_a_slice_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_turn, "SLICE_S", 3600.0)
    seen: list[str] = []
    asyncio.get_running_loop().call_soon(seen.append, "other")
    async for piece in in_turns(["a", "b"]):
        seen.append(piece)  # noqa: PERF401 - as above
    assert seen == ["a", "b"]
