"""Retries: a new run with what had finished, the same keys for what had not, and new ones for what is done a second time on purpose."""

from typing import Any

import msgspec
import pytest

from headrace import Run, TaskFailed, workflow
from headrace.service.attempts import idempotency_key
from headrace.service.engine import retry
from headrace.service.engine.checkpoint import dump, load
from headrace.service.engine.instruction import Begin, Queued
from headrace.service.engine.retry import FAILED_BYTES_MAX, RETENTION_MS
from headrace.service.engine.run_bytes import pack, unpack
from headrace.service.engine.run_state import Phase
from headrace.topics.command import Dismiss, OnConflict
from headrace.topics.identity import ClientId
from headrace.topics.outcome import Emitted
from tests.service.engine.driver import Driver, empty_state, refold
from tests.service.engine.handlers import number, other, undo, undo_other, work


@workflow()
async def three(run: Run, _: Any) -> Any:
    """Three tasks, one after the other."""
    first = await run.call(work, 1)
    second = await run.call(other, first)
    return [first, second, await run.call(work, second)]


FIRST, SECOND, THIRD = "/1/work", "/2/other", "/3/work"


@workflow()
async def undone(run: Run, _: Any) -> Any:
    first = await run.call(work, 1, compensate=undo)
    second = await run.call(other, 2, compensate=undo_other)
    return [first, second, await run.call(work, 3)]


def failed_at(driver: Driver, step: str, *results: object, **more: Any) -> str:
    """A run of `three` whose tasks before `step` gave these results."""
    run = driver.start(three, **more)
    for done, result in zip((FIRST, SECOND, THIRD), results, strict=False):
        driver.succeed(run, done, result)
    driver.fail(run, step)
    assert driver.ended(run).status == "failed"
    return run


def key(driver: Driver, run: str, step: str) -> str:
    """As the handler gets it."""
    return idempotency_key(driver.state.runs[run], driver.call(run, step))


def test_what_had_finished_is_there_and_the_rest_runs_with_the_keys_of_the_failed_run() -> None:
    driver = Driver(three)
    run = failed_at(driver, SECOND, "one")
    new = driver.retry(run)
    assert new != run
    assert driver.open(new) == [SECOND]
    assert driver.call(new, SECOND).arguments == b'["one"]'
    assert key(driver, new, SECOND) == f"{run}{SECOND}"
    driver.restart()
    driver.succeed(new, SECOND, "two")
    assert key(driver, new, THIRD) == f"{run}{THIRD}"
    driver.restart()
    driver.succeed(new, THIRD, "three")
    assert driver.result(new) == ["one", "two", "three"]
    assert len(driver.endings[run]) == 1


def test_a_retry_that_has_succeeded_leaves_nothing_to_retry() -> None:
    driver = Driver(three)
    run = failed_at(driver, FIRST)
    second = driver.retry(run)
    driver.fail(second, FIRST)
    third = driver.retry(second)
    assert set(driver.state.failed) == {run, second}
    for step in (FIRST, SECOND, THIRD):
        driver.succeed(third, step)
    assert driver.state.failed == {}
    assert driver.state.failed_bytes == 0
    assert driver.retry(run) not in driver.state.runs


def test_only_one_retry_of_a_run_is_open() -> None:
    driver = Driver(three)
    run = failed_at(driver, SECOND, 1)
    new = driver.retry(run)
    assert driver.retry(run) not in driver.state.runs
    assert driver.last.without_effect
    driver.cancel(new)
    assert driver.ended(new).status == "cancelled"
    again = driver.retry(run)
    assert driver.open(again) == [SECOND]
    assert key(driver, again, SECOND) == f"{run}{SECOND}"


def test_a_retry_that_fails_can_be_retried_and_has_more_to_copy() -> None:
    driver = Driver(three)
    run = failed_at(driver, SECOND, 1)
    second = driver.retry(run)
    driver.succeed(second, SECOND, 2)
    driver.fail(second, THIRD)
    third = driver.retry(second)
    assert driver.open(third) == [THIRD]
    assert key(driver, third, THIRD) == f"{run}{THIRD}", "keys begin with the first run of the chain"
    driver.succeed(third, THIRD, 3)
    assert driver.result(third) == [1, 2, 3]


def test_a_retry_command_that_comes_twice_makes_one_run() -> None:
    driver = Driver(three)
    run = failed_at(driver, SECOND, 1)
    for _ in range(2):
        driver.command(retry_of(run), ClientId("same"))
    assert len(driver.state.runs) == 1


