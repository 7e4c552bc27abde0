"""gather, race and map: what settles them, what they give up, and references that do not depend on interleaving."""

from collections.abc import AsyncIterator, Sequence
from itertools import permutations
from typing import Any

import pytest

from headrace import Cancelled, Run, TaskFailed, workflow
from tests.service.engine.driver import Driver
from tests.service.engine.handlers import other, work


@workflow()
async def gathers(run: Run, _: Any) -> Any:
    try:
        return list(await run.gather(run.call(work, 1), run.call(work, 2), run.call(work, 3)))
    except TaskFailed as failed:
        return failed.task


@pytest.mark.parametrize("order", list(permutations([1, 2, 3])))
def test_gather_gives_results_in_argument_order_whatever_came_first(order: Sequence[int]) -> None:
    driver = Driver(gathers)
    run = driver.start(gathers)
    for each in order:
        driver.succeed(run, f"/{each}/work", each * 10)
    assert driver.result(run) == [10, 20, 30]


def test_gather_raises_the_first_failure_in_log_order_and_gives_the_others_up_durably() -> None:
    driver = Driver(gathers)
    run = driver.start(gathers)
    driver.succeed(run, "/1/work")
    driver.fail(run, "/3/work")
    assert driver.result(run) == "/3/work"
    assert "/2/work" in driver.closed[run].settled  # the log says so


def test_a_sibling_that_fails_later_changes_nothing() -> None:
    driver = Driver(gathers)
    run = driver.start(gathers)
    driver.auto = False
    driver.fail(run, "/3/work")
    driver.fail(run, "/2/work")
    driver.read()
    assert driver.result(run) == "/3/work"


def test_empty_groups_settle_at_once() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> list[Any]:
        return [list(await run.gather()), await run.map(lambda item: run.call(work, item), [])]

    driver = Driver(body)
    assert driver.result(driver.start(body)) == [[], []]


def test_a_race_without_runners_is_refused() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        await run.race()

    driver = Driver(body)
    assert driver.ended(driver.start(body)).error == "ValueError"


@workflow()
async def races(run: Run, _: Any) -> Any:
    try:
        return await run.race(run.call(work, 1), run.call(other, 2), run.sleep("1m"))
    except TaskFailed as failed:
        return failed.task


def test_a_race_takes_the_first_success_and_gives_the_losers_up() -> None:
    driver = Driver(races)
    run = driver.start(races)
    driver.fail(run, "/1/work")
    driver.succeed(run, "/2/other", "won")
    assert driver.result(run) == "won"
    assert "/3/sleep" in driver.closed[run].settled


def test_a_sleep_in_a_race_is_a_time_limit() -> None:
    driver = Driver(races)
    run = driver.start(races)
    driver.fire(run, "/3/sleep")
    assert driver.result(run) is None


def test_a_race_that_all_lose_raises_the_last_error() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        try:
            await run.race(run.call(work, 1), run.call(work, 2))
        except TaskFailed as failed:
            return failed.task
        return ""

    driver = Driver(body)
    run = driver.start(body)
    driver.fail(run, "/2/work")
    driver.fail(run, "/1/work")
    assert driver.result(run) == "/1/work"


# --- map --------------------------------------------------------------------------------------------------------------


async def _two(run: Run, item: int) -> list[Any]:
    return [await run.call(work, item), await run.call(other, item)]


@workflow()
async def maps(run: Run, _: Any) -> Any:
    try:
        return await run.map(lambda item: _two(run, item), [10, 20, 30], concurrency=2)
    except TaskFailed as failed:
        return failed.task


def test_a_map_is_bounded_and_gives_item_order() -> None:
    driver = Driver(maps)
    run = driver.start(maps)
    assert driver.open(run) == ["/1/0/1/work", "/1/1/1/work"]
    driver.succeed(run, "/1/1/1/work", "b")
    driver.succeed(run, "/1/1/2/other", "B")
    assert driver.open(run) == ["/1/0/1/work", "/1/2/1/work"]  # the third has begun, and never more than two
    for ref, value in (("/1/2/1/work", "c"), ("/1/0/1/work", "a"), ("/1/0/2/other", "A"), ("/1/2/2/other", "C")):
        driver.succeed(run, ref, value)
    assert driver.result(run) == [["a", "A"], ["b", "B"], ["c", "C"]]


