"""How many dead letters lie in their topics, as one process of several sees them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.service import open_letters
from headrace.service.letters.letters import Letters
from headrace.service.letters.redrive import By, redrive_one
from headrace.service.letters.resolve import resolve
from headrace.service.names import Names
from headrace.service.open_letters import OpenLetters
from headrace.topics.dead_letter import Stage, dead_letter
from headrace.topics.log import LogRecord, NewRecord, TopicForbidden, TopicMissing, TopicPartition
from headrace.topics.membership import Placement
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, app_of, place_at, shared_of, until

LETTER = NewRecord(value=b"{}")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with place_at(tmp_path, sources=2) as place:
        yield place


def placed(*, runs: set[int], sources: set[int]) -> Placement:
    return Placement(1, frozenset(runs), frozenset(TopicPartition("in", number) for number in sources), ("me",))


@asynccontextmanager
async def watching(log: FaultLog, placement: Placement) -> AsyncIterator[OpenLetters]:
    letters = OpenLetters(shared_of(log, app_of()))
    letters.follow(placement)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(letters.run())
        yield letters
        task.cancel()


async def test_who_has_the_first_partition_counts_all_of_the_topic(place: Place) -> None:
    await place.publish("in.dlq", LETTER, LETTER)
    await place.publish("in.dlq", LETTER, partition=1)
    await place.publish("shop.dlq", LETTER)
    async with watching(FaultLog(place.log), placed(runs={1}, sources={0})) as one:
        await until(lambda: one.counts)
        # two of them share this log, which two processes would not: one after the other
        async with watching(FaultLog(place.log), placed(runs={0}, sources={1})) as other:
            await until(lambda: other.counts)
            assert (one.counts, other.counts) == ({"in.dlq": 3}, {"shop.dlq": 1})
            other.follow(placed(runs={1}, sources=set()))
            await until(lambda: not other.counts)


async def test_what_was_deleted_is_dealt_with(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_letters, "EVERY_S", 0.005)
    await place.publish("in.dlq", LETTER, LETTER, LETTER)
    async with watching(FaultLog(place.log), placed(runs=set(), sources={0})) as letters:
        await until(lambda: letters.counts == {"in.dlq": 3})
        await place.log.trim(TopicPartition("in.dlq", 0), 2)
        await until(lambda: letters.counts == {"in.dlq": 1})


async def test_a_topic_that_cannot_be_asked_stays_as_it_was_seen(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_letters, "EVERY_S", 0.005)
    await place.publish("in.dlq", LETTER)
    log = FaultLog(place.log)
    asked = asyncio.Event()

    async def gone(topic: str) -> int:
        asked.set()
        raise TopicMissing(topic)

    async with watching(log, placed(runs=set(), sources={0})) as letters:
        await until(lambda: letters.counts == {"in.dlq": 1})
        monkeypatch.setattr(log, "partitions", gone)
        await asked.wait()
        asked.clear()
        await asked.wait()
        assert letters.counts == {"in.dlq": 1}


async def test_what_was_redriven_or_resolved_is_not_open(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_letters, "EVERY_S", 0.005)
    letter = dead_letter(
        LogRecord(0, 0, b"k", b"{}"), TopicPartition("in", 0), stage=Stage.MATCH, code="x", error="y", attempts=1
    )
    await place.publish("in.dlq", letter, letter, letter)
    desk = Letters(place.view, Names("shop"))
    async with watching(FaultLog(place.log), placed(runs={0}, sources={0})) as watched:
        await until(lambda: watched.counts == {"in.dlq": 3, "shop.dlq": 0})
        await redrive_one(desk, "in.dlq/0/1", By("me"))
        await until(lambda: watched.counts == {"in.dlq": 2, "shop.dlq": 0})
        async for _ in resolve(desk, {TopicPartition("in.dlq", 0): [0]}, By("me")):
            pass
        await until(lambda: watched.counts == {"in.dlq": 1, "shop.dlq": 0})


async def test_where_marks_may_not_be_read_everything_counts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.publish("in.dlq", LETTER, LETTER)
    await place.publish("shop.dlq", LETTER)
    log = FaultLog(place.log)

    def forbidden(*_: object, **__: object) -> None:
        raise TopicForbidden("Not allowed.")

    monkeypatch.setattr(log, "read", forbidden)
    async with watching(log, placed(runs={0}, sources={0})) as watched:
        await until(lambda: watched.counts == {"in.dlq": 2, "shop.dlq": 1})
