"""Starts that wait for room or for their key: as bytes up to a limit, beyond it in the log alone, and in order whatever happens."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace import EventTrigger, Run, handler, workflow
from headrace.service import checkpointer, waiting_starts
from headrace.service.admission import OUTSTANDING
from headrace.service.back_pressure import BackPressure
from headrace.service.engine.fold import fold, new_state
from headrace.service.engine.instruction import Begin
from headrace.service.engine.run_state import RunState
from headrace.service.owner_position import OwnerPosition, of
from headrace.service.start_reader import StartReader, Starts
from headrace.service.waiting_starts import Asked, WaitingStarts
from headrace.topics.command import Start
from headrace.topics.errors import HeadraceError
from headrace.topics.identity import ClientId
from headrace.topics.log import Batch, Isolation, LogCorrupt, NewRecord, OffsetOutOfRange, TopicPartition
from headrace.topics.outcome import RunEnded, RunStatus
from headrace.topics.run_record import CommandRecord, decode
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, Serving, app_of, event, place_at, serving, shared_of, until

RUNS = TopicPartition("shop.runs", 0)
PAYLOAD = "x" * 2_000
TIGHT = {"max_active_runs": 1, "max_queued_bytes": "8KiB", "handoff_grace": "10ms"}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with place_at(tmp_path, partitions=1) as place:
        yield place


@pytest.fixture(autouse=True)
def _packs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_starts, "_UNPACKED_MAX", 0)


class Gate:
    """A workflow whose runs wait until the gate is open, and note in which order they come."""

    def __init__(self, **options: Any) -> None:
        self.gate = asyncio.Event()
        self.seen: list[int] = []

        @handler
        async def work(n: int) -> int:
            await self.gate.wait()
            self.seen.append(n)
            return n

        @workflow(on=EventTrigger("in", "work"), name="worker", **options)
        async def worker(run: Run, order: dict[str, Any]) -> int:
            assert order["payload"] == PAYLOAD
            return await run.call(work, order["n"])

        self.app = app_of(work, worker)


def orders(count: int, first: int = 0) -> list[NewRecord]:
    return [event({"n": n, "payload": PAYLOAD}, type="work") for n in range(first, first + count)]


def left(process: Serving) -> dict[str, int]:
    return process.service.owners[0].state.runs.left


async def until_read(process: Serving, count: int) -> None:
    await until(lambda: len(process.service.owners[0].state.runs) == count)


async def test_what_is_over_the_limit_lies_in_the_log_alone_and_everything_runs_in_order(place: Place) -> None:
    gate = Gate()
    async with serving(FaultLog(place.log), gate.app, partitions=1, worker=TIGHT) as process:
        await place.publish("in", *orders(60))  # one chunk of the source: it is read whole
        await until_read(process, 60)
        assert len(left(process)) > 40
        admission = process.shared.admission
        assert admission.left_bytes == process.service.owners[0].state.runs.left_bytes
        assert admission.waiting_bytes - admission.left_bytes <= 8 * 1024 + 3_000
        gate.gate.set()
        await until(lambda: len(process.observer.finished) == 60)
        assert {ended.status for ended in process.observer.finished} == {RunStatus.SUCCEEDED}
        assert gate.seen == list(range(60))
        assert not left(process)
        assert (admission.left_bytes, admission.waiting_bytes, admission.backlog) == (0, 0, {})


async def test_starts_behind_their_key_lie_in_the_log_too_and_pause_nobody(place: Place) -> None:
    gate = Gate(key=lambda _order: "hot", on_conflict="queue")

    @handler
    async def quick() -> None: ...

    @workflow(on=EventTrigger("in", "quick"), name="quick")
    async def other(run: Run, order: dict[str, Any]) -> None:
        await run.call(quick)

    app = app_of(*gate.app.handlers, *gate.app.workflows, quick, other)
    worker = {**TIGHT, "max_active_runs": 2}
    async with serving(FaultLog(place.log), app, partitions=1, worker=worker) as process:
        await place.publish("in", *orders(50))
        await until_read(process, 50)
        assert len(left(process)) > 40
        await place.publish("in", *(event({}, type="quick") for _ in range(20)))
        await until(lambda: sum(ended.workflow == "quick" for ended in process.observer.finished) == 20)
        assert gate.seen == []
        gate.gate.set()
        await until(lambda: len(process.observer.finished) == 70)
        assert gate.seen == list(range(50))


async def test_a_log_is_not_trimmed_beyond_a_start_that_lies_there_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints at every batch: they carry every start whole, and the log is kept for who has left them there."""
    monkeypatch.setattr(checkpointer, "LOG_BYTES_MIN", 0)
    monkeypatch.setattr(checkpointer, "SIZE_FACTOR", 0)
    gate = Gate()
    first = FaultLog(place.log)
    async with serving(first, gate.app, partitions=1, worker=TIGHT) as process:
        await place.publish("in", *orders(40))
        await until_read(process, 40)
        owner = process.service.owners[0]
        assert left(process)
        last = max(run.offset for run in owner.state.runs.values())
        await until(lambda: owner.checkpointer.as_of >= last)
        oldest = owner.state.runs.oldest_left()
        assert oldest is not None
        offsets = (await place.view.offsets([RUNS]))[RUNS]
        assert offsets.start <= oldest
        first.dead = True
    again = FaultLog(place.log)
    async with serving(again, gate.app, partitions=1, worker=TIGHT) as process:
        owner = process.service.owners[0]
        assert owner.checkpointer.as_of >= last  # everything came from the checkpoint
        gate.gate.set()
        await until(lambda: len(process.observer.finished) == 40)
        assert sorted(gate.seen) == list(range(40))
        ended = await place.until_outcomes(RunEnded, 1)
        assert {each.status for each in ended} == {RunStatus.SUCCEEDED}


