"""Steps of a run: where they begin, what awaiting gives, how they are given up, what `return` waits for."""

from typing import Any

import pytest

from headrace import Cancelled, Run, Step, TaskFailed, workflow
from tests.service.engine.driver import BEGAN_MS, Driver
from tests.service.engine.handlers import number, other, work


def test_steps_are_issued_where_they_are_written_and_begin_at_the_next_suspension() -> None:
    written: list[str] = []

    @workflow()
    async def body(run: Run, _: Any) -> list[Any]:
        one, two = run.call(work, 1), run.call(other, 2)
        written.append("issued")
        return [await two, await one]

    driver = Driver(body)
    run = driver.start(body)
    assert written[:1] == ["issued"]
    assert driver.open(run) == ["/1/work", "/2/other"]
    driver.succeed(run, "/1/work", "a")
    driver.succeed(run, "/2/other", "b")
    assert driver.result(run) == ["b", "a"]


def test_awaiting_again_gives_the_same_result() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> list[Any]:
        step = run.call(work, 1)
        first = await step
        assert step.done()
        return [first, await step, *(await run.gather(step, step))]

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/1/work", 7)
    assert driver.result(run) == [7, 7, 7, 7]


def test_awaiting_a_failed_step_again_fails_again() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> list[str]:
        step = run.call(work, 1)
        said: list[str] = []
        for _again in range(3):
            try:
                await step
            except TaskFailed as failed:
                said.append(failed.message)
        return said

    driver = Driver(body)
    run = driver.start(body)
    driver.fail(run, "/1/work", message="broken")
    assert len(driver.result(run)) == 3


def test_a_failed_task_raises_text_and_no_class_of_the_users() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> list[Any]:
        try:
            await run.call(work, 1)
        except TaskFailed as failed:
            return [failed.task, failed.handler, failed.cause, failed.error, failed.attempts, failed.code]
        return []

    driver = Driver(body)
    run = driver.start(body)
    driver.fail(run, "/1/work", retry_after_ms=10)
    driver.fail(run, "/1/work", error="shop.Broken")
    assert driver.result(run) == ["/1/work", "work", "raised", "shop.Broken", 2, "HR4003"]


def test_a_result_is_decoded_by_the_handlers_annotation() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        return type(await run.call(number, 1)).__name__

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/1/number", 3)
    assert driver.result(run) == "int"


def test_helpers_are_plain_coroutines_and_number_in_their_callers_branch() -> None:
    async def helper(run: Run) -> Any:
        return await run.call(work, 1)

    @workflow()
    async def body(run: Run, _: Any) -> list[Any]:
        return [await helper(run), await helper(run)]

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/1/work", 1)
    driver.succeed(run, "/2/work", 2)
    assert driver.result(run) == [1, 2]


def test_return_waits_for_open_steps() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        run.call(work, 1)
        run.sleep("1s")
        return "done"

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/1/work")
    assert run in driver.state.runs
    driver.fire(run, "/2/sleep")
    assert driver.result(run) == "done"


def test_return_waits_for_branches_that_nobody_awaits() -> None:
    async def branch(run: Run) -> None:
        await run.call(work, 1)
        await run.call(work, 2)

    @workflow()
    async def body(run: Run, _: Any) -> str:
        run.gather(branch(run))
        return "done"

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/1/0/1/work")
    driver.succeed(run, "/1/0/2/work")
    assert driver.result(run) == "done"


def test_an_unawaited_step_that_fails_fails_the_run() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        run.call(work, 1)
        await run.call(other, 1)
        return "done"

    driver = Driver(body)
    run = driver.start(body)
    driver.fail(run, "/1/work", message="nobody looked")
    driver.succeed(run, "/2/other")
    ended = driver.ended(run)
    assert (ended.status, ended.error, ended.failed_step) == ("failed", "TaskFailed", "/1/work")


def test_an_unawaited_failure_is_not_forgotten_among_many_steps() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        run.call(work, 0)
        for index in range(200):
            await run.call(other, index)

    driver = Driver(body)
    driver.check_replay = False
    run = driver.start(body)
    driver.fail(run, "/1/work")
    for index in range(200):
        driver.succeed(run, f"/{index + 2}/other")
    assert driver.ended(run).failed_step == "/1/work"


def test_an_unawaited_step_of_a_finished_branch_that_fails_fails_the_run() -> None:
    async def branch(run: Run) -> int:
        run.call(work, 1)
        return 1

    @workflow()
    async def body(run: Run, _: Any) -> None:
        await run.gather(branch(run))

    driver = Driver(body)
    run = driver.start(body)
    driver.fail(run, "/1/0/1/work")
    assert driver.ended(run).failed_step == "/1/0/1/work"


