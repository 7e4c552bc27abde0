"""Polls and leaders: who is asked for a partition when its leader moves. The brokers here are scripted; real ones move in the chaos line X6."""

import asyncio
from typing import Any

import pytest
from aiokafka import errors as kafka_errors

from headrace.topics.client_kafka import KafkaClientSettings
from headrace.topics.fetch_kafka import Fetched, FetchRequest, FetchResponse
from headrace.topics.fetcher_kafka import Fetcher
from headrace.topics.log import TopicPartition

STAYS, MOVES = TopicPartition("t", 0), TopicPartition("t", 1)


class Brokers:
    """What a `Fetcher` asks of its client. Broker 1 answers that there is nothing new; broker 2 too, once, then nothing until it dies or goes on."""

    settings = KafkaClientSettings(bootstrap_servers=())
    backoff_s = 0.0
    reachable = True

    def __init__(self) -> None:
        self.leaders = {STAYS: 1, MOVES: 2}
        self.leader_changes = 0
        self.asked_of_1: list[set[int]] = []  # partitions of each request
        self.asked_2 = asyncio.Event()
        self.goes_on_2 = asyncio.Event()
        self.dies_2 = False

    def leader(self, at: TopicPartition) -> int | None:
        return self.leaders[at]

    def refresh_soon(self) -> None:
        """It knows already."""

    async def send(self, node: int, request: FetchRequest, lane: Any) -> FetchResponse:
        if node == 2:
            if not self.asked_2.is_set():
                self.asked_2.set()
                return FetchResponse(0, 8, [Fetched(*MOVES, 0, 0, 0, [], memoryview(b""))])  # it is caught up
            await self.goes_on_2.wait()
            if self.dies_2:
                raise kafka_errors.KafkaConnectionError("it was killed")
            return FetchResponse(0, 8, [])
        self.asked_of_1.append({wanted.partition for found in request._wanted.values() for wanted in found})
        await asyncio.sleep(0.001)  # a long poll, as the broker sees it
        return FetchResponse(0, 7, [])

    async def asked(self, polls: int) -> set[int]:
        """What broker 1 was asked for from now on, in so many polls."""
        begin = len(self.asked_of_1)
        while len(self.asked_of_1) < begin + polls:
            await asyncio.sleep(0)
        return set[int]().union(*self.asked_of_1[begin:])


async def no_offsets(_: object) -> Any:
    raise AssertionError


@pytest.mark.parametrize("dies", [True, False], ids=["is-known-to-be-dead", "has-answered"])
async def test_a_new_leader_that_is_being_polled_is_asked_once_the_old_one(*, dies: bool) -> None:
    brokers = Brokers()
    brokers.dies_2 = dies
    client: Any = brokers
    fetcher = Fetcher(client, "all", no_offsets)
    fetcher.add(STAYS, 0)
    fetcher.add(MOVES, 0)
    task = asyncio.get_running_loop().create_task(fetcher.run())
    try:
        async with asyncio.timeout(60):
            await brokers.asked_2.wait()
            brokers.leaders[MOVES] = 1
            brokers.leader_changes += 1
            assert MOVES.partition not in await brokers.asked(20), "the old leader has not answered yet"
            brokers.goes_on_2.set()
            while MOVES.partition not in await brokers.asked(1):
                pass
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
