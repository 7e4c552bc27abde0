import asyncio
import gc

import pytest

from headrace.handlers.attempt_group import AttemptGroup, abandoned_count
from headrace.handlers.definition import handler
from headrace.handlers.result import AttemptCall, AttemptCancelled, AttemptEnd, AttemptError, AttemptOk
from headrace.topics.errors import Cause
from tests.handlers.calls import Watched, call_of
from tests.handlers.virtual_loop import run

GRACE_MS = 500


class Ends:
    def __init__(self) -> None:
        self.all: list[tuple[str, AttemptEnd]] = []

    def __call__(self, call: AttemptCall, end: AttemptEnd) -> None:
        self.all.append((call.run_id, end))

    @property
    def kinds(self) -> list[str]:
        return [end.cause if isinstance(end, AttemptError) else type(end).__name__ for _, end in self.all]


@handler
async def waits(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


class Stubborn:
    """A handler that swallows every cancellation, until it is let go."""

    def __init__(self) -> None:
        self.let_go = False
        self.swallowed = 0
        self.ended = False

        @handler
        async def stubborn() -> None:
            while not self.let_go:
                try:
                    await asyncio.sleep(10**6)
                except asyncio.CancelledError:
                    self.swallowed += 1
            self.ended = True

        self.handler = stubborn

    async def leave(self) -> None:
        """Wake it for the last time; the loop's own end would wait for it for ever."""
        self.let_go = True
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        while not self.ended:
            await asyncio.sleep(0)


def test_leaving_waits_for_all_and_each_end_is_told_once() -> None:
    async def main() -> None:
        ends, watched = Ends(), Watched()
        async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
            for seconds in (0.3, 0.1, 0.2):
                attempts.start(waits, call_of(waits, seconds, run_id=str(seconds)), ends)
            assert len(attempts) == 3
            assert ends.all == []
        assert [run_id for run_id, _ in ends.all] == ["0.1", "0.2", "0.3"]
        assert all(isinstance(end, AttemptOk) for _, end in ends.all)
        assert len(attempts) == 0

    run(main())


def test_ends_are_told_while_the_body_goes_on() -> None:
    async def main() -> None:
        ends, watched = Ends(), Watched()
        async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
            attempts.start(waits, call_of(waits, 0.1), ends)
            await asyncio.sleep(0.2)
            assert ends.kinds == ["AttemptOk"]
            attempts.start(waits, call_of(waits, 0.1), ends)
        assert ends.kinds == ["AttemptOk", "AttemptOk"]

    run(main())


def test_a_cancelled_attempt_ends_as_cancelled() -> None:
    async def main() -> None:
        ends, watched = Ends(), Watched()
        async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
            running = attempts.start(waits, call_of(waits, 100.0, timeout_ms=10**6), ends)
            never_began = attempts.start(waits, call_of(waits, 100.0), ends)
            never_began.cancel()
            await asyncio.sleep(1)
            running.cancel()
            running.cancel()
        assert ends.kinds == ["AttemptCancelled", "AttemptCancelled"]
        assert ends.all[1][1] == AttemptCancelled(1_000.0)
        running.cancel()
        assert watched.abandoned == []

    run(main())


def test_what_a_cancelled_attempt_still_returns_is_told() -> None:
    @handler
    async def finishes() -> str:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(GRACE_MS / 1000 - 0.1)
        return "done"

    async def main() -> None:
        ends, watched = Ends(), Watched()
        async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
            running = attempts.start(finishes, call_of(finishes, timeout_ms=10**6), ends)
            await asyncio.sleep(1)
            running.cancel()
        assert ends.kinds == ["AttemptOk"]
        assert watched.abandoned == []

    run(main())


def test_a_handler_that_swallows_its_timeout_is_abandoned_named_and_told_as_timed_out() -> None:
    async def main() -> None:
        ends, watched, stubborn = Ends(), Watched(), Stubborn()
        before = abandoned_count()
        loop = asyncio.get_running_loop()
        async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
            began = loop.time()
            running = attempts.start(stubborn.handler, call_of(stubborn.handler, timeout_ms=2_000), ends)
        assert loop.time() - began == pytest.approx(2.5)
        assert ends.kinds == [Cause.TIMED_OUT]
        assert running.abandoned
        (named,) = watched.abandoned
        assert (named.handler, named.run_id, named.number, named.in_thread) == ("stubborn", "3.abc", 1, False)
        assert named.after_ms == pytest.approx(2_500)
        assert abandoned_count() == before + 1
        gc.collect()  # held, although the group is gone
        assert not stubborn.ended
        await stubborn.leave()
        await asyncio.sleep(0)
        assert abandoned_count() == before
        assert ends.kinds == [Cause.TIMED_OUT]

    run(main())


def test_a_handler_that_swallows_its_owners_cancellation_does_not_hold_the_owner() -> None:
    async def main() -> None:
        ends, watched, stubborn = Ends(), Watched(), Stubborn()

        async def owner() -> None:
            async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
                attempts.start(stubborn.handler, call_of(stubborn.handler, timeout_ms=10**8), ends)
                attempts.start(waits, call_of(waits, 10.0, timeout_ms=10**8), ends)
                await asyncio.sleep(10**5)

        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(owner())
            await asyncio.sleep(1)
            began = loop.time()
            task.cancel()
        assert task.cancelled()
        assert loop.time() - began == pytest.approx(GRACE_MS / 1000)
        assert ends.kinds == ["AttemptCancelled", "AttemptCancelled"]
        assert [each.handler for each in watched.abandoned] == ["stubborn"]
        await stubborn.leave()

    run(main())


def test_neighbours_go_on_while_one_is_stuck() -> None:
    async def main() -> None:
        ends, watched, stubborn = Ends(), Watched(), Stubborn()
        async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
            attempts.start(stubborn.handler, call_of(stubborn.handler), ends)
            for _ in range(5):
                attempts.start(waits, call_of(waits, 0.1), ends)
                await asyncio.sleep(0.2)
            assert ends.kinds == ["AttemptOk"] * 5
        await stubborn.leave()

    run(main())


def test_a_handler_that_cancels_its_own_task_fails() -> None:
    @handler
    async def self_cancelling() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async def main() -> None:
        ends, watched = Ends(), Watched()
        async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
            attempts.start(self_cancelling, call_of(self_cancelling), ends)
        assert ends.kinds == [Cause.CANCELLED_ITSELF]

    run(main())


@pytest.mark.parametrize("then", ["raise it", "wait for ever"])
def test_a_task_group_of_the_handlers_that_failed_is_no_cancellation(then: str) -> None:
    """Before 3.13 it leaves asyncio's count of cancellations one too high."""

    async def refuse() -> None:
        raise ConnectionError("refused")

    @handler
    async def asks_both() -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.sleep(10))
                tasks.create_task(refuse())
        except* ConnectionError:
            if then == "raise it":
                raise
        await asyncio.sleep(10**6)

    async def main() -> None:
        ends, watched = Ends(), Watched()
        async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
            attempts.start(asks_both, call_of(asks_both), ends)
        ((_, end),) = ends.all
        assert isinstance(end, AttemptError)
        assert end.cause is (Cause.RAISED if then == "raise it" else Cause.TIMED_OUT)
        if then == "raise it":
            assert (end.error, end.retryable) == ("ExceptionGroup", True)
            assert "refused" in end.message

    run(main())


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_nothing_that_a_handler_raises_ends_the_loop(error: BaseException) -> None:
    @handler
    async def raises() -> None:
        await asyncio.sleep(0)
        raise error

    async def main() -> None:
        ends, watched = Ends(), Watched()
        async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
            attempts.start(raises, call_of(raises), ends)
            attempts.start(waits, call_of(waits, 0.1), ends)
        assert ends.kinds == [Cause.RAISED, "AttemptOk"]

    run(main())


