"""For all tests: real Kafka brokers, and patience with slow machines."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import hypothesis
import pytest

from tests.kafka_broker.broker import KafkaBroker
from tests.kafka_broker.jars import KafkaUnavailable, jars, java
from tests.postgres_server import PostgresServer, PostgresUnavailable, programs
from tests.requirement import missing

# How long an example takes says nothing here. All else stays: with CI=true Hypothesis draws the same examples every time.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever judges what goes on beside the tests comes last, the one that goes on longest at the very end."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    marker = item.get_closest_marker("late")
    return 0 if marker is None else marker.args[0]


@pytest.fixture(scope="session")
def kafka_available() -> None:
    """Skips (fails with CI=true) where no broker can run; fetches the jars, so that no test pays for it."""
    try:
        java()
        jars()
    except KafkaUnavailable as error:
        missing(str(error))


@pytest.fixture(scope="session")
def kafka(kafka_available: None) -> Iterator[KafkaBroker]:
    """The broker that all tests share: use topic and group names of your own, and do not kill it."""
    broker = KafkaBroker()
    try:
        asyncio.run(broker.start())
        yield broker
    finally:
        asyncio.run(broker.stop())
        broker.remove()


@pytest.fixture
async def own_kafka(kafka_available: None) -> AsyncIterator[Callable[..., Awaitable[KafkaBroker]]]:
    """Makes brokers for one test, to kill and restart: `broker = await own_kafka()`; arguments as of `KafkaBroker`."""
    brokers: list[KafkaBroker] = []

    async def make(**options: Any) -> KafkaBroker:
        broker = KafkaBroker(**options)
        brokers.append(broker)
        await broker.start()
        return broker

    yield make
    for broker in brokers:
        broker.kill()
        broker.remove()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL server that all tests share: take a database of your own with `database()`, and do not stop it."""
    try:
        programs()
    except PostgresUnavailable as error:
        missing(str(error))
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()