def test_a_map_that_fails_begins_no_further_item_and_gives_the_open_ones_up() -> None:
    driver = Driver(maps)
    run = driver.start(maps)
    driver.fail(run, "/1/0/1/work")
    assert driver.result(run) == "/1/0/1/work"
    assert driver.closed[run].settled == {"/1/0/1/work", "/1/1/1/work"}


def test_a_given_up_map_whose_items_succeed_first_settles_as_cancelled() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        many = run.map(lambda item: run.call(work, item), [1, 2, 3], concurrency=1)
        await run.call(other, 1)
        many.cancel()
        try:
            await many
        except Cancelled:
            return "cancelled"
        return "done"

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/2/other")
    assert driver.result(run) == "cancelled"


def test_a_given_up_map_whose_branch_finishes_all_the_same_settles() -> None:
    """The branch swallows Cancelled, so that no item of the map has failed, and the rest never begins."""

    async def stubborn(run: Run, item: int) -> int:
        try:
            await run.call(work, item)
        except Cancelled:
            pass
        return item

    @workflow()
    async def body(run: Run, _: Any) -> str:
        many = run.map(lambda item: stubborn(run, item), [1, 2, 3], concurrency=1)
        await run.call(other, 1)
        many.cancel()
        try:
            await many
        except Cancelled:
            return "cancelled"
        return "done"

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/2/other")
    assert driver.result(run) == "cancelled"


@pytest.mark.parametrize("concurrency", [0, -1])
def test_a_map_needs_room_for_one(concurrency: int) -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        await run.map(lambda item: run.call(work, item), [1], concurrency=concurrency)

    driver = Driver(body)
    assert driver.ended(driver.start(body)).error == "ValueError"


def test_what_each_returns_must_be_awaitable() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        await run.map(lambda item: item, [1])  # pyright: ignore[reportArgumentType]

    driver = Driver(body)
    assert driver.ended(driver.start(body)).error == "TypeError"


def test_an_each_that_raises_fails_its_item() -> None:
    def each(item: int) -> Any:
        raise KeyError(item)

    @workflow()
    async def body(run: Run, _: Any) -> None:
        await run.map(each, [1])

    driver = Driver(body)
    assert driver.ended(driver.start(body)).error == "KeyError"


# --- branches ---------------------------------------------------------------------------------------------------------


async def _branch(run: Run, name: str) -> list[Any]:
    first = await run.call(work, name)
    inner = await run.gather(run.call(work, 1), _leafy(run))
    return [first, *inner]


async def _leafy(run: Run) -> Any:
    return await run.call(other, 1)


@workflow()
async def nests(run: Run, _: Any) -> Any:
    await run.call(work, 0)
    return list(await run.gather(_branch(run, "a"), _branch(run, "b")))


def test_references_are_the_same_however_branches_interleave() -> None:
    def play(order: list[str]) -> tuple[Any, list[str]]:
        driver = Driver(nests)
        run = driver.start(nests)
        driver.succeed(run, "/1/work")
        played: list[str] = []
        while run in driver.live:
            open_ = driver.open(run)
            ref = min(open_, key=lambda ref: (order.index(ref.split("/")[2]), ref))
            driver.succeed(run, ref, ref)
            played.append(ref)
        return driver.result(run), played

    (one, first), (two, second) = play(["0", "1"]), play(["1", "0"])
    assert one == two
    assert first != second
    assert sorted(first) == sorted(second)
    assert first[:3] == ["/2/0/1/work", "/2/0/2/work", "/2/0/3/1/1/other"]


