"""Real loops that are really blocked."""

import asyncio
import sys
import threading

import pytest

from headrace.observability import told_process
from headrace.observability.silent import Silent
from headrace.observability.watchdog import STACK_MAX, Watchdog, codes_of, seen_in


class Seen(Silent):
    def __init__(self) -> None:
        self.blocked: list[told_process.LoopBlocked] = []
        self.delays_ms: list[float] = []
        self.told = threading.Event()
        self.turned = asyncio.Event()

    def loop_blocked(self, blocked: told_process.LoopBlocked, /) -> None:
        self.blocked.append(blocked)
        self.told.set()

    def loop_delayed(self, delayed: told_process.LoopDelayed, /) -> None:
        self.delays_ms.append(delayed.delay_ms)
        self.turned.set()


async def charge(seen: Seen) -> None:
    """A handler that blocks until the watchdog has noticed."""
    waits(seen)


def waits(seen: Seen) -> None:
    assert seen.told.wait(20)


async def met(seen: Seen) -> told_process.LoopBlocked:
    """Block the loop in `charge` until a stall is told of in which it was met where it waits.

    On a busy machine the loop's thread may stand still before it comes there: that is a stall, too.
    """
    while True:
        await charge(seen)
        if "threading.py" in seen.blocked[-1].where:
            return seen.blocked[-1]
        seen.told.clear()
        seen.turned.clear()
        await seen.turned.wait()  # one stall is told once


async def test_the_handler_that_blocks_is_named_once_with_its_line() -> None:
    seen = Seen()
    handlers = codes_of([("charge", charge), ("other", test_the_handler_that_blocks_is_named_once_with_its_line)])
    del handlers[test_the_handler_that_blocks_is_named_once_with_its_line.__code__]
    with Watchdog(seen, handlers, interval_s=0.001, blocked_ms=20):
        blocked = await met(seen)
        seen.turned.clear()
        await seen.turned.wait()
    assert [each for each in seen.blocked if "threading.py" in each.where] == [blocked]
    assert blocked.handler == "charge"
    assert "in charge > " in blocked.where
    assert f"{__file__}:{charge.__code__.co_firstlineno + 2} in charge" in blocked.where
    assert blocked.blocked_ms >= 20
    assert max(seen.delays_ms) >= blocked.blocked_ms


async def test_the_stack_is_told_from_the_handler_inwards() -> None:
    seen = Seen()
    with Watchdog(seen, codes_of([("charge", charge)]), interval_s=0.001, blocked_ms=20):
        stack = (await met(seen)).stack
    assert [place.rpartition(" in ")[2] for place in stack[:2]] == ["charge", "waits"]
    assert "threading.py" in stack[-1]
    assert len(stack) <= STACK_MAX + 1


async def test_a_long_stall_is_fenced_when_the_loop_turns_again_and_a_short_one_is_not() -> None:
    for fence_ms, times in ((20, 1), (3_600_000, 0)):
        seen = Seen()
        fenced: list[float] = []
        with Watchdog(seen, {}, interval_s=0.001, blocked_ms=20, fence_ms=fence_ms, fence=fenced.append):
            waits(seen)
            assert fenced == []
            seen.turned.clear()
            await seen.turned.wait()
        assert len(fenced) == times
        assert all(stalled_s >= 0.02 for stalled_s in fenced)


async def test_a_process_that_stood_still_as_a_whole_is_fenced_too() -> None:
    """Stopped and continued: the watchdog's thread had no chance to ask before."""
    seen = Seen()
    fenced: list[float] = []
    with Watchdog(seen, {}, interval_s=0.001, blocked_ms=60_000, fence_ms=3_600_000, fence=fenced.append) as watchdog:
        watchdog._turned_at_s -= 7200  # as if two hours ago
        while not fenced:
            seen.turned.clear()
            await seen.turned.wait()
    assert fenced[0] >= 7199


async def test_without_a_handler_on_the_stack_the_innermost_line_is_named() -> None:
    seen = Seen()
    with Watchdog(seen, {}, interval_s=0.001, blocked_ms=20):
        blocked = await met(seen)
    assert blocked.handler == ""
    assert "threading.py" in blocked.where


async def test_a_loop_that_turns_is_measured_and_not_accused() -> None:
    seen = Seen()
    with Watchdog(seen, {}, interval_s=0.001, blocked_ms=60_000) as watchdog:
        for _ in range(3):
            seen.turned.clear()
            await seen.turned.wait()
        assert watchdog.silent_s() < 60
    assert len(seen.delays_ms) >= 3
    assert seen.blocked == []


async def test_it_ends_while_the_loop_is_blocked() -> None:
    seen = Seen()
    with Watchdog(seen, {}, interval_s=0.001, blocked_ms=10):
        waits(seen)  # and leaves without giving the loop a turn
    assert not [thread for thread in threading.enumerate() if thread.name == "headrace-watchdog"]


def test_wrapped_and_built_in_functions() -> None:
    assert codes_of([("charge", charge), ("len", len)]) == {charge.__code__: "charge"}


async def test_leaving_never_waits_for_a_turn_that_cannot_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's thread leaves between the watchdog's look at the stop and its question, and joins it."""
    asked, left = threading.Event(), threading.Event()

    class Late(threading.Event):
        """The watchdog clears it after the loop's thread has set it."""

        def clear(self) -> None:
            asked.set()
            assert left.wait(20)
            super().clear()

        def set(self) -> None:
            super().set()
            left.set()

    with monkeypatch.context() as patched:
        patched.setattr("headrace.observability.watchdog.threading.Event", Late)
        watchdog = Watchdog(Seen(), {}, interval_s=0.001)
    with watchdog:
        assert await asyncio.to_thread(asked.wait, 20)


def test_frames_around_a_call_of_the_users_are_not_named() -> None:
    frame = sys._getframe()
    inside = seen_in(frame, {})
    outside = seen_in(frame, {}, frozenset({__file__}))
    assert inside.where.endswith("test_frames_around_a_call_of_the_users_are_not_named")
    assert __file__ not in outside.where
