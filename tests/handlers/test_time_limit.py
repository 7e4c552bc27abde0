"""Limits of the same length share a timer."""

import asyncio
from time import perf_counter

from headrace.handlers.time_limit import TimeLimits


async def test_limits_of_a_length_expire_in_turn_and_a_lifted_one_never_does() -> None:
    limits = TimeLimits(perf_counter)
    ended: list[str] = []

    async def attempt(name: str, *, lift: bool = False) -> None:
        limit = limits.set(20, asyncio.current_task(), lambda: ended.append(f"{name} told"))
        try:
            if not lift:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert limit.expired
            assert not limit.owner_asked()
            ended.append(name)
        finally:
            limit.lift()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    async with asyncio.TaskGroup() as group:
        for name in ("first", "second"):
            group.create_task(attempt(name))
        group.create_task(attempt("lifted", lift=True))
    assert ended == ["first told", "second told", "first", "second"]


async def test_a_length_that_nobody_has_any_more_is_forgotten() -> None:
    limits = TimeLimits(perf_counter)
    for timeout_ms in range(1, 20):
        limits.set(timeout_ms, asyncio.current_task()).lift()
    assert len(limits) == 19
    limit = limits.set(30, asyncio.current_task())
    with_limit = asyncio.get_running_loop().create_future()
    try:
        await with_limit
    except asyncio.CancelledError:
        limit.lift()
    assert limit.expired
    assert len(limits) == 0


async def test_a_cancellation_by_the_owner_is_told_apart() -> None:
    limits = TimeLimits(perf_counter)
    task = asyncio.current_task()
    assert task is not None
    limit = limits.set(60_000, task)
    task.cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        assert limit.owner_asked()
        task.uncancel()
    limit.lift()
    assert not limit.expired
