"""The gauges: what is, read from the states of a service that works."""

import asyncio
from typing import Any

import pytest

from headrace import EventTrigger, Pool, Retry, Run, handler, workflow
from headrace.observability.accumulator import OTHER
from headrace.observability.snapshot import RunState, TaskState, WorkflowNow
from headrace.service import gauges
from headrace.service.definitions.app import AnyWorkflow
from headrace.topics.log import TopicPartition
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, Serving, app_of, event, serving, until


def of(process: Serving, name: str) -> WorkflowNow:
    return next(each for each in process.service.snapshot().workflows if each.workflow == name)


async def test_runs_and_tasks_are_counted_by_what_they_do(place: Place) -> None:
    gate = asyncio.Event()

    @handler(pool=Pool("one", size=1))
    async def work() -> None:
        await gate.wait()

    @handler(retry=Retry(attempts=2, backoff="constant", delay="1h", cap="1h"))
    async def fail() -> None:
        raise ConnectionError

    @workflow(on=EventTrigger("in", "work"), name="worker")
    async def worker(run: Run, order: dict[str, Any]) -> None:
        await run.call(work)

    @workflow(on=EventTrigger("in", "sleep"), name="sleeper")
    async def sleeper(run: Run, order: dict[str, Any]) -> None:
        await run.sleep("1h")

    @workflow(on=EventTrigger("in", "fail"), name="failer")
    async def failer(run: Run, order: dict[str, Any]) -> None:
        await run.call(fail)

    @workflow(on=EventTrigger("in", "queue"), name="queuer", key=lambda _order: "k")
    async def queuer(run: Run, order: dict[str, Any]) -> None:
        await run.sleep("1h")

    app = app_of(work, fail, worker, sleeper, failer, queuer)
    async with serving(FaultLog(place.log), app, partitions=1) as process:
        assert of(process, "worker").runs == {}
        for kind in ("work", "work", "sleep", "queue", "queue", "fail"):
            await place.publish("in", event({"n": 0}, type=kind))
        await until(lambda: of(process, "failer").tasks_queued.get(TaskState.DELAYED) == 1)
        await until(lambda: of(process, "worker").tasks_queued.get(TaskState.HELD_POOL) == 1)
        await until(lambda: len(process.service.owners[0].state.runs) == 6)
        await until(lambda: process.service.snapshot().timers_pending == 2)
        assert of(process, "worker").runs == {RunState.RUNNING: 1, RunState.HELD: 1}
        assert of(process, "worker").tasks_in_progress == 1
        assert process.service.snapshot().handlers_running == {("worker", "work"): 1}
        assert of(process, "sleeper").runs == {RunState.WAITING: 1}
        assert of(process, "failer").runs == {RunState.WAITING: 1}
        assert of(process, "queuer").runs == {RunState.WAITING: 1, RunState.QUEUED: 1}
        (pool,) = process.service.snapshot().pools
        assert (pool.pool, pool.slots, pool.slots_in_use) == ("one", 1, 1)
        gate.set()
        await until(lambda: len(process.observer.finished) == 2)
        assert of(process, "worker").runs == {}


async def test_starts_without_room_are_unadmitted_and_their_bytes_are_the_backlog(place: Place) -> None:
    gate = asyncio.Event()

    @handler
    async def work() -> None:
        await gate.wait()

    @workflow(on=EventTrigger("in", "work"), name="worker")
    async def worker(run: Run, order: dict[str, Any]) -> None:
        await run.call(work)

    settings = {"max_active_runs": 1, "handoff_grace": "10ms"}
    async with serving(FaultLog(place.log), app_of(work, worker), partitions=1, worker=settings) as process:
        await place.publish("in", event({"n": 0}, type="work"), event({"n": 1}, type="work"))
        await until(lambda: of(process, "worker").runs == {RunState.RUNNING: 1, RunState.UNADMITTED: 1})
        assert process.service.snapshot().source_backlog_bytes["in"] == process.shared.admission.waiting_bytes > 0
        gate.set()
        await until(lambda: len(process.observer.finished) == 2)
        assert process.service.snapshot().source_backlog_bytes == {"in": 0}


async def test_lag_is_what_is_there_and_not_done(place: Place) -> None:
    @workflow(on=EventTrigger("in", "work"), name="worker")
    async def worker(run: Run, order: dict[str, Any]) -> None: ...

    log = FaultLog(place.log)
    async with serving(log, app_of(worker), partitions=1) as process:
        await until(lambda: TopicPartition("in", 0) in process.service.router.sources)
        log.hold("shop.runs")
        await place.publish("in", *(event({"n": n}, type="work") for n in range(3)))
        await until(lambda: process.service.snapshot().lag[0].records == 3)
        log.release("shop.runs")
        await until(lambda: process.service.snapshot().lag[0].records == 0)
        (lag,) = process.service.snapshot().lag
        assert (lag.topic, lag.partition, lag.group, lag.seconds) == ("in", 0, "shop.router", 0.0)


async def test_a_stopped_partition_shows(place: Place) -> None:
    @workflow(on=EventTrigger("in", "work"), name="worker")
    async def worker(run: Run, order: dict[str, Any]) -> None: ...

    log = FaultLog(place.log)
    async with serving(log, app_of(worker), partitions=1) as process:
        log.refuses = lambda topic, _record: topic == "shop.runs"
        await place.publish("in", event({"n": 0}, type="work"))
        await until(lambda: process.service.snapshot().stopped)
        (stopped,) = process.service.snapshot().stopped
        assert (stopped.topic, stopped.partitions) == ("in", 1)
        log.refuses = lambda _topic, _record: False


async def test_of_thousands_of_workflows_the_least_busy_are_shown_as_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "_WORKFLOWS_MAX", 2)

    def made(name: str) -> AnyWorkflow:
        @workflow(on=EventTrigger("in", name), name=name)
        async def flow(run: Run, order: dict[str, Any]) -> None:
            await run.sleep("1h")

        return flow

    names = ["one", "two", "three", "four", "five"]
    async with serving(FaultLog(place.log), app_of(*map(made, names)), partitions=1) as process:
        assert len(process.service.snapshot().workflows) == 2
        for count, name in enumerate(names, start=1):
            for _ in range(count):
                await place.publish("in", event({"n": 0}, type=name))
        await until(lambda: process.service.snapshot().timers_pending == 15)
        shown = {each.workflow: each for each in process.service.snapshot().workflows}
        assert {name: each.runs for name, each in shown.items()} == {
            "five": {RunState.WAITING: 5},
            "four": {RunState.WAITING: 4},
            OTHER: {RunState.WAITING: 6},
        }
        assert all(each.oldest_active_run_start_ms for each in shown.values())
