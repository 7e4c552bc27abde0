"""Trimming: what every `Log` does with records that are not needed any more."""

import anyio
import pytest

from headrace.topics.log import NewRecord, OffsetOutOfRange, Offsets, TopicMissing, TopicPartition
from tests.contract.conftest import make_topic
from tests.contract.station import PATIENCE_S, Station, read, take, values


async def test_trimmed_records_are_gone_and_offsets_go_on(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        for number in range(10):
            await log.append(at, [NewRecord(str(number).encode())])
        await log.trim(at, 4)
        assert (await log.offsets([at]))[at] == Offsets(4, 10)
        assert values(await read(log, at, 4, 6)) == [str(number).encode() for number in range(4, 10)]
        async with log.read(at, 3) as batches:
            with pytest.raises(OffsetOutOfRange) as caught, anyio.fail_after(PATIENCE_S):
                await anext(batches)
        assert caught.value.offsets == Offsets(4, 10)


async def test_a_batch_is_trimmed_in_its_middle(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        await log.append(at, [NewRecord(str(number).encode()) for number in range(10)])
        await log.trim(at, 6)
        assert values(await read(log, at, 6, 4)) == [b"6", b"7", b"8", b"9"]
        await log.trim(at, 2)  # below the start: nothing to do
        assert (await log.offsets([at]))[at] == Offsets(6, 10)


async def test_trimming_everything_keeps_the_offsets(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        await log.append(at, [NewRecord(b"x")] * 5)
        await log.trim(at, 5)
        assert (await log.offsets([at]))[at] == Offsets(5, 5)
    station.released()
    async with station.open() as log:
        assert (await log.offsets([at]))[at] == Offsets(5, 5)
        assert (await log.append(at, [NewRecord(b"y")])).base_offset == 5
        assert values(await read(log, at, 5, 1)) == [b"y"]


async def test_trimming_beyond_the_end_is_refused(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        await log.append(at, [NewRecord(b"x")])
        with pytest.raises(OffsetOutOfRange):
            await log.trim(at, 2)
        with pytest.raises(TopicMissing):
            await log.trim(TopicPartition("contract.nowhere", 0), 0)
        assert (await log.offsets([at]))[at] == Offsets(0, 1)


async def test_a_reader_ahead_of_a_trim_goes_on(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        await log.append(at, [NewRecord(b"0"), NewRecord(b"1")])
        async with log.read(at, 0) as batches:
            await take(batches, 2)
            await log.trim(at, 2)
            await log.append(at, [NewRecord(b"2")])
            assert values(await take(batches, 1)) == [b"2"]
