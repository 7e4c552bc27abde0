"""Group commit: order, batches, failures, flushing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from headrace.service import writer as writer_file
from headrace.service.log_clock import LogClock
from headrace.service.writer import Writer
from headrace.topics.errors import HeadraceError
from headrace.topics.log import Appended, AppendFailed, AppendRefused, LogUnavailable, NewRecord, TopicPartition
from tests.service.fault_log import Fault, FaultLog
from tests.service.shell import Place, Recorder, until

RUNS = TopicPartition("shop.runs", 0)


class Desk:
    """Puts records, and notes in which order their fates are told."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.told: list[tuple[str, int | type[HeadraceError]]] = []

    def put(self, *values: str) -> None:
        for value in values:
            self.writer.put(
                NewRecord(value=value.encode()), lambda offset, error, value=value: self.note(value, offset, error)
            )

    def note(self, value: str, offset: int, error: HeadraceError | None) -> None:
        self.told.append((value, offset if error is None else type(error)))


@asynccontextmanager
async def desk_on(log: FaultLog, *, batch_bytes: int = 512 << 10) -> AsyncIterator[Desk]:
    writer = Writer(log, RUNS, batch_bytes=batch_bytes, observer=Recorder(), clock=LogClock())
    async with asyncio.TaskGroup() as group:
        group.create_task(writer.run())
        yield Desk(writer)
        writer.stop()


async def written(place: Place) -> list[str]:
    return [(record.value or b"").decode() for record in await place.records("shop.runs", 0)]


async def test_what_is_put_in_one_turn_goes_in_one_batch_and_in_order(place: Place) -> None:
    log = FaultLog(place.log)
    async with desk_on(log) as desk:
        desk.put("a", "b", "c")
        await desk.writer.flushed()
    assert len(log.calls) == 1
    assert desk.told == [("a", 0), ("b", 1), ("c", 2)]
    assert await written(place) == ["a", "b", "c"]


async def test_one_batch_is_out_and_the_next_one_fills_meanwhile(place: Place) -> None:
    log = FaultLog(place.log)
    log.hold("shop.runs")
    async with desk_on(log) as desk:
        desk.put("a")
        await until(lambda: log.waiting)
        desk.put("b")
        desk.put("c")
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(log.calls) == 1
        assert desk.told == []
        log.release("shop.runs")
        await desk.writer.flushed()
    assert [len(records) for records in log.called("shop.runs")] == [1, 2]
    assert desk.told == [("a", 0), ("b", 1), ("c", 2)]


async def test_a_batch_is_bounded_in_bytes_but_for_a_single_record(place: Place) -> None:
    log = FaultLog(place.log)
    async with desk_on(log, batch_bytes=10) as desk:
        desk.put("x" * 25, "y" * 5, "z" * 5, "w")
        await desk.writer.flushed()
        assert desk.writer.queued_bytes == 0
    assert [[len(record.value or b"") for record in batch] for batch in log.called("shop.runs")] == [[25], [5, 5], [1]]


async def test_a_batch_is_bounded_in_records(place: Place) -> None:
    log = FaultLog(place.log)
    most = writer_file._BATCH_RECORDS
    async with desk_on(log) as desk:
        desk.put(*("x" for _ in range(most + 1)))
        await desk.writer.flushed()
    assert [len(batch) for batch in log.called("shop.runs")] == [most, 1]
    assert [offset for _, offset in desk.told] == list(range(most + 1))


async def test_a_failure_fails_what_is_queued_behind_it_in_order_and_the_queue_goes_on(place: Place) -> None:
    log = FaultLog(place.log)
    log.faults["shop.runs"].append(Fault.DONE)
    log.hold("shop.runs")
    async with desk_on(log, batch_bytes=2) as desk:
        desk.put("a", "b", "c")
        await until(lambda: log.waiting)
        desk.put("d")
        log.release("shop.runs")
        await until(lambda: desk.told)
        assert desk.told == [(value, AppendFailed) for value in "abcd"]
        assert desk.writer.queued_bytes == 0
        desk.put("e")
        await desk.writer.flushed()
        assert desk.told[4:] == [("e", 2)]
    assert await written(place) == ["a", "b", "e"]


async def test_what_a_failure_makes_somebody_put_comes_behind_it(place: Place) -> None:
    log = FaultLog(place.log)
    log.faults["shop.runs"].append(Fault.LOST)
    async with desk_on(log) as desk:

        def again(offset: int, error: HeadraceError | None) -> None:
            desk.note("first", offset, error)
            desk.put("again")

        desk.writer.put(NewRecord(value=b"first"), again)
        desk.put("behind")
        await desk.writer.flushed()
    assert desk.told == [("first", AppendFailed), ("behind", AppendFailed), ("again", 0)]


async def test_a_refusal_and_an_outage_are_told_as_what_they_are(place: Place) -> None:
    log = FaultLog(place.log)
    async with desk_on(log) as desk:
        log.refuses = lambda _topic, record: record.value == b"bad"
        desk.put("bad")
        await desk.writer.flushed()
        log.away = True
        desk.put("b")
        await desk.writer.flushed()
        log.away = False
        desk.put("c")
        await desk.writer.flushed()
    assert desk.told == [("bad", AppendRefused), ("b", LogUnavailable), ("c", 0)]


async def test_flushed_waits_for_what_is_queued_and_for_what_is_out(place: Place) -> None:
    log = FaultLog(place.log)
    log.hold("shop.runs")
    async with desk_on(log) as desk:
        await desk.writer.flushed()  # nothing there
        desk.put("a")
        async with asyncio.TaskGroup() as group:
            flushed = group.create_task(desk.writer.flushed())
            await until(lambda: log.waiting)
            assert not flushed.done()
            desk.put("b")
            log.release("shop.runs")
        assert [value for value, _ in desk.told] == ["a", "b"]


async def test_stop_writes_what_is_queued_even_what_is_put_after_it(place: Place) -> None:
    async with desk_on(FaultLog(place.log)) as desk:
        desk.put("a")
        desk.writer.stop()
        desk.put("b")
        await desk.writer.flushed()
        assert [value for value, _ in desk.told] == ["a", "b"]
    assert await written(place) == ["a", "b"]


async def test_put_after_stop_in_one_turn_is_waited_for(place: Place) -> None:
    async with desk_on(FaultLog(place.log)) as desk:
        await desk.writer.flushed()
        desk.writer.stop()
        desk.put("a")
        await desk.writer.flushed()
        assert desk.told == [("a", 0)]


async def test_each_append_shows_the_logs_clock(place: Place) -> None:
    class Ahead(FaultLog):
        async def append(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
            appended = await super().append(at, records)
            return Appended(appended.base_offset, appended.timestamp_ms + 60_000)

    clock = LogClock()
    writer = Writer(Ahead(place.log), RUNS, batch_bytes=100, observer=Recorder(), clock=clock)
    async with asyncio.TaskGroup() as group:
        group.create_task(writer.run())
        writer.put(NewRecord(value=b"a"))
        await writer.flushed()
        writer.stop()
    assert clock.skew_ms > 50_000
