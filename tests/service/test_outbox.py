"""The outbox: outputs, forwards between partitions, and dead letters of the fold."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from headrace import EventTrigger, Run, handler, workflow
from headrace.service import outbox as outbox_file
from headrace.service import publisher as publisher_file
from headrace.service.definitions.app import App
from headrace.topics.dead_letter import parse_dead_letter
from headrace.topics.identity import Coordinates
from headrace.topics.log import Appended, AppendFailed, Log, LogRecord, NewRecord, TopicPartition
from headrace.topics.outcome import OutputRefused, RunEnded, RunStatus
from headrace.topics.partition_hash import partition_of
from headrace.topics.run_record import CommandRecord, decode
from tests.service.fault_log import Fault, FaultLog
from tests.service.shell import Place, app_of, event, order_of, serving, until


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_file, "_BACK_OFF_S", (0.001, 0.01))
    monkeypatch.setattr(outbox_file, "_AGAIN_S", 0.001)


def shop(**options: Any) -> App:
    @workflow(on=EventTrigger("in", "order.placed"), name="order", emits=["out"], **options)
    async def order(run: Run, order: dict[str, Any]) -> None:
        await run.emit("order.done", {"n": order["n"]}, topic="out", key=order.get("key"))

    return app_of(order)


def identified(record: LogRecord | NewRecord) -> str:
    return dict(record.headers)["ce_id"].decode()


async def test_an_output_sent_again_has_the_same_bytes_id_and_partition(place: Place) -> None:
    await place.make(wide=4)

    @workflow(on=EventTrigger("in", "order.placed"), name="order", emits=["wide"])
    async def order(run: Run, order: dict[str, Any]) -> None:
        await run.emit("order.done", {"n": order["n"]}, topic="wide")

    log = FaultLog(place.log)
    log.faults["wide"] += [Fault.DONE] * 4
    async with serving(log, app_of(order), partitions=1) as process:
        await place.publish("in", *(event({"n": n}) for n in range(20)))
        await until(lambda: len(process.observer.sent) == 20)
    at: dict[str, set[int]] = {}
    bodies: dict[str, set[tuple[Any, ...]]] = {}
    for partition in range(4):
        for record in await place.records("wide", partition):
            at.setdefault(identified(record), set()).add(partition)
            bodies.setdefault(identified(record), set()).add((record.key, record.value, record.headers))
    assert len(at) == 20
    assert all(len(each) == 1 for each in (*at.values(), *bodies.values()))
    assert len({next(iter(each)) for each in at.values()}) > 1  # records without a key spread
    assert sum([len(await place.records("wide", partition)) for partition in range(4)]) > 20  # some came twice


async def test_an_output_keeps_its_partition_and_bytes_over_a_death(place: Place) -> None:
    await place.make(wide=4)

    @workflow(on=EventTrigger("in", "order.placed"), name="order", emits=["wide"])
    async def order(run: Run, order: dict[str, Any]) -> None:
        await run.emit("order.done", {"n": order["n"]}, topic="wide")

    log = FaultLog(place.log)
    log.hold("wide")
    async with serving(log, app_of(order), partitions=1):
        await place.publish("in", *(event({"n": n}) for n in range(8)))
        await place.until_outcomes(RunEnded, 8)
        await until(lambda: log.waiting)  # of each partition one batch is there; what came later waits behind it
        log.dead = True
        log.release_all()
    written = {identified(record) for record in await place.records("wide")}
    assert written
    async with serving(FaultLog(place.log), app_of(order), partitions=1) as process:
        await until(lambda: len(process.observer.sent) == 8)
        assert len(process.observer.resent) >= 8
    found: dict[str, list[tuple[int, bytes | None]]] = {}
    for partition in range(4):
        for record in await place.records("wide", partition):
            found.setdefault(identified(record), []).append((partition, record.value))
    assert len(found) == 8
    assert {id_ for id_, each in found.items() if len(each) == 2} >= written
    assert all(len(set(each)) == 1 and len(each) <= 2 for each in found.values())


async def test_what_a_giver_had_not_sent_is_no_repeat(place: Place) -> None:
    """Outputs that are out come home before a release: nothing is counted as sent twice where nothing failed."""
    async with serving(FaultLog(place.log), shop(), partitions=1) as process:
        process.service.owners[0].stop_sending()
        await place.publish("in", event({"n": 0, "key": "k"}))
        await place.until_outcomes(RunEnded)
        assert not process.observer.sent
    async with serving(FaultLog(place.log), shop(), partitions=1) as process:
        await until(lambda: process.observer.sent)
        assert not process.observer.resent
    assert len(await place.records("out")) == 1


async def test_an_output_for_the_run_log_is_refused_and_stops_nothing(place: Place) -> None:
    @workflow(on=EventTrigger("in", "order.placed"), name="order")
    async def order(run: Run, order: dict[str, Any]) -> None:
        await run.emit("order.done", {"n": order["n"]}, topic=order["to"])

    async with serving(FaultLog(place.log), app_of(order), partitions=1) as process:
        await place.publish("in", *(event({"n": n, "to": to}) for n, to in enumerate(["shop.runs", "out"])))
        (refused,) = await place.until_outcomes(OutputRefused)
        assert refused.code == "HR1209"
        await until(lambda: len(process.observer.finished) == 2 and not process.service.owners[0].state.outbox)
        assert not process.observer.stopped
    assert len(await place.records("out")) == 1


async def test_a_refused_output_fails_its_run_and_neighbours_arrive(place: Place) -> None:
    log = FaultLog(place.log)
    log.refuses = lambda topic, record: topic == "out" and json.loads(record.value or b"")["n"] == 1
    async with serving(log, shop(), partitions=1) as process:
        await place.publish("in", *(event({"n": n, "key": "k"}) for n in range(3)))
        await place.until_outcomes(OutputRefused)
        await until(lambda: len(process.observer.finished) == 3 and not process.service.owners[0].state.outbox)
    assert sorted(json.loads(record.value or b"")["n"] for record in await place.records("out")) == [0, 2]
    (refused,) = await place.outcomes(OutputRefused)
    assert refused.code == "HR5003"
    letters = [parse_dead_letter(record) for record in await place.records("shop.dlq")]
    statuses = [each.status for each in await place.outcomes(RunEnded)]
    assert (statuses.count(RunStatus.FAILED), len(letters)) in {(1, 0), (0, 1)}  # open when it was refused, or ended


async def test_the_dead_letter_of_a_refused_output_has_its_bytes(place: Place) -> None:
    """The run ends before its output is refused."""
    log = FaultLog(place.log)
    log.missing.add("out")
    async with serving(log, shop(), partitions=1) as process:
        await place.publish("in", event({"n": 5, "key": "k"}))
        await place.until_outcomes(RunEnded)
        log.refuses = lambda topic, _record: topic == "out"
        log.missing.clear()
        await until(lambda: process.observer.dead_lettered)
    (letter,) = [parse_dead_letter(record) for record in await place.records("shop.dlq")]
    assert letter is not None
    assert (letter.stage, letter.topic, letter.key, json.loads(letter.value or b"")) == ("emit", "out", b"k", {"n": 5})


def keyed(**options: Any) -> tuple[App, asyncio.Event]:
    gate = asyncio.Event()

    @handler
    async def work() -> None:
        await gate.wait()

    @workflow(on=EventTrigger("in", "order.placed"), name="order", key=lambda order: order["key"], **options)
    async def order(run: Run, order: dict[str, Any]) -> None:
        await run.call(work)

    return app_of(work, order), gate


def key_of(partition: int, number: int) -> str:
    """A key whose home is that partition of two."""
    return next(key for n in range(1_000) if partition_of((key := f"{number}.{n}").encode(), 2) == partition)


async def forwards(place: Place, to: int) -> list[tuple[int, int, int]]:
    """Offset of origin, floor and order of the starts that came from the other partition."""
    found: list[tuple[int, int, int]] = []
    for record in await place.records("shop.runs", to):
        forward = forwarded(record)
        if forward is not None:
            identity, order = forward
            assert identity.partition == 1 - to
            found.append((identity.offset, identity.floor, order))
    return found


def forwarded(record: NewRecord | LogRecord) -> tuple[Coordinates, int] | None:
    """Identity and order of a start that comes from another partition."""
    entry = decode(record.value)
    if isinstance(entry, CommandRecord) and isinstance(entry.id, Coordinates) and entry.id.origin == "shop.runs":
        return entry.id, order_of(entry)
    return None


@pytest.mark.parametrize("faults", [[], [Fault.LOST], [Fault.DONE, Fault.LOST, Fault.DONE]])
async def test_starts_go_on_to_the_partition_of_their_key_with_a_floor_that_is_true(
    place: Place, faults: list[Fault]
) -> None:
    app, gate = keyed()
    gate.set()
    log = FaultLog(place.log)
    sent_from = next(key for n in range(100) if partition_of(key := f"r{n}".encode(), 2) == 0)
    async with serving(log, app) as process:
        for n in range(6):
            if n == 2:
                log.faults["shop.runs"] += faults
            await place.publish("in", event({"n": n, "key": key_of(1, n)}, key=sent_from.decode()))
        await until(lambda: len(process.observer.finished) == 6)
        await until(lambda: not any(owner.state.outbox for owner in process.service.owners))
    found = await forwards(place, to=1)
    acknowledged: set[int] = set()
    all_offsets = {offset for offset, _, _ in found}
    for offset, floor, _ in found:
        assert floor <= offset
        assert {each for each in all_offsets if each < floor} <= acknowledged
        acknowledged.add(offset)
    assert {n for _, _, n in found} == set(range(6))
    assert len(all_offsets) == 6
    assert len(await place.outcomes(RunEnded)) == 6


class LosesTheFirst(FaultLog):
    """The start of order 0 does not arrive at partition 1 before that of order 1 has."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.lost = 0
        self._second_is_there = False

    async def append(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
        orders = {forward[1] for record in records if (forward := forwarded(record)) is not None}
        if 0 in orders and 1 not in orders and not self._second_is_there:
            self.lost += 1
            raise AppendFailed(f"The batch to {at} was lost.")
        appended = await super().append(at, records)
        self._second_is_there = self._second_is_there or 1 in orders
        return appended


async def test_a_start_that_arrives_behind_a_later_one_counts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_file, "_AGAIN_S", 0.05)  # so that the later one is not in its batch
    app, gate = keyed()
    gate.set()
    log = LosesTheFirst(place.log)
    sent_from = next(key for n in range(100) if partition_of(key := f"r{n}".encode(), 2) == 0)
    async with serving(log, app) as process:
        for n in range(2):
            await place.publish("in", event({"n": n, "key": key_of(1, n)}, key=sent_from.decode()))
            await until(lambda: log.lost)
        await until(lambda: len(process.observer.finished) == 2)
    assert {order for _, _, order in await forwards(place, to=1)} == {0, 1}