def test_an_unawaited_group_that_fails_fails_the_run() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        run.gather(run.call(work, 1), run.call(other, 1))

    driver = Driver(body)
    run = driver.start(body)
    driver.fail(run, "/1/work")
    assert driver.ended(run).failed_step == "/1/work"


def test_a_failure_that_is_awaited_late_is_no_unawaited_one() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        early = run.call(work, 1)
        await run.call(other, 1)
        try:
            await early
        except TaskFailed:
            return "handled"
        return ""

    driver = Driver(body)
    run = driver.start(body)
    driver.fail(run, "/1/work")
    driver.succeed(run, "/2/other")
    assert driver.result(run) == "handled"


# --- giving a step up -------------------------------------------------------------------------------------------------


async def _outcome_of(step: Step[Any]) -> str:
    try:
        return f"{await step}"
    except Cancelled:
        return "cancelled"
    except TaskFailed:
        return "failed"


def test_a_step_cancelled_before_it_began_never_begins() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        step = run.call(work, 1)
        step.cancel()
        assert step.done()
        await run.call(other, 1)
        return await _outcome_of(step)

    driver = Driver(body)
    run = driver.start(body)
    assert driver.open(run) == ["/2/other"]
    driver.succeed(run, "/2/other")
    assert driver.result(run) == "cancelled"


def test_cancelling_a_running_step_takes_effect_when_the_log_says_so() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> list[Any]:
        step = run.call(work, 1)
        await run.call(other, 1)
        step.cancel()
        step.cancel()
        return [step.done(), await _outcome_of(step)]

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/2/other")
    assert driver.result(run) == [False, "cancelled"]


@pytest.mark.parametrize("succeeds", [True, False])
def test_a_result_that_comes_before_the_cancellation_wins(succeeds: bool) -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        step = run.call(work, 1)
        await run.call(other, 1)
        step.cancel()
        return await _outcome_of(step)

    driver = Driver(body)
    run = driver.start(body)
    driver.auto = False
    driver.succeed(run, "/2/other")
    driver.succeed(run, "/1/work", "in time") if succeeds else driver.fail(run, "/1/work")
    driver.read()  # the cancellation is appended while the first is read, behind the second
    assert driver.result(run) == ("in time" if succeeds else "failed")


def test_a_late_result_of_a_cancelled_step_is_skipped() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        step = run.call(work, 1)
        await run.call(other, 1)
        step.cancel()
        said = await _outcome_of(step)
        await run.call(other, 2)
        return said

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/2/other")
    driver.succeed(run, "/1/work", "late")
    assert driver.last.without_effect
    driver.succeed(run, "/3/other")
    assert driver.result(run) == "cancelled"


def test_a_given_up_step_that_fails_first_fails_no_run() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> str:
        step = run.call(work, 1)
        await run.call(other, 1)
        step.cancel()
        return "done"

    driver = Driver(body)
    run = driver.start(body)
    driver.auto = False
    driver.succeed(run, "/2/other")
    driver.fail(run, "/1/work")
    driver.read()
    assert driver.result(run) == "done"


# --- timers -----------------------------------------------------------------------------------------------------------


def test_a_sleep_is_due_by_the_runs_clock() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> float:
        began = run.now()
        await run.sleep("1m")
        await run.sleep("2m")
        return (run.now() - began).total_seconds()

    driver = Driver(body)
    run = driver.start(body)
    assert driver.due[run, "/1/sleep"] == BEGAN_MS + 60_000
    driver.now_ms += 61_000
    driver.fire(run, "/1/sleep")
    assert driver.due[run, "/2/sleep"] == BEGAN_MS + 61_000 + 120_000
    driver.restart()
    assert driver.due[run, "/2/sleep"] == BEGAN_MS + 61_000 + 120_000
    driver.fire(run, "/2/sleep")
    assert driver.result(run) == 181.0


def test_sleep_until_takes_a_moment_with_a_time_zone_and_rounds_up() -> None:
    from datetime import UTC, datetime, timedelta, timezone

    moment = datetime.fromtimestamp(BEGAN_MS / 1000, timezone(timedelta(hours=2))) + timedelta(microseconds=1)

    @workflow()
    async def body(run: Run, _: Any) -> None:
        await run.sleep_until(moment)
        await run.sleep_until(datetime(2020, 1, 1, tzinfo=UTC))
        await run.sleep_until(moment.replace(tzinfo=None))

    driver = Driver(body)
    run = driver.start(body)
    assert driver.due[run, "/1/sleep"] == BEGAN_MS + 1
    driver.fire(run, "/1/sleep")
    driver.fire(run, "/2/sleep")
    ended = driver.ended(run)
    assert (ended.status, ended.error) == ("failed", "TypeError")


