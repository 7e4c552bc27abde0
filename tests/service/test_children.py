"""Child runs in a whole service: over partitions, as bytes while their parents wait, and through the death of a process."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace import ChildFailed, EventTrigger, Run, handler, workflow
from headrace.service import outbox
from headrace.service.cli.run import read_history
from headrace.service.definitions.app import App
from headrace.service.run_view.run_detail import RunDetail
from headrace.service.run_view.run_history import RunHistory
from headrace.topics.command import Cancel, ChildEnded, Start
from headrace.topics.identity import ClientId, partition_in
from headrace.topics.log import Appended, AppendFailed, NewRecord, TopicPartition
from headrace.topics.outcome import ChildStarted, RunEnded, RunStatus
from headrace.topics.run_record import CommandRecord, encode
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, Serving, app_of, event, place_at, serving, until

PARTITIONS = 3
AT_ONCE = {"idle_after": "0s", "handoff_grace": "10ms"}

_gate = asyncio.Event()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with place_at(tmp_path, partitions=PARTITIONS) as place:
        yield place


@pytest.fixture(autouse=True)
def gate() -> asyncio.Event:
    """Tasks of `gated` wait for it."""
    global _gate  # noqa: PLW0603 - handlers are functions of a module
    _gate = asyncio.Event()
    return _gate


@handler(timeout="1h")  # only the gate ends it: no timeout may free what somebody waits for
async def gated(n: int) -> int:
    await _gate.wait()
    return n + 1


@handler
async def plain(n: int) -> int:
    return n + 1


@workflow(name="child")
async def child(run: Run, n: int) -> int:
    return await run.call(gated, n)


@workflow(name="failing")
async def failing(run: Run, n: int) -> int:
    raise ValueError(f"no {n}")


@workflow(on=EventTrigger("in", "fan"), name="fan")
async def fan(run: Run, order: dict[str, Any]) -> list[int]:
    return await run.map(lambda n: run.call_child(child, n), range(order["n"]), concurrency=order["n"])


@workflow(on=EventTrigger("in", "catch"), name="catch")
async def catch(run: Run, order: dict[str, Any]) -> str:
    try:
        await run.call_child(failing, order["n"])
    except ChildFailed as failed:
        return f"{failed.status} {failed.error} {failed.message}"
    return ""


@workflow(on=EventTrigger("in", "detach"), name="detach")
async def detach(run: Run, order: dict[str, Any]) -> str:
    return await run.start_child(child, order["n"])


@workflow(on=EventTrigger("in", "hurry"), name="hurry")
async def hurry(run: Run, order: dict[str, Any]) -> int | None:
    return await run.race(run.call_child(child, order["n"]), run.sleep("50ms"))


def app() -> App:
    return app_of(gated, plain, child, failing, fan, catch, detach, hurry)


def finished(process: Serving, workflow: str) -> list[Any]:
    return [each for each in process.observer.finished if each.workflow == workflow]


def packed(process: Serving) -> int:
    return sum(owner.state.runs.is_packed(run) for owner in process.service.owners for run in owner.state.runs)


async def cancel(place: Place, run: str) -> None:
    partition = partition_in(run)
    assert partition is not None
    record = CommandRecord(id=ClientId("mine"), body=Cancel(run=run, reason="enough"))
    await place.log.publish(TopicPartition("shop.runs", partition), [NewRecord(value=encode(record))])


async def detail(place: Place, process: Serving, run: str) -> tuple[RunDetail, RunHistory]:
    """`run get` and `run history`."""
    history = await read_history(place.view, process.shared.settings, run)
    assert history.detail is not None
    return history.detail, history


async def test_children_over_all_partitions_come_back_in_order_and_their_parent_waits_as_bytes(
    place: Place, gate: asyncio.Event
) -> None:
    async with serving(FaultLog(place.log), app(), partitions=PARTITIONS, worker=AT_ONCE) as process:
        await place.publish("in", event({"n": 12}, type="fan"))
        await until(lambda: process.running() == 12)
        await until(lambda: packed(process) == 1)
        live = {run.state.start.workflow for owner in process.service.owners for run in owner.runs.live.values()}
        assert live == {"child"}
        assert process.shared.admission.active_runs == 12
        gate.set()
        (parent,) = await until(lambda: finished(process, "fan"))
        assert parent.status is RunStatus.SUCCEEDED
        (end,) = [each for each in await place.outcomes(RunEnded) if each.run == parent.run]
        assert json.loads(bytes(end.result)) == list(range(1, 13))
        starts = await place.outcomes(ChildStarted)
        assert len({each.step for each in starts}) == len(starts) == 12
        assert len({partition_in(each.run) for each in finished(process, "child")}) == PARTITIONS


async def test_a_parent_knows_its_children_and_they_know_it(place: Place, gate: asyncio.Event) -> None:
    async with serving(FaultLog(place.log), app(), partitions=PARTITIONS) as process:
        await place.publish("in", event({"n": 1}, type="fan"), event({"n": 5}, type="detach"))
        await until(lambda: process.running() == 2 and finished(process, "detach"))
        (start,) = [each for each in await place.outcomes(ChildStarted) if each.awaited]
        found, history = await detail(place, process, start.run)
        (waits,) = found.waiting
        (link,) = found.children
        assert (link.awaited, link.status, waits.waits_for) == (True, None, f"child run {link.run}")
        assert "child.started" in [entry.kind for entry in history.entries]
        its, _ = await detail(place, process, link.run)
        assert (its.parent, its.parent_step, its.summary.parent) == (start.run, link.step, start.run)
        assert (its.summary.trigger, its.trace_id, its.producer_trace_id) == ("child", found.trace_id, found.trace_id)
        (loose,) = finished(process, "detach")
        (detached,) = (await detail(place, process, loose.run))[0].children
        own, _ = await detail(place, process, detached.run)
        assert (own.trace_id == found.trace_id, own.parent, detached.awaited) == (False, loose.run, False)
        gate.set()
        await until(lambda: len(process.observer.finished) == 4)
        found, history = await detail(place, process, start.run)
        assert [each.status for each in found.children] == ["succeeded"]
        assert "child.ended" in [entry.kind for entry in history.entries]


async def test_what_a_child_raises_is_raised_in_its_parent(place: Place) -> None:
    async with serving(FaultLog(place.log), app(), partitions=PARTITIONS) as process:
        await place.publish("in", event({"n": 7}, type="catch"))
        (parent,) = await until(lambda: finished(process, "catch"))
        (end,) = [each for each in await place.outcomes(RunEnded) if each.run == parent.run]
        assert json.loads(bytes(end.result)) == "failed ValueError no 7"


async def test_a_cancelled_parent_cancels_the_children_that_it_awaits(place: Place) -> None:
    async with serving(FaultLog(place.log), app(), partitions=PARTITIONS, worker=AT_ONCE) as process:
        await place.publish("in", event({"n": 3}, type="fan"), event({"n": 5}, type="detach"))
        await until(lambda: process.running() == 4)
        run = next(each.run for each in await place.outcomes(ChildStarted) if each.awaited)
        await cancel(place, run)
        await until(lambda: len(finished(process, "child")) == 3)
        assert {each.status for each in finished(process, "child")} == {RunStatus.CANCELLED}
        await until(lambda: process.running() == 1)  # the detached one's


class LosesAStart(FaultLog):
    """The first batch with a child's start is lost."""

    lost = False

    async def append(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
        if not self.lost and any(b'"trigger":"child"' in (record.value or b"") for record in records):
            self.lost = True
            raise AppendFailed(f"The batch to {at} was lost.")
        return await super().append(at, records)


async def test_a_cancel_does_not_overtake_the_start_that_has_to_be_sent_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_AGAIN_S", 0.5)  # so that the cancel is there first
    log = LosesAStart(place.log)
    async with serving(log, app(), partitions=PARTITIONS) as process:
        await place.publish("in", event({"n": 1}, type="fan"))
        await until(lambda: log.lost)
        (start,) = await place.until_outcomes(ChildStarted)
        await cancel(place, start.run)
        (ended,) = await until(lambda: finished(process, "child"))
        assert ended.status is RunStatus.CANCELLED


async def test_a_death_between_start_and_end_of_children_loses_and_doubles_nothing(
    place: Place, gate: asyncio.Event
) -> None:
    log = FaultLog(place.log)
    async with serving(log, app(), partitions=PARTITIONS, worker=AT_ONCE) as process:
        await place.publish("in", event({"n": 6}, type="fan"))
        await until(lambda: process.running() == 6)
        log.dead = True
    gate.set()
    async with serving(FaultLog(place.log), app(), partitions=PARTITIONS, instance="test-2") as process:
        await until(lambda: finished(process, "fan"))
    ends = await place.outcomes(RunEnded)
    assert len(ends) == len({each.run for each in ends}) == 7
    bodies = [record.body for record in await place.starts()]
    assert len({each.step for each in bodies if isinstance(each, ChildEnded)}) == 6
    assert len({each.parent.step for each in bodies if isinstance(each, Start) and each.parent is not None}) == 6


async def test_a_workflow_that_the_app_does_not_define_parks_its_parent(place: Place) -> None:
    partial = app_of(gated, fan)
    async with serving(FaultLog(place.log), partial, partitions=PARTITIONS) as process:
        await place.publish("in", event({"n": 1}, type="fan"))
        (parked,) = await until(lambda: process.observer.parked)
        assert "default/child version 1, which this app does not define" in parked.found


async def test_with_two_slots_parents_and_children_make_way_for_each_other(place: Place, gate: asyncio.Event) -> None:
    worker = {"max_active_runs": 2, "handoff_grace": "10ms"}
    gate.set()
    async with serving(FaultLog(place.log), app(), partitions=PARTITIONS, worker=worker) as process:
        await place.publish("in", *[event({"n": 3}, type="fan") for _ in range(20)])
        await until(lambda: len(finished(process, "fan")) == 20)
        assert {each.status for each in process.observer.finished} == {RunStatus.SUCCEEDED}


async def test_a_parent_needs_no_slot_to_give_up_the_child_that_has_the_last_one(place: Place) -> None:
    worker = {"max_active_runs": 1, **AT_ONCE}
    async with serving(FaultLog(place.log), app(), partitions=PARTITIONS, worker=worker) as process:
        await place.publish("in", event({"n": 1}, type="hurry"))
        (parent,) = await until(lambda: finished(process, "hurry"))
        assert parent.status is RunStatus.SUCCEEDED
        (ended,) = await until(lambda: finished(process, "child"))
        assert ended.status is RunStatus.CANCELLED
