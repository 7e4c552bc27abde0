"""Child runs: each begins once, each parent gets one result, and who is given up is cancelled."""

from typing import Any, cast

import pytest

from headrace import Cancelled, Run, TaskFailed, workflow
from headrace.service.engine.limit import CHILD_DEPTH_MAX
from headrace.service.engine.run_state import Phase
from headrace.service.engine.state import Message
from headrace.topics.command import Cancel, ChildEnded, OnConflict, Start
from headrace.topics.errors import Cause, ChildFailed
from headrace.topics.outcome import RunStatus, StepsCancelled
from headrace.topics.partition_hash import partition_of
from tests.service.engine.driver import Driver, forwarded
from tests.service.engine.handlers import undo, work

PARTITIONS = 3


@workflow(name="child")
async def child(run: Run, n: int) -> int:
    return await run.call(work, n)


@workflow(name="exclusive", key=lambda n: f"k{n}", on_conflict="reject")
async def exclusive(run: Run, n: int) -> int:
    return await run.call(work, n)


@workflow(name="shared", key=lambda n: f"k{n}", on_conflict="join")
async def shared(run: Run, n: int) -> int:
    return await run.call(work, n)


@workflow(name="lined_up", key=lambda n: f"k{n}", on_conflict="queue")
async def lined_up(run: Run, n: int) -> int:
    return await run.call_child(lined_up, n) if n == 7 else await run.call(work, n)


@workflow(name="waiting")
async def waiting(run: Run, n: int) -> int:
    return await run.call_child(lined_up, n)


@workflow(name="parent")
async def parent(run: Run, n: int) -> int:
    return 10 * await run.call_child(child, n)


@workflow(name="catching")
async def catching(run: Run, kind: str) -> list[str]:
    code: Any = {"child": child, "exclusive": exclusive, "shared": shared}[kind]
    try:
        return ["value", str(await run.call_child(code, 1))]
    except ChildFailed as failed:
        return [failed.child, failed.status, str(failed.cause), failed.error, failed.message, failed.task]


@workflow(name="detaching")
async def detaching(run: Run, n: int) -> str:
    return await run.start_child(child, n)


@workflow(name="racing")
async def racing(run: Run, n: int) -> Any:
    return await run.race(run.call_child(child, n), run.sleep("1m"))


@workflow(name="impatient")
async def impatient(run: Run, n: int) -> None:
    step = run.call_child(child, n)
    step.cancel()
    try:
        await step
    except Cancelled:
        await run.call(work, n)


@workflow(name="undoing")
async def undoing(run: Run, n: int) -> None:
    await run.call(work, n, compensate=undo)
    both = run.call_child(child, n), run.call(work, n)
    await run.gather(*both)


@workflow(name="twice")
async def twice(run: Run, n: int) -> list[Any]:
    started = await run.start_child(child, n)
    called = await run.call_child(child, n)
    return [started, called, await run.call(work, n)]


@workflow(name="endless")
async def endless(run: Run, n: int) -> int:
    return await run.call_child(endless, n + 1)


CODE = (
    child,
    exclusive,
    shared,
    lined_up,
    parent,
    catching,
    detaching,
    racing,
    impatient,
    undoing,
    twice,
    endless,
    waiting,
)


class Cluster:
    """A driver for each partition, and the way between them."""

    def __init__(self, partitions: int = PARTITIONS) -> None:
        self.drivers = [Driver(*CODE, partition=number, partitions=partitions) for number in range(partitions)]

    def of(self, run: str) -> Driver:
        return self.drivers[int(run.partition(".")[0])]

    def messages(self) -> list[Message]:
        return [
            entry for driver in self.drivers for entry in driver.state.outbox.values() if isinstance(entry, Message)
        ]

    def carry(self, *, twice: bool = False) -> None:
        """Everything that is on its way arrives, until nothing is."""
        while any(self._carry(driver, twice=twice) for driver in self.drivers):
            pass

    def _carry(self, driver: Driver, *, twice: bool) -> bool:
        entries = [entry for entry in driver.state.outbox.values() if isinstance(entry, Message)]
        for entry in entries:
            for _ in range(1 + twice):
                self.drivers[entry.partition].append(forwarded(entry))
            driver.sent(entry.id)
        return bool(entries)

    def runs(self, workflow: str) -> list[str]:
        """Open ones."""
        return [
            run.id for driver in self.drivers for run in driver.state.runs.values() if run.start.workflow == workflow
        ]

    def result(self, run: str) -> Any:
        return self.of(run).result(run)


