"""A source partition: what it makes of records, when its position moves, and what it does after a death."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace import Event, EventTrigger, Run, workflow
from headrace.observability.label import DiscardReason, StopReason
from headrace.service import probes
from headrace.service.definitions.app import App
from headrace.service.engine.dedupe import Dedupe
from headrace.service.fault_point import FaultPoint, armed
from headrace.topics.dead_letter import Stage, parse_dead_letter
from headrace.topics.identity import Coordinates
from headrace.topics.log import NewRecord, Position, TopicPartition
from headrace.topics.run_record import CommandRecord
from tests.service.fault_log import Fault, FaultLog
from tests.service.shell import Place, Recorder, app_of, event, order_of, place_at, routing, until

IN = TopicPartition("in", 0)


def shop(wanted: Callable[[Event[Any]], bool] | None = None, topic: str = "in") -> App:
    @workflow(on=EventTrigger(topic, "order.placed", filter=wanted), name="order")
    async def order(run: Run, order: dict[str, Any]) -> None: ...

    return app_of(order)


def accepted(commands: list[CommandRecord]) -> list[int]:
    """The orders that the fold starts, in that order."""
    dedupe = Dedupe()
    return [order_of(command) for command in commands if dedupe.accept(command.id, 0, 1)]


async def publish(place: Place, count: int, first: int = 0, **options: Any) -> int:
    return await place.publish("in", *(event({"n": n}, key="k", **options) for n in range(first, first + count)))


async def test_records_become_commands_with_identity_and_floor_in_order(place: Place) -> None:
    await publish(place, 3)
    log = FaultLog(place.log)
    async with routing(log, shop()) as process:
        await until(lambda: process.floor() == 3)
        await publish(place, 2, first=3)
        await until(lambda: process.floor() == 5)
    starts = await place.starts()
    assert [order_of(start) for start in starts] == [0, 1, 2, 3, 4]
    identities = [start.id for start in starts]
    assert all(isinstance(identity, Coordinates) for identity in identities)
    assert [(i.epoch, i.origin, i.partition, i.offset) for i in identities if isinstance(i, Coordinates)] == [
        (0, "in", 0, offset) for offset in range(5)
    ]
    assert [i.floor for i in identities if isinstance(i, Coordinates)] == [0, 0, 0, 3, 3]
    assert len({i.n for i in identities if isinstance(i, Coordinates)}) == 1


async def test_the_position_moves_only_after_the_acknowledgement(place: Place) -> None:
    await publish(place, 3)
    log = FaultLog(place.log)
    log.hold("shop.runs")
    async with routing(log, shop()) as process:
        await until(lambda: "shop.runs" in log.waiting)
        assert len(await place.starts()) == 3  # written, and nobody knows
        assert process.floor() == 0
        assert (await place.position())[0] == 0
        log.release("shop.runs")
        await until(lambda: process.floor() == 3)
        await place.until(place.position, lambda found: found[0] == 3)


async def test_a_record_that_is_there_and_never_comes_ages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with routing(FaultLog(place.log), shop()) as process:
        await publish(place, 1)
        await until(lambda: process.floor() == 1)
        source = process.router.sources[IN]
        assert source.lag_ms() == 0
        source.ends_at(3)  # says the topic; the reader has brought nothing of it
        began_ms = process.shared.clock.now_ms()
        monkeypatch.setattr(process.shared.clock, "now_ms", lambda: began_ms + 60_000)
        assert 59_000 < source.lag_ms() <= 60_000
        source.ends_at(3)
        assert source.lag_ms() > 59_000
        await publish(place, 1)
        await until(lambda: process.floor() == 2)
        assert source.lag_ms() == 0, "it goes on: nothing is known of the next one's age yet"


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DONE, Fault.AWAY])
async def test_after_a_failed_append_it_goes_on_from_the_floor_and_nothing_is_lost(place: Place, fault: Fault) -> None:
    log = FaultLog(place.log)
    async with routing(log, shop()) as process:
        await publish(place, 2)
        await until(lambda: process.floor() == 2)
        log.faults["shop.runs"] += [fault, fault]
        await publish(place, 4, first=2)
        await until(lambda: process.floor() == 6)
    assert accepted(await place.starts()) == [0, 1, 2, 3, 4, 5]


async def test_nothing_of_a_chunk_is_sent_behind_a_failure_in_it(place: Place) -> None:
    log = FaultLog(place.log)
    turns = 0

    def slow(_event: Event[Any]) -> bool:
        """Uses up its slice of the loop, so that the writer works in the middle of the chunk."""
        nonlocal turns
        turns += 1
        end = asyncio.get_running_loop().time() + 0.012
        while asyncio.get_running_loop().time() < end:
            pass
        return True

    await publish(place, 20)
    log.faults["shop.runs"].append(Fault.LOST)
    async with routing(log, shop(slow), partitions=1) as process:
        await until(lambda: process.floor() == 20)
    starts = [order_of(start) for start in await place.starts()]
    assert starts == list(range(20))  # in order, and each once: the first pass left nothing behind
    assert turns > 20  # there was a first pass


async def test_what_an_in_process_restart_repeats_is_no_try(place: Place) -> None:
    """A broker that is away ends no process: however often it fails, no record is given up."""
    await publish(place, 3)
    log = FaultLog(place.log)
    await log.commit("shop.router", {IN: Position(0, '{"touched": 3, "tries": 1, "clean": false}')})
    log.faults["shop.runs"] += [Fault.LOST] * 3
    async with routing(log, shop()) as process:
        await until(lambda: process.floor() == 3)
    assert accepted(await place.starts()) == [0, 1, 2]
    assert await place.records("in.dlq") == []


async def test_a_record_that_ends_the_process_is_given_up_after_three_noted_tries_and_alone(place: Place) -> None:
    await publish(place, 7)
    poison = 4
    deaths = 0
    metadata: list[tuple[int, dict[str, Any]]] = []
    while not await place.records("in.dlq"):
        log = FaultLog(place.log)

        def deadly(found: Event[Any], log: FaultLog = log) -> bool:
            if found.data["n"] == poison:
                log.dead = True  # what the process queued by now reaches nobody
            return True

        async with routing(log, shop(deadly)) as process:
            await until(lambda log=log: log.dead or process.floor() == 7)
        deaths += log.dead
        metadata.append(await place.position())
        assert deaths <= 4
    assert deaths == 4  # one unnoted, in the chunk; three noted
    assert [(offset, hints["tries"]) for offset, hints in metadata[:4]] == [(0, 0), (4, 1), (4, 2), (4, 3)]
    assert accepted(await place.starts()) == [0, 1, 2, 3, 5, 6]
    (found,) = [parse_dead_letter(record) for record in await place.records("in.dlq")]
    assert found is not None
    assert (found.stage, found.code, found.offset, found.attempts) == (Stage.DECODE, "HR3203", poison, 3)
    assert json.loads(found.value or b"") == {"n": poison}
    assert await place.position() == (7, {"touched": 7, "tries": 0, "clean": True})


async def test_a_record_that_ends_the_process_takes_no_neighbour_with_it(tmp_path: Path) -> None:
    """All partitions had records in hand when it died, and all are read with care at once."""
    async with place_at(tmp_path, sources=4) as place:
        for partition in range(4):
            records = (event({"n": n}, key=str(partition)) for n in (partition, 10 + partition))
            await place.publish("in", *records, partition=partition)
        deaths = 0
        while not await place.records("in.dlq"):
            log = FaultLog(place.log)

            def deadly(found: Event[Any], log: FaultLog = log) -> bool:
                if found.data["n"] == 2:
                    log.dead = True
                return True

            async with routing(log, shop(deadly)) as process:
                await until(
                    lambda log=log, process=process: (
                        log.dead or all(process.floor(partition=partition) == 2 for partition in range(4))
                    )
                )
            deaths += log.dead
            assert deaths <= 4
        async with routing(FaultLog(place.log), shop()) as process:
            await until(lambda: all(process.floor(partition=partition) == 2 for partition in range(4)))
        letters = [parse_dead_letter(record) for record in await place.records("in.dlq")]
        assert [(letter.partition, letter.offset) for letter in letters if letter is not None] == [(2, 0)]
        assert {order_of(start) for start in await place.starts()} == {0, 1, 3, 10, 11, 12, 13}


@pytest.mark.parametrize("what", ["order.placed", "gossip"])
@pytest.mark.parametrize("point", [FaultPoint.SOURCE_TRIED, FaultPoint.SOURCE_LOOKED_AT])
async def test_deaths_over_a_record_that_came_to_something_add_no_letter(
    place: Place, point: FaultPoint, what: str
) -> None:
    """Its run (or its entry of the audit list) is there, and the position is not: then the process is killed over it again and again."""
    await publish(place, 3, type=what)
    for dies_at in [FaultPoint.SOURCE_ACKNOWLEDGED, FaultPoint.SOURCE_TRIED, *[point] * 7]:
        log = FaultLog(place.log)

        def die(passed: FaultPoint, log: FaultLog = log, dies_at: FaultPoint = dies_at) -> None:
            log.dead = log.dead or passed is dies_at

        with armed(die):
            async with routing(log, shop()) as process:
                await until(lambda log=log, process=process: log.dead or process.floor() == 3)
    async with routing(FaultLog(place.log), shop()) as process:
        await until(lambda: process.floor() == 3)
    assert await place.records("in.dlq") == []
    listed = [(entry["first"], entry["last"]) for entry in await place.values("shop.audit")]
    if what == "gossip":
        assert {offset for first, last in listed for offset in range(first, last + 1)} == {0, 1, 2}
        assert await place.starts() == []
    else:
        assert accepted(await place.starts()) == [0, 1, 2]
        assert listed == []


async def test_deaths_over_a_record_of_which_nothing_was_made_end_in_a_letter(tmp_path: Path) -> None:
    """What its neighbours came to says nothing of it: one of another partition, and the one before it."""
    async with place_at(tmp_path, sources=2) as place:
        await place.publish("in", event({"n": 0}, key="k"), event({"n": 1}, key="k"), partition=0)
        await place.publish("in", event({"n": 10}, key="k"), event({"n": 11}, type="gossip"), partition=1)
        first = FaultLog(place.log)
        async with routing(first, shop()) as process:
            await until(lambda: process.floor(partition=1) == 2 and process.floor() == 2)
        await place.publish("in", event({"n": 2}, key="k"), partition=0)
        log = FaultLog(place.log)
        await log.commit("shop.router", {IN: Position(2, '{"touched": 3, "tries": 3, "clean": false}')})
        async with routing(log, shop()) as process:
            await until(lambda: process.floor() == 3)
        [letter] = [parse_dead_letter(record) for record in await place.records("in.dlq")]
        assert letter is not None
        assert (letter.code, letter.offset) == ("HR3203", 2)
        assert sorted(accepted(await place.starts())) == [0, 1, 10]


@pytest.mark.parametrize("point", [FaultPoint.SOURCE_DECODED, FaultPoint.SOURCE_ACKNOWLEDGED])
async def test_deaths_behind_the_decoding_give_no_record_up(place: Place, point: FaultPoint) -> None:
    """Its command may be in the log by then: a dead letter beside it would be a second end."""
    await publish(place, 3)
    for _ in range(6):
        log = FaultLog(place.log)

        def die(passed: FaultPoint, log: FaultLog = log) -> None:
            log.dead = log.dead or passed is point

        with armed(die):
            async with routing(log, shop()):
                await until(lambda log=log: log.dead)
    async with routing(FaultLog(place.log), shop()) as process:
        await until(lambda: process.floor() == 3)
    assert accepted(await place.starts()) == [0, 1, 2]
    assert await place.records("in.dlq") == []


@pytest.fixture
def no_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "QUIET_S", 0.0)


async def test_no_struck_run_is_tried_while_a_record_may_end_the_process(place: Place, no_quiet: None) -> None:
    await publish(place, 3)
    await place.log.commit("shop.router", {IN: Position(0, '{"touched": 3, "tries": 0, "clean": false}')})
    tried: list[int] = []
    seen: list[int] = []

    def look(found: Event[Any]) -> bool:
        seen.append(len(tried))
        process.shared.probes.ask(f"run-{found.data['n']}", 1, lambda: tried.append(found.data["n"]))
        return True

    async with routing(FaultLog(place.log), shop(look)) as process:
        await until(lambda: tried == [0])
        assert process.floor() == 3
    assert seen == [0, 0, 0]


async def test_a_record_on_trial_and_runs_on_trial_wait_for_each_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "PATIENCE_S", 0.2)
    await publish(place, 1)
    await place.log.commit("shop.router", {IN: Position(0, '{"touched": 1, "tries": 2, "clean": false}')})
    order: list[str] = []

    def see(point: FaultPoint) -> None:
        if point is FaultPoint.SOURCE_TRIED:
            now_s = asyncio.get_running_loop().time()
            order.append("noted" if all(run.patience_ends_s <= now_s for run in trials.open.values()) else "early")
            trials.ask("other", 0, lambda: order.append("woken"))
        elif point is FaultPoint.SOURCE_LOOKED_AT:
            order.append("decoded")

    with armed(see):
        async with routing(FaultLog(place.log), shop()) as process:
            trials = process.shared.probes
            trials.ask("run", 0, lambda: order.append("on trial"))
            await until(lambda: process.floor() == 1)
    assert order == ["on trial", "noted", "decoded", "woken"]


async def test_the_try_is_noted_before_the_record_is_touched(place: Place) -> None:
    await publish(place, 2)
    log = FaultLog(place.log)
    await log.commit("shop.router", {IN: Position(0, '{"touched": 2, "tries": 0, "clean": false}')})
    seen: list[tuple[int, dict[str, Any]]] = []

    def look(found: Event[Any]) -> bool:
        position = log.commits[-1][IN]
        seen.append((position.offset, json.loads(position.metadata)))
        return True

    async with routing(log, shop(look)) as process:
        await until(lambda: process.floor() == 2)
    assert [(offset, found["touched"], found["tries"], found["clean"]) for offset, found in seen] == [
        (0, 2, 1, False),
        (1, 2, 1, False),
    ]


async def test_the_committer_never_erases_a_noted_try(place: Place) -> None:
    """The position of the record before moves while the try of the next one is being noted."""
    await publish(place, 40)
    log = FaultLog(place.log)
    await log.commit("shop.router", {IN: Position(0, '{"touched": 40, "tries": 0, "clean": false}')})
    log.commits.clear()
    noted: list[bool] = []

    def look(found: Event[Any]) -> bool:
        position = log.commits[-1][IN]
        noted.append(position.offset == found.data["n"] and json.loads(position.metadata)["tries"] == 1)
        return True

    async with routing(log, shop(look)) as process:
        await until(lambda: process.floor() == 40)
    assert noted == [True] * 40
    offsets = [commit[IN].offset for commit in log.commits]
    assert offsets == sorted(offsets)


async def test_touched_is_noted_before_a_chunk_and_again_after_it_could_not_be(place: Place) -> None:
    log = FaultLog(place.log)
    touched: list[int] = []

    def look(found: Event[Any]) -> bool:
        touched.append(json.loads(log.commits[-1][IN].metadata)["touched"])
        return True

    async with routing(log, shop(look)) as process:
        await until(lambda: IN in log.reading)
        log.away = True
        await publish(place, 2)
        await until(lambda: process.router.sources[IN].waiting_since_ms is not None)
        log.away = False
        await until(lambda: process.floor() == 2)
    assert len(touched) == 2
    assert all(each >= 2 for each in touched)


async def test_a_graceful_stop_leaves_a_clean_position(place: Place) -> None:
    await publish(place, 3)
    async with routing(FaultLog(place.log), shop()) as process:
        await until(lambda: process.floor() == 3)
    assert await place.position() == (3, {"touched": 3, "tries": 0, "clean": True})
    log = FaultLog(place.log)
    async with routing(log, shop()) as process:
        await publish(place, 2, first=3)
        await until(lambda: process.floor() == 5)
    assert all(json.loads(commit[IN].metadata)["tries"] == 0 for commit in log.commits)  # nothing went carefully
    assert accepted(await place.starts()) == [0, 1, 2, 3, 4]


async def test_a_graceful_stop_amid_careful_reading_is_no_try_and_stays_careful(place: Place) -> None:
    await publish(place, 3)
    first = FaultLog(place.log)
    await first.commit("shop.router", {IN: Position(1, '{"touched": 3, "tries": 2, "clean": false}')})
    first.hold("shop.runs")
    async with routing(first, shop()):
        await until(lambda: "shop.runs" in first.waiting)
        tries = [json.loads(commit[IN].metadata)["tries"] for commit in first.commits]
        assert tries == [2, 3, 1]  # and it was looked at, which clears it
    assert await place.position() == (1, {"touched": 3, "tries": 1, "clean": False})


async def test_expired_records_are_listed_and_counted(place: Place) -> None:
    await publish(place, 6)
    await place.log.trim(IN, 4)
    observer = Recorder()
    log = FaultLog(place.log)
    await log.commit("shop.router", {IN: Position(1, '{"touched": 6, "tries": 2, "clean": false}')})
    async with routing(log, shop(), observer=observer) as process:
        await until(lambda: process.floor() == 6)
    (entry,) = await place.values("shop.audit")
    assert (entry["kind"], entry["topic"], entry["partition"], entry["first"], entry["last"]) == (
        "expired",
        "in",
        0,
        1,
        3,
    )
    assert [(told.reason, told.offset, told.records) for told in observer.discarded] == [(DiscardReason.EXPIRED, 3, 3)]
    assert accepted(await place.starts()) == [4, 5]
    assert await place.records("in.dlq") == []


async def test_records_that_expire_behind_the_position_while_it_reads_are_listed_too(place: Place) -> None:
    log = FaultLog(place.log)
    async with routing(log, shop()) as process:
        await publish(place, 2)
        await until(lambda: process.floor() == 2)
        log.away = True
        await publish(place, 5, first=2)
        await until(lambda: process.router.sources[IN].waiting_since_ms is not None)
        await place.log.trim(IN, 6)
        log.away = False
        await until(lambda: process.floor() == 7)
    (entry,) = await place.values("shop.audit")
    assert (entry["kind"], entry["first"], entry["last"]) == ("expired", 2, 5)


async def test_a_position_beyond_the_end_stops_that_source_with_an_alarm_and_keeps_the_position(tmp_path: Path) -> None:
    async with place_at(tmp_path, sources=2) as place:
        other = TopicPartition("in", 1)
        await place.publish("in", event({"n": 0}), partition=0)
        await place.publish("in", event({"n": 1}), partition=1)
        observer = Recorder()
        log = FaultLog(place.log)
        await log.commit("shop.router", {IN: Position(7, '{"touched": 7, "tries": 0, "clean": true}')})
        await log.commit("shop.router", {other: Position(0)})
        async with routing(log, shop(), observer=observer) as process:
            await until(lambda: process.floor(partition=1) == 1)
            await until(lambda: process.router.sources[IN].stopped)
            await place.until(lambda: place.position(partition=1), lambda found: found[0] == 1)
            assert process.shared.stops == {IN: StopReason.TOPIC_REMADE}
        assert [(told.reason, told.code, told.offset) for told in observer.stopped] == [
            (StopReason.TOPIC_REMADE, "HR5012", 7)
        ]
        assert [order_of(start) for start in await place.starts()] == [1]
        assert (await place.position())[0] == 7  # a restart must stop there again
        assert (await place.position(partition=1))[1]["clean"]


async def test_unmatched_records_are_listed_as_ranges_before_the_position_moves(place: Place) -> None:
    records = [event({"n": n}, type="order.placed" if n == 2 else "gossip") for n in range(5)]
    await place.publish("in", *records)
    log = FaultLog(place.log)
    log.hold("shop.audit")
    observer = Recorder()
    async with routing(log, shop(), observer=observer) as process:
        await until(lambda: "shop.audit" in log.waiting)
        assert process.floor() == 0
        log.release("shop.audit")
        await until(lambda: process.floor() == 5)
    entries = await place.values("shop.audit")
    assert [(entry["kind"], entry["first"], entry["last"]) for entry in entries] == [
        ("unmatched", 0, 1),
        ("unmatched", 3, 4),
    ]
    assert all(entry["reason"] for entry in entries)
    assert sum(told.records for told in observer.discarded) == 4
    assert accepted(await place.starts()) == [2]


async def test_bad_records_become_dead_letters_and_their_neighbours_keep_their_order(place: Place) -> None:
    bad = NewRecord(value=b"{", key=b"k", headers=(("ce_specversion", b"1.0"), ("mine", b"kept")))
    tombstone = NewRecord(value=None, key=b"k")
    await place.publish(
        "in", event({"n": 0}, key="k"), bad, event({"n": 2}, key="k"), tombstone, event({"n": 4}, key="k")
    )
    observer = Recorder()
    async with routing(FaultLog(place.log), shop(), observer=observer) as process:
        await until(lambda: process.floor() == 5)
    assert [order_of(start) for start in await place.starts()] == [0, 2, 4]
    letters = [parse_dead_letter(record) for record in await place.records("in.dlq")]
    assert [(each.offset, each.key, each.value, each.headers) for each in letters if each] == [
        (1, b"k", b"{", bad.headers),
        (3, b"k", None, ()),
    ]
    assert [told.offset for told in observer.dead_lettered] == [1, 3]


async def test_many_dead_letters_leave_together(place: Place) -> None:
    await place.publish("in", *(NewRecord(value=b"{") for _ in range(300)))
    log = FaultLog(place.log)
    async with routing(log, shop()) as process:
        await until(lambda: process.floor() == 300)
    letters = [parse_dead_letter(record) for record in await place.records("in.dlq")]
    assert [each.offset for each in letters if each] == list(range(300))
    assert len(log.called("in.dlq")) < 10


async def test_a_dead_letter_that_is_refused_goes_with_its_facts_alone(place: Place) -> None:
    await place.publish("in", NewRecord(value=b"{", key=b"k"))
    log = FaultLog(place.log)
    log.refuses = lambda topic, record: topic == "in.dlq" and record.value is not None
    async with routing(log, shop()) as process:
        await until(lambda: process.floor() == 1)
    (letter,) = [parse_dead_letter(record) for record in await place.records("in.dlq")]
    assert letter is not None
    assert (letter.offset, letter.kept, letter.value_bytes) == (0, "coordinates", 1)


async def test_a_dead_letter_topic_that_takes_nothing_holds_the_source_and_says_so(place: Place) -> None:
    await place.publish("in", NewRecord(value=b"{"), event({"n": 1}))
    log = FaultLog(place.log)
    log.refuses = lambda topic, _record: topic == "in.dlq"
    async with routing(log, shop()) as process:
        await until(lambda: process.shared.stops.get(IN) is StopReason.REFUSED)
        assert process.floor() == 0
        log.refuses = lambda _topic, _record: False
        await until(lambda: process.floor() == 2)
    assert accepted(await place.starts()) == [1]


async def test_a_start_that_is_too_large_becomes_a_dead_letter(place: Place) -> None:
    await place.publish("in", event({"n": 0, "text": "x" * 4_000}), event({"n": 1}))
    async with routing(
        FaultLog(place.log), shop(), log={"max_record_bytes": 3_000}, limits={"payload": 100_000}
    ) as process:
        await until(lambda: process.floor() == 2)
    assert accepted(await place.starts()) == [1]
    (letter,) = [parse_dead_letter(record) for record in await place.records("in.dlq")]
    assert letter is not None
    assert (letter.stage, letter.code, letter.workflow) == (Stage.START, "HR3202", "order")


async def test_a_position_of_another_tool_counts_as_a_clean_stop(place: Place) -> None:
    await publish(place, 4)
    log = FaultLog(place.log)
    await log.commit("shop.router", {IN: Position(2)})
    async with routing(log, shop()) as process:
        await until(lambda: process.floor() == 4)
    assert accepted(await place.starts()) == [2, 3]
    assert all(json.loads(commit[IN].metadata)["tries"] == 0 for commit in log.commits[1:])


async def test_intake_waits_while_admission_is_full(place: Place) -> None:
    log = FaultLog(place.log)
    async with routing(log, shop(), worker={"max_active_runs": 1, "max_queued_bytes": 100}) as process:
        admission = process.shared.admission
        admission.ask("a", "order", 10, lambda _run: None)  # the one slot
        admission.ask("b", "order", 100, lambda _run: None, topic="in")  # waits, and fills what may wait
        await publish(place, 3)
        source = process.router.sources
        await until(lambda: IN in source and source[IN].waiting_since_ms is not None)
        for _ in range(50):
            await asyncio.sleep(0)
        assert await place.starts() == []
        admission.idle("a")
        await until(lambda: process.floor() == 3)


async def test_a_bug_stops_its_source_and_no_other(tmp_path: Path) -> None:
    async with place_at(tmp_path, sources=2) as place:
        log = FaultLog(place.log)
        async with routing(log, shop()) as process:
            await until(lambda: len(process.router.sources) == 2)
            broken = process.router.sources[IN]
            broken._chunk = 0  # the bug: no range() takes steps of this size
            await place.publish("in", event({"n": 0}), partition=0)
            await place.publish("in", event({"n": 1}), partition=1)
            await until(lambda: process.floor(partition=1) == 1)
            await until(lambda: process.shared.stops.get(IN) is StopReason.BUG)
        assert (await place.position())[0] == 0
        assert not (await place.position())[1]["clean"]


async def test_a_refusal_of_the_run_log_stops_the_source(place: Place) -> None:
    log = FaultLog(place.log)
    log.refuses = lambda topic, _record: topic == "shop.runs"
    await publish(place, 1)
    async with routing(log, shop()) as process:
        await until(lambda: process.shared.stops.get(IN) is StopReason.REFUSED)
        assert process.floor() == 0
    assert (await place.position())[0] == 0


async def test_every_outage_is_waited_out(place: Place) -> None:
    log = FaultLog(place.log)
    async with routing(log, shop()) as process:
        for n in range(3):
            log.faults["shop.runs"].append(Fault.AWAY)
            await publish(place, 1, first=n)
            await until(lambda n=n: process.floor() == n + 1)
    assert accepted(await place.starts()) == [0, 1, 2]
