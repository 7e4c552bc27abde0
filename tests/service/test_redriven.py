"""Redriven records on their way in: one start of all copies, whichever router reads them and whenever it dies."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headrace import Event, EventTrigger, Run, workflow
from headrace.service.definitions.app import App
from headrace.service.engine.fold import fold, new_state
from headrace.service.engine.state import PartitionState
from headrace.service.fault_point import FaultPoint, armed
from headrace.topics.command import Start
from headrace.topics.dead_letter import DeadLetter, parse_dead_letter
from headrace.topics.log import LogRecord, NewRecord, TopicPartition
from headrace.topics.redrive import redrive
from headrace.topics.run_record import decode
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, Recorder, app_of, event, place_at, routing, serving, until

RUN_LOG_PARTITIONS = 4
IN, LETTERS = TopicPartition("in", 0), TopicPartition("in.dlq", 0)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with place_at(tmp_path, partitions=RUN_LOG_PARTITIONS) as place:
        yield place


def shop(*, works: bool = True) -> App:
    def wanted(_event: Event[Any]) -> bool:
        if not works:
            raise ValueError("a bug")
        return True

    @workflow(on=EventTrigger("in", "order.placed", filter=wanted), name="order")
    async def order(run: Run, order: dict[str, Any]) -> int:
        return order["n"]

    @workflow(on=EventTrigger("in", "order.placed"), name="other")
    async def other(run: Run, order: dict[str, Any]) -> int:
        return order["n"]

    return app_of(order, other)


async def letters(place: Place, count: int) -> list[LogRecord]:
    return await place.until(lambda: place.records("in.dlq"), lambda found: len(found) >= count)


def letter_in(record: LogRecord) -> DeadLetter:
    found = parse_dead_letter(record)
    assert found is not None
    return found


async def send(place: Place, record: LogRecord, *, count: int = 1) -> None:
    """A copy of the original, as `headrace dlq redrive` sends it."""
    await place.publish("in", redrive(letter_in(record), LETTERS, record.offset, app="shop", count=count))


async def folded(place: Place) -> list[PartitionState]:
    """What the run log means."""
    states: list[PartitionState] = []
    for number in range(RUN_LOG_PARTITIONS):
        state = new_state(
            topic="shop.runs", partition=number, partitions=RUN_LOG_PARTITIONS, client_retention_ms=86_400_000
        )
        for record in await place.records("shop.runs", number):
            fold(state, record.offset, record.timestamp_ms, 1, decode(record.value))
        states.append(state)
    return states


async def runs(place: Place) -> list[tuple[str, int]]:
    """Workflow and order of everything that was started and is open: here no owner ends it."""
    return sorted(
        (run.start.workflow, json.loads(bytes(run.start.input))["n"])
        for state in await folded(place)
        for run in state.runs.values()
    )


async def refused(place: Place, *records: NewRecord) -> list[LogRecord]:
    """Their letters: the app's filter has a bug."""
    await place.publish("in", *records)
    async with routing(FaultLog(place.log), shop(works=False)):
        return await letters(place, len(records))


@pytest.mark.parametrize("key", ["k", None])
async def test_copies_start_one_run_of_each_workflow(place: Place, key: str | None) -> None:
    found = await refused(place, event({"n": 1}, key=key), event({"n": 2}, key=key))
    for record in (found[0], found[1], found[0], found[0], found[1]):
        await send(place, record)
    async with routing(FaultLog(place.log), shop()) as process:
        await until(lambda: process.floor() == 7)
    assert await runs(place) == [("order", 1), ("order", 2), ("other", 1), ("other", 2)]
    starts = [start.body for start in await place.starts()]
    assert {(start.trigger, start.redriven is not None) for start in starts if isinstance(start, Start)} == {
        ("redrive", True)
    }


async def test_a_second_redrive_on_purpose_starts_it_once_more(place: Place) -> None:
    (record,) = await refused(place, event({"n": 1}, key="k"))
    for count in (1, 2, 1, 2):
        await send(place, record, count=count)
    async with routing(FaultLog(place.log), shop()) as process:
        await until(lambda: process.floor() == 5)
    assert await runs(place) == [("order", 1)] * 2 + [("other", 1)] * 2


