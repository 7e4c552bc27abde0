"""Runs that only wait: kept as bytes, woken by what they wait for, and nobody can tell."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headrace import EventTrigger, Retry, Run, handler, workflow
from headrace.service import idle_runs
from headrace.service.engine.interpreter import TIMEOUT_STEP
from headrace.topics.command import Cancel
from headrace.topics.identity import ClientId
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.outcome import RunEnded, RunStatus, TimerArmed, TimerFired
from headrace.topics.run_record import CommandRecord, encode
from tests.service.fault_log import Fault, FaultLog
from tests.service.shell import Place, Serving, app_of, event, place_at, serving, until

AT_ONCE = {"idle_after": "0s", "handoff_grace": "10ms"}
RUNS = TopicPartition("shop.runs", 0)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with place_at(tmp_path, partitions=1) as place:
        yield place


@handler
async def work(n: int) -> int:
    return n + 1


@workflow(on=EventTrigger("in", "sleep"), name="sleeper")
async def sleeper(run: Run, order: dict[str, Any]) -> int:
    done = await run.call(work, 1)
    await run.sleep(f"{order['ms']}ms")
    return await run.call(work, done)


def idle(process: Serving) -> set[str]:
    """Open runs that are kept as bytes."""
    owner = process.service.owners[0]
    return {run for run in owner.state.runs if owner.state.runs.is_packed(run)} - set(owner.runs.live)


async def command(place: Place, name: str, body: Any) -> None:
    record = CommandRecord(id=ClientId(name), body=body)
    await place.log.publish(RUNS, [NewRecord(value=encode(record))])


async def test_a_run_that_sleeps_is_bytes_and_one_timer_until_it_is_due(place: Place) -> None:
    async with serving(FaultLog(place.log), app_of(work, sleeper), partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", event({"ms": 300}, type="sleep"))
        (run,) = await until(lambda: idle(process))
        owner = process.service.owners[0]
        assert not owner.runs.live
        assert len(process.shared.timers) == 1
        assert process.shared.timers.due_at_ms(run) is not None
        assert process.shared.admission.active_runs == 0
        (ended,) = await until(lambda: process.observer.finished)
        assert (ended.run, ended.status, ended.attempts, ended.retries) == (run, RunStatus.SUCCEEDED, 2, 0)
        (armed,) = await place.outcomes(TimerArmed)
        (fired,) = await place.outcomes(TimerFired)
        assert (armed.rests_at, fired.due_at_ms) == (1, armed.due_at_ms)
        (result,) = await place.outcomes(RunEnded)
        assert bytes(result.result) == b"3"
        assert len(process.shared.timers) == 0


async def test_after_the_while_that_the_settings_say(place: Place) -> None:
    worker = {"idle_after": "50ms", "handoff_grace": "10ms"}
    async with serving(FaultLog(place.log), app_of(work, sleeper), partitions=1, worker=worker) as process:
        await place.publish("in", event({"ms": 60_000}, type="sleep"), event({"ms": 20}, type="sleep"))
        await until(lambda: len(process.observer.finished) == 1)
        (run,) = await until(lambda: idle(process))
        assert run != process.observer.finished[0].run


async def test_a_run_that_waits_for_its_next_attempt_is_bytes_too(place: Place) -> None:
    tries: list[int] = []

    @handler(retry=Retry(attempts=3, backoff="constant", delay="200ms"))
    async def flaky() -> int:
        tries.append(len(tries))
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return 7

    @workflow(on=EventTrigger("in", "flaky"), name="flaky")
    async def patient(run: Run, order: dict[str, Any]) -> int:
        return await run.call(flaky)

    slept = 0
    async with serving(FaultLog(place.log), app_of(flaky, patient), partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", event({}, type="flaky"))
        while not process.observer.finished:
            slept += bool(idle(process))
            await asyncio.sleep(0.001)
        (ended,) = process.observer.finished
        assert (ended.status, ended.attempts, ended.retries) == (RunStatus.SUCCEEDED, 3, 2)
    assert tries == [0, 1, 2]
    assert slept


async def test_a_cancel_wakes_a_run_and_ends_it(place: Place) -> None:
    async with serving(FaultLog(place.log), app_of(work, sleeper), partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", event({"ms": 3_600_000}, type="sleep"))
        (run,) = await until(lambda: idle(process))
        await command(place, "c", Cancel(run=run, reason="enough"))
        (ended,) = await until(lambda: process.observer.finished)
        assert (ended.status, ended.message) == (RunStatus.CANCELLED, "enough")
        assert len(process.shared.timers) == 0


async def test_the_time_of_a_run_is_over_while_it_is_idle(place: Place) -> None:
    @workflow(on=EventTrigger("in", "sleep"), name="hasty", timeout="150ms")
    async def hasty(run: Run, order: dict[str, Any]) -> None:
        await run.sleep("1h")

    async with serving(FaultLog(place.log), app_of(hasty), partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", event({}, type="sleep"))
        await until(lambda: idle(process))
        (ended,) = await until(lambda: process.observer.finished)
        assert ended.status is RunStatus.TIMED_OUT


async def test_a_timer_fires_in_time_though_there_is_no_room_to_wake_its_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a race is decided by, and how late a timer was, does not depend on who has the slots. However many are due, the loop has its turns between them."""
    monkeypatch.setattr(idle_runs, "_SLICE_S", 0.0)
    go_on = asyncio.Event()

    @handler
    async def hold() -> None:
        await go_on.wait()

    @workflow(on=EventTrigger("in", "hold"), name="holder")
    async def holder(run: Run, order: dict[str, Any]) -> None:
        await run.call(hold)

    @workflow(on=EventTrigger("in", "hasty"), name="hasty", timeout="1s")
    async def hasty(run: Run, order: dict[str, Any]) -> None:
        await run.sleep("1h")

    worker = {**AT_ONCE, "max_active_runs": 1}
    app = app_of(work, hold, sleeper, holder, hasty)
    async with serving(FaultLog(place.log), app, partitions=1, worker=worker) as process:
        await place.publish("in", event({"ms": 1_000}, type="sleep"), event({}, type="hasty"))
        await until(lambda: len(idle(process)) == 2)  # long enough for the holder to come first
        await place.publish("in", event({}, type="hold"))
        await until(process.running)
        fired = await place.until_outcomes(TimerFired, 2)
        assert {each.step for each in fired} == {"/2/sleep", TIMEOUT_STEP}
        assert process.running()
        assert not process.observer.finished
        go_on.set()
        await until(lambda: len(process.observer.finished) == 3)
        assert Counter(each.status for each in process.observer.finished) == {
            RunStatus.SUCCEEDED: 2,
            RunStatus.TIMED_OUT: 1,
        }
        assert len(await place.outcomes(TimerFired)) == 2
        assert len(process.shared.timers) == 0