def retry_of(run: str, from_step: str = "") -> Any:
    from headrace.topics.command import Retry

    return Retry(run=run, from_step=from_step)


# --- what is done a second time ----------------------------------------------------------------------------------------


def test_undone_tasks_run_again_under_a_key_of_their_own() -> None:
    driver = Driver(undone)
    run = driver.start(undone)
    driver.succeed(run, FIRST, 1)
    driver.succeed(run, SECOND, 2)
    driver.fail(run, THIRD)
    driver.succeed(run, f"{SECOND}/undo/undo_other")
    driver.succeed(run, f"{FIRST}/undo/undo")
    assert driver.ended(run).status == "compensated"
    new = driver.retry(run)
    assert driver.open(new) == [FIRST]
    assert key(driver, new, FIRST) == f"{new}{FIRST}", (
        "the failed run's key would find the task done, and it was undone"
    )
    driver.succeed(new, FIRST, 1)
    driver.succeed(new, SECOND, 2)
    assert key(driver, new, THIRD) == f"{run}{THIRD}"
    driver.fail(new, THIRD)
    assert key(driver, new, f"{SECOND}/undo/undo_other") == f"{new}{SECOND}/undo/undo_other"


def test_the_keys_of_what_is_done_again_stay_with_the_chain() -> None:
    driver = Driver(undone)
    run = driver.start(undone)
    driver.succeed(run, FIRST, 1)
    driver.fail(run, SECOND)
    driver.succeed(run, f"{FIRST}/undo/undo")
    second = driver.retry(run)
    driver.fail(second, FIRST)
    third = driver.retry(second)
    assert key(driver, third, FIRST) == f"{second}{FIRST}", "unfinished in the second run: its key goes on"
    driver.succeed(third, FIRST)
    assert key(driver, third, SECOND) == f"{run}{SECOND}"


def test_a_task_whose_undo_failed_is_still_finished() -> None:
    driver = Driver(undone)
    run = driver.start(undone)
    driver.succeed(run, FIRST, 1)
    driver.succeed(run, SECOND, 2)
    driver.fail(run, THIRD)
    driver.succeed(run, f"{SECOND}/undo/undo_other")
    driver.fail(run, f"{FIRST}/undo/undo")
    assert driver.ended(run).status == "failed"
    new = driver.retry(run)
    assert driver.open(new) == [SECOND]
    driver.succeed(new, SECOND, 2)
    driver.fail(new, THIRD)
    assert driver.open(new) == [f"{SECOND}/undo/undo_other"]
    driver.succeed(new, f"{SECOND}/undo/undo_other")
    assert key(driver, new, f"{FIRST}/undo/undo") == f"{run}{FIRST}/undo/undo"


def test_from_a_task_on_everything_runs_again() -> None:
    driver = Driver(three)
    run = failed_at(driver, THIRD, 1, 2)
    new = driver.retry(run, SECOND)
    assert driver.open(new) == [SECOND]
    assert key(driver, new, SECOND) == f"{new}{SECOND}"
    driver.succeed(new, SECOND, "other")
    assert key(driver, new, THIRD) == f"{run}{THIRD}"
    driver.succeed(new, THIRD, 3)
    assert driver.result(new) == [1, "other", 3]


def test_from_the_task_that_failed_is_a_retry_like_any_other() -> None:
    driver = Driver(three)
    run = failed_at(driver, THIRD, 1, 2)
    new = driver.retry(run, THIRD)
    assert driver.open(new) == [THIRD]
    assert key(driver, new, THIRD) == f"{run}{THIRD}"


def test_from_a_task_that_is_unknown_has_no_effect() -> None:
    driver = Driver(three)
    run = failed_at(driver, SECOND, 1)
    assert driver.retry(run, "/9/work") not in driver.state.runs
    assert driver.last.without_effect
    assert driver.retry(run) in driver.state.runs


# --- events, code, chance ----------------------------------------------------------------------------------------------


@workflow(emits=["out"])
async def emitting(run: Run, _: Any) -> Any:
    id_ = await run.emit("begun", {"n": 1}, topic="out")
    await run.call(work, id_)


def test_an_event_that_was_emitted_is_not_emitted_again() -> None:
    driver = Driver(emitting)
    run = driver.start(emitting)
    driver.fail(run, "/2/work")
    new = driver.retry(run)
    assert driver.open(new) == ["/2/work"]
    assert driver.call(new, "/2/work").arguments == b'["%s/1/emit"]' % run.encode()
    assert [output.id for output in driver.outputs()] == [f"{run}/1/emit"]