def test_cancelled_is_thrown_into_a_branch_that_is_given_up_and_its_clean_up_may_go_on() -> None:
    said: list[str] = []

    async def careful(run: Run) -> None:
        try:
            await run.call(work, "long")
        except Cancelled:
            await run.call(other, "clean up")
            said.append("clean")
            raise

    async def fails(run: Run) -> None:
        await run.call(work, "short")

    @workflow()
    async def body(run: Run, _: Any) -> str:
        try:
            await run.gather(careful(run), fails(run))
        except TaskFailed as failed:
            return failed.task
        return ""

    driver = Driver(body)
    run = driver.start(body)
    driver.fail(run, "/1/1/1/work")
    assert driver.open(run) == ["/1/0/2/other"]  # the body has returned; the clean-up is waited for
    driver.succeed(run, "/1/0/2/other")
    assert driver.result(run) == "/1/1/1/work"
    assert "clean" in said


async def leaves_one_open(run: Run) -> None:
    run.call(work, "not awaited")
    await run.call(other, 1)
    raise ValueError("no")


@workflow()
async def catches(run: Run, _: Any) -> str:
    try:
        await run.gather(leaves_one_open(run))
    except ValueError:
        return "caught"
    return ""


def test_a_branch_that_raises_gives_its_open_steps_up() -> None:
    driver = Driver(catches)
    run = driver.start(catches)
    driver.succeed(run, "/1/0/2/other")
    assert driver.result(run) == "caught"
    assert "/1/0/1/work" in driver.closed[run].settled


def test_an_unawaited_failure_in_a_branch_that_was_caught_is_no_news() -> None:
    driver = Driver(catches)
    run = driver.start(catches)
    driver.fail(run, "/1/0/1/work")
    driver.succeed(run, "/1/0/2/other")
    assert driver.result(run) == "caught"


def test_a_branch_that_swallows_cancelled_goes_on_and_its_end_is_waited_for() -> None:
    async def stubborn(run: Run) -> str:
        for _ in range(3):
            try:
                await run.call(work, "again")
            except Cancelled:
                continue
            return "finished"
        return "never"

    @workflow()
    async def body(run: Run, _: Any) -> str:
        return await run.race(stubborn(run), run.call(other, 1))

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/1/other", "won")
    assert driver.open(run) == ["/2/0/2/work"]
    driver.succeed(run, "/2/0/2/work")
    assert driver.result(run) == "won"


def test_groups_inside_groups_are_given_up_whole() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        inner = run.gather(run.call(work, 1), run.race(run.call(work, 2), run.sleep("1m")))
        await run.race(inner, run.call(other, 1))
        return "done"

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/6/other" if "/6/other" in driver.open(run) else driver.open(run)[-1])
    assert driver.result(run) == "done"
    assert {"/1/work", "/2/work", "/3/sleep"} <= driver.closed[run].settled


def test_a_group_of_settled_steps_settles_at_once() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> list[Any]:
        one = run.call(work, 1)
        await one
        group = run.gather(one, one)
        assert group.done()
        return [list(await group), await run.race(one, run.call(other, 1))]

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/1/work", 5)
    assert driver.result(run) == [[5, 5], 5]


def test_one_coroutine_in_two_places_fails_the_run() -> None:
    async def once(run: Run) -> Any:
        return await run.call(work, 1)

    @workflow()
    async def body(run: Run, _: Any) -> None:
        coroutine = once(run)
        await run.gather(coroutine, coroutine)

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, driver.open(run)[0])
    assert (driver.ended(run).status, driver.ended(run).error) == ("failed", "RuntimeError")


def test_async_generators_work_in_a_body() -> None:
    async def results(run: Run) -> AsyncIterator[Any]:
        for index in range(3):
            yield await run.call(work, index)

    @workflow()
    async def body(run: Run, _: Any) -> list[Any]:
        return [result async for result in results(run)]

    driver = Driver(body)
    run = driver.start(body)
    for index in range(3):
        driver.succeed(run, f"/{index + 1}/work", index)
    assert driver.result(run) == [0, 1, 2]
