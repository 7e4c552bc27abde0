"""Committed positions of a group without members."""

import pytest

from headrace.topics.log import AppendRefused, Position, TopicMissing, TopicPartition
from tests.contract.conftest import make_topic
from tests.contract.station import Station


async def test_a_position_comes_back_with_its_metadata(station: Station) -> None:
    async with station.open() as log:
        topic = await make_topic(log, partitions=3)
        first, second, third = (TopicPartition(topic, number) for number in range(3))
        group = f"{topic}.group"
        assert await log.committed(group, [first, second]) == {}
        metadata = "{" + "ü" * 2000 + "}"
        await log.commit(group, {first: Position(7, metadata), second: Position(0)})
        assert await log.committed(group, [first, second, third]) == {first: Position(7, metadata), second: Position(0)}
        await log.commit(group, {first: Position(3, "back")})
        assert await log.committed(group, [first]) == {first: Position(3, "back")}
        assert await log.committed(f"{topic}.other", [first]) == {}


async def test_positions_survive_a_restart(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        await log.commit(f"{at.topic}.group", {at: Position(12, "kept")})
    station.released()
    async with station.open() as log:
        assert await log.committed(f"{at.topic}.group", [at]) == {at: Position(12, "kept")}


async def test_too_much_metadata_and_missing_topics_are_refused(station: Station) -> None:
    async with station.open() as log:
        at = TopicPartition(await make_topic(log), 0)
        with pytest.raises(AppendRefused):
            await log.commit("group", {at: Position(1, "x" * 4097)})
        with pytest.raises(TopicMissing):
            await log.commit("group", {TopicPartition("contract.nowhere", 0): Position(1)})
        with pytest.raises(TopicMissing):
            await log.committed("group", [TopicPartition(at.topic, 9)])
        await log.commit("group", {})
