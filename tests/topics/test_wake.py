"""A flag for one waiter."""

import asyncio

import pytest

from headrace.topics.wake import Wake


async def test_a_wake_that_is_set_does_not_wait_until_it_is_cleared() -> None:
    wake = Wake()
    wake.set()
    await wake.wait()
    await wake.wait()
    wake.clear()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(wake.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        wake.set()
        wake.set()


async def test_a_waiter_that_was_woken_returns_although_the_flag_is_cleared_by_then() -> None:
    wake = Wake()
    async with asyncio.TaskGroup() as group:
        group.create_task(wake.wait())
        await asyncio.sleep(0)
        wake.set()
        wake.clear()
    async with asyncio.TaskGroup() as group:
        again = group.create_task(wake.wait())
        await asyncio.sleep(0)
        assert not again.done()
        again.cancel()


async def test_there_is_one_waiter_and_one_that_was_cancelled_makes_room() -> None:
    wake = Wake()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(wake.wait())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await wake.wait()
        waiting.cancel()
    wake.set()
    await wake.wait()
