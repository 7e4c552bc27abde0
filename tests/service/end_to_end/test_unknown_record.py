"""A record of a newer version in the run log, on both logs: its partition stops, its neighbours go on, and the commands say so."""

import json

from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.partition_hash import partition_of
from tests.service.end_to_end.backend import PARTITIONS, Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.event import event
from tests.service.end_to_end.station import Station
from tests.service.end_to_end.waiting import eventually, eventually_now

STOPPED = 1
NEWER = b'{"kind":"outcome","token":0,"seq":0,"body":{"is":"run.transcended","run":"1.0"},"v":2}'


def key_in(partition: int) -> bytes:
    return next(b"k%d" % n for n in range(1_000) if partition_of(b"k%d" % n, PARTITIONS) == partition)


def alarms(place: Station) -> list[str]:
    lines = place.now.scrape().splitlines()
    return [line for line in lines if line.startswith("headrace_partitions_stopped{") and not line.endswith(" 0.0")]


async def test_a_newer_record_stops_its_partition_and_nothing_else(backend: Backend, station: MakeStation) -> None:
    place = station(backend, "tasting.py")
    await place.spawn().ready()
    async with place.view() as view:
        at = TopicPartition(place.topic("runs"), STOPPED)
        offset = (await view.log.append(at, [NewRecord(value=NEWER)])).base_offset
        for start in range(2):
            if start:  # it is met again, while the partition is replayed
                assert place.now.stop() == 0
                await place.spawn().ready()
            await eventually_now(lambda: place.now.lines("partition.stopped"), "the partition stops")
            (line,) = place.now.lines("partition.stopped")
            assert (line["partition"], line["offset"], line["reason"]) == (STOPPED, offset, "unknown_record")
            assert line["code"] == "HR5101"
            await eventually_now(lambda: alarms(place), "the alarm is up")
            (alarm,) = alarms(place)
            assert 'reason="unknown_record"' in alarm
            keys = [key_in(n) for n in range(PARTITIONS)]
            await view.publish("in", [event("dish", {"key": key.decode(), "n": 1}, key=key) for key in keys])

            async def neighbours_done(wanted: int = (start + 1) * (PARTITIONS - 1)) -> bool:
                return len(await view.records("out")) >= wanted

            await eventually(neighbours_done, lambda: f"the neighbours end: {place.now.stderr[-2000:]}")
            assert len(await view.records("out")) == (start + 1) * (PARTITIONS - 1)
    code, out, err = place.command("run", "list", "--limit", "0", "-o", "json")
    assert code == 1
    assert f"{at}, offset {offset}" in err
    assert "HR5101" in err
    assert {row["id"].partition(".")[0] for row in json.loads(out)} == {"0", "2", "3"}
    assert place.now.stop() == 0
