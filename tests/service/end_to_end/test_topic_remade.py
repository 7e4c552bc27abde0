"""Topics that are deleted and made again. A source stops with an alarm, until somebody says where to read on; without its run log a service does not start."""

import json

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from headrace.topics.log import NewRecord
from headrace.topics.spec import TopicSpec
from tests.kafka_broker.broker import KafkaBroker
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.station import Station, View
from tests.service.end_to_end.test_bad_input import GOOD
from tests.service.end_to_end.waiting import eventually, eventually_now

RECORD = NewRecord(key=b"k", value=GOOD)


async def delete(kafka: KafkaBroker, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()


async def make_again(kafka: KafkaBroker, place: Station, view: View) -> None:
    topic = place.topic("in")
    partitions = await view.log.partitions(topic)
    await delete(kafka, topic)

    async def made() -> bool:
        return topic in await view.log.create([TopicSpec(name=topic, partitions=partitions)])

    await eventually(made, "the old topic is gone and the new one is there")


def stopped(place: Station) -> bool:
    """Whether the alarm is up."""
    lines = [line for line in place.now.scrape().splitlines() if line.startswith("headrace_partitions_stopped{")]
    return any('reason="topic_remade"' in line and float(line.split()[-1]) > 0 for line in lines)


@pytest.mark.parametrize("records", [1, 5], ids=["shorter", "longer"])
async def test_a_topic_made_again_is_not_read_until_somebody_says_where(
    kafka: KafkaBroker, station: MakeStation, records: int
) -> None:
    place = station(Backend("kafka", kafka.bootstrap_servers), "tasting.py")
    await place.spawn().ready()
    async with place.view() as view:
        await view.publish("in", [RECORD] * 3)
        await view.all_ended(3)
        assert place.now.stop() == 0
        await make_again(kafka, place, view)
        await view.publish("in", [RECORD] * records)
        await place.spawn().ready()
        await eventually_now(lambda: place.now.lines("partition.stopped"), "the source stops")
        (line,) = place.now.lines("partition.stopped")
        assert (line["topic"], line["reason"], line["code"]) == (place.topic("in"), "topic_remade", "HR5012")
        await eventually_now(lambda: stopped(place), "the alarm is up")
        await view.publish("in", [RECORD], partition=1)  # a neighbour, which nobody had read before
        await view.all_ended(4)
        code, out, err = place.command("topic", "rewind", place.topic("in"), "--to", "earliest", "-o", "json")
        assert code == 0, err
        assert {row["epoch"] for row in json.loads(out)} == {1}
        await view.all_ended(4 + records + 1)  # the neighbour's record, too
        await eventually_now(lambda: not stopped(place), "no alarm is left")
    assert place.now.stop() == 0


async def test_a_service_does_not_begin_anew_where_its_run_log_was_deleted(
    kafka: KafkaBroker, station: MakeStation
) -> None:
    """Brokers forget with the topic what was committed for it, but not what was committed for its sources."""
    place = station(Backend("kafka", kafka.bootstrap_servers), "tasting.py")
    await place.spawn().ready()
    async with place.view() as view:
        await view.publish("in", [RECORD])
        await view.all_ended(1)
        assert place.now.stop() == 0
        await delete(kafka, place.topic("runs"))

        async def gone() -> bool:
            return not await view.log.describe([place.topic("runs")])

        await eventually(gone, "the run log is gone")
    assert place.spawn().ended() == 7
    assert "HR1208" in place.now.stderr
