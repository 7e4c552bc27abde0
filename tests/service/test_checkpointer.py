"""Checkpoints through a whole service on a real log: written while it works, killed at every step, by several owners, without permission; and the way back."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace import EventTrigger, Run, handler, workflow
from headrace.observability.label import LogKind, LossReason, StopReason
from headrace.service import checkpointer, checkpoints, owner_position
from headrace.service.definitions.app import App
from headrace.service.engine import checkpoint
from headrace.service.fault_point import FaultPoint, armed
from headrace.service.owner_position import OwnerPosition
from headrace.topics.log import Offsets, Position, TopicPartition
from headrace.topics.outcome import CheckpointChunk
from headrace.topics.run_record import decode
from tests.service.archive import Archive, ArchivedLog
from tests.service.fault_log import Fault, FaultLog
from tests.service.shell import Place, Serving, app_of, event, place_at, serving, until

RUNS = TopicPartition("shop.runs", 0)
ORDERS = 15


class Shop:
    """An app whose runs call, sleep and emit; a test holds those with an odd number."""

    def __init__(self) -> None:
        self.calls: Counter[int] = Counter()
        self.go_on = asyncio.Event()
        self.go_on.set()

    def app(self) -> App:
        @handler
        async def pack(n: int) -> int:
            self.calls[n] += 1
            if n % 2:
                await self.go_on.wait()
            return n

        @handler
        async def ship(n: int) -> str:
            return f"parcel-{n}"

        @workflow(
            on=EventTrigger("in", "order.placed"),
            name="order",
            emits=["out"],
            key=lambda order: f"customer-{order['n'] % 7}",
            on_conflict="queue",
        )
        async def order(run: Run, order: dict[str, Any]) -> None:
            packed = await run.call(pack, order["n"])
            await run.sleep("2ms")
            parcel = await run.call(ship, packed)
            await run.emit("order.done", {"n": order["n"], "parcel": parcel}, topic="out")

        return app_of(pack, ship, order)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint whenever there is something new, in many small chunks."""
    monkeypatch.setattr(checkpointer, "LOG_BYTES_MIN", 0)
    monkeypatch.setattr(checkpointer, "EVERY_S", 0.0)
    monkeypatch.setattr(checkpointer, "SIZE_FACTOR", 0)
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 3_000)
    monkeypatch.setattr(checkpoint, "_PART_BYTES", 2_000)


async def start_of(place: Place) -> int:
    return (await place.view.offsets([RUNS]))[RUNS].start


async def hint(place: Place) -> OwnerPosition | None:
    found = (await place.view.committed("shop.owners", [RUNS])).get(RUNS)
    return None if found is None else owner_position.of(found)


async def results(place: Place) -> int:
    """How many there are, repeated ones included."""
    out = TopicPartition("out", 0)
    return (await place.view.offsets([out]))[out].end


async def one_by_one(place: Place, count: int) -> None:
    """The next order comes when the one before it is done: work for many checkpoints."""
    for number in range(count):
        await publish(place, range(number, number + 1))
        await place.until(lambda: results(place), lambda count, number=number: count > number)


async def publish(place: Place, numbers: range) -> None:
    await place.publish("in", *[event({"n": n}) for n in numbers])


def complete(process: Serving) -> int:
    return len(process.observer.checkpoints)


async def finished(process: Serving, place: Place, count: int) -> None:
    """So many orders are done, no run is open, nothing is in the outbox."""
    await place.until(lambda: place.values("out"), lambda found: len({each["n"] for each in found}) >= count)
    await until(lambda: all(not owner.state.runs and not owner.state.outbox for owner in process.service.owners))


async def judged(place: Place, archive: Archive, numbers: range) -> None:
    """Each order has one end, and its result is there, once by id."""
    assert list((await archive.endings()).values()) == [1] * len(numbers)
    assert {record["n"] for record in await place.values("out")} == set(numbers)
    assert len({dict(record.headers)["ce_id"] for record in await place.records("out")}) == len(numbers)


