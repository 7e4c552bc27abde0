"""The contract suite runs against each kind of log."""

import itertools
from pathlib import Path

import pytest

from headrace.topics.log import Log
from headrace.topics.spec import TopicSpec
from tests.contract.station import EmbeddedStation, KafkaStation, SimStation, Station

_numbers = itertools.count()


@pytest.fixture(params=["embedded", "kafka", "simulated"])
def station(request: pytest.FixtureRequest, tmp_path: Path) -> Station:
    return _station(request, tmp_path)


@pytest.fixture(params=["embedded", "kafka"])
def station_of_processes(request: pytest.FixtureRequest, tmp_path: Path) -> Station:
    """One that other processes can write to."""
    return _station(request, tmp_path)


def _station(request: pytest.FixtureRequest, tmp_path: Path) -> Station:
    match request.param:
        case "embedded":
            return EmbeddedStation(tmp_path / "log.sqlite")
        case "simulated":
            return SimStation()
        case _:
            return KafkaStation(request.getfixturevalue("kafka").bootstrap_servers)


async def make_topic(log: Log, *, partitions: int = 2, max_message_bytes: int | None = None) -> str:
    """A topic of its own for a test: the Kafka broker is shared."""
    name = f"contract.{next(_numbers)}"
    spec = TopicSpec(
        name=name, partitions=partitions, timestamp_type="LogAppendTime", max_message_bytes=max_message_bytes
    )
    assert list(await log.create([spec])) == [name]
    return name
