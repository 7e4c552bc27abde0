"""After a stall as long as half a session, nothing goes on before the partition is announced anew."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from headrace import EventTrigger, Run, handler, workflow
from headrace.observability.health import Health
from headrace.observability.label import LossReason, Resource, TakeReason
from headrace.observability.told_process import ResourceMeasured
from headrace.service.health_observer import HealthObserver
from headrace.service.log_backend import session_ms
from headrace.service.settings import Settings
from headrace.topics.identity import ClientId
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.run_record import encode
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, app_of, event, serving, until

RUNS = TopicPartition("shop.runs", 0)


async def test_nothing_is_begun_before_the_partition_is_announced_anew(place: Place) -> None:
    worked: list[int] = []

    @handler
    async def work(n: int) -> None:
        worked.append(n)

    @workflow(on=EventTrigger("in", "work"), name="worker")
    async def worker(run: Run, order: dict[str, Any]) -> None:
        await run.call(work, order["n"])

    log = FaultLog(place.log)
    async with serving(log, app_of(work, worker), partitions=1) as process:
        await place.publish("in", event({"n": 1}, type="work"))
        await until(lambda: len(process.observer.finished) == 1)
        (start,) = await place.starts()
        log.hold("shop.runs")  # nothing of ours reaches the log: an announce cannot come back
        try:
            process.service.fence(6.0)
            another = replace(start, id=ClientId("another"))
            await place.log.append(RUNS, [NewRecord(value=encode(another))])
            (owner,) = process.service.owners
            await until(lambda: len(owner.state.runs) == 1)  # it was folded,
            assert worked == [1]  # and nothing of it begun
            assert process.running() == 0
        finally:
            log.release("shop.runs")
        await until(lambda: len(process.observer.finished) == 2)
        assert worked == [1, 1]
        assert [lost.reason for lost in process.observer.lost] == [LossReason.STALLED]
        assert [taken.reason for taken in process.observer.taken] == [TakeReason.START, TakeReason.RETAKEN]
        (fenced,) = process.observer.fenced
        assert (fenced.stalled_ms, fenced.partitions) == (6000, 1)


def test_half_a_session_is_the_groups_and_the_embedded_file_has_none() -> None:
    assert session_ms(Settings()) == float("inf")
    kafka = {"bootstrap_servers": "127.0.0.1:9092", "extra": {"session.timeout.ms": 6000}}
    assert session_ms(Settings.model_validate({"log": {"backend": "kafka"}, "kafka": kafka})) == 6000


def test_health_is_degraded_while_a_resource_is_short() -> None:
    health = Health([])
    health.start()
    observer = HealthObserver(health)
    for short, status in ((True, "degraded"), (False, "ready")):
        observer.resource_measured(
            ResourceMeasured(resource=Resource.DESCRIPTORS, used=900, limit=1000, short=short, changed=True)
        )
        assert health.report().status == status
    assert health.ready
