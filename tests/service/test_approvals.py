"""Approvals in a service that runs: who waits costs bytes, survives restarts, and goes on when the log says what was decided."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace import EventTrigger, Run, handler, workflow
from headrace.observability.snapshot import RunState
from headrace.service.engine.interpreter import TIMEOUT_STEP
from headrace.service.gauges import snapshot
from headrace.topics.approval import ApprovalEnding, Verdict
from headrace.topics.command import Approve, Cancel, Command
from headrace.topics.identity import ClientId
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.outcome import ApprovalRequested, RunEnded, RunStatus, TimerFired
from headrace.topics.run_record import CommandRecord, encode
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, Recorder, Serving, app_of, event, place_at, serving, until

AT_ONCE = {"idle_after": "0s", "handoff_grace": "10ms"}
RUNS = TopicPartition("shop.runs", 0)
ASK = "/1/approval"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with place_at(tmp_path, partitions=1) as place:
        yield place


@handler
async def work(n: int) -> int:
    return n + 1


@workflow(on=EventTrigger("in", "ask"), name="asker")
async def asker(run: Run, order: dict[str, Any]) -> list[str]:
    said = await run.approval(title="Pay?", roles=["boss"], timeout=order.get("timeout"))
    return [said.decision, said.by]


APP = app_of(work, asker)
_count = iter(range(1_000_000))


async def command(place: Place, body: Command) -> None:
    record = CommandRecord(id=ClientId(f"test-{next(_count)}"), body=body)
    await place.log.publish(RUNS, [NewRecord(value=encode(record))])


async def approve(place: Place, run: str, verdict: Verdict = Verdict.APPROVED, step: str = ASK) -> None:
    await command(place, Approve(run=run, step=step, decision=verdict, by="ann", roles=("boss",)))


def idle(process: Serving) -> set[str]:
    """Open runs that are kept as bytes."""
    owner = process.service.owners[0]
    return {run for run in owner.state.runs if owner.state.runs.is_packed(run)} - set(owner.runs.live)


async def results(place: Place, count: int = 1) -> list[Any]:
    return [msgspec.json.decode(bytes(each.result)) for each in await place.until_outcomes(RunEnded, count)]


async def asked(process: Serving, count: int = 1) -> list[str]:
    """The runs that ask, once they are kept as bytes."""
    await until(lambda: len(process.observer.asked) >= count and len(idle(process)) >= count)
    return [told.run for told in process.observer.asked]


async def test_a_run_that_waits_for_somebody_is_bytes_without_any_timer(place: Place) -> None:
    async with serving(FaultLog(place.log), APP, partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", event({}, type="ask"))
        (run,) = await asked(process)
        owner = process.service.owners[0]
        assert not owner.runs.live
        assert len(process.shared.timers) == 0
        assert process.shared.admission.active_runs == 0
        now = snapshot(process.shared, [owner], (), threads_abandoned=0, dead_letters={})
        assert (now.approvals_pending, now.timers_pending) == ({"asker": 1}, 0)
        assert now.workflows[0].runs == {RunState.WAITING: 1}
        await approve(place, run)
        (ended,) = await until(lambda: process.observer.finished)
        assert (ended.run, ended.status) == (run, RunStatus.SUCCEEDED)
        now = snapshot(process.shared, [owner], (), threads_abandoned=0, dead_letters={})
        assert (now.approvals_pending, now.timers_pending) == ({"asker": 0}, 0)
    assert await results(place) == [["approved", "ann"]]
    (request,) = await place.outcomes(ApprovalRequested)
    assert request == ApprovalRequested(run, ASK, "Pay?", ("boss",), None, 0)


async def test_what_happened_is_told_once(place: Place) -> None:
    async with serving(FaultLog(place.log), APP, partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", event({"timeout": "1h"}, type="ask"))
        (run,) = await asked(process)
        await approve(place, run, Verdict.REJECTED)
        await approve(place, run)
        await until(lambda: process.observer.finished)
        (request,), (decided,) = process.observer.asked, process.observer.decided
        assert (request.approval, request.roles) == (f"{run}-1-approval", ("boss",))
        assert (decided.approval, decided.ending, decided.by) == (request.approval, ApprovalEnding.REJECTED, "ann")
        assert decided.requested_at_ms <= decided.decided_at_ms <= decided.requested_at_ms + 60_000
        assert decided.traceparent == request.traceparent
        assert len(process.observer.started) == 1
        assert len(process.shared.timers) == 0
    assert await results(place) == [["rejected", "ann"]]


async def test_its_time_is_over_while_it_is_bytes(place: Place) -> None:
    async with serving(FaultLog(place.log), APP, partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", event({"timeout": "200ms"}, type="ask"))
        (told,) = await until(lambda: process.observer.decided)
        assert (told.ending, told.by) == (ApprovalEnding.EXPIRED, "")
        await until(lambda: process.observer.finished)
        assert process.observer.timers_fired == []
    assert await results(place) == [["expired", ""]]
    (fired,) = await place.outcomes(TimerFired)
    assert fired.step == ASK


@pytest.mark.parametrize("idle_after", ["0s", "1h"])
async def test_deadline_and_answer_have_one_winner(place: Place, idle_after: str) -> None:
    worker = {"idle_after": idle_after, "handoff_grace": "10ms"}
    async with serving(FaultLog(place.log), APP, partitions=1, worker=worker) as process:
        await place.publish("in", *(event({"timeout": "150ms"}, type="ask") for _ in range(30)))
        await until(lambda: len(process.observer.asked) == 30)
        runs = [told.run for told in process.observer.asked]
        while len(process.observer.finished) < 30:
            for run in runs[::3]:
                await approve(place, run)
            await asyncio.sleep(0)
        assert len(process.observer.decided) == 30
    decided = {told.run: told.ending for told in process.observer.decided}
    ended = await place.until_outcomes(RunEnded, 30)
    assert {each.run: msgspec.json.decode(bytes(each.result))[0] for each in ended} == decided
    assert {decided[run] for run in runs if run not in runs[::3]} == {ApprovalEnding.EXPIRED}


@pytest.mark.parametrize("within", [None, "1h"])
async def test_who_takes_over_replays_none_that_waits_for_somebody(place: Place, within: str | None) -> None:
    first = FaultLog(place.log)
    async with serving(first, APP, partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", *(event({"timeout": within}, type="ask") for _ in range(3)))
        runs = await asked(process, 3)
        first.dead = True
    observer = Recorder()
    async with serving(FaultLog(place.log), APP, partitions=1, worker=AT_ONCE, observer=observer) as process:
        owner = process.service.owners[0]
        await until(lambda: owner.live)
        assert idle(process) == set(runs)
        assert not owner.runs.live
        assert not owner.runs.asked
        assert len(process.shared.timers) == (0 if within is None else 3)
        await approve(place, runs[1])
        (ended,) = await until(lambda: observer.finished)
        assert (ended.run, ended.status) == (runs[1], RunStatus.SUCCEEDED)
        assert idle(process) == {runs[0], runs[2]}
        assert observer.asked == []
        assert observer.started == []
    assert len(await place.outcomes(ApprovalRequested)) == 3


async def test_a_decision_that_came_while_nobody_was_there_counts(place: Place) -> None:
    first = FaultLog(place.log)
    async with serving(first, APP, partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", event({}, type="ask"))
        (run,) = await asked(process)
        first.dead = True
    await approve(place, run)
    async with serving(FaultLog(place.log), APP, partitions=1, worker=AT_ONCE) as process:
        await until(lambda: process.observer.finished)
        assert process.observer.started == []
    assert await results(place) == [["approved", "ann"]]


async def test_a_cancel_ends_a_run_that_waits_for_somebody(place: Place) -> None:
    async with serving(FaultLog(place.log), APP, partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", event({}, type="ask"))
        (run,) = await asked(process)
        await command(place, Cancel(run=run, reason="enough"))
        (ended,) = await until(lambda: process.observer.finished)
        assert (ended.status, ended.message) == (RunStatus.CANCELLED, "enough")
        (told,) = await until(lambda: process.observer.decided)
        assert told.ending is ApprovalEnding.WITHDRAWN
        assert process.service.owners[0].state.approvals == {}


async def test_the_time_of_a_run_is_over_while_it_waits_for_somebody(place: Place) -> None:
    @workflow(on=EventTrigger("in", "hasty"), name="hasty", timeout="150ms")
    async def hasty(run: Run, order: dict[str, Any]) -> bool:
        return (await run.approval()).approved

    async with serving(FaultLog(place.log), app_of(hasty), partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", event({}, type="hasty"))
        (ended,) = await until(lambda: process.observer.finished)
        assert ended.status is RunStatus.TIMED_OUT
        (told,) = await until(lambda: process.observer.decided)
        assert told.ending is ApprovalEnding.WITHDRAWN
    (fired,) = await place.outcomes(TimerFired)
    assert fired.step == TIMEOUT_STEP
