"""Large runs: limits are named errors, nothing recurses, nothing is quadratic (a quadratic one would take minutes here)."""

from typing import Any

import pytest

from headrace import Run, TaskFailed, workflow
from headrace.service.engine.limit import DEPTH_MAX, FAN_OUT_MAX, STEPS_MAX
from tests.service.engine.driver import Driver
from tests.service.engine.handlers import other, work


def large(body: Any) -> tuple[Driver, str]:
    driver = Driver(body)
    driver.check_replay = False
    return driver, driver.start(body)


def test_a_map_of_ten_thousand_items_that_finish_at_once() -> None:
    async def instantly(item: int) -> int:
        return item * 2

    @workflow()
    async def body(run: Run, _: Any) -> int:
        return sum(await run.map(instantly, range(FAN_OUT_MAX), concurrency=3))

    driver, run = large(body)
    assert driver.result(run) == FAN_OUT_MAX * (FAN_OUT_MAX - 1)


@pytest.mark.parametrize("way", ["gather", "race", "map"])
def test_a_wide_group_that_is_given_up(way: str) -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        async def one(item: int) -> Any:
            return await run.call(work, item)

        match way:
            case "gather":
                group: Any = run.gather(*[run.call(work, item) for item in range(FAN_OUT_MAX)])
            case "race":
                group = run.race(*[one(item) for item in range(FAN_OUT_MAX)])
            case _:
                group = run.map(one, range(FAN_OUT_MAX), concurrency=FAN_OUT_MAX)
        await run.call(other, 1)
        group.cancel()
        return "done"

    driver, run = large(body)
    driver.succeed(run, next(ref for ref in reversed(driver.open(run)) if ref.endswith("other")))
    assert driver.result(run) == "done"
    assert len(driver.closed[run].settled) == FAN_OUT_MAX + 1


def test_a_wide_group_whose_first_member_fails() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        await run.gather(*[run.call(work, item) for item in range(FAN_OUT_MAX)])

    driver, run = large(body)
    driver.fail(run, "/1/work")
    assert driver.ended(run).failed_step == "/1/work"


def test_a_wide_group_whose_failure_is_handled() -> None:
    """Each of the others settles as cancelled; none of that makes the group look at all its members again."""

    @workflow()
    async def body(run: Run, _: Any) -> str:
        try:
            await run.gather(*[run.call(work, item) for item in range(FAN_OUT_MAX)])
        except TaskFailed:
            await run.sleep("1s")
        return "handled"

    driver, run = large(body)
    driver.fail(run, "/1/work")
    driver.fire(run, driver.open(run)[-1])
    assert driver.result(run) == "handled"


def test_ten_thousand_steps_given_up_before_they_begin_in_any_order() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        steps = [run.call(work, item) for item in range(FAN_OUT_MAX)]
        for step in reversed(steps):
            step.cancel()
        await run.sleep("1s")
        return "done"

    driver, run = large(body)
    assert driver.open(run) == [f"/{FAN_OUT_MAX + 1}/sleep"]


@pytest.mark.parametrize("given_up", [False, True])
def test_groups_inside_groups_as_deep_as_a_run_has_steps(given_up: bool) -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        step: Any = run.call(work, 1)
        for _again in range(20_000):
            step = run.gather(step)
        if given_up:
            await run.call(other, 1)
            step.cancel()
            return "given up"
        await step
        return "done"

    driver, run = large(body)
    driver.succeed(run, "/20002/other" if given_up else "/1/work")
    assert driver.result(run) == ("given up" if given_up else "done")


def test_branches_inside_branches_have_a_limit() -> None:
    async def deeper(run: Run, depth: int) -> int:
        if depth == 0:
            return await run.call(work, 1)
        (found,) = await run.gather(deeper(run, depth - 1))
        return found

    @workflow()
    async def body(run: Run, depth: int) -> int:
        return await deeper(run, depth)

    driver, run = large(body)
    assert driver.ended(run).error == "PayloadError"  # None is no depth
    run = driver.start(body, DEPTH_MAX)
    driver.succeed(run, "/1" + "/0/1" * DEPTH_MAX + "/work", 5)
    assert driver.result(run) == 5
    run = driver.start(body, DEPTH_MAX + 1)
    assert (driver.ended(run).error, "deep" in driver.ended(run).message) == ("LimitExceeded", True)


@pytest.mark.parametrize("way", ["gather", "race", "map"])
def test_a_group_that_is_too_wide_is_refused(way: str) -> None:
    async def one(item: int) -> int:
        return item

    @workflow()
    async def body(run: Run, _: Any) -> None:
        many = range(FAN_OUT_MAX + 1)
        if way == "map":
            await run.map(one, many)
        else:
            await getattr(run, way)(*[one(item) for item in many])

    driver, run = large(body)
    assert driver.ended(run).error == "LimitExceeded"


def test_a_run_makes_fifty_thousand_steps_and_no_more() -> None:
    @workflow()
    async def body(run: Run, more: int) -> int:
        for index in range(STEPS_MAX + more):
            run.random() if index % 5 else run.sleep("1s").cancel()
        return 1

    driver = Driver(body)
    driver.check_replay = False
    assert driver.result(driver.start(body, 0)) == 1
    assert driver.ended(driver.start(body, 1)).error == "LimitExceeded"


def test_a_long_run_is_replayed_in_linear_time() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> int:
        for _again in range(10_000):
            await run.call(work, 1)
        return 1

    driver, run = large(body)
    for index in range(9_999):
        driver.succeed(run, f"/{index + 1}/work")
    driver.restart()
    driver.succeed(run, "/10000/work")
    assert driver.result(run) == 1


def test_recursion_of_a_body_fails_its_run_alone() -> None:
    async def endless(run: Run) -> Any:
        return await endless(run)

    @workflow()
    async def body(run: Run, _: Any) -> Any:
        return await endless(run)

    driver, run = large(body)
    assert driver.ended(run).error == "RecursionError"