@pytest.mark.usefixtures("often")
async def test_a_checkpoint_is_written_the_log_is_trimmed_and_the_state_is_the_same(place: Place) -> None:
    shop, archive = Shop(), Archive(place)
    shop.go_on.clear()
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        await publish(place, range(40))
        await until(lambda: shop.calls[1] and complete(process) > 0)
        state = process.service.owners[0].state
        assert state.runs
        assert await archive.agrees(state)
    assert await start_of(place) > 0
    shop.go_on.set()
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        assert process.observer.taken[0].records < len(await archive.all())
        await finished(process, place, 40)
        assert await archive.agrees(process.service.owners[0].state)
    await judged(place, archive, range(40))


@pytest.mark.usefixtures("often")
async def test_what_is_trimmed_is_in_a_checkpoint_that_was_read_back(place: Place) -> None:
    """M18: no trim goes beyond the record behind `as_of`, and none before the last chunk is in the log."""
    shop, archive = Shop(), Archive(place)
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        await publish(place, range(30))
        await until(lambda: complete(process) > 0)
        await finished(process, place, 30)
    assert archive.trims
    last = {
        body.as_of
        for entry in await archive.all()
        if isinstance(body := getattr(decode(entry.value), "body", None), CheckpointChunk) and body.last
    }
    assert {before - 1 for _, before in archive.trims} <= last


@pytest.mark.usefixtures("often")
async def test_the_position_names_the_newest_checkpoint(place: Place) -> None:
    shop, archive = Shop(), Archive(place)
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        await publish(place, range(10))
        await finished(process, place, 10)
        owner = process.service.owners[0]
        found = await place.until(
            lambda: hint(place), lambda found: found is not None and found.checkpoint == owner.checkpointer.first >= 0
        )
        assert found.offset == owner.checkpointer.as_of + 1
        assert found.token == owner.state.gate.token
        assert found.log == owner.state.gate.first
        assert found.partitions == 1


# --- killed at every step ---------------------------------------------------------------------------------------------

STEPS = [
    FaultPoint.CHECKPOINT_BEGINNING,
    FaultPoint.CHUNK_PROPOSING,
    FaultPoint.CHUNK_PROPOSED,
    FaultPoint.CHECKPOINT_COMPLETE,
    FaultPoint.CHECKPOINT_COMMITTED,
    FaultPoint.LOG_TRIMMED,
    FaultPoint.RECOVERED,
]


@contextmanager
def killed_at(point: FaultPoint, time: int, log: ArchivedLog) -> Iterator[asyncio.Event]:
    """The process is dead from the given time on at which it comes to the point."""
    died = asyncio.Event()
    left = time

    def hook(here: FaultPoint) -> None:
        nonlocal left
        if here is point:
            left -= 1
            if left == 0:
                log.dead = True
                died.set()

    with armed(hook):
        yield died


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("time", [1, 2, 7])
@pytest.mark.parametrize("point", STEPS)
async def test_a_process_killed_at_any_step_of_a_checkpoint_loses_nothing(
    place: Place, point: FaultPoint, time: int
) -> None:
    shop, archive = Shop(), Archive(place)
    lives = time if point is FaultPoint.RECOVERED else 1
    async with asyncio.TaskGroup() as group:
        orders = group.create_task(one_by_one(place, ORDERS))
        for _ in range(lives):
            log = ArchivedLog(archive)
            with killed_at(point, 1 if point is FaultPoint.RECOVERED else time, log) as died:
                async with serving(log, shop.app(), partitions=1, ready=False), asyncio.timeout(60):
                    await died.wait()
        async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
            await asyncio.wait([orders])
            await finished(process, place, ORDERS)
            assert await archive.agrees(process.service.owners[0].state)
    await judged(place, archive, range(ORDERS))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DONE])
