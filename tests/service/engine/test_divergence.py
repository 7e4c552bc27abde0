"""What parks a run: a history that does not fit the code, and what a body may not do. And how a parked run gets on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from headrace import NotDeterministic, Run, workflow
from headrace.service.definitions.workflow import Workflow
from headrace.service.engine.run_state import Phase
from tests.service.engine.driver import Driver
from tests.service.engine.handlers import number, other, undo, work

Body = Callable[[Run, Any], Coroutine[Any, Any, Any]]


def named(body: Body, name: str = "shop") -> Workflow[Any, Any]:
    return workflow(name=name)(body)


async def two_tasks(run: Run, _: Any) -> None:
    await run.call(work, 1)
    await run.call(other, 2)
    await run.emit("shop.done", 1, topic="out")
    await run.sleep("1m")
    await run.call(work, 3)


async def removed(run: Run, _: Any) -> None:
    await run.call(work, 1)
    await run.emit("shop.done", 1, topic="out")


async def added(run: Run, _: Any) -> None:
    await run.call(work, 1)
    await run.call(number, 0)
    await run.call(other, 2)


async def renamed(run: Run, _: Any) -> None:
    await run.call(number, 1)


async def reordered(run: Run, _: Any) -> None:
    await run.call(other, 2)
    await run.call(work, 1)


async def ends_early(run: Run, _: Any) -> None:
    await run.call(work, 1)


async def raises_early(run: Run, _: Any) -> None:
    await run.call(work, 1)
    raise ValueError("no")


async def sleeps_instead(run: Run, _: Any) -> None:
    await run.call(work, 1)
    await run.sleep("1s")


async def other_event(run: Run, _: Any) -> None:
    await run.call(work, 1)
    await run.call(other, 2)
    await run.emit("shop.changed", 1, topic="out")


async def call_instead_of_sleep(run: Run, _: Any) -> None:
    await run.call(work, 1)
    await run.call(other, 2)
    await run.emit("shop.done", 1, topic="out")
    await run.call(work, 1)


async def in_a_branch(run: Run, _: Any) -> None:
    await run.gather(two_tasks(run, _))


async def waits_elsewhere(run: Run, _: Any) -> None:
    await run.call(work, 1)
    await run.gather(run.sleep("1m"), run.sleep("2m"), run.sleep("3m"), run.sleep("4m"))


@pytest.mark.parametrize(
    ("changed", "step", "expected", "found"),
    [
        (removed, "/2/other", "other called at /2/other", "shop.done emitted to out at /2/emit"),
        (added, "/2/other", "other called at /2/other", "number called at /2/number"),
        (renamed, "/1/work", "work called at /1/work", "number called at /1/number"),
        (reordered, "/1/work", "work called at /1/work", "other called at /1/other"),
        (ends_early, "/2/other", "other called at /2/other", "the workflow has ended"),
        (raises_early, "/2/other", "other called at /2/other", "the workflow has ended"),
        (sleeps_instead, "/2/other", "other called at /2/other", "a timer at /2/sleep"),
        (other_event, "/3/emit", "shop.done emitted to out at /3/emit", "shop.changed emitted to out at /3/emit"),
        (call_instead_of_sleep, "/4/sleep", "a timer at /4/sleep", "work called at /4/work"),
        (in_a_branch, "/1/work", "work called at /1/work", "no such step; the workflow waits for /1/0/1/work"),
    ],
)
def test_a_history_that_does_not_fit_parks_the_run_with_both_sides(
    changed: Body, step: str, expected: str, found: str
) -> None:
    driver = Driver(named(two_tasks))
    run = driver.start("shop")
    driver.succeed(run, "/1/work")
    driver.succeed(run, "/2/other")
    driver.fire(run, "/4/sleep")
    driver.workflows["shop"] = named(changed)
    driver.crash()
    assert driver.state.runs[run].phase is Phase.PARKED
    (parked,) = driver.parkings
    assert (parked.reason, parked.step, parked.expected, parked.found) == ("nondeterministic", step, expected, found)


async def sleeps(run: Run, _: Any) -> None:
    await run.sleep("1m")
    await run.call(work, 1)


async def calls_first(run: Run, _: Any) -> None:
    await run.call(undo, 1)
    await run.sleep("1m")


async def ends_at_once(run: Run, _: Any) -> None:
    return


@pytest.mark.parametrize(
    ("changed", "found"), [(calls_first, "undo called at /1/undo"), (ends_at_once, "the workflow has ended")]
)
def test_code_that_no_longer_sleeps_where_a_timer_is_armed_parks(changed: Body, found: str) -> None:
    driver = Driver(named(sleeps))
    run = driver.start("shop")
    driver.workflows["shop"] = named(changed)
    driver.crash()
    assert driver.state.runs[run].phase is Phase.PARKED
    (parked,) = driver.parkings
    assert (parked.step, parked.expected, parked.found) == ("/1/sleep", "a timer at /1/sleep", found)
    driver.workflows["shop"] = named(sleeps)
    driver.resume(run)
    assert driver.open(run) == ["/1/sleep"]


def test_code_that_no_longer_calls_a_task_between_two_attempts_parks() -> None:
    async def calls(run: Run, _: Any) -> None:
        await run.call(work, 1)

    driver = Driver(named(calls))
    run = driver.start("shop")
    driver.fail(run, "/1/work", retry_after_ms=10_000)
    driver.workflows["shop"] = named(calls_first)
    driver.crash()
    (parked,) = driver.parkings
    assert (parked.step, parked.expected, parked.found) == (
        "/1/work",
        "a task at /1/work",
        "undo called at /1/undo",
    )
    driver.workflows["shop"] = named(calls)
    driver.resume(run)
    assert driver.open(run) == ["/1/work"]


def test_steps_added_behind_the_history_are_no_divergence() -> None:
    driver = Driver(named(ends_early))
    run = driver.start("shop")
    driver.workflows["shop"] = named(two_tasks)
    driver.crash()
    driver.succeed(run, "/1/work")
    assert driver.open(run) == ["/2/other"]
    assert driver.parkings == []


def test_a_handler_whose_result_type_changed_parks() -> None:
    async def first(run: Run, _: Any) -> None:
        await run.call(work, 1)
        await run.sleep("1m")

    from headrace import handler

    @handler(name="work")
    async def stricter(value: Any) -> int:
        return value

    async def second(run: Run, _: Any) -> None:
        await run.call(stricter, 1)
        await run.sleep("1m")

    driver = Driver(named(first))
    run = driver.start("shop")
    driver.succeed(run, "/1/work", "text")
    driver.workflows["shop"] = named(second)
    driver.crash()
    (parked,) = driver.parkings
    assert parked.expected == "a result of work that fits its annotation"
    assert driver.state.runs[run].phase is Phase.PARKED


def parked_run() -> tuple[Driver, str]:
    driver = Driver(named(two_tasks))
    run = driver.start("shop")
    driver.succeed(run, "/1/work")
    driver.workflows["shop"] = named(renamed)
    driver.crash()
    assert driver.state.runs[run].phase is Phase.PARKED
    return driver, run


def test_a_parked_run_resumes_where_it_was_once_the_code_fits_again() -> None:
    driver, run = parked_run()
    driver.workflows["shop"] = named(two_tasks)
    driver.resume(run)
    assert driver.open(run) == ["/2/other"]


def test_a_parked_run_whose_code_still_does_not_fit_parks_again() -> None:
    driver, run = parked_run()
    driver.resume(run)
    assert driver.state.runs[run].phase is Phase.PARKED
    assert len(driver.parkings) == 2


def test_a_parked_run_can_be_cancelled_although_its_code_does_not_fit() -> None:
    driver, run = parked_run()
    driver.cancel(run, "enough")
    ended = driver.ended(run)
    assert ended.status == "cancelled"
    assert ended.message.startswith("enough (its code could not be run to the end")


def test_a_parked_run_whose_code_fits_again_is_undone_when_it_is_cancelled() -> None:
    async def body(run: Run, _: Any) -> None:
        await run.call(work, 1, compensate=undo)
        await run.call(other, 2)

    driver = Driver(named(body))
    run = driver.start("shop")
    driver.succeed(run, "/1/work")
    driver.workflows["shop"] = named(renamed)
    driver.crash()
    driver.workflows["shop"] = named(body)
    driver.cancel(run)
    driver.succeed(run, "/1/work/undo/undo")
    assert (driver.ended(run).status, driver.ended(run).undone) == ("cancelled", 1)


@pytest.mark.parametrize("cancel_first", [True, False])
def test_a_cancel_that_crosses_a_parking_ends_the_run(cancel_first: bool) -> None:
    driver = Driver(named(two_tasks))
    run = driver.start("shop")
    driver.succeed(run, "/1/work")
    driver.workflows["shop"] = named(renamed)
    driver.auto = False
    driver.crash()  # the parking is appended, and not read back yet
    if cancel_first:
        value = driver.log.pop()
        driver.cancel(run)
        driver.log.append(value)
    else:
        driver.cancel(run)
    driver.read()
    assert driver.ended(run).status == "cancelled"


def test_results_that_come_while_it_is_parked_are_not_lost() -> None:
    async def body(run: Run, _: Any) -> Any:
        return list(await run.gather(run.call(work, 1), run.call(other, 2)))

    driver = Driver(named(body))
    run = driver.start("shop")
    call = driver.call(run, "/2/other")
    driver.succeed(run, "/1/work", 1)
    driver.workflows["shop"] = named(renamed)
    driver.crash()
    import msgspec

    from headrace.topics.outcome import AttemptSucceeded

    driver.propose(AttemptSucceeded(run, call.ref, "other", 1, msgspec.Raw(b"2"), 0, 1.0))
    driver.workflows["shop"] = named(body)
    driver.resume(run)
    assert driver.result(run) == [1, 2]


# --- what a body may not do -------------------------------------------------------------------------------------------


async def _sleeps_zero(run: Run) -> None:
    await asyncio.sleep(0)


async def _sleeps(run: Run) -> None:
    await asyncio.sleep(1)


async def _asks_for_the_loop(run: Run) -> None:
    asyncio.get_running_loop().create_future()


class Foreign:
    def __await__(self) -> Any:
        yield "something else"


async def _awaits_foreign(run: Run) -> None:
    await Foreign()


async def _swallows(run: Run) -> None:
    try:
        run.call(len, 1)  # pyright: ignore[reportArgumentType]
    except BaseException:
        pass
    await run.call(work, 1)


async def _calls_a_function(run: Run) -> None:
    await run.call(len, 1)  # pyright: ignore[reportArgumentType]


async def _compensates_with_a_function(run: Run) -> None:
    await run.call(work, 1, compensate=len)  # pyright: ignore[reportArgumentType]


async def _gathers_foreign(run: Run) -> None:
    await run.gather(_sleeps(run), Foreign())


async def _gathers_sleeps(run: Run) -> None:
    await run.gather(_sleeps_zero(run), run.call(work, 1))


async def _says_so(run: Run) -> None:
    raise NotDeterministic("time.time()", "run.now()")


@pytest.mark.parametrize(
    ("act", "found"),
    [
        (_sleeps_zero, "NoneType"),
        (_sleeps, "asyncio"),
        (_asks_for_the_loop, "asyncio"),
        (_awaits_foreign, "yields str"),
        (_swallows, "run.call of len"),
        (_calls_a_function, "a function decorated with @handler"),
        (_compensates_with_a_function, "run.call with compensate=len"),
        (_gathers_foreign, "waiting for Foreign"),
        (_gathers_sleeps, "NoneType"),
        (_says_so, "time.time(); use run.now()"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_what_a_body_may_not_do_parks_the_run(
    act: Callable[[Run], Coroutine[Any, Any, None]], found: str, late: bool
) -> None:
    async def body(run: Run, _: Any) -> None:
        if late:
            await run.call(other, 1)
        await act(run)

    driver = Driver(named(body))
    driver.check_replay = False
    run = driver.start("shop")
    if late:
        driver.succeed(run, "/1/other")
    (parked,) = driver.parkings
    assert driver.state.runs[run].phase is Phase.PARKED
    assert found in parked.found
    assert parked.expected == "a workflow that only awaits its run"


def test_a_run_used_outside_of_its_workflow_is_refused() -> None:
    leaked: list[Run] = []

    async def leaks(run: Run, _: Any) -> None:
        leaked.append(run)
        await run.call(work, 1)

    driver = Driver(named(leaks))
    driver.start("shop")
    with pytest.raises(NotDeterministic):
        leaked[0].call(work, 1)


def test_a_step_of_another_run_cannot_be_awaited() -> None:
    steps: list[Any] = []

    async def gives(run: Run, _: Any) -> None:
        steps.append(run.call(work, 1))
        await run.sleep("1m")

    async def takes(run: Run, _: Any) -> None:
        await steps[0]

    async def gathers(run: Run, _: Any) -> None:
        await run.gather(steps[0])

    driver = Driver(named(gives, "gives"), named(takes, "takes"), named(gathers, "gathers"))
    driver.check_replay = False
    driver.start("gives")
    driver.start("takes")
    driver.start("gathers")
    assert ["another run" in parked.found for parked in driver.parkings] == [True, True]


def test_a_violation_that_others_saw_parks_whatever_the_body_made_of_it() -> None:
    async def body(run: Run, _: Any) -> str:
        return "done"

    driver = Driver(named(body))
    driver.auto = False
    run = driver.start("shop")
    driver.read(1)
    interpreter = driver.interpreter(driver.state.runs[run])
    assert interpreter.begin().ended is not None
    turn = interpreter.park("time.time(); use run.now()")
    assert turn.parked is not None
    assert turn.ended is None