def begun(code: Any, input: object = 1) -> tuple[Cluster, str]:
    """A cluster with a run in partition 0 whose messages have arrived."""
    cluster = Cluster()
    run = cluster.drivers[0].start(code, input)
    cluster.carry()
    return cluster, run


def test_a_child_runs_in_the_partition_of_its_step_and_its_result_is_the_step_s() -> None:
    cluster, run = begun(parent, 4)
    (id_,) = cluster.runs("child")
    home = cluster.of(id_)
    start = home.state.runs[id_].start
    assert home.partition == partition_of(f"{run}/1/child".encode(), PARTITIONS)
    assert (start.trigger, start.parent and (start.parent.run, start.parent.step, start.parent.awaited)) == (
        "child",
        (run, "/1/child", True),
    )
    assert cluster.of(run).state.runs[run].children == {"/1/child": id_}
    home.succeed(id_, "/1/work", 5)
    cluster.carry()
    assert cluster.result(run) == 50
    assert cluster.result(id_) == 5
    assert cluster.messages() == []


def test_what_comes_twice_takes_effect_once() -> None:
    cluster = Cluster()
    run = cluster.drivers[0].start(parent, 4)
    cluster.carry(twice=True)
    (id_,) = cluster.runs("child")
    cluster.of(id_).succeed(id_, "/1/work", 5)
    cluster.carry(twice=True)
    assert cluster.result(run) == 50
    assert [len(each.endings) for each in cluster.drivers].count(0) >= 1
    assert cluster.runs("child") == []


def test_a_restart_between_any_two_records_changes_nothing() -> None:
    cluster, run = begun(parent, 4)
    (id_,) = cluster.runs("child")
    for driver in cluster.drivers:
        driver.restart()
    assert cluster.messages() == []  # the start is not made again
    cluster.of(id_).succeed(id_, "/1/work", 5)
    for driver in cluster.drivers:
        driver.restart()
    cluster.carry()
    assert cluster.result(run) == 50


def test_a_start_that_is_lost_with_its_token_is_made_again() -> None:
    driver = Driver(*CODE)
    driver.auto = False
    run = driver.start(parent, 1)
    driver.read(1)
    driver.crash()
    driver.auto = True
    driver.read()
    (message,) = driver.entries(Message)
    assert isinstance(message, Message)
    assert isinstance(message.body, Start)
    assert list(driver.state.runs[run].children) == ["/1/child"]


def test_a_child_that_fails_raises_its_error_in_the_parent() -> None:
    cluster, run = begun(catching, "child")
    (id_,) = cluster.runs("child")
    cluster.of(id_).fail(id_, "/1/work", message="no stock")
    cluster.carry()
    found = cluster.result(run)
    assert found[:4] == [id_, "failed", "raised", "TaskFailed"]
    assert "no stock" in found[4]
    assert found[5] == "/1/child"


@pytest.mark.parametrize(
    ("end", "status", "cause"), [("cancel", "cancelled", "cancelled"), ("time", "timed_out", "timed_out")]
)
def test_a_child_that_others_end_says_so(end: str, status: str, cause: str) -> None:
    cluster, run = begun(catching, "child")
    (id_,) = cluster.runs("child")
    if end == "cancel":
        cluster.of(id_).cancel(id_, "enough")
    else:
        cluster.of(id_).time_out(id_)
    cluster.carry()
    assert cluster.result(run)[1:3] == [status, cause]


def test_an_uncaught_failure_of_a_child_fails_the_parent_at_its_step() -> None:
    cluster, run = begun(parent)
    (id_,) = cluster.runs("child")
    cluster.of(id_).fail(id_, "/1/work")
    cluster.carry()
    ended = cluster.of(run).ended(run)
    assert (ended.status, ended.error, ended.failed_step) == (RunStatus.FAILED, "ChildFailed", "/1/child")
    assert id_ in ended.message


def test_a_detached_child_s_id_is_known_at_once_and_neither_end_concerns_the_other() -> None:
    cluster = Cluster()
    run = cluster.drivers[0].start(detaching, 1)
    id_ = cluster.result(run)  # before anybody else has heard of it
    cluster.carry()
    assert cluster.runs("child") == [id_]
    assert cluster.of(id_).state.runs[id_].start.awaited is False
    cluster.of(id_).succeed(id_, "/1/work", 5)
    assert cluster.messages() == []


