"""How runs end: failures, compensation, cancel, timeout, and bodies that will not go."""

from typing import Any

import msgspec
import pytest

from headrace import Cancelled, NotDeterministic, Run, Step, TaskFailed, workflow
from headrace.handlers.payload import payload_type
from headrace.topics.command import OnConflict
from tests.service.engine.driver import Driver
from tests.service.engine.handlers import other, undo, undo_other, work


def test_an_exception_ends_the_run_and_says_which() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        raise KeyError("nothing there")

    driver = Driver(body)
    ended = driver.ended(driver.start(body))
    assert (ended.status, ended.error, ended.message) == ("failed", "KeyError", "'nothing there'")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, RecursionError, Cancelled])
def test_whatever_a_body_raises_ends_the_run_alone(kind: type[BaseException]) -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        raise kind("x")

    driver = Driver(body)
    ended = driver.ended(driver.start(body))
    assert (ended.status, ended.error) == ("failed", kind.__name__)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class UnspeakableRuntimeError(RuntimeError):
    def __str__(self) -> str:
        raise ValueError("not even that")


@pytest.mark.parametrize(
    "error",
    [
        Unspeakable(),
        UnspeakableRuntimeError(),
        ValueError("\ud800 half"),
        ValueError("a\nb\x1b[31m"),
        ValueError("x" * 100_000),
    ],
)
def test_an_exception_without_proper_text_ends_the_run_like_any_other(error: Exception) -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        raise error

    driver = Driver(body)
    ended = driver.ended(driver.start(body))
    assert ended.status == "failed"
    assert ended.message.isprintable()
    assert len(ended.message.encode()) <= 1024


def test_an_input_that_does_not_fit_ends_the_run() -> None:
    @workflow()
    async def body(run: Run, count: int) -> None: ...

    driver = Driver(body)
    ended = driver.ended(driver.start(body, "not a number"))
    assert (ended.status, ended.error) == ("failed", "PayloadError")


class Explosive(msgspec.Struct):
    value: int

    def __post_init__(self) -> None:
        if self.value > 5:
            raise SystemExit(self.value)


def test_an_input_whose_validation_exits_ends_the_run() -> None:
    @workflow()
    async def body(run: Run, given: Explosive) -> None: ...

    assert payload_type(Explosive)
    driver = Driver(body)
    assert driver.ended(driver.start(body, {"value": 9})).error == "SystemExit"


@pytest.mark.parametrize(
    ("value", "error"), [({1, 2}, "PayloadError"), (float("nan"), "PayloadError"), ("x" * 2000, "PayloadTooLarge")]
)
def test_a_result_that_cannot_be_written_fails_the_run(value: Any, error: str) -> None:
    @workflow()
    async def body(run: Run, _: Any) -> Any:
        return value

    driver = Driver(body, payload_bytes_max=1000)
    ended = driver.ended(driver.start(body))
    assert (ended.status, ended.error) == ("failed", error)


def test_arguments_that_are_too_large_fail_where_they_are_given() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        try:
            await run.call(work, "x" * 2000)
        except Exception as error:
            return type(error).__name__
        return ""

    driver = Driver(body, payload_bytes_max=1000)
    assert driver.result(driver.start(body)) == "PayloadTooLarge"


# --- compensation -----------------------------------------------------------------------------------------------------


@workflow()
async def booking(run: Run, _: Any) -> None:
    first = run.call(work, "first", compensate=undo)
    second = run.call(other, "second", compensate=undo_other)
    await run.gather(first, second)
    await run.call(work, "third", compensate=undo)
    await run.call(work, "fourth")


def test_finished_tasks_are_undone_in_reverse_order_of_completion_one_at_a_time() -> None:
    driver = Driver(booking)
    run = driver.start(booking)
    driver.succeed(run, "/2/other")
    driver.succeed(run, "/1/work")
    driver.succeed(run, "/4/work")
    driver.fail(run, "/5/work", message="no room")
    assert driver.open(run) == ["/4/work/undo/undo"]
    assert driver.call(run, "/4/work/undo/undo").arguments == b'["third"]'
    driver.restart()
    driver.succeed(run, "/4/work/undo/undo")
    assert driver.open(run) == ["/1/work/undo/undo"]
    driver.succeed(run, "/1/work/undo/undo")
    assert driver.open(run) == ["/2/other/undo/undo_other"]
    driver.succeed(run, "/2/other/undo/undo_other")
    ended = driver.ended(run)
    assert (ended.status, ended.failed_step, ended.undone, ended.undo_failed) == ("compensated", "/5/work", 3, 0)