@pytest.mark.parametrize("point", [FaultPoint.SOURCE_DECODED, FaultPoint.SOURCE_ACKNOWLEDGED])
async def test_two_routers_and_deaths_between_make_no_second_start(place: Place, point: FaultPoint) -> None:
    """Both routers read every copy: the first dies behind each chunk, and the second begins where it had begun."""
    found = await refused(place, *(event({"n": n}, key=f"k{n}") for n in range(3)))
    at = TopicPartition("in", 0)
    before = await place.view.committed("shop.router", [at])
    for record in found * 2:
        await send(place, record)
    dying = FaultLog(place.log)
    with armed(lambda reached: setattr(dying, "dead", True) if reached is point else None):
        async with routing(dying, shop()):
            await until(lambda: dying.dead)
    for record in found:
        await send(place, record)
    await place.log.commit("shop.router", before)  # as if the second one had seen nothing of the first
    async with (
        routing(FaultLog(place.log), shop(), instance="test-2") as second,
        routing(FaultLog(place.view), shop(), instance="test-3") as third,
    ):
        await until(lambda: second.floor() == third.floor() == 12)
    assert await runs(place) == [(name, n) for name in ("order", "other") for n in range(3)]


async def test_one_that_fails_again_is_a_letter_with_one_more_attempt(place: Place) -> None:
    (record,) = await refused(place, event({"n": 1}, key="k"))
    assert letter_in(record).attempts == 1
    await send(place, record)
    async with routing(FaultLog(place.log), shop(works=False)) as process:
        _, again = await letters(place, 2)
        await until(lambda: process.floor() == 2)
    letter = letter_in(again)
    assert (letter.attempts, letter.offset, letter.app) == (2, 1, "shop")
    await place.publish("in", redrive(letter, LETTERS, again.offset, app="shop", count=2))
    async with routing(FaultLog(place.log), shop()) as process:
        await until(lambda: process.floor() == 3)
    assert await runs(place) == [("order", 1), ("other", 1)]


async def test_another_app_lists_it_and_starts_nothing(place: Place) -> None:
    (record,) = await refused(place, event({"n": 1}, key="k"))
    copy = redrive(letter_in(record), LETTERS, record.offset, app="shop", count=1)
    headers = tuple((name, b"billing" if value == b"shop" else value) for name, value in copy.headers)
    await place.publish("in", NewRecord(copy.value, key=copy.key, headers=headers))
    async with routing(FaultLog(place.log), shop()) as process:
        await until(lambda: process.floor() == 2)
    assert await runs(place) == []
    (listed,) = await place.values("shop.audit")
    assert (listed["first"], listed["reason"]) == (1, "redriven for billing")


async def test_what_comes_of_each_is_told(place: Place) -> None:
    found = await refused(place, event({"n": 1}, key="k"), event({"n": 2}, key="k"))
    await place.publish("in", event({"n": 3}, type="unknown"))
    strange = redrive(letter_in(found[0]), LETTERS, 9, app="shop", count=3)
    headers = tuple((name, b"unknown" if name == "ce_type" else value) for name, value in strange.headers)
    broken = tuple(header for header in strange.headers if header[0] != "ce_type")
    observer = Recorder()
    async with serving(FaultLog(place.log), shop(), partitions=RUN_LOG_PARTITIONS, observer=observer):
        for record in (*found, found[0]):
            await send(place, record)
        await place.publish("in", NewRecord(strange.value, key=strange.key, headers=headers))
        await place.publish("in", NewRecord(strange.value, key=strange.key, headers=broken))
        await until(lambda: len(observer.finished) == 4 and len(observer.redriven) == 7)
    told = sorted((each.letter, each.count, each.offset, each.result.value) for each in observer.redriven)
    assert told == [
        ("in.dlq/0/0", 1, 3, "started"),
        ("in.dlq/0/0", 1, 5, "duplicate"),  # of each workflow
        ("in.dlq/0/0", 1, 5, "duplicate"),
        ("in.dlq/0/0", 1, 5, "started"),
        ("in.dlq/0/1", 1, 4, "started"),
        ("in.dlq/0/9", 3, 6, "unmatched"),
        ("in.dlq/0/9", 3, 7, "dead_lettered"),
    ]


async def test_a_service_that_comes_later_knows_what_was_redriven(place: Place) -> None:
    """Copies before, between and behind the lives of owners, whose runs are over."""
    (record,) = await refused(place, event({"n": 1}, key="k"))
    for n in range(3):
        await send(place, record)
        async with serving(FaultLog(place.log), shop(), partitions=RUN_LOG_PARTITIONS) as process:
            sources = process.service.router.sources
            await until(lambda n=n, sources=sources: IN in sources and sources[IN].floor == n + 2)
            if not n:
                await until(lambda process=process: len(process.observer.finished) == 2)
    assert sum(len(state.dedupe.redrives) for state in await folded(place)) == 2
    assert await runs(place) == []