# --- emit -------------------------------------------------------------------------------------------------------------


def test_an_emit_is_done_when_it_is_in_the_outbox_and_its_id_is_the_place() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> list[str]:
        return [
            await run.emit("a.b", {"x": 1}, topic="out"),
            await run.emit("c", [2], topic="out", key="k", subject="s"),
        ]

    driver = Driver(body)
    run = driver.start(body, key="the-key")
    assert driver.result(run) == [f"{run}/1/emit", f"{run}/2/emit"]
    first, second = driver.outputs()
    assert [first.id, second.id] == [f"{run}/1/emit", f"{run}/2/emit"]
    assert (first.emitted.key, first.emitted.subject, bytes(first.emitted.data)) == ("the-key", None, b'{"x":1}')
    assert (second.emitted.key, second.emitted.subject, bytes(second.emitted.data)) == ("k", "s", b"[2]")


def test_emits_keep_the_order_in_which_they_were_written() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        for index in range(5):
            run.emit("e", index, topic="out")
        await run.call(work, 1)
        run.emit("e", 5, topic="out")

    driver = Driver(body)
    run = driver.start(body)
    driver.succeed(run, "/6/work")
    assert [bytes(output.emitted.data) for output in driver.outputs()] == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_an_event_that_was_not_begun_does_not_leave_a_run_that_raises() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        run.emit("e", 1, topic="out")
        raise ValueError("no")

    driver = Driver(body)
    run = driver.start(body)
    assert driver.ended(run).status == "failed"
    assert driver.outputs() == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"type": "", "topic": "out"}, "ValueError"),
        ({"type": "t", "topic": ""}, "ValueError"),
        ({"type": "t", "topic": "no spaces"}, "ValueError"),
        ({"type": "t", "topic": ".."}, "ValueError"),
        ({"type": 1, "topic": "out"}, "TypeError"),
        ({"type": "t", "topic": "out", "key": 5}, "TypeError"),
        ({"type": "t", "topic": "out", "subject": 5}, "TypeError"),
        ({"type": "t", "topic": "out", "key": "\ud800"}, "UnicodeEncodeError"),
        ({"type": "\ud800", "topic": "out"}, "UnicodeEncodeError"),
        ({"type": "t", "topic": "out", "subject": "s" * 8193}, "LimitExceeded"),
        ({"type": "t", "topic": "out", "data": {1, 2}}, "DefinitionError"),
        ({"type": "t", "topic": "out", "data": "x" * 2000}, "PayloadTooLarge"),
    ],
)
def test_an_emit_that_could_never_be_written_fails_where_it_is_written(arguments: Any, error: str) -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        given = {"data": 1, **arguments}
        run.emit(given.pop("type"), given.pop("data"), **given)

    driver = Driver(body, payload_bytes_max=1000)
    run = driver.start(body)
    assert (driver.ended(run).status, driver.ended(run).error) == ("failed", error)


def test_a_refused_output_fails_an_open_run_typed() -> None:
    @workflow()
    async def body(run: Run, _: Any) -> None:
        await run.emit("e", 1, topic="out")
        await run.call(work, 1)

    driver = Driver(body)
    run = driver.start(body)
    driver.refuse(f"{run}/1/emit")
    ended = driver.ended(run)
    assert (ended.status, ended.error, ended.failed_step) == ("failed", "TaskFailed", "/1/emit")
    assert "no such topic" in ended.message
    assert driver.state.outbox == {}


# --- now, random, uuid ------------------------------------------------------------------------------------------------


def test_time_and_chance_are_the_same_on_every_replay() -> None:
    seen: list[tuple[Any, ...]] = []

    @workflow()
    async def body(run: Run, _: Any) -> None:
        seen.append((run.now(), run.random(), run.random(), run.uuid(), run.uuid()))
        await run.call(work, 1)

    driver = Driver(body)
    driver.start(body)
    driver.now_ms += 5
    driver.restart()
    assert len(seen) > 2
    assert len(set(seen)) == 1
    _, one, two, *ids = seen[0]
    assert 0 <= one < 1
    assert one != two
    assert len(set(ids)) == 2


def test_chance_differs_between_runs_and_a_uuid_is_of_version_4() -> None:
    import uuid

    drawn: set[Any] = set()

    @workflow()
    async def body(run: Run, _: Any) -> None:
        text = run.uuid()
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant, str(parsed)) == (4, uuid.RFC_4122, text)
        drawn.update((run.random(), text))

    driver = Driver(body)
    for _ in range(50):
        driver.start(body)
    assert len(drawn) == 100