def test_an_error_in_the_body_cancels_the_attempts_and_is_raised_in_a_group() -> None:
    async def main() -> None:
        ends, watched = Ends(), Watched()
        with pytest.raises(BaseExceptionGroup) as raised:  # noqa: PT012 - leaving raises
            async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
                attempts.start(waits, call_of(waits, 100.0), ends)
                raise ValueError("body")
        assert raised.group_contains(ValueError, match="body")
        assert ends.kinds == ["AttemptCancelled"]

    run(main())


@pytest.mark.parametrize("body", ["waits", "left"])
def test_an_error_in_what_is_told_reaches_the_owner(body: str) -> None:
    def broken(call: AttemptCall, end: AttemptEnd) -> None:
        if isinstance(end, AttemptOk):
            raise ValueError("told")  # noqa: TRY004

    async def main() -> None:
        watched = Watched()
        with pytest.raises(BaseExceptionGroup) as raised:  # noqa: PT012 - leaving raises
            async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
                attempts.start(waits, call_of(waits, 0.1), broken)
                attempts.start(waits, call_of(waits, 100.0), broken)
                if body == "waits":
                    await asyncio.sleep(10**6)
        assert raised.group_contains(ValueError, match="told")
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(main())


def test_what_is_started_while_a_group_is_cancelled_never_begins() -> None:
    called: list[int] = []

    @handler
    async def calls() -> None:
        called.append(1)

    async def main() -> None:
        ends, watched = Ends(), Watched()

        def next_in_line(call: AttemptCall, end: AttemptEnd) -> None:
            ends(call, end)
            if len(ends.all) < 4:
                attempts.start(calls, call_of(calls), next_in_line)

        async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
            attempts.start(waits, call_of(waits, 100.0), next_in_line)
            await asyncio.sleep(1)
            attempts.cancel_all()
        assert ends.kinds == ["AttemptCancelled"] * 4
        assert called == []

    run(main())


def test_a_group_that_was_left_starts_no_more() -> None:
    async def main() -> None:
        watched = Watched()
        async with AttemptGroup(watched.guard, grace_ms=GRACE_MS) as attempts:
            pass
        with pytest.raises(RuntimeError, match="left"):
            attempts.start(waits, call_of(waits, 1.0), Ends())

    run(main())