def test_an_undo_that_fails_is_counted_and_the_next_one_goes_on() -> None:
    driver = Driver(booking)
    run = driver.start(booking)
    driver.succeed(run, "/1/work")
    driver.succeed(run, "/2/other")
    driver.fail(run, "/4/work")
    driver.fail(run, "/2/other/undo/undo_other", retry_after_ms=5)
    driver.fail(run, "/2/other/undo/undo_other")
    driver.succeed(run, "/1/work/undo/undo")
    ended = driver.ended(run)
    assert (ended.status, ended.undone, ended.undo_failed) == ("failed", 1, 1)


def test_a_run_that_succeeds_undoes_nothing() -> None:
    driver = Driver(booking)
    run = driver.start(booking)
    for step in ("/1/work", "/2/other", "/4/work", "/5/work"):
        driver.succeed(run, step)
    assert driver.ended(run).status == "succeeded"


def test_a_task_that_finishes_while_it_is_being_cancelled_is_undone_too() -> None:
    driver = Driver(booking)
    run = driver.start(booking)
    driver.auto = False
    driver.fail(run, "/1/work")
    driver.succeed(run, "/2/other")
    driver.read()
    assert driver.open(run) == ["/2/other/undo/undo_other"]
    driver.auto = True
    driver.succeed(run, "/2/other/undo/undo_other")
    assert (driver.ended(run).status, driver.ended(run).undone) == ("compensated", 1)


def test_a_task_whose_cancellation_came_first_is_not_undone() -> None:
    driver = Driver(booking)
    run = driver.start(booking)
    driver.fail(run, "/1/work")
    assert (driver.ended(run).status, driver.ended(run).undone) == ("failed", 0)


def test_open_steps_are_cancelled_before_anything_is_undone() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        await run.call(work, 1, compensate=undo)
        run.call(other, 2)
        await run.call(work, 3)

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/1/work")
    driver.auto = False
    driver.fail(run, "/3/work")
    driver.read(1)
    assert driver.open(run) == ["/2/other"]
    assert driver.live[run].cancelling == {"/2/other"}
    driver.read()
    assert driver.open(run) == ["/1/work/undo/undo"]


def test_a_failure_that_the_body_handles_undoes_nothing() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        await run.call(work, 1, compensate=undo)
        try:
            await run.call(other, 2)
        except TaskFailed:
            return "handled"
        return ""

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/1/work")
    driver.fail(run, "/2/other")
    assert driver.result(run) == "handled"


def test_a_step_with_an_undo_in_a_branch_is_undone_as_well() -> None:
    async def branch(run: Run) -> None:
        await run.call(work, 1, compensate=undo)

    @workflow()
    async def body(run: Run, _: Any) -> None:
        await run.gather(branch(run), branch(run))
        raise ValueError("no")

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/1/1/1/work")
    driver.succeed(run, "/1/0/1/work")
    driver.succeed(run, "/1/0/1/work/undo/undo")
    driver.succeed(run, "/1/1/1/work/undo/undo")
    assert driver.ended(run).status == "compensated"


# --- cancel and timeout -----------------------------------------------------------------------------------------------


@workflow()
async def waits(run: Run, _: Any) -> None:
    await run.call(work, 1, compensate=undo)
    await run.call(other, 2)


def test_a_cancel_in_the_body_undoes_what_is_finished() -> None:
    driver = Driver(waits)
    run = driver.start(waits)
    driver.succeed(run, "/1/work")
    driver.cancel(run, "no longer wanted")
    driver.restart()
    driver.succeed(run, "/1/work/undo/undo")
    ended = driver.ended(run)
    assert (ended.status, ended.message, ended.undone) == ("cancelled", "no longer wanted", 1)


