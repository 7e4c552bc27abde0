"""Timers: one alarm of the loop for all of them. The loop's clock jumps; the log's clock follows it, or is moved."""

import asyncio
import heapq
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.service import timers as timers_file
from headrace.service.log_clock import LogClock
from headrace.service.timers import Timers
from tests.handlers.virtual_loop import run


class LoopClock(LogClock):
    """The log's time is the loop's, plus the skew."""

    def now_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000) + self.skew_ms


class Bells:
    def __init__(self) -> None:
        self.clock = LoopClock()
        self.timers = Timers(self.clock)
        self.began_ms = self.clock.now_ms()
        self.rung: list[tuple[str, int]] = []  # name and milliseconds since the beginning

    def arm(self, name: str, after_ms: int) -> None:
        self.timers.arm(name, self.began_ms + after_ms, lambda key, _due: self.rung.append((key, self.now())))

    def now(self) -> int:
        return self.clock.now_ms() - self.began_ms


def test_they_ring_in_due_order_and_never_early() -> None:
    async def main() -> None:
        bells = Bells()
        for after_ms in (300, 100, 200):
            bells.arm(f"{after_ms}", after_ms)
        assert len(bells.timers) == 3
        await asyncio.sleep(1)
        assert [name for name, _ in bells.rung] == ["100", "200", "300"]
        assert all(at >= int(name) for name, at in bells.rung)
        assert len(bells.timers) == 0

    run(main())


def test_equal_times_ring_in_the_order_in_which_they_were_armed() -> None:
    async def main() -> None:
        bells = Bells()
        for name in "cab":
            bells.arm(name, 50)
        await asyncio.sleep(1)
        assert [name for name, _ in bells.rung] == ["c", "a", "b"]

    run(main())


def test_a_step_of_the_log_s_clock_is_noticed_at_once() -> None:
    async def main() -> None:
        bells = Bells()
        bells.arm("due", 40_000)
        await asyncio.sleep(1)
        here_ms = asyncio.get_running_loop().time() * 1000
        bells.clock.seen(round(here_ms) + 39_500, here_ms, here_ms)
        await asyncio.sleep(1)
        assert [name for name, _ in bells.rung] == ["due"]

    run(main())


def test_arming_again_replaces_and_disarming_forgets() -> None:
    async def main() -> None:
        bells = Bells()
        bells.arm("sooner", 500)
        bells.arm("sooner", 100)
        bells.arm("later", 100)
        bells.arm("later", 500)
        bells.arm("never", 200)
        bells.timers.disarm("never")
        bells.timers.disarm("unknown")
        assert len(bells.timers) == 2
        await asyncio.sleep(1)
        assert [name for name, _ in bells.rung] == ["sooner", "later"]
        assert bells.rung[0][1] < 500 <= bells.rung[1][1]

    run(main())


def test_what_is_due_already_rings_in_the_next_turn_not_in_this_one() -> None:
    async def main() -> None:
        bells = Bells()
        bells.arm("past", -1_000)
        assert bells.rung == []
        await asyncio.sleep(0.001)
        assert [name for name, _ in bells.rung] == ["past"]

    run(main())


def test_a_bell_may_arm_and_disarm_others() -> None:
    async def main() -> None:
        bells = Bells()

        def ring(_key: object, _due_at_ms: int) -> None:
            bells.timers.disarm("victim")
            bells.arm("child", 0)
            bells.arm("later", 700)

        bells.timers.arm("first", bells.began_ms + 100, ring)
        bells.arm("victim", 100)
        await asyncio.sleep(1)
        assert [name for name, _ in bells.rung] == ["child", "later"]

    run(main())


def test_one_that_raises_keeps_no_other_from_ringing() -> None:
    async def main() -> None:
        errors: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context["exception"]))
        bells = Bells()

        def fail(_key: object, _due_at_ms: int) -> None:
            raise ValueError("a bug")

        bells.timers.arm("bug", bells.began_ms + 10, fail)
        bells.arm("same turn", 10)
        bells.arm("other", 20)
        await asyncio.sleep(1)
        assert [name for name, _ in bells.rung] == ["same turn", "other"]
        assert [str(error) for error in errors] == ["a bug"]

    run(main())


def test_a_clock_that_jumps_ahead_is_noticed_within_a_minute() -> None:
    async def main() -> None:
        bells = Bells()
        bells.arm("day", 86_400_000)
        await asyncio.sleep(1)
        bells.clock.skew_ms += 86_400_000
        await asyncio.sleep(timers_file._LATE_MAX_S)
        assert [name for name, _ in bells.rung] == ["day"]

    run(main())


def test_a_clock_that_steps_back_makes_none_ring_early() -> None:
    async def main() -> None:
        bells = Bells()
        bells.arm("soon", 1_000)
        bells.clock.skew_ms -= 30_000
        await asyncio.sleep(30)
        assert bells.rung == []
        await asyncio.sleep(2)
        assert [name for name, _ in bells.rung] == ["soon"]

    run(main())


def test_after_stop_none_rings_and_disarming_them_all_does_no_harm() -> None:
    async def main() -> None:
        bells = Bells()
        bells.arm("a", 10)
        bells.timers.stop()
        bells.timers.disarm("a")
        await asyncio.sleep(1)
        assert bells.rung == []
        assert len(bells.timers) == 0

    run(main())


def test_many_timers_are_armed_replaced_and_disarmed_in_bounded_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 000 of them: what is looked at altogether stays a small multiple of what was asked for."""
    looked_at = 0
    heapify = heapq.heapify

    def counting(heap: list[Any]) -> None:
        nonlocal looked_at
        looked_at += len(heap)
        heapify(heap)

    monkeypatch.setattr(timers_file.heapq, "heapify", counting)

    async def main() -> None:
        many = 100_000
        bells = Bells()
        for n in range(many):
            bells.arm(f"{n}", 60_000 + n)
        for n in range(2 * many):
            bells.arm("one", 60_000 + n)  # a breaker's alarm is armed anew at every turn
        assert len(bells.timers._heap) <= 2 * (many + 1) + 1
        for n in range(many):
            bells.timers.disarm(f"{n}")
        assert len(bells.timers) == 1
        assert len(bells.timers._heap) <= 66
        assert looked_at <= 4 * many
        await asyncio.sleep(1_000)
        assert [name for name, _ in bells.rung] == ["one"]

    run(main())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), st.integers(0, 8), st.integers(-20, 400)),
        st.tuples(st.just("disarm"), st.integers(0, 8), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.integers(1, 100)),
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(steps)
def test_each_armed_timer_rings_once_and_on_time(script: list[tuple[str, int, int]]) -> None:
    async def main() -> None:
        bells = Bells()
        due: dict[str, int] = {}
        for kind, number, ms in script:
            name = f"{number}"
            if kind == "arm":
                bells.arm(name, bells.now() + ms)
                due[name] = bells.now() + ms
            elif kind == "disarm":
                bells.timers.disarm(name)
                due.pop(name, None)
            else:
                await asyncio.sleep(ms / 1000)
                expected = sorted(name for name, at in due.items() if at <= bells.now() - 2)
                rung = [name for name, _ in bells.rung]
                assert set(expected) <= set(rung)
                for name, at in bells.rung:
                    assert at >= due.pop(name)
                bells.rung.clear()
        await asyncio.sleep(1)
        assert sorted(name for name, _ in bells.rung) == sorted(due)
        assert len(bells.timers) == 0

    run(main())
