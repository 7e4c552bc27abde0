"""One timer for everything of a length."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from random import Random

import pytest

from headrace.topics.deadlines import Deadlines
from tests.simulation.loop import SimLoop


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    with closing(SimLoop(Random(1))) as loop:
        yield loop


def test_what_is_added_is_due_in_turn_and_what_was_dropped_never_is(loop: SimLoop) -> None:
    due: list[tuple[str, float]] = []
    empty: list[float] = []

    async def main() -> None:
        began = loop.time()
        deadlines: Deadlines[str] = Deadlines(
            loop,
            5.0,
            lambda item: due.append((item, round(loop.time() - began, 3))),
            lambda: empty.append(round(loop.time() - began, 3)),
        )
        deadlines.add("first")
        await asyncio.sleep(1)
        deadlines.add("dropped")
        deadlines.add("second")
        deadlines.drop("dropped")
        deadlines.drop("never there")
        assert list(deadlines) == ["first", "second"]
        await asyncio.sleep(10)

    loop.run_until_complete(main())
    assert due == [("first", 5.0), ("second", 6.0)]
    assert empty == [6.0]


def test_what_is_added_while_others_are_due_has_its_own_time_and_an_error_keeps_nobody_waiting(loop: SimLoop) -> None:
    due: list[tuple[str, float]] = []

    async def main() -> None:
        began = loop.time()

        def ring(item: str) -> None:
            due.append((item, round(loop.time() - began, 3)))
            if item == "first":
                deadlines.add("third")
                raise ValueError("as told")

        deadlines: Deadlines[str] = Deadlines(loop, 5.0, ring)
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        deadlines.add("first")
        await asyncio.sleep(1)
        deadlines.add("second")
        await asyncio.sleep(20)

    loop.run_until_complete(main())
    assert due == [("first", 5.0), ("second", 6.0), ("third", 10.0)]


def test_a_stop_lets_nothing_ring_and_keeps_what_is_there(loop: SimLoop) -> None:
    due: list[str] = []

    async def main() -> None:
        deadlines = Deadlines(loop, 1.0, due.append)
        deadlines.add("one")
        deadlines.stop()
        deadlines.add("two")
        await asyncio.sleep(5)
        assert list(deadlines) == ["one", "two"]

    loop.run_until_complete(main())
    assert due == []