class Waking(list[str]):
    """Runs that were brought to life, in order."""

    def watch(self, process: Serving) -> None:
        shared, live_run = process.shared, process.shared.live_run

        def counted(run: Any) -> Any:
            self.append(run.id)
            return live_run(run)

        shared.live_run = counted  # it only counts


async def test_who_takes_over_does_not_replay_what_rests(place: Place) -> None:
    app = app_of(work, sleeper)
    first = FaultLog(place.log)
    async with serving(first, app, partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", event({"ms": 2_000}, type="sleep"), event({"ms": 3_600_000}, type="sleep"))
        await until(lambda: len(idle(process)) == 2)
        await place.until_outcomes(TimerArmed, 2)
        first.dead = True
    woken = Waking()
    async with serving(FaultLog(place.log), app, partitions=1, worker=AT_ONCE) as process:
        woken.watch(process)
        owner = process.service.owners[0]
        assert len(idle(process)) == 2
        assert len(process.shared.timers) == 2
        assert not owner.runs.live
        (ended,) = await until(lambda: process.observer.finished)
        assert ended.status is RunStatus.SUCCEEDED
        assert set(woken) == {ended.run}
        assert len(idle(process)) == 1


async def test_a_lost_append_wakes_none_that_rests(place: Place) -> None:
    log, woken = FaultLog(place.log), Waking()
    async with serving(log, app_of(work, sleeper), partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", event({"ms": 3_600_000}, type="sleep"), event({"ms": 3_600_000}, type="sleep"))
        await until(lambda: len(idle(process)) == 2)
        await place.until_outcomes(TimerArmed, 2)
        first, second = idle(process)
        owner = process.service.owners[0]
        await until(lambda: all(run.rests for run in owner.state.runs.values()))
        log.faults["shop.runs"].append(Fault.LOST)
        await until(lambda: len(process.observer.taken) == 1)
        woken.watch(process)
        await command(place, "c", Cancel(run=first))
        await until(lambda: len(process.observer.taken) == 2)  # the end of the first was lost
        await until(lambda: process.observer.finished)
        assert set(woken) == {first}
        assert idle(process) == {second}
        assert process.shared.timers.due_at_ms(second) is not None


async def test_one_slot_is_enough_for_many_that_sleep(place: Place) -> None:
    worker = {"max_active_runs": 1, **AT_ONCE}
    async with serving(FaultLog(place.log), app_of(work, sleeper), partitions=1, worker=worker) as process:
        await place.publish("in", *(event({"ms": 5 * n + 1}, type="sleep") for n in range(40)))
        await until(lambda: len(process.observer.finished) == 40)
        assert {ended.status for ended in process.observer.finished} == {RunStatus.SUCCEEDED}
        assert process.shared.admission.active_runs == 0
        assert len(process.shared.timers) == 0


async def test_a_waking_run_comes_before_those_that_were_never_admitted(place: Place) -> None:
    gate = asyncio.Event()

    @handler
    async def wait() -> None:
        await gate.wait()

    @workflow(on=EventTrigger("in", "wait"), name="waiter")
    async def waiter(run: Run, order: dict[str, Any]) -> None:
        await run.call(wait)

    worker = {"max_active_runs": 1, **AT_ONCE}
    app = app_of(work, wait, sleeper, waiter)
    async with serving(FaultLog(place.log), app, partitions=1, worker=worker) as process:
        await place.publish("in", event({"ms": 1_000}, type="sleep"))  # long enough for the others to come first
        (run,) = await until(lambda: idle(process))
        await place.publish("in", *(event({}, type="wait") for _ in range(3)))
        owner = process.service.owners[0]
        await until(lambda: run in owner.runs.idle.waking and len(owner.runs.asked) == 2)
        gate.set()
        await until(lambda: len(process.observer.finished) == 4)
        assert [ended.run for ended in process.observer.finished].index(run) < 3  # not the last


async def test_a_timer_that_was_early_by_the_log_rings_again_for_a_run_that_sleeps(place: Place) -> None:
    async with serving(FaultLog(place.log), app_of(work, sleeper), partitions=1, worker=AT_ONCE) as process:
        await place.publish("in", event({"ms": 1_000}, type="sleep"))
        (run,) = await until(lambda: idle(process))
        (armed,) = await place.until_outcomes(TimerArmed)
        owner = process.service.owners[0]
        owner._tenure.propose(TimerFired(run=run, step=armed.step, due_at_ms=armed.due_at_ms))
        await place.until_outcomes(TimerFired)
        (ended,) = await until(lambda: process.observer.finished)
        assert ended.status is RunStatus.SUCCEEDED
        assert len(await place.outcomes(TimerFired)) == 2
