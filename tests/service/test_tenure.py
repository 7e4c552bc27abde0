"""A tenure, through its owner on a real log: what a broken token loses is proposed again, and acts are never doubled."""

import asyncio
from typing import Any

import pytest

from headrace import EventTrigger, Run, handler, workflow
from headrace.observability.label import LossReason
from headrace.service import tenure
from headrace.service.definitions.app import App
from headrace.service.engine.fold import fold, new_state
from headrace.service.engine.gate import NO_TOKEN
from headrace.service.engine.state import PartitionState
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.outcome import AttemptSucceeded, OutboxProgress, RunEnded, RunningAttempt, RunStatus, Sent
from headrace.topics.run_record import Announce, OutcomeRecord, Release, decode, encode
from tests.service.fault_log import Fault, FaultLog
from tests.service.shell import Place, Serving, app_of, event, serving, until

RUNS = TopicPartition("shop.runs", 0)


class Kitchen:
    """An app with one task, whose calls a test counts and holds, and one output."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    def app(self) -> App:
        @handler
        async def cook(n: int) -> int:
            self.calls.append(n)
            await self.go_on.wait()
            return n

        @workflow(on=EventTrigger("in", "order.placed"), name="order", emits=["out"])
        async def order(run: Run, order: dict[str, Any]) -> None:
            done = await run.call(cook, order["n"])
            await run.emit("order.done", {"n": done}, topic="out")

        return app_of(cook, order)


async def state_of(place: Place) -> PartitionState:
    """What a reader of the log knows."""
    state = new_state(topic="shop.runs", partition=0, partitions=1, client_retention_ms=1)
    for record in await place.records("shop.runs", 0):
        fold(state, record.offset, record.timestamp_ms, len(record.value or b""), decode(record.value))
    return state


async def all_done(process: Serving, count: int) -> None:
    await until(lambda: len(process.observer.finished) >= count and not process.service.owners[0].state.outbox)


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DONE])
async def test_a_result_in_a_failed_append_is_proposed_again_and_its_task_is_not_run_again(
    place: Place, fault: Fault
) -> None:
    kitchen = Kitchen()
    kitchen.go_on.clear()
    log = FaultLog(place.log)
    async with serving(log, kitchen.app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}))
        await until(lambda: kitchen.calls)
        log.faults["shop.runs"].append(fault)
        kitchen.go_on.set()
        await all_done(process, 1)
        assert len(process.observer.taken) == 2
        assert [told.reason for told in process.observer.lost] == [LossReason.APPEND_FAILED]
        assert process.shared.admission.outstanding == 0
        assert process.shared.admission.active_runs == 0
    assert kitchen.calls == [0]
    assert len(await place.records("out")) == 1
    state = await state_of(place)
    assert not state.runs
    assert not state.outbox
    if fault is Fault.LOST:
        (succeeded,) = await place.outcomes(AttemptSucceeded)
        announces = [record.nonce for record in await place.run_log() if isinstance(record, Announce)]
        assert len(announces) == 2
        assert succeeded.number == 1


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DONE])
async def test_when_only_the_progress_is_lost_there_is_no_second_output(place: Place, fault: Fault) -> None:
    log = FaultLog(place.log)
    log.hold("out")
    async with serving(log, Kitchen().app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}))
        await until(lambda: "out" in log.waiting)
        await place.until_outcomes(RunEnded)
        log.faults["shop.runs"].append(fault)
        log.release("out")
        await all_done(process, 1)
        await until(lambda: len(process.observer.taken) == 2 and not process.service.owners[0].state.outbox)
    assert len(log.called("out")) == 1
    assert len(await place.records("out")) == 1
    assert not (await state_of(place)).outbox


async def test_an_output_that_left_while_there_was_no_token_is_not_sent_again(place: Place) -> None:
    log = FaultLog(place.log)
    log.hold("out")
    async with serving(log, Kitchen().app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}))
        await until(lambda: "out" in log.waiting)
        await place.until_outcomes(RunEnded)
        owner = process.service.owners[0]
        owner._break()
        log.release("out")
        await all_done(process, 1)
    assert len(log.called("out")) == 1


async def test_an_output_under_way_at_a_new_token_is_not_sent_beside_itself(place: Place) -> None:
    """It is sent anew behind the first, and dropped once that one arrives."""
    log = FaultLog(place.log)
    log.hold("out")
    async with serving(log, Kitchen().app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}))
        await until(lambda: "out" in log.waiting)
        await place.until_outcomes(RunEnded)
        process.service.owners[0]._break()
        await until(lambda: len(process.observer.taken) == 2)
        log.release("out")
        await all_done(process, 1)
    assert len(await place.records("out")) == 1


async def test_an_own_outcome_that_is_skipped_makes_the_owner_announce_anew(place: Place) -> None:
    """A record with its token and a seq of the future: what it writes next does not count any more."""
    kitchen = Kitchen()
    kitchen.go_on.clear()
    log = FaultLog(place.log)
    async with serving(log, kitchen.app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}))
        await until(lambda: kitchen.calls)
        token = process.service.owners[0].state.gate.token
        stolen = OutcomeRecord(
            token=token, seq=process.service.owners[0].state.gate.seq + 1, body=OutboxProgress(sent=())
        )
        log.hold("shop.runs")
        kitchen.go_on.set()  # its outcome takes the same seq, and comes second
        await place.log.publish(RUNS, [NewRecord(value=encode(stolen))])
        log.release("shop.runs")
        await all_done(process, 1)
        assert len(process.observer.taken) == 2
    assert kitchen.calls == [0]
    assert len(await place.records("out")) == 1
    ended = await place.outcomes(RunEnded)
    assert [each.status for each in ended] == [RunStatus.SUCCEEDED]


def announced_by_another(process: Serving) -> NewRecord:
    gate = process.service.owners[0].state.gate
    announce = Announce(app="shop", instance="other", member="other", nonce="1", previous_token=gate.last, partitions=1)
    return NewRecord(value=encode(announce))


async def test_a_newer_announce_stops_the_partition_at_once_and_it_is_taken_again_later(place: Place) -> None:
    """Whoever announced is not in our group: the placement still says that the partition is ours."""
    kitchen = Kitchen()
    kitchen.go_on.clear()
    log = FaultLog(place.log)
    async with serving(log, kitchen.app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}))
        await until(lambda: kitchen.calls)
        await place.log.publish(RUNS, [announced_by_another(process)])
        await until(lambda: process.observer.lost)
        assert process.observer.lost[0].reason == "newer_announce"
        await until(lambda: not process.running())  # cancelled: nothing of it is proposed
        assert await place.outcomes(AttemptSucceeded) == []
        kitchen.go_on.set()
        await until(lambda: len(process.observer.taken) == 2)
        await all_done(process, 1)
    assert process.observer.taken[1].reason == "takeover"
    assert kitchen.calls == [0, 0]
    assert len(await place.records("out")) == 1


async def test_a_late_announce_that_is_stale_changes_nothing(place: Place) -> None:
    log = FaultLog(place.log)
    async with serving(log, Kitchen().app(), partitions=1) as process:
        stale = Announce(app="shop", instance="other", member="other", nonce="1", previous_token=-1, partitions=1)
        await place.log.publish(RUNS, [NewRecord(value=encode(stale))])
        await place.publish("in", event({"n": 0}))
        await all_done(process, 1)
        assert len(process.observer.taken) == 1
        assert process.observer.lost == []


async def test_failed_announces_are_repeated_until_one_counts(place: Place) -> None:
    log = FaultLog(place.log)
    log.faults["shop.runs"] += [Fault.LOST, Fault.DONE]
    async with serving(log, Kitchen().app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}))
        await all_done(process, 1)
    assert not (await state_of(place)).runs


async def test_a_stop_releases_the_token_and_the_next_instance_goes_on(place: Place) -> None:
    kitchen = Kitchen()
    kitchen.go_on.clear()
    async with serving(FaultLog(place.log), kitchen.app(), partitions=1) as process:
        await place.publish("in", event({"n": 0}))
        await until(lambda: kitchen.calls)
    (release,) = [record for record in await place.run_log() if isinstance(record, Release)]
    assert [(attempt.step, attempt.number) for attempt in release.attempts] == [("/1/cook", 1)]
    kitchen.go_on.set()
    async with serving(FaultLog(place.log), kitchen.app(), partitions=1) as process:
        await all_done(process, 1)
    assert kitchen.calls == [0, 0]  # it was abandoned, and repeated with the same number
    assert [each.number for each in await place.outcomes(AttemptSucceeded)] == [1]


@pytest.mark.parametrize("count", [1, tenure._LISTED_MAX + 1, 30_000])
async def test_a_release_lists_all_attempts_however_many_run(place: Place, count: int) -> None:
    """More than a record of the log may have bytes."""
    attempts = tuple(RunningAttempt(f"0.{number:020x}", "/1/gather/work", 1) for number in range(count))
    async with serving(FaultLog(place.log), Kitchen().app(), partitions=1) as process:
        process.service.owners[0]._tenure.release(attempts, 10_000)
        await process.shared.writers.flushed()
        state = await state_of(place)
    assert state.gate.token == NO_TOKEN
    assert {RunningAttempt(run, step, given.number) for (run, step), given in state.given.items()} == set(attempts)


async def test_progress_of_more_outputs_than_a_record_holds_is_recorded(place: Place) -> None:
    entries = [f"0.{number:020x}/1/emit" for number in range(30_000)]
    async with serving(FaultLog(place.log), Kitchen().app(), partitions=1) as process:
        for entry in entries:
            process.service.owners[0]._tenure.sent(Sent(entry, 0, 5))
        progress = await place.until_outcomes(OutboxProgress)
        await until(lambda: not process.shared.admission.outstanding)
        progress = await place.outcomes(OutboxProgress)
        assert len(process.observer.taken) == 1  # no append failed
    assert [sent.entry for each in progress for sent in each.sent] == entries


async def test_a_death_between_result_and_read_back_runs_nothing_twice_that_the_log_knows(place: Place) -> None:
    kitchen = Kitchen()
    kitchen.go_on.clear()
    log = FaultLog(place.log)
    async with serving(log, kitchen.app(), partitions=1):
        await place.publish("in", event({"n": 0}))
        await until(lambda: kitchen.calls)
        log.hold("shop.runs")
        kitchen.go_on.set()
        await until(lambda: "shop.runs" in log.waiting)  # written; nobody was told
        log.dead = True
        log.release_all()
    assert len(await place.outcomes(AttemptSucceeded)) == 1
    async with serving(FaultLog(place.log), kitchen.app(), partitions=1) as process:
        await all_done(process, 1)
    assert kitchen.calls == [0]