async def test_a_rejected_start_leaves_as_a_dead_letter_with_the_bytes_of_its_source(place: Place) -> None:
    app, gate = keyed(on_conflict="reject")
    log = FaultLog(place.log)
    first, second = (event({"n": n, "key": "same"}, key="same") for n in range(2))
    async with serving(log, app) as process:
        await place.publish("in", first)
        await until(process.running)
        await place.publish("in", second)
        await until(lambda: process.observer.dead_lettered)
        gate.set()
        await until(lambda: process.observer.finished)
    (letter,) = [parse_dead_letter(record) for record in await place.records("in.dlq")]
    assert letter is not None
    assert (letter.stage, letter.code, letter.offset, letter.workflow) == ("start", "HR3201", 1, "order")
    assert (letter.key, letter.value, letter.headers) == (second.key, second.value, second.headers)


async def test_a_rejected_start_that_the_dead_letter_topic_refuses_leaves_with_its_facts_alone(place: Place) -> None:
    app, gate = keyed(on_conflict="reject")
    log = FaultLog(place.log)
    log.refuses = lambda topic, record: topic == "in.dlq" and record.value is not None
    async with serving(log, app) as process:
        await place.publish("in", event({"n": 0, "key": "same"}, key="same"))
        await until(process.running)
        await place.publish("in", event({"n": 1, "key": "same"}, key="same"))
        await until(lambda: process.observer.dead_lettered)
        gate.set()
        await until(lambda: not any(owner.state.outbox for owner in process.service.owners))
    (letter,) = [parse_dead_letter(record) for record in await place.records("in.dlq")]
    assert letter is not None
    assert (letter.kept, letter.offset, letter.value) == ("coordinates", 1, None)


async def test_a_dead_letter_topic_that_takes_nothing_keeps_the_entry_and_raises_an_alarm(place: Place) -> None:
    app, gate = keyed(on_conflict="reject")
    log = FaultLog(place.log)
    log.refuses = lambda topic, _record: topic == "in.dlq"
    async with serving(log, app) as process:
        await place.publish("in", event({"n": 0, "key": "same"}, key="same"))
        await until(process.running)
        await place.publish("in", event({"n": 1, "key": "same"}, key="same"))
        await until(lambda: process.shared.stops.get(TopicPartition("in.dlq", 0)))
        gate.set()
        await until(lambda: process.observer.finished)
        assert sum(len(owner.state.outbox) for owner in process.service.owners) == 1
    async with serving(FaultLog(place.log), app) as process:
        await until(lambda: process.observer.dead_lettered)
    assert len(await place.records("in.dlq")) == 1