def test_who_loses_a_race_is_cancelled() -> None:
    cluster, run = begun(racing)
    (id_,) = cluster.runs("child")
    cluster.of(run).fire(run, "/2/sleep")
    cluster.carry()
    assert cluster.result(run) is None
    assert cluster.of(id_).ended(id_).status is RunStatus.CANCELLED
    assert run in cluster.of(id_).ended(id_).message


def test_a_late_result_changes_nothing() -> None:
    cluster, run = begun(racing)
    (id_,) = cluster.runs("child")
    cluster.of(id_).succeed(id_, "/1/work", 5)
    cluster.of(run).fire(run, "/2/sleep")
    cluster.carry()
    assert cluster.result(run) is None
    assert cluster.result(id_) == 5


def test_a_child_that_is_given_up_before_it_begins_never_is() -> None:
    cluster, run = begun(impatient)
    assert cluster.runs("child") == []
    assert cluster.of(run).open(run) == ["/2/work"]


@pytest.mark.parametrize("by", ["cancel", "timeout"])
def test_the_end_of_a_parent_cancels_the_children_that_it_awaits(by: str) -> None:
    cluster, run = begun(parent)
    (id_,) = cluster.runs("child")
    if by == "cancel":
        cluster.of(run).cancel(run)
    else:
        cluster.of(run).time_out(run)
    (message,) = cluster.messages()
    assert isinstance(message.body, Cancel)
    assert message.after == f"{run}/1/child"
    cluster.carry()
    assert cluster.of(id_).ended(id_).status is RunStatus.CANCELLED


def test_children_are_cancelled_before_anything_is_undone() -> None:
    cluster, run = begun(undoing)
    driver = cluster.of(run)
    driver.succeed(run, "/1/work")
    cluster.carry()
    (id_,) = cluster.runs("child")
    driver.fail(run, "/3/work")
    cluster.carry()
    assert cluster.of(id_).ended(id_).status is RunStatus.CANCELLED
    assert driver.open(run) == ["/1/work/undo/undo"]


def test_a_parked_parent_finds_the_result_when_it_comes_back() -> None:
    cluster, run = begun(parent)
    driver = cluster.of(run)
    (id_,) = cluster.runs("child")
    driver.state.runs[run].phase = Phase.PARKED
    cluster.of(id_).succeed(id_, "/1/work", 5)
    driver.check_replay = False
    cluster.carry()
    driver.resume(run)
    assert cluster.result(run) == 50


def test_a_child_whose_key_is_held_never_begins() -> None:
    cluster = Cluster()
    home = cluster.drivers[partition_of(b"k1", PARTITIONS)]
    held = home.start(exclusive, 1, key="k1", policy=OnConflict.REJECT)
    run = cluster.drivers[0].start(catching, "exclusive")
    cluster.carry()
    found = cluster.result(run)
    assert found[1:4] == ["failed", str(Cause.KEY_HELD), "KeyHeld"]
    assert "HR4016" in found[4]
    assert held in found[4]
    assert cluster.runs("exclusive") == [held]


def test_a_child_that_joins_an_open_run_gets_that_one_s_result_and_does_not_cancel_it() -> None:
    cluster = Cluster()
    home = cluster.drivers[partition_of(b"k1", PARTITIONS)]
    held = home.start(shared, 1, key="k1", policy=OnConflict.JOIN)
    runs = [cluster.drivers[number].start(catching, "shared") for number in range(PARTITIONS)]
    cluster.carry()
    assert cluster.runs("shared") == [held]
    given_up = runs.pop()
    cluster.of(given_up).cancel(given_up)
    cluster.carry()
    assert cluster.runs("shared") == [held]
    home.restart()
    home.succeed(held, "/1/work", 8)
    cluster.carry()
    assert [cluster.result(run) for run in runs] == [["value", "8"]] * len(runs)


def test_a_child_that_would_wait_for_its_own_parent_is_refused() -> None:
    cluster = Cluster()
    home = cluster.drivers[partition_of(b"k7", PARTITIONS)]
    run = home.start(lined_up, 7, key="k7", policy=OnConflict.QUEUE)
    cluster.carry()
    ended = home.ended(run)
    assert (ended.error, "its own parent" in ended.message) == ("ChildFailed", True)
    assert home.state.slots == {}


