"""Topics: made, described, counted."""

import pytest

from headrace.topics.log import TopicMissing, TopicRefused
from headrace.topics.spec import TopicSpec
from tests.contract.conftest import make_topic
from tests.contract.station import Station

SPEC = {
    "partitions": 3,
    "cleanup_policy": "delete",
    "retention_ms": -1,
    "retention_bytes": -1,
    "max_message_bytes": 123_456,
    "min_insync_replicas": 1,
    "timestamp_type": "LogAppendTime",
    "segment_bytes": 16 * 1024 * 1024,
    "unclean_leader_election": False,
}


async def test_a_topic_is_described_as_it_was_made(station: Station) -> None:
    async with station.open() as log:
        name = f"{await make_topic(log)}.described"
        spec = TopicSpec(name=name, **SPEC)
        assert list(await log.create([spec])) == [name]
        assert await log.describe([name, "contract.nowhere"]) == {name: spec}
        assert await log.partitions(name) == 3
        assert name in await log.topics()
        assert list(await log.topics()) == sorted(await log.topics())
        assert await log.nodes() == 1


async def test_an_existing_topic_is_left_as_it_is(station: Station) -> None:
    async with station.open() as log:
        name = await make_topic(log, partitions=2)
        assert list(await log.create([TopicSpec(name=name, partitions=9)])) == []
        assert await log.partitions(name) == 2


async def test_what_was_not_asked_for_is_described_too(station: Station) -> None:
    async with station.open() as log:
        name = await make_topic(log)
        spec = (await log.describe([name]))[name]
        assert spec.cleanup_policy == "delete"
        assert spec.max_message_bytes == 1_048_588
        assert spec.retention_ms is not None


@pytest.mark.parametrize(
    "changes", [{"name": "no spaces"}, {"name": ".."}, {"name": ""}, {"partitions": 0}, {"replication": 3}]
)
async def test_a_topic_that_cannot_be_is_refused(station: Station, changes: dict[str, object]) -> None:
    spec = TopicSpec(**{"name": "contract.refused", "partitions": 1, **changes})
    async with station.open() as log:
        with pytest.raises(TopicRefused):
            await log.create([spec])
        assert spec.name not in await log.topics()


async def test_asking_for_a_missing_topic_makes_none(station: Station) -> None:
    async with station.open() as log:
        with pytest.raises(TopicMissing):
            await log.partitions("contract.asked")
        assert await log.describe(["contract.asked"]) == {}
        assert await log.describe([]) == {}
        assert "contract.asked" not in await log.topics()