def test_a_cancel_before_the_run_began_ends_it_without_a_step() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        await run.call(work, 1)

    driver = Driver(body)
    driver.start(body, key="k", policy=OnConflict.QUEUE)
    second = driver.start(body, key="k", policy=OnConflict.QUEUE)
    driver.cancel(second)
    assert driver.ended(second).status == "cancelled"


@pytest.mark.parametrize("again", ["cancel", "time_out"])
def test_a_cancel_while_it_undoes_changes_nothing(again: str) -> None:
    driver = Driver(waits)
    run = driver.start(waits)
    driver.succeed(run, "/1/work")
    driver.fail(run, "/2/other")
    getattr(driver, again)(run)
    assert driver.open(run) == ["/1/work/undo/undo"]
    driver.succeed(run, "/1/work/undo/undo")
    assert driver.ended(run).status == "compensated"


def test_a_run_that_is_over_its_time_ends_as_timed_out() -> None:
    driver = Driver(waits)
    run = driver.start(waits)
    driver.succeed(run, "/1/work")
    driver.time_out(run)
    driver.succeed(run, "/1/work/undo/undo")
    assert (driver.ended(run).status, driver.ended(run).error) == ("timed_out", "TimeoutError")


def test_a_cancel_while_the_run_drains_counts() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        run.call(work, 1)
        return "done"

    driver = Driver(body)
    run = driver.start(body)
    driver.cancel(run)
    assert driver.ended(run).status == "cancelled"


def test_clean_up_of_a_cancelled_body_runs_but_makes_no_steps() -> None:
    said: list[str] = []

    @workflow()
    async def body(run: Run, _: Any) -> None:
        try:
            await run.call(work, 1)
        finally:
            said.append("clean up")
            await run.call(other, 1)
            said.append("never")

    driver = Driver(body)
    driver.check_replay = False
    run = driver.start(body)
    driver.cancel(run)
    assert driver.ended(run).status == "cancelled"
    assert said == ["clean up"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python says so when it frees it
def test_a_body_that_swallows_cancelled_for_ever_is_dropped() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        step = run.call(work, 1)
        while True:
            try:
                await step
            except BaseException:
                continue

    driver = Driver(body)
    run = driver.start(body)
    driver.cancel(run)
    assert driver.ended(run).status == "cancelled"


def test_a_body_that_answers_cancelled_with_a_result_is_cancelled_all_the_same() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        try:
            await run.call(work, 1)
        except Cancelled:
            return "nothing happened"
        return ""

    driver = Driver(body)
    run = driver.start(body)
    driver.cancel(run)
    assert driver.ended(run).status == "cancelled"


def test_the_end_is_asked_for_once() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        run.call(work, 1)
        await run.call(other, 1)
        raise ValueError("no")

    driver = Driver(body)
    run = driver.start(body)
    driver.auto = False
    driver.succeed(run, "/2/other")
    driver.succeed(run, "/1/work")  # late: the run is over, though the log does not say so yet
    driver.cancel(run)
    driver.read()
    assert driver.ended(run).status == "failed"
    assert sum(b'"run.ended"' in value for _, value in driver.log) == 1


@pytest.mark.parametrize("awaited", [True, False])
def test_steps_that_wait_for_each_other_fail_the_run(awaited: bool) -> None:
    """Nothing in the log could ever wake it."""

    @workflow()
    async def body(run: Run, _: Any) -> None:
        groups: list[Step[Any]] = []

        async def waits_for(index: int) -> None:
            await run.call(work, index)
            await groups[index]

        groups.append(run.gather(waits_for(1)))
        groups.append(run.gather(waits_for(0)))
        if awaited:
            await groups[0]

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/1/0/1/work")
    assert run in driver.state.runs  # the other one may still raise
    driver.succeed(run, "/2/0/1/work")
    assert (driver.ended(run).status, driver.ended(run).error) == ("failed", "RuntimeError")


class Unspoken(NotDeterministic):
    __str__ = Unspeakable.__str__


def test_a_violation_without_text_parks_like_any_other() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        raise Unspoken("x")

    driver = Driver(body)
    driver.start(body)
    assert len(driver.parkings) == 1