def test_a_queued_child_that_is_given_up_leaves_the_queue() -> None:
    cluster = Cluster()
    home = cluster.drivers[partition_of(b"k1", PARTITIONS)]
    held = home.start(lined_up, 1, key="k1", policy=OnConflict.QUEUE)
    other = cluster.drivers[0]
    run = other.start(waiting, 1)
    cluster.carry()
    (queued,) = [each for each in cluster.runs("lined_up") if each != held]
    assert home.state.runs[queued].phase is Phase.QUEUED
    other.cancel(run)
    cluster.carry()
    assert cluster.runs("lined_up") == [held]
    assert [list(slot.queued) for slot in home.state.slots.values()] == [[]]


def test_a_retry_has_the_results_of_children_that_succeeded() -> None:
    cluster, run = begun(twice)
    driver = cluster.of(run)
    called = driver.state.runs[run].children["/2/child"]
    (started,) = [each for each in cluster.runs("child") if each != called]
    cluster.of(called).succeed(called, "/1/work", 5)
    cluster.carry()
    driver.fail(run, "/3/work")
    again = driver.retry(run)
    assert driver.open(again) == ["/3/work"]
    cluster.carry()
    driver.succeed(again, "/3/work", 9)
    assert driver.result(again) == [started, 5, 9]
    assert cluster.runs("child") == [started]


def test_a_child_that_is_retried_tells_nobody() -> None:
    cluster, run = begun(parent)
    (id_,) = cluster.runs("child")
    home = cluster.of(id_)
    home.fail(id_, "/1/work")
    cluster.carry()
    assert cluster.of(run).ended(run).status is RunStatus.FAILED
    again = home.retry(id_)
    home.succeed(again, "/1/work", 5)
    assert cluster.messages() == []


def test_a_workflow_that_calls_itself_without_end_stops() -> None:
    cluster = Cluster()
    run = cluster.drivers[0].start(endless, 1)
    cluster.carry()
    ended = cluster.of(run).ended(run)
    assert ended.error == "ChildFailed"
    endings = [end for driver in cluster.drivers for ends in driver.endings.values() for end in ends]
    (deepest,) = [end for end in endings if end.error == "LimitExceeded"]
    assert (len(endings), str(CHILD_DEPTH_MAX) in deepest.message) == (CHILD_DEPTH_MAX + 1, True)


def test_code_that_calls_another_workflow_than_the_log_has_diverges() -> None:
    cluster, run = begun(parent)
    driver = cluster.of(run)

    @workflow(name="parent")
    async def changed(run: Run, n: int) -> int:
        return await run.call_child(exclusive, n)

    driver.workflows["parent"] = changed
    driver.crash()
    (parked,) = driver.parkings
    assert "child called as a child run at /1/child" in parked.expected


def test_the_result_of_a_child_must_fit_its_annotation() -> None:
    cluster, run = begun(parent)
    driver = cluster.of(run)
    driver.command(
        ChildEnded(
            run=run, step="/1/child", child="1.00000000000000000000", workflow="child", status=RunStatus.SUCCEEDED
        )
    )
    (parked,) = driver.parkings
    assert "a result of child that fits its annotation" in parked.expected


def test_a_result_for_a_step_that_is_over_or_of_nobody_has_no_effect() -> None:
    cluster, run = begun(racing)
    driver = cluster.of(run)
    driver.propose(StepsCancelled(run=run, steps=("/1/child",)))
    for step in ("/1/child", "/9/child"):
        driver.command(ChildEnded(run=run, step=step, child="", workflow="child", status=RunStatus.SUCCEEDED))
        assert driver.last.without_effect


def test_only_workflows_can_be_children() -> None:
    @workflow(name="wrong")
    async def wrong(run: Run, _: Any) -> None:
        await run.call_child(cast("Any", work), 1)

    driver = Driver(wrong)
    driver.start(wrong)
    (parked,) = driver.parkings
    assert "run.call_child of work" in parked.found


def test_a_key_is_asked_of_the_workflow_or_given() -> None:
    @workflow(name="keyed")
    async def keyed(run: Run, key: str | None) -> str:
        return await run.start_child(exclusive, 3, key=key)

    driver = Driver(keyed)
    for key in (None, "mine"):
        driver.start(keyed, key)
    keys = [
        entry.body.key
        for entry in driver.entries(Message)
        if isinstance(entry, Message) and isinstance(entry.body, Start)
    ]
    assert keys == ["k3", "mine"]
    failed = driver.start(keyed, "")
    assert driver.ended(failed).error == "ValueError"


def test_child_failures_are_task_failures() -> None:
    assert issubclass(ChildFailed, TaskFailed)