def test_another_event_at_its_place_is_emitted() -> None:
    driver = Driver()
    marks = ["first", "second"]

    @workflow(emits=["out"])
    async def marked(run: Run, _: Any) -> Any:
        await run.emit("begun", marks[0], topic="out")
        await run.call(work, 1)

    driver.workflows[marked.name] = marked
    run = driver.start(marked)
    driver.fail(run, "/2/work")
    marks.pop(0)
    new = driver.retry(run)
    assert [output.id for output in driver.outputs()] == [f"{run}/1/emit", f"{new}/1/emit"]
    driver.fail(new, "/2/work")
    third = driver.retry(new)
    assert driver.open(third) == ["/2/work"]
    assert len(driver.outputs()) == 2


def test_an_event_that_was_refused_is_emitted_again() -> None:
    driver = Driver(emitting)
    run = driver.start(emitting)
    driver.refuse(f"{run}/1/emit")
    assert driver.ended(run).status == "failed"
    new = driver.retry(run)
    assert [output.id for output in driver.outputs()] == [f"{new}/1/emit"]


def test_code_that_was_mended_gets_the_results_that_are_still_asked_for() -> None:
    broken = [True]

    @workflow()
    async def body(run: Run, _: Any) -> Any:
        first, second = await run.gather(run.call(work, 1), run.call(work, 2))
        if broken:
            raise ValueError("a bug")
        return [first, second, await run.call(other, 3)]

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/2/work", "b")
    driver.succeed(run, "/1/work", "a")
    assert driver.ended(run).error == "ValueError"
    broken.clear()
    new = driver.retry(run)
    assert driver.open(new) == ["/4/other"]
    driver.succeed(new, "/4/other", "c")
    assert driver.result(new) == ["a", "b", "c"]


def test_a_race_is_won_by_what_had_finished() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> Any:
        won = await run.race(run.call(work, 1), run.call(other, 2))
        return [won, await run.call(number, 3)]

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/2/other", "other")
    driver.fail(run, "/4/number")
    new = driver.retry(run)
    driver.succeed(new, "/4/number", 4)
    assert driver.result(new) == ["other", 4]


def test_a_result_that_does_not_fit_the_code_any_more_parks_the_retry() -> None:
    driver = Driver(three)
    run = failed_at(driver, SECOND, "text")

    @workflow(name="three")
    async def changed(run: Run, _: Any) -> Any:
        return await run.call(number_named_work, 1)

    from headrace import handler

    @handler(name="work")
    async def number_named_work(value: int) -> int:
        return value

    number_named_work.load()
    driver.workflows["three"] = changed
    new = driver.retry(run)
    assert driver.state.runs[new].phase is Phase.PARKED
    (parking,) = driver.parkings
    assert parking.step == FIRST


def test_a_failure_that_the_code_caught_is_tried_again() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> Any:
        try:
            await run.call(work, 1)
        except TaskFailed:
            await run.call(other, 2)
            raise

    driver = Driver(body)
    run = driver.start(body)
    driver.fail(run, FIRST)
    driver.succeed(run, SECOND)
    new = driver.retry(run)
    assert driver.open(new) == [FIRST]
    driver.succeed(new, FIRST)
    assert driver.ended(new).status == "succeeded"


def test_chance_is_that_of_the_first_run() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> Any:
        await run.call(work, run.uuid())

    driver = Driver(body)
    run = driver.start(body)
    arguments = driver.call(run, "/2/work").arguments
    driver.fail(run, "/2/work")
    second = driver.retry(run)
    assert driver.call(second, "/2/work").arguments == arguments, "the same key must come with the same arguments"


def test_timers_run_again() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> Any:
        await run.sleep("1h")
        await run.call(work, 1)

    driver = Driver(body)
    run = driver.start(body)
    driver.fire(run, "/1/sleep")
    driver.fail(run, "/2/work")
    new = driver.retry(run)
    assert driver.open(new) == ["/1/sleep"]


# --- what may be retried, and for how long ------------------------------------------------------------------------------


def test_runs_that_ended_as_somebody_wished_are_not_kept() -> None:
    driver = Driver(three)
    done, cancelled = driver.start(three), driver.start(three)
    for step in (FIRST, SECOND, THIRD):
        driver.succeed(done, step)
    driver.cancel(cancelled)
    assert driver.state.failed == {}
    for run in (done, cancelled, "0.0123456789abcdef0123"):
        driver.retry(run)
        assert driver.last.without_effect
    assert not driver.state.runs


