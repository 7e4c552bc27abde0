"""Probation in the shell: a run that ends its process is found and parked, whatever else the process was doing; its neighbours finish."""

import asyncio
from typing import Any

import pytest

from headrace import EventTrigger, Run, handler, workflow
from headrace.observability.label import StopReason
from headrace.service import probes
from headrace.service.definitions.app import App
from headrace.service.engine.probation import STRIKES_MAX, TAKEOVERS
from headrace.service.engine.state import PartitionState
from headrace.topics.command import Cancel, Resume
from headrace.topics.identity import ClientId
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.outcome import Outcome, ParkReason, ProbePassed, RunEnded, RunParked, RunProbed, RunStatus
from headrace.topics.run_record import Announce, CommandRecord, encode
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, Serving, app_of, event, serving, until

DEADLY = 7
ORDERS = 40


@pytest.fixture(autouse=True)
def no_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "QUIET_S", 0.01)


class Kitchen:
    """Two tasks an order. The second one of order 7 ends the process: the test, which waits for that, lets nothing of it reach the log any more."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.deadly = asyncio.Event()
        self.open = asyncio.Event()
        self.together: set[int] = set()
        self.mended = False
        self.undone: list[int] = []
        self.undo_ends = asyncio.Event()
        self.undo_ends.set()

    def app(self) -> App:
        @handler
        async def prepare(n: int) -> int:
            self.calls.append(("prepare", n))
            return n

        @handler
        async def clear(n: int) -> None:
            self.undone.append(n)
            await self.undo_ends.wait()

        @handler(timeout="1h")
        async def cook(n: int) -> int:
            self.calls.append(("cook", n))
            if n == DEADLY and not self.mended:
                self.deadly.set()
                await asyncio.Event().wait()
            await self.open.wait()
            return n

        @workflow(on=EventTrigger("in", "order.placed"), name="order", emits=["out"])
        async def order(run: Run, order: dict[str, Any]) -> int:
            await run.call(prepare, order["n"], compensate=clear)
            return await run.call(cook, order["n"])

        @workflow(on=EventTrigger("in", "nap"), name="nap")
        async def nap(run: Run, order: dict[str, Any]) -> None:
            await run.sleep("1h")

        return app_of(prepare, clear, cook, order, nap)


async def die(log: FaultLog, kitchen: Kitchen) -> None:
    log.dead = True
    kitchen.deadly.clear()


async def deaths_until_parked(place: Place, kitchen: Kitchen, *, most: int = 20) -> int:
    """Start the service as a supervisor would, until the deadly run is parked and all others have ended. How often it died."""
    for death in range(most):
        log = FaultLog(place.log)
        async with serving(log, kitchen.app(), instance=f"process-{death}", partitions=2) as process:
            if death >= TAKEOVERS:
                kitchen.open.set()
            await until(lambda process=process: kitchen.deadly.is_set() or process.observer.parked)
            if process.observer.parked:
                (told,) = process.observer.parked
                assert (told.workflow, told.reason) == ("order", ParkReason.POISON)
                await until(lambda process=process: open_runs(process) == 1)
                return death
            if death > TAKEOVERS:  # a struck run is on trial alone
                assert [trial.alone for trial in process.shared.probes.open.values()] == [True]
            if death > TAKEOVERS + 1:  # and one that was struck more often comes after all others
                states = [owner.state for owner in process.service.owners]
                assert [len(state.runs) for state in states if max_strikes(state) > 1] == [1]
            await die(log, kitchen)
    raise AssertionError("it was never parked")


def max_strikes(state: PartitionState) -> int:
    return max((each.strikes for each in state.probation.suspects.values()), default=0)


def open_runs(process: Serving) -> int:
    return sum(len(owner.state.runs) for owner in process.service.owners)


async def test_a_run_that_ends_its_process_is_parked_and_all_others_finish(place: Place) -> None:
    kitchen = Kitchen()
    await place.publish("in", *(event({"n": n}, key=str(n)) for n in range(ORDERS)))
    deaths = await deaths_until_parked(place, kitchen)
    assert deaths == TAKEOVERS + STRIKES_MAX
    ended = await place.outcomes(RunEnded)
    assert len(ended) == ORDERS - 1
    assert {each.status for each in ended} == {RunStatus.SUCCEEDED}
    (parked,) = await place.outcomes(RunParked)
    assert parked.reason is ParkReason.POISON
    assert f"{STRIKES_MAX} times" in parked.found
    assert kitchen.calls.count(("cook", DEADLY)) == deaths
    assert kitchen.calls.count(("prepare", DEADLY)) == 1


async def parked_run(place: Place, kitchen: Kitchen) -> str:
    await place.publish("in", event({"n": DEADLY}, key="k"))
    await deaths_until_parked(place, kitchen)
    (parked,) = await place.outcomes(RunParked)
    return parked.run


async def command(place: Place, body: Cancel | Resume) -> None:
    at = TopicPartition("shop.runs", int(body.run.partition(".")[0]))
    record = CommandRecord(id=ClientId(f"{type(body).__name__}"), body=body)
    await place.view.append(at, [NewRecord(value=encode(record))])


async def test_a_parked_run_that_was_mended_is_resumed_and_finishes(place: Place) -> None:
    kitchen = Kitchen()
    run = await parked_run(place, kitchen)
    kitchen.mended = True
    async with serving(FaultLog(place.log), kitchen.app(), instance="mended"):
        await command(place, Resume(run=run))
        (ended,) = await place.until_outcomes(RunEnded)
    assert (ended.run, ended.status) == (run, RunStatus.SUCCEEDED)


async def test_a_parked_run_that_is_resumed_too_early_is_parked_again_after_one_more_death(place: Place) -> None:
    kitchen = Kitchen()
    run = await parked_run(place, kitchen)
    kitchen.deadly.clear()
    log = FaultLog(place.log)
    async with serving(log, kitchen.app(), instance="too early"):
        await command(place, Resume(run=run))
        await kitchen.deadly.wait()
        await die(log, kitchen)
    async with serving(FaultLog(place.log), kitchen.app(), instance="next") as process:
        await until(lambda: process.observer.parked)
    assert not await place.outcomes(RunEnded)


async def test_a_parked_run_that_is_cancelled_has_its_finished_tasks_undone(place: Place) -> None:
    kitchen = Kitchen()
    run = await parked_run(place, kitchen)
    calls = len(kitchen.calls)
    async with serving(FaultLog(place.log), kitchen.app(), instance="last"):
        await command(place, Cancel(run=run))
        (ended,) = await place.until_outcomes(RunEnded)
    assert (ended.run, ended.status) == (run, RunStatus.CANCELLED)
    assert kitchen.undone == [DEADLY]
    assert len(kitchen.calls) == calls, "the deadly task was called again"


async def test_a_cancelled_run_that_ends_its_process_all_the_same_ends_without_its_code(place: Place) -> None:
    kitchen = Kitchen()
    run = await parked_run(place, kitchen)
    log = FaultLog(place.log)
    async with serving(log, kitchen.app(), instance="last"):
        kitchen.undo_ends.clear()
        await command(place, Cancel(run=run))
        await until(lambda: kitchen.undone)
        await die(log, kitchen)
    async with serving(FaultLog(place.log), kitchen.app(), instance="very last"):
        (ended,) = await place.until_outcomes(RunEnded)
    assert (ended.run, ended.status) == (run, RunStatus.CANCELLED)
    assert kitchen.undone == [DEADLY], "its code was run again"


# --- what passes -------------------------------------------------------------------------------------------------------


async def taken_over(place: Place, times: int, partition: int = 0) -> None:
    """Owners that died."""
    at = TopicPartition("shop.runs", partition)
    previous = -1
    for n in range(times):
        record = Announce(
            app="shop",
            instance=f"dead-{n}",
            member=f"dead-{n}",
            nonce=f"n{n}",
            previous_token=previous,
            partitions=1,
        )
        previous = (await place.view.append(at, [NewRecord(value=encode(record))])).base_offset


async def probed(place: Place, kind: type[Outcome] = RunProbed) -> list[str]:
    return [each.run for each in await place.outcomes(kind)]


async def test_without_deaths_nobody_is_probed(place: Place) -> None:
    kitchen = Kitchen()
    kitchen.open.set()
    await taken_over(place, TAKEOVERS - 1)  # and this process is the next one
    async with serving(FaultLog(place.log), kitchen.app(), partitions=1) as process:
        await place.publish("in", *(event({"n": n}) for n in range(5)))
        await place.until_outcomes(RunEnded, 5)
        assert not process.observer.taken[0].probing
    assert await probed(place) == []


async def test_every_run_is_probed_once_by_an_owner_in_probe_mode(place: Place) -> None:
    kitchen = Kitchen()
    kitchen.open.set()
    await taken_over(place, TAKEOVERS)
    async with serving(FaultLog(place.log), kitchen.app(), partitions=1) as process:
        await place.publish("in", *(event({"n": n + 10}) for n in range(50)))
        ended = await place.until_outcomes(RunEnded, 50)
        assert process.observer.taken[0].probing
        await until(lambda: not process.shared.probes.open)
        assert process.shared.admission.active_runs == 0
    assert sorted(await probed(place)) == sorted(each.run for each in ended)


async def test_a_run_that_waits_has_passed(place: Place) -> None:
    kitchen = Kitchen()
    await taken_over(place, TAKEOVERS)
    async with serving(FaultLog(place.log), kitchen.app(), instance="a", partitions=1) as process:
        await place.publish("in", *(event({"n": n}, type="nap") for n in range(40)))
        await until(lambda: process.service.owners[0].runs and len(process.service.owners[0].state.runs) == 40)
        await until(lambda: not process.shared.probes.open and not process.shared.admission.active_runs)
    async with serving(FaultLog(place.log), kitchen.app(), instance="b", partitions=1) as process:
        await until(lambda: not process.shared.probes.open and not process.shared.admission.active_runs)
        assert process.service.owners[0].state.probation.suspects == {}
    assert await probed(place, ProbePassed)
    assert not process.observer.parked
    assert [told.reason for told in process.observer.stopped] == list[StopReason]()
