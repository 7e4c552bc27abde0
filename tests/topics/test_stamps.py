"""Create times: by the broker's clock, whatever is done to this machine's."""

from time import time

import pytest

from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.log_kafka import KafkaClientSettings, KafkaLog
from headrace.topics.spec import TopicSpec
from headrace.topics.stamps import Stamps
from tests.kafka_broker.broker import KafkaBroker

DAY_MS = 86_400_000


def wrong_by(monkeypatch: pytest.MonkeyPatch, by_ms: int) -> None:
    """Set this machine's wall clock."""
    monkeypatch.setattr("headrace.topics.local_clock.time", lambda: time() + by_ms / 1000)


@pytest.mark.parametrize("by_ms", [DAY_MS, -DAY_MS])
def test_a_wall_clock_that_is_set_moves_nothing(monkeypatch: pytest.MonkeyPatch, by_ms: int) -> None:
    stamps = Stamps()
    wrong_by(monkeypatch, by_ms)
    assert abs(stamps.now_ms() - int(time() * 1000)) < DAY_MS // 24


@pytest.mark.parametrize("by_ms", [DAY_MS, -DAY_MS])
def test_a_wall_clock_that_was_wrong_from_the_start_is_put_right_by_an_append_time(
    monkeypatch: pytest.MonkeyPatch, by_ms: int
) -> None:
    wrong_by(monkeypatch, by_ms)
    stamps = Stamps()
    called = stamps.now_ms()
    append_at = int(time() * 1000)
    stamps.seen(append_at, called)
    after = stamps.now_ms()
    assert append_at <= after < append_at + DAY_MS // 24


def test_what_was_long_under_way_says_nothing_of_the_clock() -> None:
    stamps = Stamps()
    before = stamps.now_ms()
    stamps.seen(before - 30_000, before - 60_000)
    assert stamps.now_ms() >= before


async def test_a_machine_a_day_ahead_still_publishes(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker refuses create times that are more than an hour ahead of it, for good."""
    wrong_by(monkeypatch, DAY_MS)
    async with KafkaLog(KafkaClientSettings(bootstrap_servers=(kafka.bootstrap_servers,))) as log:
        runs, out = TopicPartition("stamps.runs", 0), TopicPartition("stamps.out", 0)
        await log.create(
            [
                TopicSpec(name=runs.topic, partitions=1, timestamp_type="LogAppendTime"),
                TopicSpec(name=out.topic, partitions=1),
            ]
        )
        await log.append(runs, [NewRecord(b"announce")])
        published = await log.publish(out, [NewRecord(b"result")])
        async with log.read(out, 0) as batches:
            [record] = (await anext(batches)).records
    assert published.base_offset == record.offset == 0