async def test_a_token_lost_between_chunks_ends_that_checkpoint_and_a_later_one_counts(
    place: Place, fault: Fault
) -> None:
    shop, archive = Shop(), Archive(place)
    shop.go_on.clear()
    log = ArchivedLog(archive)
    struck: list[int] = []

    def hook(point: FaultPoint) -> None:
        if point is FaultPoint.CHUNK_PROPOSING and len(struck) < 3:
            struck.append(1)
            log.faults["shop.runs"].append(fault)

    with armed(hook):
        async with serving(log, shop.app(), partitions=1) as process:
            await publish(place, range(20))
            await until(lambda: len(struck) == 3 and len(process.observer.lost) >= 3)
            lost = len(process.observer.lost)
            shop.go_on.set()
            await finished(process, place, 20)
            assert complete(process) >= 1
            assert len(process.observer.lost) == lost
            assert await archive.agrees(process.service.owners[0].state)
    await judged(place, archive, range(20))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("point", STEPS[:-1])
async def test_a_bug_at_any_step_of_a_checkpoint_ends_that_checkpoint_and_nothing_else(
    place: Place, point: FaultPoint
) -> None:
    shop, archive = Shop(), Archive(place)
    left = 3

    def hook(here: FaultPoint) -> None:
        nonlocal left
        if here is point and left:
            left -= 1
            raise KeyError("nobody thought of this")

    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        with armed(hook):
            await one_by_one(place, ORDERS)
        assert {told.code for told in process.observer.checkpoints_failed} == {"HR9003"}
        assert len(process.observer.checkpoints_failed) == 3
        assert "KeyError" in process.observer.checkpoints_failed[0].message
        await finished(process, place, ORDERS)
        assert complete(process)
        assert (len(process.observer.taken), process.observer.lost, process.observer.stopped) == (1, [], [])
        assert await archive.agrees(process.service.owners[0].state)
    await judged(place, archive, range(ORDERS))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("part", ["touched", "estimated_bytes"])
async def test_a_bug_in_what_a_checkpoint_does_while_the_log_is_folded_stops_no_partition(
    place: Place, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def broken(*_: object) -> Any:
        raise KeyError("nobody thought of this")

    shop, archive = Shop(), Archive(place)
    where = checkpoint if part == "touched" else checkpointer
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        with monkeypatch.context() as patch:
            patch.setattr(where, part, broken)
            await one_by_one(place, ORDERS)
            assert {told.code for told in process.observer.checkpoints_failed} == {"HR9003"}
        await finished(process, place, ORDERS)
        before = complete(process)
        await publish(place, range(ORDERS, ORDERS + 1))
        await finished(process, place, ORDERS + 1)
        await until(lambda: complete(process) > before)
        assert (len(process.observer.taken), process.observer.lost, process.observer.stopped) == (1, [], [])
    await judged(place, archive, range(ORDERS + 1))


# --- hints ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    "wrong",
    [
        {"checkpoint": 0},
        {"checkpoint": 10**9},
        {"checkpoint": "later"},
        {"token": -5},
        {"metadata": "not JSON"},
        {"metadata": ""},
    ],
    ids=str,
)
async def test_a_wrong_hint_costs_a_search_and_nothing_else(place: Place, wrong: dict[str, Any]) -> None:
    shop, archive = Shop(), Archive(place)
    shop.go_on.clear()
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        await publish(place, range(20))
        await until(lambda: complete(process) > 0)
    found = await hint(place)
    assert found is not None
    if wrong.get("checkpoint") == "later":
        wrong = {"checkpoint": (await place.view.offsets([RUNS]))[RUNS].end - 1}
    position = Position(found.offset, wrong["metadata"]) if "metadata" in wrong else None
    if position is None:
        position = msgspec.structs.replace(found, **wrong).position()
    await place.log.commit("shop.owners", {RUNS: position})
    shop.go_on.set()
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        await finished(process, place, 20)
        assert await archive.agrees(process.service.owners[0].state)
    await judged(place, archive, range(20))


