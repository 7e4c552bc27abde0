"""State of the loop's thread for other threads."""

import asyncio
import threading

import pytest

from headrace.observability.latest import Latest
from headrace.observability.snapshot import EMPTY, Snapshot


async def test_the_snapshot_is_taken_on_the_loops_thread() -> None:
    takers: list[int] = []

    def take() -> Snapshot:
        takers.append(threading.get_ident())
        return Snapshot(timers_pending=len(takers))

    latest = Latest(take, asyncio.get_running_loop(), wait_s=20, reuse_s=0)
    assert (await asyncio.to_thread(latest)).timers_pending == 1
    assert (await asyncio.to_thread(latest)).timers_pending == 2
    assert set(takers) == {threading.get_ident()}


async def test_a_young_snapshot_is_given_again() -> None:
    taken: list[None] = []

    def take() -> Snapshot:
        taken.append(None)
        return Snapshot()

    latest = Latest(take, asyncio.get_running_loop(), wait_s=20, reuse_s=3600)
    for _ in range(5):
        await asyncio.to_thread(latest)
    assert len(taken) == 1


async def test_while_the_loop_is_blocked_the_last_one_is_given() -> None:
    latest = Latest(lambda: Snapshot(timers_pending=1), asyncio.get_running_loop(), wait_s=0, reuse_s=0)
    answers: list[Snapshot] = []
    asking = threading.Thread(target=lambda: answers.append(latest()))
    asking.start()
    asking.join()  # blocks the loop: it cannot answer
    assert answers == [EMPTY]


async def test_an_error_of_the_source_reaches_the_reader_and_not_the_loop() -> None:
    def take() -> Snapshot:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(Latest(take, asyncio.get_running_loop(), wait_s=20, reuse_s=0))


def test_after_the_loop_has_closed_the_last_one_is_given() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    assert Latest(Snapshot, loop)() == EMPTY
