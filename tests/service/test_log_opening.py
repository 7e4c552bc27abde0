"""The log of a service is opened, however long its broker is away."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from headrace.observability.health import Condition, Health
from headrace.observability.silent import Silent
from headrace.observability.told_process import OutageBegan
from headrace.service.log_opening import opened
from headrace.service.settings import Settings
from headrace.topics.log import LogOwned


class Outages(Silent):
    """Stops the wait when it hears of an outage."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.began: list[OutageBegan] = []
        self._stop = stop

    def outage_began(self, began: OutageBegan, /) -> None:
        self.began.append(began)
        self._stop.set()


async def test_a_broker_that_is_away_is_told_once_and_waited_for_until_the_stop() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = Settings.model_validate({"log": {"backend": "kafka"}, "kafka": {"bootstrap_servers": [address]}})
        health, stop = Health(), asyncio.Event()
        outages = Outages(stop)
        async with AsyncExitStack() as stack, asyncio.timeout(60):
            assert await opened(stack, settings, outages, health, stop) is None
    assert [began.name for began in outages.began] == [address]
    assert not health.report().conditions[Condition.BROKER].ok


async def test_a_file_that_has_an_owner_is_not_waited_for(tmp_path: Path) -> None:
    settings = Settings.model_validate({"log": {"path": tmp_path / "log.sqlite"}})
    stop = asyncio.Event()
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        assert await opened(stack, settings, Outages(stop), Health(), stop) is not None
        with pytest.raises(LogOwned):
            await opened(stack, settings, Outages(stop), Health(), stop)