# --- no permission, gaps, truncation, other logs ----------------------------------------------------------------------


@pytest.mark.usefixtures("often")
async def test_without_permission_to_trim_the_log_grows_and_all_goes_on(place: Place) -> None:
    shop, archive = Shop(), Archive(place)
    log = ArchivedLog(archive)
    log.forbids = True
    async with serving(log, shop.app(), partitions=1) as process:
        await publish(place, range(20))
        await finished(process, place, 20)
        await until(lambda: process.observer.trims_failed)
        assert process.observer.trims_failed[0].code == "HR5003"
    assert await start_of(place) == 0
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        assert process.observer.taken[0].records < len(await archive.all())
        assert await archive.agrees(process.service.owners[0].state)


@pytest.mark.usefixtures("often")
async def test_a_log_that_begins_behind_the_checkpoint_is_refused(place: Place) -> None:
    shop, archive = Shop(), Archive(place)
    shop.go_on.clear()
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        await publish(place, range(6))
        await until(lambda: shop.calls[1] and complete(process) > 0)
    found = await hint(place)
    assert found is not None
    await place.log.trim(RUNS, found.offset + 1)
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        stopped = await until(lambda: process.observer.stopped)
        assert (stopped[0].reason, stopped[0].code) == (StopReason.LOG_GAP, "HR5112")


async def test_a_log_that_ends_before_what_was_committed_is_folded_anew_with_an_alarm(place: Place) -> None:
    shop, archive = Shop(), Archive(place)
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        await publish(place, range(4))
        await finished(process, place, 4)
        found = await place.until(lambda: hint(place), lambda found: found is not None)
    beyond = msgspec.structs.replace(found, offset=10**6, checkpoint=10**6 + 5)
    await place.log.commit("shop.owners", {RUNS: beyond.position()})
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        assert [told.reason for told in process.observer.lost] == [LossReason.TRUNCATED]
        assert process.observer.lost[0].offset == 10**6
        await publish(place, range(4, 8))
        await finished(process, place, 8)
    await judged(place, archive, range(8))


async def test_a_log_truncated_under_a_live_owner_is_folded_anew_with_an_alarm(place: Place) -> None:
    shop, archive = Shop(), Archive(place)
    shop.go_on.clear()
    log = ArchivedLog(archive)
    async with serving(log, shop.app(), partitions=1) as process:
        await publish(place, range(8))
        await until(lambda: shop.calls[1])
        log.truncate(RUNS, Offsets(0, 1))
        await publish(place, range(8, 9))
        await until(lambda: len(process.observer.taken) == 2)
        assert [told.reason for told in process.observer.lost] == [LossReason.TRUNCATED]
        shop.go_on.set()
        await finished(process, place, 9)
        assert await archive.agrees(process.service.owners[0].state)
    await judged(place, archive, range(9))


async def test_a_run_log_made_anew_under_its_name_is_refused(place: Place) -> None:
    shop, archive = Shop(), Archive(place)
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        await publish(place, range(2))
        await finished(process, place, 2)
        found = await place.until(lambda: hint(place), lambda found: found is not None)
    await place.log.commit("shop.owners", {RUNS: msgspec.structs.replace(found, log="of another one").position()})
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        stopped = await until(lambda: process.observer.stopped)
        assert (stopped[0].reason, stopped[0].code) == (StopReason.LOG_REPLACED, "HR1208")


