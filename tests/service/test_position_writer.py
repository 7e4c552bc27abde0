"""Group commit of positions."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headrace.service import position_writer as position_writer_file
from headrace.service.position_writer import PositionWriter
from headrace.service.source_position import SourcePosition
from headrace.topics.log import LogUnavailable, TopicPartition
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, until

ONE, TWO = TopicPartition("in", 0), TopicPartition("out", 0)


@asynccontextmanager
async def running(log: FaultLog) -> AsyncIterator[PositionWriter]:
    writer = PositionWriter(log, "shop.router")
    async with asyncio.TaskGroup() as group:
        group.create_task(writer.run())
        yield writer
        writer.stop()


async def test_a_note_is_there_when_it_returns_and_takes_along_what_moved(place: Place) -> None:
    log = FaultLog(place.log)
    async with running(log) as writer:
        writer.move(TWO, SourcePosition(5))
        await writer.note({ONE: SourcePosition(3, touched=9, tries=2)})
        assert await place.position() == (3, {"touched": 9, "tries": 2, "clean": False})
        assert (await place.position("out"))[0] == 5
        assert len(log.commits) == 1


async def test_what_moved_is_committed_by_itself(place: Place) -> None:
    log = FaultLog(place.log)
    async with running(log) as writer:
        for offset in range(100):
            writer.move(ONE, SourcePosition(offset))
        await until(lambda: log.commits)
    assert [commit[ONE].offset for commit in log.commits] == [99]


async def test_nothing_old_lands_on_something_new(place: Place) -> None:
    log = FaultLog(place.log)
    async with running(log) as writer, asyncio.TaskGroup() as group:
        log.hold("shop.router")
        group.create_task(writer.note({ONE: SourcePosition(1)}))
        await until(lambda: "shop.router" in log.waiting)
        writer.move(ONE, SourcePosition(2))
        group.create_task(writer.note({ONE: SourcePosition(2, tries=1)}))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(log.commits) == 1  # one is out, the next fills
        log.release("shop.router")
    assert [(commit[ONE].offset, json.loads(commit[ONE].metadata)["tries"]) for commit in log.commits] == [
        (1, 0),
        (2, 1),
    ]


async def test_a_failed_note_raises_and_is_committed_later(place: Place) -> None:
    log = FaultLog(place.log)
    async with running(log) as writer:
        log.away = True
        with pytest.raises(LogUnavailable):
            await writer.note({ONE: SourcePosition(4)})
        log.away = False
        await until(lambda: log.commits)
    assert (await place.position())[0] == 4


async def test_a_stop_commits_what_is_left(place: Place) -> None:
    async with running(FaultLog(place.log)) as writer:
        writer.move(ONE, SourcePosition(8))
    assert (await place.position())[0] == 8


async def test_everything_is_committed_again_before_it_expires(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(position_writer_file, "_RECOMMIT_EVERY_S", 0.01)  # a day
    log = FaultLog(place.log)
    async with running(log) as writer:
        writer.known({ONE: SourcePosition(7), TWO: SourcePosition(8)})
        await until(lambda: len(log.commits) >= 3)
    assert all({at: position.offset for at, position in commit.items()} == {ONE: 7, TWO: 8} for commit in log.commits)
