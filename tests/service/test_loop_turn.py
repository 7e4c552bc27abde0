"""Long work lets others have their turn."""

import asyncio

import pytest

from headrace.service import loop_turn
from headrace.service.loop_turn import in_turns


def every_piece_is_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_turn, "FIRST_S", -1.0)
    monkeypatch.setattr(loop_turn, "SLICE_S", -1.0)


async def test_others_work_between_slices_and_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    every_piece_is_a_slice(monkeypatch)
    seen: list[str] = []

    async def other() -> None:
        while len(seen) < 7:
            seen.append("other")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(other())
        async for piece in in_turns(["a", "b", "c"]):
            seen.append(piece)  # noqa: PERF401 - others append, too
    assert [piece for piece in seen if piece != "other"] == ["a", "b", "c"]
    assert "other" in seen[1 : seen.index("b")]
    assert "other" in seen[seen.index("b") : seen.index("c")]


async def test_of_all_who_work_in_slices_one_works_in_each_turn_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    every_piece_is_a_slice(monkeypatch)
    turns: list[list[str]] = [[]]

    async def work(name: str) -> None:
        async for _ in in_turns(range(4)):
            turns[-1].append(name)

    async def count() -> None:
        while True:
            await asyncio.sleep(0)
            turns.append([])

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count())
        async with asyncio.TaskGroup() as workers:
            for name in "abc":
                workers.create_task(work(name))
        counting.cancel()
    worked = [turn for turn in turns if turn]
    assert worked[0] == ["a", "b", "c"], "who begins does not wait"
    assert worked[1:] == [["a"], ["b"], ["c"]] * 3


async def test_who_goes_away_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    every_piece_is_a_slice(monkeypatch)

    async def work() -> None:
        async for _ in in_turns(range(2)):
            pass

    async with asyncio.TaskGroup() as group:
        first = group.create_task(work())
        group.create_task(work())
        await asyncio.sleep(0)
        first.cancel()


async def test_a_slice_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_turn, "FIRST_S", 3600.0)
    seen: list[str] = []
    asyncio.get_running_loop().call_soon(seen.append, "other")
    async for piece in in_turns(["a", "b"]):
        seen.append(piece)  # noqa: PERF401 - as above
    assert seen == ["a", "b"]