async def test_a_retaken_partition_begins_its_starts_again(place: Place) -> None:
    from tests.service.fault_log import Fault

    gate = Gate()
    log = FaultLog(place.log)
    async with serving(log, gate.app, partitions=1, worker=TIGHT) as process:
        await place.publish("in", *orders(30))
        await until_read(process, 30)
        assert left(process)
        log.faults["shop.runs"].append(Fault.LOST)
        gate.gate.set()
        await until(lambda: len(process.observer.finished) == 30)
        assert len(process.observer.taken) == 2
        assert not left(process)
        assert process.shared.admission.left_bytes == 0


async def test_a_start_that_the_log_lost_stops_the_partition_with_an_alarm(place: Place) -> None:
    gate = Gate()
    async with serving(FaultLog(place.log), gate.app, partitions=1, worker=TIGHT) as process:
        await place.publish("in", *orders(30))
        await until_read(process, 30)
        end = (await place.view.offsets([RUNS]))[RUNS].end
        await place.log.trim(RUNS, end)  # by somebody's hand
        gate.gate.set()
        (stopped,) = await until(lambda: process.observer.stopped)
        assert stopped.topic == "shop.runs"


# --- reading again ----------------------------------------------------------------------------------------------------


async def test_starts_are_read_by_offset_in_any_order(place: Place) -> None:
    gate = Gate()
    async with serving(FaultLog(place.log), gate.app, partitions=1, worker=TIGHT) as process:
        await place.publish("in", *orders(20))
        await until_read(process, 20)
    records = await place.records("shop.runs", 0)
    offsets = {
        record.offset: entry.body
        for record in records
        if isinstance(entry := decode(record.value), CommandRecord) and isinstance(entry.body, Start)
    }
    assert len(offsets) == 20
    starts = Starts(place.log, RUNS)
    for offset in (*sorted(offsets), *sorted(offsets, reverse=True)):
        start = await starts.at(offset)
        assert start == offsets[offset]
        assert json.loads(bytes(start.input))["payload"] == PAYLOAD
    with pytest.raises(LogCorrupt):
        await starts.at(0)  # an announce
    with pytest.raises(OffsetOutOfRange):
        await starts.at(10_000)
    await starts.close()


class Unhurried(FaultLog):
    """Gives record by record, and fetches nothing before it is asked for."""

    @asynccontextmanager
    async def read(
        self, at: TopicPartition, start: int, *, isolation: Isolation = "all"
    ) -> AsyncGenerator[AsyncIterator[Batch]]:
        async def batches() -> AsyncGenerator[Batch]:
            position = start
            while True:
                async with self._log.read(at, position, isolation=isolation) as found:
                    batch = await anext(found)
                position = batch.records[0].offset + 1
                yield Batch(at, batch.records[:1], batch.end_offset)

        async with aclosing(batches()) as given:
            yield given


async def test_a_start_is_found_though_what_lies_before_it_is_trimmed_while_it_is_read_past(place: Place) -> None:
    await place.publish("shop.runs", *(NewRecord(value=start_value(n)) for n in range(30)))
    starts = Starts(Unhurried(place.log), RUNS)
    assert bytes((await starts.at(2)).input) == b"2"
    await place.log.trim(RUNS, 10)
    assert bytes((await starts.at(20)).input) == b"20"
    await place.log.trim(RUNS, 26)
    with pytest.raises(OffsetOutOfRange):
        await starts.at(25)
    await starts.close()


