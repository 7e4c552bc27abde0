"""Appending and reading: what every `Log` does with records."""

import asyncio

import anyio
import pytest

from headrace.topics.log import (
    AppendRefused,
    Log,
    NewRecord,
    OffsetOutOfRange,
    TopicMissing,
    TopicPartition,
)
from tests.contract.conftest import make_topic
from tests.contract.station import PATIENCE_S, Station, read, readable, take, values


async def test_records_come_back_in_order_with_rising_offsets_and_times(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 1)
        sent: list[bytes] = []
        last_ms = 0
        for number in range(30):
            records = [NewRecord(f"{number}.{index}".encode()) for index in range(number % 7 + 1)]
            appended = await log.append(at, records)
            assert appended.base_offset == len(sent)
            last_ms = appended.timestamp_ms
            sent += [record.value or b"" for record in records]
        found = await read(log, at, 0, len(sent))
        assert values(found) == sent
        assert [record.offset for record in found] == list(range(len(sent)))
        times = [record.timestamp_ms for record in found]
        assert times == sorted(times)
        assert last_ms == times[-1]


async def test_a_read_starts_inside_a_batch(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        await log.append(at, [NewRecord(bytes([65 + number]) * 400) for number in range(10)])
        found = await read(log, at, 7, 3)
        assert [record.offset for record in found] == [7, 8, 9]


async def test_keys_values_and_headers_come_back_as_they_were(station: Station) -> None:
    records = [
        NewRecord(None),
        NewRecord(b""),
        NewRecord(None, key=b"tombstone"),
        NewRecord(b"\x00\xff", key=b""),
        NewRecord(b"v", key=b"k", headers=(("a", b"1"), ("a", b"2"), ("größe", b"\xff\x00"), ("", b""))),
    ]
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        await log.append(at, records)
        found = await read(log, at, 0, len(records))
        assert [(record.key, record.value, record.headers) for record in found] == [
            (record.key, record.value, record.headers) for record in records
        ]


async def test_a_waiting_reader_wakes_by_an_append_of_the_same_log(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        await log.append(at, [NewRecord(b"old")])
        async with log.read(at, 1) as batches, asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(take(batches, 1))
            await log.append(at, [NewRecord(b"new")])
        assert values(waiting.result()) == [b"new"]


async def test_a_waiting_reader_wakes_by_an_append_of_another_log(station: Station) -> None:
    async with station.open() as log, station.open() as other:
        at = TopicPartition(await make_topic(log), 0)
        async with log.read(at, 0) as batches:
            for number in range(20):
                async with asyncio.TaskGroup() as tasks:
                    waiting = tasks.create_task(take(batches, 1))
                    writer = (log, other)[number % 2]
                    await writer.append(at, [NewRecord(str(number).encode())])
                assert values(waiting.result()) == [str(number).encode()]


async def test_several_readers_and_writers_do_not_mix(station: Station) -> None:
    count = 150

    async with station.open() as log:
        topic = await make_topic(log, partitions=5)

        async def write(at: TopicPartition) -> None:
            for number in range(count):
                await log.append(at, [NewRecord(f"{at.partition}:{number}".encode())])

        async def check(at: TopicPartition) -> None:
            found = await read(log, at, 0, count)
            assert values(found) == [f"{at.partition}:{number}".encode() for number in range(count)]

        async with asyncio.TaskGroup() as tasks:
            for number in range(5):
                tasks.create_task(check(TopicPartition(topic, number)))
                tasks.create_task(write(TopicPartition(topic, number)))


async def test_two_writers_of_one_partition_are_read_alike_by_both(station: Station) -> None:
    """Each appends where the other may just have appended: what a log knows of its own appends may hide nothing of the other's."""
    appends, size = 60, 3
    async with station.open() as one, station.open() as two:
        at = TopicPartition(await make_topic(one), 0)
        written: dict[int, bytes] = {}

        async def write(log: Log, name: str) -> None:
            for number in range(appends):
                records = [NewRecord(f"{name}{number}.{index}".encode()) for index in range(size)]
                appended = await log.append(at, records)
                for index, record in enumerate(records):
                    written[appended.base_offset + index] = record.value or b""

        async with one.read(at, 0) as left, two.read(at, 0) as right, asyncio.TaskGroup() as group:
            group.create_task(write(one, "one"))
            group.create_task(write(two, "two"))
            seen = [group.create_task(take(batches, 2 * appends * size)) for batches in (left, right)]
        for found in (readable(task.result()) for task in seen):
            assert [record.offset for record in found] == list(range(2 * appends * size))
            assert {record.offset: record.value for record in found} == written


async def test_a_reader_that_joins_later_disturbs_no_other(station: Station) -> None:
    async with station.open() as log:
        topic = await make_topic(log)
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        async with log.read(first, 0) as early:
            await log.append(first, [NewRecord(b"1")])
            assert values(await take(early, 1)) == [b"1"]
            async with log.read(second, 0) as late:
                await log.append(second, [NewRecord(b"a")])
                assert values(await take(late, 1)) == [b"a"]
                await log.append(first, [NewRecord(b"2")])
                assert values(await take(early, 1)) == [b"2"]
            await log.append(first, [NewRecord(b"3")])
            assert values(await take(early, 1)) == [b"3"]


async def test_two_readers_of_one_partition_are_a_mistake(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        async with log.read(at, 0):
            with pytest.raises(RuntimeError, match="another reader"):
                async with log.read(at, 0):
                    pass
        await log.append(at, [NewRecord(b"x")])
        async with log.read(at, 0, isolation="committed") as committed:
            assert values(await take(committed, 1)) == [b"x"]


async def test_two_appends_to_one_partition_at_once_are_a_mistake(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        await log.append(at, [NewRecord(b"0")])

        async def append() -> None:
            await log.append(at, [NewRecord(b"1")])

        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(append())
                tasks.create_task(append())
        assert [type(error) for error in caught.value.exceptions] == [RuntimeError]
        await log.append(at, [NewRecord(b"2")])
        assert values(await read(log, at, 0, 2))[-1] == b"2"


async def test_publishing_at_once_keeps_the_order_of_the_calls(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        async with asyncio.TaskGroup() as tasks:
            for number in range(50):
                tasks.create_task(log.publish(at, [NewRecord(str(number).encode())]))
        assert values(await read(log, at, 0, 50)) == [str(number).encode() for number in range(50)]


async def test_an_append_after_a_cancelled_one_comes_behind_it(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        await log.append(at, [NewRecord(b"0")])
        with anyio.CancelScope() as scope:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(log.append(at, [NewRecord(b"1")]))
                await asyncio.sleep(0)
                scope.cancel()
        await log.append(at, [NewRecord(b"2")])
        found = values(await read(log, at, 0, 2))
        assert found in ([b"0", b"1", b"2"], [b"0", b"2"])


async def test_an_empty_batch_is_a_mistake(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        with pytest.raises(ValueError):
            await log.append(at, [])


async def test_an_append_to_a_missing_topic_is_refused_and_makes_none(station: Station) -> None:
    async with station.open() as log:
        topic = await make_topic(log, partitions=1)
        for at in (TopicPartition("contract.nowhere", 0), TopicPartition(topic, 1)):
            with pytest.raises(TopicMissing):
                await log.append(at, [NewRecord(b"x")])
            with pytest.raises(TopicMissing):
                await log.publish(at, [NewRecord(b"x")])
            with pytest.raises(TopicMissing):
                await log.offsets([at])
            with pytest.raises(TopicMissing):
                async with log.read(at, 0):
                    pass
        assert "contract.nowhere" not in await log.topics()


async def test_a_record_too_large_is_refused_and_its_neighbours_go_on(station: Station) -> None:
    async with station.open() as log:
        topic = await make_topic(log, max_message_bytes=20_000)
        at, neighbour = TopicPartition(topic, 0), TopicPartition(topic, 1)
        for number in range(5):
            with pytest.raises(AppendRefused) as caught:
                await log.append(at, [NewRecord(b"small"), NewRecord(b"x" * 20_000)])
            assert "20000 bytes" in str(caught.value)
            await log.append(at, [NewRecord(f"{number}".encode())])
            await log.append(neighbour, [NewRecord(f"{number}".encode())])
        expected = [f"{number}".encode() for number in range(5)]
        assert values(await read(log, at, 0, 5)) == expected
        assert values(await read(log, neighbour, 0, 5)) == expected


async def test_the_largest_record_that_the_check_lets_through_is_taken(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        size = 1_048_588
        while True:
            try:
                await log.append(at, [NewRecord(_noise(size), key=b"k", headers=(("h", b"v"),))])
                break
            except AppendRefused:
                size -= 1
        assert size > 1_048_400
        assert [len(value or b"") for value in values(await read(log, at, 0, 1))] == [size]


async def test_records_of_a_mebibyte_pass(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log, max_message_bytes=3 * 1024 * 1024), 0)
        sent = [_noise(1024 * 1024) for _ in range(6)]
        await log.append(at, [NewRecord(value) for value in sent])
        await log.append(at, [NewRecord(b"after")])
        assert values(await read(log, at, 0, 7)) == [*sent, b"after"]


async def test_a_header_name_that_is_no_text_is_refused_alone(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        with pytest.raises(AppendRefused):
            await log.append(at, [NewRecord(b"x", headers=(("\ud800", b""),))])
        await log.append(at, [NewRecord(b"y")])
        assert values(await read(log, at, 0, 1)) == [b"y"]


async def test_an_empty_partition_has_equal_offsets_and_a_reader_that_waits(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 1)
        offsets = (await log.offsets([at]))[at]
        assert (offsets.start, offsets.end) == (0, 0)
        async with log.read(at, 0) as batches, asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(take(batches, 1))
            await log.append(at, [NewRecord(b"first")])
        assert readable(waiting.result())[0].offset == 0


async def test_a_read_beyond_the_end_says_so(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        await log.append(at, [NewRecord(b"0"), NewRecord(b"1")])
        async with log.read(at, 9) as batches:
            with pytest.raises(OffsetOutOfRange) as caught, anyio.fail_after(PATIENCE_S):
                await anext(batches)
        assert (caught.value.offset, caught.value.offsets.start, caught.value.offsets.end) == (9, 0, 2)
        assert values(await read(log, at, 0, 2)) == [b"0", b"1"]


async def test_a_slow_reader_holds_a_bounded_number_of_bytes_and_loses_nothing(station: Station) -> None:
    async with station.open() as log:
        topic = await make_topic(log)
        slow, quick = TopicPartition(topic, 0), TopicPartition(topic, 1)
        chunk = [NewRecord(_noise(10_000)) for _ in range(20)]
        async with log.read(slow, 0) as batches, log.read(quick, 0) as others:
            for number in range(60):
                await log.append(slow, chunk)
                await log.append(quick, [NewRecord(str(number).encode())])
                assert values(await take(others, 1)) == [str(number).encode()]
                assert getattr(batches, "queued_bytes") <= 2 * 1024 * 1024  # noqa: B009 - not of the protocol
            found = await take(batches, 1200)
        assert [record.offset for record in found] == list(range(1200))


def _noise(size: int) -> bytes:
    """Bytes that do not compress."""
    import random

    return random.Random(size).randbytes(size)
