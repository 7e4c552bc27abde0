"""Ends of processes: what was acknowledged is there, and nothing is torn."""

import asyncio
import subprocess

import pytest

from headrace.topics.log import NewRecord, TopicPartition
from tests.contract.conftest import make_topic
from tests.contract.station import Station, read, take, values
from tests.contract.writer_process import batch


async def test_a_reader_goes_on_after_a_restart(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        for number in range(20):
            await log.append(at, [NewRecord(str(number).encode())])
        position = (await read(log, at, 0, 5))[4].offset + 1
    station.released()
    async with station.open() as log, log.read(at, position) as batches:
        assert values(await take(batches, 15)) == [str(number).encode() for number in range(5, 20)]
        await log.append(at, [NewRecord(b"20")])
        assert values(await take(batches, 1)) == [b"20"]


@pytest.mark.parametrize("acknowledged_before", [1, 60, 150])
async def test_kill_9_in_the_middle_of_appending_tears_nothing(
    station_of_processes: Station, acknowledged_before: int
) -> None:
    async with station_of_processes.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        acknowledged = await asyncio.to_thread(
            _run_and_kill, station_of_processes.writer(at.topic), acknowledged_before
        )
        assert acknowledged >= acknowledged_before - 1
        await log.append(at, [NewRecord(b"end")])
        end = (await log.offsets([at]))[at].end
        found = await read(log, at, 0, end)
        assert [record.offset for record in found] == list(range(len(found)))
        stored = [record.value for record in found]
        assert stored.index(b"end") >= sum(len(batch(number)) for number in range(acknowledged + 1))
        stored.remove(b"end")  # what was under way when the writer died may come behind it
        expected: list[bytes | None] = []
        number = 0
        while len(expected) < len(stored):
            expected += [record.value for record in batch(number)]
            number += 1
        assert stored == expected  # whole batches, in order, once each
        assert number > acknowledged


def _run_and_kill(command: list[str], acknowledgements: int) -> int:
    """Kill the writer after so many acknowledgements; the last one that it told."""
    last = -1
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last = int(line)
            if last + 1 >= acknowledgements:
                break
        process.kill()
        for line in process.stdout:  # acknowledged before it died
            last = int(line) if line.endswith("\n") else last
    return last
