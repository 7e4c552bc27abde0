"""Source topics that are not what they were, and replay epochs: what is read anew runs anew, once; what is old has no effect."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace import EventTrigger, Run, workflow
from headrace.observability.label import StopReason
from headrace.service import router
from headrace.service.cli.exit_code import Conflict
from headrace.service.cli.topic_rewind import begin_epoch
from headrace.service.definitions.app import App
from headrace.service.health_observer import HealthObserver
from headrace.service.names import Names
from headrace.service.replay_epochs import ReplayEpochs, committed_epoch
from headrace.service.source_position import Before, SourcePosition
from headrace.topics.command import Epoch, Start
from headrace.topics.event import EventMeta
from headrace.topics.identity import Coordinates, start_digest
from headrace.topics.log import NewRecord, Position, TopicPartition
from headrace.topics.outcome import RunEnded
from headrace.topics.run_record import CommandRecord, encode
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, Recorder, Routing, Serving, app_of, event, place_at, routing, serving, until

IN = TopicPartition("in", 0)
OTHER = TopicPartition("in", 1)


def shop() -> App:
    @workflow(on=EventTrigger("in", "order.placed"), name="order")
    async def order(run: Run, order: dict[str, Any]) -> int:
        return order["n"]

    return app_of(order)


async def ran(place: Place) -> list[int]:
    """The numbers of the orders whose runs have ended, in any order."""
    return sorted(int(bytes(ended.result)) for ended in await place.outcomes(RunEnded))


async def until_ran(place: Place, *numbers: int) -> None:
    assert await place.until(lambda: ran(place), lambda found: len(found) >= len(numbers)) == sorted(numbers)


async def publish(place: Place, *numbers: int, partition: int = 0) -> None:
    await place.publish("in", *(event({"n": n}) for n in numbers), partition=partition)


async def rewind(place: Place, epoch: int, *offsets: int) -> None:
    await begin_epoch(place.view, Names("shop"), Epoch(topic="in", epoch=epoch, offsets=offsets))


async def committed(place: Place, at: TopicPartition = IN) -> Position:
    return (await place.view.committed("shop.router", [at]))[at]


# --- another record before the position ----------------------------------------------------------------------------------


@asynccontextmanager
async def read_before(place: Place, before: Before, *, numbers: int = 3) -> AsyncIterator[tuple[Routing, Recorder]]:
    """A process that finds a position whose last record was this one."""
    await publish(place, *range(numbers))
    position = SourcePosition(2, clean=True, before=before)
    await place.view.commit("shop.router", {IN: position.position()})
    observer = Recorder()
    async with routing(FaultLog(place.log), shop(), observer=observer) as process:
        yield process, observer


async def timestamp_of(place: Place, offset: int) -> int:
    (record,) = [record for record in await place.records("in", 0) if record.offset == offset]
    return record.timestamp_ms


async def test_the_record_before_the_position_is_remembered(place: Place) -> None:
    await publish(place, 0, 1)
    async with routing(FaultLog(place.log), shop()) as process:
        await until(lambda: process.floor() == 2)
    assert f'"before":[1,{await timestamp_of(place, 1)}]' in (await committed(place)).metadata


async def test_another_record_before_the_position_stops_the_source_with_an_alarm(place: Place) -> None:
    async with read_before(place, Before(1, 5)) as (process, observer):
        await until(lambda: process.shared.stops)
        assert process.shared.stops == {IN: StopReason.TOPIC_REMADE}
    assert [(told.reason, told.code, told.offset) for told in observer.stopped] == [
        (StopReason.TOPIC_REMADE, "HR5012", 2)
    ]
    assert "another record at offset 1" in observer.stopped[0].message
    assert await place.starts() == []
    assert (await committed(place)).offset == 2


async def test_the_same_record_before_the_position_is_read_and_not_done_again(place: Place) -> None:
    await publish(place, 0, 1)
    before = Before(1, await timestamp_of(place, 1))
    async with read_before(place, before, numbers=1) as (process, _):
        await until(lambda: process.floor() == 3)
    (start,) = await place.starts()
    assert getattr(start.id, "offset", None) == 2


async def test_a_record_that_retention_took_tells_nothing(place: Place) -> None:
    await publish(place, 0, 1)
    await place.log.trim(IN, 2)
    async with read_before(place, Before(1, 5)) as (process, _):
        await until(lambda: process.floor() == 5)


async def test_at_the_end_of_the_topic_the_record_before_is_looked_at_too(place: Place) -> None:
    async with read_before(place, Before(1, 5), numbers=2) as (process, _):
        await until(lambda: IN in process.shared.stops)


@pytest.mark.parametrize(("offset", "words"), [(1, "another record at offset 1"), (7, "read up to offset 8")])
async def test_without_a_position_owners_know_what_was_read(place: Place, offset: int, words: str) -> None:
    """Kafka forgets the positions of a topic that is deleted: those that it makes again would start anew, as repeats that are dropped."""
    await publish(place, 0, 1, 2)
    start = Start(
        namespace="default",
        workflow="order",
        version="1",
        input=msgspec.Raw(b'{"n":50}'),
        event=EventMeta("e", "/s", "order.placed", "in", 0, offset),
        event_at_ms=5,
    )
    record = CommandRecord(id=Coordinates(0, "in", 0, offset, start_digest("start", "default", "order"), 0), body=start)
    await place.view.append(TopicPartition("shop.runs", 1), [NewRecord(value=encode(record))])
    async with serving(FaultLog(place.log), shop()) as process:
        await until(lambda: process.shared.stops)
        assert process.shared.stops == {IN: StopReason.TOPIC_REMADE}
        assert words in process.observer.stopped[0].message
        await until_ran(place, 50)
        await rewind(place, 1, 0)
        await until_ran(place, 50, 0, 1, 2)


# --- epochs ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def two_sources(tmp_path: Path, app: App | None = None) -> AsyncIterator[tuple[Place, Serving]]:
    """A service that has done orders 0 to 2 of partition 0 and 10 to 12 of partition 1."""
    async with place_at(tmp_path, sources=2) as place:
        await publish(place, 0, 1, 2)
        await publish(place, 10, 11, 12, partition=1)
        async with serving(FaultLog(place.log), app or shop()) as process:
            await until_ran(place, 0, 1, 2, 10, 11, 12)
            yield place, process


DONE = [0, 1, 2, 10, 11, 12]


async def test_what_is_read_anew_runs_anew_while_the_service_runs(tmp_path: Path) -> None:
    async with two_sources(tmp_path) as (place, process):
        await rewind(place, 1, 1, 3)
        await until_ran(place, *DONE, 1, 2)
        await publish(place, 3)
        await publish(place, 13, partition=1)
        await until_ran(place, *DONE, 1, 2, 3, 13)
        assert {source.epoch for source in process.service.router.sources.values()} == {1}
    runs = [ended.run for ended in await place.outcomes(RunEnded)]
    assert len(set(runs)) == len(runs), "a run of its own for each reading"


async def test_a_second_rewind_is_another_epoch(tmp_path: Path) -> None:
    async with two_sources(tmp_path) as (place, _):
        await rewind(place, 1, 3, 2)
        await until_ran(place, *DONE, 12)
        await rewind(place, 2, 3, 2)
        await until_ran(place, *DONE, 12, 12)
        with pytest.raises(Conflict):
            await rewind(place, 2, 0, 0)  # not newer
        await publish(place, 3)
        await until_ran(place, *DONE, 12, 12, 3)


@pytest.mark.parametrize("epoch", [1, 2])
async def test_a_rewind_that_was_overtaken_says_so_and_sets_no_position(place: Place, epoch: int) -> None:
    await publish(place, 0, 1, 2)
    await rewind(place, 2, 3)
    with pytest.raises(Conflict):
        await rewind(place, epoch, 0)
    assert (await place.view.committed("shop.epochs", [IN]))[IN].offset == 2
    assert (await committed(place)).offset == 3


async def test_a_rewind_while_nobody_runs(tmp_path: Path) -> None:
    async with two_sources(tmp_path) as (place, _):
        pass
    async with place_at(tmp_path, sources=2) as place:
        await rewind(place, 1, 2, 3)
        async with serving(FaultLog(place.log), shop(), instance="next"):
            await until_ran(place, *DONE, 2)


async def test_a_position_of_an_older_epoch_is_worth_nothing(tmp_path: Path) -> None:
    """A router that died, or never heard of it, has committed after the rewind."""
    async with two_sources(tmp_path) as (place, _):
        pass
    async with place_at(tmp_path, sources=2) as place:
        await rewind(place, 1, 2, 3)
        await place.view.commit("shop.router", {IN: SourcePosition(3, clean=True).position()})
        await place.view.commit("shop.epochs", {IN: Position(0)})  # the hint is gone, too: the run log knows
        async with serving(FaultLog(place.log), shop(), instance="next"):
            await until_ran(place, *DONE, 2)
            await publish(place, 3)
            await until_ran(place, *DONE, 2, 3)


async def test_a_source_that_stopped_because_its_topic_was_made_anew_goes_on_with_a_new_epoch(tmp_path: Path) -> None:
    async with place_at(tmp_path, sources=2) as place:
        await publish(place, 0, 1)
        await place.view.commit("shop.router", {IN: Position(700), OTHER: Position(0)})
        async with serving(FaultLog(place.log), shop()) as process:
            await until(lambda: IN in process.shared.stops)
            HealthObserver(process.health).partition_stopped(process.observer.stopped[0])
            assert process.health.report().notes
            await rewind(place, 1, 0, 0)
            await until_ran(place, 0, 1)
            await until(lambda: not process.shared.stops)
            await until(lambda: not process.health.report().notes)


async def test_a_router_without_owners_hears_of_an_epoch_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "_EPOCHS_EVERY_S", 0.01)
    await publish(place, 0, 1, 2)
    async with routing(FaultLog(place.log), shop()) as process:
        await until(lambda: process.floor() == 3)
        await rewind(place, 1, 2)
        await until(lambda: process.floor() == 3 and process.router.sources[IN].epoch == 1)
    identities = [start.id for start in await place.starts() if not isinstance(start.body, Epoch)]
    assert sorted((getattr(each, "epoch", -1), getattr(each, "offset", -1)) for each in identities) == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 2),
    ]


# --- what is known of epochs -------------------------------------------------------------------------------------------


def test_floors_of_one_epoch_rise_and_a_newer_epoch_begins_anew() -> None:
    epochs = ReplayEpochs()
    epochs.learn("in", 1, {0: 5})
    epochs.learn("in", 1, {0: 9})
    epochs.learn("in", 1, {0: 7})
    old = SourcePosition(100, touched=120)
    assert epochs.corrected(IN, old) == SourcePosition(9, clean=True, epoch=1)
    assert epochs.corrected(OTHER, old) == SourcePosition(0, clean=True, epoch=1)
    epochs.learn("in", 2, {0: 3})
    epochs.learn("in", 1, {0: 50})
    assert epochs.corrected(IN, old) == SourcePosition(3, clean=True, epoch=2)
    mine = SourcePosition(40, epoch=2)
    assert epochs.corrected(IN, mine) is mine


def test_a_topic_of_many_partitions_is_committed_without_its_floors() -> None:
    position = committed_epoch(3, [1 << 40] * 1_000)
    assert (position.offset, position.metadata) == (3, "")
    assert committed_epoch(3, [4, 5]).metadata == "[4,5]"