class Wanting:
    at = RUNS

    def __init__(self) -> None:
        self.back_: list[str] = []
        self.errors: list[HeadraceError] = []

    def back(self, run: str, start: Start) -> None:
        self.back_.append(run)

    def gone(self, error: HeadraceError) -> None:
        self.errors.append(error)


async def test_what_is_wanted_comes_in_log_order_and_what_is_forgotten_does_not(place: Place) -> None:
    await place.publish("shop.runs", *(NewRecord(value=start_value(n)) for n in range(30)))
    reader, who, other = StartReader(place.log), Wanting(), Wanting()
    for n in (7, 3, 29, 0):
        reader.want(who, f"run-{n}", n)
    reader.want(other, "x", 5)
    reader.forget(other)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reader.run())
        await until(lambda: len(who.back_) == 4)
        assert who.back_ == ["run-0", "run-3", "run-7", "run-29"]
        reader.want(who, "run-1", 1)
        await until(lambda: len(who.back_) == 5)
        reader.want(who, "none", 77)
        await until(lambda: who.errors)
        assert (other.back_, other.errors) == ([], [])
        task.cancel()


def start_value(n: int) -> bytes:
    import msgspec

    from headrace.topics.identity import ClientId
    from headrace.topics.run_record import encode

    return encode(CommandRecord(ClientId(f"c{n}"), Start("default", "w", "1", msgspec.Raw(b"%d" % n))))


# --- across processes -------------------------------------------------------------------------------------------------


class SomeOwners:
    """An ownership of some of the partitions."""

    def __init__(self, *owners: Any) -> None:
        self.owners = owners


async def test_an_overfull_owner_says_so_and_others_pause_what_feeds_it(place: Place) -> None:
    gate = Gate()
    worker = {**TIGHT, "max_queued_bytes": "1KiB"}
    async with serving(FaultLog(place.log), gate.app, partitions=1, worker=worker) as process:
        await place.publish("in", *orders(10))
        await until_read(process, 10)
        backlog = process.service.owners[0].runs.starts.backlog()
        assert backlog == process.shared.admission.backlog
        ours: Any = SomeOwners(*process.service.owners)
        BackPressure(process.shared, ours).publish()

        async def published() -> OwnerPosition:
            found = await place.view.committed("shop.owners", [RUNS])
            return of(found[RUNS]) if RUNS in found else OwnerPosition(0)

        position = await place.until(published, lambda position: position.backlog)
        assert position.backlog == backlog == {"in": backlog["in"]}
        assert position.token >= 0

        elsewhere: Any = SomeOwners()  # a process that owns nothing sees the same
        other = BackPressure(process.shared, elsewhere)
        admission = process.shared.admission
        admission.pause_elsewhere(frozenset())
        await other.look()
        assert admission._elsewhere == {"in"}
        gate.gate.set()
        await until(lambda: len(process.observer.finished) == 10)
        BackPressure(process.shared, ours).publish()
        await place.until(published, lambda position: not position.backlog)
        await other.look()
        assert admission._elsewhere == set()
        assert not admission.pauses("in")


async def test_a_start_whose_turn_comes_at_once_is_not_left_in_the_log(place: Place) -> None:
    """It waits for its trial, say, and is woken as it is: whoever leaves it there takes its input away."""
    shared = shared_of(place.log, Gate().app, partitions=1, worker={"max_queued_bytes": "1KiB"})
    state = new_state(topic="shop.runs", partition=0, partitions=1, client_retention_ms=1_000)
    starts: list[RunState] = []
    for offset, size in enumerate((4_000, 100)):
        start = Start("default", "worker", "1", msgspec.Raw(b'{"n":1}'))
        [begin] = fold(state, offset, 1, size, CommandRecord(ClientId(f"c{offset}"), start)).instructions
        assert isinstance(begin, Begin)
        starts.append(begin.run)
    first, second = starts
    turns: list[str] = []

    def begin_on_trial(run: str) -> None:
        turns.append(run)
        shared.admission.outstanding = OUTSTANDING  # nobody else has a turn now
        waiting.asked[run] = Asked("worker")

    waiting = WaitingStarts(shared, state, begin_on_trial, lambda error: pytest.fail(str(error)))
    shared.admission.keep("another", 5_000)  # more than may be kept
    shared.admission.outstanding = OUTSTANDING
    waiting.ask(first)
    assert state.runs.left.keys() == {first.id}
    shared.admission.outstanding = 0
    second.started_at_ms = 0  # it comes before the other one, as a child does
    waiting.ask(second)
    assert turns == [second.id]
    assert state.runs.left.keys() == {first.id}
    assert bytes(state.runs[second.id].start.input) == b'{"n":1}'
