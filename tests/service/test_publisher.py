"""The way out: order per partition, refusals, missing topics, resending, pause."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headrace.observability.label import Dependency
from headrace.service import publisher as publisher_file
from headrace.service.publisher import Publisher
from headrace.topics.errors import Rejected
from headrace.topics.log import AppendRefused, NewRecord, TopicPartition
from headrace.topics.partition_hash import kafka_partition_of
from tests.service.fault_log import Fault, FaultLog
from tests.service.shell import Place, Recorder, until


class Desk:
    def __init__(self, log: FaultLog, publisher: Publisher, observer: Recorder) -> None:
        self.log = log
        self.publisher = publisher
        self.observer = observer
        self.told: list[tuple[str, TopicPartition, int | None]] = []
        self.unwanted: set[str] = set()

    def put(self, *values: str, topic: str = "out", partition: int | None = 0, key: bytes | None = None) -> None:
        for value in values:

            def gone(at: TopicPartition, offset: int, refused: Rejected | None, value: str = value) -> None:
                self.told.append((value, at, None if refused is not None else offset))

            record = NewRecord(value=value.encode(), key=key)
            self.publisher.put(topic, partition, record, gone, lambda value=value: value not in self.unwanted)

    @property
    def order(self) -> list[str]:
        return [value for value, _, _ in self.told]


@asynccontextmanager
async def desk_on(log: FaultLog) -> AsyncIterator[Desk]:
    observer = Recorder()
    publisher = Publisher(log, observer)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(publisher.run())
        try:
            yield Desk(log, publisher, observer)
        finally:
            task.cancel()


async def there(place: Place, topic: str = "out") -> list[str]:
    return [(record.value or b"").decode() for record in await place.records(topic)]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_file, "_BACK_OFF_S", (0.001, 0.01))


async def test_records_of_a_partition_arrive_in_order_in_few_batches(place: Place) -> None:
    async with desk_on(FaultLog(place.log)) as desk:
        values = [f"{n}" for n in range(500)]
        desk.put(*values)
        await until(lambda: len(desk.told) == 500)
    assert desk.told == [(value, TopicPartition("out", 0), n) for n, value in enumerate(values)]
    assert await there(place) == values
    assert len(desk.log.calls) < 5


async def test_what_is_put_before_it_runs_leaves_when_it_runs(place: Place) -> None:
    publisher = Publisher(FaultLog(place.log), Recorder())
    desk = Desk(FaultLog(place.log), publisher, Recorder())
    desk.put("a")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(publisher.run())
        await until(lambda: desk.told)
        task.cancel()


async def test_a_key_chooses_the_partition_as_kafkas_clients_do_and_records_without_one_spread(place: Place) -> None:
    await place.make(wide=4)
    async with desk_on(FaultLog(place.log)) as desk:
        keys = [f"k{n}".encode() for n in range(20)]
        for key in keys:
            desk.put(key.decode(), topic="wide", partition=None, key=key)
        desk.put(*("-" for _ in range(200)), topic="wide", partition=None)
        desk.put("far", topic="wide", partition=4_000_000_001)
        await until(lambda: len(desk.told) == 221)
    found = {value: at.partition for value, at, _ in desk.told if value.startswith("k")}
    assert found == {key.decode(): kafka_partition_of(key, 4) for key in keys}
    spread = Counter(at.partition for value, at, _ in desk.told if value == "-")
    assert len(spread) == 4
    assert min(spread.values()) > 20
    assert [at.partition for value, at, _ in desk.told if value == "far"] == [1]


async def test_a_refused_record_is_tried_three_times_alone_while_its_neighbours_arrive(place: Place) -> None:
    log = FaultLog(place.log)
    log.refuses = lambda _topic, record: record.value == b"bad"
    async with desk_on(log) as desk:
        desk.put("a", "bad", "b")
        desk.put("c")
        await until(lambda: len(desk.told) == 4)
        desk.put("d")
        await until(lambda: len(desk.told) == 5)
    assert [(value, offset) for value, _, offset in desk.told] == [
        ("a", 0),
        ("bad", None),
        ("b", 1),
        ("c", 2),
        ("d", 3),
    ]
    assert await there(place) == ["a", "b", "c", "d"]
    alone = [records for records in log.called("out") if [record.value for record in records] == [b"bad"]]
    assert len(alone) == 3


async def test_a_topic_that_is_missing_is_waited_for_and_holds_back_no_other(place: Place) -> None:
    log = FaultLog(place.log)
    log.missing.add("later")
    async with desk_on(log) as desk:
        desk.put("a", "b", topic="later")
        desk.put("c")
        await until(lambda: desk.order == ["c"])
        await until(lambda: desk.observer.outages)
        await place.make(later=2)
        log.missing.clear()
        await until(lambda: desk.order == ["c", "a", "b"])
    assert [(told.dependency, told.name) for told in desk.observer.outages] == [(Dependency.TOPIC, "later")]


async def test_a_topic_that_goes_missing_later_is_waited_for_too(place: Place) -> None:
    log = FaultLog(place.log)
    async with desk_on(log) as desk:
        desk.put("a")
        await until(lambda: desk.told)
        log.missing.add("out")
        desk.put("b")
        await until(lambda: desk.observer.outages)
        log.missing.clear()
        await until(lambda: desk.order == ["a", "b"])


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.AWAY])
async def test_a_batch_that_failed_is_sent_again_as_it_was(place: Place, fault: Fault) -> None:
    log = FaultLog(place.log)
    log.faults["out"] += [fault, fault]
    async with desk_on(log) as desk:
        desk.put("a", "b")
        await until(lambda: len(desk.told) == 2)
    assert await there(place) == ["a", "b"]
    first, *others = log.called("out")
    assert others == [first, first]
    assert len(desk.observer.resent) == (2 if fault is Fault.LOST else 0)
    assert len(desk.observer.outages) == 1


async def test_what_nobody_wants_any_more_is_dropped_before_each_try(place: Place) -> None:
    log = FaultLog(place.log)
    async with desk_on(log) as desk:

        class Lost(deque[Fault]):
            """Once the first try is under way nobody wants one of its records any more."""

            def popleft(self) -> Fault:
                desk.unwanted.add("not again")
                return super().popleft()

        log.faults["out"] = Lost([Fault.LOST])
        desk.unwanted.add("never")
        desk.put("never", "not again", "b")
        await until(lambda: desk.told)
    assert [[record.value for record in records] for records in log.called("out")] == [[b"not again", b"b"], [b"b"]]
    assert desk.order == ["b"]
    assert await there(place) == ["b"]


async def test_pause_lets_what_is_out_come_home_and_nothing_follows(place: Place) -> None:
    log = FaultLog(place.log)
    log.hold("out")
    async with desk_on(log) as desk:
        desk.put("a")
        await until(lambda: log.waiting)
        desk.put("b")
        async with asyncio.TaskGroup() as group:
            paused = group.create_task(desk.publisher.pause())
            await asyncio.sleep(0)
            assert not paused.done()
            log.release("out")
        assert desk.order == ["a"]
        desk.put("c")
        desk.put("d", topic="in")
        for _ in range(100):
            await asyncio.sleep(0)
    assert await there(place) == ["a"]
    assert await there(place, "in") == []


async def test_a_lane_in_an_outage_sends_nothing_behind_a_pause(place: Place) -> None:
    log = FaultLog(place.log)
    async with desk_on(log) as desk:
        desk.put("a")
        await until(lambda: desk.told)
        log.away = True
        desk.put("b")
        await until(lambda: desk.observer.outages)
        await desk.publisher.pause()
        log.away = False
        loop = asyncio.get_running_loop()
        over = loop.time() + 5 * publisher_file._BACK_OFF_S[1]  # whatever would be tried again has been by then
        await until(lambda: loop.time() > over)
    assert await there(place) == ["a"]


async def test_publish_returns_when_the_record_is_there_or_with_the_refusal(place: Place) -> None:
    log = FaultLog(place.log)
    log.refuses = lambda _topic, record: record.value == b"bad"
    async with desk_on(log) as desk:
        assert await desk.publisher.publish("out", 0, NewRecord(value=b"good")) is None
        assert isinstance(await desk.publisher.publish("out", 0, NewRecord(value=b"bad")), AppendRefused)
    assert await there(place) == ["good"]


async def test_what_is_put_when_it_has_ended_stays_and_breaks_nothing(place: Place) -> None:
    async with desk_on(FaultLog(place.log)) as desk:
        desk.put("in time")
        await until(lambda: desk.told)
    desk.put("late", topic="never seen before")
    desk.put("late")
    assert desk.order == ["in time"]
