"""A record of the run log that this version cannot read: its partition stops with an alarm, and goes on with a version that can. It is never skipped."""

from typing import Any

import pytest

from headrace import EventTrigger, Run, workflow
from headrace.observability.label import StopReason
from headrace.service import owner
from headrace.service.definitions.app import App
from headrace.topics.command import Dismiss
from headrace.topics.identity import ClientId
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.outcome import RunEnded
from headrace.topics.partition_hash import partition_of
from headrace.topics.run_record import CommandRecord, RunRecord, decode
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, app_of, event, serving, until

RUNS = TopicPartition("shop.runs", 0)
OTHER_RUNS = TopicPartition("shop.runs", 1)
KEYS = [next(f"k{n}" for n in range(100) if partition_of(f"k{n}".encode(), 2) == partition) for partition in (0, 1)]
FOREIGN = (
    b'{"kind":"future"}',
    b'{"kind":"outcome","token":0,"seq":0,"body":{"is":"run.transcended","run":"0.1"},"v":1}',
    b'{"kind":"command","id":["i","x"],"body":{"is":"cancel","run":"0.1"},"v":2}',
    b"not JSON",
    None,
)


def shop() -> App:
    @workflow(on=EventTrigger("in", "order.placed"), name="order")
    async def order(run: Run, order: dict[str, Any]) -> int:
        return order["n"]

    return app_of(order)


async def until_results(place: Place, *wanted: int) -> None:
    ended = await place.until(lambda: readable(place), lambda found: len(found) >= len(wanted))
    assert sorted(ended) == sorted(wanted)


async def readable(place: Place) -> list[int]:
    """Results of runs, whatever else is in the log."""
    found: list[int] = []
    for record in await place.records("shop.runs"):
        if record.value not in FOREIGN:
            body = getattr(decode(record.value), "body", None)
            if isinstance(body, RunEnded):
                found.append(int(bytes(body.result)))
    return found


@pytest.mark.parametrize("value", FOREIGN, ids=["kind", "outcome", "version", "garbage", "empty"])
async def test_it_stops_its_partition_with_an_alarm_and_no_other(
    place: Place, value: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(FaultLog(place.log), shop(), instance="one") as process:
        await place.view.append(RUNS, [NewRecord(value=value)])
        await until(lambda: process.shared.stops)
        assert process.shared.stops == {RUNS: StopReason.UNKNOWN_RECORD}
        (told,) = process.observer.stopped
        assert (told.reason, told.code) == (StopReason.UNKNOWN_RECORD, "HR5101")
        assert {(stop.topic, stop.reason, stop.partitions) for stop in process.service.snapshot().stopped} == {
            ("shop.runs", StopReason.UNKNOWN_RECORD, 1)
        }
        await place.publish("in", *(event({"n": n}, key=KEYS[n]) for n in (0, 1)))
        await until_results(place, 1)
    async with serving(FaultLog(place.log), shop(), instance="two") as process:  # a restart changes nothing
        await until(lambda: process.shared.stops)
        await place.publish("in", event({"n": 3}, key=KEYS[1]))
        await until_results(place, 1, 3)

    def newer(read: bytes | None) -> RunRecord:
        """A version that knows what it says: nothing that matters to any run."""
        return CommandRecord(id=ClientId("new"), body=Dismiss(run="0.1")) if read == value else decode(read)

    monkeypatch.setattr(owner, "decode", newer)
    async with serving(FaultLog(place.log), shop(), instance="three") as process:
        await until_results(place, 0, 1, 3)
        assert not process.shared.stops


async def test_a_process_is_ready_as_long_as_one_of_its_partitions_goes_on(place: Place) -> None:
    async with serving(FaultLog(place.log), shop()) as process:
        health = process.health
        await until(lambda: health.ready)
        await place.view.append(RUNS, [NewRecord(value=FOREIGN[0])])
        await until(lambda: process.shared.stops)
        await place.publish("in", event({"n": 1}, key=KEYS[1]))
        await until_results(place, 1)
        assert health.ready
        await place.view.append(OTHER_RUNS, [NewRecord(value=FOREIGN[0])])
        await until(lambda: not health.ready)
        report = health.report()
        assert report.started
        assert report.conditions["replayed"].detail == "stopped, all 2 partitions: unknown_record"