def test_a_run_that_timed_out_can_be_retried() -> None:
    driver = Driver(three)
    run = driver.start(three)
    driver.succeed(run, FIRST, 1)
    driver.time_out(run)
    assert driver.ended(run).status == "timed_out"
    assert driver.open(driver.retry(run)) == [SECOND]


def test_a_dismissed_run_cannot_be_retried() -> None:
    driver = Driver(three)
    run = failed_at(driver, FIRST)
    driver.command(Dismiss(run=run))
    assert not driver.last.without_effect
    assert driver.state.failed_bytes == 0
    driver.command(Dismiss(run=run))
    assert driver.last.without_effect
    assert driver.retry(run) not in driver.state.runs


def test_a_failed_run_is_forgotten_after_its_retention() -> None:
    driver = Driver(three)
    run = failed_at(driver, FIRST)
    driver.now_ms += RETENTION_MS
    later = failed_at(driver, FIRST)
    assert set(driver.state.failed) == {run, later}
    driver.now_ms += 1
    assert driver.retry(run) not in driver.state.runs
    failed_at(driver, FIRST)
    assert run not in driver.state.failed
    assert later in driver.state.failed


def test_what_is_kept_of_failed_runs_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FAILED_BYTES_MAX == 16 << 20
    driver = Driver(three)
    driver.check_replay = False
    first = failed_at(driver, SECOND, "x" * 1000)
    monkeypatch.setattr(retry, "FAILED_BYTES_MAX", 10 * driver.state.failed_bytes)
    runs = [failed_at(driver, SECOND, "x" * 1000) for _ in range(20)]
    assert list(driver.state.failed) == runs[-10:]
    assert driver.state.failed_bytes == sum(len(bytes(each.kept)) for each in driver.state.failed.values())
    assert first not in driver.state.failed


def test_the_one_of_the_key_that_is_open_keeps_it() -> None:
    for policy in (OnConflict.REJECT, OnConflict.JOIN):
        driver = Driver(three)
        run = failed_at(driver, FIRST, key="k", policy=policy)
        taken = driver.start(three, key="k", policy=policy)
        assert driver.retry(run) not in driver.state.runs
        assert driver.last.without_effect
        driver.cancel(taken)
        new = driver.retry(run)
        assert driver.state.slots[driver.state.runs[new].slot].open == new


def test_a_retry_queues_for_its_key() -> None:
    driver = Driver(three)
    run = failed_at(driver, FIRST, key="k", policy=OnConflict.QUEUE)
    taken = driver.start(three, key="k", policy=OnConflict.QUEUE)
    new = driver.retry(run)
    assert [type(each) for each in driver.instructions] == [Queued]
    assert driver.retry(run) not in driver.state.runs, "a queued retry is open"
    driver.cancel(taken)
    assert driver.open(new) == [FIRST]


def test_a_run_with_policy_allow_is_retried_beside_others_of_its_key() -> None:
    driver = Driver(three)
    run = failed_at(driver, FIRST, key="k")
    driver.start(three, key="k")
    driver.retry(run)
    assert [type(each) for each in driver.instructions] == [Begin]


# --- the state ---------------------------------------------------------------------------------------------------------


def test_failed_runs_and_retries_are_in_checkpoints_and_survive_being_packed() -> None:
    driver = Driver(undone, three, emitting)
    failed_at(driver, SECOND, {"deep": [1, "ü"]})
    run = driver.start(undone)
    driver.succeed(run, FIRST, 1)
    driver.fail(run, SECOND)
    driver.succeed(run, f"{FIRST}/undo/undo")
    new = driver.retry(run)
    other_run = driver.start(emitting)
    driver.fail(other_run, "/2/work")
    emitted = driver.retry(other_run)
    state = driver.state
    for id_ in (new, emitted):
        assert unpack(pack(state.runs[id_])) == state.runs[id_]
    assert isinstance(state.runs[emitted].retried.copied[0], Emitted)  # pyright: ignore[reportOptionalMemberAccess]
    assert load(dump(state), empty_state()) == state
    assert refold(driver.log) == state


def test_a_retry_is_no_event_and_says_who_asked_for_it() -> None:
    driver = Driver(three)
    run = failed_at(driver, FIRST)
    start = driver.state.runs[driver.retry(run)].start
    assert start.trigger == "manual"
    assert msgspec.structs.replace(start, trigger="event") == driver.closed[run].start


def test_a_retry_is_never_left_in_the_log_for_there_is_no_start_at_its_place() -> None:
    driver = Driver(three)
    run = failed_at(driver, FIRST)
    driver.check_replay = False
    new = driver.retry(run)
    assert not driver.state.runs.leave(new)
    assert driver.state.runs.leave(driver.start(three))
