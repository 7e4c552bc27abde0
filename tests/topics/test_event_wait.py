"""Waiting for an event, but not for ever. The loop's clock jumps."""

import asyncio

from headrace.topics.event_wait import set_within
from tests.handlers.virtual_loop import run


def test_an_event_that_is_set_in_time_ends_the_wait() -> None:
    async def main() -> None:
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        began = loop.time()
        loop.call_later(2, event.set)
        assert await set_within(event, 5)
        assert loop.time() - began == 2
        assert await set_within(event, 0)

    run(main())


def test_an_event_that_nobody_sets_is_waited_for_so_long() -> None:
    async def main() -> None:
        began = asyncio.get_running_loop().time()
        assert not await set_within(asyncio.Event(), 5)
        assert asyncio.get_running_loop().time() - began == 5

    run(main())