async def test_a_run_log_made_anew_under_a_live_owner_is_refused(place: Place) -> None:
    """Brokers forget what was committed for a topic with it; who has read it has not forgotten, and says so to whoever comes next."""
    shop, archive = Shop(), Archive(place)
    log = ArchivedLog(archive)
    async with serving(log, shop.app(), partitions=1) as process:
        await publish(place, range(2))
        await finished(process, place, 2)
        owner = process.service.owners[0]
        owner.state.gate.first = "of another one"
        await place.log.commit("shop.owners", {RUNS: Position(0, "")})
        log.truncate(RUNS, Offsets(0, 0))
        await publish(place, range(2, 3))
        stopped = await until(lambda: process.observer.stopped)
        assert (stopped[0].reason, stopped[0].code) == (StopReason.LOG_REPLACED, "HR1208")
        await place.until(lambda: hint(place), lambda found: found is not None and found.log == "of another one")
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:  # one that had not read it
        stopped = await until(lambda: process.observer.stopped)
        assert (stopped[0].reason, stopped[0].code) == (StopReason.LOG_REPLACED, "HR1208")


async def test_a_run_log_of_other_partitions_than_its_records_say_is_refused(place: Place) -> None:
    shop, archive = Shop(), Archive(place)
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        await publish(place, range(2))
        await finished(process, place, 2)
    async with serving(ArchivedLog(archive), shop.app(), partitions=2) as process:
        stopped = await until(lambda: process.observer.stopped)
        assert (stopped[0].reason, stopped[0].code) == (StopReason.PARTITIONS_CHANGED, "HR1203")


# --- when ---------------------------------------------------------------------------------------------------------------


async def test_a_checkpoint_waits_until_it_is_cheap(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written bytes are at most one and a half times those of the log without checkpoints; while all runs wait, the log is shorter than a checkpoint."""
    monkeypatch.setattr(checkpointer, "LOG_BYTES_MIN", 2_000)
    monkeypatch.setattr(checkpointer, "EVERY_S", 0.0)
    shop, archive = Shop(), Archive(place)
    shop.go_on.clear()
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        for first in range(1, 400, 20):
            await publish(place, range(first, first + 20))
            await until(lambda first=first: len(process.service.owners[0].state.runs) > first // 2)
        assert not complete(process)
        shop.go_on.set()
        await finished(process, place, 400)
        assert complete(process) > 1
        written: Counter[LogKind] = Counter()
        for told in process.observer.folded:
            written.update(told.sizes_bytes)
        rest = written.total() - written[LogKind.CHECKPOINT]
        assert 0 < written[LogKind.CHECKPOINT] <= 0.55 * rest


async def test_a_burst_pays_for_one_checkpoint_when_it_is_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """None comes before its time, and then one comes though nothing happens any more."""
    monkeypatch.setattr(checkpointer, "LOG_BYTES_MIN", 2_000)
    monkeypatch.setattr(checkpointer, "EVERY_S", 0.5)
    shop, archive = Shop(), Archive(place)
    began = asyncio.get_running_loop().time()
    async with serving(ArchivedLog(archive), shop.app(), partitions=1) as process:
        await publish(place, range(40))
        await finished(process, place, 40)
        await until(lambda: complete(process))
        assert complete(process) <= (asyncio.get_running_loop().time() - began) / 0.5


async def test_many_short_logs_together_are_one_long_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes over a dead process folds what all its partitions have behind their checkpoints: the longest is shortened before each is due by itself."""
    monkeypatch.setattr(checkpointer, "LOG_BYTES_MIN", 30_000)
    monkeypatch.setattr(checkpointer, "EVERY_S", 0.0)
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.01)
    shop = Shop()
    async with (
        place_at(tmp_path, partitions=4) as place,
        serving(FaultLog(place.log), shop.app(), partitions=4) as process,
    ):
        checkpointers = [owner.checkpointer for owner in process.service.owners]
        longest = published = 0
        while not complete(process) and longest < 30_000:
            await publish(place, range(published, published + 28))
            published += 28
            await finished(process, place, published)
            longest = max(each.log_bytes for each in checkpointers)
        assert longest < 30_000  # none was due by itself
        await until(lambda: sum(each.log_bytes for each in checkpointers) <= 60_000)
